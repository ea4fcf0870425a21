//! A store for tests that has a bug.

use crate::policy::command::{Command, Outcome};
use crate::policy::record::Database;
use crate::policy::rules::Rules;
use crate::store::{Editor, Store, StoreError, Visitor};

/// Panics whenever it is asked for something.
pub struct BuggyStore;

impl Store for BuggyStore {
    fn try_read(&mut self, _: &Rules, _: &Command) -> Result<Option<Outcome>, StoreError> {
        panic!("a bug at reading")
    }

    fn apply_batch(
        &mut self,
        _: &Rules,
        _: &[Command],
        outcomes: &mut Vec<Outcome>,
    ) -> Result<(), StoreError> {
        outcomes.push(Outcome::default());
        panic!("a bug at writing")
    }

    fn scan(&mut self, _: Database, _: Option<&[u8]>, _: &mut Visitor) -> Result<bool, StoreError> {
        unreachable!()
    }

    fn read(&mut self, _: &[(Database, &[u8])]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        unreachable!()
    }

    fn edit(&mut self, _: &mut Editor) -> Result<(), StoreError> {
        unreachable!()
    }

    fn remove_expired(
        &mut self,
        _: &Rules,
        _: Database,
        _: &[Vec<u8>],
        _: f64,
    ) -> Result<u64, StoreError> {
        unreachable!()
    }
}
