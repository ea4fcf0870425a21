//! The recorded dialogues, played to the running server in several manners.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use postgrey::policy::record::Database;

use crate::dialogue::{self, Dialogue};
use crate::server::{Client, Server, records, spawn, tell, test_dir};

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
