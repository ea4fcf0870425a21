//! What happens between the reading of a request's records and their commit, and answers
//! of commits that are lost on their way.

use std::sync::Arc;

use crate::proxy::{Next, Proxy};
use crate::redis_server::{RedisServer, has, wait_until};
use crate::server::{Client, Server, test_dir};
use crate::{beside_others, start};

const START: u64 = 1_700_000_000;
const TRIPLET: &str = "postgrey:greylist:{192.0.2.0}:192.0.2.0/alice@example.com/user@example.org";
const CLIENT: &str = "postgrey:clients:{192.0.2.0}:192.0.2.7";
const TARPIT: &str = "postgrey:tarpit:{192.0.2.0}:192.0.2.7";

fn ask(client: &mut Client, state: &str, now: u64) -> String {
    client.ask(&[
        ("client_address", "192.0.2.7"),
        ("client_name", "unknown"),
        ("protocol_state", state),
        ("policy_test_time", &now.to_string()),
    ])
}

fn value(redis: &RedisServer, name: &str) -> Option<String> {
    redis.ask(&["GET", name])
}

/// Something happens just before a commit.
struct Between<'a> {
    what: &'a str,
    /// Records that are there when the request comes, and their values.
    before: &'a [(&'a str, &'a str)],
    /// What another host, or time, does then.
    words: &'a [&'a str],
    state: &'a str,
    reply: &'a str,
    /// The records afterwards.
    after: &'a [(&'a str, &'a str)],
}

#[test]
fn what_another_host_does_before_a_commit_is_seen() {
    if !has("redis-server", "records that change before a commit") {
        return;
    }
    let _beside = beside_others();
    let redis = Arc::new(RedisServer::start(&[]));
    let proxy = Proxy::start(redis.port);
    let folder = test_dir();
    let store = format!("--store=redis://127.0.0.1:{}", proxy.port);
    let options = [
        &*store,
        "--targrey",
        "--tarpit=5",
        "--retry-count=2",
        "--auto-whitelist-clients=3",
    ];
    let server = start(1, folder.path(), &options).remove(0);
    let mut client = server.connect();
    let (first, early) = (START.to_string(), (START - 400).to_string());
    let long_ago = (START - 5000).to_string();
    let text = |text: &str| {
        let text = text.replace("<long ago>", &long_ago);
        text.replace("<early>", &early).replace("<now>", &first)
    };
    let waits = [(TRIPLET, "<early>,<early>,0,7")];
    let whitelisted = "PREPEND|DUNNO";
    for case in [
        Between {
            what: "it expires",
            before: &waits,
            words: &["DEL", TRIPLET],
            state: "RCPT",
            reply: "SLEEP",
            after: &[(TRIPLET, "<now>,<now>,0,7"), (TARPIT, "<now>")],
        },
        Between {
            what: "another host has seen it first",
            before: &[],
            words: &["SET", TRIPLET, "<early>,<early>,0,9"],
            state: "RCPT",
            reply: "SLEEP",
            after: &[(TRIPLET, "<early>,<now>,1,7"), (TARPIT, "<now>")],
        },
        Between {
            what: "another host counts a retry",
            before: &waits,
            words: &["SET", TRIPLET, "<early>,<early>,1,7"],
            state: "RCPT",
            reply: "PREPEND",
            after: &[(TRIPLET, "<early>,<now>,2,7"), (CLIENT, "1,<now>")],
        },
        Between {
            what: "another host holds it",
            before: &waits,
            words: &["SET", TARPIT, "<now>"],
            state: "RCPT",
            reply: "DEFER_IF_PERMIT",
            after: &[(TRIPLET, "<early>,<now>,1,7"), (TARPIT, "<now>")],
        },
        Between {
            what: "another host puts the client on the auto-whitelist",
            before: &[(TRIPLET, "<early>,<early>,0,7"), (CLIENT, "2,<long ago>")],
            words: &["SET", CLIENT, "3,<now>"],
            state: "RCPT",
            reply: whitelisted,
            after: &[(TRIPLET, "<early>,<early>,0,7"), (CLIENT, "3,<now>")],
        },
        Between {
            what: "another host counts the client",
            before: &[(TRIPLET, "<early>,<early>,1,7"), (CLIENT, "1,<long ago>")],
            words: &["SET", CLIENT, "2,<now>"],
            state: "RCPT",
            reply: "PREPEND",
            after: &[(TRIPLET, "<early>,<now>,2,7"), (CLIENT, "2,<now>")],
        },
        Between {
            what: "another host has let it go",
            before: &[(TARPIT, "<now>")],
            words: &["DEL", TARPIT],
            state: "DATA",
            reply: "DUNNO",
            after: &[(CLIENT, "1,<now>")],
        },
        Between {
            what: "Redis loses its scripts",
            before: &waits,
            words: &["SCRIPT", "FLUSH"],
            state: "RCPT",
            reply: "SLEEP",
            after: &[(TRIPLET, "<early>,<now>,1,7"), (TARPIT, "<now>")],
        },
    ] {
        let () = redis.ask(&["FLUSHALL"]);
        for (name, value) in case.before {
            let () = redis.ask(&["SET", name, &text(value)]);
        }
        let words: Vec<String> = case.words.iter().map(|word| text(word)).collect();
        let there = redis.clone();
        proxy.at_next_commit(Next::Before(Box::new(move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let _: redis::Value = there.ask(&words);
        })));
        let reply = ask(&mut client, case.state, START);
        assert!(!proxy.still_waits(), "{}", case.what);
        assert!(
            case.reply.split('|').any(|start| reply.starts_with(start)),
            "{}: {reply}",
            case.what
        );
        let mut names: Vec<String> = redis.ask(&["KEYS", "*"]);
        names.sort();
        let mut expected: Vec<&str> = case.after.iter().map(|(name, _)| *name).collect();
        expected.sort_unstable();
        assert_eq!(names, expected, "{}", case.what);
        for (name, value) in case.after {
            let found = self::value(&redis, name);
            assert_eq!(found, Some(text(value)), "{}", case.what);
            // Who has not written it has not set its time to live.
            let is_written = case.words.first() != Some(&"SET") || case.words[2] != *value;
            let is_written = is_written && !case.before.contains(&(name, value));
            let left: i64 = redis.ask(&["PTTL", name]);
            let expected = match is_written {
                true => time_to_live(name, value),
                false => -1..=-1,
            };
            assert!(expected.contains(&left), "{}: {name} {left}", case.what);
        }
    }
    let log = server.log_text();
    assert!(!log.contains("ungreylisted"), "{log}");
}

/// Milliseconds that a record is kept which was written in the last seconds.
fn time_to_live(name: &str, value: &str) -> std::ops::RangeInclusive<i64> {
    const DAY: i64 = 86_400_000;
    // A triplet that has waited, and a client; one that was seen once, and the tarpit.
    let has_passed = name == CLIENT || (name == TRIPLET && value.starts_with("<early>"));
    let all = if has_passed { 35 * DAY } else { 2 * DAY };
    all - 20_000..=all + 1000
}

/// The answer of a commit is lost: the client is not told what may not be so, nobody
/// asks Redis to do it again, and it counts once.
#[test]
fn a_commit_whose_answer_is_lost_counts_once() {
    if !has("redis-server", "answers of commits that are lost") {
        return;
    }
    let _beside = beside_others();
    let redis = RedisServer::start(&[]);
    let proxy = Proxy::start(redis.port);
    let folder = test_dir();
    let store = format!("--store=redis://127.0.0.1:{}", proxy.port);
    let server = start(1, folder.path(), &[&store, "--retry-count=3"]).remove(0);
    let mut client = server.connect();
    for (now, record) in [
        (START, format!("{START},{START},0,7")),
        (START + 400, format!("{START},{},1,7", START + 400)),
        (START + 500, format!("{START},{},2,7", START + 500)),
    ] {
        proxy.at_next_commit(Next::LoseAnswer);
        assert_eq!(ask(&mut client, "RCPT", now), "DUNNO");
        assert_eq!(value(&redis, TRIPLET), Some(record));
        wait_until_well(&server);
    }
    // It passes: it has waited before, so there is no header.
    assert_eq!(ask(&mut client, "RCPT", START + 600), "DUNNO");
    let record = format!("{START},{},3,7", START + 600);
    assert_eq!(value(&redis, TRIPLET), Some(record));
    assert_eq!(server.log_text().matches("ungreylisted").count(), 1);
}

/// By other records than those that are looked at.
fn wait_until_well(server: &Server) {
    let mut client = server.connect();
    wait_until("greylisting again", || {
        let reply = client.ask(&[
            ("client_address", "198.51.100.1"),
            ("client_name", "unknown"),
            ("policy_test_time", "1600000000"),
        ]);
        reply.starts_with("DEFER")
    });
}
