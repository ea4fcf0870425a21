//! The names of the records in Redis: `PREFIX:DATABASE:{GROUP}:KEY`.
//!
//! Redis Cluster keeps all names with the same text in braces on one shard. The
//! group is the network or the pool of the client, so that all records of a
//! request are on one shard, and can be compared and set together.

use std::net::IpAddr;

use crate::policy::command::Command;
use crate::policy::record::Database;
use crate::policy::rules::Rules;
use crate::policy::triplet::sha1_hex;

/// Bits of an address that a group holds at most: so a change of
/// `--lookup-by-host` does not lose the auto-whitelist.
const IPV4_BITS: u8 = 24;
const IPV6_BITS: u8 = 64;

/// The names of one site.
#[derive(Clone, Debug)]
pub struct Names {
    /// What they begin with.
    prefix: Vec<u8>,
    ipv4_bits: u8,
    ipv6_bits: u8,
    is_hashed: bool,
}

impl Names {
    /// Names with this prefix, which has no braces.
    pub fn new(prefix: &[u8], rules: &Rules) -> Self {
        Names {
            prefix: prefix.to_vec(),
            ipv4_bits: rules.ipv4_prefix.min(IPV4_BITS),
            ipv6_bits: rules.ipv6_prefix.min(IPV6_BITS),
            is_hashed: rules.privacy,
        }
    }

    /// The group of the records of a command.
    pub fn group(&self, command: &Command) -> Vec<u8> {
        match command.own_client {
            [] => self.group_of_client(command.address),
            _ => group_of_text(command.client),
        }
    }

    /// The group in which a client is that is known by its address.
    pub fn group_of_client(&self, address: &[u8]) -> Vec<u8> {
        let parsed = std::str::from_utf8(address).ok();
        let parsed = parsed.and_then(|text| text.parse::<IpAddr>().ok());
        let group = match parsed {
            Some(address) => self.network(address).to_string().into_bytes(),
            None => group_of_text(address),
        };
        match self.is_hashed {
            true => sha1_hex(&group).to_vec(),
            false => group,
        }
    }

    fn network(&self, address: IpAddr) -> IpAddr {
        let bits = match address {
            IpAddr::V4(_) => self.ipv4_bits,
            IpAddr::V6(_) => self.ipv6_bits,
        };
        ipnet::IpNet::new(address, bits).map_or(address, |net| net.network())
    }

    /// The group of a record with this key, if that can be told: of a hash it
    /// cannot.
    pub fn group_of_key(&self, database: Database, key: &[u8]) -> Option<Vec<u8>> {
        if self.is_hashed && database != Database::Tarpit {
            return None;
        }
        let client = match database {
            Database::Greylist => key.split(|&octet| octet == b'/').next().unwrap_or(key),
            Database::Clients | Database::Tarpit => key,
        };
        Some(self.group_of_client(client))
    }

    /// The name of a record.
    pub fn name(&self, database: Database, group: &[u8], key: &[u8]) -> Vec<u8> {
        let mut name = self.start(database);
        name.push(b'{');
        name.extend_from_slice(group);
        name.extend_from_slice(b"}:");
        name.extend_from_slice(key);
        name
    }

    fn start(&self, database: Database) -> Vec<u8> {
        [&self.prefix[..], b":", short_name(database), b":"].concat()
    }

    /// The key of a record with this name; `None` if it is another site's.
    pub fn key<'n>(&self, database: Database, name: &'n [u8]) -> Option<&'n [u8]> {
        let rest = name.strip_prefix(&self.start(database)[..])?;
        let rest = rest.strip_prefix(b"{")?;
        let end = rest.iter().position(|&octet| octet == b'}')?;
        rest.get(end + 1..)?.strip_prefix(b":")
    }

    /// The group in a name.
    pub fn group_of_name(&self, database: Database, name: &[u8]) -> Option<Vec<u8>> {
        let rest = name
            .strip_prefix(&self.start(database)[..])?
            .strip_prefix(b"{")?;
        let end = rest.iter().position(|&octet| octet == b'}')?;
        Some(rest[..end].to_vec())
    }

    /// A pattern of SCAN for the records of any group whose key begins so.
    pub fn pattern(&self, database: Database, key_start: &[u8]) -> Vec<u8> {
        let mut pattern = self.exact_pattern(database, key_start);
        pattern.push(b'*');
        pattern
    }

    /// A pattern of SCAN for the records of any group with this key.
    pub fn exact_pattern(&self, database: Database, key: &[u8]) -> Vec<u8> {
        let mut pattern = quoted(&self.start(database));
        pattern.extend_from_slice(b"{*}:");
        pattern.extend(quoted(key));
        pattern
    }
}

/// What stands in braces for a text: Redis would end at a brace in it, and take the
/// whole name for an empty one.
fn group_of_text(text: &[u8]) -> Vec<u8> {
    match text.is_empty() || text.contains(&b'}') {
        true => sha1_hex(text).to_vec(),
        false => text.to_ascii_lowercase(),
    }
}

/// A text in a pattern of SCAN.
fn quoted(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for &octet in text {
        if b"*?[]^-\\".contains(&octet) {
            out.push(b'\\');
        }
        out.push(octet);
    }
    out
}

/// The word for a database in names.
fn short_name(database: Database) -> &'static [u8] {
    match database {
        Database::Greylist => b"greylist",
        Database::Clients => b"clients",
        Database::Tarpit => b"tarpit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(rules: &Rules) -> Names {
        Names::new(b"mx", rules)
    }

    fn command<'a>(address: &'a [u8], client: &'a [u8], own_client: &'a [u8]) -> Command<'a> {
        Command {
            address,
            client,
            own_client,
            ..Command::PING
        }
    }

    #[test]
    fn all_records_of_a_client_are_in_the_group_of_its_network_or_pool() {
        let names = names(&Rules::default());
        for (address, client, own_client, group) in [
            ("192.0.2.7", "192.0.2.7", "", "192.0.2.0"),
            ("2001:db8::7", "2001:DB8:0:0:0:0:0:7", "", "2001:db8::"),
            ("192.0.2.7", "example.com", "192.0.2.7", "example.com"),
            ("no.address", "no.address", "", "no.address"),
        ] {
            let command = command(address.as_bytes(), client.as_bytes(), own_client.as_bytes());
            assert_eq!(names.group(&command), group.as_bytes(), "{address}");
        }
        let at = |database, key: &str| names.group_of_key(database, key.as_bytes()).unwrap();
        assert_eq!(at(Database::Greylist, "192.0.2.0/a@b/c@d"), b"192.0.2.0");
        assert_eq!(at(Database::Greylist, "192.0.2.7/32/a@b/c@d"), b"192.0.2.0");
        assert_eq!(
            at(Database::Greylist, "example.com/a@b/c@d"),
            b"example.com"
        );
        assert_eq!(at(Database::Clients, "2001:DB8:0:0:0:0:0:7"), b"2001:db8::");
        assert_eq!(at(Database::Tarpit, "192.0.2.7"), b"192.0.2.0");
    }

    #[test]
    fn a_group_is_as_wide_as_the_networks_of_the_triplets() {
        let wide = Rules {
            ipv4_prefix: 16,
            ipv6_prefix: 48,
            ..Rules::default()
        };
        let names = names(&wide);
        assert_eq!(names.group_of_client(b"192.0.2.7"), b"192.0.0.0");
        assert_eq!(names.group_of_client(b"2001:db8:1:2::3"), b"2001:db8:1::");
        let narrow = Rules {
            ipv4_prefix: 32,
            ipv6_prefix: 128,
            ..Rules::default()
        };
        assert_eq!(
            Names::new(b"", &narrow).group_of_client(b"192.0.2.7"),
            b"192.0.2.0"
        );
    }

    #[test]
    fn no_text_ends_the_braces_too_early() {
        let names = names(&Rules::default());
        for address in ["", "a}b", "}"] {
            let group = names.group_of_client(address.as_bytes());
            assert_eq!(group, sha1_hex(address.as_bytes()));
        }
    }

    #[test]
    fn hashed_records_show_no_address() {
        let hashed = Rules {
            privacy: true,
            ..Rules::default()
        };
        let names = names(&hashed);
        let group = names.group(&command(b"192.0.2.7", b"hash", b""));
        assert_eq!(group, sha1_hex(b"192.0.2.0"));
        assert_eq!(names.group_of_key(Database::Clients, b"hash"), None);
        assert_eq!(
            names.group_of_key(Database::Tarpit, b"192.0.2.7"),
            Some(group)
        );
    }

    #[test]
    fn keys_come_back_from_names() {
        let names = names(&Rules::default());
        for key in ["192.0.2.0/a@b/c@d", "", "x}:y", "{*?[]"] {
            let name = names.name(Database::Greylist, b"g", key.as_bytes());
            assert!(name.starts_with(b"mx:greylist:{g}:"));
            assert_eq!(names.key(Database::Greylist, &name), Some(key.as_bytes()));
            assert_eq!(
                names.group_of_name(Database::Greylist, &name).unwrap(),
                b"g"
            );
            assert_eq!(names.key(Database::Clients, &name), None);
            assert_eq!(
                Names::new(b"m", &Rules::default()).key(Database::Greylist, &name),
                None
            );
        }
    }

    #[test]
    fn patterns_take_keys_as_they_are() {
        let names = Names::new(b"a*", &Rules::default());
        let pattern = names.pattern(Database::Tarpit, b"[x]");
        assert_eq!(pattern, br"a\*:tarpit:{*}:\[x\]*");
        let pattern = names.exact_pattern(Database::Clients, b"a\\b");
        assert_eq!(pattern, br"a\*:clients:{*}:a\\b");
    }
}
