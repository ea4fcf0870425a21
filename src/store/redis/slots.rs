//! The slots of a cluster, and who has them.

use std::collections::BTreeSet;

use redis::Value;

use super::options::HostPort;

/// Slots of a cluster.
pub const SLOTS: usize = 16384;

/// The slot of a key: that of the text in its first braces, if there is one.
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = memchr::memchr(b'{', key).and_then(|open| {
        let rest = &key[open + 1..];
        let close = memchr::memchr(b'}', rest)?;
        (close > 0).then(|| &rest[..close])
    });
    crc16::State::<crc16::XMODEM>::calculate(tag.unwrap_or(key)) % SLOTS as u16
}

/// A range of slots, and the master that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first slot.
    pub first: u16,
    /// The last one.
    pub last: u16,
    /// The master.
    pub master: HostPort,
}

/// Reads the answer to CLUSTER SLOTS, which came from `asked`: a node that does
/// not know its own address leaves it out. `None` if it is none.
pub fn ranges_of(answer: &Value, asked: &HostPort) -> Option<Vec<Range>> {
    let Value::Array(entries) = answer else {
        return None;
    };
    let mut ranges = Vec::with_capacity(entries.len());
    for entry in entries {
        let Value::Array(entry) = entry else {
            return None;
        };
        let [
            Value::Int(first),
            Value::Int(last),
            Value::Array(master),
            ..,
        ] = &entry[..]
        else {
            return None;
        };
        let [host, Value::Int(port), ..] = &master[..] else {
            return None;
        };
        let host = match host {
            Value::Nil => asked.host.clone(),
            Value::BulkString(host) => match std::str::from_utf8(host).ok()? {
                "" => asked.host.clone(),
                // The node has a name that it does not tell.
                "?" => continue,
                host => host.to_owned(),
            },
            _ => return None,
        };
        let slot = |number: i64| {
            u16::try_from(number)
                .ok()
                .filter(|&slot| (slot as usize) < SLOTS)
        };
        ranges.push(Range {
            first: slot(*first)?,
            last: slot(*last)?,
            master: HostPort {
                host,
                port: u16::try_from(*port).ok()?,
            },
        });
    }
    Some(ranges)
}

/// Which node has which slot.
pub struct SlotMap {
    nodes: Box<[Option<u16>]>,
    /// All that have one: they are asked for more often than slots change.
    masters: Vec<usize>,
}

impl SlotMap {
    /// A map of these ranges, with the number of the master of each.
    pub fn new(ranges: impl IntoIterator<Item = (Range, u16)>) -> Self {
        let mut nodes = vec![None; SLOTS].into_boxed_slice();
        for (range, node) in ranges {
            if range.first <= range.last {
                nodes[usize::from(range.first)..=usize::from(range.last)].fill(Some(node));
            }
        }
        let masters = masters_of(&nodes);
        SlotMap { nodes, masters }
    }

    /// The node that has a slot, if one has.
    pub fn node_of(&self, slot: u16) -> Option<usize> {
        self.nodes.get(usize::from(slot))?.map(usize::from)
    }

    /// Gives the nodes other numbers.
    pub fn renumber(&mut self, number_of: impl Fn(usize) -> Option<usize>) {
        let mut last = (None, None);
        for node in &mut self.nodes {
            // Slots lie in long ranges.
            if *node != last.0 {
                let number = node.and_then(|old| number_of(old.into()));
                last = (*node, number.and_then(|number| u16::try_from(number).ok()));
            }
            *node = last.1;
        }
        self.masters = masters_of(&self.nodes);
    }

    /// The nodes that have slots, each once, in the order of their numbers.
    pub fn masters(&self) -> &[usize] {
        &self.masters
    }
}

fn masters_of(nodes: &[Option<u16>]) -> Vec<usize> {
    let masters: BTreeSet<u16> = nodes.iter().copied().flatten().collect();
    masters.into_iter().map(usize::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis() {
        // As CLUSTER KEYSLOT says.
        for (key, slot) in [
            ("", 0),
            ("123456789", 12739),
            ("foo", 12182),
            ("{foo}bar", 12182),
            ("a{foo}{bar}", 12182),
            ("{}foo", 9500),
            ("foo{", 7673),
        ] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    fn entry(first: i64, last: i64, host: Value, port: i64) -> Value {
        let node = Value::Array(vec![host, Value::Int(port), bulk("id")]);
        Value::Array(vec![Value::Int(first), Value::Int(last), node])
    }

    #[test]
    fn a_map_is_read() {
        let asked = HostPort {
            host: "seed".into(),
            port: 1,
        };
        let answer = Value::Array(vec![
            entry(0, 99, bulk("a"), 7000),
            entry(100, 16383, Value::Nil, 7001),
            entry(5, 6, bulk("?"), 7002),
        ]);
        let ranges = ranges_of(&answer, &asked).unwrap();
        let masters: Vec<_> = ranges
            .iter()
            .map(|range| range.master.to_string())
            .collect();
        assert_eq!(masters, ["a:7000", "seed:7001"]);
        let mut map = SlotMap::new(ranges.into_iter().zip([3, 1]));
        assert_eq!(map.masters(), [1, 3]);
        assert_eq!((map.node_of(99), map.node_of(100)), (Some(3), Some(1)));
        map.renumber(|old| (old == 3).then_some(0));
        assert_eq!(map.masters(), [0]);
        assert_eq!((map.node_of(99), map.node_of(100)), (Some(0), None));
    }

    #[test]
    fn what_is_no_map_is_none() {
        let asked = HostPort {
            host: "seed".into(),
            port: 1,
        };
        for answer in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![Value::Array(vec![Value::Int(1)])]),
            Value::Array(vec![entry(0, 16384, bulk("a"), 1)]),
            Value::Array(vec![entry(-1, 1, bulk("a"), 1)]),
            Value::Array(vec![entry(0, 1, bulk("a"), 65536)]),
            Value::Array(vec![entry(0, 1, Value::Int(1), 1)]),
        ] {
            assert_eq!(ranges_of(&answer, &asked), None, "{answer:?}");
        }
    }
}
