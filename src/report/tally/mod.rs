//! What is counted while the lines go by: memory grows with distinct triplets and
//! clients, not with lines.

mod counts;
pub mod names;
pub mod periods;
mod refused;
pub mod triplets;

use std::collections::BTreeMap;

use crate::mail_log::find;
use crate::mail_log::head::{Head, Program};
use crate::mail_log::postfix;
use crate::mail_log::request::{self, Logged, Said};
use crate::policy::client::ClientAddress;
use crate::policy::pool::KnownBy;
use crate::policy::request::Request;
use crate::policy::triplet::Keys;
pub use counts::{Lines, Sums, Terms};
use names::Names;
use periods::{By, Periods};
pub use refused::TOLD_BY_POSTFIX;
use refused::{Refusals, SAME};
use triplets::{Client, Pieces, Pool, Triplet, Triplets};

/// Kinds of answers that are told apart; further ones are counted as one.
const MOST_KINDS: usize = 100;
/// Seconds by which a line may be earlier than one before it: more than a clock goes back
/// in autumn.
const BACK: i64 = 2 * 3600;
/// Times before this one fit into the table of triplets, in seconds since 1970: until
/// 2106.
const LATEST: i64 = u32::MAX as i64;

/// Everything that is counted.
pub struct Tally {
    terms: Terms,
    /// Tells periods.
    pub periods: Periods,
    /// By number of the period.
    pub sums: BTreeMap<u32, Sums>,
    /// Requests by kind of answer for each hour, where they are wanted for a picture.
    pub hours: Option<(Periods, BTreeMap<u32, Vec<u64>>)>,
    /// Action and reason of each kind of answer.
    pub kinds: Vec<(String, String)>,
    /// Lines.
    pub lines: Lines,
    /// Triplets that came back.
    pub came_back: u64,
    /// Refusals by Postfix that are not counted yet.
    refusals: Refusals,
    /// The first and the last request, in seconds since 1970.
    pub span: Option<(i64, i64)>,
    /// Client addresses; their numbers are those of `clients`.
    pub addresses: Names,
    /// By number of the address.
    pub clients: Pieces<Client>,
    /// Domains of senders.
    pub sender_domains: Names,
    /// Domains of recipients.
    pub recipient_domains: Names,
    /// Domains of large senders.
    pub pool_domains: Names,
    /// Triplets.
    pub triplets: Triplets,
    keys: Keys,
    request: Request,
    /// The latest time of a line.
    latest: i64,
    /// The last request of each log, for "last message repeated".
    last: BTreeMap<usize, (i64, usize)>,
}

impl Tally {
    /// Nothing is counted yet.
    pub fn new(mut terms: Terms) -> Tally {
        // Names are told, not their hashes.
        terms.rules.privacy = false;
        Tally {
            periods: Periods::new(terms.by),
            terms,
            sums: BTreeMap::new(),
            hours: None,
            kinds: Vec::new(),
            lines: Lines::default(),
            came_back: 0,
            refusals: Refusals::default(),
            span: None,
            addresses: Names::default(),
            clients: Pieces::default(),
            sender_domains: Names::default(),
            recipient_domains: Names::default(),
            pool_domains: Names::default(),
            triplets: Triplets::default(),
            keys: Keys::default(),
            request: Request::default(),
            latest: 0,
            last: BTreeMap::new(),
        }
    }

    /// Counts for each hour as well, if the periods are longer.
    pub fn with_hours(self) -> Tally {
        let hours = (self.terms.by != By::Hour).then(|| (Periods::new(By::Hour), BTreeMap::new()));
        Tally { hours, ..self }
    }

    /// The length of the periods.
    pub fn by(&self) -> By {
        self.terms.by
    }

    /// Counts a line of a log.
    pub fn add(&mut self, head: &Head, log: usize) {
        self.lines.read += 1;
        // Another time is none that a clock has had.
        let head = &Head {
            time: head.time.filter(|time| (1..LATEST).contains(time)),
            ..*head
        };
        if let Some(time) = head.time {
            self.settle(time);
            if head.program != Program::Other {
                self.lines.disordered += u64::from(time + BACK < self.latest);
                self.latest = self.latest.max(time);
            }
        }
        if head.program == Program::Syslog {
            return self.add_syslog(head, log);
        }
        self.last.remove(&log);
        match head.program {
            Program::Postgrey => self.add_postgrey(head, log),
            Program::Smtpd => {
                self.lines.postfix += 1;
                if let Some(time) = head.time {
                    self.add_smtpd(head.message, time);
                }
            }
            _ => self.lines.other += 1,
        }
    }

    fn add_syslog(&mut self, head: &Head, log: usize) {
        if let Some(times) = request::repetitions(head.message) {
            match self.last.get(&log) {
                // It was counted as a triplet and a client already.
                Some(&(time, kind)) => {
                    self.lines.requests += times;
                    self.sums_at(time).counts[kind] += times;
                }
                None => self.lines.other += 1,
            }
            return;
        }
        self.lines.other += 1;
        self.lines.lost += lost(head.message);
    }

    fn add_postgrey(&mut self, head: &Head, log: usize) {
        match request::read(head.message) {
            Said::Request(logged, times) => {
                let Some(time) = head.time else {
                    self.lines.untimed += 1;
                    return;
                };
                self.lines.requests += times;
                let kind = self.add_request(&logged, time, times);
                self.last.insert(log, (time, kind));
            }
            Said::Whitelisted(_) => {
                self.lines.postgrey += 1;
                if let Some(time) = head.time {
                    self.sums_at(time).whitelisted += 1;
                }
            }
            Said::Unknown => self.lines.unknown += 1,
            Said::Other => self.lines.postgrey += 1,
        }
    }

    fn add_smtpd(&mut self, message: &[u8], time: i64) {
        let (message, times) = request::without_repetition(message);
        match postfix::read(message) {
            postfix::Said::BrokenOff => self.sums_at(time).broken_off += times,
            postfix::Said::Reject(refused) => {
                if !refused.recipient.is_empty() && self.terms.greylist_text.is_match(refused.reply)
                {
                    self.refusals.push(&refused, time, times);
                }
            }
            postfix::Said::Other => {}
        }
    }

    /// Begins the next period of [`By::Turn`]: what was counted before is forgotten, but
    /// not of whom.
    pub fn next_turn(&mut self) {
        self.periods.next();
        self.sums.clear();
        self.lines = Lines::default();
        self.came_back = 0;
    }

    /// Counts those refusals by Postfix of which the server has not told until now.
    pub fn settle(&mut self, now: i64) {
        while let Some(held) = self.refusals.pop(now) {
            let logged = held.logged();
            self.build_key(&logged);
            let known = self.triplets.known(&self.keys.triplet);
            let is_told = known.is_some_and(|id| {
                let told = i64::from(self.triplets.all[id].told_at);
                (told - SAME..=told + SAME).contains(&held.time)
            });
            if !is_told {
                self.add_request(&logged, held.time, held.times);
            }
        }
    }

    fn sums_at(&mut self, time: i64) -> &mut Sums {
        let number = self.periods.number(time);
        let kinds = self.kinds.len();
        let sums = self.sums.entry(number).or_default();
        if sums.counts.len() < kinds {
            sums.counts.resize(kinds, 0);
        }
        sums
    }

    fn kind(&mut self, logged: &Logged) -> usize {
        let is_same = |(action, reason): &(String, String)| {
            action.as_bytes() == logged.action && reason.as_bytes() == logged.reason
        };
        if let Some(kind) = self.kinds.iter().position(is_same) {
            return kind;
        }
        let text = |octets: &[u8]| crate::admin::escape::escaped(octets);
        let kind = match self.kinds.len() < MOST_KINDS {
            true => (text(logged.action), text(logged.reason)),
            false => ("(other)".into(), "(other)".into()),
        };
        match self.kinds.iter().position(|other| *other == kind) {
            Some(at) => at,
            None => {
                self.kinds.push(kind);
                self.kinds.len() - 1
            }
        }
    }

    fn add_request(&mut self, logged: &Logged, time: i64, times: u64) -> usize {
        self.span = Some(match self.span {
            Some((first, last)) => (first.min(time), last.max(time)),
            None => (time, time),
        });
        let kind = self.kind(logged);
        let number = self.periods.number(time);
        self.sums_at(time).counts[kind] += times;
        if let Some((hours, counts)) = &mut self.hours {
            let counts = counts.entry(hours.number(time)).or_default();
            if counts.len() <= kind {
                counts.resize(kind + 1, 0);
            }
            counts[kind] += times;
        }
        let client = self.client(logged);
        if self.clients[client].seen.is_new(number) {
            self.sums_at(time).clients += 1;
        }
        if logged.reason == b"tarpit passed" {
            self.add_waited(client);
            return kind;
        }
        if logged.recipient.is_empty() && logged.action == b"pass" {
            return kind;
        }
        self.build_key(logged);
        let id = self.triplet(logged, client);
        if self.triplets.all[id].seen.is_new(number) {
            self.sums_at(time).triplets += 1;
        }
        let at = u32::try_from(time).unwrap_or(u32::MAX);
        let triplet = &mut self.triplets.all[id];
        match logged.action {
            b"greylist" => {
                let is_restarted = logged.reason == b"new" && !triplet.has_passed;
                if triplet.began == 0 || is_restarted {
                    triplet.since = at;
                }
                if triplet.began == 0 {
                    triplet.began = at;
                }
                triplet.is_greylisted = true;
                if logged.reason != TOLD_BY_POSTFIX.as_bytes() {
                    triplet.told_at = at;
                }
            }
            b"tarpit" => {
                if triplet.began == 0 {
                    triplet.began = at;
                    triplet.since = at;
                }
                triplet.is_held = true;
                let held = &mut self.clients[client];
                held.held_at = at;
                held.held_for = id;
                self.sums_at(time).held += times;
            }
            b"pass" if triplet.is_put_off() && !triplet.has_passed => {
                triplet.has_passed = true;
                triplet.delay = at.saturating_sub(triplet.since);
                self.came_back += 1;
            }
            _ => {}
        }
        kind
    }

    /// A client that was sent to the tarpit has waited there. Where the log does not
    /// tell that it was sent, it is counted among the answers alone.
    fn add_waited(&mut self, client: u32) {
        let client = &mut self.clients[client];
        let (held_at, held_for) = (client.held_at, client.held_for);
        client.held_at = 0;
        if held_at == 0 {
            return;
        }
        self.triplets.all[held_for].has_waited = true;
        self.sums_at(i64::from(held_at)).waited += 1;
    }

    /// The number of the client of a request.
    fn client(&mut self, logged: &Logged) -> u32 {
        let (id, is_new) = self.addresses.id(logged.client_address);
        if is_new {
            self.clients.push(Client::default());
        }
        // A name may be known later than an address.
        if !logged.client_name.is_empty() && self.clients[id].pool == Pool::Unknown {
            let mut domain = Vec::new();
            let known = self.terms.pools.judge(
                logged.client_name,
                logged.client_address,
                None,
                &mut domain,
            );
            self.clients[id].pool = match known {
                KnownBy::ListedDomain(_) => Pool::Of(self.pool_domains.id(&domain).0),
                _ => Pool::No,
            };
        }
        id
    }

    /// Builds the key of a request's triplet as the server does.
    fn build_key(&mut self, logged: &Logged) {
        let parts = [
            logged.client_name,
            logged.client_address,
            logged.sender,
            logged.recipient,
        ];
        self.terms
            .build_keys(parts, &mut self.request, &mut self.keys);
    }

    /// The network of a client by the server's rules.
    pub fn network(&self, client: u32) -> Vec<u8> {
        let (rules, text) = (&self.terms.rules, self.addresses.text(client));
        let (mut network, mut octet) = (Vec::new(), Vec::new());
        match ClientAddress::new(rules, text) {
            Some(address) => {
                address.push_network(rules, rules.lookup, b"", &mut network, &mut octet)
            }
            None => network.extend_from_slice(text),
        }
        network.make_ascii_lowercase();
        network
    }

    /// All is read: gives back the memory that is needed only for that.
    pub fn close(&mut self) {
        self.settle(i64::MAX);
        self.triplets.close();
        self.addresses.close();
        self.sender_domains.close();
    }

    fn triplet(&mut self, logged: &Logged, client: u32) -> u32 {
        let sender_domains = &mut self.sender_domains;
        let recipient_domains = &mut self.recipient_domains;
        self.triplets.id(&self.keys.triplet, || Triplet {
            client,
            sender_domain: sender_domains.id(&domain_of(logged.sender)).0,
            recipient_domain: recipient_domains.id(&domain_of(logged.recipient)).0,
            ..Triplet::default()
        })
    }
}

/// What stands after the last `@`, in lower case; what has none is a domain of its own.
fn domain_of(address: &[u8]) -> Vec<u8> {
    let at = address.iter().rposition(|&octet| octet == b'@');
    at.map_or(address, |at| &address[at + 1..])
        .to_ascii_lowercase()
}

/// How many lines the system's log says it has lost: `lost 7 messages` and `7 messages
/// lost` of rsyslogd, `Suppressed 7 messages` of journald.
fn lost(message: &[u8]) -> u64 {
    let Some(at) = find(message, b" messages") else {
        return 0;
    };
    let before = &message[..at];
    let digits = before.iter().rev().take_while(|d| d.is_ascii_digit());
    let (start, number) = before.split_at(at - digits.count());
    let is_told = start.ends_with(b" lost ")
        || start.ends_with(b"Suppressed ")
        || message[at..].starts_with(b" messages lost");
    let number = std::str::from_utf8(number).ok();
    let number = number.and_then(|number| number.parse().ok());
    number.filter(|_| is_told).unwrap_or(0)
}
