//! What a run of one of the programs gave.
#![allow(dead_code)] // each test binary uses its part

use std::io::Write;
use std::process::{Command, Stdio};

/// Status and output of a run.
#[derive(Debug)]
pub struct Ran {
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    /// Runs it on this input to its end.
    pub fn of(mut command: Command, input: &[u8]) -> Ran {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        let output = std::thread::scope(|scope| {
            scope.spawn(move || {
                // A program that refuses its words may not read all of it.
                let _ = stdin.write_all(input);
            });
            child.wait_with_output().expect("the program ends")
        });
        Ran {
            status: output.status.code().expect("it exits"),
            stdout: output.stdout,
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The standard output of a run that went well.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        self.text()
    }

    /// The same of a run that had nothing to say besides.
    #[track_caller]
    pub fn quiet(self) -> String {
        assert_eq!(self.stderr, "");
        self.ok()
    }

    /// The standard error of a run that failed with this status.
    #[track_caller]
    pub fn failed(self, status: i32) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.stderr
    }
}
