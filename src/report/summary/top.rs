//! Whose mail suffers: clients, networks and domains by what was put off.

use std::collections::BTreeMap;

use crate::report::tally::Tally;
use crate::report::tally::names::Names;
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

impl Top {
    /// Puts together the lists.
    pub fn new(tally: &Tally) -> Top {
        // The numbers of networks by those of clients.
        let mut networks = Names::default();
        let numbers = 0..tally.clients.count() as u32;
        let of_client: Vec<u32> = numbers
            .map(|client| networks.id(&tally.network(client)).0)
            .collect();
        networks.close();
        let network = |one: &Triplet| of_client[one.client as usize];
        let lists = vec![
            list(tally, "clients", &tally.addresses, &|one| one.client),
            list(tally, "networks", &networks, &network),
            list(tally, "sender domains", &tally.sender_domains, &|one| {
                one.sender_domain
            }),
            list(
                tally,
                "recipient domains",
                &tally.recipient_domains,
                &|one| one.recipient_domain,
            ),
        ];
        Top {
            lists,
            candidates: candidates(tally),
        }
    }
}

fn list(
    tally: &Tally,
    what: &'static str,
    names: &Names,
    of: &dyn Fn(&Triplet) -> u32,
) -> (&'static str, Vec<Ranked>, Vec<Ranked>) {
    let mut counts: Counts = vec![(0, 0); names.count()];
    for triplet in tally.triplets.all.iter().filter(|one| one.is_put_off()) {
        let (delayed, never) = &mut counts[of(triplet) as usize];
        match triplet.has_come_back() {
            true => *delayed += 1,
            false => *never += 1,
        }
    }
    let delayed = highest(names, counts.iter().map(|(delayed, _)| *delayed));
    let never = highest(names, counts.iter().map(|(_, never)| *never));
    (what, delayed, never)
}

/// The first ones by count, then by name.
fn highest(names: &Names, counts: impl Iterator<Item = u32>) -> Vec<Ranked> {
    let mut all: Vec<(u32, u32)> = counts.zip(0..).filter(|(count, _)| *count > 0).collect();
    all.sort_unstable_by(|a, b| {
        let by_count = b.0.cmp(&a.0);
        by_count.then_with(|| names.text(a.1).cmp(names.text(b.1)))
    });
    all.truncate(MOST);
    let named = all.into_iter().map(|(count, id)| Ranked {
        name: names.text(id).to_vec(),
        count: u64::from(count),
    });
    named.collect()
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
