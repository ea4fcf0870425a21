//! An environment that is open, its records, and how transactions see them.
//!
//! A process has each environment open once: LMDB's locks on `lock.mdb` are
//! those of fcntl(2), which the closing of a second one would take away from
//! the first. [`OpenEnvironment::open`] refuses it.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use lmdb::{Cursor, DatabaseFlags, Environment, EnvironmentFlags, RoTransaction, RwTransaction};
use lmdb::{Transaction, WriteFlags};

use super::claim::{Identity, MAX_READERS, data_file};
use crate::policy::apply::{ReadRecords, Records};
use crate::policy::record::Database;
use crate::store::key::{MAX_KEY, plain_value, split_stored, stored_key, stored_value};
use crate::store::{Entry, ErrorKind, StoreError, Visitor};

/// The map grows by a quarter, and at least by this many octets.
const LEAST_GROWTH: usize = 1 << 20;

/// The environments this process has open, by device and inode.
static OPEN: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

/// What an environment is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To write, with a flush at each commit.
    WriteFlushed,
    /// To write; the system flushes when it likes.
    WriteUnflushed,
    /// To read beside others.
    Read,
    /// To verify it while nobody may write: LMDB's own locks are not used, so
    /// that it does not matter in what state they are.
    Verify,
    /// Read one file, which nobody uses: [`super::LmdbOptions::dir`] is its path.
    VerifyFile,
}

impl Purpose {
    fn flags(self) -> EnvironmentFlags {
        match self {
            Purpose::WriteFlushed => EnvironmentFlags::NO_META_SYNC,
            Purpose::WriteUnflushed => EnvironmentFlags::NO_META_SYNC | EnvironmentFlags::NO_SYNC,
            Purpose::Read => EnvironmentFlags::READ_ONLY,
            Purpose::Verify => EnvironmentFlags::READ_ONLY | EnvironmentFlags::NO_LOCK,
            Purpose::VerifyFile => Purpose::Verify.flags() | EnvironmentFlags::NO_SUB_DIR,
        }
    }

    /// True if it may be opened without a lock: nobody changes it.
    pub(super) fn is_verification(self) -> bool {
        matches!(self, Purpose::Verify | Purpose::VerifyFile)
    }

    /// The file with the records.
    pub(super) fn data_file(self, dir: &Path) -> PathBuf {
        match self {
            Purpose::VerifyFile => dir.to_owned(),
            _ => data_file(dir),
        }
    }

    fn writes(self) -> bool {
        matches!(self, Purpose::WriteFlushed | Purpose::WriteUnflushed)
    }
}

/// What LMDB's error says of the database.
fn kind_of(error: lmdb::Error) -> ErrorKind {
    use lmdb::Error;
    match error {
        Error::MapFull => ErrorKind::MapFull,
        Error::MapResized => ErrorKind::MapResized,
        Error::ReadersFull => ErrorKind::ReadersFull,
        Error::Other(_) | Error::Panic => ErrorKind::System,
        Error::Corrupted
        | Error::PageNotFound
        | Error::Invalid
        | Error::VersionMismatch
        | Error::Incompatible
        | Error::CursorFull
        | Error::PageFull
        // What went wrong before it is not always said: a cursor that meets a
        // damaged root only ends the transaction.
        | Error::BadTxn => ErrorKind::Damage,
        _ => ErrorKind::Other,
    }
}

/// The error of a failed call on the environment in this directory.
fn failed(dir: &Path, call: &'static str) -> impl Fn(lmdb::Error) -> StoreError {
    move |error| StoreError::new(kind_of(error), call, dir, error)
}

/// An open environment with its databases.
pub(super) struct OpenEnvironment {
    dir: PathBuf,
    file: PathBuf,
    pub(super) environment: Environment,
    pub(super) databases: [lmdb::Database; 3],
    /// The files it was opened from.
    pub(super) identity: Identity,
    /// When it was last seen that they are still in place.
    pub(super) checked: Instant,
    /// When the slots of dead readers were last cleared.
    pub(super) cleared: Instant,
    /// The mark was set since it was opened.
    pub(super) is_marked: bool,
}

impl OpenEnvironment {
    /// Opens the environment in a directory, under the claim unless the file
    /// system is read-only. `map_size` in octets; 0: as it is in the file.
    pub(super) fn open(dir: &Path, purpose: Purpose, map_size: usize) -> Result<Self, StoreError> {
        const CALL: &str = "mdb_env_open";
        let before = Identity::of(dir);
        // LMDB would wait for the other end of a FIFO, or call a directory an
        // error of the system.
        if std::fs::metadata(purpose.data_file(dir)).is_ok_and(|found| !found.is_file()) {
            let why = "not a regular file";
            return Err(StoreError::new(ErrorKind::Damage, CALL, dir, why));
        }
        let mut known = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        if before.data.is_some_and(|data| known.contains(&data)) {
            let why = "this process has it open already";
            return Err(StoreError::new(ErrorKind::Other, CALL, dir, why));
        }
        let environment = Environment::new()
            .set_flags(purpose.flags())
            .set_max_dbs(Database::ALL.len() as u32)
            .set_max_readers(MAX_READERS)
            .set_map_size(map_size)
            .open_with_permissions(dir, 0o600)
            .map_err(failed(dir, CALL))?;
        // SAFETY: the environment is open; the function may be called at any
        // time. It fails only without an environment.
        unsafe { lmdb_sys::mdb_env_set_assert(environment.env(), Some(abort_quietly)) };
        let identity = Identity::of(dir);
        let is_new = before.data.is_none() && before.lock == identity.lock;
        if before != identity && !is_new && !purpose.is_verification() {
            let why = "the database is being replaced";
            return Err(StoreError::new(ErrorKind::Busy, CALL, dir, why));
        }
        let opened = open_databases(&environment, purpose.writes());
        let not_opened = |error| match error {
            // Of another program, or of no more than the first moment.
            lmdb::Error::NotFound => {
                let kind = match purpose.is_verification() {
                    true => ErrorKind::Damage,
                    false => ErrorKind::Other,
                };
                StoreError::new(kind, "mdb_dbi_open", dir, "no database of postgrey")
            }
            error => failed(dir, "mdb_dbi_open")(error),
        };
        let databases = match opened.map_err(not_opened) {
            Err(error) if error.kind == ErrorKind::ReadersFull => {
                clear_dead_readers(&environment, dir)?;
                open_databases(&environment, purpose.writes()).map_err(not_opened)?
            }
            opened => opened?,
        };
        known.extend(identity.data);
        let now = Instant::now();
        Ok(OpenEnvironment {
            dir: dir.to_owned(),
            file: purpose.data_file(dir),
            environment,
            databases,
            identity,
            checked: now,
            cleared: now,
            is_marked: false,
        })
    }

    /// The error of a failed call.
    pub(super) fn failed(&self, call: &'static str) -> impl Fn(lmdb::Error) -> StoreError {
        failed(&self.dir, call)
    }

    /// The result of a call that LMDB's Rust interface does not have.
    pub(super) fn result(&self, call: &'static str, status: libc::c_int) -> Result<(), StoreError> {
        match status {
            0 => Ok(()),
            _ => Err(self.failed(call)(lmdb::Error::from_err_code(status))),
        }
    }

    /// True if the file ends before its last page: something has cut it off,
    /// or the last pages were never used.
    pub(super) fn is_short(&self) -> bool {
        let (Ok(info), Ok(stat)) = (self.environment.info(), self.environment.stat()) else {
            return false;
        };
        let wanted = (info.last_pgno() as u64 + 1) * u64::from(stat.page_size());
        std::fs::metadata(&self.file).is_ok_and(|found| found.len() < wanted)
    }

    /// Frees the reader slots of processes that have died; how many there were.
    pub(super) fn clear_stale_readers(&self) -> Result<usize, StoreError> {
        clear_dead_readers(&self.environment, &self.dir)
    }

    /// Does what an error of this kind asks for before the transaction is tried
    /// again: the map takes the size that another process has given it, or grows
    /// because it is full; dead readers go. False if that is of no use.
    pub(super) fn make_way(&self, kind: ErrorKind) -> Result<bool, StoreError> {
        let size = match kind {
            ErrorKind::ReadersFull => return Ok(self.clear_stale_readers()? > 0),
            ErrorKind::MapResized => 0,
            ErrorKind::MapFull => {
                let info = self.environment.info();
                let size = info.map_err(self.failed("mdb_env_info"))?.map_size();
                size.saturating_add((size / 4).max(LEAST_GROWTH) & !(LEAST_GROWTH - 1))
            }
            _ => return Ok(false),
        };
        let changed = self.environment.set_map_size(size);
        changed.map_err(self.failed("mdb_env_set_mapsize"))?;
        Ok(true)
    }

    /// The records as they are at this moment.
    pub(super) fn read(&self) -> Result<View<'_, RoTransaction<'_>>, StoreError> {
        let transaction = self.environment.begin_ro_txn();
        let transaction = transaction.map_err(self.failed("mdb_txn_begin"))?;
        let open = self;
        Ok(View { open, transaction })
    }

    /// A write transaction; dropped without a commit it changes nothing. Under
    /// the claim, so that nobody waits inside LMDB for another process.
    pub(super) fn write(&self) -> Result<View<'_, RwTransaction<'_>>, StoreError> {
        let transaction = self.environment.begin_rw_txn();
        let transaction = transaction.map_err(self.failed("mdb_txn_begin"))?;
        let open = self;
        Ok(View { open, transaction })
    }
}

impl Drop for OpenEnvironment {
    fn drop(&mut self) {
        let mut known = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|data| Some(*data) != self.identity.data);
    }
}

fn clear_dead_readers(environment: &Environment, dir: &Path) -> Result<usize, StoreError> {
    let mut dead = 0;
    // SAFETY: the environment is open, and `dead` outlives the call.
    match unsafe { lmdb_sys::mdb_reader_check(environment.env(), &raw mut dead) } {
        0 => Ok(usize::try_from(dead).unwrap_or(0)),
        status => Err(failed(dir, "mdb_reader_check")(lmdb::Error::from_err_code(
            status,
        ))),
    }
}

/// LMDB has met what cannot be: ends the process as it would, but without a
/// word on standard error, which may be a client's socket.
unsafe extern "C" fn abort_quietly(_: *mut lmdb_sys::MDB_env, _: *const libc::c_char) {
    std::process::abort();
}

/// Opens the three databases, and makes those that are missing.
fn open_databases(
    environment: &Environment,
    may_create: bool,
) -> Result<[lmdb::Database; 3], lmdb::Error> {
    let open = |database: Database| match environment.open_db(Some(database.name())) {
        Err(lmdb::Error::NotFound) if may_create => {
            environment.create_db(Some(database.name()), DatabaseFlags::empty())
        }
        opened => opened,
    };
    let [greylist, clients, tarpit] = Database::ALL.map(|database| match open(database) {
        Err(lmdb::Error::MapResized) => environment.set_map_size(0).and_then(|()| open(database)),
        opened => opened,
    });
    Ok([greylist?, clients?, tarpit?])
}

/// The records as a transaction sees them.
pub(super) struct View<'a, T> {
    open: &'a OpenEnvironment,
    transaction: T,
}

impl<T: Transaction> View<'_, T> {
    fn handle(&self, database: Database) -> lmdb::Database {
        self.open.databases[database as usize]
    }

    /// See [`crate::store::Store::scan`].
    pub(super) fn scan(
        &self,
        database: Database,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visitor,
    ) -> Result<bool, StoreError> {
        let cursor = self.transaction.open_ro_cursor(self.handle(database));
        let cursor = cursor.map_err(self.open.failed("mdb_cursor_open"))?;
        let first = after.or((!prefix.is_empty()).then_some(prefix));
        let start = match first {
            Some(_) => lmdb_sys::MDB_SET_RANGE,
            None => lmdb_sys::MDB_FIRST,
        };
        let mut found = cursor.get(first, None, start);
        loop {
            let (stored_key, value) = match found {
                Ok((Some(key), value)) if key.starts_with(prefix) => (key, value),
                Ok(_) | Err(lmdb::Error::NotFound) => return Ok(true),
                Err(error) => return Err(self.open.failed("mdb_cursor_get")(error)),
            };
            let (key, value) = split_stored(stored_key, value);
            let entry = Entry {
                stored_key,
                key,
                value,
            };
            if after != Some(stored_key) && visit(entry).is_break() {
                return Ok(false);
            }
            found = cursor.get(None, None, lmdb_sys::MDB_NEXT);
        }
    }
}

impl View<'_, RwTransaction<'_>> {
    /// Commits. With flushes, what was changed is on the disk when this returns.
    pub(super) fn commit(self) -> Result<(), StoreError> {
        let committed = self.transaction.commit();
        committed.map_err(self.open.failed("mdb_txn_commit"))
    }
}

impl<T: Transaction> ReadRecords for View<'_, T> {
    type Error = StoreError;

    fn get(&self, database: Database, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        let mut buffer = [0; MAX_KEY];
        let stored = stored_key(key, &mut buffer);
        match self.transaction.get(self.handle(database), &stored) {
            Ok(value) => Ok(Some(plain_value(stored, value))),
            Err(lmdb::Error::NotFound) => Ok(None),
            Err(error) => Err(self.open.failed("mdb_get")(error)),
        }
    }
}

impl Records for View<'_, RwTransaction<'_>> {
    fn put(&mut self, database: Database, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let mut buffer = [0; MAX_KEY];
        let stored = stored_key(key, &mut buffer);
        let value = stored_value(key, value);
        let handle = self.handle(database);
        let put = self
            .transaction
            .put(handle, &stored, &value, WriteFlags::empty());
        put.map_err(self.open.failed("mdb_put"))
    }

    fn delete(&mut self, database: Database, key: &[u8]) -> Result<(), StoreError> {
        let mut buffer = [0; MAX_KEY];
        let stored = stored_key(key, &mut buffer);
        match self.transaction.del(self.handle(database), &stored, None) {
            Ok(()) | Err(lmdb::Error::NotFound) => Ok(()),
            Err(error) => Err(self.open.failed("mdb_del")(error)),
        }
    }
}
