//! What the database holds, and how old it is, while a server may run.

use crate::admin::failure::Failure;
use crate::admin::opened::Opened;
use crate::admin::records::each_record;
use crate::admin::state::judge;
use crate::config::settings::Settings;
use crate::policy::record::Database;
use crate::policy::rules::Rules;

/// Upper ends of ages in seconds, and their names.
pub const AGES: [(f64, &str); 7] = [
    (3600.0, "within 1 h"),
    (21_600.0, "within 6 h"),
    (86_400.0, "within 1 d"),
    (172_800.0, "within 2 d"),
    (604_800.0, "within 7 d"),
    (3_024_000.0, "within 35 d"),
    (f64::INFINITY, "more than 35 d"),
];

/// What the databases hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Databases {
    /// Records of triplets, clients and the tarpit by the time since their last use.
    pub records: [[u64; AGES.len()]; 3],
    /// Octets of their keys and values.
    pub octets: u64,
}

/// Counts the records of a database at `now`, in seconds since 1970.
pub fn count(settings: &Settings, now: f64) -> Result<Databases, Failure> {
    let mut store = Opened::for_reading(settings)?;
    let mut records = [[0; AGES.len()]; 3];
    let mut octets = 0;
    for (database, ages) in Database::ALL.into_iter().zip(&mut records) {
        each_record(store.get(), database, b"", &mut |record| {
            octets += (record.stored_key.len() + record.value.len()) as u64;
            if let Some(found) = judge(&Rules::default(), database, &record.value, now) {
                let age = AGES.iter().position(|(end, _)| now - found.last < *end);
                ages[age.unwrap_or(AGES.len() - 1)] += 1;
            }
            Ok(())
        })?;
    }
    Ok(Databases { records, octets })
}
