//! Who has which slot, and how that is found out.
//!
//! On one server there is nothing to find out. In a cluster the map is asked
//! for when there is none, when a node says that a slot has moved, and after
//! each trouble with a node, from one that answers; that is how a replica that
//! has taken over is found. Requests of other nodes do not wait for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use redis::Value;

use super::node::Node;
use super::options::{HostPort, Place, RedisAddress};
use super::question::{At, Question};
use super::slots::{Range, SlotMap, ranges_of};
use super::wire::pack;
use super::words::explain;

/// How long one node may take over the map before another one is asked, too.
const PATIENCE: Duration = Duration::from_millis(100);
/// The map is not asked for more often than so.
const INTERVAL: Duration = Duration::from_millis(100);

/// Nodes without slots that are kept: slots may be on their way to them.
const MOST_STRANGERS: usize = 16;
/// Masters of the largest cluster: as many nodes as Redis is made for.
const MOST_MASTERS: usize = 1000;

/// A question for the map that is under way.
struct MapQuestion {
    asked: Vec<usize>,
    /// When the next node is asked.
    next_at: Instant,
}

/// The map and what is known about it.
pub struct Routing {
    map: Option<SlotMap>,
    /// Those named by the options.
    seeds: Vec<HostPort>,
    is_cluster: bool,
    /// Something has happened that may have changed it.
    is_stale: bool,
    not_before: Option<Instant>,
    question: Option<MapQuestion>,
    /// Whom to ask first.
    rotation: usize,
    /// Where the last question failed, and why; the first node before there was any.
    trouble: (String, String),
}

/// Where the search for a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// Somebody has been asked.
    UnderWay,
    /// Nobody is left.
    Failed,
}

impl Routing {
    /// What an address says, and the nodes it names.
    pub fn new(address: &RedisAddress) -> (Self, Vec<Node>) {
        let (seeds, first) = match &address.place {
            Place::Inet(at) => (Vec::new(), Some(At::Host(at.clone()))),
            Place::Unix(path) => (Vec::new(), Some(At::Path(path.clone()))),
            Place::Cluster(seeds) => (seeds.clone(), None),
        };
        let mut routing = Routing {
            map: None,
            is_cluster: first.is_none(),
            is_stale: false,
            not_before: None,
            question: None,
            rotation: 0,
            trouble: (String::new(), "no node of the cluster answers".into()),
            seeds,
        };
        let mut nodes: Vec<_> = first.map(Node::new).into_iter().collect();
        for seed in &routing.seeds {
            node_at(&mut nodes, seed);
        }
        if let Some(node) = nodes.first() {
            routing.trouble.0.clone_from(&node.name);
        }
        (routing, nodes)
    }

    /// True in a cluster.
    pub fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// The node that has a slot, as far as is known.
    pub fn node_of(&self, slot: u16) -> Option<usize> {
        match self.is_cluster {
            false => Some(0),
            true => self.map.as_ref()?.node_of(slot),
        }
    }

    /// The nodes that have slots.
    pub fn masters(&self) -> &[usize] {
        match self.is_cluster {
            false => &[0],
            true => self.map.as_ref().map(SlotMap::masters).unwrap_or_default(),
        }
    }

    /// The map may be out of date.
    pub fn doubt(&mut self) {
        self.is_stale = self.is_cluster;
    }

    /// True if it is worth while to ask for the map.
    pub fn may_ask(&self, now: Instant) -> bool {
        self.is_cluster
            && (self.question.is_some() || self.not_before.is_none_or(|time| now >= time))
    }

    /// True if the map is to be asked for, though no request waits for it.
    pub fn is_doubted(&self, now: Instant) -> bool {
        self.is_stale && self.may_ask(now)
    }

    /// A node has failed: if it was asked for the map, the next one is.
    pub fn node_failed(&mut self, node: usize, now: Instant) {
        self.doubt();
        if let Some(question) = &mut self.question
            && question.asked.contains(&node)
        {
            question.next_at = now;
        }
    }

    /// When another node is to be asked.
    pub fn next_at(&self) -> Option<Instant> {
        self.question.as_ref().map(|question| question.next_at)
    }

    /// Where the search failed, and why.
    pub fn trouble(&self) -> (&str, &str) {
        (&self.trouble.0, &self.trouble.1)
    }

    /// Goes on with the search.
    pub fn search(&mut self, nodes: &mut [Node], now: Instant) -> Search {
        let question = self.question.get_or_insert_with(|| MapQuestion {
            asked: Vec::new(),
            next_at: now,
        });
        if now < question.next_at {
            return Search::UnderWay;
        }
        let masters = self.map.as_ref().map(SlotMap::masters).unwrap_or_default();
        let is_candidate = |number: usize, node: &Node| {
            !question.asked.contains(&number)
                && node.trouble(now).is_none()
                && (masters.contains(&number)
                    || matches!(&node.at, At::Host(host) if self.seeds.contains(host)))
        };
        let turns = || (0..nodes.len()).map(|turn| (self.rotation + turn) % nodes.len());
        let candidate = |is_ready: bool| {
            turns().find(|&number| {
                let node = &nodes[number];
                node.is_ready() == is_ready && is_candidate(number, node)
            })
        };
        if let Some(number) = candidate(true).or_else(|| candidate(false)) {
            self.rotation = number + 1;
            question.asked.push(number);
            question.next_at = now + PATIENCE;
            if !nodes[number].owes_map() {
                nodes[number].ask(Question::Map, pack(&[b"CLUSTER", b"SLOTS"]), now);
            }
            return Search::UnderWay;
        }
        if question
            .asked
            .iter()
            .any(|&number| nodes[number].owes_map())
        {
            question.next_at = now + PATIENCE;
            return Search::UnderWay;
        }
        let troubled = nodes
            .iter()
            .find_map(|node| Some((node, node.trouble(now)?)));
        if let Some((node, reason)) = troubled
            && question.asked.is_empty()
        {
            self.trouble = (node.name.clone(), reason.to_owned());
        }
        self.give_up(now);
        Search::Failed
    }

    /// Ends a search that has found nothing.
    pub fn give_up(&mut self, now: Instant) {
        if self.question.take().is_some() {
            self.not_before = Some(now + INTERVAL);
        }
    }

    /// A node's trouble while it was asked.
    pub fn note_trouble(&mut self, node: &Node, reason: &str) {
        self.trouble = (node.name.clone(), reason.to_owned());
    }

    /// Takes a node's answer. True if there is a new map.
    pub fn hear(
        &mut self,
        nodes: &mut Vec<Node>,
        from: usize,
        answer: &Value,
        now: Instant,
    ) -> bool {
        let Some(question) = &mut self.question else {
            // Another node was faster, in an exchange before.
            return false;
        };
        let ranges = match answer {
            Value::ServerError(error) => Err(explain(error, true)),
            _ => match ranges_of(answer, &nodes[from].host()) {
                None => Err("it answers CLUSTER SLOTS with something else".into()),
                Some(ranges) if ranges.is_empty() => Err(match answer {
                    Value::Array(entries) if !entries.is_empty() => {
                        "its nodes do not tell their names (cluster-announce-hostname)".into()
                    }
                    _ => "it knows of no slots".into(),
                }),
                Some(ranges) if masters_of(&ranges) > MOST_MASTERS => {
                    Err("it knows of too many nodes".into())
                }
                Some(ranges) => Ok(ranges),
            },
        };
        match ranges {
            Err(reason) => {
                question.next_at = now;
                self.trouble = (nodes[from].name.clone(), reason);
                false
            }
            Ok(ranges) => {
                let numbered = |range: Range| {
                    let number = u16::try_from(node_at(nodes, &range.master)).ok()?;
                    Some((range, number))
                };
                let numbered: Vec<_> = ranges.into_iter().filter_map(numbered).collect();
                self.map = Some(SlotMap::new(numbered));
                self.question = None;
                self.is_stale = false;
                self.not_before = Some(now + INTERVAL);
                true
            }
        }
    }

    /// Forgets nodes that have no slots any more and that the options do not name,
    /// when there are many.
    /// Their numbers change: only between exchanges.
    pub fn prune(&mut self, nodes: &mut Vec<Node>) {
        let masters = self.masters();
        let is_needed = |number: usize, node: &Node| {
            masters.contains(&number)
                || matches!(&node.at, At::Host(host) if self.seeds.contains(host))
        };
        let needed: Vec<_> = (0..nodes.len())
            .filter(|&number| is_needed(number, &nodes[number]))
            .collect();
        if !self.is_cluster || nodes.len() <= needed.len() + MOST_STRANGERS {
            return;
        }
        let new_number = |old: usize| needed.iter().position(|&number| number == old);
        if let Some(map) = &mut self.map {
            map.renumber(new_number);
        }
        // It is asked anew when it is missed.
        self.question = None;
        let mut number = 0;
        nodes.retain(|_| {
            number += 1;
            needed.contains(&(number - 1))
        });
    }
}

fn masters_of(ranges: &[Range]) -> usize {
    let masters: BTreeSet<_> = ranges.iter().map(|range| &range.master).collect();
    masters.len()
}

/// The number of the node at an address, which is a new one if nobody knows it.
pub fn node_at(nodes: &mut Vec<Node>, at: &HostPort) -> usize {
    let is_it = |node: &Node| matches!(&node.at, At::Host(host) if host == at);
    nodes.iter().position(is_it).unwrap_or_else(|| {
        nodes.push(Node::new(At::Host(at.clone())));
        nodes.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str) -> HostPort {
        HostPort {
            host: host.into(),
            port: 7000,
        }
    }

    #[test]
    fn nodes_that_have_left_are_forgotten_when_there_are_many() {
        let address = RedisAddress::parse("redis-cluster://seed:7000").unwrap();
        let (mut routing, mut nodes) = Routing::new(&address);
        for number in 0..MOST_STRANGERS {
            node_at(&mut nodes, &at(&format!("old{number}")));
        }
        let master = node_at(&mut nodes, &at("master"));
        let range = Range {
            first: 5,
            last: 9,
            master: at("master"),
        };
        routing.map = Some(SlotMap::new([(range, master as u16)]));
        routing.prune(&mut nodes);
        assert_eq!(nodes.len(), MOST_STRANGERS + 2);
        assert_eq!(routing.node_of(5), Some(master));
        node_at(&mut nodes, &at("one too many"));
        routing.prune(&mut nodes);
        let names: Vec<_> = nodes.iter().map(|node| &*node.name).collect();
        assert_eq!(names, ["seed:7000", "master:7000"]);
        assert_eq!(routing.node_of(5), Some(1));
        assert_eq!(routing.masters(), [1]);
    }
}
