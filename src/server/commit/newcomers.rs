//! `--max-new` at whoever commits: its table of client networks, and what is said of it.

use std::rc::Rc;

use crate::log::Log;
use crate::policy::command::{Command, Outcome};
use crate::policy::newcomers::Newcomers;
use crate::policy::rules::Rules;
use crate::server::counters::{Counter, Counters};

/// Limits the new records of each client network.
pub struct NewcomerLimit {
    newcomers: Newcomers,
    log: Rc<Log>,
}

impl NewcomerLimit {
    /// The limit that the rules set, if they do.
    pub fn new(rules: &Rules, log: &Rc<Log>) -> Option<Self> {
        let newcomers = Newcomers::new(rules.max_new?);
        let log = Rc::clone(log);
        Some(NewcomerLimit { newcomers, log })
    }

    /// Says in commands that are about to be applied what may be recorded.
    pub fn allow(&self, commands: &mut [Command]) {
        commands
            .iter_mut()
            .for_each(|command| self.newcomers.allow(command));
    }

    /// Counts what was committed, and says what was left out.
    pub fn note(
        &mut self,
        commands: &[Command],
        outcomes: &[Option<Outcome>],
        counters: &Counters,
    ) {
        for (command, outcome) in commands.iter().zip(outcomes) {
            let Some(outcome) = outcome else { continue };
            let Some(left_out) = self.newcomers.note(command, outcome) else {
                continue;
            };
            counters.add(Counter::NotRecorded, 1);
            let text = format!(
                "the client {} has had {} new records in an hour: {left_out} more were not made",
                String::from_utf8_lossy(command.allowance.network),
                self.newcomers.limit(),
            );
            self.log.complain_about("--max-new", &text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::apply_counted;
    use super::*;
    use crate::log::{Level, Sinks};
    use crate::policy::command::{Addition, Allowance, Now};
    use crate::server::buggy::BuggyStore;
    use crate::server::shared::Shared;
    use crate::store::Store;
    use crate::store::memory::MemoryStore;

    #[test]
    fn a_batch_that_fails_is_not_counted() {
        let shared = Shared::new(1).unwrap();
        let log = Rc::new(Log::new(Level::Zero, Sinks::default(), shared.complaints));
        let rules = Rules {
            max_new: Some(2),
            ..Rules::default()
        };
        let mut limit = NewcomerLimit::new(&rules, &log).unwrap();
        assert!(NewcomerLimit::new(&Rules::default(), &log).is_none());
        let mut apply = |store: &mut dyn Store, triplet: &[u8]| {
            let command = Command {
                now: Now::new(1e9, None),
                triplet,
                allowance: Allowance {
                    network: b"192.0.2.0",
                    ..Allowance::UNLIMITED
                },
                ..Command::PING
            };
            let (commands, mut outcomes) = (&mut [command], Vec::new());
            let limit = Some(&mut limit);
            apply_counted(
                store,
                &rules,
                limit,
                &shared.counters,
                commands,
                &mut outcomes,
            )
            .map(|_| outcomes[0].unwrap().triplet)
        };
        let mut memory = MemoryStore::default();
        for (triplet, expected) in [
            (b"a", Addition::Made),
            (b"a", Addition::None),
            (b"b", Addition::Made),
            (b"c", Addition::LeftOut),
            (b"a", Addition::None),
        ] {
            assert!(apply(&mut BuggyStore, triplet).is_err());
            assert_eq!(apply(&mut memory, triplet), Ok(expected));
        }
        assert_eq!(shared.counters.get(Counter::NotRecorded), 1);
    }
}
