//! The protocol as the running server speaks it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/dialogue.rs"]
mod dialogue;
#[path = "common/server.rs"]
mod server;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use dialogue::Dialogue;
use nix::sys::signal::Signal;
use postgrey::policy::record::Database;
use server::{
    Client, PATIENCE, Server, free_port, records, request, spawn, tell, test_dir, wait_until,
};

/// How a dialogue is played to a server.
#[derive(Clone, Copy)]
struct Manner {
    connections: usize,
    /// Octets of a write; 0: all at once.
    fragment: usize,
    /// Requests sent before their replies are read.
    pipeline: usize,
}

/// Plays a dialogue to a running server and compares everything.
fn play(dialogue: &Dialogue, manner: Manner) {
    let dir = test_dir();
    let [clients, recipients] = write_whitelists(dialogue, dir.path());
    let is_exim = dialogue.options.iter().any(|option| option == "--exim");
    let mut options: Vec<&str> = dialogue.options.iter().map(String::as_str).collect();
    // What is compared does not depend on flushes, which would take minutes.
    options.extend([
        dialogue.compat_option(),
        "--sync=none",
        // With one connection a worker knows what it has not committed yet.
        if is_exim {
            "--workers=1"
        } else {
            "--workers=2"
        },
        &clients,
        &recipients,
    ]);
    let mut server = Server::start(dir.path(), &options);
    let mut connections: Vec<Client> = (0..manner.connections).map(|_| server.connect()).collect();
    let mut turn = 0;
    let mut pending = Vec::new();
    for (index, text) in dialogue.requests.iter().enumerate() {
        let client = &mut connections[turn % manner.connections];
        for piece in text.chunks(if manner.fragment == 0 {
            text.len()
        } else {
            manner.fragment
        }) {
            client.send(piece);
        }
        let Some(expected) = &dialogue.replies[index] else {
            continue;
        };
        pending.push((index, expected));
        let is_last = index + 1 == dialogue.requests.len();
        if pending.len() < manner.pipeline && !is_last && !is_exim {
            continue;
        }
        for (index, expected) in pending.drain(..) {
            let reply = client.reply().unwrap_or_default();
            assert_eq!(
                format!("action={reply}\n\n"),
                String::from_utf8_lossy(expected),
                "{} request {index}",
                dialogue.name
            );
            if manner.connections > 1 && reply == "DUNNO" {
                wait_for_renewal(client, index);
            }
        }
        if is_exim {
            assert_eq!(client.reply(), None, "--exim closes after the answer");
            *client = server.connect();
        }
        turn += 1;
    }
    drop(connections);
    assert!(server.stop().success(), "{}", server.log_text());
    let log = fs::read(&server.log).unwrap();
    let log: Vec<&[u8]> = log
        .split(|&b| b == b'\n')
        .filter(|line| dialogue::is_policy_line(line) && !is_of_probe(line))
        .collect();
    assert_eq!(log.len(), dialogue.log.len(), "{}", dialogue.name);
    for (line, expected) in log.iter().zip(&dialogue.log) {
        assert_eq!(
            String::from_utf8_lossy(line),
            String::from_utf8_lossy(expected),
            "{}",
            dialogue.name
        );
    }
    assert_same_records(dialogue, dir.path());
}

/// A client that is in no dialogue.
const PROBE: &str = "233.252.0.";
/// Before all dialogues.
const PROBE_TIME: &str = "1000000000";

/// An auto-whitelisted client is answered before its record is renewed, and
/// another worker may read the old one: that is right but not what the original
/// recorded. What needs a commit is answered after the renewal.
fn wait_for_renewal(client: &mut Client, index: usize) {
    let sender = format!("probe{index}x@probe.invalid");
    client.ask(&[
        ("client_address", &format!("{PROBE}1")),
        ("client_name", "unknown"),
        ("sender", &sender),
        ("recipient", "probe@probe.invalid"),
        ("policy_test_time", PROBE_TIME),
    ]);
}

fn is_of_probe(octets: &[u8]) -> bool {
    octets
        .windows(PROBE.len())
        .any(|window| window == PROBE.as_bytes())
}

/// The records of a database as the dialogue has them.
fn comparable_records(
    dialogue: &Dialogue,
    dir: &Path,
    name: &str,
    database: Database,
) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let escaped = records(&dir.join("db"), database)
        .into_iter()
        // Its keys may be hashed.
        .filter(|(key, value)| !is_of_probe(key) && !value.starts_with(PROBE_TIME.as_bytes()))
        .map(|(key, value)| (dialogue::escape(&key), dialogue::escape(&value)));
    escaped
        .map(|(key, value)| (key, dialogue.comparable(name, &value)))
        .collect()
}

/// The dialogue's databases are those in this directory.
fn assert_same_records(dialogue: &Dialogue, dir: &Path) {
    for (name, database) in [
        ("postgrey", Database::Greylist),
        ("postgrey_clients", Database::Clients),
        ("tarpit_clients", Database::Tarpit),
    ] {
        let expected = dialogue.records(name).unwrap_or_default();
        let found = comparable_records(dialogue, dir, name, database);
        assert_eq!(found, expected, "{} {name}", dialogue.name);
    }
}

/// The whitelists of a dialogue as files, and the options that name them.
fn write_whitelists(dialogue: &Dialogue, dir: &Path) -> [String; 2] {
    [
        ("clients", "whitelist_clients"),
        ("recipients", "whitelist_recipients"),
    ]
    .map(|(option, name)| {
        let path = dir.join(name);
        fs::write(&path, dialogue.whitelist(name)).unwrap();
        format!("--whitelist-{option}={}", path.display())
    })
}

fn play_all(manner: Manner, of: &str) {
    let dialogues: Vec<_> = dialogue::without_clock()
        .into_iter()
        .filter(|dialogue| dialogue.name.starts_with(of))
        .collect();
    assert!(dialogues.len() >= 20);
    for dialogue in &dialogues {
        play(dialogue, manner);
    }
    tell(&format!("replayed: {} dialogues", dialogues.len()));
}

const PLAIN: Manner = Manner {
    connections: 1,
    fragment: 0,
    pipeline: 1,
};

#[test]
fn small_dialogues_are_answered_by_the_server() {
    play_all(PLAIN, "b");
}

#[test]
fn large_dialogues_are_answered_by_the_server() {
    play_all(PLAIN, "o");
}

#[test]
fn dialogues_may_be_spread_over_connections() {
    play_all(
        Manner {
            connections: 7,
            ..PLAIN
        },
        "b",
    );
}

#[test]
fn dialogues_may_come_in_pieces() {
    play_all(
        Manner {
            fragment: 7,
            ..PLAIN
        },
        "b",
    );
}

#[test]
fn requests_may_be_sent_before_the_replies_are_read() {
    play_all(
        Manner {
            pipeline: 5,
            ..PLAIN
        },
        "b",
    );
}

#[test]
fn spawned_sessions_and_a_daemon_together_keep_the_records_of_a_dialogue() {
    for wanted in ["o01-137-defaults", "o14-137t-user"] {
        let dialogues = dialogue::without_clock();
        let dialogue = dialogues
            .iter()
            .find(|dialogue| dialogue.name == wanted)
            .unwrap();
        let dir = test_dir();
        let [clients, recipients] = write_whitelists(dialogue, dir.path());
        let mut options: Vec<&str> = dialogue.options.iter().map(String::as_str).collect();
        options.extend([
            dialogue.compat_option(),
            "--sync=none",
            &clients,
            &recipients,
        ]);
        let mut server = Server::start(dir.path(), &options);
        let mut sessions: Vec<_> = (0..32).map(|_| spawn(dir.path(), &options)).collect();
        let mut daemon = server.connect();
        for (index, text) in dialogue.requests.iter().enumerate() {
            // One of all in turn; a request without an answer leaves no record.
            let client = match index % 33 {
                32 => &mut daemon,
                place => &mut sessions[place].client,
            };
            client.send(text);
            if dialogue.replies[index].is_some() {
                client.reply().unwrap();
                // Renewals are committed after the reply. A session does that
                // before it reads its next request, here one without a record.
                client.send(b"request=smtpd_access_policy\nclient_address=no\n\n");
                client.reply().unwrap();
                if index % 33 == 32 {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        }
        drop(sessions);
        drop(daemon);
        server.stop();
        assert_same_records(dialogue, dir.path());
    }
}

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
