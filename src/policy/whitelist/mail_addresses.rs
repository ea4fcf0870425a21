//! Lists of mail addresses: of recipients, and of senders.

use super::doubts::{Whose, doubt_mail_address};
use super::lines::Content;
use super::patterns::Patterns;
use super::{Complaint, Rank, SourceLine, SourceLines, keep_first, suffixes, with_lower_case};
use crate::policy::triplet::without_signature;
use std::collections::HashMap;

/// How the null sender is written in a list: as in the MAIL command.
const NULL_SENDER: &[u8] = b"<>";

/// Recipients or senders for whom something else is done than for others.
#[derive(Clone, Debug)]
pub struct MailAddressList {
    whose: Whose,
    source_lines: SourceLines,
    null_sender: Option<Rank>,
    users: HashMap<Box<[u8]>, User>,
    domains: HashMap<Box<[u8]>, Rank>,
    patterns: Patterns,
}

/// Where a user is listed.
#[derive(Clone, Debug, Default)]
struct User {
    anywhere: Option<Rank>,
    domains: HashMap<Box<[u8]>, Rank>,
}

impl MailAddressList {
    /// An empty list of recipients.
    pub fn of_recipients() -> Self {
        MailAddressList::of(Whose::Recipients)
    }

    /// An empty list of senders. One of its entries may be `<>`, the null sender; the
    /// signature that BATV puts in front of a user does not count.
    pub fn of_senders() -> Self {
        MailAddressList::of(Whose::Senders)
    }

    fn of(whose: Whose) -> Self {
        MailAddressList {
            whose,
            source_lines: SourceLines::default(),
            null_sender: None,
            users: HashMap::new(),
            domains: HashMap::new(),
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
                complain("doesn't look like an address".into(), false);
                return false;
            }
            Content::Pattern(pattern) => {
                if let Err(why) = self.patterns.add(pattern, rank) {
                    complain(why, true);
                    return false;
                }
            }
            Content::BrokenPattern(word, why) => {
                complain(why.into(), false);
                self.add_word(word, rank);
            }
            Content::Word(NULL_SENDER) if self.whose == Whose::Senders => {
                self.null_sender.get_or_insert(rank);
            }
            Content::Word(word) => {
                if let Some(why) = doubt_mail_address(word, self.whose) {
                    complain(why, false);
                }
                self.add_word(word, rank);
            }
        }
        true
    }

    fn add_word(&mut self, word: &[u8], rank: Rank) {
        let word = word.to_ascii_lowercase();
        match split_address(&word) {
            None => {
                self.domains.entry(word.into()).or_insert(rank);
            }
            Some((user, domain)) => {
                let user = self.users.entry(user.into()).or_default();
                if domain.is_empty() {
                    user.anywhere.get_or_insert(rank);
                } else {
                    user.domains.entry(domain.into()).or_insert(rank);
                }
            }
        }
    }

    /// To be called when all files are added: the patterns match only then.
    pub fn finish(&mut self) -> Vec<Complaint> {
        self.source_lines.complain(self.patterns.finish())
    }

    /// The rule that this address fits: the first of those that name it or its
    /// domain, otherwise the first pattern found in it. The empty text is the null
    /// sender.
    pub fn match_address(&self, address: &[u8]) -> Option<&SourceLine> {
        let literal = with_lower_case(address, |address| self.find_literal(address));
        self.source_lines
            .get(literal.or_else(|| self.patterns.find(address))?)
    }

    /// True if an entry fits this address.
    pub fn has(&self, address: &[u8]) -> bool {
        with_lower_case(address, |address| self.find_literal(address)).is_some()
            || self.patterns.has(address)
    }

    fn find_literal(&self, address: &[u8]) -> Option<Rank> {
        if address.is_empty() {
            return self.null_sender;
        }
        let mut best = None;
        if !self.domains.is_empty() {
            for domain in suffixes(address, |octet| octet == b'@' || octet == b'.') {
                keep_first(&mut best, self.domains.get(domain).copied());
            }
        }
        if let (false, Some((user, domain))) = (self.users.is_empty(), split_address(address)) {
            self.find_extended(user, domain, &mut best);
            let unsigned = without_signature(user);
            if self.whose == Whose::Senders && unsigned != user {
                self.find_extended(unsigned, domain, &mut best);
            }
        }
        best
    }

    /// Finds a user as such, and without each extension it may have.
    fn find_extended(&self, user: &[u8], domain: &[u8], best: &mut Option<Rank>) {
        self.find_user(user, domain, best);
        for (at, _) in user.iter().enumerate().filter(|(_, octet)| **octet == b'+') {
            // An extension has at least one character. Any plus may begin
            // it, since the user in a rule may hold others.
            if let (Some(user), true) = (user.get(..at), at + 1 < user.len()) {
                self.find_user(user, domain, best);
            }
        }
    }

    fn find_user(&self, user: &[u8], domain: &[u8], best: &mut Option<Rank>) {
        if let Some(user) = self.users.get(user) {
            keep_first(best, user.anywhere);
            keep_first(best, user.domains.get(domain).copied());
        }
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

/// The parts before and after the first `@`.
fn split_address(address: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = address.iter().position(|&octet| octet == b'@')?;
    Some((address.get(..at)?, address.get(at + 1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, yes: &[&str], no: &[&str]) {
        let mut list = MailAddressList::of_recipients();
        list.add_file("W", text.as_bytes());
        assert_eq!(list.finish(), []);
        for recipient in yes {
            assert!(
                list.match_address(recipient.as_bytes()).is_some(),
                "{text} {recipient}"
            );
        }
        for recipient in no {
            assert!(
                list.match_address(recipient.as_bytes()).is_none(),
                "{text} {recipient}"
            );
        }
    }

    #[test]
    fn a_user_matches_in_any_domain_and_with_an_extension() {
        let yes = [
            "postmaster@x",
            "POSTMASTER@a.b",
            "Postmaster+ext@x",
            "postmaster+a+b@x",
            "postmaster@",
        ];
        let no = [
            "postmaster+@x",
            "xpostmaster@x",
            "postmasterx@x",
            "postmaster",
            "a@postmaster@x",
            "",
        ];
        check("postMaster@", &yes, &no);
    }

    #[test]
    fn an_address_matches_with_an_extension() {
        let yes = [
            "user2@example.org",
            "USER2@EXAMPLE.ORG",
            "user2+e@example.org",
        ];
        let no = [
            "user2@sub.example.org",
            "user2@example.orgx",
            "user2+@example.org",
            "user@example.org",
        ];
        check("user2@example.org", &yes, &no);
        check(
            "a.b@example.org",
            &["A.B+c@example.org"],
            &["aXb@example.org"],
        );
    }

    #[test]
    fn a_plus_in_a_rule_is_literal_and_may_be_extended() {
        let yes = ["plus+ed@example.org", "plus+ED+more@example.org"];
        check(
            "PLUS+ed@example.org",
            &yes,
            &["plus@example.org", "plus+e@example.org"],
        );
    }

    #[test]
    fn a_domain_matches_itself_and_below() {
        let yes = [
            "a@other.example",
            "a+b@Y.OTHER.example",
            "@other.example",
            "a@b@other.example",
        ];
        check(
            "Other.example",
            &yes,
            &["a@xother.example", "other.example", "a@other.example.x", ""],
        );
        check("noat", &["x@noat", "x@a.noat"], &["noat", "xnoat"]);
    }

    #[test]
    fn an_at_in_front_is_an_empty_user() {
        check(
            "@only.example",
            &["@only.example", "+e@only.example"],
            &["x@only.example", "+@only.example"],
        );
        check("@", &["@x", "+e@x"], &["a@x", ""]);
    }

    #[test]
    fn a_pattern_sees_the_whole_address() {
        check(r"/^regex-?user\d*@/", &["Regex-user7@q"], &["xregexuser@q"]);
        check(r"/\+skip@/", &["joe+skip@q"], &["joe+skip2@q"]);
        check("/cut#comment@/", &["x@/cut"], &["x/cut@q", "cut@q"]);
    }

    #[test]
    fn senders_have_a_null_sender_and_may_be_signed() {
        let mut list = MailAddressList::of_senders();
        let text = b"alice@example.org\n<>\nbounces@\nshop.example\n/^news-\\d+@/\n<>\n";
        assert_eq!(list.add_file("S", text), []);
        assert_eq!(list.finish(), []);
        for (sender, line) in [
            ("", Some(2)),
            ("<>", None),
            ("ALICE@example.org", Some(1)),
            ("alice+x@example.org", Some(1)),
            ("alice@sub.example.org", None),
            ("prvs=0123456789=alice@example.org", Some(1)),
            ("prvs=alice=0123456789@Example.org", Some(1)),
            ("prvs=0123456789=alice+x@example.org", Some(1)),
            ("prvs=short=bob@example.org", None),
            ("bounces+user=example.net@lists.example", Some(3)),
            ("a@mail.shop.example", Some(4)),
            ("news-12@x", Some(5)),
            ("news@x", None),
        ] {
            let found = list.match_address(sender.as_bytes());
            assert_eq!(found.map(|source| source.line), line, "{sender}");
        }
        // Without an entry for it no sender is null, but a pattern may say so.
        let mut list = MailAddressList::of_senders();
        list.add_file("S", b"example.org\na@\n@\n/^.+$/");
        list.finish();
        assert_eq!(list.match_address(b""), None);
        let mut list = MailAddressList::of_senders();
        list.add_file("S", b"/^$/");
        list.finish();
        assert!(list.match_address(b"").is_some());
        assert!(list.match_address(b"a@b").is_none());
    }

    #[test]
    fn no_recipient_is_null_or_signed() {
        let mut list = MailAddressList::of_recipients();
        let told = list.add_file("R", b"<>\nalice@example.org");
        assert!(told[0].to_string().contains("without < and >"), "{told:?}");
        assert_eq!(list.match_address(b""), None);
        assert_eq!(
            list.match_address(b"prvs=0123456789=alice@example.org"),
            None
        );
    }

    #[test]
    fn doubtful_lines_are_told_and_the_first_rule_is_named() {
        let mut list = MailAddressList::of_recipients();
        let text = b"two words\n@a\n*@b\n/[/\n/x/\na\nx@\nx@a";
        let complaints = list.add_file("W", text);
        let lines: Vec<_> = complaints
            .iter()
            .map(|c| (c.source.line, c.fatal))
            .collect();
        assert_eq!(lines, [(1, false), (2, false), (3, false), (4, true)]);
        assert_eq!(
            complaints[0].to_string(),
            "W line 1: doesn't look like an address"
        );
        assert_eq!(list.finish(), []);
        assert_eq!(
            list.match_address(b"x@a").map(|source| source.line),
            Some(6)
        );
        assert_eq!(
            list.match_address(b"x@z").map(|source| source.line),
            Some(7)
        );
        assert_eq!(
            list.match_address(b"yx@z").map(|source| source.line),
            Some(5)
        );
        assert_eq!((list.len(), list.is_empty()), (6, false));
    }
}
