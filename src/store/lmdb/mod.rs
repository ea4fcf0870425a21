//! The store of the daemon: one LMDB environment shared by all processes.
//!
//! Each process opens it for itself, after its fork. Readers never wait for
//! writers; writers meet under the claim ([`claim`]), which every commit takes
//! here, in one place. The map grows when it is full, follows growth by others,
//! and the environment is opened anew when it was removed or replaced under the
//! process, so that every trouble ends when its cause does.
#![allow(unsafe_code)]

pub mod claim;
mod environment;
mod inspect;
pub mod mark;
mod replace;
#[cfg(test)]
mod tests;

pub use environment::Purpose;
pub use inspect::{Reader, Space};

use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{CommitReport, Editor, ErrorKind, Found, Key, Store, StoreError, Visitor};
use crate::policy::apply::{
    ReadRecords, Reading, apply_all, apply_read_only, may_decide_by_reading,
};
use crate::policy::command::{Command, Outcome};
use crate::policy::record::Database;
use crate::policy::rules::Rules;
use crate::sys::files::{flush_names, remove_if_there};
use crate::sys::lock::LockFile;
use claim::{HeldClaim, Identity, follow_lock_file, take_claim};
use environment::OpenEnvironment;
use mark::{is_marked, remove_mark, set_mark};

/// How often a reading process looks whether its environment is still the one
/// in the directory, and how long a failed opening is not tried again.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often whoever writes frees the slots of dead readers.
const CLEAR_INTERVAL: Duration = Duration::from_secs(60);
/// How often a transaction is begun again after the map has changed.
const MAX_TRIES: usize = 8;

/// How an environment is opened.
#[derive(Clone, Debug)]
pub struct LmdbOptions {
    /// The directory of the environment; it must exist.
    pub dir: PathBuf,
    /// Size of the map in octets; it grows beyond when it is full. 0: as it
    /// is in the environment.
    pub map_size: usize,
    /// What for.
    pub purpose: Purpose,
    /// How long another process that has the claim is waited for.
    pub patience: Duration,
}

/// An environment, opened when it is first needed.
pub struct LmdbStore {
    options: LmdbOptions,
    lock: Rc<LockFile>,
    open: Option<OpenEnvironment>,
    /// The last failure to open, and when.
    failure: Option<(Instant, StoreError)>,
    /// An environment was open and was closed because there is another.
    was_replaced: bool,
}

impl LmdbStore {
    /// A store on this environment; nothing is opened yet.
    pub fn new(options: LmdbOptions) -> Self {
        let lock = LockFile::new(claim::lock_file(&options.dir), 0o600);
        LmdbStore::with_lock(options, lock)
    }

    /// The same with a lock file that is open already.
    pub fn with_lock(options: LmdbOptions, lock: LockFile) -> Self {
        LmdbStore {
            options,
            lock: Rc::new(lock),
            open: None,
            failure: None,
            was_replaced: false,
        }
    }

    /// A store on the environment in this directory that can only be read,
    /// with the map it has.
    pub fn new_reader(dir: &Path) -> Self {
        LmdbStore::new(LmdbOptions {
            dir: dir.to_owned(),
            map_size: 0,
            purpose: Purpose::Read,
            patience: Duration::from_secs(5),
        })
    }

    /// Opens the environment now, to say at start what is wrong with it.
    pub fn prepare(&mut self) -> Result<(), StoreError> {
        self.view(|_| Ok(()))
    }

    /// True if the data file ends before its last page, so that it is better
    /// verified.
    pub fn is_short(&mut self) -> Result<bool, StoreError> {
        self.view(|open| Ok(open.is_short()))
    }

    /// The lock file, for other claims on the directory.
    pub fn lock(&self) -> &LockFile {
        &self.lock
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// Damage that LMDB itself does not see.
    pub(super) fn damage(&self, what: &'static str, reason: impl ToString) -> StoreError {
        StoreError::new(ErrorKind::Damage, what, &self.options.dir, reason)
    }

    fn close_if_replaced(&mut self) {
        if let Some(open) = &mut self.open {
            open.checked = Instant::now();
            if Identity::of(&self.options.dir) != open.identity {
                self.open = None;
                self.was_replaced = true;
            }
        }
    }

    /// Opens the environment by the protocol of [`claim`], unless that has just
    /// failed.
    fn open_now(&mut self, is_claimed: bool) -> Result<(), StoreError> {
        if let Some((when, error)) = &self.failure
            && when.elapsed() < CHECK_INTERVAL
        {
            return Err(error.clone());
        }
        let opened = self.try_open(is_claimed);
        self.failure = match &opened {
            Err(error) if error.kind != ErrorKind::Busy => Some((Instant::now(), error.clone())),
            _ => None,
        };
        self.open = Some(opened?);
        Ok(())
    }

    fn try_open(&self, is_claimed: bool) -> Result<OpenEnvironment, StoreError> {
        let dir = &self.options.dir;
        let failed = |call| move |error: io::Error| StoreError::of_io(call, dir, &error);
        if is_claimed {
            claim::settle(dir, &self.lock).map_err(failed("make lock.mdb"))?;
        }
        // LMDB takes an empty file for a new database.
        let purpose = self.options.purpose;
        let length = std::fs::metadata(purpose.data_file(dir)).map_or(0, |found| found.len());
        let was_opened = || is_claimed && claim::was_opened(&self.lock, dir);
        if length == 0 && (purpose == Purpose::VerifyFile || was_opened()) {
            return Err(self.damage("stat", "the file is empty"));
        }
        if length == 0 && purpose == Purpose::Read {
            // That is no failure: whoever commits begins it.
            let why = "there is no database yet";
            return Err(StoreError::new(ErrorKind::Busy, "stat", dir, why));
        }
        let data_file = claim::data_file(dir);
        // A link to nothing is not ours to remove.
        let is_new = is_claimed && std::fs::symlink_metadata(&data_file).is_err();
        let opened = OpenEnvironment::open(dir, purpose, self.options.map_size);
        if is_new && opened.is_err() {
            // Half a file would be taken for a damaged one. If it cannot be
            // removed, it is.
            let _ = remove_if_there(&data_file);
        }
        let open = opened?;
        if is_new {
            // What is flushed into a file is lost with its name.
            flush_names(dir).map_err(failed("flush"))?;
        }
        if is_claimed {
            claim::record_pair(&self.lock, &open.identity).map_err(failed("note the files"))?;
        }
        Ok(open)
    }

    /// Runs a reading transaction.
    fn view<T>(
        &mut self,
        mut run: impl FnMut(&OpenEnvironment) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let is_due = |open: &OpenEnvironment| open.checked.elapsed() >= CHECK_INTERVAL;
        if self.open.as_ref().is_some_and(is_due) {
            self.close_if_replaced();
        }
        if self.open.is_none() {
            let _claim = match self.options.purpose {
                purpose if purpose.is_verification() => None,
                purpose => match self.claim_files() {
                    // Nobody can write there, nor replace anything.
                    Err(_) if purpose == Purpose::Read && self.is_read_only() => None,
                    claim => Some(claim?),
                },
            };
            self.open_now(_claim.is_some())?;
        }
        self.try_often(&mut CommitReport::default(), |open| run(open))
    }

    fn is_read_only(&self) -> bool {
        let refused = self.lock.file().err().and_then(|e| e.raw_os_error());
        refused == Some(libc::EROFS)
    }

    /// Runs a write transaction under the claim: the one place where records
    /// are changed.
    fn commit<T>(
        &mut self,
        run: impl FnMut(&mut OpenEnvironment) -> Result<T, StoreError>,
    ) -> Result<(T, CommitReport), StoreError> {
        let _claim = self.claim_files()?;
        if self.open.is_none() {
            self.open_now(true)?;
        }
        let mut report = CommitReport {
            was_replaced: std::mem::take(&mut self.was_replaced),
            ..CommitReport::default()
        };
        let committed = self.prepare_commit();
        let value = committed.and_then(|()| self.try_often(&mut report, run));
        let value = value.map_err(|error| error.of_full_disk(&self.options.dir))?;
        Ok((value, report))
    }

    /// Takes the claim on the files that are in place. Each time `lock.mdb` is
    /// looked at, which changes with every replacement; once a second everything,
    /// for those who know no protocol. (Not more often: to ask for the times of a
    /// file makes some systems flush more at its next write.)
    fn claim_files(&mut self) -> Result<HeldClaim, StoreError> {
        let is_due = |open: &OpenEnvironment| open.checked.elapsed() >= CHECK_INTERVAL;
        let mut looks_at_all = self.open.as_ref().is_none_or(is_due);
        loop {
            if looks_at_all {
                follow_lock_file(&mut self.lock)?;
            }
            let claim = take_claim(&self.lock, self.options.patience)?;
            if looks_at_all {
                self.close_if_replaced();
                return Ok(claim);
            }
            let in_place = Identity::of_reader_file(&self.options.dir);
            let is_same = |open: &OpenEnvironment| open.identity.lock == in_place;
            if self.open.as_ref().is_some_and(is_same) {
                return Ok(claim);
            }
            looks_at_all = true;
        }
    }

    /// What has to be done before a commit: the mark of one without a flush,
    /// and, now and then, clearing the slots of dead readers.
    fn prepare_commit(&mut self) -> Result<(), StoreError> {
        let dir = &self.options.dir;
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        if self.options.purpose == Purpose::WriteUnflushed && !open.is_marked {
            set_mark(dir).map_err(|error| StoreError::of_io("set the mark", dir, &error))?;
            open.is_marked = true;
        }
        if open.cleared.elapsed() >= CLEAR_INTERVAL {
            open.cleared = Instant::now();
            open.clear_stale_readers()?;
        }
        Ok(())
    }

    /// Runs a transaction, again when the map has changed: grown by another
    /// process, or grown here because it was full; and when slots of dead
    /// readers were in its way.
    fn try_often<T>(
        &mut self,
        report: &mut CommitReport,
        mut run: impl FnMut(&mut OpenEnvironment) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut tries = 1;
        loop {
            let Some(open) = &mut self.open else {
                return Err(StoreError::of_bug());
            };
            let error = match run(open) {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let error = match open.make_way(error.kind) {
                Ok(true) if tries < MAX_TRIES => {
                    report.has_grown |= error.kind == ErrorKind::MapFull;
                    tries += 1;
                    continue;
                }
                Ok(_) => error,
                Err(error) => error,
            };
            // After some of these errors LMDB has unmapped it, or would go on
            // saying so.
            if error.kind != ErrorKind::Other {
                self.open = None;
            }
            return Err(error);
        }
    }
}

impl Store for LmdbStore {
    fn try_read(&mut self, rules: &Rules, command: &Command) -> Result<Reading, StoreError> {
        if !may_decide_by_reading(rules, command) {
            return Ok(Reading::NeedsWrite);
        }
        self.view(|open| apply_read_only(&open.read()?, rules, command))
    }

    fn apply_batch(
        &mut self,
        rules: &Rules,
        commands: &[Command],
        outcomes: &mut Vec<Option<Outcome>>,
    ) -> Result<CommitReport, StoreError> {
        let start = outcomes.len();
        let result = self.commit(|open| {
            outcomes.truncate(start);
            let mut writing = open.write()?;
            apply_all(&mut writing, rules, commands, outcomes)?;
            writing.commit()
        });
        if result.is_err() {
            outcomes.truncate(start);
        }
        result.map(|((), report)| report)
    }

    fn scan(
        &mut self,
        database: Database,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visitor,
    ) -> Result<bool, StoreError> {
        self.view(|open| open.read()?.scan(database, prefix, after, visit))
    }

    fn records_of(&mut self, command: &Command) -> Result<Vec<Found>, StoreError> {
        self.view(|open| {
            let view = open.read()?;
            let found = |(database, key): (Database, &[u8])| {
                let value = view.get(database, key)?.map(<[u8]>::to_vec);
                Ok((database, key.to_vec(), value))
            };
            command.keys().map(found).collect()
        })
    }

    fn edit(&mut self, _: &[Key], edit: &mut Editor) -> Result<CommitReport, StoreError> {
        let result = self.commit(|open| {
            let mut writing = open.write()?;
            edit(&mut writing)?;
            writing.commit()
        });
        result.map(|((), report)| report)
    }

    fn close(&mut self) {
        self.open = None;
        self.failure = None;
    }

    /// Flushes everything and removes the mark of commits without a flush, which the
    /// next one would set again.
    fn end(&mut self) -> Result<(), StoreError> {
        let dir = self.options.dir.clone();
        let is_left_marked = self.options.purpose == Purpose::WriteUnflushed && is_marked(&dir);
        if self.open.is_none() && !is_left_marked {
            return Ok(());
        }
        self.commit(|open| {
            let flushed = open.environment.sync(true);
            flushed.map_err(open.failed("mdb_env_sync"))?;
            match std::mem::take(&mut open.is_marked) {
                true => {
                    remove_mark(&dir).map_err(|e| StoreError::of_io("remove the mark", &dir, &e))
                }
                false => Ok(()),
            }
        })?;
        Ok(())
    }
}
