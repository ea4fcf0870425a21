//! Names that the rules judge wrongly, and the whole judgement.

use super::rules::{first_rule, judged_name};
use super::statement::Word;
use super::table::{Client, Table};
use crate::policy::whitelist::{Complaint, SourceLine, with_lower_case};

/// Whether a client has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// To be greylisted.
    Suspicious,
    /// Let through.
    Ok,
}

/// Why a client is suspicious, or why it is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason<'a> {
    /// The rule of this number matches.
    Rule(u8),
    /// No rule matches.
    NoRule,
    /// This line of an exceptions file says so.
    Exception(&'a SourceLine),
    /// This line `!/.../ OK` takes the place of the rules, and lets others in.
    KeptOut(&'a SourceLine),
}

/// What is known better than the rules, in the order of the files.
#[derive(Clone, Debug, Default)]
pub struct Exceptions {
    tables: Vec<Table>,
}

impl Exceptions {
    /// Adds the lines of `text`, the content of `file`, after those that are
    /// there, and returns complaints: the fatal ones are about lines that are
    /// left out. s25r(7) has the form of a file.
    pub fn add_file(&mut self, file: &str, text: &[u8]) -> Vec<Complaint> {
        let (table, complaints) = Table::parse(file, text);
        self.tables.push(table);
        complaints
    }

    /// Whether a client is suspicious, and why. The first line that is about
    /// its name or, in the same file, about its address decides; DUNNO ends a
    /// file. If no line decides, a `!/.../ OK` that did not let the client in
    /// does, or else the rules.
    pub fn judge(&self, client_name: &[u8], client_address: &[u8]) -> (Verdict, Reason<'_>) {
        let name = judged_name(client_name);
        with_lower_case(name, |lower| {
            let client = Client {
                name,
                lower,
                address: client_address,
            };
            let mut kept_out = None;
            for table in &self.tables {
                let answer = table.ask(client);
                if let Some((word, source)) = answer.decided {
                    let verdict = match word {
                        Word::Ok => Verdict::Ok,
                        Word::Suspicious | Word::Dunno => Verdict::Suspicious,
                    };
                    return (verdict, Reason::Exception(source));
                }
                kept_out = kept_out.or(answer.kept_out);
            }
            if let Some(source) = kept_out {
                return (Verdict::Suspicious, Reason::KeptOut(source));
            }
            match first_rule(lower) {
                Some(rule) => (Verdict::Suspicious, Reason::Rule(rule)),
                None => (Verdict::Ok, Reason::NoRule),
            }
        })
    }

    /// True if the client is to be greylisted.
    pub fn is_suspicious(&self, client_name: &[u8], client_address: &[u8]) -> bool {
        self.judge(client_name, client_address).0 == Verdict::Suspicious
    }

    /// The number of exceptions.
    pub fn len(&self) -> usize {
        self.tables.iter().map(Table::len).sum()
    }

    /// True if there is no exception: the rules alone decide.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::tables::read;
    use super::*;

    const ADDRESS: &[u8] = b"192.0.2.1";

    fn exceptions(text: &str) -> Exceptions {
        let mut exceptions = Exceptions::default();
        assert_eq!(exceptions.add_file("F", text.as_bytes()), []);
        exceptions
    }

    #[test]
    fn exceptions_go_before_the_rules() {
        let e = exceptions(
            "# a comment\n\n\
             example.com ok # its servers have digits\r\n\
             /^adsl-[a-z]+\\./\tSuspicious\n\
             unknown OK\n",
        );
        assert_eq!(e.len(), 3);
        let by_line = |name: &[u8]| match e.judge(name, ADDRESS) {
            (verdict, Reason::Exception(source)) => Some((verdict, source.to_string())),
            _ => None,
        };
        for (name, verdict, source) in [
            (&b"a1b2.Example.com"[..], Verdict::Ok, "F line 3"),
            (b"example.com", Verdict::Ok, "F line 3"),
            (b"unknown", Verdict::Ok, "F line 5"),
            (b"ADSL-abc.example.net", Verdict::Suspicious, "F line 4"),
        ] {
            assert_eq!(by_line(name), Some((verdict, source.to_owned())));
        }
        assert_eq!(
            e.judge(b"a1b2.badexample.com", ADDRESS),
            (Verdict::Suspicious, Reason::Rule(1))
        );
        assert_eq!(
            e.judge(b"mail.example.org", ADDRESS),
            (Verdict::Ok, Reason::NoRule)
        );
    }

    #[test]
    fn the_first_exception_decides_across_files() {
        let mut e = exceptions("mail.example.com suspicious\nexample.com ok\n");
        assert_eq!(e.add_file("G", b"example.com suspicious\n"), []);
        assert!(e.is_suspicious(b"mail.example.com", ADDRESS));
        assert!(!e.is_suspicious(b"a1b2.example.com", ADDRESS));
    }

    #[test]
    fn no_exception_leaves_it_to_the_rules() {
        let e = exceptions("");
        assert!(e.is_empty());
        assert!(e.is_suspicious(b"unknown", ADDRESS));
        assert!(!e.is_suspicious(b"mail.example.com", ADDRESS));
    }

    #[test]
    fn regular_expressions_may_hold_slashes_blanks_and_hashes() {
        let e = exceptions("/a\\/b #c/ suspicious\n/[[:digit:]]x\\\\/ ok\n");
        assert!(e.is_suspicious(b"a/b #c", ADDRESS));
        assert!(!e.is_suspicious(b"1x\\.example", ADDRESS));
    }

    #[test]
    fn a_bad_line_is_left_out_with_file_line_and_reason() {
        let cases: [(&[u8], &str); 10] = [
            (
                b"example.com",
                "'suspicious' or 'ok' is missing after the pattern",
            ),
            (
                b"example.com # ok",
                "'suspicious' or 'ok' is missing after the pattern",
            ),
            (
                b"example.com maybe",
                "'maybe' is neither 'suspicious' nor 'ok'",
            ),
            (
                b"example.com suspicious ok",
                "'suspicious ok' is neither 'suspicious' nor 'ok'",
            ),
            (
                b".example.com ok",
                "'.example.com' is neither a domain nor a /regular expression/",
            ),
            (
                b"b\xfcro.example ok",
                "'b\u{fffd}ro.example' is neither a domain nor a /regular expression/",
            ),
            (b"/open ok", "the regular expression does not end with '/'"),
            (b"// ok", "the regular expression is empty"),
            (b"/a\xff/ ok", "the regular expression is not UTF-8"),
            (b"/(/ ok", "bad regular expression: unclosed group"),
        ];
        for (line, why) in cases {
            let mut e = Exceptions::default();
            let text = [b"ok.example ok\n", line, b"\nlast.example ok"].concat();
            let complaints = e.add_file("/etc/x", &text);
            assert_eq!(complaints.len(), 1, "{why}");
            assert_eq!(complaints[0].to_string(), format!("/etc/x line 2: {why}"));
            assert_eq!(e.len(), 2, "the other lines are kept");
        }
    }

    #[test]
    fn look_around_is_refused_in_one_line() {
        let mut e = Exceptions::default();
        let complaints = e.add_file("F", b"/(?=a)b/ ok");
        assert_eq!(complaints.len(), 1);
        assert!(
            !complaints[0].to_string().contains('\n'),
            "{}",
            complaints[0]
        );
    }

    #[test]
    fn what_matches_all_addresses_is_told() {
        for (line, told) in [
            ("/[0-9]/ WARN", true),
            ("/[0-9]+\\.[0-9]+\\./ 450 x", true),
            ("/^[0-9.]+$/ OK", true),
            ("/^[0-9.]+$/ DUNNO", false),
            ("/^192\\./ OK", false),
            ("/./ WARN", false),
            ("/[0-9]{5}/ WARN", false),
        ] {
            let (_, said) = read(line);
            assert_eq!(said.len(), usize::from(told), "{line} {said:?}");
            assert!(
                said.iter()
                    .all(|s| s.starts_with("F line 1: matches every IPv4 address"))
            );
        }
    }

    #[test]
    fn an_address_in_the_place_of_a_name_is_told() {
        let nothing = "F line 2: matches nothing: an address is no name; write /^192\\.0\\.2\\.7$/";
        let neither = "is neither a domain nor a /regular expression/: an address is no name";
        for (line, why) in [
            ("192.0.2.7 ok", nothing.to_owned()),
            (
                "10 ok",
                "F line 2: matches nothing: an address is no name".into(),
            ),
            (
                "192.0.2.7/32 ok",
                format!("fatal F line 2: '192.0.2.7/32' {neither}; write /^192"),
            ),
            (
                "192.0.2.0/24 ok",
                format!("fatal F line 2: '192.0.2.0/24' {neither}; a network"),
            ),
            (
                "192.0.2. ok",
                format!("fatal F line 2: '192.0.2.' {neither}"),
            ),
            (
                "[192.0.2.7] ok",
                format!("fatal F line 2: '[192.0.2.7]' {neither}; write /^192"),
            ),
            (
                "2001:db8::7 ok",
                format!("fatal F line 2: '2001:db8::7' {neither}; write /^2001:db8::7$/"),
            ),
            (
                "192.0.2.0/255.255.255.0 ok",
                format!("fatal F line 2: '192.0.2.0/255.255.255.0' {neither}"),
            ),
        ] {
            let (e, said) = read(&format!("a.example ok\n{line}\n"));
            assert!(
                said.len() == 1 && said[0].starts_with(&why),
                "{line} {said:?}"
            );
            assert_eq!(e.len(), 1, "{line}");
        }
    }

    #[test]
    fn a_mark_in_front_is_taken_off() {
        let (e, said) = read("\u{feff}/^a1b2/ OK\n");
        assert_eq!(
            said,
            ["F line 1: the byte order mark in front is taken off"]
        );
        assert!(!e.is_suspicious(b"a1b2.example", ADDRESS));
    }

    #[test]
    fn texts_may_be_in_any_code() {
        let mut e = Exceptions::default();
        let text = b"# \xa5\xb5\n/^a1b2/ 450 \xa5\xb5\xa1\xbc\n  \xa5\xd0\n";
        assert_eq!(e.add_file("F", text), []);
        assert!(e.is_suspicious(b"a1b2.example", ADDRESS));
        assert!(!e.is_empty());
    }
}
