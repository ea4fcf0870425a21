//! Client addresses in the whitelist, in the two dialects of the original.
//!
//! 1.37 reads a line as a network and compares numbers; 1.34 compares text,
//! but for IPv4 networks with a length. Both are looked up by hash, one look-up
//! for each prefix length in use, or for each position where a prefix may end.

use super::{Rank, keep_first};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A word of a whitelist, told by its look alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape<'a> {
    /// One to four numbers of one to three digits, between dots.
    Numbers(usize),
    /// The same, with `/` and digits after.
    Network(usize),
    /// Two colons or more.
    Colons(&'a [u8]),
    /// Anything else.
    Name,
}

/// Tells addresses from names.
pub(super) fn shape(word: &[u8]) -> Shape<'_> {
    if word.iter().filter(|&&octet| octet == b':').count() >= 2 {
        return Shape::Colons(word);
    }
    let mut halves = word.splitn(2, |&octet| octet == b'/');
    let numbers = halves
        .next()
        .unwrap_or_default()
        .split(|&octet| octet == b'.');
    let are_numbers = numbers.clone().all(|n| n.len() <= 3 && is_number(n));
    match (numbers.count(), halves.next()) {
        (count @ 1..=4, None) if are_numbers => Shape::Numbers(count),
        (count @ 1..=4, Some(length)) if are_numbers && is_number(length) => Shape::Network(count),
        _ => Shape::Name,
    }
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

/// Networks of both families, as the original's library orders them: IPv4 is
/// the part `::/96` of IPv6. So `203.0.113.7` also is `::203.0.113.7`, and
/// `::/0` is everybody.
#[derive(Clone, Debug, Default)]
pub(super) struct Networks {
    pub(super) ranks: HashMap<Ipv6Net, Rank>,
    pub(super) lengths: BTreeSet<u8>,
}

impl Networks {
    /// Enters a network; of two equal ones the first counts.
    pub fn add(&mut self, net: IpNet, rank: Rank) {
        let (address, length) = match net {
            IpNet::V4(net) => (net.addr().to_ipv6_compatible(), net.prefix_len() + 96),
            IpNet::V6(net) => (net.addr(), net.prefix_len()),
        };
        if let Some(net) = network_of(address, length) {
            self.ranks.entry(net).or_insert(rank);
            self.lengths.insert(length);
        }
    }

    /// The first rule whose network holds the address.
    pub fn find(&self, address: IpAddr) -> Option<Rank> {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_compatible(),
            IpAddr::V6(address) => address,
        };
        let mut best = None;
        for &length in &self.lengths {
            let net = network_of(address, length);
            keep_first(&mut best, net.and_then(|net| self.ranks.get(&net).copied()));
        }
        best
    }
}

pub(super) fn network_of(address: Ipv6Addr, length: u8) -> Option<Ipv6Net> {
    Ipv6Net::new(address, length).ok().map(|net| net.trunc())
}

/// Beginnings of addresses as text.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefixes(pub(super) HashMap<Box<[u8]>, Rank>);

impl Prefixes {
    /// Enters a prefix; of two equal ones the first counts.
    pub fn add(&mut self, prefix: &[u8], rank: Rank) {
        self.0.entry(prefix.into()).or_insert(rank);
    }

    /// The first rule with which the address begins. A prefix ends at a word
    /// boundary: `10` is not the beginning of `100.0.0.1`, nor `2001:db8::1`
    /// of `2001:db8::12`. Upper and lower case differ.
    pub fn find(&self, address: &[u8]) -> Option<Rank> {
        let mut best = None;
        if self.0.is_empty() {
            return best;
        }
        for end in 1..=address.len() {
            let (head, tail) = address.split_at_checked(end).unwrap_or((address, &[]));
            if head.last().is_some_and(is_word) != tail.first().is_some_and(is_word) {
                keep_first(&mut best, self.0.get(head).copied());
            }
        }
        best
    }
}

fn is_word(octet: &u8) -> bool {
    octet.is_ascii_alphanumeric() || *octet == b'_'
}

/// The address lines of one list.
#[derive(Clone, Debug)]
pub(super) enum Addresses {
    /// As in 1.37.
    Parsed(Networks),
    /// As in 1.34.
    Text(Prefixes, Networks),
}

/// What became of a word.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// It is a rule; the text is a warning about its meaning.
    Rule(Option<String>),
    /// It is no address but a name; the text is a warning.
    Name(Option<String>),
    /// It is skipped, for this reason.
    Skipped(String),
}

impl Addresses {
    /// An empty list.
    pub fn new(are_text: bool) -> Self {
        if are_text {
            Addresses::Text(Prefixes::default(), Networks::default())
        } else {
            Addresses::Parsed(Networks::default())
        }
    }

    /// Enters a word, if it is an address, under the given rank.
    pub fn add(&mut self, word: &[u8], rank: Rank) -> Entered {
        let text = String::from_utf8_lossy(word);
        match (self, shape(word)) {
            (_, Shape::Name) => Entered::Name(None),
            (_, Shape::Network(1..=3)) => {
                Entered::Skipped("invalid address: a network needs all four numbers".into())
            }
            (Addresses::Parsed(networks), shape) => add_parsed(networks, shape, &text, rank),
            (Addresses::Text(prefixes, networks), shape) => match shape {
                Shape::Network(_) => match text.parse::<Ipv4Net>() {
                    Ok(net) if net.prefix_len() > 0 => {
                        networks.add(net.into(), rank);
                        Entered::Rule(None)
                    }
                    _ => Entered::Skipped("invalid cidr address".into()),
                },
                _ => {
                    prefixes.add(word, rank);
                    Entered::Rule(doubt_prefix(&text))
                }
            },
        }
    }

    /// The first rule for this address: `as_sent` is the attribute, `parsed`
    /// what it means, if anything.
    pub fn find(&self, as_sent: &[u8], parsed: Option<IpAddr>) -> Option<Rank> {
        match self {
            Addresses::Parsed(networks) => networks.find(parsed?),
            Addresses::Text(prefixes, networks) => {
                let mut best = prefixes.find(as_sent);
                // Text again: what merely means an IPv4 address is none here.
                let text = std::str::from_utf8(as_sent).ok();
                let address = text.and_then(|text| text.parse::<Ipv4Addr>().ok());
                keep_first(
                    &mut best,
                    address.and_then(|address| networks.find(address.into())),
                );
                best
            }
        }
    }
}

fn add_parsed(networks: &mut Networks, shape: Shape<'_>, text: &str, rank: Rank) -> Entered {
    let net = match shape {
        Shape::Numbers(1) => {
            return Entered::Name(Some(format!(
                "a single number is taken as a name; write {text}.0.0.0/8 for a network"
            )));
        }
        Shape::Numbers(2) => format!("{text}.0.0/24").parse().ok(),
        Shape::Numbers(3) => format!("{text}.0/24").parse().ok(),
        _ if text.contains('/') => text.parse::<IpNet>().ok(),
        _ => text.parse::<IpAddr>().ok().map(IpNet::from),
    };
    let Some(net) = net else {
        return Entered::Skipped("invalid address".into());
    };
    networks.add(net, rank);
    if shape == Shape::Numbers(2) {
        return Entered::Rule(Some(format!(
            "two numbers mean {text}.0.0/24; \
             write {text}.0.0/16 for the whole network, or {text}.0.0/24 to keep this"
        )));
    }
    // IPv4 in IPv6 form; mail servers tell it by its IPv4 address.
    let mapped = match net.network() {
        IpAddr::V6(address) if net.prefix_len() >= 96 => address.to_ipv4_mapped(),
        _ => None,
    };
    Entered::Rule(mapped.map(|address| match net.prefix_len() - 96 {
        32 => format!("matches nothing that Postfix sends: write {address}"),
        length => format!("matches nothing that Postfix sends: write {address}/{length}"),
    }))
}

/// Why an address never begins with this text, as 1.34 compares it.
fn doubt_prefix(text: &str) -> Option<String> {
    let is_odd = |n: &str| n.parse::<u8>().map_or(true, |value| value.to_string() != n);
    if !text.contains(':') {
        let has_odd = text.split('.').any(is_odd);
        return has_odd.then(|| "matches nothing: no address has such a number".into());
    }
    if text.contains('/') {
        return Some(
            "matches nothing: an IPv6 address is compared as text; \
             write how it begins, as the client's address is logged"
                .into(),
        );
    }
    let logged = text
        .parse::<Ipv6Addr>()
        .map_or_else(|_| text.to_ascii_lowercase(), |address| address.to_string());
    (logged != text).then(|| {
        format!(
            "matches nothing that Postfix sends: an address is compared as text; write {logged}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(are_text: bool, words: &[&str]) -> Addresses {
        let mut list = Addresses::new(are_text);
        for (rank, word) in words.iter().enumerate() {
            list.add(word.as_bytes(), rank);
        }
        list
    }

    fn find(list: &Addresses, address: &str) -> Option<Rank> {
        list.find(address.as_bytes(), address.parse().ok())
    }

    #[test]
    fn words_are_told_apart_by_their_look() {
        for (word, wanted) in [
            ("10", Shape::Numbers(1)),
            ("192.0", Shape::Numbers(2)),
            ("300.1.1", Shape::Numbers(3)),
            ("1.2.3.4", Shape::Numbers(4)),
            ("1.2.3.4/33", Shape::Network(4)),
            ("10.0/16", Shape::Network(2)),
            ("1.2.3.4.5", Shape::Name),
            ("1.2.3.4/", Shape::Name),
            ("1.2.3.4/a", Shape::Name),
            ("1000.1", Shape::Name),
            ("1..2", Shape::Name),
            ("1.2.", Shape::Name),
            ("", Shape::Name),
            ("host:25", Shape::Name),
            ("::", Shape::Colons(b"::")),
        ] {
            assert_eq!(shape(word.as_bytes()), wanted, "{word}");
        }
    }

    #[test]
    fn parsed_lines_match_as_in_1_37() {
        for (word, yes, no) in [
            ("203.0.113.7", "203.0.113.7", "203.0.113.70"),
            ("203.0.113.7", "::203.0.113.7", "::ffff:203.0.113.7"),
            ("203.0.113.8/32", "203.0.113.8", "203.0.113.9"),
            ("198.51.100.99/28", "198.51.100.96", "198.51.100.95"),
            ("198.18.0.0/15", "198.19.255.255", "198.20.0.0"),
            ("10.1.2", "10.1.2.255", "10.1.3.0"),
            ("192.0", "192.0.0.200", "192.0.1.0"),
            ("1.2.3.4/0", "255.1.1.1", "2001:db8::1"),
            ("::/0", "10.0.0.1", "unknown"),
            ("::/0", "2001:db8::1", ""),
            ("2001:DB8:77::9", "2001:db8:77:0::9", "2001:db8:77::9a"),
            ("2001:db8:1::/48", "2001:0DB8:0001:FFFF::", "2001:db8:2::"),
            ("fe80::/10", "febf::1", "fec0::1"),
        ] {
            let list = list(false, &[word]);
            assert_eq!(find(&list, yes), Some(0), "{word} {yes}");
            assert_eq!(find(&list, no), None, "{word} {no}");
        }
    }

    #[test]
    fn text_lines_match_as_in_1_34() {
        for (word, yes, no) in [
            ("10", "10.200.1.1", "100.0.0.1"),
            ("10", "10", "0.0.0.10"),
            ("192.0", "192.0.99.5", "192.1.0.0"),
            ("172.16", "172.16.9.9", "172.160.0.1"),
            ("1.1", "1.1.2.3", "101.2.3.4"),
            ("203.0.113.7", "203.0.113.7", "203.0.113.70"),
            ("203.0.113.7", "203.0.113.7", "::203.0.113.7"),
            ("198.51.100.99/28", "198.51.100.111", "198.51.100.112"),
            ("198.18.0.0/15", "198.18.5.6", "198.018.5.6"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::12"),
            ("2001:db8::1", "2001:db8::1:5", "2001:DB8::1"),
            ("2001:db8", "", "2001:db8::1"),
            ("fe80:", "", "fe80::1"),
            ("2001:db8:1", "2001:db8:1::", "2001:db8:0:0::1"),
            ("2001:db8::/32", "2001:db8::/32", "2001:db8::1"),
            ("0.0.0.0/0", "", "1.2.3.4"),
            ("300.1.1", "300.1.1.1", "3.1.1.1"),
        ] {
            let list = list(true, &[word]);
            assert_eq!(find(&list, yes).is_some(), !yes.is_empty(), "{word} {yes}");
            assert_eq!(find(&list, no), None, "{word} {no}");
        }
    }

    #[test]
    fn the_dialect_decides_what_is_looked_at() {
        let address = Some(IpAddr::V4(Ipv4Addr::new(8, 1, 2, 3)));
        let words = ["8.1.2.3/32"];
        assert_eq!(
            list(false, &words).find(b"010.001.002.003", address),
            Some(0)
        );
        assert_eq!(list(true, &words).find(b"010.001.002.003", address), None);
        assert_eq!(list(false, &words).find(b"8.1.2.3", None), None);
        assert_eq!(list(true, &words).find(b"8.1.2.3", None), Some(0));
    }

    #[test]
    fn the_rule_written_first_is_the_one_that_matches() {
        for are_text in [false, true] {
            let list = list(
                are_text,
                &["9.9.9.9", "10.1.2", "10.1.2.3/8", "10.1.2.3", "10.1.2"],
            );
            assert_eq!(find(&list, "10.1.2.3"), Some(1));
            assert_eq!(find(&list, "10.1.3.3"), Some(2));
        }
    }

    #[test]
    fn doubtful_lines_are_told() {
        let said = |are_text, word: &str| match Addresses::new(are_text).add(word.as_bytes(), 0) {
            Entered::Rule(why) => format!("rule {}", why.unwrap_or_default()),
            Entered::Name(why) => format!("name {}", why.unwrap_or_default()),
            Entered::Skipped(why) => format!("skipped {why}"),
        };
        assert!(said(false, "192.0").contains("write 192.0.0.0/16"));
        assert!(said(false, "10").starts_with("name ") && said(false, "10").contains("10.0.0.0/8"));
        for word in [
            "300.1.1.1",
            "300.1",
            "010.1.1.1",
            "1.2.3.4/33",
            "10.0/16",
            "fe80::x",
            "::/129",
        ] {
            assert!(
                said(false, word).starts_with("skipped invalid address"),
                "{word}"
            );
        }
        for word in ["203.0.114.0/33", "1.2.3.4/0", "300.1.1.1/24"] {
            assert_eq!(said(true, word), "skipped invalid cidr address", "{word}");
        }
        for word in [
            "10",
            "192.0",
            "203.0.113.7",
            "fe80::1",
            "2001:db8:",
            "::ffff:192.0.2.1",
        ] {
            assert_eq!(said(true, word), "rule ", "{word}");
        }
        for (word, told) in [
            ("300.1.1", "no address has such a number"),
            ("192.0.02", "no address has such a number"),
            ("2001:DB8::1", "write 2001:db8::1"),
            ("2001:db8:0:0:0:0:0:1", "write 2001:db8::1"),
            ("2001:DB8:", "write 2001:db8:"),
        ] {
            let said = said(true, word);
            assert!(
                said.starts_with("rule matches nothing") && said.ends_with(told),
                "{said}"
            );
        }
        for (word, told) in [
            ("::ffff:192.0.2.1", "write 192.0.2.1"),
            ("::ffff:192.0.2.0/120", "write 192.0.2.0/24"),
        ] {
            let said = said(false, word);
            assert!(
                said.starts_with("rule matches nothing") && said.ends_with(told),
                "{said}"
            );
        }
        for word in [
            "::/0",
            "2001:db8::1",
            "::192.0.2.1",
            "::/96",
            "::ffff:0:0/95",
            "192.0.2",
        ] {
            assert_eq!(said(false, word), "rule ", "{word}");
        }
        assert!(said(true, "fe80::/10").contains("matches nothing"));
        assert_eq!(said(false, "a.example"), "name ");
    }
}
