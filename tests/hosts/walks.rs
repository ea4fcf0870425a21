//! postgreyctl where the place of a record has to be looked for, and beside the records of
//! other sites.

use std::fs;

use postgrey::sys::clock;

use crate::redis_server::{RedisServer, has};
use crate::server::test_dir;
use crate::tool::{ctl, ctl_with_input};
use crate::{beside_others, start};

/// How often Redis was asked for this since it began to count.
fn calls(redis: &RedisServer, command: &str) -> u64 {
    let info: String = redis.ask(&["INFO", "commandstats"]);
    let start = format!("cmdstat_{command}:calls=");
    let line = info.lines().find_map(|line| line.strip_prefix(&start));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[test]
fn many_records_are_looked_for_in_one_walk() {
    if !has(
        "redis-server",
        "many records of which the place is not known",
    ) {
        return;
    }
    const RECORDS: usize = 3000;
    let _beside = beside_others();
    let redis = RedisServer::start(&[]);
    let folder = test_dir();
    let store = format!("--store={}", redis.url());
    let server = start(1, folder.path(), &[&store, "--privacy"]).remove(0);
    let mut client = server.connect();
    let now = clock::seconds() as u64;
    let time = (now - 100).to_string();
    for number in 0..RECORDS {
        let address = format!("10.{}.{}.1", number / 250, number % 250);
        client.ask(&[("client_address", &address), ("policy_test_time", &time)]);
    }
    let exported = ctl(&server.dbdir, &["export", "--format=tab"]).ok();
    assert_eq!(exported.lines().count(), RECORDS);
    // What comes in is newer: each record changes.
    let newer = exported.replace(&format!("{time},0"), &format!("{now},0"));
    let () = redis.ask(&["CONFIG", "RESETSTAT"]);
    let said = ctl_with_input(&server.dbdir, &["import", "-"], newer.as_bytes()).ok();
    assert!(said.contains(&format!("{RECORDS} merged")), "{said}");
    let (looked, committed) = (calls(&redis, "scan"), calls(&redis, "evalsha"));
    assert_eq!(committed, RECORDS as u64);
    // Twice, for two slices of the import, over all names, some hundreds in a step.
    assert!((2..50).contains(&looked), "{looked}");
}

#[test]
fn a_client_that_is_held_twice_is_let_go_at_once() {
    if !has("redis-server", "a client with two records in the tarpit") {
        return;
    }
    let _beside = beside_others();
    let redis = RedisServer::start(&[]);
    let folder = test_dir();
    let pools = folder.path().join("pools");
    fs::write(&pools, "example.com\n").unwrap();
    let pools = format!("--pool-domains={}", pools.display());
    let store = format!("--store={}", redis.url());
    let options = [
        &*store,
        "--lookup-by-domain",
        &pools,
        "--targrey",
        "--tarpit=5",
    ];
    let server = start(1, folder.path(), &options).remove(0);
    let mut client = server.connect();
    let hold = |client: &mut crate::server::Client| {
        // With its name, and while nobody finds that.
        for name in ["mx1.example.com", "unknown"] {
            let reply = client.ask(&[("client_address", "192.0.2.7"), ("client_name", name)]);
            assert!(reply.starts_with("SLEEP"), "{reply}");
        }
        let names: Vec<String> = redis.ask(&["KEYS", "postgrey:tarpit:*"]);
        assert_eq!(names.len(), 2);
    };
    for words in [
        &["delete", "tarpit", "192.0.2.7"][..],
        &["forget", "192.0.2.7"],
    ] {
        hold(&mut client);
        let said = ctl(&server.dbdir, words).ok();
        let held = said.matches("deleted from tarpit: 192.0.2.7").count();
        assert_eq!(held, 1, "{said}");
        let left: Vec<String> = redis.ask(&["KEYS", "postgrey:tarpit:*"]);
        assert_eq!(left, [""; 0], "{words:?}");
        let () = redis.ask(&["FLUSHALL"]);
    }
}

#[test]
fn sites_whose_names_begin_alike_do_not_see_each_other() {
    if !has("redis-server", "several sites on one Redis") {
        return;
    }
    let _beside = beside_others();
    let redis = RedisServer::start(&[]);
    let folder = test_dir();
    let store = format!("--store={}", redis.url());
    let prefixes = ["a", "a:greylist", "a:", "a-z", "é", "postgrey"];
    let options: Vec<[String; 2]> = prefixes
        .iter()
        .map(|prefix| [store.clone(), format!("--store-prefix={prefix}")])
        .collect();
    let count = |number: usize| {
        let words = [&*options[number][0], "--defaults", "dump", "greylist", "--"];
        let said = ctl(
            folder.path(),
            &[&words[..], &[&*options[number][1]]].concat(),
        )
        .ok();
        said.lines().count()
    };
    for (number, options) in options.iter().enumerate() {
        let host = crate::make_host(folder.path(), number);
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let server = crate::server::Server::start(&host, &options);
        let mut client = server.connect();
        for letter in ('a'..).take(number + 1) {
            let sender = format!("{{*}}[{letter}]?@example.net");
            let reply = client.ask(&[("client_address", "192.0.2.7"), ("sender", &sender)]);
            assert!(reply.starts_with("DEFER_IF_PERMIT"), "{number}: {reply}");
        }
    }
    let all: Vec<usize> = (0..prefixes.len()).map(count).collect();
    assert_eq!(all, [1, 2, 3, 4, 5, 6]);
    // What is deleted from one is there for the others.
    let words = [
        &*store,
        "--defaults",
        "forget",
        "192.0.2.7",
        "--",
        &options[0][1],
    ];
    ctl(folder.path(), &words).ok();
    let all: Vec<usize> = (0..prefixes.len()).map(count).collect();
    assert_eq!(all, [0, 2, 3, 4, 5, 6]);
}
