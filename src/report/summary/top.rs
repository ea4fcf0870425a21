//! Whose mail suffers: clients, networks and domains by what was put off.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use crate::report::tally::Tally;
use crate::report::tally::names::{ByHash, Names};
use crate::report::tally::triplets::{Pool, Triplet};

/// So many are told.
const MOST: usize = 10;

/// Somebody, and how many triplets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ranked {
    /// Address, network or domain; empty: the null sender.
    pub name: Vec<u8>,
    /// Triplets.
    pub count: u64,
}

/// A large sender whose mail was delayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The domain of its clients.
    pub domain: Vec<u8>,
    /// Triplets that came back.
    pub delayed: u64,
    /// From so many clients.
    pub clients: u64,
    /// The median of their delays in seconds.
    pub median: u32,
}

/// The lists.
#[derive(Clone, Debug, Default)]
pub struct Top {
    /// What they are of, by what was delayed, and by what never came back.
    pub lists: Vec<(&'static str, Vec<Ranked>, Vec<Ranked>)>,
    /// Those that might be whitelisted.
    pub candidates: Vec<Candidate>,
}

/// Triplets that came back, and that did not, by number of a name.
type Counts = Vec<(u32, u32)>;

/// A kind of names: how many there are, which one is a triplet's, and what it is.
struct Kind<'t> {
    what: &'static str,
    count: usize,
    of: &'t dyn Fn(&Triplet) -> u32,
    text: &'t dyn Fn(u32) -> Vec<u8>,
}

impl Top {
    /// Puts together the lists.
    pub fn new(tally: &Tally) -> Top {
        let text = |names: &Names, number| names.text(number).to_vec();
        // The numbers of networks by those of clients. Their names are made again where
        // they are needed: there may be as many as clients.
        let (mut by_name, mut example) = (ByHash::default(), Vec::new());
        let mut network_of = Vec::with_capacity(tally.clients.count());
        for client in 0..tally.clients.count() as u32 {
            let number = by_name
                .find(&tally.network(client))
                .unwrap_or_else(|place| {
                    example.push(client);
                    let number = example.len() as u32 - 1;
                    by_name.insert(place, number);
                    number
                });
            network_of.push(number);
        }
        drop(by_name);
        let kinds = [
            Kind {
                what: "clients",
                count: tally.clients.count(),
                of: &|one| one.client,
                text: &|number| text(&tally.addresses, number),
            },
            Kind {
                what: "networks",
                count: example.len(),
                of: &|one| network_of[one.client as usize],
                text: &|number| tally.network(example[number as usize]),
            },
            Kind {
                what: "sender domains",
                count: tally.sender_domains.count(),
                of: &|one| one.sender_domain,
                text: &|number| text(&tally.sender_domains, number),
            },
            Kind {
                what: "recipient domains",
                count: tally.recipient_domains.count(),
                of: &|one| one.recipient_domain,
                text: &|number| text(&tally.recipient_domains, number),
            },
        ];
        Top {
            lists: kinds.iter().map(|kind| list(tally, kind)).collect(),
            candidates: candidates(tally),
        }
    }
}

fn list(tally: &Tally, kind: &Kind) -> (&'static str, Vec<Ranked>, Vec<Ranked>) {
    let mut counts: Counts = vec![(0, 0); kind.count];
    for triplet in tally.triplets.all.iter().filter(|one| one.is_put_off()) {
        let (delayed, never) = &mut counts[(kind.of)(triplet) as usize];
        match triplet.has_come_back() {
            true => *delayed += 1,
            false => *never += 1,
        }
    }
    let delayed = highest(kind, counts.iter().map(|(delayed, _)| *delayed));
    let never = highest(kind, counts.iter().map(|(_, never)| *never));
    (kind.what, delayed, never)
}

/// The first ones by count, then by name.
fn highest(kind: &Kind, counts: impl Iterator<Item = u32>) -> Vec<Ranked> {
    let mut best: Vec<Ranked> = Vec::new();
    for (count, number) in counts.zip(0..).filter(|(count, _)| *count > 0) {
        let count = u64::from(count);
        if best.len() == MOST && best.last().is_some_and(|last| last.count > count) {
            continue;
        }
        let name = (kind.text)(number);
        let is_before = |own: &Ranked| (Reverse(own.count), &own.name) < (Reverse(count), &name);
        let place = best.partition_point(is_before);
        best.insert(place, Ranked { name, count });
        best.truncate(MOST);
    }
    best
}

fn candidates(tally: &Tally) -> Vec<Candidate> {
    let mut by_domain: BTreeMap<u32, (Vec<u32>, Vec<u32>)> = BTreeMap::new();
    for triplet in tally.triplets.all.iter().filter(|one| one.has_come_back()) {
        if let Pool::Of(domain) = tally.clients[triplet.client].pool {
            let (delays, clients) = by_domain.entry(domain).or_default();
            delays.push(triplet.delay);
            clients.push(triplet.client);
        }
    }
    let mut all: Vec<Candidate> = by_domain
        .into_iter()
        .map(|(domain, (mut delays, mut clients))| {
            delays.sort_unstable();
            clients.sort_unstable();
            clients.dedup();
            Candidate {
                domain: tally.pool_domains.text(domain).to_vec(),
                delayed: delays.len() as u64,
                clients: clients.len() as u64,
                median: delays[(delays.len() - 1) / 2],
            }
        })
        .collect();
    all.sort_by(|a, b| {
        b.delayed
            .cmp(&a.delayed)
            .then_with(|| a.domain.cmp(&b.domain))
    });
    all
}
