//! Looking triplets up in the database of a server that may be running.

use std::collections::{HashMap, HashSet};

use crate::admin::failure::Failure;
use crate::admin::opened::Opened;
use crate::admin::records::each_record;
use crate::config::settings::Settings;
use crate::policy::record::{Database, TripletRecord};

/// The seconds between first and last use of each of these triplets that is there.
pub fn ages(
    settings: &Settings,
    wanted: &HashSet<&[u8]>,
) -> Result<HashMap<Vec<u8>, f64>, Failure> {
    let mut ages = HashMap::new();
    let mut store = Opened::for_reading(settings)?;
    each_record(store.get(), Database::Greylist, b"", &mut |record| {
        if wanted.contains(&record.key[..])
            && let Some(found) = TripletRecord::parse(&record.value)
        {
            ages.insert(record.key.clone(), found.age());
        }
        Ok(())
    })?;
    Ok(ages)
}
