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
#[path = "../common/manual.rs"]
mod manual;
#[path = "../common/program.rs"]
mod program;
#[path = "../common/random.rs"]
mod random;

mod agree;
mod back;
mod care;
mod docs;
mod dump;
mod edit;
mod explain;
mod explained;
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

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use postgrey::policy::record::Database;
use postgrey::store::Store;
use postgrey::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use program::Ran;

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
    command.args(words).env("TZ", "UTC");
    Ran::of(command, input)
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
