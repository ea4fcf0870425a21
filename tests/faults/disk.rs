//! A disk that fails under the real server: each kind of write in turn, and a
//! small file system that is full.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use postgrey::policy::record::Database;
use postgrey::store::copies::is_marked;

use crate::server::{Client, PATIENCE, PROGRAM, Server, make_dbdir, test_dir, wait_until};
use crate::small_disk::SmallDisk;

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

/// Waits until all are greylisted again; returns how long it took.
fn wait_for_recovery(clients: &mut [Client], round: &str) -> Duration {
    let start = Instant::now();
    for count in 0.. {
        let answers = ask_all(clients, &format!("{round}again{count}x"));
        if answers.iter().all(|a| a.starts_with("DEFER_IF_PERMIT")) {
            break;
        }
        assert!(start.elapsed() < PATIENCE, "no recovery: {answers:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    start.elapsed()
}

/// How commits come to the disk.
#[derive(Clone, Copy, PartialEq)]
enum Flushed {
    Database,
    Journal,
}

/// A server in which calls fail as the file `faults` says.
fn faulty_server(folder: &Path, faults: &Path, flushed: Flushed) -> Option<Server> {
    let mut command = crate::preloaded(folder)?;
    command.env("POSTGREY_FAULTS", faults);
    fs::write(faults, always(flushed)).unwrap();
    let server = Server::start_by(command, folder, &["--quiet"]);
    match flushed {
        Flushed::Database => server.wait_for_log("cannot copy the database: ", 1),
        Flushed::Journal => wait_until("the journal", || is_marked(&server.dbdir)),
    }
    Some(server)
}

/// The line that keeps a server from having a journal.
fn always(flushed: Flushed) -> String {
    match flushed {
        Flushed::Database => format!("journal {}\n", libc::EDQUOT),
        Flushed::Journal => String::new(),
    }
}

fn complaints(server: &Server) -> Vec<String> {
    let log = server.log_text();
    let lines = log
        .lines()
        .filter(|line| line.contains("mdb_") || line.contains("data.mdb.journal: "));
    lines.map(str::to_string).collect()
}

#[test]
fn a_write_that_fails_costs_no_mail_and_ends_with_its_cause() {
    for flushed in [Flushed::Database, Flushed::Journal] {
        let folder = test_dir();
        let faults = folder.path().join("faults");
        let Some(server) = faulty_server(folder.path(), &faults, flushed) else {
            return;
        };
        let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        let first = ask_all(&mut clients, "first");
        assert!(first.iter().all(|a| a.starts_with("DEFER_IF_PERMIT")));
        for (call, number, words) in [
            ("data", libc::ENOSPC, "No space left on device"),
            ("sync", libc::EIO, "Input/output error"),
            ("meta", libc::EIO, "Input/output error"),
            ("data", libc::EACCES, "Permission denied"),
            ("meta", libc::ENOSPC, "No space left on device"),
        ] {
            if call == "sync" && flushed == Flushed::Journal {
                continue;
            }
            let round = format!("{call}{number}");
            let before = complaints(&server).len();
            fs::write(&faults, format!("{}{call} {number}\n", always(flushed))).unwrap();
            let answers = ask_all(&mut clients, &round);
            assert!(answers.iter().all(|a| a == "DUNNO"), "{round}: {answers:?}");
            fs::write(&faults, always(flushed)).unwrap();
            let time = wait_for_recovery(&mut clients, &round);
            let lines = complaints(&server).split_off(before);
            println!("check: {call} fails with {words}: DUNNO, back in {time:.1?}, log: {lines:?}");
            // Each cause has one line a minute; it may have had it already.
            let mut different = lines.clone();
            different.sort();
            different.dedup();
            assert_eq!(different.len(), lines.len(), "{lines:?}");
            assert!(lines.len() <= 2, "{lines:?}");
        }
        let log = server.log_text();
        for words in [
            "No space left on device",
            "Input/output error",
            "Permission denied",
        ] {
            assert!(
                log.contains(words) || flushed == Flushed::Journal,
                "no {words:?} in {log}"
            );
        }
        assert_eq!(is_marked(&server.dbdir), flushed == Flushed::Journal);
        let records = server.records(Database::Greylist);
        for index in 0..4 {
            let key = format!("192.0.2.0/firstc{index}@s.example/user@example.org");
            assert!(records.contains_key(&key), "{key} is lost");
        }
    }
}

#[test]
fn a_journal_that_fails_costs_not_even_an_answer() {
    for (call, number, words) in [
        ("journal", libc::ENOSPC, "No space left on device"),
        ("jsync", libc::EIO, "I/O error"),
    ] {
        let folder = test_dir();
        let faults = folder.path().join("faults");
        let Some(mut server) = faulty_server(folder.path(), &faults, Flushed::Journal) else {
            return;
        };
        let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
        ask_all(&mut clients, "first");
        // Neither the journal nor the database can be flushed.
        fs::write(&faults, format!("{call} {number}\nsync {}\n", libc::EIO)).unwrap();
        let answers = ask_all(&mut clients, "both");
        assert!(answers.iter().all(|a| a == "DUNNO"), "{answers:?}");
        assert!(is_marked(&server.dbdir));
        // The database can.
        fs::write(&faults, format!("{call} {number}\n")).unwrap();
        wait_for_recovery(&mut clients, "database");
        let answers = ask_all(&mut clients, "one");
        let is_greylisted = |answer: &String| answer.starts_with("DEFER_IF_PERMIT");
        assert!(answers.iter().all(is_greylisted), "{answers:?}");
        assert!(!is_marked(&server.dbdir));
        let lines = complaints(&server);
        let of_journal: Vec<_> = lines
            .iter()
            .filter(|line| line.contains("data.mdb.journal: "))
            .collect();
        println!("check: {call} fails with {words}: greylisted, log: {lines:?}");
        assert_eq!(of_journal.len(), 1, "{lines:?}");
        assert!(of_journal[0].contains(words), "{lines:?}");
        fs::remove_file(&faults).unwrap();
        assert!(server.stop().success());
        let records = server.records(Database::Greylist);
        for round in ["first", "one"] {
            for index in 0..4 {
                let key = format!("192.0.2.0/{round}c{index}@s.example/user@example.org");
                assert!(records.contains_key(&key), "{key} is lost");
            }
        }
    }
}

fn small_disk(at: &Path) -> Option<SmallDisk<'_>> {
    SmallDisk::mount(at, "size=2m,mode=755", "disks that fill up")
}

#[test]
fn a_full_disk_costs_no_mail_and_ends_when_there_is_room() {
    let folder = test_dir();
    let disk_at = folder.path().join("disk");
    fs::create_dir(&disk_at).unwrap();
    let Some(disk) = small_disk(&disk_at) else {
        return;
    };
    let socket = folder.path().join("socket");
    let at = format!("--unix={}", socket.display());
    let server = Server::start(&disk_at, &[&at, "--quiet"]);
    let mut clients: Vec<Client> = (0..4).map(|_| server.connect()).collect();
    let first = ask_all(&mut clients, "first");
    assert!(first.iter().all(|a| a.starts_with("DEFER_IF_PERMIT")));
    disk.fill();
    let mut greylisted = Vec::new();
    let mut passed = 0;
    for count in 0..40 {
        let answers = ask_all(&mut clients, &format!("full{count}x"));
        for (index, answer) in answers.iter().enumerate() {
            match answer.as_str() {
                "DUNNO" => passed += 1,
                _ => greylisted.push(format!("full{count}xc{index}@s.example")),
            }
        }
    }
    assert!(passed > 0, "the disk was not full");
    disk.empty();
    let time = wait_for_recovery(&mut clients, "room");
    let records = server.records(Database::Greylist);
    let lost = greylisted
        .iter()
        .filter(|sender| !records.contains_key(&format!("192.0.2.0/{sender}/user@example.org")))
        .count();
    println!(
        "check: full disk: {} greylisted in free pages, {passed} DUNNO, {lost} lost, back in {time:.1?}",
        greylisted.len()
    );
    assert_eq!(lost, 0);
}

#[test]
fn a_start_on_a_full_disk_says_so() {
    let folder = test_dir();
    let disk_at = folder.path().join("disk");
    fs::create_dir(&disk_at).unwrap();
    let Some(disk) = small_disk(&disk_at) else {
        return;
    };
    let dbdir = disk_at.join("db");
    make_dbdir(&dbdir);
    disk.fill();
    let start = || {
        Command::new(PROGRAM)
            .arg(format!("--dbdir={}", dbdir.display()))
            .arg(format!("--unix={}", folder.path().join("s").display()))
            .args(["--user=nobody", "--group=nogroup", "-q"])
            .output()
            .unwrap()
    };
    let output = start();
    let text = String::from_utf8_lossy(&output.stderr);
    println!("check: start on a full disk: {}, {text}", output.status);
    assert!(output.status.code().is_some_and(|code| code != 0));
    assert!(text.contains("No space left on device"), "{text}");
}
