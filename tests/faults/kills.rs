//! kill -9 of random children under load: what was answered is in the store.

use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use postgrey::policy::record::Database;

use crate::random::{Random, number_from};
use crate::server::{Client, Server, free_port, request, test_dir};

const CLIENTS: usize = 8;

/// What happened to the requests of all clients.
#[derive(Default)]
struct Traffic {
    /// Senders whose triplet the server greylisted, and when it was.
    answered: Mutex<Vec<(String, String)>>,
    /// Passed since the store failed: allowed, since mail goes on.
    dunno: AtomicUsize,
    broken: AtomicUsize,
    longest: Mutex<Duration>,
    is_over: AtomicBool,
}

#[test]
fn what_was_answered_survives_the_death_of_any_child() {
    kill_children_under_load("--sync=commit", 3);
}

#[test]
fn what_was_answered_survives_the_death_of_the_only_worker() {
    kill_children_under_load("--sync=commit", 1);
}

#[test]
fn without_flushes_it_survives_as_well() {
    kill_children_under_load("--sync=none", 3);
}

fn kill_children_under_load(sync: &str, workers: usize) {
    let kills = number_from("POSTGREY_KILLS", 50);
    let folder = test_dir();
    let port = free_port();
    let server = Server::start(
        folder.path(),
        &[
            &format!("--inet=127.0.0.1:{port}"),
            "--quiet",
            sync,
            &format!("--workers={workers}"),
        ],
    );
    server.wait_for_children(workers + 1);
    let traffic = Traffic::default();
    let seed = Random::choose_seed();
    let mut random = Random::new(seed);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let traffic = &traffic;
            scope.spawn(move || keep_asking(port, client, traffic));
        }
        for _ in 0..kills {
            std::thread::sleep(Duration::from_millis(20 + random.next() % 60));
            let children = server.children();
            if !children.is_empty() {
                // It may have died since; then the next one does.
                let _ = kill(*random.pick(&children), Signal::SIGKILL);
            }
        }
        std::thread::sleep(Duration::from_millis(300));
        traffic.is_over.store(true, Ordering::Relaxed);
    });
    server.wait_for_children(workers + 1);
    let mut client = server.connect();
    let last = client.ask(&[("sender", "last@s.example")]);
    assert!(last.starts_with("DEFER_IF_PERMIT"), "{last}");
    let verify = Command::new(env!("CARGO_BIN_EXE_postgreyctl"))
        .arg(format!("--dbdir={}", server.dbdir.display()))
        .arg("verify")
        .output()
        .unwrap();
    assert!(verify.status.success(), "{verify:?}");
    let records = server.records(Database::Greylist);
    let answered = traffic.answered.into_inner().unwrap();
    let lost: Vec<_> = answered
        .iter()
        .filter(|(sender, time)| {
            let record = records.get(&format!("192.0.2.0/{sender}/user@example.org"));
            !record.is_some_and(|record| record.starts_with(&format!("{time},")))
        })
        .collect();
    println!(
        "check: {kills} kills, {sync}, workers={workers} (POSTGREY_SEED={seed}): {} answered, {} lost, {} passed without \
         the store, {} connections broken, longest answer {:.0?}, postgreyctl verify: {}",
        answered.len(),
        lost.len(),
        traffic.dunno.load(Ordering::Relaxed),
        traffic.broken.load(Ordering::Relaxed),
        traffic.longest.into_inner().unwrap(),
        String::from_utf8_lossy(&verify.stdout).trim(),
    );
    assert!(lost.is_empty(), "{lost:?}");
    // What a dead writer had is sent to the next one at once, and not only
    // when patience has run out.
    let log = server.log_text();
    assert!(!log.contains("the writer is silent"), "{log}");
    assert!(answered.len() > 100);
}

fn keep_asking(port: u16, client: usize, traffic: &Traffic) {
    let mut connection = None;
    let mut count = 0_u32;
    while !traffic.is_over.load(Ordering::Relaxed) {
        count += 1;
        let start = Instant::now();
        let sender = format!("c{client}n{count}@s.example");
        let time = (1_700_000_000 + count).to_string();
        let octets = request(&[("sender", &sender), ("policy_test_time", &time)]);
        let mut open = || Client::inet(port);
        let answer = match connection.take().map_or_else(&mut open, Ok) {
            Ok(mut open) => {
                let answer = open.try_ask(&octets);
                if answer.is_ok() {
                    connection = Some(open);
                }
                answer
            }
            Err(error) => Err(error),
        };
        match answer {
            Ok(answer) if answer.starts_with("DEFER_IF_PERMIT") => {
                traffic.answered.lock().unwrap().push((sender, time));
            }
            Ok(answer) => {
                assert_eq!(answer, "DUNNO");
                traffic.dunno.fetch_add(1, Ordering::Relaxed);
            }
            Err(_) => {
                traffic.broken.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        let mut longest = traffic.longest.lock().unwrap();
        *longest = start.elapsed().max(*longest);
    }
}
