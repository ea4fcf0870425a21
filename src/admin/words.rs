//! The command line of postgreyctl as typed, by the grammar of the server but
//! for its order: options may stand before and after the operands.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use getopts::{Fail, HasArg, Occur, Options};

use super::failure::Failure;
use super::options::{Command, CommandSpec, Id, OPTIONS, OptionSpec};
use crate::config::settings::Settings;
use crate::config::{self, Invocation};

/// The words of a command line.
#[derive(Debug, Default)]
pub struct Words {
    given: Vec<(Id, OsString)>,
    /// The words that are no options, without the command.
    pub operands: Vec<OsString>,
    /// The words after `--`, and where the records are.
    server_options: Vec<OsString>,
    /// There were words after `--`.
    has_server_options: bool,
    /// The directory of the database by these.
    server_dbdir: PathBuf,
}

/// What a command line asks for.
#[derive(Debug)]
pub enum Asked {
    /// `--help`.
    Help,
    /// `--version`.
    Version,
    /// A command.
    Run(Command, Words),
}

impl Words {
    /// Reads a command line without the program's name.
    pub fn read(args: &[OsString]) -> Result<Asked, Failure> {
        let (own, server) = match args.iter().position(|word| word == "--") {
            Some(at) => (&args[..at], &args[at + 1..]),
            None => (args, &[][..]),
        };
        let matches = parser()
            .parse(own.iter().map(|word| carry(word)))
            .map_err(|fail| Failure::usage(complaint(&fail)))?;
        let mut words = Words::default();
        for spec in OPTIONS {
            if !matches.opt_present(spec.name) {
                continue;
            }
            let value = carried(&matches.opt_strs(spec.name).pop().unwrap_or_default());
            if spec.value.is_some() && value.is_empty() && !may_be_empty(spec.id) {
                let message = format!("Option {} requires an argument", spec.name);
                return Err(Failure::usage(message));
            }
            words.given.push((spec.id, value));
        }
        if words.has(Id::Help) {
            return Ok(Asked::Help);
        }
        if words.has(Id::Version) {
            return Ok(Asked::Version);
        }
        words.operands = matches.free.iter().map(|word| carried(word)).collect();
        words.server_options = server.to_vec();
        words.has_server_options = !server.is_empty();
        if let Some(place) = words.value(Id::Store) {
            let mut option = OsString::from("--store=");
            option.push(place);
            words.server_options.push(option);
        }
        words.check().map(|command| Asked::Run(command, words))
    }

    /// Takes the command off the operands and checks what belongs to it.
    fn check(&mut self) -> Result<Command, Failure> {
        if self.operands.is_empty() {
            return Err(Failure::usage(
                "ERROR: a command must be specified; --help shows them",
            ));
        }
        let word = self.operands.remove(0);
        let word = word.to_string_lossy();
        let spec = CommandSpec::with_name(&word)
            .ok_or_else(|| Failure::usage(format!("Unknown command: {word}")))?;
        for (id, _) in &self.given {
            let Some(option) = spec_of(*id) else { continue };
            if !option.commands.is_empty() && !option.commands.contains(&spec.command) {
                let message = format!("Option {} is not one of {word}", option.name);
                return Err(Failure::usage(message));
            }
        }
        let (least, most) = spec.count;
        let takes_these = (least..=most).contains(&self.operands.len())
            && (spec.takes_server_options || !self.has_server_options);
        if !takes_these {
            return Err(Failure::usage(format!("Usage: {}", spec.usage())));
        }
        let server = settings_of(&[], &self.server_options)?;
        let default = Path::new(config::paths::DBDIR);
        if self.has(Id::DbDir) && server.dbdir != default && server.dbdir != self.dbdir() {
            return Err(Failure::usage("ERROR: --dbdir is given twice"));
        }
        self.server_dbdir = server.dbdir;
        Ok(spec.command)
    }

    /// True if the option was given.
    pub fn has(&self, id: Id) -> bool {
        self.value(id).is_some()
    }

    /// The value of an option.
    pub fn value(&self, id: Id) -> Option<&OsStr> {
        self.given
            .iter()
            .find(|(own, _)| *own == id)
            .map(|(_, value)| value.as_os_str())
    }

    /// The octets of an option's value.
    pub fn octets(&self, id: Id) -> Option<&[u8]> {
        self.value(id).map(OsStrExt::as_bytes)
    }

    /// The octets of an operand, empty if it was not given.
    pub fn operand(&self, index: usize) -> &[u8] {
        self.operands.get(index).map_or(&[], |word| word.as_bytes())
    }

    /// The directory of the database.
    pub fn dbdir(&self) -> PathBuf {
        let own = self.value(Id::DbDir).map(PathBuf::from);
        own.unwrap_or_else(|| self.server_dbdir.clone())
    }

    /// Options of the server that beat its own.
    pub fn server_options(&self) -> &[OsString] {
        &self.server_options
    }
}

/// The settings that these options make, of which the second ones beat the first.
pub fn settings_of(left: &[OsString], over: &[OsString]) -> Result<Settings, Failure> {
    // 255 is the server's, for addresses.
    let refused = |error: config::ConfigError| Failure::new(error.message, error.exit_code.min(2));
    match config::parse_over(left, over).map_err(refused)? {
        Invocation::PrintConfig(settings) => match &settings.ignored_words {
            Some(ignored) => Err(Failure::usage(format!("ERROR: {ignored}"))),
            None => Ok(*settings),
        },
        _ => Err(Failure::usage(
            "ERROR: after -- only options of the server's rules are understood",
        )),
    }
}

fn spec_of(id: Id) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|spec| spec.id == id)
}

/// The null sender is a sender.
fn may_be_empty(id: Id) -> bool {
    matches!(id, Id::Sender | Id::Recipient | Id::ClientName)
}

fn parser() -> Options {
    let mut parser = Options::new();
    for spec in OPTIONS {
        let takes = if spec.value.is_some() {
            HasArg::Yes
        } else {
            HasArg::No
        };
        let short = spec.short.map(String::from).unwrap_or_default();
        parser.opt(&short, spec.name, "", "", takes, Occur::Multi);
    }
    parser
}

/// What getopts found wrong, in the words of the server.
pub fn complaint(fail: &Fail) -> String {
    match fail {
        Fail::ArgumentMissing(name) => format!("Option {name} requires an argument"),
        Fail::UnexpectedArgument(name) => format!("Option {name} does not take an argument"),
        Fail::UnrecognizedOption(name)
        | Fail::OptionMissing(name)
        | Fail::OptionDuplicated(name) => format!("Unknown option: {name}"),
    }
}

/// getopts takes nothing but UTF-8, keys and paths are octets: they travel as
/// one character (U+0000 to U+00FF) per octet.
pub fn carry(word: &OsStr) -> String {
    word.as_bytes().iter().copied().map(char::from).collect()
}

/// The octets that travelled as characters.
pub fn carried(word: &str) -> OsString {
    OsString::from_vec(word.chars().filter_map(|c| u8::try_from(c).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Asked, Failure> {
        Words::read(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[track_caller]
    fn run(words: &[&str]) -> (Command, Words) {
        match read(words) {
            Ok(Asked::Run(command, words)) => (command, words),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_stand_anywhere_before_the_double_dash() {
        let (command, words) = run(&[
            "list",
            "--json",
            "clients",
            "--dbdir",
            "/x",
            "--",
            "--delay=7",
            "--targrey",
        ]);
        assert_eq!(command, Command::List);
        assert_eq!(words.operands, ["clients"]);
        assert_eq!(words.dbdir(), PathBuf::from("/x"));
        assert!(words.has(Id::Json) && !words.has(Id::Since));
        assert_eq!(words.server_options(), ["--delay=7", "--targrey"]);
        let (_, words) = run(&["list", "--", "--dbdir=/y"]);
        assert_eq!(words.dbdir(), PathBuf::from("/y"));
    }

    #[test]
    fn mistakes_are_told_in_the_words_of_the_server() {
        for (words, message) in [
            (&["--bogus"][..], "Unknown option: bogus"),
            (&["list", "--since"], "Option since requires an argument"),
            (&["list", "--since="], "Option since requires an argument"),
            (
                &["list", "--json=1"],
                "Option json does not take an argument",
            ),
            (&["list", "--escape"], "Option escape is not one of list"),
            (&["lists"], "Unknown command: lists"),
            (&[], "ERROR: a command must be specified; --help shows them"),
            (
                &["expire", "now"],
                "Usage: postgreyctl expire [-- OPTION OF postgrey ...]",
            ),
            (&["compact", "--", "-v"], "Usage: postgreyctl compact"),
            (
                &["list", "--", "--delay=abc"],
                "Value \"abc\" invalid for option delay (number expected)",
            ),
            (
                &["list", "--", "delay=7", "--privacy"],
                "ERROR: \"delay=7\" is no option: it is ignored, and so is what follows: --privacy",
            ),
            (
                &["list", "--dbdir=/x", "--", "--dbdir=/y"],
                "ERROR: --dbdir is given twice",
            ),
            (
                &["list", "--", "--version"],
                "ERROR: after -- only options of the server's rules are understood",
            ),
        ] {
            let failure = read(words).unwrap_err();
            assert_eq!((failure.message.as_str(), failure.exit_code), (message, 1));
        }
    }

    #[test]
    fn octets_survive() {
        let words = [
            OsString::from("list"),
            OsString::from_vec(b"--sender=\xff\xc3\xa9".to_vec()),
        ];
        let Ok(Asked::Run(_, words)) = Words::read(&words) else {
            panic!("refused")
        };
        assert_eq!(words.octets(Id::Sender), Some(&b"\xff\xc3\xa9"[..]));
    }

    #[test]
    fn the_table_names_every_option_once() {
        for (index, spec) in OPTIONS.iter().enumerate() {
            assert!(OPTIONS[..index].iter().all(|other| other.name != spec.name));
            assert!(super::super::options::help_text().contains(&format!("--{}", spec.name)));
        }
    }
}
