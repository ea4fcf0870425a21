//! Runs postgreyctl, and looks at all records.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};

use postgrey::policy::record::Database;
use postgrey::store::Store;

use crate::store;

/// What a run of postgreyctl gave.
#[derive(Debug)]
pub struct Ran {
    /// Its status.
    pub status: i32,
    /// Its output.
    pub said: String,
    /// What it complained of.
    pub complained: String,
}

impl Ran {
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!((self.status, &*self.complained), (0, ""), "{}", self.said);
        self.said
    }

    #[track_caller]
    pub fn failed(self, status: i32) -> String {
        assert_eq!(self.status, status, "{self:?}");
        self.complained
    }
}

pub fn ctl(dbdir: &Path, words: &[&str]) -> Ran {
    ctl_with_input(dbdir, words, b"")
}

pub fn ctl_with_input(dbdir: &Path, words: &[&str], input: &[u8]) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_postgreyctl"))
        .arg("--dbdir")
        .arg(dbdir)
        .args(words)
        .env("TZ", "UTC")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // It may refuse its input.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    });
    Ran {
        status: output.status.code().unwrap(),
        said: String::from_utf8(output.stdout).unwrap(),
        complained: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Records by database and key.
pub type Everything = BTreeMap<(&'static str, Vec<u8>), Vec<u8>>;

/// All records at a place, by database and key.
pub fn all_at(url: &str) -> Everything {
    let mut records = BTreeMap::new();
    let mut store = store(url, "postgrey");
    for database in Database::ALL {
        let at_end = store.scan(database, b"", None, &mut |entry| {
            records.insert((database.name(), entry.key.to_vec()), entry.value.to_vec());
            ControlFlow::Continue(())
        });
        assert!(at_end.unwrap());
    }
    records
}

/// The same of files.
pub fn all_in(dbdir: &Path) -> Everything {
    let of = |database: Database| {
        crate::server::records(dbdir, database)
            .into_iter()
            .map(move |(key, value)| ((database.name(), key), value))
    };
    Database::ALL.into_iter().flat_map(of).collect()
}
