//! The mark of a database that may not be whole on the disk: who sets it, who
//! verifies the database then, and who has to leave it alone.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgrey::policy::record::Database;
use postgrey::store::lmdb::claim::lock_file;
use postgrey::sys::lock::{Claim, LockFile};
use postgrey::sys::process::{ChildResult, run_in_child};

use crate::server::{PATIENCE, Server, Spawned, is_alive, spawn, test_dir, wait_until};
use crate::unflushed::{ask_for, start, wait_for_greylisting, write_for_server};

/// A server that was killed after two requests, and its mark.
fn killed_server(folder: &Path) -> Server {
    let mut server = start(folder);
    ask_for(&server, 0..2);
    server.kill_all();
    assert!(mark_of(&server).exists());
    server
}

fn mark_of(server: &Server) -> std::path::PathBuf {
    server.dbdir.join("data.mdb.unflushed")
}

/// Asks until there is greylisting; how many requests have passed.
fn wait_for_session(session: &mut Spawned) -> usize {
    let start = Instant::now();
    for passed in 0.. {
        let answer = session.client.ask(&[]);
        if answer.starts_with("DEFER_IF_PERMIT") {
            return passed;
        }
        assert_eq!(answer, "DUNNO");
        assert!(start.elapsed() < PATIENCE, "no greylisting");
        std::thread::sleep(Duration::from_millis(20));
    }
    unreachable!("the count ends")
}

fn end(mut session: Spawned) {
    drop(session.client);
    assert!(session.child.wait().unwrap().success());
}

#[test]
fn a_spawned_session_leaves_the_mark_of_a_server() {
    let folder = test_dir();
    let mut server = start(folder.path());
    ask_for(&server, 0..2);
    let mut session = spawn(folder.path(), &["--sync=none"]);
    assert_eq!(
        wait_for_session(&mut session),
        0,
        "the server answers for it"
    );
    assert!(mark_of(&server).exists());
    end(session);
    assert!(server.stop().success());
    assert!(!mark_of(&server).exists());
    assert_eq!(server.records(Database::Greylist).len(), 3);
    assert_eq!(server.log_text(), "");
}

#[test]
fn spawned_sessions_verify_where_no_server_runs() {
    let folder = test_dir();
    let server = killed_server(folder.path());
    // Each wants to.
    let mut sessions: Vec<Spawned> = (0..4)
        .map(|_| spawn(folder.path(), &["--sync=none"]))
        .collect();
    let passed: Vec<usize> = sessions.iter_mut().map(wait_for_session).collect();
    println!("check: sessions beside a mark: {passed:?} requests passed until it was verified");
    assert!(!mark_of(&server).exists());
    sessions.into_iter().for_each(end);
    assert_eq!(server.records(Database::Greylist).len(), 3);
    assert!(!server.dbdir.join("data.mdb.damaged").exists());
}

#[test]
fn a_spawned_session_sets_a_damaged_database_aside() {
    let folder = test_dir();
    let server = killed_server(folder.path());
    let garbage = vec![0xa5; 9 * 4096];
    write_for_server(&server.dbdir.join("data.mdb"), &garbage);
    let mut session = spawn(folder.path(), &[]);
    wait_for_session(&mut session);
    end(session);
    assert!(!mark_of(&server).exists());
    let kept = fs::read(server.dbdir.join("data.mdb.damaged")).unwrap();
    assert!(kept == garbage);
    assert_eq!(server.records(Database::Greylist).len(), 1);
}

#[test]
fn a_verification_that_fails_keeps_the_mark_and_is_tried_again() {
    let folder = test_dir();
    let Some(mut command) = crate::preloaded(folder.path()) else {
        return;
    };
    let faults = folder.path().join("faults");
    drop(killed_server(folder.path()));
    fs::write(&faults, format!("map {}\n", libc::ENOMEM)).unwrap();
    command.env("POSTGREY_FAULTS", &faults);
    let mut server = Server::start_by(command, folder.path(), &["--quiet", "--sync=none"]);
    let mut client = server.connect();
    let start = Instant::now();
    // Long enough for a second try.
    while start.elapsed() < Duration::from_millis(1500) {
        assert_eq!(client.ask(&[]), "DUNNO");
        std::thread::sleep(Duration::from_millis(20));
    }
    let line = "cannot verify the database: ";
    server.wait_for_log(line, 1);
    let log = server.log_text();
    assert!(log.contains("Cannot allocate memory"), "{log}");
    assert!(mark_of(&server).exists());
    fs::remove_file(&faults).unwrap();
    wait_for_greylisting(&server);
    assert!(server.stop().success());
    let log = server.log_text();
    assert_eq!(log.matches(line).count(), 1, "{log}");
    assert_eq!(log.matches(": 2 records verified\n").count(), 1, "{log}");
    assert!(!server.dbdir.join("data.mdb.damaged").exists());
    assert_eq!(server.records(Database::Greylist).len(), 3);
}

/// The test holds the claim, so that a verifier waits for it.
#[test]
fn a_verifier_that_is_killed_has_changed_nothing() {
    let folder = test_dir();
    let mut server = killed_server(folder.path());
    let mark = mark_of(&server);
    let lock = LockFile::new(lock_file(&server.dbdir), 0o600);
    wait_until("the claim", || lock.try_lock(Claim::Commit).unwrap());
    server.start_again();
    let mut client = server.connect();
    assert_eq!(client.ask(&[]), "DUNNO");
    // The writer and the workers were started before it.
    let youngest = |server: &Server| *server.children().iter().max().unwrap();
    let verifier = youngest(&server);
    kill(verifier, Signal::SIGKILL).unwrap();
    let mut next = verifier;
    wait_until("another verifier", || {
        assert_eq!(client.ask(&[]), "DUNNO");
        next = youngest(&server);
        next > verifier
    });
    assert!(mark.exists());
    // The end does not wait for it, and nobody says in its place that all is
    // well.
    kill(next, Signal::SIGSTOP).unwrap();
    lock.unlock(Claim::Commit).unwrap();
    let begun = Instant::now();
    assert!(server.stop().success());
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(!is_alive(next) && mark.exists());
    server.start_again();
    wait_for_greylisting(&server);
    assert!(server.stop().success());
    assert!(!mark.exists());
    let log = crate::results_in(&server);
    assert_eq!(
        log,
        "the server had not ended in order: 2 records verified\n"
    );
}

#[test]
fn the_mark_stays_where_the_last_flush_failed() {
    let folder = test_dir();
    let Some(mut command) = crate::preloaded(folder.path()) else {
        return;
    };
    let faults = folder.path().join("faults");
    command.env("POSTGREY_FAULTS", &faults);
    let mut server = Server::start_by(command, folder.path(), &["--quiet", "--sync=none"]);
    ask_for(&server, 0..2);
    fs::write(&faults, format!("sync {}\n", libc::EIO)).unwrap();
    server.stop();
    let log = server.log_text();
    assert!(mark_of(&server).exists(), "{log}");
    assert!(log.contains("mdb_env_sync: Input/output error"), "{log}");
    fs::remove_file(&faults).unwrap();
    server.start_again();
    wait_for_greylisting(&server);
    assert!(server.stop().success());
    assert!(!mark_of(&server).exists());
    server.wait_for_log(": 2 records verified\n", 1);
    assert_eq!(server.records(Database::Greylist).len(), 3);
}

#[test]
fn nothing_else_writes_to_a_database_that_was_not_verified() {
    let folder = test_dir();
    let mut server = killed_server(folder.path());
    let dbdir = server.dbdir.clone();
    let ctl = |words: &[&str]| -> Output {
        Command::new(env!("CARGO_BIN_EXE_postgreyctl"))
            .arg(format!("--dbdir={}", dbdir.display()))
            .args(words)
            .output()
            .unwrap()
    };
    let writing: [&[&str]; 4] = [
        &["compact"],
        &["expire"],
        &["add", "client", "192.0.2.1"],
        &["delete", "client", "192.0.2.1"],
    ];
    let before = fs::read(dbdir.join("data.mdb")).unwrap();
    for words in writing {
        let refused = ctl(words);
        let stderr = String::from_utf8(refused.stderr).unwrap();
        let dbdir = dbdir.display();
        let line = format!(
            "ERROR: {dbdir}: the server has not ended in order: start it first, it verifies the database\n"
        );
        assert_eq!(stderr, line, "{words:?}");
        assert_eq!(refused.status.code(), Some(2), "{words:?}");
    }
    assert!(fs::read(dbdir.join("data.mdb")).unwrap() == before);
    assert!(mark_of(&server).exists());
    server.start_again();
    wait_for_greylisting(&server);
    // The mark of a server that runs is no obstacle.
    assert!(mark_of(&server).exists());
    for words in &writing[1..] {
        let done = ctl(words);
        assert!(done.status.success(), "{words:?}: {done:?}");
    }
    assert!(server.stop().success());
    let compacted = ctl(writing[0]);
    assert!(compacted.status.success(), "{compacted:?}");
    assert_eq!(server.records(Database::Greylist).len(), 3);
}

#[test]
fn a_crash_in_a_child_is_told_from_an_end_by_others() {
    let ended = |work: fn()| {
        run_in_child(60, || {
            work();
            Ok("done".into())
        })
    };
    let crashed = |how: &str| ChildResult::Crashed(how.into());
    assert_eq!(ended(|| ()).unwrap(), ChildResult::Ok("done".into()));
    let failed = run_in_child(60, || Err("why".into())).unwrap();
    assert_eq!(failed, ChildResult::Err("why".into()));
    assert_eq!(ended(|| panic!()).unwrap(), crashed("status 101"));
    let aborted = ended(|| std::process::abort()).unwrap();
    assert_eq!(aborted, crashed("signal SIGABRT"));
    let by = |signal| kill(Pid::this(), signal).unwrap();
    for (seconds, signal) in [
        (60, Signal::SIGKILL),
        (60, Signal::SIGTERM),
        (1, Signal::SIGALRM),
    ] {
        let result = run_in_child(seconds, || {
            if seconds > 1 {
                by(signal);
            }
            std::thread::sleep(PATIENCE);
            Ok(String::new())
        });
        let error = result.unwrap_err().to_string();
        assert_eq!(error, format!("ended with signal {signal}"));
    }
}
