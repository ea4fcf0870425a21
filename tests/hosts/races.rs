//! Two hosts that see the same triplet, or triplets of one client, at the same instant:
//! what is counted is as if they had come one after the other.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Barrier;
use std::thread;

use postgrey::policy::record::Database;
use postgrey::store::Store;

use crate::redis_server::{RedisServer, has};
use crate::server::{Client, tell, test_dir};
use crate::{alone, start, store};

const RACES: u64 = 5000;
const START: u64 = 1_700_000_000;

fn ask(client: &mut Client, address: &str, sender: &str, now: u64) -> String {
    let now = now.to_string();
    client.ask(&[
        ("client_address", address),
        ("client_name", "unknown"),
        ("sender", sender),
        ("recipient", "b@example.org"),
        ("policy_test_time", &now),
    ])
}

fn address(race: u64) -> String {
    format!("10.{}.{}.1", race / 256, race % 256)
}

/// What two clients are told who ask in each race at the same instant.
fn race(
    clients: &mut [Client; 2],
    question: impl Fn(&mut Client, usize, u64) -> String + Sync,
) -> Vec<[String; 2]> {
    let barrier = Barrier::new(2);
    let (question, barrier) = (&question, &barrier);
    let told = thread::scope(|scope| {
        let threads: Vec<_> = clients
            .iter_mut()
            .enumerate()
            .map(|(host, client)| {
                scope.spawn(move || {
                    let ask = |race| {
                        barrier.wait();
                        question(client, host, race)
                    };
                    (0..RACES).map(ask).collect::<Vec<String>>()
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<Vec<_>>()
    });
    let [first, second] = <[Vec<String>; 2]>::try_from(told).unwrap();
    first
        .into_iter()
        .zip(second)
        .map(<[String; 2]>::from)
        .collect()
}

fn records(url: &str, database: Database) -> BTreeMap<String, String> {
    let mut records = BTreeMap::new();
    let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
    let scanned = store(url, "postgrey").scan(database, b"", None, &mut |entry| {
        records.insert(text(entry.key), text(entry.value));
        ControlFlow::Continue(())
    });
    assert!(scanned.unwrap());
    records
}

#[test]
fn a_retry_is_counted_once_for_each_host_and_never_lost() {
    if !has("redis-server", "races") {
        return;
    }
    let _alone = alone();
    let redis = RedisServer::start(&[]);
    let folder = test_dir();
    let url = redis.unix_url();
    let option = format!("--store={url}");
    let servers = start(2, folder.path(), &[&option, "--retry-count=2"]);
    let mut clients = [servers[0].connect(), servers[1].connect()];
    // First seen by both at once, and retried by both at once: the second retry passes.
    let is_grey = |told: &String| told.starts_with("DEFER_IF_PERMIT");
    let told = race(&mut clients, |client, _, race| {
        ask(client, &address(race), "a@example.com", START)
    });
    assert!(told.iter().flatten().all(is_grey));
    let told = race(&mut clients, |client, _, race| {
        ask(client, &address(race), "a@example.com", START + 400)
    });
    for pair in &told {
        assert_eq!(
            pair.iter().filter(|told| is_grey(told)).count(),
            1,
            "{pair:?}"
        );
    }
    let records = records(&url, Database::Greylist);
    assert_eq!(records.len(), RACES as usize);
    let expected = format!("{START},{},2,1", START + 400);
    assert!(records.values().all(|value| *value == expected));
    tell(&format!("races for a triplet: {}", 2 * RACES));
}

#[test]
fn a_client_is_counted_once_however_many_hosts_it_passes() {
    if !has("redis-server", "races of clients") {
        return;
    }
    let _alone = alone();
    let redis = RedisServer::start(&[]);
    let folder = test_dir();
    let url = redis.unix_url();
    let option = format!("--store={url}");
    let servers = start(2, folder.path(), &[&option, "--auto-whitelist-clients=2"]);
    let mut clients = [servers[0].connect(), servers[1].connect()];
    let senders = ["a@example.com", "b@example.com"];
    race(&mut clients, |client, host, race| {
        ask(client, &address(race), senders[host], START)
    });
    let told = race(&mut clients, |client, host, race| {
        ask(client, &address(race), senders[host], START + 400)
    });
    assert!(
        told.iter()
            .flatten()
            .all(|told| told.starts_with("PREPEND"))
    );
    let records = records(&url, Database::Clients);
    assert_eq!(records.len(), RACES as usize);
    let expected = format!("1,{}", START + 400);
    assert!(records.values().all(|value| *value == expected));
    tell(&format!("races for a client: {}", 2 * RACES));
}
