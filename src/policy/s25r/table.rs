//! A table of exceptions, and how a client is looked up in it.
//!
//! As Postfix does: the client's name first and, if no line is about it, the
//! client's address; the first line that matches decides. There is one
//! difference. Postfix asks a line with `!` for the address, too, which
//! matches none of the names it is made of, and so `!/(rules)/ OK` lets
//! everybody in. Here what has a `!` is asked for the name alone.

use std::rc::Rc;

use super::rules::judged_name;
use super::statement::{Expression, Pattern, Remarks, Statement, Word, parse};
use crate::policy::whitelist::{Complaint, SourceLine, strip_mark};

/// Addresses that have nothing in common: an expression that matches them all
/// matches any.
const ADDRESSES: [&[u8]; 4] = [b"10.1.2.3", b"192.168.77.250", b"203.0.113.9", b"8.34.5.66"];

/// A client as it is looked up.
#[derive(Clone, Copy)]
pub(super) struct Client<'a> {
    /// The name as it came, or `unknown`.
    pub name: &'a [u8],
    /// The same in lower case.
    pub lower: &'a [u8],
    /// The address as it came.
    pub address: &'a [u8],
}

/// The lines of a file.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    lines: Vec<Line>,
}

#[derive(Clone, Debug)]
enum Line {
    Entry {
        pattern: Pattern,
        word: Word,
        source: SourceLine,
    },
    /// Goes on at `end` if the condition does not hold; there is none if the
    /// expression could not be used.
    If {
        condition: Option<Expression>,
        end: usize,
    },
}

/// What a table says about a client.
#[derive(Clone, Copy, Default)]
pub(super) struct Answer<'a> {
    /// The line that decides; never DUNNO.
    pub decided: Option<(Word, &'a SourceLine)>,
    /// The line `!/.../ OK` that stands in for the rules and did not let the
    /// client in.
    pub kept_out: Option<&'a SourceLine>,
}

impl Table {
    /// Reads a file; a line that cannot be used is complained about and left
    /// out, with what stands between it and its `endif` if it is an `if`.
    pub fn parse(file: &str, text: &[u8]) -> (Table, Vec<Complaint>) {
        let mut reader = Reader {
            file: file.into(),
            lines: Vec::new(),
            open: Vec::new(),
            complaints: Vec::new(),
        };
        reader.read(text);
        let table = Table {
            lines: reader.lines,
        };
        (table, reader.complaints)
    }

    /// The number of entries.
    pub fn len(&self) -> usize {
        let entries = self
            .lines
            .iter()
            .filter(|l| matches!(l, Line::Entry { .. }));
        entries.count()
    }

    /// Looks the client up, by name and then by address.
    pub fn ask(&self, client: Client<'_>) -> Answer<'_> {
        let mut answer = Answer::default();
        let mut is_over = false;
        for (pattern, word, source) in self.entries(client, client.name) {
            let is_about = match pattern {
                Pattern::Domain(domain) => is_in_domain(client.lower, domain),
                Pattern::Expression(e) => e.regex.is_match(client.name) != e.is_negated,
            };
            let stands_in =
                word == Word::Ok && matches!(pattern, Pattern::Expression(e) if e.is_negated);
            if stands_in && (is_over || !is_about) {
                answer.kept_out.get_or_insert(source);
            } else if is_about && !is_over {
                // After DUNNO only to learn whether something stands in for
                // the rules.
                is_over = word == Word::Dunno;
                if !is_over {
                    answer.decided = Some((word, source));
                    return answer;
                }
            }
        }
        if is_over {
            return answer;
        }
        let is_about = |pattern: &Pattern| {
            matches!(pattern, Pattern::Expression(e)
                if !e.is_negated && e.regex.is_match(client.address))
        };
        let mut entries = self.entries(client, client.address);
        let found = entries.find(|(pattern, ..)| is_about(pattern));
        if let Some((_, word, source)) = found.filter(|(_, word, _)| *word != Word::Dunno) {
            answer.decided = Some((word, source));
        }
        answer
    }

    /// The entries whose conditions hold for `key`, the name or the address;
    /// those with `!` are always asked for the name.
    fn entries<'t, 'c>(
        &'t self,
        client: Client<'c>,
        key: &'c [u8],
    ) -> impl Iterator<Item = (&'t Pattern, Word, &'t SourceLine)> + use<'t, 'c> {
        let mut at = 0;
        std::iter::from_fn(move || {
            loop {
                let line = self.lines.get(at)?;
                at += 1;
                match line {
                    Line::Entry {
                        pattern,
                        word,
                        source,
                    } => return Some((pattern, *word, source)),
                    Line::If { condition, end } => {
                        let holds = condition.as_ref().is_some_and(|e| {
                            let key = if e.is_negated { client.name } else { key };
                            e.regex.is_match(key) != e.is_negated
                        });
                        if !holds {
                            at = *end;
                        }
                    }
                }
            }
        })
    }
}

fn is_in_domain(name: &[u8], domain: &[u8]) -> bool {
    // "ample.com" must not match "example.com".
    let head = name.strip_suffix(domain);
    head.is_some_and(|head| head.is_empty() || head.ends_with(b"."))
}

struct Reader {
    file: Rc<str>,
    lines: Vec<Line>,
    /// The places of the `if` that are open, each with its line.
    open: Vec<(usize, SourceLine)>,
    complaints: Vec<Complaint>,
}

impl Reader {
    /// Puts together what belongs together: a line that begins with a blank
    /// goes on with the one before, whatever comments stand between them.
    fn read(&mut self, text: &[u8]) {
        let (text, has_mark) = strip_mark(text);
        if has_mark {
            let source = SourceLine::new(&self.file, 1);
            self.complaints.push(Complaint::of_mark(source));
        }
        let mut logical: Option<(SourceLine, Vec<u8>)> = None;
        for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let trimmed = line.trim_ascii();
            if trimmed.is_empty() || trimmed.starts_with(b"#") {
                continue;
            }
            let source = SourceLine::new(&self.file, index + 1);
            let line = line.trim_ascii_end();
            match &mut logical {
                Some((first, whole)) if line.first().is_some_and(u8::is_ascii_whitespace) => {
                    whole.extend_from_slice(line);
                    if looks_like_a_line(trimmed) {
                        let why = format!(
                            "begins with a blank and so goes on with line {}: it is no line of \
                             its own",
                            first.line
                        );
                        self.doubt(&source, why);
                    }
                }
                _ => {
                    if let Some((source, whole)) = logical.replace((source, line.to_vec())) {
                        self.add(source, &whole);
                    }
                }
            }
        }
        if let Some((source, whole)) = logical {
            self.add(source, &whole);
        }
        while let Some((at, source)) = self.open.pop() {
            self.close(at);
            self.refuse(&source, "the endif of this if is missing".into());
        }
    }

    fn add(&mut self, source: SourceLine, line: &[u8]) {
        let mut remarks = Remarks::default();
        let statement = parse(line, &mut remarks);
        for doubt in remarks.doubts {
            self.doubt(&source, doubt);
        }
        if let Some(mistake) = remarks.mistake {
            self.refuse(&source, mistake);
        }
        match statement {
            None => {}
            Some(Statement::Entry(pattern, word)) => {
                if let Pattern::Expression(expression) = &pattern {
                    self.doubt_entry(expression, word, &source);
                }
                self.lines.push(Line::Entry {
                    pattern,
                    word,
                    source,
                });
            }
            Some(Statement::If(condition)) => {
                self.open.push((self.lines.len(), source));
                self.lines.push(Line::If { condition, end: 0 });
            }
            Some(Statement::EndIf) => match self.open.pop() {
                Some((at, _)) => self.close(at),
                None => self.refuse(&source, "endif without an if".into()),
            },
        }
    }

    fn close(&mut self, at: usize) {
        let here = self.lines.len();
        if let Some(Line::If { end, .. }) = self.lines.get_mut(at) {
            *end = here;
        }
    }

    fn doubt_entry(&mut self, expression: &Expression, word: Word, source: &SourceLine) {
        let regex = &expression.regex;
        if expression.is_negated && word == Word::Ok {
            let why = "takes the place of the rules of s25r(7): names that do not match pass, all \
                       other clients are suspicious; it is asked for names alone, never for \
                       addresses";
            self.doubt(source, why.into());
        } else if !expression.is_negated
            && word != Word::Dunno
            && !regex.is_match(judged_name(b""))
            && ADDRESSES.iter().all(|address| regex.is_match(address))
        {
            let why = "matches every IPv4 address, too, and so decides about all clients whose \
                       names no line is about, as in Postfix";
            self.doubt(source, why.into());
        }
    }

    fn doubt(&mut self, source: &SourceLine, why: String) {
        self.tell(source, why, false);
    }

    /// All mistakes are fatal: a client that a line was written for would be
    /// judged by the rules.
    fn refuse(&mut self, source: &SourceLine, why: String) {
        self.tell(source, why, true);
    }

    fn tell(&mut self, source: &SourceLine, why: String, fatal: bool) {
        self.complaints.push(Complaint {
            source: source.clone(),
            why,
            fatal,
        });
    }
}

/// True for what reads like a line of its own rather than like the rest of one.
fn looks_like_a_line(text: &[u8]) -> bool {
    match parse(text, &mut Remarks::default()) {
        Some(Statement::Entry(Pattern::Domain(domain), _)) => domain.contains(&b'.'),
        Some(Statement::Entry(Pattern::Expression(_), _)) => {
            text.starts_with(b"/") || text.starts_with(b"!")
        }
        Some(Statement::If(_) | Statement::EndIf) => true,
        None => false,
    }
}
