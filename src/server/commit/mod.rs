//! How commands come to be committed: by the writer for all workers
//! ([`remote`]), or by the process itself where there is no writer ([`local`]).

pub mod local;
pub mod newcomers;
pub mod remote;
pub mod wire;

use std::time::{Duration, Instant};

use self::newcomers::NewcomerLimit;
use super::counters::{Counter, Counters};
use crate::policy::command::{Command, Outcome};
use crate::policy::rules::Rules;
use crate::store::{CommitReport, Store, StoreError};
use crate::sys::process::contain_panic;

/// How long the writer may take. A command that is in no transaction by then is
/// dropped, and its request answered without the store.
pub const WRITER_PATIENCE: Duration = Duration::from_secs(1);

/// Applies commands in one transaction and counts it; outcomes are appended. A
/// bug fails the batch and no more.
pub fn apply_counted(
    store: &mut dyn Store,
    rules: &Rules,
    limit: Option<&mut NewcomerLimit>,
    counters: &Counters,
    commands: &mut [Command],
    outcomes: &mut Vec<Option<Outcome>>,
) -> Result<CommitReport, StoreError> {
    if let Some(limit) = &limit {
        limit.allow(commands);
    }
    let start = Instant::now();
    let first = outcomes.len();
    let applied = contain_panic(|| store.apply_batch(rules, commands, outcomes));
    let report = applied.unwrap_or_else(|| {
        counters.add(Counter::Bugs, 1);
        Err(StoreError::of_bug())
    });
    match &report {
        Ok(_) => {
            counters.add_batch(commands.len(), start.elapsed());
            if let Some(limit) = limit {
                limit.note(commands, &outcomes[first..], counters);
            }
        }
        Err(_) => outcomes.truncate(first),
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::command::{Allowance, Counting, Now};
    use crate::server::buggy::BuggyStore;
    use crate::server::shared::Shared;
    use crate::store::memory::MemoryStore;

    #[test]
    fn a_bug_at_applying_fails_the_batch_and_no_more() {
        let shared = Shared::new(1).unwrap();
        let counters = &shared.counters;
        let mut commands = [Command {
            now: Now::new(1e9, None),
            address: b"192.0.2.1",
            client: b"192.0.2.1",
            own_client: b"",
            triplet: b"192.0.2.0/a/b",
            octet: b"1",
            counting: Counting::Always,
            is_data: false,
            allowance: Allowance::UNLIMITED,
        }];
        let rules = Rules::default();
        let mut outcomes = Vec::new();
        let mut apply = |store: &mut dyn Store, outcomes: &mut Vec<Option<Outcome>>| {
            apply_counted(store, &rules, None, counters, &mut commands, outcomes)
        };
        let failed = apply(&mut BuggyStore, &mut outcomes);
        assert_eq!(failed, Err(StoreError::of_bug()));
        assert_eq!((counters.get(Counter::Bugs), outcomes.len()), (1, 0));
        let mut memory = MemoryStore::default();
        apply(&mut memory, &mut outcomes).unwrap();
        assert_eq!(outcomes.len(), 1);
    }
}
