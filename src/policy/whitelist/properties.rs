//! The lists against a slow matcher that tries every rule in turn: each line
//! is one regular expression, or one comparison of bits.

use super::{ClientList, MailAddressList, SourceLine};
use crate::policy::rules::Compat;
use proptest::collection::vec;
use proptest::prelude::*;
use regex::bytes::Regex;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn regex(text: &str) -> Regex {
    Regex::new(&format!("(?i-u){text}")).expect(text)
}

/// Numbers of the lines (from 1) whose expression is found.
fn lines_found(expressions: &[Regex], text: &str) -> Vec<usize> {
    let found =
        |(index, regex): (usize, &Regex)| regex.is_match(text.as_bytes()).then_some(index + 1);
    expressions.iter().enumerate().filter_map(found).collect()
}

/// The first rule found must be the first of those which the slow matcher
/// found, but where names and patterns meet: then it is one of them.
fn is_right(source: Option<&SourceLine>, lines: &[usize], is_mixed: bool) -> bool {
    match source {
        None => lines.is_empty(),
        Some(source) if is_mixed => lines.contains(&source.line),
        Some(source) => lines.first() == Some(&source.line),
    }
}

fn client_expression(line: &str) -> Regex {
    match line
        .strip_prefix('/')
        .and_then(|rest| rest.strip_suffix('/'))
    {
        Some(pattern) if !pattern.is_empty() => regex(pattern),
        _ => regex(&format!(r"(?:^|\.){}$", regex::escape(line))),
    }
}

fn recipient_expression(line: &str) -> Regex {
    if let Some(pattern) = line
        .strip_prefix('/')
        .and_then(|rest| rest.strip_suffix('/'))
    {
        return regex(pattern);
    }
    match line.split_once('@') {
        None => regex(&format!("[.@]{}$", regex::escape(line))),
        Some((user, domain)) => {
            let user = regex::escape(user);
            let end = if domain.is_empty() {
                String::new()
            } else {
                regex::escape(domain) + "$"
            };
            regex(&format!(r"^{user}(?:\+[^@]+)?@{end}"))
        }
    }
}

/// An address as 128 bits, IPv4 below `::/96`.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

fn small_address() -> impl Strategy<Value = IpAddr> {
    let octet = || prop_oneof![Just(0_u8), Just(1), Just(2), Just(10), Just(255)];
    let group = || prop_oneof![Just(0_u16), Just(1), Just(0x0102), Just(0xfe80)];
    prop_oneof![
        [octet(), octet(), octet(), octet()].prop_map(|o| IpAddr::V4(Ipv4Addr::from(o))),
        [group(), group(), group(), group()]
            .prop_map(|[a, b, c, d]| { IpAddr::V6(Ipv6Addr::new(a, b, 0, 0, 0, c, d, 0x0102)) }),
    ]
}

proptest! {
    #[test]
    fn names_equal_expressions(
        rules in vec("[aB.]{1,5}|/[ab.]{1,3}/|/\\^?[ab]+\\$?/", 0..12),
        names in vec("[aAbB./]{0,9}", 1..12),
    ) {
        let mut list = ClientList::new(Compat::Targrey137);
        list.add_file("W", rules.join("\n").as_bytes());
        list.finish();
        let expressions: Vec<Regex> = rules.iter().map(|line| client_expression(line)).collect();
        let is_mixed = rules.iter().any(|rule| rule.starts_with('/'));
        for name in names {
            let lines = lines_found(&expressions, &name);
            let source = list.match_name(name.as_bytes());
            prop_assert!(is_right(source, &lines, is_mixed), "{name}: {source:?} {lines:?} {rules:?}");
        }
    }

    #[test]
    fn recipients_equal_expressions(
        rules in vec("[aB.+@]{1,6}|/[ab+]{0,3}@[ab.]{1,2}/", 0..12),
        names in vec("[abB.+@]{0,9}", 1..12),
    ) {
        // A repeat of nothing or of a repeat is a bad pattern.
        let is_valid = |rule: &&str| !rule.starts_with("/+") && !rule.contains("++");
        let rules: Vec<&str> = rules.iter().map(String::as_str).filter(is_valid).collect();
        let mut list = MailAddressList::of_recipients();
        list.add_file("W", rules.join("\n").as_bytes());
        list.finish();
        let expressions: Vec<Regex> = rules.iter().map(|line| recipient_expression(line)).collect();
        let is_mixed = rules.iter().any(|rule| rule.starts_with('/'));
        for name in names {
            let lines = lines_found(&expressions, &name);
            let source = list.match_address(name.as_bytes());
            prop_assert!(is_right(source, &lines, is_mixed), "{name}: {source:?} {lines:?} {rules:?}");
        }
    }

    #[test]
    fn networks_equal_masks(
        rules in vec((small_address(), 0..=32_u8, any::<bool>()), 0..10),
        asked in vec(small_address(), 1..10),
    ) {
        let line = |&(address, length, is_host): &(IpAddr, u8, bool)| match (is_host, address) {
            (true, _) => address.to_string(),
            (false, IpAddr::V4(_)) => format!("{address}/{length}"),
            (false, IpAddr::V6(_)) => format!("{address}/{}", u16::from(length) * 4),
        };
        let text: Vec<String> = rules.iter().map(line).collect();
        let mut list = ClientList::new(Compat::Targrey137);
        prop_assert_eq!(list.add_file("W", text.join("\n").as_bytes()), []);
        for address in asked {
            let holds = |&(net, length, is_host): &(IpAddr, u8, bool)| {
                let free = match (is_host, net) {
                    (true, _) => 0,
                    (false, IpAddr::V4(_)) => 32 - u32::from(length),
                    (false, IpAddr::V6(_)) => 128 - u32::from(length) * 4,
                };
                let differs = bits(net) ^ bits(address);
                differs.checked_shr(free).unwrap_or(0) == 0
            };
            let first = rules.iter().position(holds).map(|index| index + 1);
            let source = list.match_address(b"", Some(address)).map(|source| source.line);
            prop_assert_eq!(source, first, "{} {:?}", address, text);
        }
    }

    #[test]
    fn text_prefixes_equal_expressions(
        rules in vec("[12]{1,2}(\\.[12]{1,2}){0,3}|[1aA]{0,2}:[1aA:]{0,3}:[1a]{0,1}", 0..10),
        asked in vec("[12]{1,2}(\\.[12]{1,2}){3}|[1aA]{0,2}:[1aA:]{0,7}", 1..10),
    ) {
        let mut list = ClientList::new(Compat::Targrey134);
        list.add_file("W", rules.join("\n").as_bytes());
        let expressions: Vec<Regex> = rules
            .iter()
            .map(|line| Regex::new(&format!(r"(?-u)^{}\b", regex::escape(line))).expect(line))
            .collect();
        for address in asked {
            let lines = lines_found(&expressions, &address);
            let source = list.match_address(address.as_bytes(), None);
            prop_assert!(is_right(source, &lines, false), "{address}: {source:?} {lines:?} {rules:?}");
        }
    }

}

proptest! {
    // Each case builds six sets.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a file or a client holds: answers, never a panic.
    #[test]
    fn nothing_panics(
        text in vec(any::<u8>(), 0..200),
        pattern in "/[-\\[\\]\\\\(){}^$*+?|a-cA-Z0-9.,:<>=!'&~]{1,12}/",
        asked in vec(any::<u8>(), 0..600),
    ) {
        let file = [&text[..], b"\n", pattern.as_bytes()].concat();
        let mut recipients = MailAddressList::of_recipients();
        recipients.add_file("W", &file);
        recipients.finish();
        recipients.match_address(&asked);
        for compat in Compat::ALL {
            let mut clients = ClientList::new(compat);
            let complaints = clients.add_file("W", &file);
            for complaint in complaints {
                prop_assert!(!complaint.to_string().contains(char::is_control), "{complaint}");
            }
            prop_assert_eq!(clients.finish(), []);
            clients.match_name(&asked);
            clients.match_address(&asked, None);
        }
    }
}
