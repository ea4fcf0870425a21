//! A disk, or a writer, that stands still for some seconds: it costs greylisting
//! and no answers, and what was given up is not counted twice.

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use postgrey::policy::command::{Allowance, Command, Counting, Now};
use postgrey::policy::record::Database;
use postgrey::policy::rules::Rules;
use postgrey::store::Store;
use postgrey::store::memory::MemoryStore;

use crate::server::{
    Client, PATIENCE, Server, give_to_server, open_store, request, test_dir, wait_until,
};
use crate::tools::Tools;

/// Connections, each with a triplet of its own.
const CONNECTIONS: usize = 16;
/// Those of them whose triplet is known before.
const KNOWN: std::ops::Range<usize> = 0..8;
/// How long disk or writer stand still.
const STANDSTILL: Duration = Duration::from_secs(5);
/// The time of the first requests, in seconds.
const FIRST: u64 = 1_700_000_000;
/// Long enough on a busy machine; the figure is printed.
const AT_ONCE: Duration = Duration::from_millis(500);
/// Clients that need no commit: by the whitelist, by the auto-whitelist, and
/// by the same with a renewal that is due.
const FAST: [&str; 3] = ["198.51.100.1", "198.51.100.2", "198.51.100.3"];

/// A server, and what its records must be.
struct Stage {
    server: Server,
    hang: PathBuf,
    connections: Vec<Client>,
    model: MemoryStore,
    rules: Rules,
    _folder: tempfile::TempDir,
}

fn key(index: usize) -> String {
    format!("192.0.{index}.0/a@s.example/u@r.example")
}

fn request_of(index: usize, time: u64) -> Vec<u8> {
    request(&[
        ("client_address", &format!("192.0.{index}.9")),
        ("sender", "a@s.example"),
        ("recipient", "u@r.example"),
        ("policy_test_time", &time.to_string()),
    ])
}

fn request_of_fast(address: &str) -> Vec<u8> {
    let time = FIRST.to_string();
    request(&[("client_address", address), ("policy_test_time", &time)])
}

impl Stage {
    fn set(tools: &Tools, sync: &str, retry_count: u32) -> Stage {
        let folder = test_dir();
        let db = folder.path().join("db");
        let renewed = (FIRST - 10).to_string();
        let due = (FIRST - 100_000).to_string();
        let clients = [(FAST[1], renewed), (FAST[2], due)];
        let insert = open_store(&db).edit(&[], &mut |records| {
            clients.iter().try_for_each(|(address, last)| {
                let value = format!("9,{last}");
                records.put(Database::Clients, address.as_bytes(), value.as_bytes())
            })
        });
        insert.unwrap();
        for name in ["data.mdb", "lock.mdb", "postgrey.lock"] {
            give_to_server(&db.join(name));
        }
        let whitelist = folder.path().join("whitelist");
        fs::write(&whitelist, format!("{}\n", FAST[0])).unwrap();
        let hang = folder.path().join("run/hang");
        let mut command = tools.server();
        command.env("POSTGREY_HANG", &hang);
        let options = [
            &format!("--whitelist-clients={}", whitelist.display()),
            sync,
            "--quiet",
            "--workers=2",
            &format!("--retry-count={retry_count}"),
            "--auto-whitelist-clients=9",
        ];
        let server = Server::start_by(command, folder.path(), &options);
        let mut stage = Stage {
            connections: (0..CONNECTIONS).map(|_| server.connect()).collect(),
            server,
            hang,
            model: MemoryStore::default(),
            rules: Rules {
                retry_count: retry_count.into(),
                auto_whitelist: Some(9.0),
                ..Rules::default()
            },
            _folder: folder,
        };
        for index in KNOWN {
            stage.ask(index, FIRST);
        }
        // So that every worker has it open.
        for _ in 0..40 {
            let mut client = stage.server.connect();
            assert_eq!(client.try_ask(&request_of_fast(FAST[1])).unwrap(), "DUNNO");
        }
        stage
    }

    /// What the model says of a request.
    fn apply(&mut self, index: usize, time: u64) {
        let (address, time) = (format!("192.0.{index}.9"), time.to_string());
        let triplet = key(index);
        let command = Command {
            now: Now::new(0.0, Some(time.as_bytes())),
            address: address.as_bytes(),
            client: address.as_bytes(),
            own_client: b"",
            triplet: triplet.as_bytes(),
            octet: b"9",
            counting: Counting::Always,
            is_data: false,
            allowance: Allowance::UNLIMITED,
        };
        let mut outcomes = Vec::new();
        let applied = self
            .model
            .apply_batch(&self.rules, &[command], &mut outcomes);
        applied.unwrap();
    }

    /// A request whose answer is not DUNNO.
    fn ask(&mut self, index: usize, time: u64) {
        let answer = self.connections[index].try_ask(&request_of(index, time));
        let answer = answer.unwrap();
        assert!(answer.starts_with("DEFER_IF_PERMIT"), "{index}: {answer}");
        self.apply(index, time);
    }

    /// The records of triplets in the server's database, and in the model.
    fn records(&mut self) -> [BTreeMap<String, String>; 2] {
        let mut expected = BTreeMap::new();
        let scanned = self
            .model
            .scan(Database::Greylist, b"", None, &mut |entry| {
                let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
                expected.insert(text(entry.key), text(entry.value));
                ControlFlow::Continue(())
            });
        assert_eq!(scanned, Ok(true));
        let mut found = self.server.records(Database::Greylist);
        found.retain(|key, _| key.ends_with("/a@s.example/u@r.example"));
        [found, expected]
    }

    /// Sends a request on each of these connections; each gets one DUNNO after
    /// about a second. The shortest and the longest time.
    fn all_pass(&mut self, indexes: std::ops::Range<usize>, time: u64) -> [Duration; 2] {
        let times: Vec<Duration> = std::thread::scope(|scope| {
            let asking: Vec<_> = self.connections[indexes.clone()]
                .iter_mut()
                .zip(indexes)
                .map(|(client, index)| {
                    scope.spawn(move || {
                        let start = Instant::now();
                        let answer = client.try_ask(&request_of(index, time)).unwrap();
                        assert_eq!(answer, "DUNNO", "{index}");
                        start.elapsed()
                    })
                })
                .collect();
            asking.into_iter().map(|one| one.join().unwrap()).collect()
        });
        let (min, max) = (*times.iter().min().unwrap(), *times.iter().max().unwrap());
        assert!(min >= Duration::from_millis(900), "{times:?}");
        assert!(max < Duration::from_millis(3000), "{times:?}");
        [min, max]
    }

    /// On none of the connections lies another answer: of two requests each gets
    /// its own.
    fn go_on_on_all(&mut self, time: u64) {
        for index in 0..CONNECTIONS {
            let client = &mut self.connections[index];
            assert_eq!(client.try_ask(&request_of_fast(FAST[0])).unwrap(), "DUNNO");
            self.ask(index, time);
        }
    }

    /// Nothing is lost and nothing counts twice.
    fn compare(&mut self, what: &str) {
        let [found, expected] = self.records();
        assert_eq!(found, expected, "{what}");
    }

    /// Waits until a commit is answered again.
    fn wait_for_greylisting(&mut self) {
        let start = Instant::now();
        for count in 0.. {
            let sender = format!("back{count}x@s.example");
            let answer = self.server.connect().ask(&[("sender", &sender)]);
            if answer.starts_with("DEFER_IF_PERMIT") {
                break;
            }
            assert!(start.elapsed() < PATIENCE);
        }
    }
}

/// Asks for clients that need no commit until it is over; the longest time of
/// each, and how often it was asked.
fn ask_fast(socket: &Path, is_over: &AtomicBool) -> [(Duration, usize); 3] {
    let connect = || Client::unix(socket).unwrap();
    let mut clients: Vec<Client> = (0..4).map(|_| connect()).collect();
    let mut longest = [(Duration::ZERO, 0); 3];
    for turn in 0.. {
        if is_over.load(Ordering::Relaxed) {
            break;
        }
        let client = &mut clients[turn % 4];
        if turn % 16 == 15 {
            *client = connect();
        }
        for (address, (longest, count)) in FAST.iter().zip(&mut longest) {
            let start = Instant::now();
            let answer = client.try_ask(&request_of_fast(address)).unwrap();
            *longest = start.elapsed().max(*longest);
            *count += 1;
            assert_eq!(answer, "DUNNO");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    longest
}

/// Runs `work` while clients that need no commit ask all the time.
fn beside_fast_clients(what: &str, stage: &mut Stage, work: impl FnOnce(&mut Stage)) {
    let is_over = AtomicBool::new(false);
    let socket = stage.server.socket.clone();
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_fast(&socket, &is_over));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(stage)));
        is_over.store(true, Ordering::Relaxed);
        let all = asking.join().unwrap();
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
        let [(of_whitelisted, count), (of_listed, _), (of_renewed, _)] = all;
        println!(
            "check: {what}: the longest of {count} answers each: whitelisted {of_whitelisted:.1?}, \
             auto-whitelisted {of_listed:.1?}, with a renewal due {of_renewed:.1?}"
        );
        for (longest, count) in all {
            assert!(longest < AT_ONCE, "{longest:?}");
            assert!(count > 50, "{count}");
        }
    });
}

/// Waits until so much time has gone since `start`.
fn wait_since(start: Instant, time: Duration) {
    std::thread::sleep(time.saturating_sub(start.elapsed()));
}

/// The auto-whitelisted client whose renewal was due was renewed once.
fn assert_renewed_once(stage: &Stage) {
    wait_until("the renewal", || {
        let clients = stage.server.records(Database::Clients);
        clients[FAST[2]] == format!("10,{FIRST}")
    });
}

#[test]
fn a_disk_that_hangs_costs_greylisting_and_no_answers() {
    let Some(tools) = Tools::build() else { return };
    let mut stage = Stage::set(&tools, "--sync=commit", 9);
    let is_hanging = stage.hang.with_extension("is");
    let mut times = Vec::new();
    // A triplet that is known, then a new one, is in the transaction that hangs.
    for (hanging, time, standstill) in [
        (0, FIRST + 300, STANDSTILL),
        (100, FIRST, Duration::from_secs(3)),
    ] {
        let is_first = standstill == STANDSTILL;
        fs::write(&stage.hang, "").unwrap();
        let begun = Instant::now();
        stage.connections[0].send(&request_of(hanging, time));
        wait_until("the disk to hang", || is_hanging.exists());
        let start = Instant::now();
        let mut work = |stage: &mut Stage| {
            let round = FIRST + if is_first { 300 } else { 400 };
            times.extend(stage.all_pass(1..CONNECTIONS, round));
            assert_eq!(stage.connections[0].reply().unwrap(), "DUNNO");
            times.push(begun.elapsed());
            // Who comes again while it hangs is not counted either.
            if is_first {
                times.extend(stage.all_pass(1..CONNECTIONS, round + 1));
            }
            wait_since(start, standstill);
            fs::remove_file(&stage.hang).unwrap();
            fs::remove_file(&is_hanging).unwrap();
            stage.wait_for_greylisting();
        };
        match is_first {
            true => beside_fast_clients("disk that hangs", &mut stage, work),
            false => work(&mut stage),
        }
        stage.apply(hanging, time);
        stage.compare("after the hang");
        assert_renewed_once(&stage);
        stage.go_on_on_all(FIRST + if is_first { 310 } else { 410 });
        stage.compare("one round later");
    }
    let (min, max) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    println!(
        "check: disk that hangs: {CONNECTIONS} connections passed after {min:.2?} to {max:.2?}, \
         the one in the transaction counts once, the others do not"
    );
    let log = stage.server.log_text();
    let silent = "the writer is silent: requests pass ungreylisted";
    assert_eq!(log.matches(silent).count(), 1, "{log}");
}

#[test]
fn a_writer_that_stands_still_costs_greylisting_and_no_answers() {
    let Some(tools) = Tools::build() else { return };
    let mut stage = Stage::set(&tools, "--sync=none", 9);
    let writer = stage.server.wait_for_children(3)[0];
    let mut times = Vec::new();
    kill(writer, Signal::SIGSTOP).unwrap();
    let start = Instant::now();
    beside_fast_clients("writer that stands still", &mut stage, |stage| {
        times.extend(stage.all_pass(0..CONNECTIONS, FIRST + 300));
        times.extend(stage.all_pass(0..CONNECTIONS, FIRST + 301));
        wait_since(start, STANDSTILL);
        kill(writer, Signal::SIGCONT).unwrap();
        stage.wait_for_greylisting();
    });
    stage.compare("after the standstill");
    assert_renewed_once(&stage);
    stage.go_on_on_all(FIRST + 310);
    stage.compare("one round later");
    let (min, max) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    println!(
        "check: writer that stands still: {CONNECTIONS} connections passed twice after {min:.2?} \
         to {max:.2?}, none of it counts"
    );
    assert_eq!(stage.server.wait_for_children(3)[0], writer);
}

/// What was greylisted counts once, and what passed at most once, wherever the
/// writer is when it stands still.
#[test]
fn under_load_no_request_counts_twice() {
    let Some(tools) = Tools::build() else { return };
    let mut stage = Stage::set(&tools, "--sync=commit", 1_000_000);
    for index in KNOWN.end..CONNECTIONS {
        stage.ask(index, FIRST);
    }
    let writer = stage.server.wait_for_children(3)[0];
    let is_over = AtomicBool::new(false);
    let counts: Vec<[u64; 2]> = std::thread::scope(|scope| {
        let connections = stage.connections.iter_mut().enumerate();
        let asking: Vec<_> = connections
            .map(|(index, client)| {
                let is_over = &is_over;
                scope.spawn(move || {
                    let [mut greylisted, mut passed] = [0, 0];
                    while !is_over.load(Ordering::Relaxed) {
                        let time = FIRST + 300 + greylisted + passed;
                        let answer = client.try_ask(&request_of(index, time)).unwrap();
                        match answer.as_str() {
                            "DUNNO" => passed += 1,
                            _ => greylisted += 1,
                        }
                    }
                    [greylisted, passed]
                })
            })
            .collect();
        for pause in [170, 390, 610, 230] {
            std::thread::sleep(Duration::from_millis(pause));
            kill(writer, Signal::SIGSTOP).unwrap();
            std::thread::sleep(Duration::from_millis(1300));
            kill(writer, Signal::SIGCONT).unwrap();
        }
        std::thread::sleep(Duration::from_millis(200));
        is_over.store(true, Ordering::Relaxed);
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let [found, _] = stage.records();
    let mut sums = [0, 0, 0];
    for (index, [greylisted, passed]) in counts.into_iter().enumerate() {
        let record = &found[&key(index)];
        let count: u64 = record.split(',').nth(2).unwrap().parse().unwrap();
        let may_be = greylisted..=greylisted + passed;
        assert!(may_be.contains(&count), "{record}: {may_be:?}");
        sums = [sums[0] + greylisted, sums[1] + passed, sums[2] + count];
    }
    let [greylisted, passed, counted] = sums;
    println!(
        "check: writer that stands still four times under load: {greylisted} greylisted, {passed} \
         passed, {counted} counted"
    );
    assert!(passed >= CONNECTIONS as u64, "{passed}");
}
