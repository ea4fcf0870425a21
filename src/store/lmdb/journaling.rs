//! The life of a journal: begun beside the flushes of the database, relied on
//! instead of them, and left or replayed.

use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use super::LmdbStore;
use crate::store::StoreError;
use crate::store::copies::{remove_mark, set_mark};
use crate::store::journal::{Entries, Journal, Place, changes_in};

/// The key of the journal's state in LMDB's own database. No name of a database
/// holds a NUL.
pub(super) const STATE_KEY: &[u8] = b"journal\0";
/// Entries of the journal that are replayed in one transaction.
const REPLAYED_AT_ONCE: usize = 1000;
/// Octets of the state.
const STATE_LEN: usize = 25;
/// The state of the journal of a database that has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Journaling {
    /// Where the next entry goes.
    pub place: Place,
    /// There is no copy yet that the journal belongs to: the database is
    /// flushed as well.
    pub flushes: bool,
}

impl Journaling {
    pub(super) fn encode(self) -> [u8; STATE_LEN] {
        let mut octets = [0; STATE_LEN];
        octets[..8].copy_from_slice(&self.place.journal.to_le_bytes());
        octets[8..16].copy_from_slice(&self.place.offset.to_le_bytes());
        octets[16..24].copy_from_slice(&self.place.number.to_le_bytes());
        octets[24] = u8::from(self.flushes);
        octets
    }

    pub(super) fn decode(octets: &[u8]) -> Option<Self> {
        let octets: &[u8; STATE_LEN] = octets.try_into().ok()?;
        let number = |at: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&octets[at..at + 8]);
            u64::from_le_bytes(eight)
        };
        Some(Journaling {
            place: Place {
                journal: number(0),
                offset: number(8),
                number: number(16),
            },
            flushes: octets[24] != 0,
        })
    }
}

impl LmdbStore {
    /// The state of the journal; `None`: each commit flushes the database.
    pub fn journaling(&mut self) -> Result<Option<Journaling>, StoreError> {
        self.attempt(|open| open.journaling(&open.read()?.transaction))
    }

    /// Once why the journal was given up since the last call.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.open.as_ref()?.trouble.take()
    }

    /// Begins a journal, beside the flushes of the database: a copy that is
    /// made behind this knows where in the journal it stands. The journal's
    /// number.
    pub fn begin_journal(&mut self) -> Result<u64, StoreError> {
        self.leave_journal()?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let number = since.unwrap_or_default().as_nanos() as u64;
        self.attempt(|open| {
            let mut writing = open.write()?;
            open.make_sure_of_place()?;
            // One that is left is that of a database that was replaced.
            remove_mark(&open.dir)
                .and_then(|()| Journal::create(&open.dir, number))
                .map_err(open.of_file("begin a journal"))?;
            // The state begins to hold with the next transaction.
            writing.put_state(Journaling {
                place: Place::first(number),
                flushes: true,
            })?;
            writing.commit_unwritten(open.sync)
        })?;
        Ok(number)
    }

    /// Does without flushes of the database from now on, if this journal is
    /// still in use. There is a copy that was made behind its start; `publish`
    /// puts it where a start finds it, while nobody can begin another journal.
    pub fn rely_on_journal(
        &mut self,
        number: u64,
        publish: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<(), StoreError> {
        let mut is_published = false;
        self.attempt(|open| {
            let mut writing = open.write()?;
            let Some(journaling) = writing.journaling else {
                // Whoever gave it up has said why.
                return Ok(());
            };
            if journaling.place.journal != number {
                return Ok(());
            }
            if !is_published {
                open.make_sure_of_place()?;
                publish().map_err(open.of_file("publish the copy"))?;
                set_mark(&open.dir).map_err(open.of_file("set the mark"))?;
                is_published = true;
            }
            writing.put_state(Journaling {
                flushes: false,
                ..journaling
            })?;
            writing.commit()
        })
    }

    /// Flushes the database and does without the journal from now on.
    pub fn leave_journal(&mut self) -> Result<(), StoreError> {
        self.attempt(|open| {
            let mut writing = open.write()?;
            if writing.journaling.is_some() || writing.has_old_journal() {
                writing.leave()?;
                writing.commit()?;
            }
            Ok(())
        })
    }

    /// Takes the database for one without a journal; the file of the journal
    /// stays.
    pub fn forget_journal(&mut self) -> Result<(), StoreError> {
        self.attempt(|open| {
            let mut writing = open.write()?;
            writing.forget()?;
            writing.commit()
        })
    }

    /// Makes the changes of these entries, and forgets the journal: what comes
    /// out is flushed once, by the caller.
    pub fn replay(&mut self, entries: &mut Entries) -> Result<(), StoreError> {
        let mut buffer = Vec::new();
        let mut is_at_end = false;
        while !is_at_end {
            buffer.clear();
            for _ in 0..REPLAYED_AT_ONCE {
                match entries.read(&mut buffer) {
                    Ok(true) => {}
                    Ok(false) => is_at_end = true,
                    Err(error) => return Err(self.error("read the journal", error)),
                }
                if is_at_end {
                    break;
                }
            }
            self.attempt(|open| {
                let mut writing = open.write()?;
                writing.forget()?;
                for change in changes_in(&buffer) {
                    let (database, key) = (change.database, change.stored_key);
                    match change.stored_value {
                        Some(value) => writing.put_stored(database, key, value)?,
                        None => writing.delete_stored(database, key)?,
                    }
                }
                writing.commit()
            })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::super::LmdbOptions;
    use super::*;
    use crate::policy::record::Database;
    use crate::store::Store;
    use crate::store::copies::is_marked;
    use crate::store::journal::journal_of;

    fn store(dir: &Path) -> LmdbStore {
        LmdbStore::new(LmdbOptions {
            dir: dir.to_owned(),
            map_size: 1 << 22,
            sync: true,
        })
    }

    fn put(store: &mut LmdbStore, key: &[u8]) -> Result<(), StoreError> {
        store.edit(&mut |records| records.put(Database::Clients, key, b"1,2"))
    }

    /// A store in a folder that relies on its journal.
    fn relying(dir: &Path) -> LmdbStore {
        let mut store = store(dir);
        let number = store.begin_journal().unwrap();
        assert!(store.journaling().unwrap().unwrap().flushes);
        assert!(!is_marked(dir));
        let mut published = 0;
        let mut publish = || {
            published += 1;
            Ok(())
        };
        // Another one's copy is of no use.
        store.rely_on_journal(number + 1, &mut publish).unwrap();
        assert!(store.journaling().unwrap().unwrap().flushes);
        store.rely_on_journal(number, &mut publish).unwrap();
        assert_eq!(published, 1);
        assert!(!store.journaling().unwrap().unwrap().flushes);
        assert!(is_marked(dir));
        store
    }

    /// It flushes its database, and has done so.
    fn assert_left(store: &mut LmdbStore, dir: &Path) {
        assert_eq!(store.journaling().unwrap(), None);
        assert!(!is_marked(dir));
        assert!(!journal_of(dir).exists());
    }

    #[test]
    fn each_commit_has_one_entry_whoever_makes_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut first = relying(folder.path());
        let mut second = store(folder.path());
        let start = first.journaling().unwrap().unwrap().place;
        put(&mut first, b"192.0.2.1").unwrap();
        put(&mut second, b"192.0.2.2").unwrap();
        put(&mut first, b"192.0.2.3").unwrap();
        let gone = second.edit(&mut |records| {
            records.put(Database::Clients, b"192.0.2.4", b"1,2")?;
            Err(StoreError::of_bug())
        });
        assert_eq!(gone, Err(StoreError::of_bug()));
        let end = first.journaling().unwrap().unwrap().place;
        assert_eq!(end.number - start.number, 3);
        let journal = Journal::open(folder.path(), start.journal).unwrap();
        let mut entries = journal.entries(start).unwrap();
        let mut buffer = Vec::new();
        while entries.read(&mut buffer).unwrap() {}
        let keys: Vec<_> = changes_in(&buffer).map(|c| c.stored_key).collect();
        assert_eq!(keys, [b"192.0.2.1", b"192.0.2.2", b"192.0.2.3"]);
        first.leave_journal().unwrap();
        assert_left(&mut second, folder.path());
        second.leave_journal().unwrap();
    }

    #[test]
    fn a_journal_that_is_lost_is_done_without() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = relying(folder.path());
        put(&mut store, b"192.0.2.1").unwrap();
        assert_eq!(store.take_trouble(), None);
        for (has_it_open, why) in [(false, "No such file"), (true, "it was removed")] {
            fs::remove_file(journal_of(folder.path())).unwrap();
            if !has_it_open {
                store = self::store(folder.path());
            }
            put(&mut store, b"192.0.2.2").unwrap();
            let trouble = store.take_trouble().unwrap();
            assert!(
                trouble.contains(&format!("data.mdb.journal: {why}")),
                "{trouble}"
            );
            assert_eq!(store.take_trouble(), None);
            assert_left(&mut store, folder.path());
            put(&mut store, b"192.0.2.3").unwrap();
            assert_eq!(store.space().unwrap().records, [0, 3, 0]);
            drop(store);
            store = relying(folder.path());
            put(&mut store, b"192.0.2.1").unwrap();
        }
    }

    #[test]
    fn what_cannot_be_flushed_is_not_committed() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = relying(folder.path());
        // Neither the journal nor a way without it.
        fs::remove_file(journal_of(folder.path())).unwrap();
        fs::create_dir(journal_of(folder.path())).unwrap();
        let mut other = self::store(folder.path());
        let error = put(&mut other, b"192.0.2.1").unwrap_err();
        assert_eq!(error.call, "leave the journal");
        assert!(error.is_of_system);
        assert!(is_marked(folder.path()));
        assert_eq!(store.space().unwrap().records, [0, 0, 0]);
        fs::remove_dir(journal_of(folder.path())).unwrap();
        put(&mut other, b"192.0.2.1").unwrap();
        assert_left(&mut store, folder.path());
    }

    #[test]
    fn a_database_in_the_place_of_another_has_no_journal() {
        let folder = tempfile::tempdir().unwrap();
        let mut store = relying(folder.path());
        put(&mut store, b"192.0.2.1").unwrap();
        for name in ["data.mdb", "lock.mdb", "data.mdb.journal"] {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        let mut other = self::store(folder.path());
        other.prepare().unwrap();
        *store.open.as_ref().unwrap().journal.borrow_mut() = None;
        put(&mut store, b"192.0.2.2").unwrap();
        assert_eq!(store.take_trouble(), None);
        assert_eq!(other.space().unwrap().records, [0, 1, 0]);
    }

    #[test]
    fn the_journal_goes_with_its_database() {
        let folder = tempfile::tempdir().unwrap();
        for has_committed in [false, true] {
            let mut store = relying(folder.path());
            put(&mut store, b"192.0.2.1").unwrap();
            for name in ["data.mdb", "lock.mdb"] {
                fs::remove_file(folder.path().join(name)).unwrap();
            }
            std::thread::sleep(super::super::CHECK_INTERVAL);
            if has_committed {
                put(&mut store, b"192.0.2.2").unwrap();
            } else {
                assert_eq!(store.space().unwrap().records, [0, 0, 0]);
                store.leave_journal().unwrap();
            }
            assert_left(&mut store, folder.path());
        }
        // A mark without a journal is that of a server with --sync=none.
        let mut store = self::store(folder.path());
        store.prepare().unwrap();
        set_mark(folder.path()).unwrap();
        for name in ["data.mdb", "lock.mdb"] {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        std::thread::sleep(super::super::CHECK_INTERVAL);
        put(&mut store, b"192.0.2.3").unwrap();
        assert!(is_marked(folder.path()));
    }

    #[test]
    fn a_database_of_the_past_leaves_the_journal_of_the_present_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut past = relying(folder.path());
        put(&mut past, b"192.0.2.1").unwrap();
        for name in ["data.mdb", "lock.mdb"] {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        let mut present = relying(folder.path());
        let before = present.journaling().unwrap().unwrap().place;
        // Its own entry goes into the file that was removed.
        put(&mut past, b"192.0.2.2").unwrap();
        assert_eq!(past.take_trouble(), None);
        assert_eq!(present.space().unwrap().records, [0, 1, 0]);
        let behind = present.journaling().unwrap().unwrap().place;
        assert_eq!(
            (behind.journal, behind.number),
            (before.journal, before.number + 1)
        );
        assert!(is_marked(folder.path()));
    }

    #[test]
    fn the_state_is_kept_in_so_many_octets() {
        let state = Journaling {
            place: Place {
                journal: u64::MAX - 1,
                offset: 1 << 40,
                number: 3,
            },
            flushes: true,
        };
        assert_eq!(Journaling::decode(&state.encode()), Some(state));
        assert_eq!(Journaling::decode(b"short"), None);
    }
}
