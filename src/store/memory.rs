//! A store in memory, for tests and dry runs.

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::ops::{Bound, ControlFlow};

use super::{CommitReport, Editor, Entry, Found, Key, Store, StoreError, Visitor};
use crate::policy::apply::{ReadRecords, Reading, Records, apply_all, apply_read_only};
use crate::policy::command::{Command, Outcome};
use crate::policy::record::Database;
use crate::policy::rules::Rules;

/// Records in three sorted maps.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    maps: [BTreeMap<Vec<u8>, Vec<u8>>; 3],
}

/// The store is its own transaction; it never fails.
impl ReadRecords for MemoryStore {
    type Error = StoreError;

    fn get(&self, database: Database, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        Ok(self.maps[database as usize].get(key).map(Vec::as_slice))
    }
}

impl Records for MemoryStore {
    fn put(&mut self, database: Database, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.insert(database, key, value);
        Ok(())
    }

    fn delete(&mut self, database: Database, key: &[u8]) -> Result<(), StoreError> {
        self.maps[database as usize].remove(key);
        Ok(())
    }
}

impl MemoryStore {
    /// Writes a record as it is.
    pub fn insert(&mut self, database: Database, key: &[u8], value: &[u8]) {
        self.maps[database as usize].insert(key.to_vec(), value.to_vec());
    }
}

impl Store for MemoryStore {
    fn try_read(&mut self, rules: &Rules, command: &Command) -> Result<Reading, StoreError> {
        apply_read_only(self, rules, command)
    }

    fn apply_batch(
        &mut self,
        rules: &Rules,
        commands: &[Command],
        outcomes: &mut Vec<Option<Outcome>>,
    ) -> Result<CommitReport, StoreError> {
        apply_all(self, rules, commands, outcomes)?;
        Ok(CommitReport::default())
    }

    fn scan(
        &mut self,
        database: Database,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visitor,
    ) -> Result<bool, StoreError> {
        let start = after.map_or(Bound::Included(prefix), Bound::Excluded);
        let records: Range<'_, Vec<u8>, Vec<u8>> =
            self.maps[database as usize].range::<[u8], _>((start, Bound::Unbounded));
        for (key, value) in records.take_while(|(key, _)| key.starts_with(prefix)) {
            if visit(Entry {
                stored_key: key,
                key,
                value,
            }) == ControlFlow::Break(())
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn records_of(&mut self, command: &Command) -> Result<Vec<Found>, StoreError> {
        let found = |(database, key): (Database, &[u8])| {
            let value = self.maps[database as usize].get(key).cloned();
            (database, key.to_vec(), value)
        };
        Ok(command.keys().map(found).collect())
    }

    fn edit(&mut self, _: &[Key], edit: &mut Editor) -> Result<CommitReport, StoreError> {
        let before = self.maps.clone();
        let result = edit(self);
        if result.is_err() {
            self.maps = before;
        }
        result.map(|()| CommitReport::default())
    }
}
