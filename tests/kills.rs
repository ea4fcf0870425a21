//! kill -9 of random processes under load: children of the server, spawned
//! sessions and postgreyctl. What was answered is in the store.
//!
//! A program of its own: where other tests fork, their children would keep the
//! connections of these clients open.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/random.rs"]
mod random;
#[path = "common/server.rs"]
mod server;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use postgrey::policy::record::Database;
use postgrey::store::lmdb::LmdbStore;
use postgrey::store::verify::verify_environment;
use random::{Random, number_from};
use server::{
    Client, PATIENCE, Server, Spawned, free_port, program_for_all, request, spawn, test_dir,
    wait_until,
};

/// Clients of the server.
const CLIENTS: usize = 6;
/// Spawned sessions that are there at a time.
const SESSIONS: usize = 20;
/// Those who use them.
const SPAWNERS: usize = 2;

/// What happened to the requests of all clients.
#[derive(Default)]
struct Traffic {
    /// Senders whose triplet was greylisted, and when it was.
    answered: Mutex<Vec<(String, String)>>,
    /// Passed since the store failed: allowed, since mail goes on.
    dunno: AtomicUsize,
    broken: AtomicUsize,
    longest: Mutex<Duration>,
    /// Sessions and tools that were killed.
    sessions_killed: AtomicUsize,
    tools_killed: AtomicUsize,
    /// Runs of postgreyctl that came to their end.
    tools_done: AtomicUsize,
    is_over: AtomicBool,
}

impl Traffic {
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Asks about a new triplet; the connection, if it still stands.
    fn ask(&self, mut client: Client, sender: String) -> Option<Client> {
        let time = now();
        let start = Instant::now();
        let answer = client.try_ask(&request(&[
            ("sender", &sender),
            ("policy_test_time", &time),
        ]));
        let mut longest = self.longest.lock().unwrap();
        *longest = start.elapsed().max(*longest);
        drop(longest);
        match answer {
            Ok(answer) if answer.starts_with("DEFER_IF_PERMIT") => {
                self.answered.lock().unwrap().push((sender, time));
            }
            Ok(answer) => {
                assert_eq!(answer, "DUNNO");
                self.dunno.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                let is_end = error.kind() != std::io::ErrorKind::WouldBlock;
                assert!(is_end, "no answer in {PATIENCE:?}");
                self.broken.fetch_add(1, Ordering::Relaxed);
                return None;
            }
        }
        Some(client)
    }
}

fn count(counter: &AtomicUsize) -> usize {
    counter.load(Ordering::Relaxed)
}

/// Seconds since 1970: what was just greylisted does not expire.
fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap().as_secs().to_string()
}

#[test]
fn what_was_answered_survives_the_death_of_any_process() {
    kill_under_load("--sync=commit", 3);
}

#[test]
fn what_was_answered_survives_the_death_of_the_only_worker() {
    kill_under_load("--sync=commit", 1);
}

#[test]
fn without_flushes_it_survives_as_well() {
    kill_under_load("--sync=none", 3);
}

fn kill_under_load(sync: &str, workers: usize) {
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
    // Before threads are there to copy it at once.
    program_for_all(folder.path());
    let traffic = Traffic::default();
    let seed = Random::choose_seed();
    let mut random = Random::new(seed);
    std::thread::scope(|scope| {
        let (traffic, folder, dbdir) = (&traffic, folder.path(), &server.dbdir);
        for client in 0..CLIENTS {
            scope.spawn(move || keep_asking(port, client, traffic));
        }
        for spawner in 0..SPAWNERS {
            let random = Random::new(random.next());
            scope.spawn(move || keep_spawning(folder, spawner, random, traffic));
        }
        let for_tools = Random::new(random.next());
        scope.spawn(move || keep_administering(folder, dbdir, for_tools, traffic));
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
    let verify = ctl(&server.dbdir, &["verify"]).output().unwrap();
    assert!(verify.status.success(), "{verify:?}");
    let verified = verify_environment(&mut LmdbStore::new_reader(&server.dbdir));
    assert!(verified.is_ok(), "{verified:?}");
    let records = server.records(Database::Greylist);
    let answered = traffic.answered.lock().unwrap();
    let lost: Vec<_> = answered
        .iter()
        .filter(|(sender, time)| {
            let record = records.get(&format!("192.0.2.0/{sender}/user@example.org"));
            !record.is_some_and(|record| record.starts_with(&format!("{time},")))
        })
        .collect();
    println!(
        "check: {kills} kills, {sync}, workers={workers} (POSTGREY_SEED={seed}): {} answered, {} lost, {} passed \
         without the store, {} connections broken, {} sessions and {} runs of postgreyctl killed, {} runs done, \
         longest answer {:.0?}, postgreyctl verify: {}",
        answered.len(),
        lost.len(),
        count(&traffic.dunno),
        count(&traffic.broken),
        count(&traffic.sessions_killed),
        count(&traffic.tools_killed),
        count(&traffic.tools_done),
        *traffic.longest.lock().unwrap(),
        String::from_utf8_lossy(&verify.stdout)
            .trim()
            .replace('\n', ", "),
    );
    assert!(lost.is_empty(), "{lost:?}");
    let log = server.log_text();
    assert!(
        !log.contains("damaged") && !log.contains("verified"),
        "{log}"
    );
    assert!(answered.len() > 100);
    assert!(count(&traffic.sessions_killed) > 0 && count(&traffic.tools_done) > 0);
}

fn keep_asking(port: u16, client: usize, traffic: &Traffic) {
    let mut connection: Option<Client> = None;
    let mut count = 0;
    while !traffic.is_over() {
        count += 1;
        let Ok(open) = connection.take().map_or_else(|| Client::inet(port), Ok) else {
            traffic.broken.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        connection = traffic.ask(open, format!("c{client}n{count}@s.example"));
    }
}

/// Sessions come and go: each is asked a few times, and ends as the client does,
/// or is killed, with a request in its hands or without.
fn keep_spawning(folder: &Path, spawner: usize, mut random: Random, traffic: &Traffic) {
    let mut sessions: Vec<Spawned> = Vec::new();
    let mut count = 0;
    while !traffic.is_over() {
        if sessions.len() < SESSIONS / SPAWNERS {
            sessions.push(spawn(folder, &["--quiet"]));
        }
        let Spawned { client, mut child } = sessions.swap_remove(random.below(sessions.len()));
        count += 1;
        let sender = format!("s{spawner}n{count}@s.example");
        let left = match random.below(10) {
            0 => {
                drop(client);
                None
            }
            1 => {
                kill_after(&mut child, Duration::ZERO, &traffic.sessions_killed);
                traffic.ask(client, sender)
            }
            2 | 3 => std::thread::scope(|scope| {
                let time = Duration::from_micros(random.next() % 3000);
                let child = &mut child;
                scope.spawn(move || kill_after(child, time, &traffic.sessions_killed));
                traffic.ask(client, sender);
                None
            }),
            _ => traffic.ask(client, sender),
        };
        match left {
            Some(client) => sessions.push(Spawned { client, child }),
            None => wait_for_end(&mut child),
        }
    }
    for Spawned { client, mut child } in sessions {
        drop(client);
        wait_for_end(&mut child);
    }
}

fn wait_for_end(child: &mut Child) {
    wait_until("the end of a process", || {
        child.try_wait().unwrap().is_some()
    });
}

/// Kills a process of ours that may have ended before.
fn kill_after(child: &mut Child, time: Duration, killed: &AtomicUsize) {
    std::thread::sleep(time);
    child.kill().unwrap();
    killed.fetch_add(1, Ordering::Relaxed);
}

fn ctl(dbdir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postgreyctl"));
    command
        .arg(format!("--dbdir={}", dbdir.display()))
        .args(words);
    command
}

/// An administrator who never rests; one run in three is killed.
fn keep_administering(folder: &Path, dbdir: &Path, mut random: Random, traffic: &Traffic) {
    let backup = folder.join("backup");
    std::fs::create_dir(&backup).unwrap();
    let file = backup.join("data.mdb");
    let path = file.display().to_string();
    let runs: [&[&str]; 6] = [
        &["add", "client", "198.51.100.1"],
        &["list", "clients"],
        &["delete", "client", "198.51.100.1"],
        &["add", "client", "198.51.100.2"],
        &["expire"],
        &["backup", &path],
    ];
    for words in runs.iter().cycle() {
        if traffic.is_over() {
            return;
        }
        let _ = std::fs::remove_file(&file);
        let mut command = ctl(dbdir, words);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        if random.percent(33) {
            let time = Duration::from_micros(random.next() % 8000);
            kill_after(&mut child, time, &traffic.tools_killed);
            wait_for_end(&mut child);
            continue;
        }
        let ended = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&ended.stderr);
        // Where the one that adds it was killed there is none to delete.
        let is_missing = words[0] == "delete" && stderr.contains("there is no such record");
        assert!(ended.status.success() || is_missing, "{words:?}: {stderr}");
        traffic.tools_done.fetch_add(1, Ordering::Relaxed);
        if words[0] == "backup" {
            let verified = verify_environment(&mut LmdbStore::new_reader(&backup));
            assert!(verified.is_ok(), "{verified:?}");
        }
    }
}
