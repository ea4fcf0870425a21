//! The recorded dialogues of the original through the pure policy, with the
//! store in memory and with LMDB: the same replies, records and log lines.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/dialogue.rs"]
mod dialogue;
#[path = "common/machine.rs"]
mod machine;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicU64;

use dialogue::Dialogue;
use postgrey::config::settings::Settings;
use postgrey::config::{self, Invocation, whitelists};
use postgrey::policy::apply::Reading;
use postgrey::policy::command::Command;
use postgrey::policy::decide::{Decision, Examined, Policy, Surroundings};
use postgrey::policy::held::Held;
use postgrey::policy::instances::Instances;
use postgrey::policy::record::Database;
use postgrey::policy::request::{Attribute, Event, RequestReader};
use postgrey::policy::triplet::Keys;
use postgrey::store::Store;
use postgrey::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use postgrey::store::memory::MemoryStore;

fn settings_of(dialogue: &Dialogue, folder: &std::path::Path) -> Settings {
    let mut args: Vec<OsString> = dialogue.options.iter().map(OsString::from).collect();
    args.push(dialogue.compat_option().into());
    args.push("--unix=/nowhere".into());
    for (option, name) in [
        ("--whitelist-clients", "whitelist_clients"),
        ("--whitelist-recipients", "whitelist_recipients"),
    ] {
        let path = folder.join(name);
        fs::write(&path, dialogue.whitelist(name)).unwrap();
        let mut arg = OsString::from(option);
        arg.push("=");
        arg.push(path);
        args.push(arg);
    }
    match config::parse(&args) {
        Ok(Invocation::Serve(settings)) => *settings,
        other => panic!("{}: {other:?}", dialogue.name),
    }
}

/// One request after another, as a server with one connection would.
fn play(dialogue: &Dialogue, store: &mut dyn Store) {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings_of(dialogue, folder.path());
    let policy = Policy {
        rules: settings.rules.clone(),
        texts: settings.texts.clone(),
        whitelists: whitelists::load(&settings).whitelists,
        is_dry_run: false,
    };
    let cells = std::array::from_fn(|_| AtomicU64::new(0));
    let held_cells: Vec<AtomicU64> = (0..Held::CELLS).map(|_| AtomicU64::new(0)).collect();
    let held_cells: Box<[AtomicU64; Held::CELLS]> = held_cells.try_into().unwrap();
    let surroundings = Surroundings {
        instances: Instances::new(&cells),
        version: "0",
        date: &|_| {},
    };
    let mut reader = RequestReader::default();
    let mut keys = Keys::default();
    let mut log = Vec::new();
    for (index, request) in dialogue.requests.iter().enumerate() {
        let mut input = &request[..];
        let mut reply = Vec::new();
        while let Some(event) = reader.next_event(&mut input) {
            match event {
                Event::Garbage(line) => {
                    log.push([b"ignoring garbage: <", &line[..], b">"].concat())
                }
                Event::Ping | Event::Unrecognized => {
                    let kind = reader.request().text(Attribute::Request);
                    log.push([b"unrecognized request type: '", kind, b"'"].concat());
                }
                Event::TooLarge(limit) => panic!("{limit}"),
                Event::Request => {
                    let decision = match policy.examine(reader.request(), 0.0, &mut keys) {
                        Examined::Decided(decision) => decision,
                        Examined::NeedsStore(command) => ask(&policy, store, &command),
                    };
                    let held = Held::new(&held_cells);
                    let decision = policy.settle(reader.request(), decision, held, 0.0);
                    policy.answer(
                        reader.request(),
                        &decision,
                        &surroundings,
                        &mut reply,
                        &mut Vec::new(),
                        &mut |_, line| {
                            log.push(line.to_vec());
                        },
                    );
                }
            }
        }
        let expected = dialogue.replies[index].clone().unwrap_or_default();
        assert_eq!(
            String::from_utf8_lossy(&reply),
            String::from_utf8_lossy(&expected),
            "{} request {index}: {}",
            dialogue.name,
            String::from_utf8_lossy(request)
        );
    }
    assert_same_log(dialogue, &log);
    for (name, database) in [
        ("postgrey", Database::Greylist),
        ("postgrey_clients", Database::Clients),
        ("tarpit_clients", Database::Tarpit),
    ] {
        let expected = dialogue.records(name).unwrap_or_default();
        assert_eq!(
            records(dialogue, store, name, database),
            expected,
            "{} {name}",
            dialogue.name
        );
    }
}

fn ask(policy: &Policy, store: &mut dyn Store, command: &Command) -> Decision {
    // What the client is told does not wait for a renewal.
    let told = match store.try_read(&policy.rules, command).unwrap() {
        Reading::Decided(outcome) => return Decision::Stored(outcome),
        Reading::RenewalDue(outcome) => Some(outcome),
        Reading::NeedsWrite => None,
    };
    let mut outcomes = Vec::new();
    store
        .apply_batch(&policy.rules, &[*command], &mut outcomes)
        .unwrap();
    Decision::Stored(told.or(outcomes[0]).unwrap())
}

fn assert_same_log(dialogue: &Dialogue, log: &[Vec<u8>]) {
    for (index, (line, expected)) in log.iter().zip(&dialogue.log).enumerate() {
        assert_eq!(
            String::from_utf8_lossy(line),
            String::from_utf8_lossy(expected),
            "{} log line {index}",
            dialogue.name
        );
    }
    assert_eq!(log.len(), dialogue.log.len(), "{} log lines", dialogue.name);
}

fn records(
    dialogue: &Dialogue,
    store: &mut dyn Store,
    name: &str,
    database: Database,
) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut records = BTreeMap::new();
    store
        .scan(database, b"", None, &mut |entry| {
            let value = dialogue.comparable(name, &dialogue::escape(entry.value));
            records.insert(dialogue::escape(entry.key), value);
            ControlFlow::Continue(())
        })
        .unwrap();
    records
}

#[test]
fn recorded_dialogues_are_answered_with_the_store_in_memory() {
    let dialogues = dialogue::without_clock();
    assert_eq!(dialogues.len(), 54);
    for dialogue in &dialogues {
        play(dialogue, &mut MemoryStore::default());
    }
    machine::tell(&format!("replayed: {} dialogues", dialogues.len()));
}

#[test]
fn recorded_dialogues_are_answered_with_lmdb() {
    let dialogues = dialogue::without_clock();
    for dialogue in &dialogues {
        let folder = tempfile::tempdir().unwrap();
        let options = LmdbOptions {
            dir: folder.path().to_owned(),
            map_size: 1 << 24,
            purpose: Purpose::WriteUnflushed,
            patience: std::time::Duration::ZERO,
        };
        play(dialogue, &mut LmdbStore::new(options));
    }
    machine::tell(&format!("replayed: {} dialogues", dialogues.len()));
}
