//! Keys: made from what an administrator types, and cut into what he reads.

use std::net::IpAddr;

use super::failure::Failure;
use crate::config::settings::Settings;
use crate::config::whitelists;
use crate::policy::client::ClientAddress;
use crate::policy::pool::registered_domain;
use crate::policy::request::{Attribute, Request};
use crate::policy::rules::{Lookup, Rules};
use crate::policy::triplet::{Keys, sha1_hex};
use crate::policy::whitelist::SourceLine;

/// Whom and what an administrator means.
#[derive(Clone, Copy, Debug, Default)]
pub struct Named<'a> {
    /// The client's address.
    pub address: &'a [u8],
    /// The client's name, which counts under the rules of 1.34.
    pub name: &'a [u8],
    /// The sender; `<>` is the null sender.
    pub sender: &'a [u8],
    /// The recipient.
    pub recipient: &'a [u8],
    /// The domain by which the client is known; empty if that is its network.
    pub domain: &'a [u8],
    /// The client is suspect, and so known by its whole address.
    pub is_suspect: bool,
}

impl Named<'_> {
    /// The keys under these rules.
    pub fn keys(&self, rules: &Rules) -> Result<Keys, Failure> {
        // A domain stands for clients of any address.
        let address = match self.domain == self.address.to_ascii_lowercase() {
            true if !self.domain.is_empty() => b"0.0.0.0",
            _ => self.address,
        };
        let client = ClientAddress::new(rules, address).ok_or_else(|| {
            let address = String::from_utf8_lossy(self.address);
            Failure::error(format!("\"{address}\" is no address"))
        })?;
        let mut request = Request::default();
        request.set(Attribute::ClientName, self.name);
        request.set(Attribute::Sender, without_brackets(self.sender));
        request.set(Attribute::Recipient, without_brackets(self.recipient));
        let mut keys = Keys {
            domain: self.domain.to_vec(),
            is_by_address: self.is_suspect,
            ..Keys::default()
        };
        keys.build(rules, &client, &request);
        Ok(keys)
    }

    /// What the keys of this sender and recipient end in, whatever the client.
    pub fn key_end(&self, rules: &Rules) -> Result<Vec<u8>, Failure> {
        let any = Rules {
            lookup: Lookup::Subnet,
            privacy: false,
            ..rules.clone()
        };
        let keys = Named {
            address: b"0.0.0.0",
            name: b"",
            is_suspect: false,
            ..*self
        }
        .keys(&any)?;
        let start = keys.triplet.iter().position(|&octet| octet == b'/');
        Ok(keys.triplet[start.unwrap_or(0)..].to_vec())
    }

    /// What the keys of triplets of this client begin with: its network and the
    /// whole address.
    pub fn key_starts(&self, rules: &Rules) -> Result<Vec<Vec<u8>>, Failure> {
        let mut starts = Vec::new();
        for lookup in [Lookup::Subnet, Lookup::Host] {
            let rules = Rules {
                lookup,
                privacy: false,
                ..rules.clone()
            };
            let nobody = Named {
                sender: b"",
                recipient: b"",
                is_suspect: false,
                ..*self
            };
            let mut key = nobody.keys(&rules)?.triplet;
            // Without sender and recipient it ends in two slashes.
            key.pop();
            if !starts.contains(&key) {
                starts.push(key);
            }
        }
        Ok(starts)
    }

    /// The keys under which the auto-whitelist and the tarpit may have this
    /// client: by these rules, and as the other versions wrote them.
    pub fn client_keys(&self, rules: &Rules) -> Result<Vec<Vec<u8>>, Failure> {
        let plain = Rules {
            privacy: false,
            ..rules.clone()
        };
        let mut keys = vec![self.keys(rules)?.client, self.keys(&plain)?.client];
        keys.push(self.address.to_vec());
        if let Some(address) = parsed(self.address) {
            keys.push(address.to_string().into_bytes());
        }
        if rules.privacy {
            keys.push(sha1_hex(self.address).to_vec());
        }
        keys.sort();
        keys.dedup();
        Ok(keys)
    }
}

/// By what the server knows a client.
#[derive(Debug, Default)]
pub struct Known {
    /// What is given in place of its address, or the domain of its name if it is a
    /// pool; empty if it is its network or address.
    pub domain: Vec<u8>,
    /// The line that makes it suspect, so that it is known by its whole address.
    pub suspicion: Option<SourceLine>,
}

impl Known {
    /// Finds it out; without a name as far as the address tells.
    pub fn of(settings: &Settings, client: &[u8], name: &[u8]) -> Known {
        let mut known = Known::default();
        let by_domain = settings.rules.by_domain;
        let is_address = parsed(client).is_some();
        if let (true, Some(domain)) = (by_domain && !is_address, registered_domain(client)) {
            known.domain = domain;
            return known;
        }
        if !by_domain && settings.suspect_clients.is_empty() {
            return known;
        }
        let lists = whitelists::load(settings).whitelists;
        if let Some(suspects) = lists.suspects {
            let by_name = suspects.match_name(name);
            let by_address = || suspects.match_address(client, parsed(client));
            known.suspicion = by_name.or_else(by_address).cloned();
        }
        if let (Some(pools), None) = (lists.pools, &known.suspicion) {
            pools.judge(name, client, lists.s25r.as_ref(), &mut known.domain);
        }
        known
    }
}

/// True for what `--privacy` makes of a client.
pub fn is_hash(text: &[u8]) -> bool {
    text.len() == 40 && text.iter().all(u8::is_ascii_hexdigit)
}

fn without_brackets(address: &[u8]) -> &[u8] {
    let inside = address
        .strip_prefix(b"<")
        .and_then(|rest| rest.strip_suffix(b">"));
    inside.unwrap_or(address)
}

/// The address that a text is.
pub fn parsed(text: &[u8]) -> Option<IpAddr> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// An address with a length after it, as some versions write them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengthy<'a> {
    /// The address as it is written.
    pub text: &'a [u8],
    /// The address.
    pub address: IpAddr,
    /// The length, which may be more than the address has bits.
    pub length: u8,
}

/// Cuts `ADDRESS/LENGTH`.
pub fn split_length(text: &[u8]) -> Option<Lengthy<'_>> {
    let slash = text.iter().rposition(|&octet| octet == b'/')?;
    let (text, digits) = (&text[..slash], &text[slash + 1..]);
    let is_number = digits.iter().all(u8::is_ascii_digit);
    let length = std::str::from_utf8(digits).ok()?.parse().ok()?;
    let address = parsed(text)?;
    is_number.then_some(Lengthy {
        text,
        address,
        length,
    })
}

/// The parts of a triplet's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts<'a> {
    /// The network or address.
    pub client: &'a [u8],
    /// The sender without its variable parts.
    pub sender: &'a [u8],
    /// The recipient.
    pub recipient: &'a [u8],
}

/// Cuts a key; `None` for a hash. Senders and recipients may hold slashes
/// themselves: a sender with a domain ends at the first one after its `@`.
pub fn split(key: &[u8]) -> Option<Parts<'_>> {
    let slash = |text: &[u8]| text.iter().position(|&octet| octet == b'/');
    let mut end = slash(key)?;
    for mask in [&b"/32/"[..], b"/128/"] {
        if key[end..].starts_with(mask) && parsed(&key[..end]).is_some() {
            end += mask.len() - 1;
            break;
        }
    }
    let (client, rest) = (&key[..end], key.get(end + 1..)?);
    let at = rest.iter().position(|&octet| octet == b'@');
    let has_two = rest.iter().filter(|&&octet| octet == b'@').count() >= 2;
    let from = match at {
        Some(at) if has_two && !rest.starts_with(b"/") => at,
        _ => 0,
    };
    let end = from + slash(&rest[from..])?;
    Some(Parts {
        client,
        sender: &rest[..end],
        recipient: &rest[end + 1..],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rules::Compat;

    #[test]
    fn keys_are_cut_where_they_were_joined() {
        for (key, client, sender, recipient) in [
            ("192.0.2.0/a@b/c@d", "192.0.2.0", "a@b", "c@d"),
            ("192.0.2.0//c@d", "192.0.2.0", "", "c@d"),
            ("192.0.2.0/root/c@d", "192.0.2.0", "root", "c@d"),
            ("192.0.2.0/x/y@b/c@d", "192.0.2.0", "x/y@b", "c@d"),
            ("192.0.2.0/a@b@e/c@d/f", "192.0.2.0", "a@b@e", "c@d/f"),
            ("192.0.2.7/32/a@b/c@d", "192.0.2.7/32", "a@b", "c@d"),
            (
                "2001:db8:0:0:0:0:0:1/128//c@d",
                "2001:db8:0:0:0:0:0:1/128",
                "",
                "c@d",
            ),
            ("net//", "net", "", ""),
        ] {
            let parts = split(key.as_bytes()).unwrap();
            let expected = Parts {
                client: client.as_bytes(),
                sender: sender.as_bytes(),
                recipient: recipient.as_bytes(),
            };
            assert_eq!(parts, expected, "{key}");
        }
        assert_eq!(split(b"014facc31a19f3693c0f7501d8d9251c3382c9ea"), None);
    }

    #[test]
    fn keys_are_made_as_the_server_makes_them() {
        let rules = Rules::default();
        let named = Named {
            address: b"192.0.2.91",
            sender: b"<>",
            recipient: b"U@e",
            ..Named::default()
        };
        assert_eq!(named.keys(&rules).unwrap().triplet, b"192.0.2.0//u@e");
        assert_eq!(named.key_end(&rules).unwrap(), b"//u@e");
        let client = Named {
            address: b"192.0.2.91",
            ..Named::default()
        };
        assert_eq!(
            client.key_starts(&rules).unwrap(),
            [&b"192.0.2.0/"[..], b"192.0.2.91/32/"]
        );
        let older = Rules {
            compat: Compat::Targrey134,
            ..Rules::default()
        };
        assert_eq!(
            client.key_starts(&older).unwrap(),
            [&b"192.0.2.0/"[..], b"192.0.2.91/"]
        );
        let six = Named {
            address: b"2001:db8::1",
            ..Named::default()
        };
        let keys = six.client_keys(&rules).unwrap();
        assert_eq!(keys, [&b"2001:DB8:0:0:0:0:0:1"[..], b"2001:db8::1"]);
        assert!(
            Named {
                address: b"x",
                ..Named::default()
            }
            .keys(&rules)
            .is_err()
        );
    }
}
