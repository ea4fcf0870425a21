//! Maintenance: removes expired records in small slices.
//!
//! A slice looks at a bounded number of records in a read transaction, which
//! disturbs nobody, and removes what has expired in one short write
//! transaction. Between two slices requests are served. Interrupted at any
//! point nothing is lost: the next run starts from the beginning.

use std::ops::ControlFlow;

use super::{Key, Store, StoreError};
use crate::policy::record::{Database, is_expired};
use crate::policy::rules::Rules;

/// Records removed at most in one slice.
const MOST_REMOVED: usize = 1000;
/// Records looked at at most in one slice.
const MOST_SEEN: usize = 20_000;

/// A run of the maintenance over all databases.
#[derive(Debug)]
pub struct Expiry {
    now: f64,
    databases: Vec<Database>,
    /// Where the next slice goes on; `None`: at the start of the database.
    after: Option<Vec<u8>>,
    before: u64,
    removed: u64,
}

/// What a slice did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do in this database.
    More,
    /// A database is done: how many records it had before and has now.
    Finished {
        /// Which one.
        database: Database,
        /// Records before.
        before: u64,
        /// Records after.
        after: u64,
    },
    /// All databases are done.
    Done,
}

impl Expiry {
    /// A run that judges by the time `now`. Databases that are not in use
    /// under these rules are left alone, as in the original.
    pub fn new(rules: &Rules, now: f64) -> Self {
        let is_used = |database: &Database| match database {
            Database::Greylist => true,
            Database::Clients => rules.auto_whitelist.is_some(),
            Database::Tarpit => rules.targrey,
        };
        let databases = Database::ALL.into_iter().rev().filter(is_used).collect();
        Expiry {
            now,
            databases,
            after: None,
            before: 0,
            removed: 0,
        }
    }

    /// Records of the present database that were looked at.
    pub fn seen(&self) -> u64 {
        self.before
    }

    /// Removes those of the records that are still expired.
    fn remove(
        &self,
        store: &mut dyn Store,
        rules: &Rules,
        database: Database,
        keys: &[Vec<u8>],
    ) -> Result<u64, StoreError> {
        let mut removed = 0;
        let edited: Vec<Key> = keys.iter().map(|key| (database, &key[..])).collect();
        store.edit(&edited, &mut |records| {
            removed = 0;
            for key in keys {
                let value = records.get(database, key)?;
                if value.is_some_and(|value| is_expired(rules, database, value, self.now)) {
                    records.delete(database, key)?;
                    removed += 1;
                }
            }
            Ok(())
        })?;
        Ok(removed)
    }

    /// Does the next slice.
    pub fn step(&mut self, store: &mut dyn Store, rules: &Rules) -> Result<Progress, StoreError> {
        let Some(&database) = self.databases.last() else {
            return Ok(Progress::Done);
        };
        let mut expired = Vec::new();
        let mut last_seen = None;
        let mut seen = 0;
        let after = self.after.as_deref();
        let at_end = store.scan(database, b"", after, &mut |entry| {
            seen += 1;
            if is_expired(rules, database, entry.value, self.now) {
                expired.push(entry.key.to_vec());
            }
            if expired.len() >= MOST_REMOVED || seen >= MOST_SEEN {
                last_seen = Some(entry.stored_key.to_vec());
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if !expired.is_empty() {
            self.removed += self.remove(store, rules, database, &expired)?;
        }
        self.before += seen as u64;
        if !at_end {
            self.after = last_seen;
            return Ok(Progress::More);
        }
        let (before, after) = (self.before, self.before - self.removed.min(self.before));
        self.databases.pop();
        (self.after, self.before, self.removed) = (None, 0, 0);
        Ok(Progress::Finished {
            database,
            before,
            after,
        })
    }
}

/// The line of a finished database, as the original has it.
pub fn finished_line(database: Database, before: u64, after: u64) -> String {
    let name = match database {
        Database::Greylist => "main",
        Database::Clients => "clients",
        Database::Tarpit => "tarpit blacklist",
    };
    format!("cleaning {name} database finished. before: {before}, after: {after}")
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::*;

    #[test]
    fn a_run_removes_what_has_expired_in_slices_and_nothing_else() {
        let mut store = MemoryStore::default();
        let rules = Rules {
            max_age: 1000.0,
            targrey: true,
            ..Rules::default()
        };
        for n in 0..50_000 {
            let value = if n % 2 == 0 { "0,5000,1" } else { "0,9500,1" };
            store.insert(
                Database::Greylist,
                format!("{n:06}").as_bytes(),
                value.as_bytes(),
            );
        }
        store.insert(Database::Clients, b"192.0.2.1", b"5,8000");
        store.insert(Database::Tarpit, b"192.0.2.1", b"9000");
        let mut expiry = Expiry::new(&rules, 10_000.0);
        let (mut slices, mut finished) = (0, Vec::new());
        loop {
            match expiry.step(&mut store, &rules).unwrap() {
                Progress::More => slices += 1,
                Progress::Finished {
                    database,
                    before,
                    after,
                } => {
                    finished.push(finished_line(database, before, after));
                }
                Progress::Done => break,
            }
        }
        assert!(slices >= 24, "{slices}");
        assert_eq!(
            finished,
            [
                "cleaning main database finished. before: 50000, after: 25000",
                "cleaning clients database finished. before: 1, after: 0",
                "cleaning tarpit blacklist database finished. before: 1, after: 1",
            ]
        );
    }
}
