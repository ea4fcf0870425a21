//! The report knows what a triplet is by the rules of the server: real servers, their
//! databases, and their lines.

use std::fs;
use std::path::Path;

use super::common_server::test_dir;
use super::million::play;
#[cfg(feature = "redis")]
use super::redis_server::{RedisServer, has};
use super::traffic::{Event, START};
use super::{report, summary};

/// A request so many seconds after the start.
fn event(later: u64, client: &str, name: &str, sender: &str) -> Event {
    Event {
        time: START + later,
        client: client.into(),
        name: name.into(),
        sender: sender.into(),
        recipient: "r@here.example".into(),
        ..Event::default()
    }
}

/// Clients that come back after 400 seconds, and one that never does.
fn clients() -> Vec<Vec<Event>> {
    let back = |first: &str, second: &str, domain: &str| {
        let sender = format!("a@{domain}");
        vec![
            event(0, first, &format!("mail-a.{domain}"), &sender),
            event(400, second, &format!("mail-b.{domain}"), &sender),
        ]
    };
    vec![
        back("10.1.1.7", "10.1.1.8", "one.example"),
        back("10.2.1.7", "10.2.1.7", "two.example"),
        // Known by its domain, or by the 16 bits of its network.
        back("10.3.1.7", "10.3.9.7", "google.com"),
        // Suspect, and so known by its address.
        back("10.4.1.7", "10.4.1.8", "suspect.example"),
        vec![event(0, "10.5.1.7", "never.example", "a@never.example")],
    ]
}

/// What a server with these options did, by the report beside its database, and by the
/// log alone: the third numbers of the clients that never came back, and how many
/// triplets there were.
fn told(options: &[&str]) -> (Vec<String>, u64) {
    let dir = test_dir();
    let log = dir.path().join("mail.log");
    let home = dir.path().join("server");
    play(&home, options, clients(), &log);
    let log = log.to_str().unwrap();
    let db = home.join("db");
    let words = ["--dbdir", db.to_str().unwrap(), "--tab", log];
    let second = |line: &str| line.split('.').nth(1).unwrap().to_owned();
    let never = report(&words, b"").quiet();
    let never: Vec<String> = never.lines().map(second).collect();
    let found = summary(&[words[0], words[1], log], b"");
    let total = &found["total"];
    let put_off = total["put_off"].as_u64().unwrap();
    let back = total["came_back"].as_u64().unwrap();
    assert_eq!(put_off - back, never.len() as u64, "{options:?}: {total}");
    // By the log alone, with the options of the server.
    let bare = dir.path().join("bare");
    fs::create_dir(&bare).unwrap();
    fs::copy(db.join("postgrey.options"), bare.join("postgrey.options")).unwrap();
    let again = summary(&["--dbdir", bare.to_str().unwrap(), log], b"");
    assert_eq!(again["total"], found["total"], "{options:?}");
    (never, total["triplets"].as_u64().unwrap())
}

fn suspects(dir: &Path) -> String {
    let list = dir.join("suspects");
    fs::write(&list, "suspect.example\n").unwrap();
    format!("--suspect-clients={}", list.display())
}

#[test]
fn triplets_are_those_of_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let suspects = suspects(dir.path());
    for (options, never, triplets) in [
        (&[][..], &["3", "3", "5"][..], 6),
        (&["--privacy"], &["3", "3", "5"], 6),
        (&["--lookup-by-domain"], &["5"], 5),
        (&["--lookup-by-domain", "--privacy"], &["5"], 5),
        (&["--ipv4cidr=16"], &["5"], 5),
        (
            &["--lookup-by-host"],
            &["1", "1", "3", "3", "4", "4", "5"],
            8,
        ),
        (&[&suspects], &["3", "3", "4", "4", "5"], 7),
        (&[&suspects, "--lookup-by-domain"], &["4", "4", "5"], 6),
    ] {
        let (own, count) = told(options);
        assert_eq!(
            (&own[..], count),
            (
                &never.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()[..],
                triplets
            ),
            "{options:?}"
        );
    }
}

#[cfg(feature = "redis")]
#[test]
fn the_records_may_be_in_redis() {
    if !has(
        "redis-server",
        "the report on a server whose records are in Redis",
    ) {
        return;
    }
    let redis = RedisServer::start(&[]);
    let store = format!("--store={}", redis.url());
    let (never, triplets) = told(&[&store, "--privacy"]);
    assert_eq!((never.join(" "), triplets), ("3 3 5".into(), 6));
    // The page tells of them, too.
    let dir = test_dir();
    let home = dir.path().join("server");
    let log = dir.path().join("mail.log");
    play(&home, &[&store, "--store-prefix=other"], clients(), &log);
    let db = home.join("db");
    let words = [
        "--html=-",
        "--dbdir",
        db.to_str().unwrap(),
        log.to_str().unwrap(),
    ];
    let page = report(&words, b"").quiet();
    assert!(
        page.contains("<i class=\"grey\"></i>triplets 6</li>"),
        "{page}"
    );
    // One that does not answer.
    drop(redis);
    let said = report(&words[1..], b"").failed(2);
    assert!(said.starts_with("ERROR: "), "{said}");
    let ran = report(&words, b"");
    assert!(ran.text().contains("What greylisting did"));
    ran.failed(1);
}
