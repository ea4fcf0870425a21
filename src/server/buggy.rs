//! A store for tests that has a bug.

use crate::policy::apply::Reading;
use crate::policy::command::{Command, Outcome};
use crate::policy::record::Database;
use crate::policy::rules::Rules;
use crate::store::{CommitReport, Editor, Store, StoreError, Visitor};

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
        outcomes: &mut Vec<Outcome>,
    ) -> Result<CommitReport, StoreError> {
        outcomes.push(Outcome::default());
        panic!("a bug at writing")
    }

    fn scan(&mut self, _: Database, _: Option<&[u8]>, _: &mut Visitor) -> Result<bool, StoreError> {
        unreachable!()
    }

    fn read(&mut self, _: &[(Database, &[u8])]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        unreachable!()
    }

    fn edit(&mut self, _: &mut Editor) -> Result<CommitReport, StoreError> {
        unreachable!()
    }
}
