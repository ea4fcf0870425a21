//! Addresses in the keys of other versions, in the form in which a server with
//! the rules at hand looks for them.
//!
//! Release 1.36 and what distributions made of it write networks with their
//! length, and 1.36 also clients as Postfix sends them. 1.37 leaves the length
//! out, but under `--lookup-by-host`, where it has always been there.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::admin::keys::{Lengthy, parsed, split_length};
use crate::policy::client::ClientAddress;
use crate::policy::record::Database;
use crate::policy::rules::{Lookup, Rules};
use crate::policy::triplet::sha1_hex;

/// The key to look for; `None`: it is as it came. `is_136`: it is known to
/// be of 1.36.
pub fn converted(rules: &Rules, database: Database, is_136: bool, key: &[u8]) -> Option<Vec<u8>> {
    let (plain, is_secret) = match database {
        Database::Greylist => (triplet_key(rules, is_136, key), rules.privacy),
        Database::Clients => (client_key(rules, is_136, key), rules.privacy),
        Database::Tarpit => (as_sent(key), false),
    };
    if is_secret && !is_hash(key) {
        return Some(sha1_hex(plain.as_deref().unwrap_or(key)).to_vec());
    }
    plain
}

/// True for a key that 1.37 would have written otherwise: of a triplet with the
/// length of its network, of a client with that of an address.
pub fn has_length(key: &[u8]) -> bool {
    host(key).is_some() || with_length(key).is_some_and(|found| !found.is_host())
}

fn is_hash(key: &[u8]) -> bool {
    key.len() == 40 && key.iter().all(u8::is_ascii_hexdigit)
}

/// A triplet's key that has a length: the address, its length, and the rest
/// with its slash.
struct WithLength<'a> {
    text: &'a [u8],
    network: IpNet,
    rest: &'a [u8],
}

impl WithLength<'_> {
    fn is_host(&self) -> bool {
        self.network.prefix_len() == self.network.max_prefix_len()
    }
}

/// Cuts such a key. Sender and recipient follow, so there is one slash more
/// than in a key without; a network has no bits of hosts.
fn with_length(key: &[u8]) -> Option<WithLength<'_>> {
    let slash = |text: &[u8]| text.iter().position(|&octet| octet == b'/');
    let first = slash(key)?;
    let second = first + 1 + slash(&key[first + 1..])?;
    let (start, rest) = key.split_at(second);
    slash(&rest[1..])?;
    let Lengthy {
        text,
        address,
        length,
    } = split_length(start)?;
    let network = IpNet::new(address, length).ok()?;
    (network.network() == address).then_some(WithLength {
        text,
        network,
        rest,
    })
}

fn triplet_key(rules: &Rules, is_136: bool, key: &[u8]) -> Option<Vec<u8>> {
    let found = with_length(key)?;
    let is_text = rules.compat.addresses_are_text();
    if found.is_host() {
        let usual = match found.network {
            IpNet::V4(_) => rules.ipv4_prefix,
            IpNet::V6(_) => rules.ipv6_prefix,
        };
        // A key of 1.37, which a server may look for that we were not told of.
        let is_other = usual == found.network.prefix_len() || is_136 || is_text;
        if (rules.lookup == Lookup::Host && !is_text) || !is_other {
            return None;
        }
        if is_text {
            let address = found.network.addr().to_string();
            return Some([address.as_bytes(), found.rest].concat());
        }
    }
    Some([found.text, found.rest].concat())
}

fn client_key(rules: &Rules, is_136: bool, key: &[u8]) -> Option<Vec<u8>> {
    if rules.compat.addresses_are_text() {
        return as_sent(key);
    }
    // One without a length may as well be of 1.34, for a server that follows it.
    let address = host(key).or_else(|| parsed(key).filter(|_| is_136))?;
    let client = ClientAddress {
        text: key,
        parsed: Some(address),
    };
    let mut form = Vec::new();
    client.push_auto_whitelist_key(rules, &mut form);
    Some(form)
}

/// An address with a length as Postfix sends it.
fn as_sent(key: &[u8]) -> Option<Vec<u8>> {
    host(key).map(|address| address.to_string().into_bytes())
}

/// The address that has the length of one after it.
fn host(key: &[u8]) -> Option<IpAddr> {
    let found = split_length(key)?;
    let whole = if found.address.is_ipv4() { 32 } else { 128 };
    (found.length == whole).then_some(found.address)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rules::Compat;

    fn convert(rules: &Rules, database: Database, key: &str) -> String {
        let form = converted(rules, database, false, key.as_bytes());
        String::from_utf8(form.unwrap_or_else(|| key.into())).unwrap()
    }

    #[test]
    fn a_network_loses_its_length_and_nothing_else_changes() {
        let rules = Rules::default();
        for (key, form) in [
            ("192.0.2.0/24/a@b/c@d", "192.0.2.0/a@b/c@d"),
            ("192.0.2.0/24//c@d", "192.0.2.0//c@d"),
            ("192.0.2.64/26/x/y@b/c@d", "192.0.2.64/x/y@b/c@d"),
            (
                "2001:db8:0:0:0:0:0:0/64/a@b/c@d",
                "2001:db8:0:0:0:0:0:0/a@b/c@d",
            ),
            // The sender 24; bits of hosts; too long; no network.
            ("192.0.2.0/24/c@d", ""),
            ("192.0.2.7/24/a@b/c@d", ""),
            ("192.0.2.0/33/a@b/c@d", ""),
            ("192.0.2.0/+24/a@b/c@d", ""),
            ("192.0.2.0/x/a@b/c@d", ""),
            ("net/24/a@b/c@d", ""),
            ("192.0.2.0/a@b/c@d", ""),
            ("192.0.2.0//24/c@d", ""),
            ("", ""),
            // Those of --lookup-by-host, perhaps.
            ("192.0.2.7/32/a@b/c@d", ""),
            ("2001:db8:0:0:0:0:0:7/128/a@b/c@d", ""),
        ] {
            let expected = if form.is_empty() { key } else { form };
            assert_eq!(convert(&rules, Database::Greylist, key), expected);
        }
    }

    #[test]
    fn whole_addresses_stay_where_the_server_looks_for_them() {
        let key = "192.0.2.7/32/a@b/c@d";
        let keeps = |rules: &Rules, is_136| {
            converted(rules, Database::Greylist, is_136, key.as_bytes()).is_none()
        };
        let subnet = Rules::default();
        assert!(keeps(&subnet, false) && !keeps(&subnet, true));
        let host = Rules {
            lookup: Lookup::Host,
            ..Rules::default()
        };
        assert!(keeps(&host, false) && keeps(&host, true));
        let long = Rules {
            ipv4_prefix: 32,
            ..Rules::default()
        };
        assert!(!keeps(&long, false));
        let text = Rules {
            lookup: Lookup::Host,
            compat: Compat::Targrey134,
            ..Rules::default()
        };
        assert_eq!(convert(&text, Database::Greylist, key), "192.0.2.7/a@b/c@d");
        let six = "2001:db8:0:0:0:0:0:7/128/a@b/c@d";
        assert_eq!(
            convert(&text, Database::Greylist, six),
            "2001:db8::7/a@b/c@d"
        );
    }

    #[test]
    fn clients_are_written_as_the_server_does() {
        let (short, full) = ("2001:db8::7", "2001:DB8:0:0:0:0:0:7");
        let long = "2001:DB8:0:0:0:0:0:7/128";
        let newer = Rules::default();
        let older = Rules {
            compat: Compat::Targrey134,
            ..Rules::default()
        };
        for (key, of_136, of_other, by_134, tarpit) in [
            (
                "192.0.2.7/32",
                "192.0.2.7",
                "192.0.2.7",
                "192.0.2.7",
                "192.0.2.7",
            ),
            (long, full, full, short, short),
            ("192.0.2.7", "", "", "", ""),
            (short, full, "", "", ""),
            (full, "", "", "", ""),
            ("192.0.2.7/24", "", "", "", ""),
            ("unknown", "", "", "", ""),
        ] {
            let or_key = |form: &'static str| if form.is_empty() { key } else { form };
            let by_136 = converted(&newer, Database::Clients, true, key.as_bytes());
            let by_136 = by_136.unwrap_or_else(|| key.into());
            assert_eq!(by_136, or_key(of_136).as_bytes());
            assert_eq!(convert(&newer, Database::Clients, key), or_key(of_other));
            assert_eq!(convert(&older, Database::Clients, key), or_key(by_134));
            assert_eq!(convert(&newer, Database::Tarpit, key), or_key(tarpit));
        }
    }

    #[test]
    fn under_privacy_plain_keys_are_hashed_once() {
        let rules = Rules {
            privacy: true,
            ..Rules::default()
        };
        let hash = |key: &str| String::from_utf8(sha1_hex(key.as_bytes()).to_vec()).unwrap();
        let triplet = convert(&rules, Database::Greylist, "192.0.2.0/24/a@b/c@d");
        assert_eq!(triplet, hash("192.0.2.0/a@b/c@d"));
        assert_eq!(convert(&rules, Database::Greylist, &triplet), triplet);
        let client = convert(&rules, Database::Clients, "2001:DB8:0:0:0:0:0:7/128");
        assert_eq!(client, hash("2001:DB8:0:0:0:0:0:7"));
        assert_eq!(convert(&rules, Database::Clients, &client), client);
        assert_eq!(convert(&rules, Database::Tarpit, "192.0.2.7"), "192.0.2.7");
    }
}
