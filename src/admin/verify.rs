//! `verify`: every record is read and looked at, and nothing is changed. Of a file
//! that nobody uses every page, too.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::environment::open_file;
use super::escape::escaped;
use super::failure::Failure;
use super::opened::Opened;
use super::output::Output;
use super::progress::Progress;
use super::records::{Copied, each_record, objection};
use super::server_options::settings_of_store;
use super::words::Words;
use crate::policy::record::Database;
use crate::store::key::{MAX_KEY, stored_key};
use crate::store::lmdb::LmdbStore;
use crate::store::verify::verify_environment;

/// Says what is not a record; status 1 if there is one.
pub fn run(words: &Words) -> Result<(), Failure> {
    let mut opened = match words.operand(0) {
        b"" => Opened::for_reading(&settings_of_store(words)?)?,
        name => {
            let mut store = open_file(Path::new(OsStr::from_bytes(name)))?;
            verify_environment(&mut store)?;
            Opened::Lmdb(Box::new(store))
        }
    };
    let total = opened.records()?;
    let store = opened.get();
    let mut progress = Progress::new("verifying", total);
    let mut output = Output::new();
    let mut all_bad = 0;
    for database in Database::ALL {
        let (mut count, mut bad) = (0_u64, 0_u64);
        each_record(store, database, b"", &mut |record| {
            count += 1;
            progress.add(1);
            if let Some(why) = complaint(database, record) {
                bad += 1;
                output.line(format!(
                    "{}: {}: {why}",
                    database.name(),
                    escaped(&record.key)
                ))?;
            }
            Ok(())
        })?;
        output.line(format!("{}: {count} records, {bad} bad", database.name()))?;
        all_bad += bad;
    }
    output.finish()?;
    match all_bad {
        0 => Ok(()),
        _ => Err(Failure::no("")),
    }
}

/// How many records are none.
pub fn count_bad(store: &mut LmdbStore) -> Result<u64, Failure> {
    let mut bad = 0;
    for database in Database::ALL {
        each_record(store, database, b"", &mut |record| {
            bad += u64::from(complaint(database, record).is_some());
            Ok(())
        })?;
    }
    Ok(bad)
}

fn complaint(database: Database, record: &Copied) -> Option<&'static str> {
    let mut buffer = [0; MAX_KEY];
    let is_whole = record.stored_key == record.key;
    if !is_whole && stored_key(&record.key, &mut buffer) != record.stored_key {
        return Some("stored under the key of another record");
    }
    objection(database, &record.key, &record.value)
}
