//! postgreyreport: the built program on logs made here, by real servers, and by a real
//! Postfix.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop"
)]

#[path = "../common/server.rs"]
mod common_server;
#[path = "../postfix/instance.rs"]
mod instance;
#[path = "../common/manual.rs"]
mod manual;
#[path = "../common/program.rs"]
mod program;
#[path = "../common/random.rs"]
mod random;
#[cfg(feature = "redis")]
#[path = "../common/redis.rs"]
mod redis_server;
#[path = "../postfix/smtp.rs"]
mod smtp;

mod consumers;
mod count;
mod docs;
mod fatal;
mod follow;
mod formats;
mod hostile;
mod html;
mod mails;
mod million;
mod numbers;
mod order;
mod postfix;
mod rules;
mod traffic;

use common_server as machine;

use std::process::Command;

use program::Ran;
use serde_json::Value;

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postgreyreport"));
    command.args(words).env("TZ", "UTC");
    command
}

fn report(words: &[&str], input: &[u8]) -> Ran {
    Ran::of(command(words), input)
}

/// The summary of this input, as JSON.
#[track_caller]
fn summary(words: &[&str], input: &[u8]) -> Value {
    let words = [&["--summary", "--json"][..], words].concat();
    serde_json::from_str(&report(&words, input).quiet()).expect("JSON")
}
