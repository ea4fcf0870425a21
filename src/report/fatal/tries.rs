//! The tries of each triplet that a log tells, and whether it passed.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use super::clients::Clients;
use crate::admin::failure::Failure;
use crate::mail_log::find;
use crate::mail_log::head::{Head, Program};
use crate::mail_log::postfix;
use crate::mail_log::request::{self, Said};
use crate::policy::decide::Whitelists;
use crate::policy::request::Request;
use crate::policy::rules::{Compat, Rules};
use crate::policy::triplet::Keys;
use crate::report::options::Id;
use crate::report::tally::Terms;
use crate::report::words::Words;

/// Which clients are told.
pub struct Filter {
    skipped: Clients,
    matched: Clients,
    has_match: bool,
    skips_pools: bool,
}

impl Filter {
    /// Reads the files that are named.
    pub fn new(words: &Words) -> Result<Filter, Failure> {
        let matched = Clients::read(words.all(Id::MatchClients))?;
        Ok(Filter {
            skipped: Clients::read(words.all(Id::SkipClients))?,
            has_match: !matched.is_empty(),
            matched,
            skips_pools: words.has(Id::SkipPool),
        })
    }

    fn admits(&self, name: &[u8], address: &[u8]) -> bool {
        let is_missed = self.has_match && !self.matched.contain(name, address);
        let is_pool = self.skips_pools && holds_address(name, address);
        !is_missed && !is_pool && !self.skipped.contain(name, address)
    }
}

/// True if the name holds the last two numbers of an IPv4 address.
pub fn holds_address(name: &[u8], address: &[u8]) -> bool {
    let parts: Vec<&[u8]> = address.split(|&octet| octet == b'.').collect();
    match parts[..] {
        [_, _, third, fourth] => find(name, third).is_some() && find(name, fourth).is_some(),
        _ => false,
    }
}

/// A triplet by the whole address of its client.
#[derive(Clone, Debug)]
pub struct Found {
    /// The client.
    pub address: Vec<u8>,
    /// The order of addresses: those of IPv4 first.
    pub order: Option<IpAddr>,
    /// Its name when it was seen last.
    pub name: Vec<u8>,
    /// In lower case and without its variable parts.
    pub sender: Vec<u8>,
    /// In lower case.
    pub recipient: Vec<u8>,
    /// Greylisted so many times.
    pub tries: u64,
    /// The first and the last time, in seconds since 1970.
    pub first: i64,
    /// See [`Found::first`].
    pub last: i64,
    /// It passed later, by the log.
    pub has_passed: bool,
    /// Hashes of the keys under which a server may have it.
    pub keys: [u64; 3],
}

/// Tries by the hash of client address, sender and recipient.
type ByTriplet = HashMap<u64, Found>;

/// What the logs tell.
pub struct Tries {
    terms: Terms,
    /// By the rules of the original.
    old: Terms,
    filter: Filter,
    /// Stands for texts: nobody can foresee two that have the same hash.
    hasher: RandomState,
    tries: ByTriplet,
    /// Postfix has lines about greylisted clients: those of the server do not count.
    has_postfix: bool,
    /// When a triplet passed last, by the hash of the server's key.
    passed: HashMap<u64, i64>,
}

impl Tries {
    /// Nothing is told yet.
    pub fn new(terms: Terms, filter: Filter, hasher: RandomState) -> Tries {
        let rules = Rules {
            compat: Compat::Targrey134,
            ..Rules::default()
        };
        Tries {
            old: Terms {
                lists: Whitelists::new(rules.compat),
                rules,
                ..terms.clone()
            },
            terms,
            filter,
            hasher,
            tries: HashMap::new(),
            has_postfix: false,
            passed: HashMap::new(),
        }
    }

    /// Takes a line.
    pub fn add(&mut self, head: &Head) {
        let Some(time) = head.time else { return };
        match head.program {
            Program::Smtpd => self.add_smtpd(head.message, time),
            Program::Postgrey => self.add_postgrey(head.message, time),
            _ => {}
        }
    }

    fn add_smtpd(&mut self, message: &[u8], time: i64) {
        let (message, times) = request::without_repetition(message);
        let postfix::Said::Reject(refused) = postfix::read(message) else {
            return;
        };
        // As in the original: mail without a sender is not told.
        let is_told = refused.reply.starts_with(b"450 ")
            && !refused.sender.is_empty()
            && !refused.recipient.is_empty()
            && self.terms.greylist_text.is_match(message);
        if is_told
            && self
                .filter
                .admits(refused.client_name, refused.client_address)
        {
            if !self.has_postfix {
                self.has_postfix = true;
                self.tries = HashMap::new();
            }
            let parts = [
                refused.client_name,
                refused.client_address,
                refused.sender,
                refused.recipient,
            ];
            self.add_try(parts, time, times);
        }
    }

    fn add_postgrey(&mut self, message: &[u8], time: i64) {
        let Said::Request(logged, times) = request::read(message) else {
            return;
        };
        if logged.sender.is_empty() || logged.recipient.is_empty() {
            return;
        }
        let parts = [
            logged.client_name,
            logged.client_address,
            logged.sender,
            logged.recipient,
        ];
        match logged.action {
            b"greylist"
                if !self.has_postfix
                    && self
                        .filter
                        .admits(logged.client_name, logged.client_address) =>
            {
                self.add_try(parts, time, times);
            }
            // What passed before anything was greylisted is of no use.
            b"pass" if !self.tries.is_empty() => {
                let key = self.hasher.hash_one(&key(&self.terms, parts)[..]);
                self.passed.insert(key, time);
            }
            _ => {}
        }
    }

    /// Counts a try: client name and address, sender, recipient.
    fn add_try(&mut self, parts: [&[u8]; 4], time: i64, times: u64) {
        let Tries {
            terms, old, hasher, ..
        } = self;
        let [name, address, sender, recipient] = parts;
        // By the original's rules a text without dots is whole; a slash stands on both
        // sides of the sender.
        let sender_part = key(old, [b"", b"", sender, b""]);
        let recipient_part = recipient.to_ascii_lowercase();
        let id = [
            &address.to_ascii_lowercase(),
            &sender_part[..],
            &recipient_part,
        ]
        .concat();
        let id = hasher.hash_one(&id[..]);
        let one = self.tries.entry(id).or_insert_with(|| {
            let [sender, recipient] = [sender, recipient].map(postfix::without_quotes);
            let known = [name, address, &sender, &recipient];
            // Where the server keeps it: by the rules that it has left, and by the
            // original's.
            let [own, by_original] =
                [terms, old].map(|terms| hasher.hash_one(&key(terms, known)[..]));
            Found {
                address: address.to_vec(),
                order: std::str::from_utf8(address)
                    .ok()
                    .and_then(|text| text.parse().ok()),
                name: Vec::new(),
                sender: sender_part[1..sender_part.len() - 1].to_vec(),
                recipient: recipient_part,
                tries: 0,
                first: time,
                last: time,
                has_passed: false,
                keys: [own, id, by_original],
            }
        });
        // The server leaves out a name that is none.
        let name = if name.is_empty() { b"unknown" } else { name };
        if one.name != name {
            one.name = name.to_vec();
        }
        one.tries += times;
        one.first = one.first.min(time);
        one.last = one.last.max(time);
    }

    /// All triplets, in the order of the report.
    pub fn finish(self) -> Vec<Found> {
        let mut all: Vec<Found> = self.tries.into_values().collect();
        for one in &mut all {
            let passed = one.keys.iter().filter_map(|key| self.passed.get(key)).max();
            one.has_passed = passed.is_some_and(|passed| *passed >= one.first);
        }
        all.sort_by(|a, b| {
            let place = |one: &Found| (one.order.is_none(), one.order);
            let by_address = place(a).cmp(&place(b));
            by_address
                .then_with(|| a.address.cmp(&b.address))
                .then_with(|| a.sender.cmp(&b.sender))
                .then_with(|| a.recipient.cmp(&b.recipient))
        });
        all
    }
}

/// The key of a triplet under the rules of the server.
fn key(terms: &Terms, parts: [&[u8]; 4]) -> Vec<u8> {
    let (mut request, mut keys) = (Request::default(), Keys::default());
    terms.build_keys(parts, &mut request, &mut keys);
    keys.triplet
}
