//! The static whitelists: who is never greylisted, by the administrator's word.
//!
//! A request is asked here before anything is read from the store, for every
//! recipient of every mail, so a look-up costs the same for ten lines and for
//! ten thousand: names are found by suffix in a hash map, addresses by prefix,
//! and the patterns run together as one set. The files are read elsewhere;
//! here they are text, and what is wrong with a line is handed back as a
//! [`Complaint`] for the caller to print, log or refuse.

mod addresses;
mod clients;
#[cfg(test)]
mod doubted;
mod doubts;
mod lines;
mod mail_addresses;
mod overlap;
mod patterns;
mod perl;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod scenarios;

pub use clients::ClientList;
pub(in crate::policy) use doubts::address_shape;
pub(in crate::policy) use lines::strip_mark;
pub use mail_addresses::MailAddressList;

use lines::{Content, read_lines};
use std::fmt;
use std::rc::Rc;

/// Where a rule was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceLine {
    /// The file, as it was named on the command line.
    pub file: Rc<str>,
    /// The line, counted from 1.
    pub line: usize,
}

impl SourceLine {
    /// The line of this number in this file.
    pub fn new(file: &Rc<str>, line: usize) -> Self {
        SourceLine {
            file: Rc::clone(file),
            line,
        }
    }
}

impl fmt::Display for SourceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} line {}", self.file, self.line)
    }
}

/// A line that was skipped, or that means something else than it seems to.
///
/// Its `Display` is the text for the administrator: `FILE line N: WHY`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// The line.
    pub source: SourceLine,
    /// What is wrong with it, in one printable line.
    pub why: String,
    /// True for a pattern that cannot be used: a reload keeps the old lists
    /// then. False for a mere warning.
    pub fatal: bool,
}

impl Complaint {
    /// About the byte order mark in front of a file, on its first line.
    pub(in crate::policy) fn of_mark(source: SourceLine) -> Self {
        Complaint {
            source,
            why: "the byte order mark in front is taken off".into(),
            fatal: false,
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.why)
    }
}

/// A rule's number in the order in which the rules were read.
type Rank = usize;

/// Where the rules of a list were written, by rank.
#[derive(Clone, Debug, Default)]
struct SourceLines(Vec<SourceLine>);

impl SourceLines {
    /// Reads the text of a file. `add` enters what a line says as the rule of this
    /// rank, complains if need be, and returns false if it is none.
    fn add_file(
        &mut self,
        file: &str,
        text: &[u8],
        mut add: impl FnMut(Content<'_>, Rank, &mut dyn FnMut(String, bool)) -> bool,
    ) -> Vec<Complaint> {
        let file: Rc<str> = file.into();
        let mut complaints = Vec::new();
        let (text, has_mark) = strip_mark(text);
        if has_mark {
            complaints.push(Complaint::of_mark(SourceLine::new(&file, 1)));
        }
        for line in read_lines(text) {
            let source = SourceLine::new(&file, line.number);
            let mut complain = |why, fatal| {
                complaints.push(Complaint {
                    source: source.clone(),
                    why,
                    fatal,
                });
            };
            if add(line.content, self.0.len(), &mut complain) {
                self.0.push(source);
            }
        }
        complaints
    }

    /// Where the rule of this rank was written.
    fn get(&self, rank: Rank) -> Option<&SourceLine> {
        self.0.get(rank)
    }

    /// The number of rules.
    fn len(&self) -> usize {
        self.0.len()
    }

    /// What to say about patterns that compiled alone but not as a set.
    fn complain(&self, failed: Vec<(Rank, String)>) -> Vec<Complaint> {
        let complaint = |(rank, why)| {
            let source = self.get(rank)?.clone();
            Some(Complaint {
                source,
                why,
                fatal: true,
            })
        };
        failed.into_iter().filter_map(complaint).collect()
    }
}

/// Keeps the smaller rank: the rule that was written first.
fn keep_first(best: &mut Option<Rank>, found: Option<Rank>) {
    if let Some(rank) = found {
        *best = Some(best.map_or(rank, |old| old.min(rank)));
    }
}

/// Calls `ask` with the text in lower case (ASCII only, as the original folds).
///
/// An attribute has at most 512 octets, which fit on the stack: the look-up
/// allocates nothing. A longer text is right, too, only slower.
pub(in crate::policy) fn with_lower_case<R>(text: &[u8], ask: impl FnOnce(&[u8]) -> R) -> R {
    let mut buffer = [0; 512];
    match buffer.get_mut(..text.len()) {
        Some(lower) => {
            lower.copy_from_slice(text);
            lower.make_ascii_lowercase();
            ask(lower)
        }
        None => ask(&text.to_ascii_lowercase()),
    }
}

/// The parts of a text after each octet for which `is_separator` is true,
/// longest first.
fn suffixes(text: &[u8], is_separator: impl Fn(u8) -> bool) -> impl Iterator<Item = &[u8]> {
    let after = move |(at, &octet): (usize, &u8)| {
        if is_separator(octet) {
            text.get(at + 1..)
        } else {
            None
        }
    };
    text.iter().enumerate().filter_map(after)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaint_reads_as_file_line_why() {
        let source = SourceLine::new(&"/etc/postfix/w".into(), 7);
        let complaint = Complaint {
            source,
            why: "no".into(),
            fatal: false,
        };
        assert_eq!(complaint.to_string(), "/etc/postfix/w line 7: no");
    }

    #[test]
    fn lower_case_folds_ascii_alone_at_any_length() {
        assert_eq!(with_lower_case(b"Az\xc9", |l| l.to_vec()), b"az\xc9");
        let long = vec![b'A'; 513];
        assert_eq!(with_lower_case(&long, |l| l.to_vec()), vec![b'a'; 513]);
    }

    #[test]
    fn suffixes_start_after_each_separator() {
        let all: Vec<&[u8]> = suffixes(b"a..b.", |o| o == b'.').collect();
        assert_eq!(all, [&b".b."[..], b"b.", b""]);
    }
}
