//! Two hosts that see the same triplet, or triplets of one client, at the same instant:
//! what is counted is as if they had come one after the other.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::sync::Barrier;
use std::thread;

use postgrey::policy::record::Database;
use postgrey::store::Store;

use crate::random::number_from;
use crate::redis_server::{RedisCluster, RedisServer, has};
use crate::server::{Client, tell, test_dir};
use crate::{beside_others, start, store};

/// On a cluster there are a fifth as many.
fn races() -> u64 {
    // As many as there are networks.
    number_from("POSTGREY_RACES", 5000).min(65536)
}

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
    races: u64,
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
                    (0..races).map(ask).collect::<Vec<String>>()
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

/// First seen by both at once, and retried by both at once: the second retry passes.
fn race_for_triplets(url: &str, races: u64) {
    let folder = test_dir();
    let option = format!("--store={url}");
    let servers = start(2, folder.path(), &[&option, "--retry-count=2"]);
    let mut clients = [servers[0].connect(), servers[1].connect()];
    let is_grey = |told: &String| told.starts_with("DEFER_IF_PERMIT");
    let told = race(races, &mut clients, |client, _, race| {
        ask(client, &address(race), "a@example.com", START)
    });
    assert!(told.iter().flatten().all(is_grey));
    let told = race(races, &mut clients, |client, _, race| {
        ask(client, &address(race), "a@example.com", START + 400)
    });
    for pair in &told {
        let grey = pair.iter().filter(|told| is_grey(told)).count();
        assert_eq!(grey, 1, "{pair:?}");
    }
    let records = records(url, Database::Greylist);
    assert_eq!(records.len() as u64, races);
    let expected = format!("{START},{},2,1", START + 400);
    assert!(records.values().all(|value| *value == expected));
    tell(&format!("races for a triplet: {}", 2 * races));
}

/// Two triplets of one client pass at once: it is counted once.
fn race_for_clients(url: &str, races: u64) {
    let folder = test_dir();
    let option = format!("--store={url}");
    let servers = start(2, folder.path(), &[&option, "--auto-whitelist-clients=2"]);
    let mut clients = [servers[0].connect(), servers[1].connect()];
    let senders = ["a@example.com", "b@example.com"];
    race(races, &mut clients, |client, host, race| {
        ask(client, &address(race), senders[host], START)
    });
    let told = race(races, &mut clients, |client, host, race| {
        ask(client, &address(race), senders[host], START + 400)
    });
    let has_passed = |told: &String| told.starts_with("PREPEND");
    assert!(told.iter().flatten().all(has_passed));
    let records = records(url, Database::Clients);
    assert_eq!(records.len() as u64, races);
    let expected = format!("1,{}", START + 400);
    assert!(records.values().all(|value| *value == expected));
    tell(&format!("races for a client: {}", 2 * races));
}

/// A client comes by two names, of two pools, whose records lie apart: its own record
/// is one, and beside neither.
fn race_for_groups(url: &str, races: u64) {
    let folder = test_dir();
    let option = format!("--store={url}");
    let pools = folder.path().join("pools");
    fs::write(&pools, "example.com\nexample.net\n").unwrap();
    let pools = format!("--pool-domains={}", pools.display());
    let options = [
        &*option,
        "--lookup-by-domain",
        &pools,
        "--auto-whitelist-clients=1",
    ];
    let servers = start(2, folder.path(), &options);
    let mut clients = [servers[0].connect(), servers[1].connect()];
    let ask = |client: &mut Client, race: u64, name: &str, sender: &str, now: u64| {
        client.ask(&[
            ("client_address", &address(race)),
            ("client_name", name),
            ("sender", sender),
            ("policy_test_time", &now.to_string()),
        ])
    };
    for race in 0..races {
        for now in [START, START + 400] {
            ask(&mut clients[0], race, "unknown", "a@example.com", now);
        }
    }
    // It is on the auto-whitelist by its address, and seen again by both.
    let names = ["mx.example.com", "mx.example.net"];
    let told = race(races, &mut clients, |client, host, race| {
        ask(client, race, names[host], "new@example.com", START + 5000)
    });
    assert!(told.iter().flatten().all(|told| told == "DUNNO"));
    let records = records(url, Database::Clients);
    let own: Vec<_> = records
        .iter()
        .filter(|(key, _)| key.starts_with("10."))
        .collect();
    assert_eq!(own.len() as u64, races);
    assert!(
        own.iter()
            .all(|(_, value)| value.ends_with(&format!(",{}", START + 5000)))
    );
    for server in &servers {
        assert!(
            !server.log_text().contains("ungreylisted"),
            "{}",
            server.log_text()
        );
    }
    tell(&format!("races from two groups: {}", 2 * races));
}

#[test]
fn a_retry_is_counted_once_for_each_host_and_never_lost() {
    if !has("redis-server", "races") {
        return;
    }
    let _beside = beside_others();
    let redis = RedisServer::start(&[]);
    race_for_triplets(&redis.unix_url(), races());
}

#[test]
fn a_client_is_counted_once_however_many_hosts_it_passes() {
    if !has("redis-server", "races of clients") {
        return;
    }
    let _beside = beside_others();
    let redis = RedisServer::start(&[]);
    race_for_clients(&redis.unix_url(), races());
}

#[test]
fn races_on_a_cluster_are_the_same() {
    if !has("redis-server", "races on a cluster") {
        return;
    }
    let _beside = beside_others();
    let cluster = RedisCluster::start(&[]);
    for race in [race_for_triplets, race_for_clients, race_for_groups] {
        race(&cluster.url(), races() / 5);
        for node in &cluster.nodes[..3] {
            let () = node.ask(&["FLUSHALL"]);
        }
    }
}
