//! postgreyctl: the built program on environments made through the library.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop"
)]

#[path = "../common/original.rs"]
mod common_original;
#[path = "../common/server.rs"]
mod common_server;
#[path = "../common/dialogue.rs"]
#[allow(dead_code)]
mod dialogue;

#[path = "../common/answer.rs"]
mod answer;
#[path = "../common/random.rs"]
mod random;

mod agree;
mod back;
mod care;
mod docs;
mod dump;
mod edit;
mod explain;
mod import;
mod list;
mod lists;
mod live;
mod older;
mod options;
mod original;
mod ping;
mod refused;
mod restore;
mod runbooks;
mod server;

use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};

use postgrey::policy::record::Database;
use postgrey::store::Store;
use postgrey::store::lmdb::{LmdbOptions, LmdbStore, Purpose};

/// What a run of the program gave.
#[derive(Debug)]
struct Ran {
    status: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Ran {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// The standard output of a run that went well.
    #[track_caller]
    fn ok(self) -> String {
        assert_eq!(self.status, 0, "{self:?}");
        self.text()
    }

    /// The standard error of a run that failed with this status.
    #[track_caller]
    fn failed(self, status: i32) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.stderr
    }
}

fn ctl(dir: &Path, words: &[&str]) -> Ran {
    ctl_with_input(dir, words, b"")
}

fn ctl_with_input(dir: &Path, words: &[&str], input: &[u8]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postgreyctl"));
    command.arg("--dbdir").arg(dir);
    if !dir.join("postgrey.options").exists() {
        // No server was there; that the defaults are taken need not be said.
        command.arg("--defaults");
    }
    let mut child = command
        .args(words)
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || {
            // A program that refuses its input may not read all of it.
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

fn store(dir: &Path) -> LmdbStore {
    LmdbStore::new(LmdbOptions {
        dir: dir.to_owned(),
        map_size: 1 << 24,
        purpose: Purpose::WriteFlushed,
        patience: std::time::Duration::from_secs(5),
    })
}

/// Makes an environment with these records.
fn fill(dir: &Path, records: &[(Database, &[u8], &[u8])]) {
    let edit = |records_of: &mut dyn postgrey::policy::apply::Records<Error = postgrey::store::StoreError>| {
        for (database, key, value) in records {
            records_of.put(*database, key, value)?;
        }
        Ok(())
    };
    let mut edit = edit;
    store(dir).edit(&[], &mut edit).expect("an environment");
}

fn records(dir: &Path, database: Database) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = Vec::new();
    store(dir)
        .scan(database, b"", None, &mut |entry| {
            all.push((entry.key.to_vec(), entry.value.to_vec()));
            ControlFlow::Continue(())
        })
        .expect("an environment");
    all
}

fn keys_of(dir: &Path, database: Database) -> Vec<Vec<u8>> {
    records(dir, database)
        .into_iter()
        .map(|(key, _)| key)
        .collect()
}
