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
#[path = "../common/random.rs"]
mod random;
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
mod million;
mod numbers;
mod postfix;
mod traffic;

use common_server as machine;

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

/// What a run of the program gave.
#[derive(Debug)]
struct Ran {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// The standard output of a run that went well.
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!((self.status, self.stderr.as_str()), (0, ""), "{self:?}");
        self.stdout
    }

    /// The standard error of a run that failed with this status.
    #[track_caller]
    fn failed(self, status: i32) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.stderr
    }
}

fn command(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postgreyreport"));
    command.args(words).env("TZ", "UTC");
    command
}

fn report(words: &[&str], input: &[u8]) -> Ran {
    let mut child = command(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A program that refuses its words does not read its input.
            let _ = stdin.write_all(input);
        });
        child.wait_with_output().expect("the program ends")
    });
    Ran {
        status: output.status.code().expect("it exits"),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The summary of this input, as JSON.
#[track_caller]
fn summary(words: &[&str], input: &[u8]) -> Value {
    let words = [&["--summary", "--json"][..], words].concat();
    serde_json::from_str(&report(&words, input).ok()).expect("JSON")
}
