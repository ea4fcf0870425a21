//! The files beside a database: copies, one of which takes its place, and the
//! mark that it may not be whole on the disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::lmdb::LmdbStore;
use super::{Store, StoreError};
use crate::policy::record::Database;

/// Longer than any process uses an environment without looking whether it is
/// still the one in the directory (a second).
pub const NOTICE: Duration = Duration::from_millis(1200);

/// What the mark says to whoever opens it.
const MARK_TEXT: &str = "A server uses the database, or did not come to its end.\n";

/// The mark of a database whose last commits may not be on the disk.
pub fn mark_of(dbdir: &Path) -> PathBuf {
    dbdir.join("data.mdb.unflushed")
}

/// True if the mark is there: a server runs that does not flush the database,
/// or one did not end in order.
pub fn is_marked(dbdir: &Path) -> bool {
    mark_of(dbdir).exists()
}

/// Notes on the disk that the database is not flushed from now on.
pub fn set_mark(dbdir: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(mark_of(dbdir))?;
    file.write_all(MARK_TEXT.as_bytes())?;
    file.sync_all()?;
    File::open(dbdir)?.sync_all()
}

/// Notes on the disk that everything is there.
pub fn remove_mark(dbdir: &Path) -> io::Result<()> {
    remove_if_there(&mark_of(dbdir))?;
    File::open(dbdir)?.sync_all()
}

/// The last copy of the database in this directory.
pub fn copy_of(dbdir: &Path) -> PathBuf {
    dbdir.join("data.mdb.copy")
}

/// Which file the database is: device and number.
pub fn identity_of(dbdir: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(dbdir.join("data.mdb"))?;
    Ok((metadata.dev(), metadata.ino()))
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

#[cfg(test)]
mod tests {
    use super::super::lmdb::LmdbOptions;
    use super::*;

    const PAGE: usize = 4096;

    /// Where this stands, wherever it does.
    fn places(data: &[u8], text: &[u8]) -> Vec<usize> {
        let all = data.windows(text.len()).enumerate();
        all.filter_map(|(place, window)| (window == text).then_some(place))
            .collect()
    }

    fn add_one(data: &mut [u8], place: usize) {
        let number = &mut data[place..place + size_of::<usize>()];
        let one_more = usize::from_ne_bytes(number.try_into().unwrap()) + 1;
        number.copy_from_slice(&one_more.to_ne_bytes());
    }

    /// What is said of a database after this was done to its file.
    fn look_at(damage: impl FnOnce(&mut Vec<u8>)) -> Result<u64, String> {
        let folder = tempfile::tempdir().unwrap();
        let options = LmdbOptions {
            dir: folder.path().to_owned(),
            map_size: 1 << 20,
            sync: true,
        };
        let insert = LmdbStore::new(options).edit(&mut |records| {
            [b"key-a", b"key-b", b"key-c"]
                .iter()
                .try_for_each(|key| records.put(Database::Clients, *key, b"1,2"))
        });
        insert.unwrap();
        let file = folder.path().join("data.mdb");
        let mut data = fs::read(&file).unwrap();
        damage(&mut data);
        fs::write(&file, data).unwrap();
        look_through(&mut LmdbStore::new_reader(folder.path())).map_err(|error| error.reason)
    }

    #[test]
    fn damage_that_lmdb_reads_over_is_found() {
        assert_eq!(look_at(|_| {}), Ok(3));
        let in_disorder = look_at(|data| {
            for place in places(data, b"key-b") {
                data[place + 4] = b'z';
            }
        });
        assert_eq!(in_disorder, Err("the keys are not in order".into()));
        let short = look_at(|data| {
            let name = Database::Clients.name().as_bytes();
            // Behind two flags and three counts of pages in an MDB_db.
            for place in places(data, name) {
                add_one(data, place + name.len() + 8 + 3 * size_of::<usize>());
            }
        });
        assert_eq!(short, Err("records are missing".into()));
        let leaky = look_at(|data| {
            // The number of the last page, in both MDB_meta.
            for meta in [0, PAGE] {
                let header = 8 + size_of::<usize>();
                let databases = 2 * (8 + 5 * size_of::<usize>());
                let place = header + 8 + 2 * size_of::<usize>() + databases;
                add_one(data, meta + place);
            }
            data.resize(data.len() + PAGE, 0);
        });
        assert!(leaky.is_err(), "{leaky:?}");
    }
}
