//! The client address, and what of it identifies the client in the databases.
//!
//! The rules of 1.37 parse the address; those of 1.34 cut it as text. Both are
//! kept, since records made by one are found only by the same one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::rules::{Lookup, Rules};

/// An address as sent by Postfix, and parsed where the rules want that.
#[derive(Clone, Copy, Debug)]
pub struct ClientAddress<'a> {
    /// As sent; the key of the tarpit database.
    pub text: &'a [u8],
    /// `None` under rules that take any text as an address.
    pub parsed: Option<IpAddr>,
}

impl<'a> ClientAddress<'a> {
    /// `None` if the rules need an address and this is none.
    pub fn new(rules: &Rules, text: &'a [u8]) -> Option<Self> {
        let parsed = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse().ok());
        if rules.compat.addresses_are_text() {
            return Some(ClientAddress { text, parsed });
        }
        parsed.map(|address| ClientAddress {
            text,
            parsed: Some(address),
        })
    }

    /// Appends the key of the auto-whitelist: the address as sent (1.34), or
    /// written in full in upper case (1.37).
    pub fn push_auto_whitelist_key(&self, rules: &Rules, key: &mut Vec<u8>) {
        match self.parsed {
            Some(address) if !rules.compat.addresses_are_text() => {
                let start = key.len();
                push_address(key, address);
                key[start..].make_ascii_uppercase();
            }
            _ => key.extend_from_slice(self.text),
        }
    }

    /// Appends the network by which new records of the client are counted, whatever the
    /// client stands with in triplets: an IPv6 network has more addresses than can be
    /// counted.
    pub fn push_counted_network(&self, rules: &Rules, key: &mut Vec<u8>) {
        match self.parsed {
            Some(address) => push_address(key, masked(rules, address)),
            None => key.extend_from_slice(self.text),
        }
    }

    /// Appends the client part of the triplet key and returns the octet that
    /// was cut off: the fourth part of an IPv4 address whose network is the
    /// key, as text; empty otherwise. `lookup` takes the place of that of the rules.
    pub fn push_network(
        &self,
        rules: &Rules,
        lookup: Lookup,
        client_name: &[u8],
        key: &mut Vec<u8>,
        octet: &mut Vec<u8>,
    ) {
        match self.parsed {
            Some(address) if !rules.compat.addresses_are_text() => {
                push_parsed_network(rules, lookup, address, key, octet);
            }
            _ => push_text_network(lookup, self.text, client_name, key, octet),
        }
    }
}

fn push_parsed_network(
    rules: &Rules,
    lookup: Lookup,
    address: IpAddr,
    key: &mut Vec<u8>,
    octet: &mut Vec<u8>,
) {
    if lookup == Lookup::Host {
        push_address(key, address);
        key.extend_from_slice(if address.is_ipv4() { b"/32" } else { b"/128" });
        return;
    }
    push_address(key, masked(rules, address));
    if let IpAddr::V4(address) = address {
        super::number::push_number(octet, f64::from(address.octets()[3]));
    }
}

/// The address without the bits of the host.
fn masked(rules: &Rules, address: IpAddr) -> IpAddr {
    let prefix = match address {
        IpAddr::V4(_) => rules.ipv4_prefix,
        IpAddr::V6(_) => rules.ipv6_prefix,
    };
    match ipnet::IpNet::new(address, prefix) {
        Ok(net) => net.network(),
        Err(_) => address,
    }
}

/// IPv4 with dots, IPv6 as eight groups without leading zeros and without
/// `::`, in lower case.
fn push_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => push_ipv4(out, address),
        IpAddr::V6(address) => push_ipv6(out, address),
    }
}

fn push_ipv4(out: &mut Vec<u8>, address: Ipv4Addr) {
    for (index, octet) in address.octets().into_iter().enumerate() {
        if index > 0 {
            out.push(b'.');
        }
        super::number::push_number(out, f64::from(octet));
    }
}

fn push_ipv6(out: &mut Vec<u8>, address: Ipv6Addr) {
    use std::io::Write;
    for (index, group) in address.segments().into_iter().enumerate() {
        if index > 0 {
            out.push(b':');
        }
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{group:x}");
    }
}

/// The rule of 1.34: three parts and `.0`, unless the client name holds the
/// third and the fourth, which is taken for a dial-up line of its own.
fn push_text_network(
    lookup: Lookup,
    text: &[u8],
    client_name: &[u8],
    key: &mut Vec<u8>,
    octet: &mut Vec<u8>,
) {
    let mut parts = text.splitn(5, |&b| b == b'.');
    if let (Lookup::Subnet, Some(first), Some(second), Some(third), Some(fourth)) = (
        lookup,
        parts.next(),
        parts.next(),
        parts.next(),
        parts.next(),
    ) && !(contains(client_name, third) && contains(client_name, fourth))
    {
        for part in [first, second, third] {
            key.extend_from_slice(part);
            key.push(b'.');
        }
        key.push(b'0');
        octet.extend_from_slice(fourth);
        return;
    }
    key.extend_from_slice(text);
}

fn contains(name: &[u8], part: &[u8]) -> bool {
    part.is_empty() || name.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::super::rules::Compat;
    use super::*;

    fn network(rules: &Rules, text: &str, name: &str) -> (String, String) {
        let (mut key, mut octet) = (Vec::new(), Vec::new());
        let address = ClientAddress::new(rules, text.as_bytes()).unwrap();
        address.push_network(rules, rules.lookup, name.as_bytes(), &mut key, &mut octet);
        (
            String::from_utf8(key).unwrap(),
            String::from_utf8(octet).unwrap(),
        )
    }

    #[test]
    fn parsed_addresses_are_masked_and_written_in_full() {
        let rules = Rules::default();
        for (address, key, octet) in [
            ("192.0.2.91", "192.0.2.0", "91"),
            ("192.0.3.200", "192.0.3.0", "200"),
            ("2001:DB8::1", "2001:db8:0:0:0:0:0:0", ""),
            ("2001:db8:0:1:8000::1", "2001:db8:0:1:0:0:0:0", ""),
            ("::ffff:1.2.3.4", "0:0:0:0:0:0:0:0", ""),
        ] {
            assert_eq!(network(&rules, address, "n"), (key.into(), octet.into()));
        }
        let wide = Rules {
            ipv4_prefix: 16,
            ipv6_prefix: 48,
            ..Rules::default()
        };
        assert_eq!(network(&wide, "192.0.2.91", "n").0, "192.0.0.0");
        assert_eq!(
            network(&wide, "2001:db8:1:2::1", "n").0,
            "2001:db8:1:0:0:0:0:0"
        );
    }

    #[test]
    fn the_whole_address_keeps_its_mask_under_lookup_by_host() {
        let rules = Rules {
            lookup: Lookup::Host,
            ..Rules::default()
        };
        assert_eq!(
            network(&rules, "192.0.2.10", "n"),
            ("192.0.2.10/32".into(), "".into())
        );
        assert_eq!(
            network(&rules, "2001:db8::1", "n").0,
            "2001:db8:0:0:0:0:0:1/128"
        );
    }

    #[test]
    fn text_addresses_are_cut_unless_the_name_holds_their_end() {
        let rules = Rules {
            compat: Compat::Targrey134,
            ..Rules::default()
        };
        for (address, name, key, octet) in [
            ("198.51.100.23", "smtp.example", "198.51.100.0", "23"),
            ("198.51.100.23", "dsl-100-23.example", "198.51.100.23", ""),
            ("203.0.2.2", "mail2.example", "203.0.2.2", ""),
            ("010.001.002.003", "n", "010.001.002.0", "003"),
            ("::ffff:1.2.3.4", "n", "::ffff:1.2.3.0", "4"),
            ("2001:DB8::1", "n", "2001:DB8::1", ""),
            ("1.2.3.4.5", "n", "1.2.3.0", "4"),
            ("1.2.3", "n", "1.2.3", ""),
            ("", "n", "", ""),
        ] {
            assert_eq!(
                network(&rules, address, name),
                (key.into(), octet.into()),
                "{address}"
            );
        }
    }

    #[test]
    fn what_is_no_address_is_told() {
        for text in [
            "",
            "unknown",
            "1.2.3.4.5",
            "300.1.1.1",
            "fe80::1%eth0",
            "IPv6:2001:db8::1",
        ] {
            assert!(
                ClientAddress::new(&Rules::default(), text.as_bytes()).is_none(),
                "{text}"
            );
        }
    }

    #[test]
    fn the_auto_whitelist_key_is_upper_case_or_as_sent() {
        let key = |rules: &Rules, text: &str| {
            let mut key = Vec::new();
            let address = ClientAddress::new(rules, text.as_bytes()).unwrap();
            address.push_auto_whitelist_key(rules, &mut key);
            String::from_utf8(key).unwrap()
        };
        assert_eq!(
            key(&Rules::default(), "2001:db8::1"),
            "2001:DB8:0:0:0:0:0:1"
        );
        let text = Rules {
            compat: Compat::Targrey134,
            ..Rules::default()
        };
        assert_eq!(key(&text, "2001:db8::1"), "2001:db8::1");
    }
}
