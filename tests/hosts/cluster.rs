//! Two servers on a cluster whose slots move, and of which a master fails.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::redis_server::{NODE_TIMEOUT, RedisCluster, has, wait_until};
use crate::server::{Client, Server, tell, test_dir};
use crate::{alone, start};

const START: u64 = 1_700_000_000;
/// The longest that any client waits.
const LONGEST: Duration = Duration::from_millis(1200);
/// What asynchronous replication may be behind.
const REPLICATION_LAG: Duration = Duration::from_secs(1);

fn slot_of(network: &str) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(network.as_bytes()) % 16384
}

/// The first two numbers after 10 of networks whose records are in these slots.
fn networks(is_wanted: impl Fn(u16) -> bool) -> Vec<(u8, u8)> {
    let all = (0..=255).flat_map(|second| (0..=255).map(move |third| (second, third)));
    all.filter(|(second, third)| is_wanted(slot_of(&format!("10.{second}.{third}.0"))))
        .collect()
}

fn ask(client: &mut Client, network: (u8, u8), sender: &str, now: u64) -> String {
    client.ask(&[
        (
            "client_address",
            &format!("10.{}.{}.1", network.0, network.1),
        ),
        ("client_name", "unknown"),
        ("sender", sender),
        ("policy_test_time", &now.to_string()),
    ])
}

fn is_grey(reply: &str) -> bool {
    reply.starts_with("DEFER_IF_PERMIT")
}

#[test]
fn no_answer_is_wrong_while_slots_move() {
    if !has("redis-server", "servers on a cluster, slots that move") {
        return;
    }
    let _alone = alone();
    let cluster = RedisCluster::start(&[]);
    let folder = test_dir();
    let option = format!("--store={}", cluster.url());
    let servers = start(2, folder.path(), &[&option, "--auto-whitelist-clients=0"]);
    let networks = networks(|slot| slot < 8);
    // Slots that are not moved in an instant.
    let mut client = servers[0].connect();
    for &network in &networks {
        for number in 0..50 {
            let sender = format!("s{number}@example.com");
            assert!(is_grey(&ask(&mut client, network, &sender, START)));
        }
    }
    let is_over = AtomicBool::new(false);
    let [asked, longest, ungreylisted] = [0; 3].map(AtomicU64::new);
    thread::scope(|scope| {
        for thread in 0..4 {
            let (networks, servers, is_over) = (&networks, &servers, &is_over);
            let (asked, longest, ungreylisted) = (&asked, &longest, &ungreylisted);
            scope.spawn(move || {
                let mut clients = [servers[0].connect(), servers[1].connect()];
                let mut number = 0;
                while !is_over.load(Ordering::Relaxed) || number == 0 {
                    number += 1;
                    let sender = format!("t{thread}n{number}@example.net");
                    let network = networks[number % networks.len()];
                    // First seen at one host, passed at the other, known at both.
                    for (host, (later, start)) in [
                        (0, "DEFER"),
                        (10, "DEFER"),
                        (300, "PREPEND"),
                        (301, "DUNNO"),
                    ]
                    .into_iter()
                    .enumerate()
                    {
                        let client = &mut clients[(host + number) % 2];
                        let begun = Instant::now();
                        let reply = ask(client, network, &sender, START + later);
                        let took = begun.elapsed().as_micros() as u64;
                        longest.fetch_max(took, Ordering::Relaxed);
                        asked.fetch_add(1, Ordering::Relaxed);
                        if reply == "DUNNO" && start != "DUNNO" {
                            // Redis takes no new record beside an old one there, until
                            // the slot has moved.
                            ungreylisted.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        assert!(reply.starts_with(start), "{network:?} {later}: {reply}");
                    }
                }
            });
        }
        let moved = thread::Builder::new()
            .spawn_scoped(scope, || {
                for (from, to) in [(0, 1), (1, 2), (2, 0)] {
                    for slot in 0..8 {
                        cluster.move_slot(slot, from, to);
                    }
                }
            })
            .unwrap()
            .join();
        is_over.store(true, Ordering::Relaxed);
        moved.unwrap();
    });
    let (asked, ungreylisted) = (asked.into_inner(), ungreylisted.into_inner());
    for server in &servers {
        for line in server.log_text().lines() {
            assert!(
                !line.contains("ungreylisted") || line.contains("(TRYAGAIN)"),
                "{line}"
            );
        }
    }
    assert!(ungreylisted * 4 < asked, "{ungreylisted} of {asked}");
    tell(&format!(
        "slots that moved: {asked} requests, none answered wrongly, {ungreylisted} without \
         greylisting, longest answer {} ms",
        longest.into_inner() / 1000
    ));
}

/// A new triplet that was asked about.
struct Asked {
    network: (u8, u8),
    sender: String,
    at: Instant,
    took: Duration,
    reply: String,
}

/// Asks one server about new triplets of these networks until it is over.
fn ask_on(server: &Server, networks: &[(u8, u8)], name: &str, is_over: &AtomicBool) -> Vec<Asked> {
    let mut client = server.connect();
    let mut all = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let number = all.len();
        let network = networks[number % networks.len()];
        let sender = format!("s{number}@{name}");
        let at = Instant::now();
        let reply = ask(&mut client, network, &sender, START);
        all.push(Asked {
            network,
            sender,
            at,
            took: at.elapsed(),
            reply,
        });
        thread::sleep(Duration::from_millis(2));
    }
    all
}

/// Of the nodes of a cluster of which a part may fail.
pub const ALONE: [&str; 2] = ["--cluster-require-full-coverage", "no"];

/// A master fails in one way or another while two servers, with these options, use the
/// cluster.
pub fn master_fails(
    what: &str,
    mut cluster: RedisCluster,
    options: &[&str],
    fail: impl FnOnce(&mut RedisCluster),
) {
    let folder = test_dir();
    let option = format!("--store={}", cluster.url());
    let options = [&[&*option, "--auto-whitelist-clients=0"], options].concat();
    let servers = start(2, folder.path(), &options);
    let shards =
        [0..5461, 5461..10923, 10923..16384].map(|range| networks(|slot| range.contains(&slot)));
    let is_over = AtomicBool::new(false);
    let mut failed_at = Instant::now();
    let mut back_at = failed_at;
    let asked: Vec<(usize, Vec<Asked>)> = thread::scope(|scope| {
        let mut threads = Vec::new();
        for (shard, networks) in shards.iter().enumerate() {
            for (host, server) in servers.iter().enumerate() {
                let is_over = &is_over;
                let name = format!("{shard}.{host}.example");
                let thread = scope.spawn(move || ask_on(server, networks, &name, is_over));
                threads.push((shard, thread));
            }
        }
        thread::sleep(Duration::from_secs(1));
        failed_at = Instant::now();
        fail(&mut cluster);
        let mut clients = [servers[0].connect(), servers[1].connect()];
        let mut number = 0;
        wait_until("the shard is back", || {
            number += 1;
            let sender = format!("s{number}@probe");
            // At both hosts, and not before the replica has won.
            cluster.is_master(3)
                && clients
                    .iter_mut()
                    .all(|client| is_grey(&ask(client, shards[0][0], &sender, START)))
        });
        back_at = Instant::now();
        thread::sleep(Duration::from_secs(1));
        is_over.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .map(|(shard, thread)| (shard, thread.join().unwrap()))
            .collect()
    });
    // A new triplet is greylisted, or passes for want of its shard; no other way.
    let (mut passed, mut longest) = (0, Duration::ZERO);
    for (shard, asked) in asked
        .iter()
        .flat_map(|(shard, all)| all.iter().map(move |one| (shard, one)))
    {
        longest = longest.max(asked.took);
        if is_grey(&asked.reply) {
            continue;
        }
        assert_eq!(asked.reply, "DUNNO");
        let after = asked.at.saturating_duration_since(failed_at);
        assert_eq!(*shard, 0, "after {after:?}");
        assert!(
            asked.at + asked.took >= failed_at && asked.at <= back_at,
            "{after:?}"
        );
        passed += 1;
    }
    assert!(passed > 0 && longest < LONGEST, "{passed}, {longest:?}");
    // What was seen before is known, but for what the replica had not got.
    let mut clients = [servers[0].connect(), servers[1].connect()];
    let mut kept: BTreeMap<usize, usize> = BTreeMap::new();
    let mut lost = 0;
    for (index, (shard, all)) in asked.iter().enumerate() {
        for asked in all.iter().filter(|asked| is_grey(&asked.reply)) {
            let client = &mut clients[index % 2];
            let reply = ask(client, asked.network, &asked.sender, START + 300);
            if reply.starts_with("PREPEND") {
                *kept.entry(*shard).or_default() += 1;
                continue;
            }
            assert!(is_grey(&reply), "{reply}");
            assert_eq!(*shard, 0);
            let before = failed_at.saturating_duration_since(asked.at);
            assert!(
                asked.at < failed_at + REPLICATION_LAG && before < REPLICATION_LAG,
                "{before:?}"
            );
            lost += 1;
        }
    }
    assert!(
        kept.len() == 3 && kept.values().all(|&count| count > 50),
        "{kept:?}"
    );
    let after = back_at - failed_at;
    assert!(after < Duration::from_millis(NODE_TIMEOUT) + Duration::from_secs(15));
    tell(&format!(
        "a master that {what}: back after {:.1} s, {passed} answers of its shard without \
         greylisting, longest {} ms, {lost} triplets lost of {}",
        after.as_secs_f64(),
        longest.as_millis(),
        lost + kept[&0],
    ));
    for server in &servers {
        let log = server.log_text();
        let lines = log
            .lines()
            .filter(|line| line.contains("ungreylisted"))
            .count();
        // As many as there are ways to notice it, not as there are requests.
        assert!((1..=6).contains(&lines), "{log}");
    }
}

#[test]
fn a_master_that_ends_costs_the_others_nothing() {
    if !has("redis-server", "servers on a cluster, a master killed") {
        return;
    }
    let _alone = alone();
    let cluster = RedisCluster::start(&ALONE);
    master_fails("was killed", cluster, &[], |cluster| {
        cluster.nodes[0].kill();
    });
}

#[test]
fn a_master_that_hangs_costs_the_others_nothing() {
    if !has("redis-server", "servers on a cluster, a master that hangs") {
        return;
    }
    let _alone = alone();
    let cluster = RedisCluster::start(&ALONE);
    master_fails("hung", cluster, &[], |cluster| {
        cluster.nodes[0].signal(Signal::SIGSTOP);
    });
}
