//! The files beside a database: copies, one of which takes its place, and the
//! mark that it may not be whole on the disk.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lmdb::LmdbStore;
use super::{Store, StoreError};
use crate::policy::record::Database;

/// Longer than any process uses an environment without looking whether it is
/// still the one in the directory (a second).
pub const NOTICE: Duration = Duration::from_millis(1200);

/// The mark of a database whose last commits may not be on the disk.
pub fn mark_of(dbdir: &Path) -> PathBuf {
    dbdir.join("data.mdb.unflushed")
}

/// True if the mark is there: a server runs with `--sync=none`, or did not end
/// in order.
pub fn is_marked(dbdir: &Path) -> bool {
    mark_of(dbdir).exists()
}

/// A new file that only its owner may read.
pub fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Puts a copy in the place of the database; it is there on the disk when this
/// returns. Nobody may have the old one open but those that look every second
/// whether it is still there: a copy begins a new count of transactions, so the
/// file of the readers goes with the old one.
pub fn put_in_place(part: &Path, dbdir: &Path) -> io::Result<()> {
    remove_if_there(&dbdir.join("lock.mdb"))?;
    fs::rename(part, dbdir.join("data.mdb"))?;
    File::open(dbdir)?.sync_all()
}

/// Removes a file that may be missing.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads every record: they must be in order, and as many as LMDB has counted;
/// and every page must be in use or free. How many records there are.
pub fn look_through(store: &mut LmdbStore) -> Result<u64, StoreError> {
    let counted = store.space()?.records;
    for database in Database::ALL {
        let mut last: Option<Vec<u8>> = None;
        let mut count = 0;
        let in_order = store.scan(database, None, &mut |entry| {
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
            return Err(store.error(database.name(), "the keys are not in order"));
        }
        if count != counted[database as usize] {
            return Err(store.error(database.name(), "records are missing"));
        }
    }
    // LMDB counts the pages when it makes a copy.
    let nowhere = OpenOptions::new().write(true).open("/dev/null");
    let nowhere = nowhere.map_err(|error| StoreError {
        is_of_system: true,
        ..store.error("open /dev/null", error)
    })?;
    store.copy_to(&nowhere)?;
    Ok(counted.iter().sum())
}
