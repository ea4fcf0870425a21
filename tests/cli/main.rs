//! The command line: its grammar, the meaning of each option, the program's
//! exit statuses and streams, and the printed configuration.
#![allow(clippy::expect_used, reason = "a test that cannot go on should stop")]

mod doubts;
mod grammar;
#[allow(clippy::unwrap_used)]
#[path = "../common/machine.rs"]
mod machine;
mod print_config;
mod program;
mod values;

use std::ffi::OsString;

use postgrey::config::settings::{Listen, Settings};
use postgrey::config::{Invocation, parse};
use postgrey::policy::rules::Rules;

fn parse_words(words: &[&str]) -> Result<Invocation, (String, i32)> {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    parse(&words).map_err(|error| (error.message, error.exit_code))
}

/// The settings of a command line that is right but for its missing socket.
fn settings(words: &[&str]) -> Settings {
    let mut all = vec!["--print-config"];
    all.extend(words);
    match parse_words(&all) {
        Ok(Invocation::PrintConfig(settings)) => *settings,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn rules(words: &[&str]) -> Rules {
    settings(words).rules
}

#[track_caller]
fn refused(words: &[&str], message: &str, exit_code: i32) {
    assert_eq!(
        parse_words(words),
        Err((message.to_owned(), exit_code)),
        "{words:?}"
    );
}

fn inet(host: Option<&str>, port: u16) -> Vec<Listen> {
    vec![Listen::Inet {
        host: host.map(Into::into),
        port,
    }]
}

fn unix(path: &str) -> Vec<Listen> {
    vec![Listen::Unix(path.into())]
}
