//! The report knows what a triplet is by the rules of the server: real servers, their
//! databases, and their lines.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::common_server::{Server, test_dir};
use super::count::check_total;
use super::million::play;
use super::random::Random;
#[cfg(feature = "redis")]
use super::redis_server::{RedisServer, has};
use super::traffic::{Event, START, letters};
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

/// A client of this network for a server with lists of senders, recipients and names that
/// holds each mail once.
fn with_lists(random: &mut Random, net: usize) -> Vec<Event> {
    let begin = random.below(86_400) as u64;
    let client = format!("11.{}.{}.7", net / 256, net % 256);
    let plain = |later: u64| {
        let sender = format!("{}@{}.example", letters(net), letters(net % 50));
        event(begin + later, &client, "unknown", &sender)
    };
    let passing = |passes_by, event: Event| vec![Event { passes_by, ..event }];
    match random.below(10) {
        0 => passing(
            "sender whitelist",
            Event {
                sender: "boss@vip.example".into(),
                ..plain(0)
            },
        ),
        1 => passing(
            "recipient not opted in",
            Event {
                recipient: "r@out.example".into(),
                ..plain(0)
            },
        ),
        2 => passing(
            "not S25R",
            Event {
                name: "mail.good.example".into(),
                ..plain(0)
            },
        ),
        // Comes again, and is greylisted until it has waited long enough.
        3 => [0, 10, 400, 1000].map(plain).to_vec(),
        // A mail to several: those after the first one are let pass, and DATA names none.
        kind => {
            let count = 1 + random.below(4);
            let mut events: Vec<Event> = (0..count)
                .map(|index| Event {
                    recipient: format!("{}@here.example", letters(index)),
                    passes_by: if index > 0 { "held before" } else { "" },
                    mail: net + 1,
                    ..plain(0)
                })
                .collect();
            if kind > 5 {
                events.push(Event {
                    is_data: true,
                    recipient: String::new(),
                    passes_by: "tarpit passed",
                    mail: net + 1,
                    ..plain(125)
                });
            }
            events
        }
    }
}

#[test]
fn every_reason_is_counted() {
    let seed = Random::choose_seed();
    let mut random = Random::new(seed);
    super::machine::tell(&format!("report: seed {seed}, lists"));
    let dir = test_dir();
    let file = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).display().to_string()
    };
    let senders = format!("--whitelist-senders={}", file("senders", "vip.example\n"));
    let recipients = format!(
        "--greylist-recipients={}",
        file("opted-in", "here.example\n")
    );
    let options = [
        "--targrey",
        "--tarpit=125",
        "--tarpit-per-message",
        "--log-tarpit",
        "--s25r",
        &senders,
        &recipients,
    ];
    let clients = (0..1500).map(|net| with_lists(&mut random, net)).collect();
    let log = dir.path().join("log");
    let events = play(&dir.path().join("lists"), &options, clients, &log);
    let found = summary(&[log.to_str().unwrap()], b"");
    let answers = &found["total"]["answers"];
    assert_eq!(answers["pass"].as_object().unwrap().len(), 6, "{answers}");
    check_total(&found, &events, 0);
    // New records of a network are limited: what has none is new whenever it comes.
    let busy = |net: usize| {
        let client = format!("12.{}.{}.7", net / 256, net % 256);
        let count = 1 + random.below(8);
        let senders = (0..count).map(|index| format!("{}x@many.example", letters(index)));
        let senders: Vec<String> = senders.collect();
        let times = [0, 400, 4400, 4800, 9000];
        let all = times.iter().flat_map(|later| {
            let one = |sender: &String| event(*later, &client, "unknown", sender);
            senders.iter().map(one).collect::<Vec<_>>()
        });
        all.collect()
    };
    let clients = (0..60).map(busy).collect();
    let log = dir.path().join("log-max-new");
    let options = ["--max-new=3", "--auto-whitelist-clients=0"];
    let events = play(&dir.path().join("max-new"), &options, clients, &log);
    let found = summary(&[log.to_str().unwrap()], b"");
    check_total(&found, &events, 0);
    let again = events
        .iter()
        .filter(|event| event.kind() == ("greylist", "new"));
    assert!(again.count() > found["total"]["put_off"].as_u64().unwrap() as usize + 50);
}

#[test]
fn who_was_held_and_waited_is_counted() {
    let dir = test_dir();
    let play = |name: &str, options: &[&str], clients| {
        let log = dir.path().join(format!("{name}.log"));
        let events = play(&dir.path().join(name), options, clients, &log);
        let found = summary(&[log.to_str().unwrap()], b"");
        check_total(&found, &events, 0);
        found
    };
    // taRgrey greylists the second recipient of a mail, and each that comes while its
    // client is in the tarpit.
    let with_two = |net: usize| {
        let client = format!("13.0.{net}.7");
        let sender = format!("{}x@b.example", letters(net));
        let first = |later: u64| event(later, &client, "unknown", &sender);
        let second = |later: u64| Event {
            recipient: "other@here.example".into(),
            ..first(later)
        };
        let data = Event {
            is_data: true,
            passes_by: "tarpit passed",
            ..first(125)
        };
        match net % 4 {
            0 => vec![first(0), second(0), data, second(400)],
            1 => vec![first(0), second(0)],
            2 => vec![first(0), first(60), second(70), first(500)],
            _ => vec![first(0), data],
        }
    };
    let targrey = ["--targrey", "--tarpit=125", "--log-tarpit"];
    let found = play("targrey", &targrey, (0..120).map(with_two).collect());
    let total = &found["total"];
    assert_eq!(
        [
            &total["held"],
            &total["waited"],
            &total["gave_up"],
            &total["came_back"]
        ],
        [120, 60, 60, 60]
            .map(|number| serde_json::json!(number))
            .each_ref()
    );
    assert_eq!(found["notes"], serde_json::json!([]));
}

#[test]
fn the_database_is_read_while_the_server_writes() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &[]);
    let is_over = AtomicBool::new(false);
    let db = server.dbdir.to_str().unwrap();
    let line = "Nov  4 02:00:00 mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from a.example[11.0.0.7]: 450 4.2.0 \
         <r@here.example>: Recipient address rejected: Greylisted; from=<ax@b.example> to=<r@here.example> proto=ESMTP helo=<x>\n";
    let asked = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut stream = BufReader::new(UnixStream::connect(&server.socket).unwrap());
            let mut net = 0;
            while !is_over.load(Ordering::Relaxed) {
                let client = format!("11.{}.{}.7", net / 256, net % 256);
                let sender = format!("{}x@b.example", letters(net));
                let text = event(0, &client, "a.example", &sender).request(net);
                stream.get_mut().write_all(text.as_bytes()).unwrap();
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                assert!(line.starts_with("action=DEFER_IF_PERMIT "), "{line}");
                stream.read_line(&mut line).unwrap();
                net += 1;
            }
            net
        });
        for _ in 0..10 {
            let told = report(&["--dbdir", db], line.as_bytes()).quiet();
            assert_eq!(told.lines().count(), 1, "{told}");
            let page = report(&["--html=-", "--dbdir", db], line.as_bytes()).quiet();
            assert!(page.contains("<h2>The database</h2>"));
        }
        is_over.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    assert!(asked > 50, "{asked}");
    let page = report(&["--html=-", "--dbdir", db], b"").quiet();
    let count = page.split("</i>triplets ").nth(1).unwrap();
    let count = count.split('<').next().unwrap().replace('\u{202f}', "");
    assert_eq!(count, asked.to_string());
}

#[cfg(feature = "redis")]
#[test]
fn what_passes_in_trouble_is_counted() {
    if !has("redis-server", "the report on a server whose Redis is gone") {
        return;
    }
    let mut redis = RedisServer::start(&[]);
    let store = format!("--store={}", redis.url());
    let dir = test_dir();
    let logs = ["before", "after"].map(|name| dir.path().join(format!("{name}.log")));
    let never = |later: u64, passes_by: &'static str| {
        let client = |net: usize| {
            let client = format!("10.1.{net}.7");
            let sender = format!("{}@b.example", letters(net));
            vec![Event {
                passes_by,
                ..event(later, &client, "unknown", &sender)
            }]
        };
        (0..50).map(client).collect::<Vec<_>>()
    };
    let mut events = play(&dir.path().join("1"), &[&store], never(0, ""), &logs[0]);
    redis.kill();
    // Some of them again, and some others.
    let mut later = never(60, "database trouble");
    later.truncate(20);
    for net in 100..110 {
        let other = event(70, &format!("10.1.{net}.7"), "unknown", "other@b.example");
        later.push(vec![Event {
            passes_by: "database trouble",
            ..other
        }]);
    }
    events.extend(play(&dir.path().join("2"), &[&store], later, &logs[1]));
    let logs = logs.each_ref().map(|log| log.to_str().unwrap());
    let found = summary(&logs, b"");
    assert_eq!(found["total"]["answers"]["pass"]["database trouble"], 30);
    check_total(&found, &events, 0);
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
