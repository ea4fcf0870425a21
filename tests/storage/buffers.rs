//! Small socket buffers between workers and writer, as Solaris has them: nothing
//! is lost and nothing waits for ever when they are full.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgrey::policy::record::Database;

use crate::dialogue::{self, Dialogue};
use crate::server::{Client, Server, records, request, tell};
use crate::tools::{Tools, memory_dir};

/// Octets of a buffer; Linux takes twice as many, what it needs itself included.
const BUFFER: u32 = 16384;
/// The least that takes a datagram.
const LEAST_BUFFER: u32 = 8192;
/// What a worker says whose commands are not answered.
const SILENT: &str = "the writer is silent";

fn start(tools: &Tools, buffer: u32, folder: &Path, options: &[&str]) -> Server {
    let mut command = tools.server();
    command.env("POSTGREY_BUFFERS", buffer.to_string());
    Server::start_by(command, folder, options)
}

/// The whitelists of a dialogue as files, and the options that name them.
fn write_whitelists(dialogue: &Dialogue, folder: &Path) -> [String; 2] {
    [
        ("clients", "whitelist_clients"),
        ("recipients", "whitelist_recipients"),
    ]
    .map(|(option, name)| {
        let path = folder.join(name);
        fs::write(&path, dialogue.whitelist(name)).unwrap();
        format!("--whitelist-{option}={}", path.display())
    })
}

/// A client that is in no dialogue, at a time before all dialogues.
const PROBE: &str = "233.252.0.1";
const PROBE_TIME: &str = "1000000000";

/// An auto-whitelisted client is answered before its record is renewed, and
/// another worker may read the old one. What needs a commit is answered after
/// the renewal.
fn wait_for_renewal(server: &Server) {
    server.connect().ask(&[
        ("client_address", PROBE),
        ("client_name", "unknown"),
        ("sender", "probe@probe.invalid"),
        ("policy_test_time", PROBE_TIME),
    ]);
}

fn is_of_probe(octets: &[u8]) -> bool {
    let is_it = |part: &[u8]| part == PROBE.as_bytes();
    octets.windows(PROBE.len()).any(is_it)
}

/// What differs when a dialogue is played over some connections.
fn play(tools: &Tools, dialogue: &Dialogue) -> usize {
    const CONNECTIONS: usize = 4;
    let folder = memory_dir();
    let [clients, recipients] = write_whitelists(dialogue, folder.path());
    let mut options: Vec<&str> = dialogue.options.iter().map(String::as_str).collect();
    options.extend([
        dialogue.compat_option(),
        "--sync=none",
        "--workers=4",
        &clients,
        &recipients,
    ]);
    let mut server = start(tools, BUFFER, folder.path(), &options);
    let is_exim = dialogue.options.iter().any(|option| option == "--exim");
    let mut connections: Vec<Client> = (0..CONNECTIONS).map(|_| server.connect()).collect();
    let mut differences = 0;
    let mut differs = |what: String, found: &[u8], expected: &[u8]| {
        if found != expected {
            differences += 1;
            let [found, expected] = [found, expected].map(String::from_utf8_lossy);
            println!("{} {what}: {found:?}, not {expected:?}", dialogue.name);
        }
    };
    let mut turn = 0;
    for (index, (text, expected)) in dialogue.requests.iter().zip(&dialogue.replies).enumerate() {
        let client = &mut connections[turn % CONNECTIONS];
        client.send(text);
        let Some(expected) = expected else { continue };
        let reply = client.reply().unwrap_or_default();
        let reply = format!("action={reply}\n\n");
        differs(format!("request {index}"), reply.as_bytes(), expected);
        if is_exim {
            *client = server.connect();
        }
        if reply == "action=DUNNO\n\n" {
            wait_for_renewal(&server);
        }
        turn += 1;
    }
    drop(connections);
    assert!(server.stop().success(), "{}", server.log_text());
    let log = fs::read(&server.log).unwrap();
    let lines = log.split(|&octet| octet == b'\n');
    let lines: Vec<&[u8]> = lines
        .filter(|line| dialogue::is_policy_line(line) && !is_of_probe(line))
        .collect();
    let expected: Vec<&[u8]> = dialogue.log.iter().map(Vec::as_slice).collect();
    differs("log".into(), &lines.join(&b'\n'), &expected.join(&b'\n'));
    for (name, database) in [
        ("postgrey", Database::Greylist),
        ("postgrey_clients", Database::Clients),
        ("tarpit_clients", Database::Tarpit),
    ] {
        let text = |records: BTreeMap<Vec<u8>, Vec<u8>>| {
            let lines = records
                .into_iter()
                .map(|(key, value)| [&key[..], &value].join(&b' '));
            lines.collect::<Vec<_>>().join(&b'\n')
        };
        let escaped = records(&folder.path().join("db"), database)
            .into_iter()
            // Its keys may be hashed.
            .filter(|(key, value)| !is_of_probe(key) && !value.starts_with(PROBE_TIME.as_bytes()))
            .map(|(key, value)| (dialogue::escape(&key), dialogue::escape(&value)))
            .map(|(key, value)| (key, dialogue.comparable(name, &value)));
        let expected = dialogue.records(name).unwrap_or_default();
        differs(name.into(), &text(escaped.collect()), &text(expected));
    }
    assert!(!server.log_text().contains(SILENT), "{}", server.log_text());
    differences
}

#[test]
fn dialogues_differ_in_nothing() {
    let Some(tools) = Tools::build() else { return };
    let dialogues = dialogue::without_clock();
    let differences: usize = dialogues.iter().map(|one| play(&tools, one)).sum();
    tell(&format!("replayed: {} dialogues", dialogues.len()));
    println!(
        "check: buffers of {BUFFER} octets: {} dialogues over 4 workers: {differences} differences",
        dialogues.len()
    );
    assert_eq!(differences, 0);
}

/// Load of so many connections, each with so many requests at once.
#[derive(Clone, Copy)]
struct Load {
    connections: usize,
    at_once: usize,
    rounds: usize,
    workers: usize,
    buffer: u32,
    /// Writer and workers stand still in turn, so that buffers fill.
    has_pauses: bool,
}

impl Load {
    /// Connections of one thread, which asks on all before it reads.
    const THREADS: usize = 8;

    fn senders(self, connection: usize, round: usize) -> Vec<String> {
        (0..self.at_once)
            .map(|place| format!("c{connection}r{round}p{place}x@s.example"))
            .collect()
    }

    /// Asks on some of the connections; how many requests passed.
    fn ask(self, server: &Server, connections: std::ops::Range<usize>) -> usize {
        let mut clients: Vec<_> = connections
            .map(|number| (number, server.connect()))
            .collect();
        let mut passed = 0;
        for round in 0..self.rounds {
            for (number, client) in &mut clients {
                let senders = self.senders(*number, round);
                let requests = senders.iter().map(|sender| request(&[("sender", sender)]));
                client.send(&requests.collect::<Vec<_>>().concat());
            }
            for (_, client) in &mut clients {
                for _ in 0..self.at_once {
                    let reply = client.reply().expect("a reply to each request");
                    passed += usize::from(!reply.starts_with("DEFER_IF_PERMIT"));
                }
            }
        }
        passed
    }

    /// Lets each child in turn stand still, much shorter than what it may take.
    fn pause_children(children: &[Pid], is_over: &AtomicBool) {
        for child in children.iter().cycle() {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            kill(*child, Signal::SIGSTOP).unwrap();
            std::thread::sleep(Duration::from_millis(150));
            kill(*child, Signal::SIGCONT).unwrap();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// None passes and none is lost.
    fn run(self, tools: &Tools) {
        let folder = memory_dir();
        let workers = format!("--workers={}", self.workers);
        let options = ["--quiet", "--sync=none", &workers];
        let server = start(tools, self.buffer, folder.path(), &options);
        let children = server.wait_for_children(self.workers + 1);
        let is_over = AtomicBool::new(false);
        let share = self.connections / Load::THREADS;
        let passed: usize = std::thread::scope(|scope| {
            if self.has_pauses {
                scope.spawn(|| Load::pause_children(&children, &is_over));
            }
            let server = &server;
            let asking: Vec<_> = (0..Load::THREADS)
                .map(|thread| {
                    let connections = thread * share..(thread + 1) * share;
                    scope.spawn(move || self.ask(server, connections))
                })
                .collect();
            let ended: Vec<_> = asking.into_iter().map(|one| one.join()).collect();
            is_over.store(true, Ordering::Relaxed);
            ended.into_iter().map(|passed| passed.unwrap()).sum()
        });
        server.signal(Signal::SIGUSR1);
        server.wait_for_log("answers_delayed=", 1);
        let log = server.log_text();
        let (_, delayed) = log.rsplit_once("answers_delayed=").unwrap();
        let delayed = delayed.split_whitespace().next().unwrap();
        let held: BTreeSet<String> = server.records(Database::Greylist).into_keys().collect();
        let senders = (0..self.connections)
            .flat_map(|connection| (0..self.rounds).map(move |round| (connection, round)))
            .flat_map(|(connection, round)| self.senders(connection, round));
        let lost = senders
            .filter(|sender| !held.contains(&format!("192.0.2.0/{sender}/user@example.org")))
            .count();
        println!(
            "check: buffers of {} octets: {} requests of {} connections, {} at once, {} \
             workers: {passed} passed, {lost} lost, {delayed} answers waited for room",
            self.buffer,
            self.connections * self.rounds * self.at_once,
            self.connections,
            self.at_once,
            self.workers
        );
        assert_eq!((passed, lost), (0, 0));
        assert!(!log.contains(SILENT), "{log}");
    }
}

#[test]
fn load_of_many_that_pipeline_loses_nothing() {
    let Some(tools) = Tools::build() else { return };
    let load = Load {
        connections: 64,
        at_once: 25,
        rounds: 20,
        workers: 4,
        buffer: BUFFER,
        has_pauses: false,
    };
    load.run(&tools);
    // A command is out for each connection at a time: when the writer stands
    // still, so many are several times what its queue takes.
    let load = Load {
        connections: 800,
        at_once: 5,
        rounds: 10,
        workers: 2,
        buffer: LEAST_BUFFER,
        has_pauses: true,
    };
    load.run(&tools);
}
