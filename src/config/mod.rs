//! The command line, in two steps: options as typed (`typed`), then settings
//! as meant (`builder`), so that the grammar, which is Perl's, and the
//! meaning of each option stay apart. One table ([`options`]) feeds both, the
//! help text and the printed configuration (`print`).
//!
//! Nothing here but [`whitelists`] and [`saved`] looks at the system,
//! except for its name.

mod builder;
mod error;
pub mod options;
pub mod paths;
mod print;
pub mod redis_address;
pub mod saved;
pub mod settings;
mod show;
mod typed;
pub mod values;
pub mod whitelists;

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

pub use error::ConfigError;
pub use options::OptionSpec;
pub use print::help_text;

use builder::Built;
use options::Id;
use settings::Settings;
use typed::Typed;

/// The version, as `--version` and `%v` in the header show it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum Invocation {
    /// Serve.
    Serve(Box<Settings>),
    /// `--help`: print [`help_text`].
    Help,
    /// `--version`: print `postgrey` and [`VERSION`].
    Version,
    /// `--man`: show the manual page.
    Man,
    /// `--check`: say everything that is wrong.
    Check {
        /// The settings, with defaults where an option is wrong.
        settings: Box<Settings>,
        /// What is wrong with the options, one message each.
        problems: Vec<String>,
        /// Which values do not mean what they seem to.
        notes: Vec<String>,
    },
    /// `--print-config`: print [`print_config`] of these.
    PrintConfig(Box<Settings>),
}

/// Reads the command line, without the program's name.
///
/// # Errors
///
/// Everything that is wrong with it; with `--check` that is no error but the
/// answer.
pub fn parse(args: &[OsString]) -> Result<Invocation, ConfigError> {
    interpret(&Typed::read(args))
}

/// Reads the options that a server has left ([`saved`]), and others that beat
/// them: one that may be repeated takes the place of all of its kind. What they
/// ask for is [`Invocation::PrintConfig`], if it is nothing else.
///
/// # Errors
///
/// Everything that is wrong with them.
pub fn parse_over(saved: &[OsString], over: &[OsString]) -> Result<Invocation, ConfigError> {
    let mut words = vec![OsString::from("--print-config")];
    words.extend_from_slice(saved);
    interpret(&Typed::read(&words).overridden_by(Typed::read(over)))
}

fn interpret(typed: &Typed) -> Result<Invocation, ConfigError> {
    let is_check = typed.has(Id::Check);
    if !is_check && !typed.complaints.is_empty() {
        return Err(ConfigError {
            message: typed.complaints.join("\n"),
            exit_code: 1,
        });
    }
    for (id, invocation) in [
        (Id::Help, Invocation::Help),
        (Id::Man, Invocation::Man),
        (Id::Version, Invocation::Version),
    ] {
        if typed.has(id) {
            return Ok(invocation);
        }
    }
    let Built {
        settings,
        wrong,
        notes,
    } = builder::settings_of(typed);
    let settings = Box::new(settings);
    let messages = wrong.iter().map(|error| error.message.clone());
    if is_check {
        let complaints = typed.complaints.iter().cloned();
        let ignored = settings.ignored_words.clone();
        let problems = complaints.chain(ignored).chain(messages).collect();
        return Ok(Invocation::Check {
            settings,
            problems,
            notes,
        });
    }
    if let Some(first) = wrong.first() {
        let ignored = settings.ignored_words.clone();
        let message = messages.chain(ignored).collect::<Vec<_>>().join("\n");
        return Err(ConfigError {
            message,
            exit_code: first.exit_code,
        });
    }
    if typed.has(Id::PrintConfig) {
        return Ok(Invocation::PrintConfig(settings));
    }
    Ok(Invocation::Serve(settings))
}

/// The options that differ from the defaults, one a line, each line one word
/// for a command line, which read again gives equal settings. Bytes, because
/// paths are.
pub fn print_config(settings: &Settings) -> Vec<u8> {
    let mut lines = Vec::new();
    for word in print::words(settings) {
        lines.extend_from_slice(word.as_bytes());
        lines.push(b'\n');
    }
    lines
}
