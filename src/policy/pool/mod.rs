//! Pools: the servers of one provider, known by the domain of their names
//! (`--lookup-by-domain`).
//!
//! Postfix gives a client's name only if the name leads back to the address, so a
//! domain stands for whoever runs it. A domain is a pool if it is listed, or if the
//! name was given to a server: not made from the address, and not suspicious by
//! S25R. Both tests are needed: S25R takes most large pools for lines, which is why
//! those are listed, and a name of a line may hide the address.

mod generated;

use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;

use super::s25r::Exceptions;
use super::whitelist::{Complaint, SourceLine, strip_mark, with_lower_case};
use generated::is_generated;

/// Octets of the longest name. A longer text would be cut, and its end chosen by
/// whoever sends it.
const LONGEST_NAME: usize = 253;

/// Domains that are pools, and domains that are none.
#[derive(Clone, Debug, Default)]
pub struct Pools {
    listed: HashMap<Box<[u8]>, SourceLine>,
    excluded: HashMap<Box<[u8]>, SourceLine>,
}

/// By what a client is known, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy<'a> {
    /// Its domain: this line lists it.
    ListedDomain(&'a SourceLine),
    /// Its domain: the name was given to a server.
    Domain,
    /// Its network: Postfix has no name that leads back to the address, or it is not
    /// below a public suffix.
    NoDomain,
    /// Its network: this line says that the domain is no pool.
    Excluded(&'a SourceLine),
    /// Its network: the name was made from the address.
    GeneratedName,
    /// Its network: the name is that of a line by S25R.
    SuspiciousName,
}

impl KnownBy<'_> {
    /// True if it is known by its domain.
    pub fn is_domain(self) -> bool {
        matches!(self, KnownBy::ListedDomain(_) | KnownBy::Domain)
    }
}

impl Pools {
    /// Adds the lines of `text`, the content of `file`: a domain that is a pool, or
    /// `!` and a domain below which none is. A `#` begins a comment. Returns a
    /// complaint for each line that is left out.
    pub fn add_file(&mut self, file: &str, text: &[u8]) -> Vec<Complaint> {
        let file: Rc<str> = file.into();
        let mut complaints = Vec::new();
        let (text, has_mark) = strip_mark(text);
        if has_mark {
            complaints.push(Complaint::of_mark(SourceLine::new(&file, 1)));
        }
        for (index, line) in text.split(|&octet| octet == b'\n').enumerate() {
            let line = line
                .split(|&octet| octet == b'#')
                .next()
                .unwrap_or_default();
            let line = line.trim_ascii().to_ascii_lowercase();
            if line.is_empty() {
                continue;
            }
            let source = SourceLine::new(&file, index + 1);
            let (is_pool, domain) = match line.strip_prefix(b"!") {
                Some(rest) => (false, rest.trim_ascii_start()),
                None => (true, &line[..]),
            };
            match objection(domain, is_pool) {
                None => {
                    let list = match is_pool {
                        true => &mut self.listed,
                        false => &mut self.excluded,
                    };
                    list.entry(domain.into()).or_insert(source);
                }
                Some(why) => complaints.push(Complaint {
                    source,
                    why,
                    fatal: true,
                }),
            }
        }
        complaints
    }

    /// Each listed domain that is excluded, too, about its line.
    pub fn contradictions(&self) -> Vec<Complaint> {
        let beaten = self.listed.iter().filter_map(|(domain, source)| {
            let excluded = self.exclusion(domain)?;
            Some(Complaint {
                source: source.clone(),
                why: format!("{excluded} excludes it, and wins"),
                fatal: false,
            })
        });
        let mut complaints: Vec<Complaint> = beaten.collect();
        complaints.sort_by(|a, b| {
            let place = |own: &Complaint| (Rc::clone(&own.source.file), own.source.line);
            place(a).cmp(&place(b))
        });
        complaints
    }

    /// How many domains are listed.
    pub fn len(&self) -> usize {
        self.listed.len() + self.excluded.len()
    }

    /// True if no domain is listed.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// By what a client is known. If that is its domain, the domain is put into
    /// `domain`, in lower case.
    pub fn judge(
        &self,
        name: &[u8],
        address: &[u8],
        s25r: Option<&Exceptions>,
        domain: &mut Vec<u8>,
    ) -> KnownBy<'_> {
        domain.clear();
        let parsed = std::str::from_utf8(address).ok();
        let parsed: Option<IpAddr> = parsed.and_then(|text| text.parse().ok());
        with_lower_case(name, |name| {
            let (Some(own), Some(parsed)) = (domain_of(name), parsed) else {
                return KnownBy::NoDomain;
            };
            if let Some(excluded) = self.exclusion(name) {
                return KnownBy::Excluded(excluded);
            }
            let known_by = match self.listed.get(own) {
                Some(source) => KnownBy::ListedDomain(source),
                // Whoever has registered the domain has not done so for the address.
                _ if is_generated(&name[..name.len() - own.len()], parsed) => {
                    KnownBy::GeneratedName
                }
                _ if is_suspicious(name, address, s25r) => KnownBy::SuspiciousName,
                _ => KnownBy::Domain,
            };
            if known_by.is_domain() {
                domain.extend_from_slice(own);
            }
            known_by
        })
    }

    /// The line that excludes the name or a domain above it.
    pub fn exclusion(&self, name: &[u8]) -> Option<&SourceLine> {
        let mut rest = name;
        loop {
            if let Some(source) = self.excluded.get(rest) {
                return Some(source);
            }
            let dot = memchr::memchr(b'.', rest)?;
            rest = &rest[dot + 1..];
        }
    }
}

/// The domain that this text is, in lower case, if somebody has registered it.
pub fn registered_domain(text: &[u8]) -> Option<Vec<u8>> {
    let text = text.to_ascii_lowercase();
    (domain_of(&text) == Some(&text)).then_some(text)
}

/// What keeps a text from being a domain by which clients are known; `None`: nothing.
pub fn objection_to_domain(text: &[u8]) -> Option<String> {
    objection(&text.to_ascii_lowercase(), true)
}

/// S25R's word, with the exceptions of `--s25r-except` if they are read.
fn is_suspicious(name: &[u8], address: &[u8], s25r: Option<&Exceptions>) -> bool {
    match s25r {
        Some(exceptions) => exceptions.is_suspicious(name, address),
        None => super::s25r::suspicious_rule(name).is_some(),
    }
}

/// The domain that somebody has registered, in which a name lies: the label below
/// its public suffix, and that. The Public Suffix List is that of the crate `psl`,
/// private section included.
fn domain_of(name: &[u8]) -> Option<&[u8]> {
    // An address in place of a name would be cut into a domain of digits.
    let last = name.rsplit(|&octet| octet == b'.').next()?;
    if !is_name(name) || last.iter().all(u8::is_ascii_digit) {
        return None;
    }
    psl::domain(name).map(|domain| domain.as_bytes())
}

/// True for what can be the name of a host (RFC 1035, section 2.3.4).
fn is_name(text: &[u8]) -> bool {
    let is_of_label = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
    let is_label = |label: &[u8]| !label.is_empty() && label.iter().all(is_of_label);
    text.len() <= LONGEST_NAME && text.split(|&octet| octet == b'.').all(is_label)
}

/// Why a line is left out.
fn objection(domain: &[u8], is_pool: bool) -> Option<String> {
    let shown = domain.escape_ascii();
    match domain_of(domain) {
        // Exclusions may stand at any level.
        None if is_pool => Some(format!("\"{shown}\" is no domain below a public suffix")),
        Some(own) if is_pool && own != domain => {
            let own = own.escape_ascii();
            Some(format!("\"{shown}\" is known as {own}: give that"))
        }
        _ if !is_name(domain) => Some(format!("\"{shown}\" is no domain")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"# large ones\nOutlook.com # Microsoft 365\ngoogle.com\nhotmail.com\n\
        amazonses.com\nmailgun.net\n! lines.provider.example\n";

    fn pools() -> Pools {
        let mut pools = Pools::default();
        assert_eq!(pools.add_file("pools", LIST), []);
        assert_eq!(pools.len(), 6);
        pools
    }

    #[test]
    fn clients_are_known_by_domain_or_network() {
        let pools = pools();
        for (name, address, expected) in [
            (
                "mail-eopbgr10051.outbound.protection.outlook.com",
                "40.107.1.51",
                "outlook.com",
            ),
            ("mail-ed1-f53.google.com", "209.85.208.53", "google.com"),
            ("o1.sg.crunchbase.com", "167.89.93.77", "crunchbase.com"),
            ("blu004-omc4s32.hotmail.com", "65.55.111.171", "hotmail.com"),
            (
                "a10-219.smtp-out.amazonses.com",
                "54.240.10.219",
                "amazonses.com",
            ),
            ("m223-45.mailgun.net", "159.135.223.45", "mailgun.net"),
            ("MAIL.Example.COM", "192.0.2.7", "example.com"),
            ("mail.example.co.uk", "192.0.2.7", "example.co.uk"),
            ("p4FE2A1B7.dip0.t-ipconnect.example", "79.226.161.183", ""),
            ("dsl-189-146-1-2-dyn.example.com.mx", "189.146.1.2", ""),
            ("host86-1-2-3.range86-1.example.com", "86.1.2.3", ""),
            ("c-024-001-002-003.example.net", "24.1.2.3", ""),
            ("ec2-3-80-1-2.compute-1.amazonaws.com", "3.80.1.2", ""),
            // A private suffix: the tenant's own label.
            ("mail.tenant.github.io", "192.0.2.7", "tenant.github.io"),
            ("mail.lines.provider.example", "192.0.2.7", ""),
            ("mail.provider.example", "192.0.2.7", "provider.example"),
            ("unknown", "192.0.2.7", ""),
            ("", "192.0.2.7", ""),
            ("192.0.2.7", "192.0.2.7", ""),
            ("2001:db8::7", "2001:db8::7", ""),
            ("com", "192.0.2.7", ""),
            ("co.uk", "192.0.2.7", ""),
            ("a b.example.com", "192.0.2.7", ""),
            ("mail/x.example.com", "192.0.2.7", ""),
        ] {
            let mut domain = Vec::new();
            let address = address.as_bytes();
            let known_by = pools.judge(name.as_bytes(), address, None, &mut domain);
            assert_eq!(String::from_utf8_lossy(&domain), expected, "{name}");
            assert_eq!(known_by.is_domain(), !expected.is_empty(), "{name}");
        }
    }

    #[test]
    fn the_reason_is_told() {
        let pools = pools();
        let judge = |name: &str, address: &str| {
            pools.judge(name.as_bytes(), address.as_bytes(), None, &mut Vec::new())
        };
        let line = |known_by| match known_by {
            KnownBy::ListedDomain(source) | KnownBy::Excluded(source) => source.line,
            other => panic!("{other:?}"),
        };
        assert_eq!(line(judge("mail-ed1-f53.google.com", "209.85.208.53")), 3);
        assert_eq!(line(judge("x.lines.provider.example", "192.0.2.7")), 7);
        assert_eq!(judge("mail.example.com", "192.0.2.7"), KnownBy::Domain);
        assert_eq!(judge("unknown", "192.0.2.7"), KnownBy::NoDomain);
        let generated = judge("host86-1-2-3.example.com", "86.1.2.3");
        assert_eq!(generated, KnownBy::GeneratedName);
        let suspicious = judge("dhcp0815.example.com", "192.0.2.7");
        assert_eq!(suspicious, KnownBy::SuspiciousName);
    }

    #[test]
    fn lines_that_are_no_domains_are_left_out() {
        let mut pools = Pools::default();
        let complaints = pools.add_file("f", b"mail.example.com\nco.uk\na b\n!\n192.0.2.7\n");
        let told: Vec<String> = complaints.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "f line 1: \"mail.example.com\" is known as example.com: give that",
                "f line 2: \"co.uk\" is no domain below a public suffix",
                "f line 3: \"a b\" is no domain below a public suffix",
                "f line 4: \"\" is no domain",
                "f line 5: \"192.0.2.7\" is no domain below a public suffix",
            ]
        );
        assert!(pools.is_empty());
        let odd = b"!*.foo.com\n!.bar.com\n!baz.com.\n!mail_x.com,\n!http://a.com\n!@q.com\n";
        assert_eq!(pools.add_file("f", odd).len(), 6);
        assert!(pools.is_empty());
    }

    #[test]
    fn an_exclusion_beats_a_listed_domain_wherever_they_stand() {
        for files in [
            ["google.com\n", "!google.com\n"],
            ["!google.com\n", "google.com\n"],
        ] {
            let mut pools = Pools::default();
            for text in files {
                assert_eq!(pools.add_file("f", text.as_bytes()), []);
            }
            let judged = pools.judge(
                b"mail-ed1-f53.google.com",
                b"192.0.2.7",
                None,
                &mut Vec::new(),
            );
            assert!(matches!(judged, KnownBy::Excluded(_)), "{judged:?}");
        }
    }

    #[test]
    fn a_listed_domain_that_is_excluded_is_told() {
        let mut pools = Pools::default();
        let text = b"b.com\nc.com\n!b.com\na.net\n!net\n!mail.c.com\n";
        assert_eq!(pools.add_file("f", text), []);
        let told: Vec<String> = pools
            .contradictions()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            told,
            [
                "f line 1: f line 3 excludes it, and wins",
                "f line 4: f line 5 excludes it, and wins",
            ]
        );
    }

    #[test]
    fn a_byte_order_mark_is_taken_off_and_what_is_hidden_is_shown() {
        let mut pools = Pools::default();
        let text = b"\xef\xbb\xbfoutlook.com\r\ngoo\0gle.com\nb\xe2\x80\x8b.com";
        let complaints = pools.add_file("f", text);
        let told: Vec<String> = complaints.iter().map(ToString::to_string).collect();
        assert_eq!(
            told,
            [
                "f line 1: the byte order mark in front is taken off",
                "f line 2: \"goo\\x00gle.com\" is no domain below a public suffix",
                "f line 3: \"b\\xe2\\x80\\x8b.com\" is no domain below a public suffix",
            ]
        );
        assert_eq!(complaints.iter().filter(|told| told.fatal).count(), 2);
        assert_eq!(pools.len(), 1);
    }

    #[test]
    fn long_names_and_empty_labels_have_no_domain() {
        let pools = Pools::default();
        let long = "x.".repeat(130) + "google.com";
        for name in [
            &long,
            "a..google.com",
            "..com",
            ".google.com",
            "google.com.",
        ] {
            let judged = pools.judge(name.as_bytes(), b"192.0.2.7", None, &mut Vec::new());
            assert_eq!(judged, KnownBy::NoDomain, "{name}");
        }
    }

    #[test]
    fn the_domain_itself_was_not_made_from_an_address() {
        let pools = Pools::default();
        for (name, address) in [
            ("mx1.web24.com", "5.1.24.9"),
            ("mail.ab-cd.com", "171.205.1.2"),
            ("mail.1und1-24.de", "5.1.24.9"),
        ] {
            let mut domain = Vec::new();
            let judged = pools.judge(name.as_bytes(), address.as_bytes(), None, &mut domain);
            assert_eq!(judged, KnownBy::Domain, "{name}");
        }
    }
}
