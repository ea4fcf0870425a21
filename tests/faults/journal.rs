//! `--sync=commit` and a server that is killed as a whole: copy and journal are
//! all that the next one trusts.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use postgrey::policy::record::Database;
use postgrey::server::recovery::renew_journal;
use postgrey::store::copies::is_marked;
use postgrey::sys::lock::LockFile;
use postgrey::sys::process::{Apart, become_user, find_identity, run_apart};
use regex::Regex;

use crate::server::{Server, give_to_server, is_root, open_store, spawn, test_dir, wait_until};

fn ask_for(server: &Server, numbers: std::ops::Range<usize>) {
    let mut client = server.connect();
    for number in numbers {
        let answer = client.ask(&[("sender", &format!("n{number}x@s.example"))]);
        assert!(answer.starts_with("DEFER_IF_PERMIT"), "{answer}");
    }
}

/// A server that relies on its journal.
fn start(folder: &Path) -> Server {
    let server = Server::start(folder, &["--quiet"]);
    wait_for_journal(&server);
    server
}

fn wait_for_journal(server: &Server) {
    wait_until("the journal", || is_marked(&server.dbdir));
}

/// Nothing of it can be read.
fn damage(file: &Path) {
    let length = fs::metadata(file).unwrap().len();
    fs::write(file, vec![0xa5; length as usize]).unwrap();
}

#[test]
fn copy_and_journal_are_the_database_after_a_kill() {
    let folder = test_dir();
    let mut server = start(folder.path());
    ask_for(&server, 0..40);
    server.kill_all();
    damage(&server.dbdir.join("data.mdb"));
    server.start_again();
    ask_for(&server, 40..42);
    wait_for_journal(&server);
    // Once more, with another copy and another journal.
    ask_for(&server, 42..44);
    server.kill_all();
    fs::remove_file(server.dbdir.join("data.mdb")).unwrap();
    server.start_again();
    ask_for(&server, 44..45);
    wait_for_journal(&server);
    assert!(server.stop().success());
    assert_eq!(server.records(Database::Greylist).len(), 45);
    let line = Regex::new(
        r"(?m)^the server had not ended in order: (\d+) records, (\d+) commits behind the copy of \d{4}-\S+ \S+$",
    );
    let log = server.log_text();
    let records: Vec<_> = line
        .unwrap()
        .captures_iter(&log)
        .map(|found| found[1].to_string())
        .collect();
    assert_eq!(records, ["40", "44"], "{log}");
    let mut left: Vec<_> = fs::read_dir(&server.dbdir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    let expected = ["data.mdb", "data.mdb.copy", "lock.mdb", "postgrey.lock"];
    assert_eq!(left, expected);
}

#[test]
fn a_journal_is_renewed_under_load() {
    let folder = test_dir();
    let mut server = start(folder.path());
    let journal = || {
        let journaling = open_store(&server.dbdir).journaling().unwrap().unwrap();
        assert!(!journaling.flushes);
        journaling.place.journal
    };
    let mut journals = vec![journal()];
    let is_over = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut number = 0;
            while !is_over.load(Ordering::Relaxed) {
                ask_for(&server, number..number + 10);
                number += 10;
            }
            number
        });
        for _ in 0..5 {
            let dbdir = server.dbdir.clone();
            // As the server's user.
            let renewed = run_apart(60, || {
                if is_root() {
                    let nobody = find_identity("nobody", Some("nogroup"), "")?;
                    become_user(&nobody)?;
                }
                let lock = LockFile::new(dbdir.join("postgrey.lock"), 0o600);
                let renewed = renew_journal(&dbdir, &lock);
                renewed
                    .map(|()| String::new())
                    .map_err(|error| error.to_string())
            });
            assert_eq!(renewed.unwrap(), Apart::Said(Ok(String::new())));
            journals.push(journal());
        }
        is_over.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    journals.dedup();
    assert_eq!(journals.len(), 6);
    server.kill_all();
    damage(&server.dbdir.join("data.mdb"));
    server.start_again();
    assert!(server.stop().success());
    assert_eq!(server.records(Database::Greylist).len(), asked);
    println!("check: 5 journals were begun anew under {asked} requests, none is lost");
}

#[test]
fn a_copy_that_is_damaged_leaves_the_database_itself() {
    let folder = test_dir();
    let mut server = start(folder.path());
    ask_for(&server, 0..40);
    server.kill_all();
    damage(&server.dbdir.join("data.mdb.copy"));
    server.start_again();
    assert!(server.stop().success());
    assert_eq!(server.records(Database::Greylist).len(), 40);
    server.wait_for_log("the journal cannot be used (", 1);
    server.wait_for_log("the server had not ended in order: 40 records verified", 1);
}

#[test]
fn what_cannot_be_made_anew_waits_for_the_next_start() {
    let folder = test_dir();
    let mut server = start(folder.path());
    ask_for(&server, 0..40);
    server.kill_all();
    // No place for the new database.
    let workshop = server.dbdir.join("data.mdb.rebuilt");
    fs::write(&workshop, "").unwrap();
    give_to_server(&workshop);
    for _ in 0..2 {
        server.start_again();
        ask_for(&server, 40..41);
        assert!(server.stop().success());
        assert!(is_marked(&server.dbdir));
    }
    server.wait_for_log("cannot verify the database: ", 2);
    damage(&server.dbdir.join("data.mdb"));
    fs::remove_file(&workshop).unwrap();
    server.start_again();
    assert!(server.stop().success());
    server.wait_for_log("the server had not ended in order: 40 records, ", 1);
    assert_eq!(server.records(Database::Greylist).len(), 40);
    assert!(!is_marked(&server.dbdir));
}

#[test]
fn a_spawned_session_makes_it_anew_too() {
    let folder = test_dir();
    let mut server = start(folder.path());
    ask_for(&server, 0..40);
    // Two of them write into the journal of the server.
    let ask = |sender: &str| {
        let mut spawned = spawn(folder.path(), &[]);
        let answer = spawned.client.ask(&[("sender", sender)]);
        assert!(answer.starts_with("DEFER_IF_PERMIT"), "{answer}");
        drop(spawned.client);
        assert!(spawned.child.wait().unwrap().success());
    };
    ask("s1@s.example");
    ask("s2@s.example");
    server.kill_all();
    damage(&server.dbdir.join("data.mdb"));
    ask("s3@s.example");
    assert!(!is_marked(&server.dbdir));
    assert_eq!(server.records(Database::Greylist).len(), 43);
}

#[test]
fn what_postgreyctl_changes_is_in_the_journal() {
    let folder = test_dir();
    let mut server = start(folder.path());
    ask_for(&server, 0..2);
    let forget = Command::new(env!("CARGO_BIN_EXE_postgreyctl"))
        .arg(format!("--dbdir={}", server.dbdir.display()))
        .args(["delete", "triplet"])
        .arg("192.0.2.0/n0x@s.example/user@example.org")
        .output()
        .unwrap();
    assert!(forget.status.success(), "{forget:?}");
    server.kill_all();
    damage(&server.dbdir.join("data.mdb"));
    server.start_again();
    assert!(server.stop().success());
    assert_eq!(server.records(Database::Greylist).len(), 1);
}

#[test]
fn a_database_that_is_removed_begins_another_life() {
    let folder = test_dir();
    let mut server = start(folder.path());
    ask_for(&server, 0..40);
    for name in ["data.mdb", "lock.mdb"] {
        fs::remove_file(server.dbdir.join(name)).unwrap();
    }
    let mut client = server.connect();
    wait_until("another database", || {
        client.ask(&[]);
        server.dbdir.join("data.mdb").exists()
    });
    drop(client);
    ask_for(&server, 40..42);
    assert!(server.stop().success());
    let held = server.records(Database::Greylist);
    assert!(held.len() <= 3 && !held.contains_key("192.0.2.0/n0x@s.example/user@example.org"));
    assert!(!is_marked(&server.dbdir));
}
