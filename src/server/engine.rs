//! From the bytes of a connection to replies: what workers and spawned
//! sessions have in common.

use std::ops::ControlFlow;
use std::rc::Rc;

use super::counters::Counter;
use super::lists::reload;
use super::ping;
use super::shared::Shared;
use crate::config::VERSION;
use crate::config::settings::Settings;
use crate::log::{Level, Log};
use crate::policy::apply::Reading;
use crate::policy::command::{Command, Outcome, Verdict};
use crate::policy::decide::{Decision, Examined, Policy, Surroundings};
use crate::policy::request::{Attribute, Event, RequestReader};
use crate::policy::triplet::Keys;
use crate::store::{ErrorKind, Store};
use crate::sys::clock;
use crate::sys::process::contain_panic;

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
    /// The connection is to be closed after its replies (`--exim`, or a bug
    /// of ours after which nobody knows what its input means).
    Close,
}

/// Replies that the peer has not got yet.
#[derive(Debug, Default)]
pub struct Replies {
    /// Their octets.
    pub octets: Vec<u8>,
    /// The last one makes Postfix sleep: it will be silent for a while.
    pub last_is_sleep: bool,
}

/// The commands that came of requests, encoded.
#[derive(Debug, Default)]
pub struct Commands {
    /// The one its request waits for, on [`Advance::NeedCommit`].
    pub needed: Vec<u8>,
    /// Those that renew records and that nobody waits for.
    pub renewals: Vec<Vec<u8>>,
    /// Some of those are on their way: what is read may be older than they are.
    pub has_renewals_under_way: bool,
}

/// Everything that turns requests into replies but the store.
pub struct Engine {
    settings: Settings,
    policy: Policy,
    keys: Keys,
    /// Where log lines are made.
    line: Vec<u8>,
    /// Reading has met damage since this was last asked.
    has_met_damage: bool,
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
            has_met_damage: false,
            log,
            shared,
        }
    }

    /// The numbers and switches that decide.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Reads the whitelists again; keeps the old ones if one of the files has
    /// become unreadable or bad.
    pub fn reload(&mut self) {
        reload(&self.settings, &mut self.policy, &self.log);
    }

    /// True once after reading has met damage.
    pub fn take_damage(&mut self) -> bool {
        std::mem::take(&mut self.has_met_damage)
    }

    /// Handles requests until something is missing. Without a store, since it is
    /// being verified, requests that need it pass. On [`Advance::NeedCommit`] the
    /// command is in `commands`.
    pub fn advance(
        &mut self,
        mut store: Option<&mut dyn Store>,
        reader: &mut RequestReader,
        input: &mut &[u8],
        replies: &mut Replies,
        commands: &mut Commands,
    ) -> Advance {
        loop {
            if replies.octets.len() >= MAX_OUTPUT {
                return Advance::NeedOutput;
            }
            let start = replies.octets.len();
            // The lifetime behind the reference is shortened for one turn.
            let store: Option<&mut dyn Store> = match &mut store {
                Some(store) => Some(&mut **store),
                None => None,
            };
            let stepped = contain_panic(|| self.step(store, reader, input, replies, commands));
            match stepped {
                Some(ControlFlow::Continue(())) => {}
                Some(ControlFlow::Break(end)) => return end,
                None => return self.answer_bug(start, replies),
            }
        }
    }

    /// Handles one event of the input.
    fn step(
        &mut self,
        store: Option<&mut dyn Store>,
        reader: &mut RequestReader,
        input: &mut &[u8],
        replies: &mut Replies,
        commands: &mut Commands,
    ) -> ControlFlow<Advance> {
        let Some(event) = reader.next_event(input) else {
            return ControlFlow::Break(Advance::NeedInput);
        };
        if reader.take_ignored_time() {
            self.log
                .complain("policy_test_time is taken from this machine only");
        }
        match event {
            Event::Request => match self.decide(store, reader, commands) {
                Some(decision) => self.answer(reader, &decision, replies),
                None => ControlFlow::Break(Advance::NeedCommit),
            },
            Event::Ping if store.is_none() => {
                ping::push_unusable(&mut replies.octets);
                self.after_reply()
            }
            Event::Ping => {
                commands.needed.clear();
                Command::PING.encode(&mut commands.needed);
                ControlFlow::Break(Advance::NeedCommit)
            }
            Event::TooLarge(limit) => {
                self.shared.counters.add(Counter::TooLarge, 1);
                self.log
                    .complain(&format!("request not looked at: {limit}"));
                replies.octets.extend_from_slice(NO_OPINION);
                self.after_reply()
            }
            Event::Unrecognized => {
                self.shared.counters.add(Counter::Unrecognized, 1);
                let kind = reader.request().text(Attribute::Request);
                let line = [b"unrecognized request type: '", kind, b"'"].concat();
                self.log.write(Level::Zero, &line);
                ControlFlow::Continue(())
            }
            Event::Garbage(shown) => {
                self.shared.counters.add(Counter::Garbage, 1);
                let line = [b"ignoring garbage: <", &shown[..], b">"].concat();
                self.log.write(Level::One, &line);
                ControlFlow::Continue(())
            }
        }
    }

    /// Decides a request if that takes no write; else encodes its command. What
    /// cannot be read is left to whoever commits, who says what is wrong.
    fn decide(
        &mut self,
        store: Option<&mut dyn Store>,
        reader: &RequestReader,
        commands: &mut Commands,
    ) -> Option<Decision> {
        let now = clock::seconds();
        self.watch_stages(reader, now);
        let command = match self.policy.examine(reader.request(), now, &mut self.keys) {
            Examined::Decided(decision) => return Some(decision),
            Examined::NeedsStore(command) => command,
        };
        let Some(store) = store else {
            return Some(Decision::StoreFailed);
        };
        match store.try_read(&self.policy.rules, &command) {
            Ok(Reading::Decided(outcome)) if !commands.has_renewals_under_way => {
                return Some(Decision::Stored(outcome));
            }
            // A command that finds nothing to renew changes nothing.
            Ok(Reading::Decided(outcome) | Reading::RenewalDue(outcome)) => {
                let mut renewal = Vec::new();
                command.encode(&mut renewal);
                commands.renewals.push(renewal);
                return Some(Decision::Stored(outcome));
            }
            Ok(Reading::NeedsWrite) => {}
            Err(error) if error.kind == ErrorKind::Damage => self.has_met_damage = true,
            Err(error) if error.kind == ErrorKind::Busy => {}
            Err(error) => self.log.complain_about(error.cause(), &error.to_string()),
        }
        commands.needed.clear();
        command.encode(&mut commands.needed);
        None
    }

    fn watch_stages(&self, reader: &RequestReader, now: f64) {
        if self.policy.rules.targrey {
            let is_data = reader.request().text(Attribute::ProtocolState) == b"DATA";
            if self.shared.stages.note(is_data, now as u64) {
                self.log
                    .complain("no request came at DATA: --targrey needs one there");
            }
        }
    }

    /// Answers the request that waited for its command; `None`: it failed.
    /// [`ControlFlow::Continue`]: the connection goes on.
    pub fn finish(
        &mut self,
        reader: &RequestReader,
        outcome: Option<Outcome>,
        replies: &mut Replies,
    ) -> ControlFlow<Advance> {
        if reader.is_ping() {
            ping::push_answer(&mut replies.octets, outcome.is_some(), &self.shared.beats);
            return self.after_reply();
        }
        let decision = outcome.map_or(Decision::StoreFailed, Decision::Stored);
        let start = replies.octets.len();
        contain_panic(|| self.answer(reader, &decision, replies))
            .unwrap_or_else(|| ControlFlow::Break(self.answer_bug(start, replies)))
    }

    /// Answers a request at which the program failed, in place of what it may
    /// have written of a reply. The mail shall not suffer from it, nor the
    /// other connections.
    fn answer_bug(&self, start: usize, replies: &mut Replies) -> Advance {
        self.shared.counters.add(Counter::Bugs, 1);
        replies.octets.truncate(start);
        replies.octets.extend_from_slice(NO_OPINION);
        Advance::Close
    }

    /// What comes after a reply.
    fn after_reply(&self) -> ControlFlow<Advance> {
        match self.settings.exim {
            true => ControlFlow::Break(Advance::Close),
            false => ControlFlow::Continue(()),
        }
    }

    fn answer(
        &mut self,
        reader: &RequestReader,
        decision: &Decision,
        replies: &mut Replies,
    ) -> ControlFlow<Advance> {
        let (request, mut decision) = (reader.request(), *decision);
        // Others need no second look at the clock.
        if self.policy.rules.holds_mails_once() {
            let (held, clock) = (self.shared.held, clock::seconds());
            decision = self.policy.settle(request, decision, held, clock);
        }
        self.count(&decision);
        let surroundings = Surroundings {
            instances: self.shared.instances,
            version: VERSION,
            date: &clock::push_date,
        };
        let log = &self.log;
        let answered = self.policy.answer(
            request,
            &decision,
            &surroundings,
            &mut replies.octets,
            &mut self.line,
            &mut |level, line| {
                log.write(level, line);
            },
        );
        replies.last_is_sleep = answered.is_sleep;
        if answered.has_header {
            self.shared.counters.add(Counter::PassHeader, 1);
        }
        self.after_reply()
    }

    fn count(&self, decision: &Decision) {
        let counters = &self.shared.counters;
        counters.add(Counter::Requests, 1);
        let counter = match decision {
            Decision::Missing(_) | Decision::BadAddress => Counter::Unusable,
            Decision::ClientWhitelisted => Counter::PassClientWhitelist,
            Decision::RecipientWhitelisted => Counter::PassRecipientWhitelist,
            Decision::SenderWhitelisted => Counter::PassSenderWhitelist,
            Decision::NotOptedIn => Counter::PassNotOptedIn,
            Decision::NotSuspicious => Counter::PassNotS25r,
            Decision::StoreFailed => Counter::StoreErrors,
            Decision::Stored(outcome) | Decision::HeldBefore(outcome) => {
                if outcome.bad_record {
                    counters.add(Counter::BadRecords, 1);
                    self.log
                        .complain("a record could not be read and was taken for absent");
                }
                if outcome.client_whitelisted {
                    counters.add(Counter::ClientsWhitelisted, 1);
                }
                match outcome.verdict {
                    _ if matches!(decision, Decision::HeldBefore(_)) => Counter::PassHeldBefore,
                    Verdict::ClientAutoWhitelisted => Counter::PassClientAwl,
                    Verdict::TarpitPassed { .. } => Counter::TarpitPassed,
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
    use crate::config::whitelists;
    use crate::log::Sinks;
    use crate::policy::record::Database;
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
        let mut replies = Replies {
            octets: b"action=before\n\n".to_vec(),
            ..Replies::default()
        };
        let mut commands = Commands::default();
        let mut reader = RequestReader::default();
        let two = [REQUEST, REQUEST].concat();
        let next = engine.advance(
            Some(&mut BuggyStore),
            &mut reader,
            &mut &two[..],
            &mut replies,
            &mut commands,
        );
        assert_eq!(next, Advance::Close);
        assert_eq!(replies.octets, b"action=before\n\naction=DUNNO\n\n");
        assert_eq!(engine.shared.counters.get(Counter::Bugs), 1);

        let mut reader = RequestReader::default();
        let next = engine.advance(
            Some(&mut MemoryStore::default()),
            &mut reader,
            &mut &REQUEST[..],
            &mut replies,
            &mut commands,
        );
        assert_eq!(next, Advance::NeedCommit);
        let outcome = Outcome {
            verdict: Verdict::TarpitPassed { has_waited: true },
            ..Outcome::default()
        };
        replies.octets.clear();
        let next = engine.finish(&reader, Some(outcome), &mut replies);
        assert_eq!(next, ControlFlow::Continue(()));
        assert_eq!(replies.octets, b"action=DUNNO\n\n");
    }

    #[test]
    fn a_client_whose_renewal_is_due_does_not_wait_for_it() {
        let mut engine = engine();
        let mut asked = |value: &[u8]| {
            let mut store = MemoryStore::default();
            store.insert(Database::Clients, b"192.0.2.1", value);
            let (mut replies, mut commands) = (Replies::default(), Commands::default());
            let next = engine.advance(
                Some(&mut store),
                &mut RequestReader::default(),
                &mut &REQUEST[..],
                &mut replies,
                &mut commands,
            );
            (next, replies.octets, commands.renewals.len())
        };
        let dunno = b"action=DUNNO\n\n".to_vec();
        assert_eq!(asked(b"5,1000"), (Advance::NeedInput, dunno.clone(), 1));
        let now = format!("5,{}", clock::seconds());
        assert_eq!(asked(now.as_bytes()), (Advance::NeedInput, dunno, 0));
        assert_eq!(asked(b"4,1000"), (Advance::NeedCommit, Vec::new(), 0));
    }

    #[test]
    fn what_needs_the_store_passes_while_there_is_none() {
        let mut engine = engine();
        let (mut replies, mut commands) = (Replies::default(), Commands::default());
        let next = engine.advance(
            None,
            &mut RequestReader::default(),
            &mut &REQUEST[..],
            &mut replies,
            &mut commands,
        );
        assert_eq!(next, Advance::NeedInput);
        assert_eq!(replies.octets, b"action=DUNNO\n\n");
        assert_eq!(engine.shared.counters.get(Counter::StoreErrors), 1);
    }
}
