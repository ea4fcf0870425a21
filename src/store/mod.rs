//! The store: where the records are, behind one small interface.
//!
//! [`Store`] takes commands and gives outcomes; the state machine on the
//! records is [`crate::policy::apply`], the same for every store. [`lmdb`] is
//! the store of the daemon, [`memory`] the one of tests and dry runs.

pub(crate) mod berkeley;
pub mod expiry;
pub mod key;
pub mod lmdb;
pub mod memory;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(not(feature = "redis"))]
#[path = "redis_absent.rs"]
pub mod redis;
pub mod verify;

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;

use crate::policy::apply::{Reading, Records};
use crate::policy::command::{Command, Outcome};
use crate::policy::record::Database;
use crate::policy::rules::Rules;
use crate::sys::errors::describe;
use crate::sys::files::is_disk_full;

/// One record as [`Store::scan`] shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key under which the store keeps it; the scan goes on after it.
    pub stored_key: &'a [u8],
    /// The key as the policy made it, of any length.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
}

/// The visitor of [`Store::scan`]; it stops the scan with `Break`.
pub type Visitor<'v> = dyn FnMut(Entry<'_>) -> ControlFlow<()> + 'v;

/// What [`Store::edit`] runs on the records of a transaction.
pub type Editor<'e> =
    dyn FnMut(&mut dyn Records<Error = StoreError>) -> Result<(), StoreError> + 'e;

/// A place for records that applies commands to them.
pub trait Store {
    /// What reading alone says of a command, without waiting for any writer.
    fn try_read(&mut self, rules: &Rules, command: &Command) -> Result<Reading, StoreError>;

    /// Applies commands in order and appends an outcome for each. When it returns
    /// they are committed; on an error none is. A store of several parts commits
    /// what it can: a command whose part has failed has no outcome, and the report
    /// says why.
    fn apply_batch(
        &mut self,
        rules: &Rules,
        commands: &[Command],
        outcomes: &mut Vec<Option<Outcome>>,
    ) -> Result<CommitReport, StoreError>;

    /// Shows the records whose stored key begins with `prefix`, from the first one
    /// or, if the caller goes on with a scan, from the one after `after`. True if
    /// it came to the end.
    fn scan(
        &mut self,
        database: Database,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visitor,
    ) -> Result<bool, StoreError>;

    /// The records that a command concerns, all of one moment.
    fn records_of(&mut self, command: &Command) -> Result<Vec<Found>, StoreError>;

    /// Changes records in one transaction. A store that has its records elsewhere
    /// reads those with these keys first, and knows no others; others need no keys.
    /// When it returns all is committed; on an error nothing is, or, in a store of
    /// several parts, some of them. `edit` may be run again from its start: when the
    /// store had to make room, or another host was quicker.
    fn edit(&mut self, keys: &[Key], edit: &mut Editor) -> Result<CommitReport, StoreError>;

    /// Lets go of files and connections; the next use opens them again.
    fn close(&mut self) {}

    /// An orderly end: nothing is left that a crash of the machine could undo.
    fn end(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// True if records that have expired go by themselves, without maintenance.
    fn expires_by_itself(&self) -> bool {
        false
    }
}

/// Which record: its database and its key.
pub type Key<'k> = (Database, &'k [u8]);

/// A record that a command concerns: its database, its key, and its value if it is
/// there.
pub type Found = (Database, Vec<u8>, Option<Vec<u8>>);

/// What happened on the way of a commit, beside the changes themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitReport {
    /// The store was full and was given more room: it is time for maintenance.
    pub has_grown: bool,
    /// Another database had taken the place of the one this process knew; the
    /// commit went into the new one.
    pub was_replaced: bool,
    /// What kept parts of the store from committing.
    pub troubles: Vec<StoreError>,
}

/// What kind of trouble an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The records cannot be read as they are: the file is damaged, or no
    /// database.
    Damage,
    /// The system refused something; that says nothing about the records.
    System,
    /// Another process is at work and was waited for long enough, or has to
    /// begin the database first.
    Busy,
    /// The store has no room left, and could not be given more.
    MapFull,
    /// Another process has given the store more room.
    MapResized,
    /// Too many processes read.
    ReadersFull,
    /// Anything else, a bug of ours included.
    Other,
}

/// Why the store failed: the call, the path and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// What kind of trouble it is.
    pub kind: ErrorKind,
    /// The call that failed.
    pub call: &'static str,
    /// The directory or file it was about.
    pub path: String,
    /// The system's or LMDB's own words.
    pub reason: String,
}

impl StoreError {
    /// An error of this kind.
    pub fn new(kind: ErrorKind, call: &'static str, path: &Path, reason: impl ToString) -> Self {
        StoreError {
            kind,
            call,
            path: path.display().to_string(),
            reason: reason.to_string(),
        }
    }

    /// What the complaints about one trouble have in common: their text may hold
    /// the number of a process.
    pub fn cause(&self) -> &str {
        match self.kind {
            ErrorKind::Busy => self.call,
            _ => &self.reason,
        }
    }

    /// The same error, called by its name if the disk has no room left: LMDB reports
    /// a page that was written in part as EIO.
    pub fn of_full_disk(mut self, dir: &Path) -> Self {
        if self.kind == ErrorKind::System && is_disk_full(dir) {
            self.reason = "the disk is full (No space left on device)".into();
        }
        self
    }

    /// A bug of ours ended a transaction.
    pub fn of_bug() -> Self {
        let why = "a bug in the program";
        StoreError::new(ErrorKind::Other, "apply", Path::new("records"), why)
    }

    /// A call of the system failed on this path.
    pub fn of_io(call: &'static str, path: &Path, error: &io::Error) -> Self {
        StoreError::new(ErrorKind::System, call, path, describe(error))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.kind == ErrorKind::Damage {
            f.write_str("damaged: ")?;
        }
        write!(f, "{}: {}: {}", self.path, self.call, self.reason)
    }
}

impl std::error::Error for StoreError {}
