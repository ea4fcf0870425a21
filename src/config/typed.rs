//! Options as typed: the words of the command line cut into options and
//! values, by the grammar of the original, before anything is made of them.
//!
//! The grammar is that of Perl's Getopt::Long as the original sets it up:
//! every option with one or two dashes, a value after `=` with two dashes
//! only, no abbreviations, no bundles, an optional value may be the next word,
//! and the first word that is no option ends it all. The getopts crate knows
//! most of this but takes more than Perl in some cases and less in others, so
//! each option is first brought into the one form both understand,
//! `--name=value`, and what Perl refuses is refused here.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use getopts::{Fail, HasArg, Occur, Options};

use super::options::{Id, OPTIONS, OptionSpec, Value};

/// The options of a command line.
#[derive(Debug, Default)]
pub struct Typed {
    given: Vec<(Id, OsString)>,
    /// What does not fit the grammar, in the words of Getopt::Long, in the
    /// order of the command line. An administrator who mistyped two options
    /// learns of both.
    pub complaints: Vec<String>,
    /// The first word that is no option, and those after it.
    rest: Vec<OsString>,
}

impl Typed {
    /// Reads a command line without the program's name. Words after the
    /// first that is no option (or after `--`) are ignored, as the original
    /// does.
    pub fn read(args: &[OsString]) -> Typed {
        let parser = parser();
        let mut typed = Typed::default();
        let mut words = args.iter().map(|word| word.as_bytes()).peekable();
        let mut end = args.len();
        while let Some(word) = words.next() {
            let Some(mut option) = OptionWord::cut(word) else {
                end -= words.len() + 1;
                break;
            };
            if option.value.is_none() && option.wants_next(words.peek().copied()) {
                option.value = words.next();
                option.is_separate = true;
            }
            match option.parse(&parser) {
                Ok(given) => typed.given.push(given),
                Err(complaint) => typed.complaints.push(complaint),
            }
        }
        typed.rest = args[end..].to_vec();
        typed
    }

    /// What to say of words that are ignored, as by the original: a value that
    /// was not quoted, or an option without its dashes, takes the options after
    /// it along.
    pub fn ignored(&self) -> Option<String> {
        let (word, after) = self.rest.split_first()?;
        let word = word.to_string_lossy();
        let after: Vec<_> = after.iter().map(|word| word.to_string_lossy()).collect();
        match (&*word, &*after.join(" ")) {
            ("--", "") => None,
            ("--", after) => Some(format!("ignored after \"--\": {after}")),
            (word, "") => Some(format!("\"{word}\" is no option: it is ignored")),
            (word, after) => Some(format!(
                "\"{word}\" is no option: it is ignored, and so is what follows: {after}"
            )),
        }
    }

    /// These options, beaten by others: see [`super::parse_over`].
    pub fn overridden_by(mut self, over: Typed) -> Typed {
        let is_beaten = |id: Id| match id {
            Id::LookupByHost | Id::LookupByDomain => over.has(Id::LookupBySubnet),
            _ => over.has(id),
        };
        self.given.retain(|(id, _)| !is_beaten(*id));
        self.given.extend(over.given);
        self.complaints.extend(over.complaints);
        if !over.rest.is_empty() {
            self.rest = over.rest;
        }
        self
    }

    /// True if the option was given.
    pub fn has(&self, id: Id) -> bool {
        self.last(id).is_some()
    }

    /// The value that counts: the last one. Empty for a flag.
    pub fn last(&self, id: Id) -> Option<&OsString> {
        self.all(id).last()
    }

    /// All values, in the order given.
    pub fn all(&self, id: Id) -> impl Iterator<Item = &OsString> {
        self.given
            .iter()
            .filter(move |(own, _)| *own == id)
            .map(|(_, value)| value)
    }
}

/// One option of the command line.
struct OptionWord<'a> {
    name: &'a [u8],
    value: Option<&'a [u8]>,
    /// The value was a word of its own. Only then may it be empty.
    is_separate: bool,
    spec: Option<&'static OptionSpec>,
}

impl<'a> OptionWord<'a> {
    /// Cuts a word at its `=`; `None` if it is no option and so ends them.
    fn cut(word: &'a [u8]) -> Option<OptionWord<'a>> {
        if word == b"-" || word == b"--" {
            return None;
        }
        let (name, value) = match word.strip_prefix(b"--") {
            // A name has at least one character, be it a `=`.
            Some(rest) => match rest.iter().skip(1).position(|&byte| byte == b'=') {
                Some(at) => (&rest[..=at], Some(&rest[at + 2..])),
                None => (rest, None),
            },
            // After one dash `=` is like any other character.
            None => (word.strip_prefix(b"-")?, None),
        };
        let spec = std::str::from_utf8(name)
            .ok()
            .and_then(OptionSpec::with_name);
        Some(OptionWord {
            name,
            value,
            is_separate: false,
            spec,
        })
    }

    /// True if the next word is this option's value.
    fn wants_next(&self, next: Option<&[u8]>) -> bool {
        match (self.spec.map(|spec| spec.value), next) {
            (Some(Value::Required(_) | Value::Integer(_)), Some(_)) => true,
            (Some(Value::Optional(_)), Some(next)) => next == b"-" || !next.starts_with(b"-"),
            _ => false,
        }
    }

    /// Has getopts look at the option, and checks what getopts does not.
    fn parse(&self, parser: &Options) -> Result<(Id, OsString), String> {
        let name = String::from_utf8_lossy(self.name);
        let unknown = || format!("Unknown option: {name}");
        let missing = || format!("Option {name} requires an argument");
        let spec = self.spec.ok_or_else(unknown)?;
        let word = match self.value {
            Some(value) => format!("--{name}={}", carry(value)),
            None => format!("--{name}"),
        };
        let matches = parser.parse([word]).map_err(|fail| match fail {
            Fail::ArgumentMissing(_) => missing(),
            Fail::UnexpectedArgument(_) => format!("Option {name} does not take an argument"),
            _ => unknown(),
        })?;
        let value = carried(&matches.opt_str(&name).unwrap_or_default());
        match spec.value {
            Value::Required(_) | Value::Integer(_) if value.is_empty() && !self.is_separate => {
                Err(missing())
            }
            Value::Integer(_) if !is_integer(value.as_bytes()) => Err(format!(
                "Value \"{}\" invalid for option {name} (number expected)",
                value.to_string_lossy()
            )),
            _ => Ok((spec.id, value)),
        }
    }
}

/// The table of options for getopts. It knows one long name per option, so
/// each alias is an option of its own there.
fn parser() -> Options {
    let mut parser = Options::new();
    for spec in OPTIONS {
        let takes = match spec.value {
            Value::Flag => HasArg::No,
            Value::Required(_) | Value::Integer(_) => HasArg::Yes,
            Value::Optional(_) => HasArg::Maybe,
        };
        let short = spec.short.map(String::from).unwrap_or_default();
        parser.opt(&short, spec.name, "", "", takes, Occur::Multi);
        for alias in spec.aliases {
            parser.opt("", alias, "", "", takes, Occur::Multi);
        }
    }
    parser
}

/// getopts takes nothing but UTF-8, paths are bytes: they travel as one
/// character (U+0000 to U+00FF) per byte.
fn carry(value: &[u8]) -> String {
    value.iter().copied().map(char::from).collect()
}

fn carried(value: &str) -> OsString {
    OsString::from_vec(value.chars().filter_map(|c| u8::try_from(c).ok()).collect())
}

/// A sign, then digits and, as Perl allows, `_` between or around them.
fn is_integer(text: &[u8]) -> bool {
    let digits = text
        .strip_prefix(b"-")
        .or(text.strip_prefix(b"+"))
        .unwrap_or(text);
    digits.iter().any(u8::is_ascii_digit)
        && digits
            .iter()
            .all(|&byte| byte.is_ascii_digit() || byte == b'_')
}
