//! The store: where the records are, behind one small interface.
//!
//! [`Store`] takes commands and gives outcomes; the state machine on the
//! records is [`crate::policy::apply`], the same for every store. [`lmdb`] is
//! the store of the daemon, [`memory`] the one of tests and dry runs.

pub mod berkeley;
pub mod copies;
pub mod expiry;
pub mod journal;
pub mod key;
pub mod lmdb;
pub mod memory;
pub mod readers;
pub mod rebuild;

use std::fmt;
use std::ops::ControlFlow;

use crate::policy::apply::Records;
use crate::policy::command::{Command, Outcome};
use crate::policy::record::Database;
use crate::policy::rules::Rules;

/// One record as [`Store::scan`] shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key under which the store keeps it; the scan goes on behind it.
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
    /// Decides a command if that takes no write, without waiting for any
    /// writer; `None` if it would have to write.
    fn try_read(&mut self, rules: &Rules, command: &Command)
    -> Result<Option<Outcome>, StoreError>;

    /// Applies commands in order in one transaction and appends their
    /// outcomes. When it returns they are committed; on an error none is.
    fn apply_batch(
        &mut self,
        rules: &Rules,
        commands: &[Command],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError>;

    /// Shows records in the order of their stored keys, beginning behind
    /// `after`. True if it came to the end.
    fn scan(
        &mut self,
        database: Database,
        after: Option<&[u8]>,
        visit: &mut Visitor,
    ) -> Result<bool, StoreError>;

    /// The values under these keys, all of one moment.
    fn read(&mut self, keys: &[(Database, &[u8])]) -> Result<Vec<Option<Vec<u8>>>, StoreError>;

    /// Changes records in one transaction. When it returns all is committed;
    /// on an error nothing is. `edit` may be run again from its start, when
    /// the store had to make room.
    fn edit(&mut self, edit: &mut Editor) -> Result<(), StoreError>;

    /// Removes those of the records under these stored keys that are still
    /// expired at `now`, in one transaction; returns how many.
    fn remove_expired(
        &mut self,
        rules: &Rules,
        database: Database,
        stored_keys: &[Vec<u8>],
        now: f64,
    ) -> Result<u64, StoreError>;
}

/// Why the store failed: the call, the place and the reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError {
    /// The call that failed.
    pub call: &'static str,
    /// The environment.
    pub place: String,
    /// The system's or LMDB's own words.
    pub reason: String,
    /// The system refused something; that says nothing about the records.
    pub is_of_system: bool,
}

impl StoreError {
    /// A bug of ours ended a transaction.
    pub fn of_bug() -> Self {
        StoreError {
            call: "apply",
            place: "records".to_owned(),
            reason: "a bug in the program".to_owned(),
            is_of_system: false,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.place, self.call, self.reason)
    }
}

impl std::error::Error for StoreError {}
