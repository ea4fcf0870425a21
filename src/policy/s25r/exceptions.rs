//! Names that the rules judge wrongly, and the whole judgement.

use std::rc::Rc;

use regex::bytes::Regex;

use super::rules::{first_rule, octets_regex};
use crate::policy::whitelist::{Complaint, SourceLine, with_lower_case};

/// What a line of an exceptions file says about the names it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// `suspicious`: to be greylisted, whatever the rules say.
    Suspicious,
    /// `ok`: let through, whatever the rules say.
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
}

/// Names that the rules judge wrongly, in the order of their files.
#[derive(Clone, Debug, Default)]
pub struct Exceptions {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    pattern: Pattern,
    verdict: Verdict,
    source: SourceLine,
}

#[derive(Clone, Debug)]
enum Pattern {
    /// A domain in lower case: itself and what is below it.
    Domain(Vec<u8>),
    Regex(Regex),
}

impl Pattern {
    fn matches(&self, name: &[u8]) -> bool {
        match self {
            Pattern::Regex(regex) => regex.is_match(name),
            Pattern::Domain(domain) => name.strip_suffix(domain.as_slice()).is_some_and(|head| {
                // "ample.com" must not match "example.com".
                head.is_empty() || head.ends_with(b".")
            }),
        }
    }
}

impl Exceptions {
    /// Adds the lines of `text`, the content of `file`, after those that are
    /// there, and returns a complaint for each line that is left out. All are
    /// fatal: a client that an exception was written for would be judged by
    /// the rules.
    ///
    /// A line is a domain or a `/regular expression/`, blanks, and the word
    /// `suspicious` or `ok`; see s25r(7). Empty lines and everything from a
    /// `#` that is not part of a regular expression are ignored.
    pub fn add_file(&mut self, file: &str, text: &[u8]) -> Vec<Complaint> {
        let file: Rc<str> = file.into();
        let mut complaints = Vec::new();
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let source = SourceLine::new(&file, index + 1);
            match parse_line(line) {
                Ok(None) => {}
                Ok(Some((pattern, verdict))) => self.entries.push(Entry {
                    pattern,
                    verdict,
                    source,
                }),
                Err(why) => complaints.push(Complaint {
                    source,
                    why,
                    fatal: true,
                }),
            }
        }
        complaints
    }

    /// Whether `client_name` is suspicious, and why: the first exception that
    /// matches decides, else the rules.
    pub fn judge(&self, client_name: &[u8]) -> (Verdict, Reason<'_>) {
        with_lower_case(client_name, |name| {
            let found = self.entries.iter().find(|e| e.pattern.matches(name));
            if let Some(entry) = found {
                return (entry.verdict, Reason::Exception(&entry.source));
            }
            match first_rule(name) {
                Some(rule) => (Verdict::Suspicious, Reason::Rule(rule)),
                None => (Verdict::Ok, Reason::NoRule),
            }
        })
    }

    /// True if `client_name` is to be greylisted.
    pub fn is_suspicious(&self, client_name: &[u8]) -> bool {
        self.judge(client_name).0 == Verdict::Suspicious
    }

    /// The number of exceptions.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True if there is no exception: the rules alone decide.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The pattern and the verdict of a line, `None` for a line without either.
fn parse_line(line: &[u8]) -> Result<Option<(Pattern, Verdict)>, String> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(None);
    }
    let (pattern, rest) = match line.strip_prefix(b"/") {
        Some(body) => {
            let (regex, rest) = split_regex(body)?;
            (Pattern::Regex(compile(regex)?), rest)
        }
        None => {
            let end = line
                .iter()
                .position(|b| b.is_ascii_whitespace() || *b == b'#')
                .unwrap_or(line.len());
            let (domain, rest) = line.split_at(end);
            (parse_domain(domain)?, rest)
        }
    };
    let rest = rest.split(|b| *b == b'#').next().unwrap_or_default();
    let verdict = match rest.trim_ascii().to_ascii_lowercase().as_slice() {
        b"suspicious" => Verdict::Suspicious,
        b"ok" => Verdict::Ok,
        b"" => return Err("'suspicious' or 'ok' is missing after the pattern".into()),
        word => {
            let word = String::from_utf8_lossy(word).escape_debug().to_string();
            return Err(format!("'{word}' is neither 'suspicious' nor 'ok'"));
        }
    };
    Ok(Some((pattern, verdict)))
}

/// Splits after the first `/` that has no backslash in front of it.
fn split_regex(body: &[u8]) -> Result<(&[u8], &[u8]), String> {
    let mut escaped = false;
    for (index, byte) in body.iter().enumerate() {
        match byte {
            b'/' if !escaped => return Ok((&body[..index], &body[index + 1..])),
            _ => escaped = *byte == b'\\' && !escaped,
        }
    }
    Err("the regular expression does not end with '/'".into())
}

fn compile(regex: &[u8]) -> Result<Regex, String> {
    if regex.is_empty() {
        return Err("the regular expression is empty".into());
    }
    let text = std::str::from_utf8(regex)
        .map_err(|_| "the regular expression is not UTF-8".to_owned())?
        .replace(r"\/", "/");
    octets_regex(&text)
        .case_insensitive(true)
        .build()
        .map_err(|error| format!("bad regular expression: {}", last_line(&error)))
}

/// The crate draws the position of a mistake on several lines; the log wants one.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default().trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

fn parse_domain(domain: &[u8]) -> Result<Pattern, String> {
    let is_name = domain
        .split(|byte| *byte == b'.')
        .all(|label| !label.is_empty() && label.iter().all(|b| is_name_byte(*b)));
    if is_name {
        return Ok(Pattern::Domain(domain.to_ascii_lowercase()));
    }
    let shown = String::from_utf8_lossy(domain).escape_debug().to_string();
    Err(format!(
        "'{shown}' is neither a domain nor a /regular expression/"
    ))
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let by_line = |name: &[u8]| match e.judge(name) {
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
            e.judge(b"a1b2.badexample.com"),
            (Verdict::Suspicious, Reason::Rule(1))
        );
        assert_eq!(e.judge(b"mail.example.org"), (Verdict::Ok, Reason::NoRule));
    }

    #[test]
    fn the_first_exception_decides_across_files() {
        let mut e = exceptions("mail.example.com suspicious\nexample.com ok\n");
        assert_eq!(e.add_file("G", b"example.com suspicious\n"), []);
        assert!(e.is_suspicious(b"mail.example.com"));
        assert!(!e.is_suspicious(b"a1b2.example.com"));
    }

    #[test]
    fn no_exception_leaves_it_to_the_rules() {
        let e = exceptions("");
        assert!(e.is_empty());
        assert!(e.is_suspicious(b"unknown"));
        assert!(!e.is_suspicious(b"mail.example.com"));
    }

    #[test]
    fn regular_expressions_may_hold_slashes_blanks_and_hashes() {
        let e = exceptions("/a\\/b #c/ suspicious\n/[[:digit:]]x\\\\/ ok\n");
        assert!(e.is_suspicious(b"a/b #c"));
        assert!(!e.is_suspicious(b"1x\\.example"));
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
                b"example.com ok ok",
                "'ok ok' is neither 'suspicious' nor 'ok'",
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
}
