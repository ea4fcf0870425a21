//! From the bytes of a connection to replies: what workers and spawned
//! sessions have in common.

use std::rc::Rc;

use super::contained;
use super::counters::Counter;
use super::shared::Shared;
use crate::config::VERSION;
use crate::config::settings::Settings;
use crate::config::whitelists;
use crate::log::{Level, Log};
use crate::policy::command::{Outcome, Verdict};
use crate::policy::decide::{Decision, Examined, Policy, Surroundings};
use crate::policy::request::{Attribute, Event, RequestReader};
use crate::policy::triplet::Keys;
use crate::store::Store;
use crate::sys::clock;

/// Octets of unsent replies beyond which no further request of a connection is
/// looked at: the peer has to read first.
pub const MAX_OUTPUT: usize = 16 * 1024;
/// The reply to a request that could not be looked at.
const NO_OPINION: &[u8] = b"action=DUNNO\n\n";

/// Why [`Engine::advance`] stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// The input is used up.
    NeedInput,
    /// The peer must read its replies first; there may be input left.
    NeedOutput,
    /// The request of the reader waits for its command to be committed.
    NeedCommit,
    /// The connection is to be closed behind its replies (`--exim`, or a bug
    /// of ours after which nobody knows what its input means).
    Close,
}

/// Everything that turns requests into replies but the store.
pub struct Engine {
    settings: Settings,
    policy: Policy,
    keys: Keys,
    /// Where log lines are made.
    line: Vec<u8>,
    log: Rc<Log>,
    shared: Shared,
}

impl Engine {
    /// An engine with whitelists that were read before.
    pub fn new(settings: &Settings, policy: Policy, log: Rc<Log>, shared: Shared) -> Self {
        Engine {
            settings: settings.clone(),
            policy,
            keys: Keys::default(),
            line: Vec::new(),
            log,
            shared,
        }
    }

    /// The numbers and switches that decide.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Reads the whitelists again; keeps the old ones if one of the files is
    /// unreadable or bad.
    pub fn reload(&mut self) {
        let loaded = whitelists::load(&self.settings);
        for problem in &loaded.problems {
            self.log.complain(&problem.text);
        }
        if loaded.problems.iter().any(|problem| problem.is_fatal) {
            self.log
                .complain("whitelists not reloaded: the old ones stay in use");
        } else {
            self.policy.whitelists = loaded.whitelists;
        }
    }

    /// Handles requests until something is missing. Replies go to `output`; on
    /// [`Advance::NeedCommit`] the command is in `command`, encoded.
    pub fn advance(
        &mut self,
        store: &mut dyn Store,
        reader: &mut RequestReader,
        input: &mut &[u8],
        output: &mut Vec<u8>,
        command: &mut Vec<u8>,
    ) -> Advance {
        loop {
            if output.len() >= MAX_OUTPUT {
                return Advance::NeedOutput;
            }
            let start = output.len();
            let stepped = contained(|| self.step(store, reader, input, output, command));
            match stepped {
                Some(None) => {}
                Some(Some(end)) => return end,
                None => return self.answer_bug(start, output),
            }
        }
    }

    /// Handles one event of the input; `None`: there may be more.
    fn step(
        &mut self,
        store: &mut dyn Store,
        reader: &mut RequestReader,
        input: &mut &[u8],
        output: &mut Vec<u8>,
        command: &mut Vec<u8>,
    ) -> Option<Advance> {
        let Some(event) = reader.next_event(input) else {
            return Some(Advance::NeedInput);
        };
        let next = match event {
            Event::Request => match self.decide(store, reader, command) {
                Some(decision) => self.answer(reader, &decision, output),
                None => Advance::NeedCommit,
            },
            Event::TooLarge(limit) => {
                self.shared.counters.add(Counter::TooLarge, 1);
                self.log
                    .complain(&format!("request not looked at: {limit}"));
                output.extend_from_slice(NO_OPINION);
                self.behind_reply()
            }
            Event::Unrecognized => {
                self.shared.counters.add(Counter::Unrecognized, 1);
                let kind = reader.request().text(Attribute::Request);
                let line = [b"unrecognized request type: '", kind, b"'"].concat();
                self.log.write(Level::Zero, &line);
                Advance::NeedInput
            }
            Event::Garbage(shown) => {
                self.shared.counters.add(Counter::Garbage, 1);
                let line = [b"ignoring garbage: <", &shown[..], b">"].concat();
                self.log.write(Level::One, &line);
                Advance::NeedInput
            }
        };
        (next != Advance::NeedInput).then_some(next)
    }

    /// Decides a request if that takes no write; else encodes its command.
    fn decide(
        &mut self,
        store: &mut dyn Store,
        reader: &RequestReader,
        command: &mut Vec<u8>,
    ) -> Option<Decision> {
        let asked = match self
            .policy
            .examine(reader.request(), clock::seconds(), &mut self.keys)
        {
            Examined::Decided(decision) => return Some(decision),
            Examined::NeedsStore(asked) => asked,
        };
        match store.try_read(&self.policy.rules, &asked) {
            Ok(Some(outcome)) => Some(Decision::Stored(outcome)),
            Ok(None) => {
                command.clear();
                asked.encode(command);
                None
            }
            Err(error) => {
                self.log.complain(&error.to_string());
                Some(Decision::StoreFailed)
            }
        }
    }

    /// Answers the request that waited for its command; `None`: it failed.
    pub fn finish(
        &mut self,
        reader: &RequestReader,
        outcome: Option<Outcome>,
        output: &mut Vec<u8>,
    ) -> Advance {
        let decision = outcome.map_or(Decision::StoreFailed, Decision::Stored);
        let start = output.len();
        contained(|| self.answer(reader, &decision, output))
            .unwrap_or_else(|| self.answer_bug(start, output))
    }

    /// Answers a request at which the program failed, in place of what it may
    /// have written of a reply. The mail shall not suffer from it, nor the
    /// other connections.
    fn answer_bug(&self, start: usize, output: &mut Vec<u8>) -> Advance {
        self.shared.counters.add(Counter::Bugs, 1);
        output.truncate(start);
        output.extend_from_slice(NO_OPINION);
        Advance::Close
    }

    /// What comes behind a reply.
    fn behind_reply(&self) -> Advance {
        match self.settings.exim {
            true => Advance::Close,
            false => Advance::NeedInput,
        }
    }

    fn answer(
        &mut self,
        reader: &RequestReader,
        decision: &Decision,
        output: &mut Vec<u8>,
    ) -> Advance {
        self.count(decision);
        let surroundings = Surroundings {
            instances: self.shared.instances,
            version: VERSION,
            date: &clock::push_date,
        };
        let log = &self.log;
        let answered = self.policy.answer(
            reader.request(),
            decision,
            &surroundings,
            output,
            &mut self.line,
            &mut |level, line| {
                log.write(level, line);
            },
        );
        if answered.has_header {
            self.shared.counters.add(Counter::PassHeader, 1);
        }
        self.behind_reply()
    }

    fn count(&self, decision: &Decision) {
        let counters = &self.shared.counters;
        counters.add(Counter::Requests, 1);
        let counter = match decision {
            Decision::Missing(_) | Decision::BadAddress => Counter::Unusable,
            Decision::ClientWhitelisted => Counter::PassClientWhitelist,
            Decision::RecipientWhitelisted => Counter::PassRecipientWhitelist,
            Decision::NotSuspicious => Counter::PassNotS25r,
            Decision::StoreFailed => Counter::StoreErrors,
            Decision::Stored(outcome) => {
                if outcome.bad_record {
                    counters.add(Counter::BadRecords, 1);
                    self.log
                        .complain("a record could not be read and was taken for absent");
                }
                if outcome.client_whitelisted {
                    counters.add(Counter::ClientsWhitelisted, 1);
                }
                match outcome.verdict {
                    Verdict::ClientAutoWhitelisted => Counter::PassClientAwl,
                    Verdict::TarpitPassed => Counter::TarpitPassed,
                    Verdict::Tarpit => Counter::Tarpitted,
                    Verdict::Greylist { is_new: true, .. } => Counter::GreylistNew,
                    Verdict::Greylist { is_new: false, .. } => Counter::GreylistEarly,
                    Verdict::Pass { .. } => Counter::PassTriplet,
                }
            }
        };
        counters.add(counter, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Sinks;
    use crate::server::buggy::BuggyStore;
    use crate::store::memory::MemoryStore;

    const REQUEST: &[u8] = b"request=smtpd_access_policy\nclient_address=192.0.2.1\n\
        client_name=unknown\nsender=a@example.com\nrecipient=b@example.org\n\n";

    fn engine() -> Engine {
        let shared = Shared::new(1).unwrap();
        let log = Rc::new(Log::new(Level::Zero, Sinks::default(), shared.complaints));
        let settings = Settings::default();
        let policy = Policy {
            rules: settings.rules.clone(),
            texts: settings.texts.clone(),
            whitelists: whitelists::empty(&settings),
            is_dry_run: false,
        };
        Engine::new(&settings, policy, log, shared)
    }

    #[test]
    fn a_bug_costs_one_connection_one_request() {
        let mut engine = engine();
        let (mut output, mut command) = (b"action=before\n\n".to_vec(), Vec::new());
        let mut reader = RequestReader::default();
        let two = [REQUEST, REQUEST].concat();
        let next = engine.advance(
            &mut BuggyStore,
            &mut reader,
            &mut &two[..],
            &mut output,
            &mut command,
        );
        assert_eq!(next, Advance::Close);
        assert_eq!(output, b"action=before\n\naction=DUNNO\n\n");
        assert_eq!(engine.shared.counters.get(Counter::Bugs), 1);

        let mut reader = RequestReader::default();
        let next = engine.advance(
            &mut MemoryStore::default(),
            &mut reader,
            &mut &REQUEST[..],
            &mut output,
            &mut command,
        );
        assert_eq!(next, Advance::NeedCommit);
        let outcome = Outcome {
            verdict: Verdict::TarpitPassed,
            ..Outcome::default()
        };
        output.clear();
        let next = engine.finish(&reader, Some(outcome), &mut output);
        assert_eq!(next, Advance::NeedInput);
        assert_eq!(output, b"action=DUNNO\n\n");
    }
}
