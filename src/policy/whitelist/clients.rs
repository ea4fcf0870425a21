//! Lists of clients, by name or address: of those that are whitelisted, and of those
//! that are suspect.

use super::addresses::{Addresses, Entered};
use super::doubts::{doubt_client_form, doubt_client_name, doubt_client_pattern};
use super::lines::Content;
use super::patterns::Patterns;
use super::{Complaint, Rank, SourceLine, SourceLines, keep_first, suffixes, with_lower_case};
use crate::policy::rules::Compat;
use std::collections::HashMap;
use std::net::IpAddr;

/// Clients for whom something else is done than for others.
#[derive(Clone, Debug)]
pub struct ClientList {
    pub(super) source_lines: SourceLines,
    pub(super) names: HashMap<Box<[u8]>, Rank>,
    pub(super) addresses: Addresses,
    pub(super) patterns: Patterns,
}

impl ClientList {
    /// An empty list; `compat` chooses how addresses are read and compared.
    pub fn new(compat: Compat) -> Self {
        ClientList {
            source_lines: SourceLines::default(),
            names: HashMap::new(),
            addresses: Addresses::new(compat.addresses_are_text()),
            patterns: Patterns::default(),
        }
    }

    /// Adds the rules of a file's text; `file` is its name in messages. Lines
    /// that are no rules are skipped and complained about.
    pub fn add_file(&mut self, file: &str, text: &[u8]) -> Vec<Complaint> {
        let mut source_lines = std::mem::take(&mut self.source_lines);
        let complaints = source_lines.add_file(file, text, |content, rank, complain| {
            self.add(content, rank, complain)
        });
        self.source_lines = source_lines;
        complaints
    }

    /// Enters what a line says; false if it is no rule.
    fn add(
        &mut self,
        content: Content<'_>,
        rank: Rank,
        complain: &mut dyn FnMut(String, bool),
    ) -> bool {
        match content {
            Content::Blanks => {
                complain("doesn't look like a hostname".into(), false);
                return false;
            }
            Content::Pattern(pattern) => {
                if let Err(why) = self.patterns.add(pattern, rank) {
                    complain(why, true);
                    return false;
                }
                if let Some(why) = doubt_client_pattern(pattern) {
                    complain(why, false);
                }
            }
            Content::BrokenPattern(word, why) => {
                complain(why.into(), false);
                self.add_name(word, rank);
            }
            Content::Word(word) => match self.addresses.add(word, rank) {
                Entered::Skipped(why) => {
                    let why = match doubt_client_form(word) {
                        Some(doubt) => format!("{why}: {doubt}"),
                        None => why,
                    };
                    complain(why, false);
                    return false;
                }
                Entered::Rule(warning) => {
                    if let Some(why) = doubt_client_form(word).or(warning) {
                        complain(why, false);
                    }
                }
                Entered::Name(warning) => {
                    if let Some(why) = warning.or_else(|| doubt_client_name(word)) {
                        complain(why, false);
                    }
                    self.add_name(word, rank);
                }
            },
        }
        true
    }

    fn add_name(&mut self, name: &[u8], rank: Rank) {
        self.names
            .entry(name.to_ascii_lowercase().into())
            .or_insert(rank);
    }

    /// To be called when all files are added: the patterns match only then.
    pub fn finish(&mut self) -> Vec<Complaint> {
        self.source_lines.complain(self.patterns.finish())
    }

    /// The rule that a client of this name fits: the first of those that name it
    /// or a domain above it, otherwise the first pattern found in it.
    pub fn match_name(&self, name: &[u8]) -> Option<&SourceLine> {
        self.source_lines
            .get(self.find_name(name).or_else(|| self.patterns.find(name))?)
    }

    pub(super) fn find_name(&self, name: &[u8]) -> Option<Rank> {
        let mut best = None;
        if !self.names.is_empty() {
            with_lower_case(name, |name| {
                keep_first(&mut best, self.names.get(name).copied());
                for domain in suffixes(name, |octet| octet == b'.') {
                    keep_first(&mut best, self.names.get(domain).copied());
                }
            });
        }
        best
    }

    /// The first rule that this address fits: `as_sent` is the attribute
    /// as it came, `parsed` the address it means, if it is one. The rules of
    /// 1.37 look only at `parsed`, those of 1.34 only at `as_sent`.
    pub fn match_address(&self, as_sent: &[u8], parsed: Option<IpAddr>) -> Option<&SourceLine> {
        self.source_lines.get(self.addresses.find(as_sent, parsed)?)
    }

    /// True if the client of this name and address is listed; what the address is, see
    /// [`ClientList::match_address`].
    pub fn has(&self, name: &[u8], as_sent: &[u8], parsed: Option<IpAddr>) -> bool {
        self.find_name(name).is_some()
            || self.patterns.has(name)
            || self.addresses.find(as_sent, parsed).is_some()
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.source_lines.len()
    }

    /// True if there is no rule.
    pub fn is_empty(&self) -> bool {
        self.source_lines.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> (ClientList, Vec<String>) {
        let mut list = ClientList::new(Compat::Targrey137);
        let mut complaints = list.add_file("W", text.as_bytes());
        complaints.extend(list.finish());
        (list, complaints.iter().map(ToString::to_string).collect())
    }

    fn line_of(source: Option<&SourceLine>) -> Option<usize> {
        source.map(|source| source.line)
    }

    #[test]
    fn a_name_matches_itself_and_below() {
        let (list, complaints) = list("example.edu\nUPPER.example");
        assert!(complaints.is_empty());
        for name in [
            "example.edu",
            "a.b.EXAMPLE.edu",
            ".example.edu",
            "x.upper.example",
        ] {
            assert!(list.match_name(name.as_bytes()).is_some(), "{name}");
        }
        for name in [
            "",
            "notexample.edu",
            "example.edu.evil",
            "edu",
            "exampleXedu",
            "example.edu.",
        ] {
            assert!(list.match_name(name.as_bytes()).is_none(), "{name}");
        }
    }

    #[test]
    fn dots_in_front_and_stars_are_literal_and_doubtful() {
        let (list, complaints) = list(".dot.example\n*.star.example");
        assert!(complaints[0].starts_with("W line 1: ") && complaints[1].starts_with("W line 2: "));
        assert_eq!(line_of(list.match_name(b"x..dot.example")), Some(1));
        assert_eq!(list.match_name(b"x.dot.example"), None);
        assert_eq!(line_of(list.match_name(b"*.star.example")), Some(2));
        assert_eq!(list.match_name(b"x.star.example"), None);
    }

    #[test]
    fn a_bad_pattern_skips_its_line_alone() {
        let mut list = ClientList::new(Compat::Targrey137);
        let complaints = list.add_file("dir/W", b"a\n/(/\nb b\n/c/");
        let fatal: Vec<bool> = complaints.iter().map(|c| c.fatal).collect();
        assert_eq!(fatal, [true, false]);
        assert!(
            complaints[0]
                .to_string()
                .starts_with("dir/W line 2: bad pattern: ")
        );
        assert_eq!(
            complaints[1].to_string(),
            "dir/W line 3: doesn't look like a hostname"
        );
        assert_eq!(list.finish(), []);
        assert_eq!((list.len(), list.is_empty()), (2, false));
        assert_eq!(line_of(list.match_name(b"xcx")), Some(4));
    }

    #[test]
    fn a_cut_pattern_is_a_name() {
        let (list, complaints) = list("/cut#comment/");
        assert!(
            complaints[0].starts_with("W line 1: # begins a comment"),
            "{complaints:?}"
        );
        assert!(list.match_name(b"/cut").is_some() && list.match_name(b"x.cut").is_none());
    }

    #[test]
    fn a_single_number_is_a_name_in_1_37_alone() {
        let mut list = ClientList::new(Compat::Targrey137);
        assert_eq!(list.add_file("W", b"10").len(), 1);
        assert!(list.match_name(b"x.10").is_some());
        assert_eq!(
            list.match_address(b"10.0.0.1", "10.0.0.1".parse().ok()),
            None
        );
        let mut list = ClientList::new(Compat::Targrey134);
        assert_eq!(list.add_file("W", b"10"), []);
        assert_eq!(list.match_name(b"x.10"), None);
        assert!(list.match_address(b"10.0.0.1", None).is_some());
    }

    #[test]
    fn patterns_see_the_name_alone_and_come_after_names() {
        let (list, _) = list("/^10/\n/c.*e/\ncom\nexample.com\nmail.example.com");
        assert_eq!(
            line_of(list.match_address(b"10.0.0.1", "10.0.0.1".parse().ok())),
            None
        );
        assert_eq!(line_of(list.match_name(b"mail.example.com")), Some(3));
        assert_eq!(line_of(list.match_name(b"cable.example")), Some(2));
    }

    #[test]
    fn a_client_is_listed_by_name_pattern_or_address() {
        let (list, _) = list("a.example\n/^b/\n/(?=c)d?c/\n192.0.2.0/24");
        for (name, address, is_listed) in [
            ("x.a.example", "198.51.100.1", true),
            ("b", "198.51.100.1", true),
            ("xc", "198.51.100.1", true),
            ("x", "192.0.2.9", true),
            ("x", "198.51.100.1", false),
        ] {
            let found = list.has(name.as_bytes(), address.as_bytes(), address.parse().ok());
            assert_eq!(found, is_listed, "{name} {address}");
        }
    }

    #[test]
    fn files_add_up_and_keep_their_names() {
        let mut list = ClientList::new(Compat::Postgrey137);
        assert!(list.is_empty());
        list.add_file("one", b"a.example");
        list.add_file("two", b"\na.example\n/b/\n1.2.3.4");
        assert_eq!(list.finish(), []);
        assert_eq!(
            list.match_name(b"a.example")
                .map(ToString::to_string)
                .unwrap(),
            "one line 1"
        );
        assert_eq!(
            list.match_name(b"b").map(ToString::to_string).unwrap(),
            "two line 3"
        );
        let address = list.match_address(b"", "1.2.3.4".parse().ok());
        assert_eq!(address.map(ToString::to_string).unwrap(), "two line 4");
        assert_eq!(list.len(), 4);
    }
}
