//! The store of the daemon: one LMDB environment shared by all processes.
//!
//! Each process opens it for itself, after its fork. Readers never wait;
//! writers meet in one transaction (see `server::commit`). The map grows when
//! it is full, follows growth by others, and the environment is opened anew
//! when it was removed or replaced under the process, so that every trouble
//! ends when its cause does.
#![allow(unsafe_code)]

mod inspect;
mod journaling;
mod write;

pub use inspect::{Reader, Space};
pub use journaling::Journaling;
use write::Editing;

use std::cell::RefCell;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use lmdb::{Cursor, DatabaseFlags, Environment, EnvironmentFlags, RoTransaction, Transaction};

use super::copies::identity_of;
use super::journal::{Entry as JournalEntry, Journal};
use super::key::{MAX_KEY, plain_value, split_stored, stored_key};
use super::readers::{MAX_READERS, make_reader_file};
use super::{Editor, Entry, Store, StoreError, Visitor};
use crate::policy::apply::{ReadRecords, apply, apply_read_only, may_decide_by_reading};
use crate::policy::command::{Command, Outcome};
use crate::policy::record::{Database, is_expired};
use crate::policy::rules::Rules;

/// How often a process looks whether its environment is still the one in the
/// directory, and how long a failed open is not tried again.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a transaction is begun again after the map has changed.
const MAX_TRIES: usize = 8;
/// The map grows by a quarter, and at least by this many octets.
const LEAST_GROWTH: usize = 1 << 20;

/// How an environment is opened.
#[derive(Clone, Debug)]
pub struct LmdbOptions {
    /// The directory of the environment; it must exist.
    pub dir: PathBuf,
    /// Size of the map in octets; it grows beyond when it is full. 0: as it
    /// is in the environment.
    pub map_size: usize,
    /// Flush records at each commit.
    pub sync: bool,
}

/// An environment, opened when it is first needed.
pub struct LmdbStore {
    options: LmdbOptions,
    /// Nothing is made or written, not even an environment.
    is_reader: bool,
    open: Option<OpenEnvironment>,
    /// The last failure to open, and when.
    failure: Option<(Instant, StoreError)>,
    /// The map had to grow since this was last asked.
    has_grown: bool,
    /// How often an environment was opened.
    openings: u64,
    /// The last one was closed because there is another in its place.
    was_replaced: bool,
}

struct OpenEnvironment {
    environment: Environment,
    databases: [lmdb::Database; 3],
    /// LMDB's own database, which lists the others: the state of the journal is
    /// kept there.
    main: lmdb::Database,
    dir: PathBuf,
    /// Flush what no journal holds.
    sync: bool,
    journal: RefCell<Option<Journal>>,
    /// The changes of the transaction under way.
    entry: RefCell<JournalEntry>,
    /// Why the journal was given up since this was last asked.
    trouble: RefCell<Option<String>>,
    /// Device and inode of the data file.
    identity: (u64, u64),
    /// This process had another one in the same place open before.
    is_successor: bool,
    checked: Instant,
}

/// Why a transaction ended early.
enum Failure {
    /// A call of LMDB failed.
    Call(&'static str, lmdb::Error),
    /// The environment is no longer the one in the directory.
    Replaced,
    /// The caller's own code ended it.
    Given(StoreError),
}

type Attempt<T> = Result<T, Failure>;

fn failed(call: &'static str) -> impl Fn(lmdb::Error) -> Failure {
    move |error| Failure::Call(call, error)
}

impl LmdbStore {
    /// A store on this environment; nothing is opened yet.
    pub fn new(options: LmdbOptions) -> Self {
        LmdbStore {
            options,
            is_reader: false,
            open: None,
            failure: None,
            has_grown: false,
            openings: 0,
            was_replaced: false,
        }
    }

    /// A store on the environment in this directory that can only be read,
    /// with the map it has.
    pub fn new_reader(dir: &Path) -> Self {
        let options = LmdbOptions {
            dir: dir.to_owned(),
            map_size: 0,
            sync: true,
        };
        LmdbStore {
            is_reader: true,
            ..LmdbStore::new(options)
        }
    }

    /// Opens the environment now, to say at start what is wrong with it.
    pub fn prepare(&mut self) -> Result<(), StoreError> {
        self.environment().map(|_| ())
    }

    /// How often the environment was opened: it changes when another one has
    /// taken the place of the old.
    pub fn openings(&self) -> u64 {
        self.openings
    }

    /// True once if the map had to grow since the last call: the time for
    /// maintenance.
    pub fn take_has_grown(&mut self) -> bool {
        std::mem::take(&mut self.has_grown)
    }

    /// Frees the reader slots of processes that have died.
    pub fn clear_stale_readers(&mut self) -> Result<(), StoreError> {
        let open = self.environment()?;
        let mut dead = 0;
        // SAFETY: the environment is open, and `dead` outlives the call.
        let status = unsafe { lmdb_sys::mdb_reader_check(open.environment.env(), &raw mut dead) };
        if status == 0 {
            return Ok(());
        }
        let error = lmdb::Error::from_err_code(status);
        Err(self.error_of(Failure::Call("mdb_reader_check", error)))
    }

    /// True if a commit waits for the disk.
    pub fn flushes(&self) -> bool {
        self.options.sync
    }

    /// Flushes everything that is committed to disk.
    pub fn flush(&mut self) -> Result<(), StoreError> {
        self.attempt(|open| open.environment.sync(true).map_err(failed("mdb_env_sync")))
    }

    fn place(&self) -> String {
        self.options.dir.display().to_string()
    }

    fn environment(&mut self) -> Result<&OpenEnvironment, StoreError> {
        self.close_if_replaced();
        if self.open.is_none() {
            if let Some((when, error)) = &self.failure
                && when.elapsed() < CHECK_INTERVAL
            {
                return Err(error.clone());
            }
            match self.open_environment() {
                Ok(open) => {
                    self.open = Some(open);
                    self.openings += 1;
                }
                Err(error) => {
                    self.failure = Some((Instant::now(), error.clone()));
                    return Err(error);
                }
            }
        }
        match &self.open {
            Some(open) => Ok(open),
            None => Err(self.error("mdb_env_open", "not open")),
        }
    }

    /// An error of this store.
    pub fn error(&self, call: &'static str, reason: impl ToString) -> StoreError {
        StoreError {
            call,
            place: self.place(),
            reason: reason.to_string(),
            is_of_system: false,
        }
    }

    fn error_of(&self, failure: Failure) -> StoreError {
        match failure {
            Failure::Call(call, error) => StoreError {
                is_of_system: matches!(error, lmdb::Error::Other(_)),
                ..self.error(call, error)
            },
            Failure::Replaced => self.error("commit", "the database was replaced"),
            Failure::Given(error) => error,
        }
    }

    fn close_if_replaced(&mut self) {
        let Some(open) = &mut self.open else { return };
        if open.checked.elapsed() < CHECK_INTERVAL {
            return;
        }
        open.checked = Instant::now();
        if identity_of(&self.options.dir).ok() != Some(open.identity) {
            self.open = None;
            self.was_replaced = true;
        }
    }

    fn open_environment(&self) -> Result<OpenEnvironment, StoreError> {
        let flags = match self.options.sync {
            _ if self.is_reader => EnvironmentFlags::READ_ONLY,
            true => EnvironmentFlags::NO_META_SYNC,
            false => EnvironmentFlags::NO_META_SYNC | EnvironmentFlags::NO_SYNC,
        };
        if !self.is_reader {
            make_reader_file(&self.options.dir).map_err(|error| {
                let number = error.raw_os_error().unwrap_or_default();
                let error = lmdb::Error::from_err_code(number);
                self.error_of(Failure::Call("write lock.mdb", error))
            })?;
        }
        let environment = Environment::new()
            .set_flags(flags)
            .set_max_dbs(Database::ALL.len() as u32)
            .set_max_readers(MAX_READERS)
            .set_map_size(self.options.map_size)
            .open_with_permissions(&self.options.dir, 0o600)
            .map_err(|error| self.error_of(Failure::Call("mdb_env_open", error)))?;
        let identity =
            identity_of(&self.options.dir).map_err(|error| self.error("stat data.mdb", error))?;
        let databases = open_databases(&environment, self.is_reader)
            .map_err(|failure| self.error_of(failure))?;
        let main = environment
            .open_db(None)
            .map_err(|error| self.error_of(Failure::Call("mdb_dbi_open", error)))?;
        Ok(OpenEnvironment {
            environment,
            databases,
            main,
            dir: self.options.dir.clone(),
            sync: self.options.sync,
            journal: RefCell::default(),
            entry: RefCell::default(),
            trouble: RefCell::default(),
            identity,
            is_successor: self.was_replaced,
            checked: Instant::now(),
        })
    }

    /// Runs a transaction, again when the map has changed: grown by another
    /// process, or grown here because it was full.
    fn attempt<T>(
        &mut self,
        mut run: impl FnMut(&OpenEnvironment) -> Attempt<T>,
    ) -> Result<T, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let (call, error) = match run(self.environment()?) {
                Ok(value) => return Ok(value),
                Err(Failure::Call(call, error)) => (call, error),
                Err(Failure::Replaced) if tries < MAX_TRIES => {
                    self.open = None;
                    self.was_replaced = true;
                    continue;
                }
                Err(failure) => return Err(self.error_of(failure)),
            };
            if tries < MAX_TRIES && self.follow_map(error)? {
                continue;
            }
            if matches!(
                error,
                lmdb::Error::Panic | lmdb::Error::Corrupted | lmdb::Error::Invalid
            ) {
                self.open = None;
            }
            return Err(self.error_of(Failure::Call(call, error)));
        }
    }

    /// True if the error was about the map and the map is now another.
    fn follow_map(&mut self, error: lmdb::Error) -> Result<bool, StoreError> {
        let size = match error {
            lmdb::Error::MapResized => 0,
            lmdb::Error::MapFull => {
                let info = self.environment()?.environment.info();
                let size = info
                    .map_err(|error| self.error("mdb_env_info", error))?
                    .map_size();
                self.has_grown = true;
                let page_multiple = (size / 4).max(LEAST_GROWTH) & !(LEAST_GROWTH - 1);
                size.saturating_add(page_multiple)
            }
            _ => return Ok(false),
        };
        let changed = self.environment()?.environment.set_map_size(size);
        changed.map_err(|error| {
            // LMDB has unmapped the old map by then: the next use would crash.
            self.open = None;
            self.error("mdb_env_set_mapsize", error)
        })?;
        Ok(true)
    }
}

/// Opens the three databases, and makes those that are missing.
fn open_databases(environment: &Environment, is_reader: bool) -> Attempt<[lmdb::Database; 3]> {
    let open = |database: Database| match environment.open_db(Some(database.name())) {
        Err(lmdb::Error::NotFound) if !is_reader => {
            environment.create_db(Some(database.name()), DatabaseFlags::empty())
        }
        opened => opened,
    };
    let [greylist, clients, tarpit] = Database::ALL.map(|database| {
        let opened = match open(database) {
            Err(lmdb::Error::MapResized) => {
                environment.set_map_size(0).and_then(|()| open(database))
            }
            opened => opened,
        };
        opened.map_err(failed("mdb_dbi_open"))
    });
    Ok([greylist?, clients?, tarpit?])
}

/// The records as a transaction sees them.
struct View<'a, T> {
    transaction: T,
    databases: &'a [lmdb::Database; 3],
}

fn get_record<'t>(
    transaction: &'t impl Transaction,
    databases: &[lmdb::Database; 3],
    database: Database,
    key: &[u8],
) -> Attempt<Option<&'t [u8]>> {
    let mut buffer = [0; MAX_KEY];
    let stored = stored_key(key, &mut buffer);
    match transaction.get(databases[database as usize], &stored) {
        Ok(value) => Ok(Some(plain_value(stored, value))),
        Err(lmdb::Error::NotFound) => Ok(None),
        Err(error) => Err(Failure::Call("mdb_get", error)),
    }
}

impl<T: Transaction> ReadRecords for View<'_, T> {
    type Error = Failure;

    fn get(&self, database: Database, key: &[u8]) -> Attempt<Option<&[u8]>> {
        get_record(&self.transaction, self.databases, database, key)
    }
}

impl OpenEnvironment {
    fn read(&self) -> Attempt<View<'_, RoTransaction<'_>>> {
        let transaction = self
            .environment
            .begin_ro_txn()
            .map_err(failed("mdb_txn_begin"))?;
        Ok(View {
            transaction,
            databases: &self.databases,
        })
    }

    fn scan(&self, database: Database, after: Option<&[u8]>, visit: &mut Visitor) -> Attempt<bool> {
        let view = self.read()?;
        let cursor = view
            .transaction
            .open_ro_cursor(self.databases[database as usize])
            .map_err(failed("mdb_cursor_open"))?;
        let start = match after {
            Some(_) => lmdb_sys::MDB_SET_RANGE,
            None => lmdb_sys::MDB_FIRST,
        };
        let mut found = cursor.get(after, None, start);
        loop {
            let (stored_key, value) = match found {
                Ok((Some(key), value)) => (key, value),
                Ok((None, _)) | Err(lmdb::Error::NotFound) => return Ok(true),
                Err(error) => return Err(Failure::Call("mdb_cursor_get", error)),
            };
            if after != Some(stored_key) {
                let (key, value) = split_stored(stored_key, value);
                if visit(Entry {
                    stored_key,
                    key,
                    value,
                }) == ControlFlow::Break(())
                {
                    return Ok(false);
                }
            }
            found = cursor.get(None, None, lmdb_sys::MDB_NEXT);
        }
    }
}

impl Store for LmdbStore {
    fn try_read(
        &mut self,
        rules: &Rules,
        command: &Command,
    ) -> Result<Option<Outcome>, StoreError> {
        if !may_decide_by_reading(rules, command) {
            return Ok(None);
        }
        self.attempt(|open| apply_read_only(&open.read()?, rules, command))
    }

    fn apply_batch(
        &mut self,
        rules: &Rules,
        commands: &[Command],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        let start = outcomes.len();
        let result = self.attempt(|open| {
            outcomes.truncate(start);
            let mut writing = open.write()?;
            for command in commands {
                outcomes.push(apply(&mut writing, rules, command)?);
            }
            writing.commit()
        });
        if result.is_err() {
            outcomes.truncate(start);
        }
        result
    }

    fn scan(
        &mut self,
        database: Database,
        after: Option<&[u8]>,
        visit: &mut Visitor,
    ) -> Result<bool, StoreError> {
        self.attempt(|open| open.scan(database, after, visit))
    }

    fn read(&mut self, keys: &[(Database, &[u8])]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.attempt(|open| {
            let view = open.read()?;
            let value = |&(database, key): &(Database, &[u8])| {
                Ok(view.get(database, key)?.map(<[u8]>::to_vec))
            };
            keys.iter().map(value).collect()
        })
    }

    fn edit(&mut self, edit: &mut Editor) -> Result<(), StoreError> {
        self.attempt(|open| {
            let mut editing = Editing::new(open.write()?);
            let result = edit(&mut editing);
            editing.finish(result)?.commit()
        })
    }

    fn remove_expired(
        &mut self,
        rules: &Rules,
        database: Database,
        stored_keys: &[Vec<u8>],
        now: f64,
    ) -> Result<u64, StoreError> {
        self.attempt(|open| {
            let mut removed = 0;
            let mut writing = open.write()?;
            for stored in stored_keys {
                let Some(value) = writing.get_stored(database, stored)? else {
                    continue;
                };
                if is_expired(rules, database, plain_value(stored, value), now) {
                    writing.delete_stored(database, stored)?;
                    removed += 1;
                }
            }
            writing.commit()?;
            Ok(removed)
        })
    }
}
