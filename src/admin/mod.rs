//! postgreyctl: see, explain, change and move the database while the server
//! runs.
//!
//! The same store and the same policy as the server's; one file a command. The
//! order is: words, then files of the caller's, then the identity of the
//! directory's owner, then the database.

mod copies;
mod dump;
mod edit;
pub(crate) mod environment;
pub(crate) mod escape;
mod expire;
pub mod explain;
mod export;
pub(crate) mod failure;
mod glob;
pub mod import;
mod keys;
mod list;
pub(crate) mod opened;
pub mod options;
pub(crate) mod output;
mod ping;
pub(crate) mod progress;
mod ranking;
pub(crate) mod records;
mod restore;
mod server_options;
pub(crate) mod state;
mod stats;
pub(crate) mod times;
mod verify;
pub(crate) mod words;

use std::ffi::OsString;
use std::io::{self, Write};

use failure::Failure;
use options::Command;
use output::Output;
use words::{Asked, Words};

use crate::sys::process::lower_priority;

/// Does what the command line asks for; returns the exit status.
pub fn run(args: &[OsString]) -> i32 {
    match Words::read(args).and_then(|asked| answer(&asked)) {
        Ok(()) => 0,
        Err(failure) if is_ping(args) => ping::report(&failure),
        Err(failure) => failure.report(),
    }
}

/// True if the command is `ping`, however it is misspelt otherwise.
fn is_ping(args: &[OsString]) -> bool {
    let mut words = args.iter();
    while let Some(word) = words.next() {
        match word.as_encoded_bytes() {
            b"--dbdir" => drop(words.next()),
            word if word.starts_with(b"-") => {}
            word => return word == b"ping",
        }
    }
    false
}

/// Writes a line to standard error, and does without if that is closed.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn answer(asked: &Asked) -> Result<(), Failure> {
    let (command, words) = match asked {
        Asked::Help => return print(&options::help_text()),
        Asked::Version => return print(&format!("postgreyctl {}\n", crate::config::VERSION)),
        Asked::Run(command, words) => (*command, words),
    };
    if is_reading(command) {
        lower_priority();
    }
    match command {
        Command::List => list::run(words),
        Command::Explain => explain::run(words),
        Command::Add => edit::add(words),
        Command::Delete => edit::delete(words),
        Command::Forget => edit::forget(words),
        Command::Pass => edit::pass(words),
        Command::Expire => expire::run(words),
        Command::Compact => copies::compact(words),
        Command::Backup => copies::backup(words),
        Command::Verify => verify::run(words),
        Command::Stats => stats::run(words),
        Command::Dump => dump::run(words),
        Command::Config => server_options::run(words),
        Command::Ping => ping::run(words),
        Command::Restore => restore::run(words),
        Command::Export => export::run(words),
        Command::Import => import::run(words),
    }
}

/// True for commands that may read the whole database and hold no lock the
/// server could wait for.
fn is_reading(command: Command) -> bool {
    matches!(
        command,
        Command::List
            | Command::Export
            | Command::Backup
            | Command::Verify
            | Command::Stats
            | Command::Dump
    )
}

fn print(text: &str) -> Result<(), Failure> {
    let mut output = Output::new();
    output.write(text.as_bytes())?;
    output.finish()
}
