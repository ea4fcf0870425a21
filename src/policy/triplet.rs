//! The triplet: client network, sender and recipient as one key.
//!
//! Senders are reduced first, so that the variable parts which mailing lists
//! and BATV put into the user part do not make every mail a new triplet.

use sha1::{Digest, Sha1};

use super::client::ClientAddress;
use super::request::{Attribute, Request};
use super::rules::{Lookup, Rules};

/// The keys of a request in the three databases, built in reused buffers.
#[derive(Debug, Default)]
pub struct Keys {
    /// The domain by which the client is known, in lower case; empty if that is its
    /// network. Set before [`Keys::build`].
    pub domain: Vec<u8>,
    /// The client is known by its whole address, whatever the rules and its domain say.
    /// Set before [`Keys::build`].
    pub is_by_address: bool,
    /// A client that is known by its domain by its own address in the auto-whitelist;
    /// else empty.
    pub own_client: Vec<u8>,
    /// `network/sender/recipient` in lower case, or its SHA-1 (`--privacy`).
    pub triplet: Vec<u8>,
    /// The client in the auto-whitelist, or its SHA-1 (`--privacy`).
    pub client: Vec<u8>,
    /// The octet of an IPv4 client that the triplet does not hold.
    pub octet: Vec<u8>,
    /// The network or domain by which new records are counted, never hashed, under
    /// `--max-new`; else empty.
    pub network: Vec<u8>,
}

impl Keys {
    /// Builds the keys of a request from this client.
    pub fn build(&mut self, rules: &Rules, client: &ClientAddress, request: &Request) {
        let Keys {
            domain,
            is_by_address,
            own_client,
            triplet,
            client: client_key,
            octet,
            network,
        } = self;
        triplet.clear();
        client_key.clear();
        own_client.clear();
        octet.clear();
        network.clear();
        if domain.is_empty() || *is_by_address {
            let lookup = match is_by_address {
                true => Lookup::Host,
                false => rules.lookup,
            };
            let name = request.text(Attribute::ClientName);
            client.push_network(rules, lookup, name, triplet, octet);
            client.push_auto_whitelist_key(rules, client_key);
            if rules.max_new.is_some() {
                client.push_counted_network(rules, network);
            }
        } else {
            if rules.max_new.is_some() {
                network.extend_from_slice(domain);
            }
            triplet.extend_from_slice(domain);
            client_key.extend_from_slice(domain);
            client.push_auto_whitelist_key(rules, own_client);
        }
        triplet.push(b'/');
        push_reduced_sender(triplet, request.text(Attribute::Sender));
        triplet.push(b'/');
        triplet.extend_from_slice(request.text(Attribute::Recipient));
        triplet.make_ascii_lowercase();
        if rules.privacy {
            hash_in_place(triplet);
            hash_in_place(client_key);
            if !own_client.is_empty() {
                hash_in_place(own_client);
            }
        }
    }
}

fn hash_in_place(key: &mut Vec<u8>) {
    let hash = sha1_hex(key);
    key.clear();
    key.extend_from_slice(&hash);
}

/// The SHA-1 of some octets as 40 lower-case hexadecimal digits.
pub fn sha1_hex(octets: &[u8]) -> [u8; 40] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut hex = [0; 40];
    for (pair, octet) in hex.chunks_exact_mut(2).zip(Sha1::digest(octets)) {
        pair[0] = DIGITS[usize::from(octet >> 4)];
        pair[1] = DIGITS[usize::from(octet & 15)];
    }
    hex
}

/// Appends a sender without its variable parts: a BATV signature, the
/// extension after `+`, and whole words of digits, which become `#`. The
/// domain stays as it is; a sender without `@` too.
fn push_reduced_sender(out: &mut Vec<u8>, sender: &[u8]) {
    let Some(at) = sender.iter().position(|&b| b == b'@') else {
        out.extend_from_slice(sender);
        return;
    };
    let (user, domain) = sender.split_at(at);
    let user = without_signature(user);
    let user = user.split(|&b| b == b'+').next().unwrap_or_default();
    push_without_numbers(out, user);
    out.extend_from_slice(domain);
}

/// The user of a BATV address `prvs=TAG=USER`, which some write
/// `prvs=USER=TAG`: a tag begins with ten digits or lower-case letters.
pub(super) fn without_signature(user: &[u8]) -> &[u8] {
    let Some(rest) = user.strip_prefix(b"prvs=") else {
        return user;
    };
    let end = rest
        .iter()
        .rposition(|&b| b != b'=')
        .map_or(0, |last| last + 1);
    let mut parts = rest[..end].split(|&b| b == b'=');
    let (Some(second), Some(third), None) = (parts.next(), parts.next(), parts.next()) else {
        return user;
    };
    if is_signature_tag(third) && !is_signature_tag(second) {
        second
    } else {
        third
    }
}

fn is_signature_tag(part: &[u8]) -> bool {
    part.len() >= 10
        && part[..10]
            .iter()
            .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

/// Appends a user part, each run of digits that is a word of its own as `#`.
fn push_without_numbers(out: &mut Vec<u8>, user: &[u8]) {
    for word in user.chunk_by(|&a, &b| is_word_octet(a) == is_word_octet(b)) {
        if word.iter().all(u8::is_ascii_digit) {
            out.push(b'#');
        } else {
            out.extend_from_slice(word);
        }
    }
}

fn is_word_octet(octet: u8) -> bool {
    octet.is_ascii_alphanumeric() || octet == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reduced(sender: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        push_reduced_sender(&mut out, sender);
        out
    }

    #[test]
    fn variable_parts_of_a_sender_go() {
        for (sender, expected) in [
            (&b"alice@example.com"[..], &b"alice@example.com"[..]),
            (b"prvs=0123456789=carol@d", b"carol@d"),
            (b"prvs=carol=0123456789@d", b"carol@d"),
            (b"prvs=short=carol@d", b"carol@d"),
            (b"prvs=ABCDEFGHIJ=carol@d", b"carol@d"),
            (b"prvs=0123456789=9876543210@d", b"#@d"),
            (b"PRVS=0123456789=carol@d", b"PRVS=#=carol@d"),
            (b"prvs=0123456789=a=b@d", b"prvs=#=a=b@d"),
            (b"prvs=0123456789=carol==@d", b"carol@d"),
            (b"prvs=0123456789=@d", b"prvs=#=@d"),
            (b"list+user=1@d", b"list@d"),
            (b"b-12-x.3@d1.12", b"b-#-x.#@d1.12"),
            (b"b_1_2.b1@d", b"b_1_2.b1@d"),
            (b"\xfc12\xfc@d", b"\xfc#\xfc@d"),
            (b"root", b"root"),
            (b"12", b"12"),
            (b"", b""),
            (b"a@b@c", b"a@b@c"),
        ] {
            assert_eq!(
                reduced(sender),
                expected,
                "{}",
                String::from_utf8_lossy(sender)
            );
        }
    }

    #[test]
    fn keys_are_lower_case_and_hashed_for_privacy() {
        let mut request = Request::default();
        request.set(Attribute::Sender, b"Alice@Example.COM");
        request.set(Attribute::Recipient, b"User+X@example.org");
        let mut keys = Keys::default();
        let mut rules = Rules::default();
        let client = ClientAddress::new(&rules, b"192.0.2.91").unwrap();
        keys.build(&rules, &client, &request);
        assert_eq!(
            keys.triplet,
            b"192.0.2.0/alice@example.com/user+x@example.org"
        );
        assert_eq!(
            (&keys.client[..], &keys.octet[..]),
            (&b"192.0.2.91"[..], &b"91"[..])
        );
        rules.privacy = true;
        keys.build(&rules, &client, &request);
        assert_eq!(
            keys.triplet,
            sha1_hex(b"192.0.2.0/alice@example.com/user+x@example.org")
        );
        assert_eq!(keys.client, sha1_hex(b"192.0.2.91"));
        keys.domain = b"example.com".to_vec();
        keys.build(&rules, &client, &request);
        assert_eq!(keys.client, sha1_hex(b"example.com"));
        assert_eq!(keys.own_client, sha1_hex(b"192.0.2.91"));
        rules.privacy = false;
        keys.is_by_address = true;
        keys.build(&rules, &client, &request);
        assert_eq!(
            keys.triplet,
            b"192.0.2.91/32/alice@example.com/user+x@example.org"
        );
        assert_eq!(
            (&keys.client[..], &keys.own_client[..], &keys.octet[..]),
            (&b"192.0.2.91"[..], &b""[..], &b""[..])
        );
        keys.is_by_address = false;
        keys.build(&rules, &client, &request);
        assert_eq!(
            keys.triplet,
            b"example.com/alice@example.com/user+x@example.org"
        );
        assert_eq!(
            (&keys.client[..], &keys.own_client[..], &keys.octet[..]),
            (&b"example.com"[..], &b"192.0.2.91"[..], &b""[..])
        );
    }

    #[test]
    fn sha1_is_the_standard_one() {
        assert_eq!(
            &sha1_hex(b"abc"),
            b"a9993e364706816aba3e25717850c26c9cd0d89d"
        );
    }
}
