//! What LMDB itself says is wrong: a full map that cannot grow, no slot for a
//! reader, files that are no database or a damaged one.
//!
//! Each costs DUNNO and a line, kills no process, and ends with its cause.

use std::fs;
use std::time::{Duration, Instant};

use lmdb::{Environment, EnvironmentFlags, Transaction};
use postgrey::policy::record::Database;

use crate::server::{Client, PATIENCE, Server, give_to_server, make_dbdir, test_dir};

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

/// Waits until the files that have come to be in the directory are those of
/// every process: worker and writer look once a second, each before it uses its
/// own.
fn wait_for_every_look() {
    std::thread::sleep(Duration::from_millis(1100));
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
    // Another environment, whose few slots are all held, takes the place.
    let other = folder.path().join("other");
    make_dbdir(&other);
    let environment = Environment::new()
        .set_flags(EnvironmentFlags::NO_TLS)
        .set_max_dbs(3)
        .set_max_readers(4)
        .set_map_size(1 << 20)
        .open(&other)
        .unwrap();
    let mut held = Vec::new();
    let refused = loop {
        match environment.begin_ro_txn() {
            Ok(transaction) => held.push(transaction),
            Err(error) => break error,
        }
        assert!(held.len() < 1000);
    };
    assert_eq!(refused, lmdb::Error::ReadersFull);
    for name in ["lock.mdb", "data.mdb"] {
        give_to_server(&other.join(name));
        fs::rename(other.join(name), server.dbdir.join(name)).unwrap();
    }
    wait_for_every_look();
    for count in 0..6 {
        assert_eq!(ask(&mut client, &format!("full{count}")), "DUNNO");
    }
    let number = held.len();
    held.into_iter().for_each(Transaction::abort);
    let time = ask_until(&mut client, "room", "DEFER_IF_PERMIT");
    println!("check: {number} slots, all held by others: DUNNO, back in {time:.1?}");
    assert_told_once(&server, &["MDB_READERS_FULL"]);
}

#[test]
fn a_file_that_is_no_database_or_a_damaged_one_costs_no_mail() {
    let folder = test_dir();
    let server = Server::start(folder.path(), &["--quiet"]);
    let mut client = server.connect();
    assert!(ask(&mut client, "first").starts_with("DEFER_IF_PERMIT"));
    let data = server.dbdir.join("data.mdb");
    let whole = fs::read(&data).unwrap();
    let garbage = vec![0xa5; whole.len()];
    // Pages that never came to the disk, behind the two of meta data.
    let mut damaged = whole.clone();
    damaged[2 * 4096..].fill(0);
    let aside = server.dbdir.join("aside");
    for (name, octets) in [("garbage", &garbage), ("damaged", &damaged)] {
        fs::rename(&data, &aside).unwrap();
        fs::write(&data, octets).unwrap();
        give_to_server(&data);
        wait_for_every_look();
        for count in 0..6 {
            assert_eq!(ask(&mut client, &format!("{name}{count}")), "DUNNO");
        }
        fs::rename(&aside, &data).unwrap();
        let time = ask_until(&mut client, &format!("{name}over"), "DEFER_IF_PERMIT");
        println!("check: {name} file: DUNNO, back in {time:.1?}");
    }
    assert_told_once(&server, &["MDB_INVALID"]);
    assert_told_once(&server, &["MDB_CORRUPTED", "MDB_PAGE_NOTFOUND"]);
    let records = server.records(Database::Greylist);
    assert!(records.keys().any(|key| key.contains("/firstx")));
}
