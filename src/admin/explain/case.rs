//! One request under one policy, now and later, on a copy of the records it
//! concerns. The functions that decide are the server's.

use std::sync::atomic::AtomicU64;

use crate::config::VERSION;
use crate::policy::apply::ReadRecords;
use crate::policy::client::ClientAddress;
use crate::policy::command::{Command, Verdict};
use crate::policy::decide::{Decision, Examined, Policy, Surroundings};
use crate::policy::instances::Instances;
use crate::policy::number::number_of_text;
use crate::policy::record::TripletRecord;
use crate::policy::request::{Attribute, Request};
use crate::policy::triplet::Keys;
use crate::policy::whitelist::SourceLine;
use crate::store::memory::MemoryStore;
use crate::store::{Found, Store};
use crate::sys::clock;

/// Tries looked at until one passes.
const MOST_TRIES: usize = 12;
/// Seconds between two tries after the delay, at least: mail servers wait
/// longer.
const LEAST_INTERVAL: f64 = 60.0;

/// A request, the policy it comes under, and what is remembered of it.
pub struct Case<'a> {
    policy: &'a Policy,
    request: Request,
    /// The keys of the request.
    pub keys: Keys,
    /// The records under these keys; none if the store is not asked.
    pub records: Vec<Found>,
}

/// What a server would answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// When, in seconds since 1970.
    pub time: f64,
    /// What was decided.
    pub decision: Decision,
    /// The action, without `action=` and line ends.
    pub reply: Vec<u8>,
    /// The lines of the log.
    pub log: Vec<Vec<u8>>,
}

/// What a decision rests on, if it is a rule of a whitelist.
pub struct Rule<'a> {
    /// Where it was written.
    pub source: &'a SourceLine,
    /// Which part of the request it fits.
    pub part: &'static str,
}

impl<'a> Case<'a> {
    /// Looks at a request at the time `clock`, and asks for its records if it needs
    /// them. The time of a request that brings its own is dropped.
    pub fn new<E>(
        policy: &'a Policy,
        request: &Request,
        clock: f64,
        records_of: impl FnOnce(&Command) -> Result<Vec<Found>, E>,
    ) -> Result<Case<'a>, E> {
        let request = without_time(request);
        let mut keys = Keys::default();
        let records = match policy.examine(&request, clock, &mut keys) {
            Examined::Decided(_) => Vec::new(),
            Examined::NeedsStore(command) => records_of(&command)?,
        };
        Ok(Case {
            policy,
            request,
            keys,
            records,
        })
    }

    /// The request, without a time of its own.
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// A store with what is remembered of this request.
    pub fn memory(&self) -> MemoryStore {
        let mut memory = MemoryStore::default();
        for (database, key, value) in &self.records {
            if let Some(value) = value {
                memory.insert(*database, key, value);
            }
        }
        memory
    }

    /// The answer at this time, and its traces in the memory.
    pub fn answer(&self, memory: &mut MemoryStore, time: f64) -> Answer {
        self.answer_to(&self.request, memory, time)
    }

    /// The answer to the same client at the DATA stage.
    pub fn answer_at_data(&self, memory: &mut MemoryStore, time: f64) -> Answer {
        let mut request = self.request.clone();
        request.set(Attribute::ProtocolState, b"DATA");
        self.answer_to(&request, memory, time)
    }

    fn answer_to(&self, request: &Request, memory: &mut MemoryStore, time: f64) -> Answer {
        let mut keys = Keys::default();
        let decision = match self.policy.examine(request, time, &mut keys) {
            Examined::Decided(decision) => decision,
            Examined::NeedsStore(command) => {
                let mut outcomes = Vec::new();
                let applied = memory.apply_batch(&self.policy.rules, &[command], &mut outcomes);
                match (applied, outcomes.pop()) {
                    (Ok(_), Some(Some(outcome))) => Decision::Stored(outcome),
                    _ => Decision::StoreFailed,
                }
            }
        };
        let cells = std::array::from_fn(|_| AtomicU64::new(0));
        let surroundings = Surroundings {
            instances: Instances::new(&cells),
            version: VERSION,
            date: &clock::push_date,
        };
        let (mut reply, mut log) = (Vec::new(), Vec::new());
        self.policy.answer(
            request,
            &decision,
            &surroundings,
            &mut reply,
            &mut Vec::new(),
            &mut |_, line| {
                log.push(line.to_vec());
            },
        );
        let reply = reply.strip_prefix(b"action=").unwrap_or(&reply);
        let reply = reply.strip_suffix(b"\n\n").unwrap_or(reply).to_vec();
        Answer {
            time,
            decision,
            reply,
            log,
        }
    }

    /// The tries to come, until one passes: the first when the delay is over,
    /// the others at some distance. None if `last` was let through.
    pub fn next_tries(&self, memory: &mut MemoryStore, last: &Answer) -> Vec<Answer> {
        let mut tries: Vec<Answer> = Vec::new();
        let rules = &self.policy.rules;
        let interval = rules.delay.max(LEAST_INTERVAL);
        while tries.len() < MOST_TRIES {
            let before = tries.last().unwrap_or(last);
            let is_held_back = matches!(
                before.decision,
                Decision::Stored(outcome)
                    if matches!(outcome.verdict, Verdict::Greylist { .. } | Verdict::Tarpit)
            );
            if !is_held_back {
                break;
            }
            let ready = self
                .first_seen(memory)
                .map_or(before.time, |first| first + rules.delay);
            let time = if ready > before.time {
                ready
            } else {
                before.time + interval
            };
            tries.push(self.answer(memory, time));
        }
        tries
    }

    fn first_seen(&self, memory: &mut MemoryStore) -> Option<f64> {
        let (database, key, _) = self.records.first()?;
        let value = memory.get(*database, key).ok()??;
        TripletRecord::parse(value).map(|record| number_of_text(record.first))
    }

    /// The line by which the recipient is greylisted, where only those with one are.
    pub fn opt_in(&self) -> Option<&'a SourceLine> {
        let opted_in = self.policy.whitelists.opted_in.as_ref()?;
        opted_in.match_address(self.request.text(Attribute::Recipient))
    }

    /// The rule of a whitelist that decides.
    pub fn rule(&self) -> Option<Rule<'a>> {
        let lists = &self.policy.whitelists;
        let text = |attribute| self.request.text(attribute);
        let client = ClientAddress::new(&self.policy.rules, text(Attribute::ClientAddress))?;
        let by_name = lists.clients.match_name(text(Attribute::ClientName));
        let by_address = || lists.clients.match_address(client.text, client.parsed);
        let by_recipient = || lists.recipients.match_address(text(Attribute::Recipient));
        let senders = lists.senders.as_ref();
        let by_sender = || senders?.match_address(text(Attribute::Sender));
        by_name
            .map(|source| Rule {
                source,
                part: "the client's name",
            })
            .or_else(|| {
                by_address().map(|source| Rule {
                    source,
                    part: "the client's address",
                })
            })
            .or_else(|| {
                by_recipient().map(|source| Rule {
                    source,
                    part: "the recipient",
                })
            })
            .or_else(|| {
                by_sender().map(|source| Rule {
                    source,
                    part: "the sender",
                })
            })
    }
}

fn without_time(request: &Request) -> Request {
    let mut copy = Request::default();
    for attribute in [
        Attribute::Request,
        Attribute::ProtocolState,
        Attribute::ClientAddress,
        Attribute::ClientName,
        Attribute::Sender,
        Attribute::Recipient,
        Attribute::QueueId,
        Attribute::Instance,
        Attribute::EtrnDomain,
    ] {
        if let Some(value) = request.get(attribute) {
            copy.set(attribute, value);
        }
    }
    copy
}
