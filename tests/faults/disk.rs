//! A disk that fails under the real server: each kind of write in turn.

use std::fs;
use std::time::{Duration, Instant};

use postgrey::policy::record::Database;

use crate::server::{Client, PATIENCE, Server, test_dir};

/// Asks about a new triplet on each connection.
fn ask_all(clients: &mut [Client], round: &str) -> Vec<String> {
    let mut answers = Vec::new();
    for (index, client) in clients.iter_mut().enumerate() {
        let sender = format!("{round}c{index}@s.example");
        let start = Instant::now();
        answers.push(client.ask(&[("sender", &sender)]));
        assert!(start.elapsed() < Duration::from_secs(3), "a slow answer");
    }
    answers
}

/// Waits until all are greylisted again. How often that took an answer without
/// the store, and how long.
fn wait_for_recovery(clients: &mut [Client]) -> (usize, Duration) {
    let start = Instant::now();
    let mut passed = 0;
    for count in 0.. {
        let answers = ask_all(clients, &format!("again{count}x"));
        let greylisted = |answer: &&String| answer.starts_with("DEFER_IF_PERMIT");
        let number = answers.iter().filter(greylisted).count();
        passed += answers.len() - number;
        if number == answers.len() {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "no recovery: {answers:?}");
    }
    (passed, start.elapsed())
}

#[test]
fn a_write_that_fails_costs_no_mail_and_ends_with_its_cause() {
    for sync in ["--sync=commit", "--sync=none"] {
        for (call, number, words) in [
            ("data", libc::ENOSPC, "No space left on device"),
            ("data", libc::EACCES, "Permission denied"),
            ("data", libc::EIO, "Input/output error"),
            ("meta", libc::EIO, "Input/output error"),
            ("meta", libc::ENOSPC, "No space left on device"),
            ("sync", libc::EIO, "Input/output error"),
            ("sync", libc::ENOSPC, "No space left on device"),
        ] {
            if call == "sync" && sync == "--sync=none" {
                continue;
            }
            if !fail(sync, call, number, words) {
                return;
            }
        }
    }
}

/// Lets one kind of call fail for a while; false without a C compiler.
fn fail(sync: &str, call: &str, number: i32, words: &str) -> bool {
    let folder = test_dir();
    let Some(mut command) = crate::preloaded(folder.path()) else {
        return false;
    };
    let faults = folder.path().join("faults");
    command.env("POSTGREY_FAULTS", &faults);
    let mut server = Server::start_by(command, folder.path(), &["--quiet", sync]);
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    let first = ask_all(&mut clients, "first");
    assert!(first.iter().all(|a| a.starts_with("DEFER_IF_PERMIT")));
    fs::write(&faults, format!("{call} {number}\n")).unwrap();
    let answers = ask_all(&mut clients, "failed");
    assert!(answers.iter().all(|a| a == "DUNNO"), "{answers:?}");
    fs::remove_file(&faults).unwrap();
    let (passed, time) = wait_for_recovery(&mut clients);
    let log = server.log_text();
    println!(
        "check: {sync}, {call} fails with {words}: DUNNO, and {passed} more in {time:.1?}, log: {log:?}"
    );
    // What has met it may be unusable, which the next one finds out.
    assert!(passed <= 1, "{passed} passed");
    assert!(
        log.lines().next().is_some_and(|line| line.contains(words)),
        "{log}"
    );
    let causes = log
        .lines()
        .filter(|line| line.contains("mdb_txn_commit: "))
        .count();
    assert_eq!(causes, 1, "{log}");
    assert!(log.lines().count() <= 2, "{log}");
    assert!(server.stop().success());
    server.start_again();
    assert!(server.stop().success());
    assert!(!server.dbdir.join("data.mdb.unflushed").exists());
    let records = server.records(Database::Greylist);
    for round in ["first", "again0x"] {
        for index in 0..4 {
            let key = format!("192.0.2.0/{round}c{index}@s.example/user@example.org");
            assert!(
                records.contains_key(&key) || passed > 0 && round != "first",
                "{key} is lost"
            );
        }
    }
    true
}
