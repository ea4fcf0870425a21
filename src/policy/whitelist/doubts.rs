//! Entries that no client and no recipient can match, told by their form.
//!
//! What the original lets match goes on matching: an entry that is doubted
//! here is in the list all the same. It is told because its author meant
//! something by it, and learns otherwise from complaints about lost mail.

use super::addresses::{Shape, shape};
use std::net::{IpAddr, Ipv4Addr};

/// Whose addresses a list has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    Recipients,
    Senders,
}

impl Whose {
    /// One of them, in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Whose::Recipients => "recipient",
            Whose::Senders => "sender",
        }
    }
}

/// What is spelt wrong about a client's address or name. Says nothing of an
/// address or network that is right.
pub(super) fn doubt_client_form(word: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(word);
    let text = text.as_ref();
    if let Some(why) = doubt_hidden(text) {
        return Some(why);
    }
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split(['/', ':', '?']).next().unwrap_or_default();
        return Some(format!("matches nothing: a URL is no name; write {host}"));
    }
    if text.contains('@') {
        return Some(
            "matches nothing: a client has no mail address; those of recipients go into the list \
             of recipients"
                .into(),
        );
    }
    if text.contains([',', ';']) {
        return Some("matches nothing: an entry stands on a line of its own".into());
    }
    if text.contains(['[', ']']) {
        let inner: String = text.chars().filter(|c| !"[]".contains(*c)).collect();
        return Some(format!("matches nothing: write {inner}, without brackets"));
    }
    if let Some(base) = text.strip_suffix('/') {
        return Some(format!(
            "matches nothing: write {base}, without the slash at the end"
        ));
    }
    if let Some(network) = netmask(text) {
        return Some(format!(
            "matches nothing: a network has a length, not a mask; write {network}"
        ));
    }
    let has_letter = text.contains(|c: char| c.is_ascii_alphabetic());
    if text.contains('-') && (!has_letter || text.matches(':').count() > 1) {
        return Some(
            "matches nothing: there are no ranges; write networks such as 192.0.2.0/24, or each \
             address"
                .into(),
        );
    }
    if let Some(base) = text.strip_suffix('.') {
        return Some(match shape(base.as_bytes()) {
            Shape::Numbers(_) => format!("matches nothing: write {}", network_of(base)),
            _ => format!("matches nothing: write {base}, without the dot at the end"),
        });
    }
    None
}

/// Why no client has this name.
pub(super) fn doubt_client_name(word: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(word);
    if let Some(base) = text.strip_suffix(".*")
        && let Some(base) = Some(base.trim_end_matches(".*"))
        && matches!(shape(base.as_bytes()), Shape::Numbers(_))
    {
        return Some(format!("* is no wildcard here; write {}", network_of(base)));
    }
    if word.contains(&b'*') {
        return Some("* is no wildcard here; a name without it matches its subdomains, too".into());
    }
    if word.starts_with(b".") {
        return Some(
            "no client's name has an empty part; without the dot it matches subdomains, too".into(),
        );
    }
    if let Some(why) = doubt_client_form(word) {
        return Some(why);
    }
    if let Some(why) = doubt_letters(&text, "no client's name has") {
        return Some(why);
    }
    let mut labels = word.split(|octet| *octet == b'.');
    if labels.clone().any(<[u8]>::is_empty) {
        return Some("matches nothing: no client's name has an empty part".into());
    }
    if labels.any(|label| label.starts_with(b"-") || label.ends_with(b"-")) {
        return Some("matches nothing: no part of a name begins or ends with a hyphen".into());
    }
    if !word.iter().any(u8::is_ascii_alphabetic) {
        return Some("matches nothing: it is neither an address nor a name".into());
    }
    None
}

/// Why a regular expression finds nothing in names: it is about addresses.
pub(super) fn doubt_client_pattern(pattern: &[u8]) -> Option<String> {
    // Sets and alternatives may be about both; what is plain is enough.
    let is_plain = !pattern.iter().any(|octet| b"[]|?*{(".contains(octet));
    if is_plain && pattern.contains(&b'@') {
        return Some(
            "matches nothing: it is compared with the client's name, which is no mail address"
                .into(),
        );
    }
    let text = String::from_utf8_lossy(pattern);
    let has_letter = text
        .replace("\\d", "")
        .contains(|c: char| c.is_ascii_alphabetic());
    let mut numbers = text.strip_prefix('^')?.split('.');
    let mut is_number = || {
        let number = numbers.next().unwrap_or_default();
        let number = number.strip_suffix('\\').unwrap_or(number);
        matches!(shape(number.as_bytes()), Shape::Numbers(1))
    };
    (!has_letter && is_number() && is_number()).then(|| {
        "matches no address: it is compared with the client's name; write the address or network \
         without slashes"
            .into()
    })
}

/// Why nobody, or fewer than it seems, match this entry of a list of mail addresses.
pub(super) fn doubt_mail_address(word: &[u8], whose: Whose) -> Option<String> {
    let text = String::from_utf8_lossy(word);
    let text = text.as_ref();
    if text.contains('*') {
        return Some(
            "* is no wildcard here; write user@ for any domain, or the domain for any user".into(),
        );
    }
    if text.starts_with('@') {
        return Some(
            "matches an empty user alone; write the domain without @ for all its users".into(),
        );
    }
    if let Some(why) = doubt_hidden(text) {
        return Some(why);
    }
    let nothing = |why: &str| Some(format!("matches nothing: {why}"));
    if text.contains("://") || text.to_ascii_lowercase().starts_with("mailto:") {
        return nothing("a URL is no address of mail");
    }
    if text.contains(['<', '>']) {
        return nothing("write the address without < and >");
    }
    let (user, domain) = match text.split_once('@') {
        Some((user, domain)) => (Some(user), domain),
        None => (None, text),
    };
    if domain.contains([',', ';']) || user.is_some_and(|u| u.contains(',') && !u.starts_with('"')) {
        return nothing("an entry stands on a line of its own");
    }
    if domain.ends_with('/') {
        return nothing("it ends with a slash");
    }
    // user@[192.0.2.1] is an address of mail, and [192.0.2.1] its domain.
    if domain.starts_with('[') || domain.is_empty() {
        return None;
    }
    if user.is_none() && is_network(domain) {
        let who = whose.name();
        return nothing(&format!(
            "a {who} has no network; addresses of clients go into the list of clients"
        ));
    }
    if user.is_none() && MAILBOXES.contains(&text.to_ascii_lowercase().as_str()) {
        return Some(format!(
            "a word without @ is a domain; write {text}@ for this user in every domain"
        ));
    }
    if domain.starts_with('.') {
        return nothing(if user.is_some() {
            "no domain begins with a dot"
        } else {
            "no domain begins with a dot; without it the entry matches subdomains, too"
        });
    }
    if domain.ends_with('.') {
        return nothing("no domain ends with a dot");
    }
    if domain.contains("..") {
        return nothing("no domain has an empty part");
    }
    // Domains may be written in other letters; a second @ is a route.
    let ascii: String = domain
        .chars()
        .filter(|c| c.is_ascii() && *c != '@')
        .collect();
    doubt_letters(&ascii, "no domain has")
}

/// Users whom every domain has, and which are no domains.
const MAILBOXES: [&str; 6] = [
    "postmaster",
    "abuse",
    "hostmaster",
    "webmaster",
    "mailer-daemon",
    "root",
];

/// What to say of an address or network where only names are looked at: how
/// an expression for it reads. `None` for what is neither.
pub(in crate::policy) fn address_shape(word: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(word);
    let bare = text.trim_matches(['[', ']']).trim_end_matches(['.', '/']);
    if !is_network(bare) {
        return None;
    }
    let bare = bare.strip_suffix("/32").unwrap_or(bare);
    Some(match bare.parse::<IpAddr>() {
        Ok(address) => format!(
            "an address is no name; write /^{}$/",
            address.to_string().replace('.', "\\.")
        ),
        Err(_) => "an address is no name; a network is written as a /regular expression/ that \
                   matches its addresses, such as /^192\\.0\\.2\\./"
            .into(),
    })
}

/// True for addresses, networks, and what is meant for one.
fn is_network(text: &str) -> bool {
    let looks = |text: &str| !matches!(shape(text.as_bytes()), Shape::Name);
    looks(text)
        || netmask(text).is_some()
        || text.strip_suffix('.').is_some_and(looks)
        || text.split_once('-').is_some_and(|(first, last)| {
            matches!(shape(first.as_bytes()), Shape::Numbers(3 | 4)) && looks(last)
        })
}

/// The network, with a length, of an address with a mask as it is in
/// interfaces (255.255.255.0) or in routers' lists (0.0.0.255).
fn netmask(text: &str) -> Option<String> {
    let (address, mask) = text.split_once('/')?;
    let address: Ipv4Addr = address.parse().ok()?;
    let mask = u32::from(mask.parse::<Ipv4Addr>().ok()?);
    let is_inverse = mask != 0 && mask.leading_ones() == 0;
    let mask = if is_inverse { !mask } else { mask };
    let length = mask.leading_ones();
    if mask.checked_shl(length).unwrap_or(0) != 0 {
        return Some("the network with its length".into());
    }
    Some(format!("{address}/{length}"))
}

/// The network that begins with one to four numbers.
fn network_of(numbers: &str) -> String {
    match numbers.split('.').count() {
        1 => format!("{numbers}.0.0.0/8"),
        2 => format!("{numbers}.0.0/16"),
        _ => numbers.to_owned(),
    }
}

/// About the first character that is in no name.
fn doubt_letters(text: &str, who: &str) -> Option<String> {
    let wrong = text
        .chars()
        .find(|c| !c.is_ascii_alphanumeric() && !".-_".contains(*c))?;
    Some(match wrong {
        '^' | '$' | '\\' | '(' | ')' | '|' | '+' | '?' => {
            format!("matches nothing: {who} a {wrong}; a regular expression stands between slashes")
        }
        ':' => format!("matches nothing: {who} a colon, and an IPv6 network needs its length"),
        '/' => "matches nothing: only an address has a length".into(),
        _ if wrong.is_ascii() => format!("matches nothing: {who} a {wrong}"),
        _ => "matches nothing: names are ASCII; write the xn-- form".into(),
    })
}

/// About characters that nobody sees: a file that was copied from a web page.
fn doubt_hidden(text: &str) -> Option<String> {
    let is_hidden = |c: char| {
        c.is_control()
            || (!c.is_ascii() && c.is_whitespace())
            || matches!(
                c,
                '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}'
            )
    };
    let hidden = text.chars().find(|c| is_hidden(*c))?;
    Some(format!(
        "matches nothing: it has a character that cannot be seen (U+{:04X})",
        hidden as u32
    ))
}
