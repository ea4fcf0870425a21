//! Opening the database of a server that may be running.
//!
//! Readers disturb nobody. Whoever writes holds the claim to commit while his
//! transaction is open, as every process of the server does, so that neither
//! waits inside LMDB for the other.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, User};

use super::failure::Failure;
use crate::policy::command::{Command, Outcome};
use crate::policy::record::Database;
use crate::policy::rules::Rules;
use crate::store::copies::is_marked;
use crate::store::lmdb::{LmdbOptions, LmdbStore};
use crate::store::{Editor, Store, StoreError, Visitor};
use crate::sys::lock::{Claim, LockFile};
use crate::sys::process::{Identity, become_user, is_root, set_umask};

/// How long a commit of the server is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the lock is tried.
const PAUSE: Duration = Duration::from_millis(2);

/// The lock file of the server in its database directory.
pub const LOCK_FILE: &str = "postgrey.lock";

/// Takes the identity of the directory's owner if this is root, so that no
/// file of root's is left where the server needs its own.
pub fn become_owner(dbdir: &Path) -> Result<(), Failure> {
    let found = fs::metadata(dbdir).map_err(|error| Failure::file(dbdir, &error))?;
    if !found.is_dir() {
        return Err(Failure::error(format!(
            "{}: Not a directory",
            dbdir.display()
        )));
    }
    set_umask(0o077);
    let uid = Uid::from_raw(found.uid());
    if !is_root() || uid.is_root() {
        return Ok(());
    }
    // Its own group, since the directory may have come to root's.
    let (name, gid) = match User::from_uid(uid) {
        Ok(Some(user)) => (user.name, user.gid),
        _ => (uid.to_string(), Gid::from_raw(found.gid())),
    };
    become_user(&Identity { name, uid, gid }).map_err(Failure::error)
}

/// True if there is an environment.
pub fn exists(dbdir: &Path) -> bool {
    dbdir.join("data.mdb").is_file()
}

fn check_exists(dbdir: &Path) -> Result<(), Failure> {
    if exists(dbdir) {
        return Ok(());
    }
    Err(Failure::error(format!(
        "{}: there is no database (data.mdb)",
        dbdir.display()
    )))
}

/// Opens an environment that exists for reading.
pub fn open_reader(dbdir: &Path) -> Result<LmdbStore, Failure> {
    become_owner(dbdir)?;
    check_exists(dbdir)?;
    let mut store = LmdbStore::new_reader(dbdir);
    store.prepare()?;
    Ok(store)
}

/// Opens an environment that exists for writing.
pub fn open_writer(dbdir: &Path) -> Result<LiveStore, Failure> {
    become_owner(dbdir)?;
    check_exists(dbdir)?;
    LiveStore::open(dbdir, 0)
}

/// The environment of a server, written to under the claim to commit.
pub struct LiveStore {
    store: LmdbStore,
    lock: LockFile,
    lock_path: PathBuf,
}

impl LiveStore {
    /// Opens an environment, or makes one whose map has this size in octets;
    /// 0: the size it has.
    pub fn open(dbdir: &Path, map_size: usize) -> Result<Self, Failure> {
        let lock_path = dbdir.join(LOCK_FILE);
        let lock = LockFile::new(lock_path.clone(), 0o600);
        lock.file()
            .map_err(|error| Failure::file(&lock_path, &error))?;
        let server = lock.holder(Claim::Daemon);
        if is_marked(dbdir) && matches!(server, Ok(None)) {
            return Err(Failure::error(format!(
                "{}: the server has not ended in order: start it first, it verifies the database",
                dbdir.display()
            )));
        }
        let options = LmdbOptions {
            dir: dbdir.to_owned(),
            map_size,
            sync: true,
        };
        let store = LmdbStore::new(options);
        let mut live = LiveStore {
            store,
            lock,
            lock_path,
        };
        live.claimed(|store| store.prepare())?;
        Ok(live)
    }

    /// The environment itself.
    pub fn environment(&mut self) -> &mut LmdbStore {
        &mut self.store
    }

    /// The lock file.
    pub fn lock(&self) -> &LockFile {
        &self.lock
    }

    /// The process of a running server.
    pub fn server(&self) -> Result<Option<i32>, Failure> {
        let holder = self.lock.holder(Claim::Daemon);
        holder.map_err(|error| Failure::file(&self.lock_path, &error))
    }

    /// Gives back the environment, closed but for its lock file.
    pub fn into_lock(self) -> LockFile {
        self.lock
    }

    fn error(&self, call: &'static str, reason: impl ToString) -> StoreError {
        StoreError {
            call,
            place: self.lock_path.display().to_string(),
            reason: reason.to_string(),
            is_of_system: false,
        }
    }

    fn claim(&self) -> Result<(), StoreError> {
        let start = Instant::now();
        loop {
            match self.lock.try_lock(Claim::Commit) {
                Ok(true) => return Ok(()),
                Ok(false) if start.elapsed() < PATIENCE => sleep(PAUSE),
                Ok(false) => {
                    let who = match self.lock.holder(Claim::Commit) {
                        Ok(Some(pid)) => format!("process {pid} has been"),
                        _ => "another process has been".into(),
                    };
                    let seconds = PATIENCE.as_secs();
                    return Err(self.error("commit", format!("{who} writing for {seconds} s")));
                }
                Err(error) => return Err(self.io_error(&error)),
            }
        }
    }

    fn io_error(&self, error: &io::Error) -> StoreError {
        StoreError {
            is_of_system: true,
            ..self.error("fcntl", error)
        }
    }

    fn claimed<T>(
        &mut self,
        write: impl FnOnce(&mut LmdbStore) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.claim()?;
        let result = write(&mut self.store);
        let unlocked = self.lock.unlock(Claim::Commit);
        let value = result?;
        unlocked.map_err(|error| self.io_error(&error))?;
        Ok(value)
    }
}

impl Store for LiveStore {
    fn try_read(
        &mut self,
        rules: &Rules,
        command: &Command,
    ) -> Result<Option<Outcome>, StoreError> {
        self.store.try_read(rules, command)
    }

    fn apply_batch(
        &mut self,
        rules: &Rules,
        commands: &[Command],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        self.claimed(|store| store.apply_batch(rules, commands, outcomes))
    }

    fn scan(
        &mut self,
        database: Database,
        after: Option<&[u8]>,
        visit: &mut Visitor,
    ) -> Result<bool, StoreError> {
        self.store.scan(database, after, visit)
    }

    fn read(&mut self, keys: &[(Database, &[u8])]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        self.store.read(keys)
    }

    fn edit(&mut self, edit: &mut Editor) -> Result<(), StoreError> {
        self.claimed(|store| store.edit(edit))
    }

    fn remove_expired(
        &mut self,
        rules: &Rules,
        database: Database,
        stored_keys: &[Vec<u8>],
        now: f64,
    ) -> Result<u64, StoreError> {
        self.claimed(|store| store.remove_expired(rules, database, stored_keys, now))
    }
}
