//! What one list of clients has of another: whoever stands in two lists is to be told.

use super::addresses::{Addresses, Networks, network_of};
use super::clients::ClientList;
use super::patterns::Patterns;
use super::{Rank, SourceLine, keep_first};
use ipnet::Ipv6Net;
use std::collections::HashMap;
use std::net::Ipv6Addr;

/// Names times patterns that are tried one by one, at most: more take seconds.
const MOST_TRIES: usize = 1_000_000;

impl ClientList {
    /// Each entry whose clients another list has, too: where it stands here and there.
    /// Names and addresses are looked for there; a pattern is found if the other list
    /// has the same one.
    pub fn inside(&self, other: &ClientList) -> Vec<(SourceLine, SourceLine)> {
        let mut pairs = self.addresses.inside(&other.addresses);
        pairs.extend(self.patterns.same_as(&other.patterns));
        let tries = self
            .names
            .len()
            .saturating_mul(other.patterns.backtracking.len());
        let find_pattern = |name| match tries > MOST_TRIES {
            true => other.patterns.find_linear(name),
            false => other.patterns.find(name),
        };
        pairs.extend(self.names.iter().filter_map(|(name, &rank)| {
            let there = other.find_name(name).or_else(|| find_pattern(name));
            Some((rank, there?))
        }));
        pairs.sort_unstable();
        pairs.dedup_by_key(|(rank, _)| *rank);
        let sources = |(own, there)| {
            let there = other.source_lines.get(there)?;
            Some((self.source_lines.get(own)?.clone(), there.clone()))
        };
        pairs.into_iter().filter_map(sources).collect()
    }
}

impl Addresses {
    /// Each rule whose addresses another list of the same dialect has, too, all of
    /// them: its rank here and there.
    fn inside(&self, other: &Addresses) -> Vec<(Rank, Rank)> {
        match (self, other) {
            (Addresses::Parsed(own), Addresses::Parsed(other)) => own.inside(other).collect(),
            (Addresses::Text(prefixes, networks), Addresses::Text(others, other_networks)) => {
                let longer = prefixes
                    .0
                    .iter()
                    .filter_map(|(text, &rank)| Some((rank, other.find(text, None)?)));
                // A prefix with which the first and the last address begin.
                let in_prefix = networks.ranks.iter().filter_map(|(net, &rank)| {
                    let of = |address: Ipv6Addr| {
                        let address = address.to_ipv4()?;
                        others.find(address.to_string().as_bytes())
                    };
                    let first = of(net.network())?;
                    (of(net.broadcast())? == first).then_some((rank, first))
                });
                longer
                    .chain(networks.inside(other_networks))
                    .chain(in_prefix)
                    .collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Networks {
    /// Each network that lies in one of another list: its rank here and there.
    fn inside(&self, other: &Networks) -> impl Iterator<Item = (Rank, Rank)> {
        self.ranks
            .iter()
            .filter_map(|(net, &rank)| Some((rank, other.find_around(*net)?)))
    }

    /// The first rule whose network holds the whole of this one.
    fn find_around(&self, inner: Ipv6Net) -> Option<Rank> {
        let mut best = None;
        for &length in self.lengths.range(..=inner.prefix_len()) {
            let net = network_of(inner.addr(), length);
            keep_first(&mut best, net.and_then(|net| self.ranks.get(&net).copied()));
        }
        best
    }
}

impl Patterns {
    /// Each pattern that another list has, too, by its text: its rank here and there.
    fn same_as(&self, other: &Patterns) -> Vec<(Rank, Rank)> {
        let texts = |patterns: &Patterns| -> Vec<(Rank, String)> {
            let others = patterns.backtracking.iter();
            let others = others.map(|(rank, regex)| (*rank, regex.as_str().to_owned()));
            patterns.linear.iter().cloned().chain(others).collect()
        };
        let others: HashMap<String, Rank> = texts(other)
            .into_iter()
            .rev()
            .map(|(rank, text)| (text, rank))
            .collect();
        texts(self)
            .into_iter()
            .filter_map(|(rank, text)| Some((rank, *others.get(&text)?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rules::Compat;

    #[test]
    fn entries_that_another_list_has_are_found() {
        let lines_of = |compat, own: &str, there: &str| {
            let [own, there] = [own, there].map(|text| {
                let mut list = ClientList::new(compat);
                list.add_file("L", text.as_bytes());
                assert_eq!(list.finish(), []);
                list
            });
            let pairs = own.inside(&there).into_iter();
            let pairs = pairs.map(|(own, there)| (own.line, there.line));
            pairs.collect::<Vec<_>>()
        };
        let own = "a.example\nexample.org\n/^x/\n/(?=y)/\n192.0.2.7\n10.1.0.0/16\n2001:db8::1\n\
                   192.0.2.0/24\nmail-7.example\n";
        let there = "a.a.example\norg\n/(?=y)/\n/^x/\n192.0.2.0/25\n10.0.0.0/8\n/^mail-\\d/\n";
        let parsed = [(2, 2), (3, 4), (4, 3), (5, 5), (6, 6), (9, 7)];
        for compat in Compat::ALL {
            assert_eq!(lines_of(compat, own, there), parsed, "{compat:?}");
            assert_eq!(lines_of(compat, own, own).len(), 9, "{compat:?}");
            assert_eq!(lines_of(compat, own, ""), []);
        }
        // Too many to try.
        let names: String = (0..=1000).map(|n| format!("mail-{n}.example\n")).collect();
        let look_around: String = (0..1000).map(|n| format!("/(?=mail-{n}\\.)/\n")).collect();
        let few = look_around.lines().take(9).collect::<Vec<_>>().join("\n");
        let compat = Compat::Targrey137;
        assert_eq!(lines_of(compat, &names, &few).len(), 9);
        assert_eq!(lines_of(compat, &names, &look_around), []);
        let prefixes = "10\n192.0.2\n2001:db8:\n";
        let own = "10.1\n10.1.0.0/16\n192.0.2.128/25\n192.0.0.0/16\n2001:db8::1\n9";
        let told = lines_of(Compat::Targrey134, own, prefixes);
        assert_eq!(told, [(1, 1), (2, 1), (3, 2)]);
    }
}
