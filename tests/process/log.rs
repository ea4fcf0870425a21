//! Lines of the log that are ours: of the tarpit, of trouble, and their times.

use nix::sys::signal::{Signal, kill};

use crate::server::{Server, test_dir};

const CLIENT: &str =
    "client_name=mail.example.com, client_address=192.0.2.91, sender=alice@example.com";

#[test]
fn the_tarpit_is_logged_where_that_is_wanted() {
    for (options, is_logged) in [
        (&["--targrey", "--log-tarpit"][..], true),
        (&["--targrey"], false),
    ] {
        let dir = test_dir();
        let server = Server::start(dir.path(), options);
        let mut client = server.connect();
        assert_eq!(client.ask(&[]), "SLEEP 125");
        assert_eq!(
            client.ask(&[("protocol_state", "DATA"), ("queue_id", "4F1")]),
            "DUNNO"
        );
        // It was not in the tarpit any more.
        assert_eq!(client.ask(&[("protocol_state", "DATA")]), "DUNNO");
        let log = server.log_text();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("action="))
            .collect();
        let expected = [
            format!("action=tarpit, reason=new, {CLIENT}, recipient=user@example.org"),
            format!("4F1: action=pass, reason=tarpit passed, {CLIENT}, recipient=user@example.org"),
        ];
        match is_logged {
            true => assert_eq!(lines, expected),
            false => assert!(lines.is_empty(), "{lines:?}"),
        }
    }
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--tarpit=7", "--log-tarpit"]);
    assert_eq!(
        server
            .connect()
            .ask(&[])
            .split(' ')
            .take(3)
            .collect::<Vec<_>>(),
        ["SLEEP", "7,", "DEFER_IF_PERMIT"]
    );
    server.wait_for_log("action=tarpit, reason=new, ", 1);
}

#[test]
fn each_request_that_passes_by_trouble_has_a_line() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &[]);
    let writer = server.wait_for_children(3)[0];
    kill(writer, Signal::SIGSTOP).unwrap();
    let mut clients = [server.connect(), server.connect()];
    let replies = clients.each_mut().map(|client| client.ask(&[]));
    kill(writer, Signal::SIGCONT).unwrap();
    assert_eq!(replies, ["DUNNO", "DUNNO"]);
    let line =
        format!("action=pass, reason=database trouble, {CLIENT}, recipient=user@example.org");
    server.wait_for_log(&line, 2);
}

#[test]
fn lines_on_standard_error_begin_with_the_time_where_that_is_wanted() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--log-time"]);
    server.connect().ask(&[]);
    server.wait_for_log("action=greylist", 1);
    let shape = regex::Regex::new(
        r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d (action=|Binding|\d{4}/\d\d/|Set|old)",
    )
    .unwrap();
    let log = server.log_text();
    for line in log.lines() {
        assert!(shape.is_match(line), "{line}");
    }
}

#[test]
fn targrey_without_data_is_told_once() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--targrey", "--sync=none", "--quiet"]);
    let mut client = server.connect();
    for number in 0..1100 {
        client.ask(&[("sender", &format!("s{number}@example.com"))]);
    }
    let told = "no request came at DATA: --targrey needs one there";
    server.wait_for_log(told, 1);
    client.ask(&[("protocol_state", "DATA")]);
    assert_eq!(server.log_text().matches(told).count(), 1);
}
