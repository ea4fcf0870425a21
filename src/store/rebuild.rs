//! Makes the database anew from its copy and its journal.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::copies::{copy_of, look_through, new_file};
use super::journal::Journal;
use super::lmdb::{LmdbOptions, LmdbStore};

/// The directory in which the new database is made.
fn workshop_of(dbdir: &Path) -> PathBuf {
    dbdir.join("data.mdb.rebuilt")
}

/// A database that was made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuilt {
    /// Records that it has.
    pub records: u64,
    /// Commits that were found in the journal.
    pub commits: u64,
}

/// The new database, if [`rebuild`] has made one.
pub fn rebuilt_of(dbdir: &Path) -> PathBuf {
    workshop_of(dbdir).join("data.mdb")
}

/// Removes what [`rebuild`] has made.
pub fn clear_away(dbdir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(workshop_of(dbdir)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes the database anew, beside the one that is there, and flushes it;
/// `None` if there is no journal, or it is not the copy's.
pub fn rebuild(dbdir: &Path) -> Result<Option<Rebuilt>, StoreError> {
    let place = dbdir.display().to_string();
    let failed = |call: &'static str| {
        let place = place.clone();
        move |error: io::Error| StoreError {
            call,
            place: place.clone(),
            reason: error.to_string(),
            is_of_system: true,
        }
    };
    let copy = copy_of(dbdir);
    if !copy.exists() {
        return Ok(None);
    }
    clear_away(dbdir).map_err(failed("clear away"))?;
    let workshop = workshop_of(dbdir);
    fs::create_dir(&workshop)
        .and_then(|()| {
            let mut part = new_file(&workshop.join("data.mdb"))?;
            io::copy(&mut fs::File::open(&copy)?, &mut part)
        })
        .map_err(failed("copy the copy"))?;
    let mut store = LmdbStore::new(LmdbOptions {
        dir: workshop,
        map_size: 0,
        sync: false,
    });
    let Some(journaling) = store.journaling()? else {
        return Ok(None);
    };
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    let journal = match Journal::open(dbdir, journaling.place.journal) {
        Err(error) if [InvalidData, NotFound, UnexpectedEof].contains(&error.kind()) => {
            return Ok(None);
        }
        journal => journal,
    };
    let mut entries = journal
        .and_then(|journal| journal.entries(journaling.place))
        .map_err(failed("open the journal"))?;
    store.replay(&mut entries)?;
    let records = look_through(&mut store)?;
    store.flush()?;
    Ok(Some(Rebuilt {
        records,
        commits: entries.number() - journaling.place.number,
    }))
}

#[cfg(test)]
mod tests {
    use super::super::copies::is_marked;
    use super::super::journal;
    use super::*;
    use crate::policy::record::Database;
    use crate::store::Store;

    /// A database with a copy and a journal behind it: three records and one in
    /// the copy, two more in the journal, and one removed there.
    fn journaled(dbdir: &Path) {
        let mut store = LmdbStore::new(LmdbOptions {
            dir: dbdir.to_owned(),
            map_size: 1 << 22,
            sync: true,
        });
        let put = |store: &mut LmdbStore, key: &[u8]| {
            let put = store.edit(&mut |records| records.put(Database::Greylist, key, b"1"));
            put.unwrap();
        };
        let long = [b'k'; 600];
        put(&mut store, b"before");
        let number = store.begin_journal().unwrap();
        put(&mut store, b"meanwhile");
        let copy = new_file(&copy_of(dbdir)).unwrap();
        store.copy_to(&copy).unwrap();
        put(&mut store, b"behind");
        store.rely_on_journal(number, &mut || Ok(())).unwrap();
        put(&mut store, &long);
        let removed = store.edit(&mut |records| records.delete(Database::Greylist, b"before"));
        removed.unwrap();
    }

    fn keys(store: &mut LmdbStore) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        let visited = store.scan(Database::Greylist, None, &mut |entry| {
            keys.push(entry.key.to_vec());
            std::ops::ControlFlow::Continue(())
        });
        assert_eq!(visited, Ok(true));
        keys
    }

    #[test]
    fn copy_and_journal_make_the_database() {
        let folder = tempfile::tempdir().unwrap();
        let dbdir = folder.path();
        assert_eq!(rebuild(dbdir), Ok(None));
        journaled(dbdir);
        assert!(is_marked(dbdir));
        // Nothing else is needed, and it may be done twice.
        fs::remove_file(dbdir.join("data.mdb")).unwrap();
        let made = Ok(Some(Rebuilt {
            records: 3,
            commits: 4,
        }));
        assert_eq!(rebuild(dbdir), made);
        assert_eq!(rebuild(dbdir), made);
        let mut store = LmdbStore::new_reader(&workshop_of(dbdir));
        let long = [b'k'; 600];
        assert_eq!(keys(&mut store), [&b"behind"[..], &long, b"meanwhile"]);
        assert_eq!(store.journaling(), Ok(None));
        assert!(rebuilt_of(dbdir).exists());
        clear_away(dbdir).unwrap();
        clear_away(dbdir).unwrap();
        assert!(!rebuilt_of(dbdir).exists());
    }

    #[test]
    fn a_copy_without_its_journal_makes_none() {
        let folder = tempfile::tempdir().unwrap();
        let dbdir = folder.path();
        journaled(dbdir);
        let file = journal::journal_of(dbdir);
        journal::remove(dbdir).unwrap();
        assert_eq!(rebuild(dbdir), Ok(None));
        fs::write(&file, "not long").unwrap();
        assert_eq!(rebuild(dbdir), Ok(None));
        Journal::create(dbdir, 1).unwrap();
        assert_eq!(rebuild(dbdir), Ok(None));
    }

    #[test]
    fn a_damaged_copy_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let dbdir = folder.path();
        journaled(dbdir);
        fs::write(copy_of(dbdir), [0; 9000]).unwrap();
        let error = rebuild(dbdir).unwrap_err();
        assert!(!error.is_of_system, "{error}");
    }
}
