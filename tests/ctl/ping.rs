//! `ping`: what a monitor is told.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgrey::policy::record::Database;

use super::common_server::{Server, free_port, spawn, test_dir, wait_until};
use super::ctl;

/// The number of the process that says of itself that it is this one.
fn child(server: &Server, role: &str) -> Pid {
    let children = server.wait_for_children(3);
    // The writer is started first.
    match role {
        "writer" => children[0],
        _ => children[2],
    }
}

#[test]
fn a_server_that_answers_is_ok_and_remembers_nothing() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let server = Server::start(dir.path(), &[]);
    let said = ctl(&db, &["ping"]).ok();
    assert!(said.starts_with("POSTGREY OK - answered in "), "{said}");
    let time = said.trim_end().split_once(" | time=").unwrap().1;
    let seconds: f64 = time.strip_suffix('s').unwrap().parse().unwrap();
    assert!(seconds > 0.0 && seconds < 5.0, "{said}");
    for database in Database::ALL {
        assert!(server.records(database).is_empty());
    }
    let option = format!("--unix={}", server.socket.display());
    ctl(&db, &["ping", &option]).ok();
    // It is no request: nothing is logged or counted.
    server.signal(Signal::SIGUSR1);
    server.wait_for_log("statistics: requests=0 ", 1);
}

#[test]
fn a_port_answers_too() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let port = free_port();
    let _server = Server::start(dir.path(), &[&format!("--inet=*:{port}")]);
    ctl(&db, &["ping"]).ok();
    for option in [format!("--inet={port}"), format!("--inet=127.0.0.1:{port}")] {
        ctl(&db, &["ping", &option]).ok();
    }
}

#[test]
fn a_process_that_is_stopped_is_named() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let server = Server::start(dir.path(), &["--workers=2"]);
    let ping = |status: i32, part: &str| {
        let ran = ctl(&db, &["ping"]);
        let said = ran.text();
        println!("{said}");
        (ran.status == status && said.contains(part)).then_some(said)
    };
    let writer = child(&server, "writer");
    kill(writer, Signal::SIGSTOP).unwrap();
    let said = ping(
        1,
        "POSTGREY WARNING - mail passes ungreylisted: the writer does not answer",
    );
    kill(writer, Signal::SIGCONT).unwrap();
    assert!(said.is_some());
    assert!(ping(0, "OK").is_some());

    // One of two workers: the other one answers, and knows it.
    let worker = child(&server, "worker");
    kill(worker, Signal::SIGSTOP).unwrap();
    let begun = Instant::now();
    let mut is_told = false;
    while !is_told && begun.elapsed() < Duration::from_secs(15) {
        is_told = ping(2, "POSTGREY CRITICAL - worker ").is_some();
    }
    kill(worker, Signal::SIGCONT).unwrap();
    assert!(is_told);
    wait_until("it goes on", || ping(0, "OK").is_some());
}

#[test]
fn who_does_not_answer_is_critical() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let mut server = Server::start(dir.path(), &["--workers=1"]);
    let children = server.wait_for_children(2);
    kill(children[1], Signal::SIGSTOP).unwrap();
    let ran = ctl(&db, &["ping"]);
    kill(children[1], Signal::SIGCONT).unwrap();
    assert_eq!(ran.status, 2);
    assert!(ran.text().contains("nothing within 5 s"), "{ran:?}");
    server.stop();
    let ran = ctl(&db, &["ping"]);
    assert_eq!(ran.status, 2);
    assert!(
        ran.text()
            .starts_with("POSTGREY CRITICAL - no answer from "),
        "{ran:?}"
    );
    assert_eq!(ran.stderr, "");
}

#[test]
fn a_session_answers_for_itself() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let mut spawned = spawn(dir.path(), &[]);
    spawned.client.send(b"request=postgrey_ping\n\n");
    // The helper of the tests takes the replies of Postfix apart, which begin
    // with "action=".
    spawned.client.send(b"request=smtpd_access_policy\n\n");
    assert_eq!(spawned.client.line(), "ping=ok\n");
    drop(spawned.client);
    spawned.child.wait().unwrap();
    let ran = ctl(&db, &["ping"]);
    assert_eq!(ran.status, 2);
    assert!(
        ran.text().contains("no server has left an address"),
        "{ran:?}"
    );
}

#[test]
fn a_mistake_is_critical_and_said_in_the_same_form() {
    let dir = tempfile::tempdir().unwrap();
    for words in [
        &["ping", "--bogus"][..],
        &["ping", "extra"],
        &["ping", "--inet="],
        &["ping", "--inet=foo"],
        &["ping", "--unix=/a", "--inet=1"],
        &["ping"],
    ] {
        let ran = ctl(dir.path(), words);
        assert_eq!(ran.status, 2, "{words:?}");
        assert!(ran.text().starts_with("POSTGREY CRITICAL - "), "{ran:?}");
        assert_eq!(ran.text().lines().count(), 1);
    }
}

#[test]
fn what_strangers_answer_is_shown_in_one_line() {
    use std::io::{Read, Write};
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("s");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let stranger = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut octets = [0; 64];
        let _ = stream.read(&mut octets).unwrap();
        stream
            .write_all(b"ping=trouble: a\x1b[2Jb | time=0s\nc\n\n")
            .unwrap();
    });
    let option = format!("--unix={}", socket.display());
    let ran = ctl(dir.path(), &["ping", &option]);
    stranger.join().unwrap();
    let said = ran.text();
    assert_eq!((ran.status, said.lines().count()), (1, 1), "{said}");
    assert!(said.contains("a\\1b[2Jb / time=0s\\0ac | time="), "{said}");
}
