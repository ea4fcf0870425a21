//! Hours in the life of a server: 200 connections, reloads, statistics,
//! maintenance by another process, killed workers and writers, for
//! `POSTGREY_SOAK_MINUTES`; without it a few seconds.
//!
//! Every answer is compared with that of the policy itself over a store in
//! memory. A connection that breaks with its worker goes on as another client,
//! since nobody knows whether its last request was counted; so does one that
//! waited for its answer while the writer died.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/random.rs"]
mod random;
#[path = "../common/server.rs"]
mod server;

mod memory;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use memory::{growth, measure, settled};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgrey::config::{self, Invocation, whitelists};
use postgrey::policy::decide::{Decision, Examined, Policy, Surroundings};
use postgrey::policy::instances::Instances;
use postgrey::policy::request::RequestReader;
use postgrey::policy::triplet::Keys;
use postgrey::store::Store;
use postgrey::store::memory::MemoryStore;
use random::{Random, number_from};
use server::{Client, Server, free_port, is_alive, request, test_dir};

const CONNECTIONS: usize = 200;
const WORKERS: usize = 4;
/// Seconds between the deaths of a writer. The last one lives on, and its memory is
/// watched.
const WRITER_LIVES: u32 = 30;
/// How long the last writer lives at least, in a run that is not too short for that.
const LAST_LIFE: Duration = Duration::from_secs(270);
/// Records that each maintenance finds too old.
const OLD: usize = 25;

struct Tally {
    begun: Instant,
    answers: AtomicUsize,
    broken: AtomicUsize,
    wrong: Mutex<Vec<String>>,
    longest: Mutex<Duration>,
    next_client: AtomicU64,
    /// Counted up just before a writer is killed, and when it is gone.
    writer_deaths: AtomicUsize,
    is_over: AtomicBool,
}

/// One client: what it asks, and what it must be told.
struct Model {
    policy: Policy,
    store: MemoryStore,
    keys: Keys,
    address: String,
    random: Random,
    time: u64,
}

impl Model {
    fn new(options: &[String], number: u64) -> Model {
        let args: Vec<_> = options.iter().map(Into::into).collect();
        let settings = match config::parse(&args) {
            Ok(Invocation::Serve(settings)) => *settings,
            other => panic!("{other:?}"),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Model {
            policy: Policy {
                rules: settings.rules.clone(),
                texts: settings.texts.clone(),
                whitelists: whitelists::load(&settings).whitelists,
                is_dry_run: false,
            },
            store: MemoryStore::default(),
            keys: Keys::default(),
            // Each client has a network of its own.
            address: format!("10.{}.{}.7", number / 256 % 256, number % 256),
            random: Random::new(number),
            time: now.as_secs(),
        }
    }

    fn request(&mut self) -> Vec<u8> {
        let random = &mut self.random;
        self.time += match random.below(10) {
            0..5 => 0,
            5..8 => random.below(200) as u64,
            8 => 301,
            _ => 3601,
        };
        let sender = format!("s{}@s.example", random.below(12));
        let recipient = format!("u{}@example.org", random.below(4));
        let state = if random.percent(25) { "DATA" } else { "RCPT" };
        let name = if random.percent(10) {
            "mx.friend.example"
        } else {
            "unknown"
        };
        let time = self.time.to_string();
        request(&[
            ("protocol_state", state),
            ("client_address", &self.address),
            ("client_name", name),
            ("sender", &sender),
            ("recipient", &recipient),
            ("policy_test_time", &time),
        ])
    }

    fn expected(&mut self, octets: &[u8]) -> String {
        let cells = std::array::from_fn(|_| AtomicU64::new(0));
        let surroundings = Surroundings {
            instances: Instances::new(&cells),
            version: "",
            date: &|_| {},
        };
        let mut reader = RequestReader::default();
        reader.next_event(&mut &octets[..]).unwrap();
        let decision = match self.policy.examine(reader.request(), 0.0, &mut self.keys) {
            Examined::Decided(decision) => decision,
            Examined::NeedsStore(command) => {
                let mut outcomes = Vec::new();
                self.store
                    .apply_batch(&self.policy.rules, &[command], &mut outcomes)
                    .unwrap();
                Decision::Stored(outcomes[0].unwrap())
            }
        };
        let mut reply = Vec::new();
        self.policy.answer(
            reader.request(),
            &decision,
            &surroundings,
            &mut reply,
            &mut Vec::new(),
            &mut |_, _| {},
        );
        String::from_utf8(reply).unwrap()
    }
}

fn live(port: u16, options: &[String], tally: &Tally) {
    while !tally.is_over.load(Ordering::Relaxed) {
        let number = tally.next_client.fetch_add(1, Ordering::Relaxed);
        let mut model = Model::new(options, number);
        let Ok(mut connection) = Client::inet(port) else {
            tally.broken.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(50));
            continue;
        };
        while !tally.is_over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50 + model.random.below(250) as u64));
            let octets = model.request();
            let deaths = tally.writer_deaths.load(Ordering::SeqCst);
            let start = Instant::now();
            let Ok(answer) = connection.try_ask(&octets) else {
                tally.broken.fetch_add(1, Ordering::Relaxed);
                break;
            };
            let time = start.elapsed();
            let mut longest = tally.longest.lock().unwrap();
            *longest = time.max(*longest);
            drop(longest);
            tally.answers.fetch_add(1, Ordering::Relaxed);
            if deaths % 2 == 1 || deaths != tally.writer_deaths.load(Ordering::SeqCst) {
                break;
            }
            let expected = model.expected(&octets);
            let expected = expected.trim_start_matches("action=").trim_end();
            // Version, host and date of the header are the server's own.
            let is_right = match expected.split_once(" by postgrey-") {
                Some((start, _)) => answer.starts_with(start),
                None => answer == expected,
            };
            if !is_right {
                let text = String::from_utf8_lossy(&octets).into_owned();
                let at = tally.begun.elapsed();
                let wrong = format!(
                    "{text}got {answer} after {time:.0?}, at {at:.1?}, expected {expected}"
                );
                tally.wrong.lock().unwrap().push(wrong);
            }
        }
    }
}

/// One process as it was watched.
struct Watched {
    pid: Pid,
    role: &'static str,
    memory: Vec<(f64, f64)>,
    most_descriptors: usize,
}

/// What was done to the server.
#[derive(Default)]
struct Disturbances {
    workers_killed: usize,
    writers_killed: usize,
    maintenances: usize,
    records_expired: u64,
}

/// Asks about triplets of long ago: the next maintenance removes them.
fn leave_old_records(server: &Server, round: u32) {
    let long_ago = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
        - 40 * 86400;
    let mut client = server.connect();
    for number in 0..OLD {
        let address = format!("172.{}.{}.7", 16 + number, round % 256);
        let sender = format!("old{round}@s.example");
        let time = long_ago.to_string();
        let octets = request(&[
            ("client_address", &address),
            ("sender", &sender),
            ("policy_test_time", &time),
        ]);
        // Its worker may be the next to die.
        if client.try_ask(&octets).is_err() {
            return;
        }
    }
}

/// `postgreyctl expire` on the live database; returns how many records it
/// removed.
fn expire(server: &Server) -> u64 {
    let output = Command::new(env!("CARGO_BIN_EXE_postgreyctl"))
        .arg(format!("--dbdir={}", server.dbdir.display()))
        .args(["expire", "--", "--targrey"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let number = |line: &str, name: &str| -> Option<u64> {
        let (_, rest) = line.split_once(name)?;
        rest.split(',').next()?.parse().ok()
    };
    text.lines()
        .map(|line| number(line, "before: ").unwrap() - number(line, "after: ").unwrap())
        .sum()
}

/// Kills the writer while nothing else happens to the server's processes;
/// returns the next one.
fn kill_writer(server: &Server, writer: Pid, tally: &Tally) -> Pid {
    let before = server.wait_for_children(WORKERS + 1);
    tally.writer_deaths.fetch_add(1, Ordering::SeqCst);
    kill(writer, Signal::SIGKILL).unwrap();
    while is_alive(writer) {
        std::thread::sleep(Duration::from_millis(1));
    }
    tally.writer_deaths.fetch_add(1, Ordering::SeqCst);
    let after = server.wait_for_children(WORKERS + 1);
    *after.iter().find(|pid| !before.contains(pid)).unwrap()
}

/// Reloads, asks for statistics, maintains, kills and measures until the time
/// is over.
fn disturb(server: &Server, duration: Duration, tally: &Tally) -> (Vec<Watched>, Disturbances) {
    let children = server.wait_for_children(WORKERS + 1);
    let watch = |pid, role| Watched {
        pid,
        role,
        memory: Vec::new(),
        most_descriptors: 0,
    };
    let mut watched = vec![
        watch(server.pid(), "master"),
        watch(children[0], "writer"),
        watch(children[1], "worker"),
    ];
    let mut random = Random::new(Random::choose_seed());
    let mut done = Disturbances::default();
    let start = Instant::now();
    let last_death = duration.saturating_sub(LAST_LIFE.max(duration / 3));
    let last_death = match last_death.is_zero() {
        true => duration * 2 / 3,
        false => last_death,
    };
    for second in 1.. {
        std::thread::sleep(Duration::from_secs(1));
        let time = start.elapsed();
        if second % 5 == 0 {
            server.signal(Signal::SIGHUP);
        }
        if second % 7 == 0 {
            server.signal(Signal::SIGUSR1);
        }
        if second % 4 == 2 {
            leave_old_records(server, second);
            done.records_expired += expire(server);
            done.maintenances += 1;
        }
        if second % WRITER_LIVES == 3 && time < last_death {
            let next = kill_writer(server, watched[1].pid, tally);
            watched[1] = watch(next, "writer");
            done.writers_killed += 1;
        }
        if second % 3 == 0 {
            let mut victims = server.children();
            // The memory of these is watched.
            victims.retain(|&pid| watched.iter().all(|process| process.pid != pid));
            if !victims.is_empty() {
                let _ = kill(*random.pick(&victims), Signal::SIGKILL);
                done.workers_killed += 1;
            }
        }
        for process in &mut watched {
            let (memory, descriptors) = measure(process.pid).expect("it lives");
            process.memory.push((time.as_secs_f64(), memory));
            process.most_descriptors = process.most_descriptors.max(descriptors);
        }
        if time >= duration {
            break;
        }
    }
    (watched, done)
}

#[test]
fn a_long_life_leaves_memory_answers_and_descriptors_as_they_were() {
    let minutes = number_from("POSTGREY_SOAK_MINUTES", 0);
    let duration = Duration::from_secs((60 * minutes).max(8));
    let folder = test_dir();
    let port = free_port();
    let clients = folder.path().join("clients");
    fs::write(&clients, "friend.example\n").unwrap();
    let options = options(port, &clients);
    let args: Vec<&str> = options.iter().map(String::as_str).collect();
    let server = Server::start(folder.path(), &args);
    let tally = Tally {
        begun: Instant::now(),
        answers: Default::default(),
        broken: Default::default(),
        wrong: Default::default(),
        longest: Default::default(),
        next_client: Default::default(),
        writer_deaths: Default::default(),
        is_over: Default::default(),
    };
    let (watched, done) = std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            std::thread::Builder::new()
                .stack_size(256 * 1024)
                .spawn_scoped(scope, || live(port, &options, &tally))
                .unwrap();
        }
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            disturb(&server, duration, &tally)
        }));
        tally.is_over.store(true, Ordering::Relaxed);
        result.unwrap()
    });
    let wrong = tally.wrong.into_inner().unwrap();
    let longest = tally.longest.into_inner().unwrap();
    println!(
        "soak: {duration:.0?}, {CONNECTIONS} connections, {} answers, {} wrong, longest {longest:.0?}, \
         {} connections broken",
        tally.answers.load(Ordering::Relaxed),
        wrong.len(),
        tally.broken.load(Ordering::Relaxed),
    );
    println!(
        "soak: {} workers and {} writers killed, {} runs of postgreyctl expire removed {} records",
        done.workers_killed, done.writers_killed, done.maintenances, done.records_expired,
    );
    for process in &watched {
        let settled = settled(&process.memory);
        let (growth, seconds) = (growth(settled), settled.len());
        let [first, last] = [process.memory.first(), process.memory.last()].map(|s| s.unwrap().1);
        println!(
            "soak: {}: {first} KiB, then {last} KiB, {growth:+.1} KiB a minute in the last \
             {seconds} s, {} descriptors at most",
            process.role, process.most_descriptors
        );
        // Shorter runs show the start only.
        assert!(minutes < 5 || seconds >= 120, "{} was young", process.role);
        assert!(minutes < 5 || growth < 20.0, "{} grows", process.role);
        assert!(process.most_descriptors < CONNECTIONS + 50);
    }
    for wrong in &wrong {
        println!("soak: wrong: {wrong}");
    }
    assert!(wrong.is_empty(), "the server: {}", server.log_text());
    assert!(done.records_expired > 0 && done.writers_killed > 0);
    assert!(longest < Duration::from_secs(1), "{longest:?}");
}

fn options(port: u16, clients: &Path) -> Vec<String> {
    [
        format!("--inet=127.0.0.1:{port}"),
        format!("--workers={WORKERS}"),
        format!("--whitelist-clients={}", clients.display()),
        "--whitelist-recipients=/nowhere.local".to_string(),
    ]
    .into_iter()
    .chain(
        [
            "--targrey",
            "--tarpit=125",
            "--retry-count=2",
            "--delay=300",
            "--quiet",
        ]
        .map(String::from),
    )
    .collect()
}
