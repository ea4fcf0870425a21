//! A real cluster: six processes on this machine.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postgrey::store::redis::client::{Client, Request};

use crate::server::{NODE_TIMEOUT, RedisCluster, has};
use crate::*;

pub(crate) fn slot_of(text: &str) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(text.as_bytes()) % 16384
}

/// For each slot a text that lies in it.
fn texts() -> Vec<String> {
    let mut texts = vec![String::new(); 16384];
    let mut missing = texts.len();
    for number in 0.. {
        let text = number.to_string();
        let place = &mut texts[usize::from(slot_of(&text))];
        if place.is_empty() {
            *place = text;
            missing -= 1;
            if missing == 0 {
                break;
            }
        }
    }
    texts
}

#[test]
fn all_slots_are_reached_also_while_they_move() {
    if !has("redis-server", "a cluster of Redis, slots that move") {
        return;
    }
    let cluster = RedisCluster::start(&[]);
    // One seed leads to all; a replica will do.
    let seed = format!("redis-cluster://127.0.0.1:{}", cluster.nodes[4].port);
    let mut client = Client::new(options(&seed), SCRIPTS);
    let texts = texts();
    for texts in texts.chunks(2000) {
        let sets: Vec<_> = texts
            .iter()
            .map(|text| set(&format!("{{{text}}}a"), text))
            .collect();
        for answer in ask_all(&mut client, &sets, AMPLE) {
            assert_eq!(answer, Ok(Value::Okay));
        }
    }
    let sizes: Vec<i64> = (0..3)
        .map(|node| cluster.nodes[node].ask(&["DBSIZE"]))
        .collect();
    assert_eq!((sizes.iter().sum::<i64>(), sizes[0]), (16384, 5461));
    let deadline = Instant::now() + AMPLE;
    let nodes = client.nodes(deadline).unwrap();
    assert_eq!(nodes.len(), 3);
    for node in &nodes {
        let size = client.ask_node(node, &[b"DBSIZE"], deadline).unwrap();
        assert!(matches!(size, Value::Int(5461 | 5462)), "{size:?}");
    }
    // The probe tries each of them.
    let notes = client.probe("p", deadline).unwrap();
    let forgets = notes
        .iter()
        .filter(|note| note.contains("keeps nothing on a disk"));
    assert_eq!(forgets.count(), 3, "{notes:?}");
    // Slots with many keys move there and back.
    let moving = &texts[..12];
    for text in moving {
        let more: Vec<_> = (0..30)
            .map(|number| set(&format!("{{{text}}}{number}"), text))
            .collect();
        for answer in ask_all(&mut client, &more, AMPLE) {
            answer.unwrap();
        }
    }
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            for (from, to) in [(0, 1), (1, 2), (2, 0)] {
                for slot in 0..12 {
                    cluster.move_slot(slot, from, to);
                }
            }
            is_over.store(true, Ordering::SeqCst);
        });
        let mut rounds = 0;
        let mut again = 0;
        while !is_over.load(Ordering::SeqCst) || rounds == 0 {
            let ones: Vec<_> = moving
                .iter()
                .flat_map(|text| (0..30).map(move |number| get(&format!("{{{text}}}{number}"))))
                .collect();
            let start = Instant::now();
            for (number, answer) in ask_all(&mut client, &ones, AMPLE).into_iter().enumerate() {
                assert_eq!(answer, Ok(text(&moving[number / 30])));
            }
            // Several keys: while one is there and another not, it cannot be done.
            let scripts: Vec<_> = moving
                .iter()
                .map(|text| {
                    let keys = [format!("{{{text}}}1"), format!("{{{text}}}29")];
                    Request::script(1, &[keys[0].as_bytes(), keys[1].as_bytes()], &[])
                })
                .collect();
            for (number, answer) in ask_all(&mut client, &scripts, AMPLE)
                .into_iter()
                .enumerate()
            {
                match answer {
                    Ok(value) => assert_eq!(value, text(&moving[number])),
                    Err(error) => {
                        assert_eq!(error.reason, "the slot is being moved (TRYAGAIN)");
                        again += 1;
                    }
                }
            }
            assert!(start.elapsed() < Duration::from_secs(2));
            rounds += 1;
        }
        println!("{rounds} rounds while slots moved, {again} scripts to be tried again later");
    });
}

#[test]
fn a_master_that_is_killed_costs_its_slots_only_until_its_replica_has_won() {
    if !has("redis-server", "a cluster of Redis, a master killed") {
        return;
    }
    let mut cluster = RedisCluster::start(&["--cluster-require-full-coverage", "no"]);
    let mut client = Client::new(options(&cluster.url()), SCRIPTS);
    let texts = texts();
    let (own, others): (Vec<_>, Vec<_>) = (0..16384)
        .step_by(400)
        .map(|slot| set(&texts[slot], &texts[slot]))
        .enumerate()
        .partition(|(number, _)| number * 400 <= 5460);
    let requests = |list: Vec<(usize, Request)>| -> Vec<_> {
        list.into_iter().map(|(_, request)| request).collect()
    };
    let (own, others) = (requests(own), requests(others));
    let all: Vec<_> = own.iter().chain(&others).cloned().collect();
    for answer in ask_all(&mut client, &all, AMPLE) {
        answer.unwrap();
    }
    cluster.nodes[0].kill();
    let killed = Instant::now();
    let (mut rounds, mut slowest) = (0, Duration::ZERO);
    loop {
        let start = Instant::now();
        let answers = ask_all(&mut client, &all, TIME);
        slowest = slowest.max(start.elapsed());
        for answer in &answers[own.len()..] {
            assert_eq!(answer, &Ok(Value::Okay), "after {:?}", killed.elapsed());
        }
        if answers[..own.len()].iter().all(Result::is_ok) {
            break;
        }
        rounds += 1;
        assert!(killed.elapsed() < Duration::from_secs(30), "{answers:?}");
        thread::sleep(Duration::from_millis(10));
    }
    let took = killed.elapsed();
    assert!(cluster.is_master(3));
    assert!(
        took > Duration::from_millis(NODE_TIMEOUT / 2) && rounds > 10,
        "{took:?}"
    );
    assert!(slowest < LATEST, "{slowest:?}");
    println!("found again {took:?} after the kill, {rounds} rounds, slowest {slowest:?}");
    // A new client finds it, too, though the first seed is dead.
    let mut client = Client::new(options(&cluster.url()), SCRIPTS);
    for request in &all {
        // The other masters may hear of the new one a moment later.
        assert_eq!(ask_until_well(&mut client, request), Value::Okay);
    }
}

#[test]
fn a_cluster_is_told_from_a_server() {
    if !has(
        "redis-server",
        "a server that is no cluster, and the other way round",
    ) {
        return;
    }
    let server = crate::server::RedisServer::start(&[]);
    let url = format!("redis-cluster://127.0.0.1:{}", server.port);
    let no_cluster = reason(ask(&mut client(&url), get("a"), AMPLE));
    assert_eq!(
        no_cluster,
        "the server is no cluster: use redis:// or rediss://"
    );
    // Without slots.
    let server = crate::server::RedisServer::start(&["--cluster-enabled", "yes"]);
    let url = format!("redis-cluster://127.0.0.1:{}", server.port);
    let no_slots = reason(ask(&mut client(&url), get("a"), AMPLE));
    assert_eq!(no_slots, "it knows of no slots");
    let () = server.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16000"]);
    let plain = reason(ask(&mut client(&server.url()), get("a"), AMPLE));
    assert!(plain.starts_with("the cluster is down"), "{plain}");
    // It is to be known by a name, and has none.
    let setting = "cluster-preferred-endpoint-type";
    let () = server.ask(&["CONFIG", "SET", setting, "hostname"]);
    let nameless = reason(ask(&mut client(&url), get("a"), AMPLE));
    let why = "its nodes do not tell their names (cluster-announce-hostname)";
    assert_eq!(nameless, why);
}
