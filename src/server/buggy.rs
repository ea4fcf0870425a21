//! A store for tests that has a bug.

use crate::policy::apply::Reading;
use crate::policy::command::{Command, Outcome};
use crate::policy::record::Database;
use crate::policy::rules::Rules;
use crate::store::{CommitReport, Editor, Found, Key, Store, StoreError, Visitor};

/// Panics whenever it is asked for something.
pub struct BuggyStore;

impl Store for BuggyStore {
    fn try_read(&mut self, _: &Rules, _: &Command) -> Result<Reading, StoreError> {
        panic!("a bug at reading")
    }

    fn apply_batch(
        &mut self,
        _: &Rules,
        _: &[Command],
        outcomes: &mut Vec<Option<Outcome>>,
    ) -> Result<CommitReport, StoreError> {
        outcomes.push(Some(Outcome::default()));
        panic!("a bug at writing")
    }

    fn scan(
        &mut self,
        _: Database,
        _: &[u8],
        _: Option<&[u8]>,
        _: &mut Visitor,
    ) -> Result<bool, StoreError> {
        unreachable!()
    }

    fn records_of(&mut self, _: &Command) -> Result<Vec<Found>, StoreError> {
        unreachable!()
    }

    fn edit(&mut self, _: &[Key], _: &mut Editor) -> Result<CommitReport, StoreError> {
        unreachable!()
    }
}
