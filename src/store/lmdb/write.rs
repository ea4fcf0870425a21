//! Write transactions, and how their commits come to the disk: by a flush of
//! the database, or of the journal.

use std::cell::RefMut;
use std::fs::File;
use std::io;

use lmdb::{RwTransaction, Transaction, WriteFlags};

use super::journaling::{Journaling, STATE_KEY};
use super::{Attempt, Failure, OpenEnvironment, failed, get_record};
use crate::policy::apply::{ReadRecords, Records};
use crate::policy::record::Database;
use crate::store::StoreError;
use crate::store::copies::{identity_of, remove_mark};
use crate::store::journal::{self, Entry, Journal, Place, journal_of};
use crate::store::key::{MAX_KEY, stored_key, stored_value};
use crate::sys::errors::describe;

/// A write transaction.
pub(super) struct Writing<'a> {
    open: &'a OpenEnvironment,
    transaction: RwTransaction<'a>,
    /// `None`: the database has no journal.
    pub(super) journaling: Option<Journaling>,
    entry: RefMut<'a, Entry>,
}

impl OpenEnvironment {
    pub(super) fn write(&self) -> Attempt<Writing<'_>> {
        let transaction = self
            .environment
            .begin_rw_txn()
            .map_err(failed("mdb_txn_begin"))?;
        let journaling = self.journaling(&transaction)?;
        let mut entry = self.entry.borrow_mut();
        entry.clear();
        Ok(Writing {
            open: self,
            transaction,
            journaling,
            entry,
        })
    }

    pub(super) fn journaling(&self, transaction: &impl Transaction) -> Attempt<Option<Journaling>> {
        match transaction.get(self.main, &STATE_KEY) {
            Ok(octets) => Ok(Journaling::decode(octets)),
            Err(lmdb::Error::NotFound) => Ok(None),
            Err(error) => Err(Failure::Call("mdb_get", error)),
        }
    }

    /// Fails if this is no longer the database in its directory: then journal
    /// and mark there are those of another.
    pub(super) fn make_sure_of_place(&self) -> Attempt<()> {
        match identity_of(&self.dir).ok() == Some(self.identity) {
            true => Ok(()),
            false => Err(Failure::Replaced),
        }
    }

    /// Writes an entry and flushes it; the place behind it.
    fn append(&self, place: Place, entry: &mut Entry) -> io::Result<Place> {
        let mut journal = self.journal.borrow_mut();
        let fits = |journal: &Journal| journal.number() == place.journal;
        let open = match journal.take().filter(fits) {
            Some(open) => open,
            None => Journal::open(&self.dir, place.journal)?,
        };
        journal.insert(open).append(place, entry)
    }

    /// Sets whether the commits of this process flush the database.
    fn set_flushing(&self, flushes: bool) -> Attempt<()> {
        let off = libc::c_int::from(!flushes);
        // SAFETY: the environment is open, and this process has no thread that
        // could use it meanwhile.
        let status = unsafe {
            lmdb_sys::mdb_env_set_flags(self.environment.env(), lmdb_sys::MDB_NOSYNC, off)
        };
        match status {
            0 => Ok(()),
            _ => Err(Failure::Call(
                "mdb_env_set_flags",
                lmdb::Error::from_err_code(status),
            )),
        }
    }

    pub(super) fn of_file(&self, call: &'static str) -> impl Fn(io::Error) -> Failure {
        let place = self.dir.display().to_string();
        move |error| {
            Failure::Given(StoreError {
                call,
                place: place.clone(),
                reason: describe(&error),
                is_of_system: true,
            })
        }
    }
}

impl Writing<'_> {
    pub(super) fn get_stored(&self, database: Database, stored: &[u8]) -> Attempt<Option<&[u8]>> {
        let handle = self.open.databases[database as usize];
        match self.transaction.get(handle, &stored) {
            Ok(value) => Ok(Some(value)),
            Err(lmdb::Error::NotFound) => Ok(None),
            Err(error) => Err(Failure::Call("mdb_get", error)),
        }
    }

    pub(super) fn put_stored(
        &mut self,
        database: Database,
        stored: &[u8],
        value: &[u8],
    ) -> Attempt<()> {
        if self.journaling.is_some() {
            self.entry.push(database, stored, Some(value));
        }
        let handle = self.open.databases[database as usize];
        self.transaction
            .put(handle, &stored, &value, WriteFlags::empty())
            .map_err(failed("mdb_put"))
    }

    pub(super) fn delete_stored(&mut self, database: Database, stored: &[u8]) -> Attempt<()> {
        let handle = self.open.databases[database as usize];
        match self.transaction.del(handle, &stored, None) {
            Ok(()) => {}
            Err(lmdb::Error::NotFound) => return Ok(()),
            Err(error) => return Err(Failure::Call("mdb_del", error)),
        }
        if self.journaling.is_some() {
            self.entry.push(database, stored, None);
        }
        Ok(())
    }

    pub(super) fn put_state(&mut self, journaling: Journaling) -> Attempt<()> {
        self.journaling = Some(journaling);
        self.transaction
            .put(
                self.open.main,
                &STATE_KEY,
                &journaling.encode(),
                WriteFlags::empty(),
            )
            .map_err(failed("mdb_put"))
    }

    /// Commits. What was changed is on the disk when this returns, in the
    /// journal or in the database, unless nothing is flushed at all.
    pub(super) fn commit(mut self) -> Attempt<()> {
        let open = self.open;
        let mut flushes = open.sync;
        if self.has_old_journal() {
            self.leave()?;
        }
        if let Some(journaling) = self.journaling {
            match open.append(journaling.place, &mut self.entry) {
                Ok(place) => {
                    flushes &= journaling.flushes;
                    self.put_state(Journaling {
                        place,
                        ..journaling
                    })?;
                }
                Err(error) => {
                    self.leave()?;
                    let path = journal_of(&open.dir);
                    *open.trouble.borrow_mut() =
                        Some(format!("{}: {}", path.display(), describe(&error)));
                }
            }
        }
        self.commit_unwritten(flushes)
    }

    /// Commits without an entry, and flushes the database or not.
    pub(super) fn commit_unwritten(self, flushes: bool) -> Attempt<()> {
        self.open.set_flushing(flushes)?;
        self.transaction.commit().map_err(failed("mdb_txn_commit"))
    }

    /// True if there is a journal, but of the database that was here before.
    pub(super) fn has_old_journal(&self) -> bool {
        self.open.is_successor && self.journaling.is_none() && journal_of(&self.open.dir).exists()
    }

    /// Does without the journal from this transaction on: all that was
    /// committed before is flushed, then nobody needs it any more.
    pub(super) fn leave(&mut self) -> Attempt<()> {
        let open = self.open;
        open.make_sure_of_place()?;
        open.environment
            .sync(true)
            .map_err(failed("mdb_env_sync"))?;
        // In this order: without a mark, nobody may go on with the journal.
        journal::remove(&open.dir)
            .and_then(|()| File::open(&open.dir)?.sync_all())
            .and_then(|()| match open.sync {
                true => remove_mark(&open.dir),
                false => Ok(()),
            })
            .map_err(open.of_file("leave the journal"))?;
        self.forget()
    }

    pub(super) fn forget(&mut self) -> Attempt<()> {
        let open = self.open;
        *open.journal.borrow_mut() = None;
        self.journaling = None;
        match self.transaction.del(open.main, &STATE_KEY, None) {
            Ok(()) | Err(lmdb::Error::NotFound) => Ok(()),
            Err(error) => Err(Failure::Call("mdb_del", error)),
        }
    }
}

impl ReadRecords for Writing<'_> {
    type Error = Failure;

    fn get(&self, database: Database, key: &[u8]) -> Attempt<Option<&[u8]>> {
        get_record(&self.transaction, &self.open.databases, database, key)
    }
}

impl Records for Writing<'_> {
    fn put(&mut self, database: Database, key: &[u8], value: &[u8]) -> Attempt<()> {
        let mut buffer = [0; MAX_KEY];
        self.put_stored(
            database,
            stored_key(key, &mut buffer),
            &stored_value(key, value),
        )
    }

    fn delete(&mut self, database: Database, key: &[u8]) -> Attempt<()> {
        let mut buffer = [0; MAX_KEY];
        self.delete_stored(database, stored_key(key, &mut buffer))
    }
}

/// The records for an [`Editor`](crate::store::Editor): a failure of LMDB is
/// kept, so that the transaction can be tried again, and ends the edit.
pub(super) struct Editing<'a> {
    writing: Writing<'a>,
    failure: std::cell::Cell<Option<Failure>>,
}

impl<'a> Editing<'a> {
    pub(super) fn new(writing: Writing<'a>) -> Self {
        Editing {
            writing,
            failure: Default::default(),
        }
    }

    /// The transaction, if the edit came to its end.
    pub(super) fn finish(self, result: Result<(), StoreError>) -> Attempt<Writing<'a>> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        result.map_err(Failure::Given)?;
        Ok(self.writing)
    }

    fn keep(&self, failure: Failure) -> StoreError {
        self.failure.set(Some(failure));
        StoreError {
            call: "edit",
            place: String::new(),
            reason: String::new(),
            is_of_system: false,
        }
    }
}

impl ReadRecords for Editing<'_> {
    type Error = StoreError;

    fn get(&self, database: Database, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        self.writing
            .get(database, key)
            .map_err(|failure| self.keep(failure))
    }
}

impl Records for Editing<'_> {
    fn put(&mut self, database: Database, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.writing
            .put(database, key, value)
            .map_err(|failure| self.keep(failure))
    }

    fn delete(&mut self, database: Database, key: &[u8]) -> Result<(), StoreError> {
        self.writing
            .delete(database, key)
            .map_err(|failure| self.keep(failure))
    }
}
