//! The published rules, and which of them a name matches first.

use std::net::IpAddr;
use std::sync::LazyLock;

use regex::bytes::{Regex, RegexBuilder};

use crate::policy::whitelist::with_lower_case;

/// The published rules; the index is the number of the rule.
///
/// They are applied to the client name in lower case, and the first that
/// matches makes the client suspicious. Rule 0 is the name that Postfix gives
/// to a client without a (confirmed) reverse name.
pub const RULES: [&str; 7] = [
    r"^unknown$",
    r"^[^.]*[0-9][^0-9.]+[0-9].*\.",
    r"^[^.]*[0-9]{5}",
    r"^([^.]+\.)?[0-9][^.]*\.[^.]+\..+\.[a-z]",
    r"^[^.]*[0-9]\.[^.]*[0-9]-[0-9]",
    r"^[^.]*[0-9]\.[^.]*[0-9]\.[^.]+\..+\.",
    r"^(dhcp|dialup|ppp|[achrsvx]?dsl)[^.]*[0-9]",
];

/// The rules with their numbers. One that did not compile would match nothing;
/// a test looks that there is none. A set of them would give its matches on the
/// heap, for each request.
static COMPILED: LazyLock<Vec<(u8, Regex)>> = LazyLock::new(|| {
    let compiled = |(number, rule)| Some((number, octets_regex(rule).build().ok()?));
    (0..).zip(RULES).filter_map(compiled).collect()
});

/// For names, which are octets.
pub(super) fn octets_regex(text: &str) -> RegexBuilder {
    let mut builder = RegexBuilder::new(text);
    builder.unicode(false);
    builder
}

/// The number of the first rule that `client_name` matches, `None` if it looks
/// like the name of a server.
///
/// Upper and lower case are the same. An empty name, and one that is an
/// address, count as unknown: rule 0.
pub fn suspicious_rule(client_name: &[u8]) -> Option<u8> {
    with_lower_case(judged_name(client_name), first_rule)
}

/// The name that is judged: `unknown` for an empty one and for an address,
/// which Postfix never sends, but other mail servers do for a client without a
/// reverse name.
pub(super) fn judged_name(name: &[u8]) -> &[u8] {
    if name.is_empty() || is_address(name) {
        return b"unknown";
    }
    name
}

/// True for an address, as it is or as in mail: `[192.0.2.7]`, `[IPv6:::1]`.
fn is_address(name: &[u8]) -> bool {
    let name = std::str::from_utf8(name).unwrap_or_default();
    let inner = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let name = inner.unwrap_or(name);
    let address = match name.split_at_checked(5) {
        Some((tag, address)) if tag.eq_ignore_ascii_case("ipv6:") => address,
        _ => name,
    };
    address.parse::<IpAddr>().is_ok()
}

/// The first rule that matches a name in lower case.
pub(super) fn first_rule(name: &[u8]) -> Option<u8> {
    let first = COMPILED.iter().find(|(_, rule)| rule.is_match(name));
    first.map(|(number, _)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each name with the rule that must be the first to match.
    const SUSPICIOUS: [(&str, u8); 16] = [
        ("unknown", 0),
        ("UNKNOWN", 0),
        ("", 0),
        ("220-139-165-188.dynamic.example.net", 1),
        ("a12b34.example.com", 1),
        ("pool1x2.example.com", 1),
        ("YAHOOBB219183.isp.example", 2),
        ("host12345", 2),
        ("d5b2c3.s34567.x.example", 1),
        ("123.pool.example.net", 3),
        ("host.3abc.isp.example.net", 3),
        ("wbar9.chi1-4-11.example.net", 4),
        ("d1.host2.isp.example.net", 5),
        ("dhcp7.example.com", 6),
        ("DialUp-x9.example.com", 6),
        ("xdsl9.example.com", 6),
    ];

    #[test]
    fn each_rule_is_the_first_for_its_names() {
        for (name, rule) in SUSPICIOUS {
            assert_eq!(suspicious_rule(name.as_bytes()), Some(rule), "{name}");
        }
    }

    #[test]
    fn an_address_is_no_name() {
        for name in [
            "192.0.2.7",
            "[192.0.2.7]",
            "2001:db8::7",
            "[2001:DB8::7]",
            "[IPv6:2001:db8::7]",
            "ipv6:::1",
            "::ffff:192.0.2.7",
        ] {
            assert_eq!(suspicious_rule(name.as_bytes()), Some(0), "{name}");
        }
        for name in [
            "[mail.example.com]",
            "192-mail.example",
            "[192.0.2.7",
            "[]",
            "abcd",
            "1.2.3",
        ] {
            assert_eq!(suspicious_rule(name.as_bytes()), None, "{name}");
        }
    }

    #[test]
    fn all_rules_compile() {
        assert_eq!(COMPILED.len(), RULES.len());
    }

    #[test]
    fn long_names_are_judged_in_full() {
        for length in [500, 600] {
            let name = [vec![b'A'; length], b"12345.example.com".to_vec()].concat();
            assert_eq!(suspicious_rule(&name), Some(2));
        }
    }

    #[test]
    fn each_rule_has_a_name_of_its_own() {
        for rule in 0..RULES.len() {
            let rule = u8::try_from(rule).unwrap();
            assert!(SUSPICIOUS.iter().any(|(_, r)| *r == rule), "rule {rule}");
        }
    }

    #[test]
    fn servers_pass() {
        for name in [
            "mail.example.com",
            "mx1.example.com",
            "mail-12.example.com",
            "out-1234.example.com",
            "smtp2.example.co.jp",
            "mx1.dc2.example",
            "mail.3com.example",
            "unknown.example.com",
            "ppp.example.com",
            "localhost",
            "\u{fc}ber.example",
        ] {
            assert_eq!(suspicious_rule(name.as_bytes()), None, "{name}");
        }
        assert_eq!(suspicious_rule(b"\xff\xfe.example"), None);
    }

    #[test]
    fn limits_of_the_rules() {
        // Rule 2 needs five digits in a row, and in the first label.
        assert_eq!(suspicious_rule(b"a1234.example.com"), None);
        assert_eq!(suspicious_rule(b"a.b12345.example.com"), None);
        // Rule 1 looks at the first label only, and needs a dot somewhere.
        assert_eq!(suspicious_rule(b"a1b2"), None);
        assert_eq!(suspicious_rule(b"mail.a1b2.example.com"), None);
        // Rule 3: a label that begins with a digit, three or more after it,
        // the last of which begins with a letter.
        assert_eq!(suspicious_rule(b"1.example.com"), None);
        assert_eq!(suspicious_rule(b"1.a.example.com"), Some(3));
        assert_eq!(suspicious_rule(b"1.a.example.0"), None);
        // Rule 6 is anchored: a prefix of the host name, with a digit.
        assert_eq!(suspicious_rule(b"my-ppp1.example.com"), None);
        assert_eq!(suspicious_rule(b"bdsl1.example.com"), None);
    }
}
