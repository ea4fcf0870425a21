//! Whether a database can be trusted, and what becomes of one that cannot.
//!
//! [`examine`] has the file read in a process of its own, which may die of it,
//! while the claim keeps everybody from changing it. A damaged file is set aside:
//! greylisting is soft state, mail is not.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lmdb::claim::{data_file, drop_reader_file, end_replacement, put_in_place, set_aside};
use super::lmdb::mark::{is_marked, remove_mark};
use super::lmdb::{LmdbOptions, LmdbStore, Purpose};
use super::{ErrorKind, Store, StoreError};
use crate::policy::record::Database;
use crate::sys::files::{new_file, remove_if_there};
use crate::sys::process::{ChildResult, run_in_child};

/// Seconds after which reading a database is given up.
const LONGEST_READ: u32 = 600;

/// What an examination has shown, and done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is no database.
    Absent,
    /// It is sound; so many records.
    Sound(u64),
    /// It was damaged, and is kept under this name.
    SetAside {
        /// What is wrong with it.
        why: String,
        /// Where it is now.
        kept: PathBuf,
    },
}

/// Reads the database in this directory and puts it in order; under the claim,
/// which the caller has taken. An error says nothing about the database, which is
/// then as it was, mark included. `has_failed_to_open`: that is why it is
/// examined, so `lock.mdb` is made anew as well.
///
/// A database with a mark was not flushed: after a crash of the machine a page
/// that is in use may stand in the list of free ones as well, which no reading
/// shows. So what could be read is written anew, without such a list.
pub fn examine(dir: &Path, has_failed_to_open: bool) -> Result<Verdict, StoreError> {
    let failed = |call| move |error: io::Error| StoreError::of_io(call, dir, &error);
    let was_marked = is_marked(dir);
    let copy = dir.join("data.mdb.verified");
    end_replacement(dir).map_err(failed("end a replacement"))?;
    if std::fs::symlink_metadata(data_file(dir)).is_err() {
        remove_mark(dir).map_err(failed("remove the mark"))?;
        return Ok(Verdict::Absent);
    }
    remove_if_there(&copy).map_err(failed("remove an old copy"))?;
    let result = run_in_child(LONGEST_READ, || {
        let records = read_and_copy(dir, was_marked.then_some(&copy));
        records
            .map(|records| records.to_string())
            .map_err(|error| match is_refusal(&error) {
                false => format!("{}: {}", error.call, error.reason),
                true => format!("{REFUSED}{}: {}", error.call, error.reason),
            })
    });
    let verdict = match result.map_err(failed("verify"))? {
        ChildResult::Ok(records) => {
            if was_marked {
                put_in_place(&copy, dir).map_err(failed("write it anew"))?;
            } else if has_failed_to_open {
                drop_reader_file(dir).map_err(failed("remove lock.mdb"))?;
            }
            Verdict::Sound(records.parse().unwrap_or(0))
        }
        ChildResult::Err(why) => {
            remove_if_there(&copy).map_err(failed("remove the copy"))?;
            if let Some(why) = why.strip_prefix(REFUSED) {
                return Err(StoreError::new(ErrorKind::System, "verify", dir, why));
            }
            let kept = set_aside(dir).map_err(failed("set it aside"))?;
            Verdict::SetAside { why, kept }
        }
        ChildResult::Crashed(how) => {
            remove_if_there(&copy).map_err(failed("remove the copy"))?;
            let why = format!("reading it ended with {how}");
            let kept = set_aside(dir).map_err(failed("set it aside"))?;
            Verdict::SetAside { why, kept }
        }
    };
    if was_marked {
        remove_mark(dir).map_err(failed("remove the mark"))?;
    }
    Ok(verdict)
}

/// Marks a text that says what the system refused.
const REFUSED: &str = "\0";

/// True if an error says nothing about the file. Whatever LMDB finds wrong while
/// nobody writes is the file's fault: a database that is not in it, a
/// transaction that a damaged page has ended.
pub fn is_refusal(error: &StoreError) -> bool {
    !matches!(error.kind, ErrorKind::Damage | ErrorKind::Other)
}

/// Verifies the database, and writes what it holds into a new file, flushed.
fn read_and_copy(dir: &Path, copy: Option<&PathBuf>) -> Result<u64, StoreError> {
    let mut store = LmdbStore::new(LmdbOptions {
        dir: dir.to_owned(),
        map_size: 0,
        purpose: Purpose::Verify,
        patience: Duration::ZERO,
    });
    let failed = |error: io::Error| StoreError::of_io("copy", dir, &error);
    // LMDB would take it for a database that is not there yet.
    if std::fs::metadata(data_file(dir)).is_ok_and(|found| found.len() == 0) {
        return Err(store.damage("stat", "the file is empty"));
    }
    match copy {
        None => verify_environment(&mut store),
        Some(path) => {
            let file = new_file(path).map_err(failed)?;
            let records = verify_into(&mut store, &file)?;
            file.sync_all().map_err(failed)?;
            Ok(records)
        }
    }
}

/// Reads every record: they must be in order, and as many as LMDB has counted;
/// and every page must be in use or free. How many records there are.
pub fn verify_environment(store: &mut LmdbStore) -> Result<u64, StoreError> {
    let nowhere = OpenOptions::new().write(true).open("/dev/null");
    let nowhere =
        nowhere.map_err(|error| StoreError::of_io("open", Path::new("/dev/null"), &error))?;
    verify_into(store, &nowhere)
}

fn verify_into(store: &mut LmdbStore, file: &File) -> Result<u64, StoreError> {
    let counted = store.space()?.records;
    for database in Database::ALL {
        let mut last: Option<Vec<u8>> = None;
        let mut count = 0;
        let in_order = store.scan(database, b"", None, &mut |entry| {
            if last.as_deref().is_some_and(|last| last >= entry.stored_key) {
                return ControlFlow::Break(());
            }
            let last = last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(entry.stored_key);
            count += 1;
            ControlFlow::Continue(())
        })?;
        if !in_order {
            return Err(store.damage(database.name(), "the keys are not in order"));
        }
        if count != counted[database as usize] {
            return Err(store.damage(database.name(), "records are missing"));
        }
    }
    // LMDB counts the pages when it makes a copy.
    store.copy_to(file)?;
    Ok(counted.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const PAGE: usize = 4096;

    /// Where this stands, each time it does.
    fn positions(data: &[u8], text: &[u8]) -> Vec<usize> {
        let all = data.windows(text.len()).enumerate();
        all.filter_map(|(at, window)| (window == text).then_some(at))
            .collect()
    }

    fn add_one(data: &mut [u8], at: usize) {
        let number = &mut data[at..at + size_of::<usize>()];
        let one_more = usize::from_ne_bytes(number.try_into().unwrap()) + 1;
        number.copy_from_slice(&one_more.to_ne_bytes());
    }

    /// What is said of a database after this was done to its file.
    fn look_at(damage: impl FnOnce(&mut Vec<u8>)) -> Result<u64, String> {
        let folder = tempfile::tempdir().unwrap();
        let options = LmdbOptions {
            dir: folder.path().to_owned(),
            map_size: 1 << 20,
            purpose: Purpose::WriteFlushed,
            patience: Duration::ZERO,
        };
        let insert = LmdbStore::new(options).edit(&[], &mut |records| {
            [b"key-a", b"key-b", b"key-c"]
                .iter()
                .try_for_each(|key| records.put(Database::Clients, *key, b"1,2"))
        });
        insert.unwrap();
        let file = folder.path().join("data.mdb");
        let mut data = fs::read(&file).unwrap();
        damage(&mut data);
        fs::write(&file, data).unwrap();
        verify_environment(&mut LmdbStore::new_reader(folder.path())).map_err(|error| error.reason)
    }

    #[test]
    fn damage_that_lmdb_reads_over_is_found() {
        assert_eq!(look_at(|_| {}), Ok(3));
        let in_disorder = look_at(|data| {
            for at in positions(data, b"key-b") {
                data[at + 4] = b'z';
            }
        });
        assert_eq!(in_disorder, Err("the keys are not in order".into()));
        let short = look_at(|data| {
            let name = Database::Clients.name().as_bytes();
            // After two flags and three counts of pages in an MDB_db.
            for at in positions(data, name) {
                add_one(data, at + name.len() + 8 + 3 * size_of::<usize>());
            }
        });
        assert_eq!(short, Err("records are missing".into()));
        let leaky = look_at(|data| {
            // The number of the last page, in both MDB_meta.
            for meta in [0, PAGE] {
                let header = 8 + size_of::<usize>();
                let databases = 2 * (8 + 5 * size_of::<usize>());
                let at = header + 8 + 2 * size_of::<usize>() + databases;
                add_one(data, meta + at);
            }
            data.resize(data.len() + PAGE, 0);
        });
        assert!(leaky.is_err(), "{leaky:?}");
    }

    /// A machine may crash before the first commit is on the disk.
    #[test]
    fn a_file_without_the_databases_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let environment = lmdb::Environment::new().open(folder.path());
        drop(environment.unwrap());
        let error = read_and_copy(folder.path(), None).unwrap_err();
        assert_eq!(error.call, "mdb_dbi_open");
        assert!(!is_refusal(&error), "{error}");
    }
}
