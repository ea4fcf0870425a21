//! Looking triplets up in the database of a server that may be running.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use crate::admin::failure::Failure;
use crate::admin::opened::Opened;
use crate::admin::records::each_record;
use crate::config::settings::Settings;
use crate::policy::record::{Database, TripletRecord};

/// Those of these triplets, by the hashes of their keys, of which first and last use are
/// so many seconds apart.
pub fn used_again(
    settings: &Settings,
    wanted: &HashSet<u64>,
    hasher: &RandomState,
    delay: f64,
) -> Result<HashSet<u64>, Failure> {
    let mut used = HashSet::new();
    let mut store = Opened::for_reading(settings)?;
    each_record(store.get(), Database::Greylist, b"", &mut |record| {
        let key = hasher.hash_one(&record.key[..]);
        if wanted.contains(&key)
            && TripletRecord::parse(&record.value).is_some_and(|found| found.age() >= delay)
        {
            used.insert(key);
        }
        Ok(())
    })?;
    Ok(used)
}
