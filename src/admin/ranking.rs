//! `--sort`, `--limit` and `--count` of `list`: which of many records, or of the
//! clients, senders and recipients they belong to, come first.
//!
//! Whoever asks for the first few of millions gets them in the memory of a few.

use std::cmp::Ordering;
use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::escape::escaped;
use super::failure::Failure;
use super::keys::{is_hash, parsed, split, split_length};
use super::options::Id;
use super::records::{Copied, number, short_name};
use super::state::{Judged, State};
use super::times;
use super::words::Words;
use crate::policy::client::ClientAddress;
use crate::policy::record::{Database, TripletRecord};
use crate::policy::rules::{Lookup, Rules};

/// Lines beyond the limit that are kept until those too many are dropped.
const SLACK: usize = 1000;

/// What lines are ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    /// When a triplet was first seen.
    First,
    /// When it was last used.
    Last,
    /// Retries or passes; records, where they are counted.
    Count,
    /// Seconds from the first to the last try of what is not let through.
    Delay,
    /// Triplets that are not let through yet.
    Held,
    /// The octets of the key, or of the name.
    Name,
}

impl Key {
    const ALL: [(&'static str, Key); 6] = [
        ("first", Key::First),
        ("last", Key::Last),
        ("count", Key::Count),
        ("delay", Key::Delay),
        ("held", Key::Held),
        ("name", Key::Name),
    ];
}

/// What records are counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Client,
    Network,
    Domain,
    SenderDomain,
    Recipient,
}

impl By {
    const ALL: [(&'static str, By); 5] = [
        ("client", By::Client),
        ("network", By::Network),
        ("domain", By::Domain),
        ("sender-domain", By::SenderDomain),
        ("recipient", By::Recipient),
    ];

    fn name(self) -> &'static str {
        let own = By::ALL.into_iter().find(|(_, by)| *by == self);
        own.map_or("", |(name, _)| name)
    }
}

/// How the chosen records are shown.
pub struct View {
    sort: Option<Key>,
    is_reversed: bool,
    limit: Option<usize>,
    by: Option<By>,
}

/// The value in a table of names.
fn named<T: Copy>(table: &[(&str, T)], option: &str, word: &[u8]) -> Result<T, Failure> {
    let found = table.iter().find(|(name, _)| name.as_bytes() == word);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names: Vec<&str> = table.iter().map(|(name, _)| *name).collect();
        Failure::error(format!("--{option} must be one of {}", names.join(", ")))
    })
}

impl View {
    /// What the options say.
    pub fn read(words: &Words) -> Result<View, Failure> {
        let by = words.octets(Id::Count);
        let by = by.map(|word| named(&By::ALL, "count", word)).transpose()?;
        let word = words.octets(Id::Sort);
        let is_reversed = word.is_some_and(|word| word.starts_with(b"-"));
        let word = word.map(|word| word.strip_prefix(b"-").unwrap_or(word));
        let sort = word
            .map(|word| named(&Key::ALL, "sort", word))
            .transpose()?;
        match (by, sort) {
            (None, Some(Key::Held)) => {
                return Err(Failure::error("--sort=held needs --count"));
            }
            (Some(_), Some(Key::First)) => {
                return Err(Failure::error(
                    "--sort=first and --count exclude each other",
                ));
            }
            _ => {}
        }
        let limit = match words.octets(Id::Limit) {
            None => None,
            Some(word) => {
                let number = std::str::from_utf8(word).ok().and_then(|w| w.parse().ok());
                let number = number.filter(|&number: &usize| number > 0);
                let message = "--limit must be a number, 1 or more";
                Some(number.ok_or_else(|| Failure::error(message))?)
            }
        };
        Ok(View {
            sort,
            is_reversed,
            limit,
            by,
        })
    }

    /// True if records are counted, not shown.
    pub fn is_counting(&self) -> bool {
        self.by.is_some()
    }

    /// True if records of this database have what they are counted by.
    pub fn counts(&self, database: Database) -> bool {
        let is_of_mail = matches!(self.by, Some(By::SenderDomain | By::Recipient));
        !is_of_mail || database == Database::Greylist
    }

    /// How many lines may be written as they come; `None`: they have to be
    /// looked at first.
    pub fn unsorted_limit(&self) -> Option<usize> {
        let is_unsorted = self.by.is_none() && self.sort.is_none();
        is_unsorted.then(|| self.limit.unwrap_or(usize::MAX))
    }

    /// An empty list of lines in this order.
    pub fn ranked(&self) -> Ranked {
        Ranked {
            key: self.sort.unwrap_or(Key::Held),
            is_reversed: self.is_reversed,
            limit: self.limit,
            lines: Vec::new(),
        }
    }

    /// Nothing counted yet.
    pub fn tally(&self) -> Tally {
        Tally {
            by: self.by.unwrap_or(By::Client),
            sums: HashMap::new(),
        }
    }
}

/// Lines in an order, as many as are wanted.
pub struct Ranked {
    key: Key,
    is_reversed: bool,
    limit: Option<usize>,
    lines: Vec<Line>,
}

struct Line {
    rank: Option<f64>,
    name: Vec<u8>,
    text: String,
}

impl Ranked {
    /// Takes the line of a record.
    pub fn add_record(&mut self, record: &Copied, judged: Option<&Judged>, text: String) {
        let rank = judged.and_then(|judged| match self.key {
            Key::First => judged.first,
            Key::Last => Some(judged.last),
            Key::Count => judged.count,
            Key::Delay => delay(judged),
            Key::Held | Key::Name => None,
        });
        self.add(Line {
            rank,
            name: record.key.clone(),
            text,
        });
    }

    fn add(&mut self, line: Line) {
        self.lines.push(line);
        if let Some(limit) = self.limit
            && self.lines.len() >= limit.saturating_add(SLACK)
        {
            self.cut();
        }
    }

    fn cut(&mut self) {
        let is_reversed = self.is_reversed;
        self.lines.sort_by(|a, b| compare(a, b, is_reversed));
        self.lines.truncate(self.limit.unwrap_or(usize::MAX));
    }

    /// The lines, in order.
    pub fn finish(mut self) -> impl Iterator<Item = String> {
        self.cut();
        self.lines.into_iter().map(|line| line.text)
    }
}

/// The largest first, those that have no number last, and equal ones by their
/// names.
fn compare(a: &Line, b: &Line, is_reversed: bool) -> Ordering {
    let by_rank = match (a.rank, b.rank) {
        (Some(a), Some(b)) => b.total_cmp(&a),
        (None, None) => {
            let by_name = a.name.cmp(&b.name);
            return if is_reversed {
                by_name.reverse()
            } else {
                by_name
            };
        }
        (a, b) => return b.is_some().cmp(&a.is_some()),
    };
    let by_rank = if is_reversed {
        by_rank.reverse()
    } else {
        by_rank
    };
    by_rank.then_with(|| a.name.cmp(&b.name))
}

/// Seconds from the first to the last try of a triplet that is not let through.
fn delay(judged: &Judged) -> Option<f64> {
    let is_held = matches!(judged.state, State::New | State::Waiting);
    let first = judged.first.filter(|_| is_held)?;
    Some(judged.last - first)
}

/// What was counted.
pub struct Tally {
    by: By,
    /// Under `None` what a hash hides.
    sums: HashMap<Option<Vec<u8>>, Sums>,
}

#[derive(Default)]
struct Sums {
    records: u64,
    /// In the order of [`State::ALL`]; what is none of them is no record.
    states: [u64; State::ALL.len()],
    delay: Option<f64>,
    last: Option<f64>,
}

impl Tally {
    /// Counts a record.
    pub fn add(
        &mut self,
        rules: &Rules,
        database: Database,
        record: &Copied,
        judged: Option<&Judged>,
    ) {
        let Some(name) = self.name_of(rules, database, record) else {
            return;
        };
        let sums = self.sums.entry(name).or_default();
        sums.records += 1;
        let Some(judged) = judged else { return };
        for (count, state) in sums.states.iter_mut().zip(State::ALL) {
            *count += u64::from(judged.state == state);
        }
        let larger = |old: Option<f64>, new: f64| Some(old.map_or(new, |old| old.max(new)));
        sums.last = larger(sums.last, judged.last);
        if let Some(delay) = delay(judged) {
            sums.delay = larger(sums.delay, delay);
        }
    }

    /// Whom a record is counted for; `None`: for nobody.
    fn name_of(
        &self,
        rules: &Rules,
        database: Database,
        record: &Copied,
    ) -> Option<Option<Vec<u8>>> {
        let is_triplet = database == Database::Greylist;
        let parts = if is_triplet { split(&record.key) } else { None };
        let is_hashed = match is_triplet {
            true => parts.is_none(),
            false => is_hash(&record.key),
        };
        if is_hashed {
            return Some(None);
        }
        let client = parts.map_or(&record.key[..], |parts| parts.client);
        let name = match self.by {
            By::Client => client_of(rules, client, &record.value, is_triplet),
            By::Network => network_of(rules, client),
            By::Domain if parsed(client).is_some() || split_length(client).is_some() => {
                return None;
            }
            By::Domain => client.to_vec(),
            By::SenderDomain => domain_of(parts?.sender).to_vec(),
            By::Recipient => parts?.recipient.to_vec(),
        };
        Some(Some(name))
    }

    /// What was counted in a database, in this order.
    pub fn finish(self, mut ranked: Ranked, database: Database, is_json: bool) -> Ranked {
        for (name, sums) in self.sums {
            let text = match is_json {
                true => sums.json_line(self.by, database, name.as_deref()),
                false => sums.text_line(name.as_deref()),
            };
            let rank = match ranked.key {
                Key::Held => Some(sums.held() as f64),
                Key::Count => Some(sums.records as f64),
                Key::Delay => sums.delay,
                Key::Last => sums.last,
                Key::First | Key::Name => None,
            };
            ranked.add(Line {
                rank,
                name: name.unwrap_or_default(),
                text,
            });
        }
        ranked
    }

    /// The line above them.
    pub fn heading(&self) -> String {
        let [new, waiting, passed, expired] = ["NEW", "WAITING", "PASSED", "EXPIRED"];
        columns(
            ["RECORDS", new, waiting, passed, expired, "DELAY"],
            "LAST SEEN",
        ) + &self.by.name().to_ascii_uppercase()
    }
}

impl Sums {
    fn held(&self) -> u64 {
        let [new, waiting, _, _] = self.states;
        new + waiting
    }

    fn text_line(&self, name: Option<&[u8]>) -> String {
        let [new, waiting, passed, expired] = self.states.map(|count| count.to_string());
        let delay = self.delay.map_or("-".into(), |delay| delay.to_string());
        let last = self.last.map_or(String::new(), times::shown);
        let name = match name {
            None => "(hashed)".into(),
            Some(b"") => "<>".into(),
            Some(name) => escaped(name),
        };
        let records = self.records.to_string();
        columns([&records, &new, &waiting, &passed, &expired, &delay], &last) + &name
    }

    fn json_line(&self, by: By, database: Database, name: Option<&[u8]>) -> String {
        let mut object = Map::new();
        object.insert("database".into(), json!(short_name(database)));
        object.insert("by".into(), json!(by.name()));
        object.insert("name".into(), json!(name.map(escaped)));
        object.insert("records".into(), json!(self.records));
        for (state, count) in State::ALL.into_iter().zip(self.states) {
            object.insert(state.name().into(), json!(count));
        }
        for (name, value) in [("delay", self.delay), ("last", self.last)] {
            if let Some(value) = value {
                object.insert(name.into(), number(value));
            }
        }
        Value::Object(object).to_string()
    }
}

fn columns([records, new, waiting, passed, expired, delay]: [&str; 6], last: &str) -> String {
    format!("{records:>8} {new:>8} {waiting:>8} {passed:>8} {expired:>8} {delay:>8}  {last:19}  ")
}

/// An address without the length that shows that it is a whole one.
fn without_length(client: &[u8]) -> &[u8] {
    split_length(client).map_or(client, |lengthy| lengthy.text)
}

/// The client, as far as the record tells: of a network with 24 bits or more the
/// latest one that used the triplet.
fn client_of(rules: &Rules, client: &[u8], value: &[u8], is_triplet: bool) -> Vec<u8> {
    let own = without_length(client).to_vec();
    let octet = match is_triplet {
        true => TripletRecord::parse(value).map_or(&[][..], |record| record.octet),
        false => &[],
    };
    let is_cut_there = rules.compat.addresses_are_text() || rules.ipv4_prefix >= 24;
    match own.iter().rposition(|&octet| octet == b'.') {
        _ if octet.is_empty() || own.len() < client.len() => own,
        Some(dot) if is_cut_there => [&own[..=dot], octet].concat(),
        _ => [&own, &b"("[..], octet, b")"].concat(),
    }
}

/// The network of a client under the rules, as it stands in triplets.
fn network_of(rules: &Rules, client: &[u8]) -> Vec<u8> {
    let text = without_length(client);
    let (mut network, mut octet) = (Vec::new(), Vec::new());
    let subnet = Lookup::Subnet;
    match ClientAddress::new(rules, text) {
        Some(address) => address.push_network(rules, subnet, b"", &mut network, &mut octet),
        None => network.extend_from_slice(text),
    }
    network.make_ascii_lowercase();
    network
}

/// What stands after the last `@`; a sender without one is a domain of its own.
fn domain_of(sender: &[u8]) -> &[u8] {
    let at = sender.iter().rposition(|&octet| octet == b'@');
    at.map_or(sender, |at| &sender[at + 1..])
}
