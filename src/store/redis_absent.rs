//! In a program that is built without Redis: a store that there never is.

use std::time::Duration;

use super::{CommitReport, Editor, Found, Key, Store, StoreError, Visitor};
use crate::config::settings::Settings;
use crate::policy::apply::Reading;
use crate::policy::command::{Command, Outcome};
use crate::policy::record::Database;
use crate::policy::rules::Rules;

/// No records.
pub enum RedisStore {}

impl RedisStore {
    /// None: the options cannot name one.
    pub fn of(_: &Settings, _: Duration) -> Option<Self> {
        None
    }

    /// What there is to note.
    pub fn probe(&mut self) -> Result<Vec<String>, StoreError> {
        match *self {}
    }
}

impl Store for RedisStore {
    fn try_read(&mut self, _: &Rules, _: &Command) -> Result<Reading, StoreError> {
        match *self {}
    }

    fn apply_batch(
        &mut self,
        _: &Rules,
        _: &[Command],
        _: &mut Vec<Option<Outcome>>,
    ) -> Result<CommitReport, StoreError> {
        match *self {}
    }

    fn scan(
        &mut self,
        _: Database,
        _: &[u8],
        _: Option<&[u8]>,
        _: &mut Visitor,
    ) -> Result<bool, StoreError> {
        match *self {}
    }

    fn records_of(&mut self, _: &Command) -> Result<Vec<Found>, StoreError> {
        match *self {}
    }

    fn edit(&mut self, _: &[Key], _: &mut Editor) -> Result<CommitReport, StoreError> {
        match *self {}
    }
}
