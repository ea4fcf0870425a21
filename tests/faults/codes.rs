//! What LMDB itself says is wrong: a full map that cannot grow, no slot for a
//! reader.
//!
//! Each costs DUNNO and a line, kills no process, and ends with its cause.

use std::fs;
use std::time::{Duration, Instant};

use lmdb::{Environment, EnvironmentFlags, Transaction};

use crate::server::{Client, PATIENCE, Server, spawn, test_dir};

/// Asks about a new triplet, with a long key.
fn ask(client: &mut Client, name: &str) -> String {
    let sender = format!("{name}{}@s.example", "x".repeat(300));
    client.ask(&[("sender", &sender)])
}

/// Asks until an answer begins so; others must be the other one of the two
/// that a server gives a new triplet.
fn ask_until(client: &mut Client, name: &str, wanted: &str) -> Duration {
    let start = Instant::now();
    for count in 0.. {
        let answer = ask(client, &format!("{name}{count}"));
        if answer.starts_with(wanted) {
            break;
        }
        assert!(answer == "DUNNO" || answer.starts_with("DEFER_IF_PERMIT"));
        assert!(start.elapsed() < PATIENCE, "{name}: no {wanted}");
        if answer == "DUNNO" {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    start.elapsed()
}

/// One line tells it, and no process died of it.
fn assert_told_once(server: &Server, reasons: &[&str]) {
    let log = server.log_text();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("mdb_")).collect();
    println!("check: log: {lines:?}");
    assert!(!log.contains("ended with"), "{log}");
    assert!(
        lines
            .iter()
            .any(|line| reasons.iter().any(|reason| line.contains(reason))),
        "{log}"
    );
    let mut different = lines.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), lines.len(), "{log}");
}

#[test]
fn a_map_that_cannot_grow_costs_no_mail_until_it_can() {
    let folder = test_dir();
    let Some(mut command) = crate::preloaded(folder.path()) else {
        return;
    };
    let faults = folder.path().join("faults");
    command.env("POSTGREY_FAULTS", &faults);
    let options = ["--quiet", "--db-size=1M", "--sync=none"];
    let server = Server::start_by(command, folder.path(), &options);
    let mut client = server.connect();
    assert!(ask(&mut client, "first").starts_with("DEFER_IF_PERMIT"));
    fs::write(&faults, format!("map {}\n", libc::ENOMEM)).unwrap();
    ask_until(&mut client, "full", "DUNNO");
    for count in 0..5 {
        assert_eq!(ask(&mut client, &format!("still{count}")), "DUNNO");
    }
    fs::remove_file(&faults).unwrap();
    let time = ask_until(&mut client, "room", "DEFER_IF_PERMIT");
    println!("check: a map that cannot grow: DUNNO, back in {time:.1?}");
    assert_told_once(&server, &["mdb_env_set_mapsize: Cannot allocate memory"]);
    // With room, many more.
    for count in 0..300 {
        let answer = ask(&mut client, &format!("more{count}"));
        assert!(answer.starts_with("DEFER_IF_PERMIT"), "{answer}");
    }
}

#[test]
fn readers_that_hold_all_slots_cost_no_mail() {
    let folder = test_dir();
    let server = Server::start(folder.path(), &["--quiet"]);
    let mut client = server.connect();
    assert!(ask(&mut client, "first").starts_with("DEFER_IF_PERMIT"));
    let environment = Environment::new()
        .set_flags(EnvironmentFlags::NO_TLS | EnvironmentFlags::READ_ONLY)
        .open(&server.dbdir)
        .unwrap();
    let mut held = Vec::new();
    let refused = loop {
        match environment.begin_ro_txn() {
            Ok(transaction) => held.push(transaction),
            Err(error) => break error,
        }
        assert!(held.len() < 10_000);
    };
    assert_eq!(refused, lmdb::Error::ReadersFull);
    // The server has its slots; a session gets none.
    assert!(ask(&mut client, "full").starts_with("DEFER_IF_PERMIT"));
    let mut session = spawn(folder.path(), &["--quiet"]);
    for count in 0..6 {
        let answer = ask(&mut session.client, &format!("full{count}"));
        assert_eq!(answer, "DUNNO");
    }
    let number = held.len();
    held.into_iter().for_each(Transaction::abort);
    let time = ask_until(&mut session.client, "room", "DEFER_IF_PERMIT");
    println!("check: {number} slots, all held by others: DUNNO, back in {time:.1?}");
}
