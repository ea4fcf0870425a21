//! The protocol as the running server speaks it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/dialogue.rs"]
mod dialogue;
#[path = "../common/server.rs"]
mod server;

mod dialogues;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use postgrey::policy::record::Database;
use server::{Client, PATIENCE, Server, free_port, request, test_dir, wait_until};

#[test]
fn a_garbage_line_before_the_request_does_no_harm() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.connect();
    client.send(b"<<EOF\n");
    assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT Greylisted, "));
    server.wait_for_log("ignoring garbage: <<<EOF>", 1);
}

#[test]
fn a_client_that_has_sent_everything_gets_its_answer_and_then_the_end() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.connect();
    client.send(&[request(&[]), request(&[("sender", "b@example.com")])].concat());
    client.finish().unwrap();
    assert!(client.reply().unwrap().starts_with("DEFER_IF_PERMIT"));
    assert!(client.reply().unwrap().starts_with("DEFER_IF_PERMIT"));
    assert_eq!(client.reply(), None);
}

#[test]
fn an_unfinished_request_is_not_answered() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.connect();
    client.send(b"request=smtpd_access_policy\n");
    client.finish().unwrap();
    assert_eq!(client.reply(), None);
}

#[test]
fn requests_beyond_the_bounds_are_answered_and_the_connection_lives_on() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &[]);
    let mut client = server.connect();
    for body in [
        b"x".repeat(70_000),
        b"a=b\n".repeat(1001),
        [b"x=".to_vec(), b"y".repeat(60_000), b"\n".to_vec()]
            .concat()
            .repeat(5),
    ] {
        client.send(&[&body[..], b"\n\n"].concat());
        assert_eq!(client.reply().unwrap(), "DUNNO");
        // A body that ends with a line end makes the empty line one too many,
        // which is a request without a type and gets no answer.
        assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
    }
    server.wait_for_log("request not looked at: ", 3);
}

#[test]
fn silent_connections_do_not_keep_others_waiting() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=2"]);
    let silent: Vec<_> = (0..200).map(|_| server.connect()).collect();
    let start = Instant::now();
    assert!(server.connect().ask(&[]).starts_with("DEFER_IF_PERMIT"));
    // Not a measurement: only that nobody waited for the silent ones.
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(silent);
}

#[test]
fn connections_are_spread_over_the_workers() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=4"]);
    let mut clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.ask(&[]);
    }
    server.signal(Signal::SIGUSR1);
    server.wait_for_log("open_connections=", 1);
    let log = server.log_text();
    let shares = log.rsplit("open_connections=").next().unwrap();
    let shares: Vec<u32> = shares
        .lines()
        .next()
        .unwrap()
        .split('/')
        .map(|share| share.parse().unwrap())
        .collect();
    assert_eq!(shares.iter().sum::<u32>(), 200, "{shares:?}");
    assert!(shares.iter().all(|&share| share <= 100), "{shares:?}");
}

#[test]
fn a_client_that_never_reads_holds_up_nobody() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=1"]);
    let stream = UnixStream::connect(&server.socket).unwrap();
    stream.set_nonblocking(true).unwrap();
    let text = request(&[]);
    let mut sent = 0_usize;
    // Until its own buffers are full: the server does not read on either.
    wait_until("the buffers to be full", || {
        match std::io::Write::write(&mut &stream, &text) {
            Ok(length) => sent += length,
            Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock && sent > 50_000,
        }
        false
    });
    assert!(
        server
            .connect()
            .ask(&[("sender", "other@example.com")])
            .starts_with("DEFER_IF_PERMIT")
    );
}

#[test]
fn several_sockets_are_served_at_once() {
    let dir = test_dir();
    let (first, second) = (free_port(), free_port());
    let options = [
        format!("--unix={}", dir.path().join("run/s").display()),
        format!("--inet=127.0.0.1:{first}"),
        format!("--inet={second}"),
    ];
    let server = Server::start(dir.path(), &options.each_ref().map(String::as_str));
    for port in [first, second] {
        let mut client = Client::inet(port).unwrap();
        assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
    }
    server.wait_for_log(
        &format!("Binding to TCP port {second} on host localhost"),
        1,
    );
}

#[test]
fn a_dry_run_decides_and_records_and_answers_dunno() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--noaction", "--x-greylist-header=X: %h"]);
    let mut client = server.connect();
    assert_eq!(client.ask(&[("policy_test_time", "1700000000")]), "DUNNO");
    assert_eq!(client.ask(&[("policy_test_time", "1700000300")]), "DUNNO");
    server.wait_for_log(
        "action=greylist, reason=new, client_name=mail.example.com",
        1,
    );
    server.wait_for_log("action=pass, reason=triplet found, delay=300", 1);
    let found = server.records(Database::Greylist);
    let key = "192.0.2.0/alice@example.com/user@example.org";
    assert_eq!(found[key], "1700000000,1700000300,1,91");
}

/// More replies than the server keeps for a connection, whether the peer takes
/// them at once or not.
#[test]
fn requests_that_come_in_thousands_are_all_answered() {
    const REQUESTS: usize = 20_000;
    let dir = test_dir();
    let server = Server::start(dir.path(), &[]);
    for pause in [0, 300] {
        let mut stream = UnixStream::connect(&server.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let mut output = stream.try_clone().unwrap();
        let mut replies = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let requests = b"request=smtpd_access_policy\n\n".repeat(REQUESTS);
                output.write_all(&requests).unwrap();
                output.shutdown(Shutdown::Write).unwrap();
            });
            std::thread::sleep(Duration::from_millis(pause));
            stream.read_to_end(&mut replies).unwrap();
        });
        assert_eq!(replies, b"action=DUNNO\n\n".repeat(REQUESTS));
    }
}

#[test]
fn what_was_answered_survives_the_death_of_the_server() {
    let dir = test_dir();
    let mut answered = BTreeSet::new();
    {
        let mut server = Server::start(dir.path(), &["--workers=2"]);
        let mut clients: Vec<_> = (0..16).map(|_| server.connect()).collect();
        'load: for round in 0..625 {
            for (index, client) in clients.iter_mut().enumerate() {
                let sender = format!("s{round}x{index}@example.com");
                if client.try_ask(&request(&[("sender", &sender)])).is_err() {
                    break 'load;
                }
                answered.insert(format!("192.0.2.0/{sender}/user@example.org"));
                if answered.len() == 5000 {
                    for pid in server.children() {
                        let _ = nix::sys::signal::kill(pid, Signal::SIGKILL);
                    }
                    server.signal(Signal::SIGKILL);
                }
            }
        }
        server.wait();
    }
    assert!(answered.len() >= 5000);
    let server = Server::start(dir.path(), &[]);
    let found = server.records(Database::Greylist);
    let missing: Vec<_> = answered
        .iter()
        .filter(|key| !found.contains_key(*key))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
