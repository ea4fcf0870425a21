//! The command line of postgreyreport as typed. Options may stand before and after the
//! names of logs.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use getopts::{HasArg, Occur, Options};

use super::options::{Id, OPTIONS};
use crate::admin::failure::Failure;
use crate::admin::words::{carried, carry, complaint};

/// The words of a command line.
#[derive(Debug, Default)]
pub struct Words {
    given: Vec<(Id, OsString)>,
    /// The logs; none: standard input.
    pub logs: Vec<PathBuf>,
}

impl Words {
    /// Reads a command line without the program's name.
    pub fn read(args: &[OsString]) -> Result<Words, Failure> {
        let matches = parser()
            .parse(args.iter().map(|word| carry(word)))
            .map_err(|fail| Failure::usage(complaint(&fail)))?;
        let mut given = Vec::new();
        for spec in OPTIONS {
            let names = [Some(spec.name), spec.alias];
            for name in names.into_iter().flatten() {
                if spec.value.is_none() {
                    let places = matches.opt_positions(name).into_iter();
                    given.extend(places.map(|place| (place, spec.id, OsString::new())));
                    continue;
                }
                for (place, value) in matches.opt_strs_pos(name) {
                    if value.is_empty() {
                        let message = format!("Option {name} requires an argument");
                        return Err(Failure::usage(message));
                    }
                    given.push((place, spec.id, carried(&value)));
                }
            }
        }
        given.sort_by_key(|(place, ..)| *place);
        let mut words = Words {
            given: given
                .into_iter()
                .map(|(_, id, value)| (id, value))
                .collect(),
            ..Words::default()
        };
        words.logs = matches
            .free
            .iter()
            .map(|word| carried(word).into())
            .collect();
        Ok(words)
    }

    /// Refuses what does not go together.
    pub fn check(&self) -> Result<(), Failure> {
        for id in [Id::CheckSender, Id::SkipDnsbl] {
            if self.has(id) {
                let name = name_of(id);
                return Err(Failure::usage(format!(
                    "ERROR: --{name} is not done: this program asks no name server"
                )));
            }
        }
        if self.has(Id::Follow) {
            let modes = [Id::By, Id::Summary, Id::Html];
            let mut others = ORIGINAL.iter().chain(FORMS).chain(&modes);
            return match others.find(|id| self.has(**id)) {
                None => Ok(()),
                Some(id) => Err(Failure::usage(format!(
                    "ERROR: --{} and --follow exclude each other",
                    name_of(*id)
                ))),
            };
        }
        if self.has(Id::Json) && self.has(Id::Csv) {
            let message = "ERROR: --json and --csv exclude each other";
            return Err(Failure::usage(message));
        }
        let (is_summary, is_page) = (self.has(Id::Summary), self.has(Id::Html));
        let refused = |ids: &[Id]| ids.iter().find(|id| self.has(**id)).map(|id| name_of(*id));
        let message = if let Some(name) = refused(FORMS).filter(|_| !is_summary) {
            format!("ERROR: --{name} needs --summary")
        } else if let Some(name) = refused(&[Id::By]).filter(|_| !is_summary && !is_page) {
            format!("ERROR: --{name} needs --summary or --html")
        } else if let Some(name) = refused(ORIGINAL).filter(|_| is_summary || is_page) {
            format!("ERROR: --{name} and --summary or --html exclude each other")
        } else {
            return Ok(());
        };
        Err(Failure::usage(message))
    }

    /// True if the option was given.
    pub fn has(&self, id: Id) -> bool {
        self.value(id).is_some()
    }

    /// The value of an option; the last one counts.
    pub fn value(&self, id: Id) -> Option<&OsStr> {
        self.all(id).last()
    }

    /// True if the first option was given after the second one.
    pub fn has_after(&self, first: Id, second: Id) -> bool {
        let last = self.given.iter().rev();
        let last = last
            .map(|(id, _)| *id)
            .find(|id| [first, second].contains(id));
        last == Some(first)
    }

    /// All values of an option that may be repeated.
    pub fn all(&self, id: Id) -> impl Iterator<Item = &OsStr> {
        let own = self.given.iter().filter(move |(own, _)| *own == id);
        own.map(|(_, value)| value.as_os_str())
    }
}

/// What belongs to the original's report alone.
const ORIGINAL: &[Id] = &[
    Id::Delay,
    Id::User,
    Id::ShowTries,
    Id::ShowTime,
    Id::SkipClients,
    Id::MatchClients,
    Id::SkipPool,
    Id::SeparateBySubnet,
    Id::SeparateByIp,
    Id::SingleLine,
    Id::NoSingleLine,
    Id::Tab,
];

/// Forms of the summary.
const FORMS: &[Id] = &[Id::Json, Id::Csv];

fn name_of(id: Id) -> &'static str {
    let own = OPTIONS.iter().find(|spec| spec.id == id);
    own.map_or("", |spec| spec.name)
}

fn parser() -> Options {
    let mut parser = Options::new();
    // One dash will do, as in the original.
    parser.long_only(true);
    for spec in OPTIONS {
        let takes = match spec.value {
            Some(_) => HasArg::Yes,
            None => HasArg::No,
        };
        let short = spec.short.map(String::from).unwrap_or_default();
        parser.opt(&short, spec.name, "", "", takes, Occur::Multi);
        if let Some(alias) = spec.alias {
            parser.opt("", alias, "", "", takes, Occur::Multi);
        }
    }
    parser
}
