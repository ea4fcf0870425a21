//! `--tarpit-per-message`: dialogues of our own, for all of `--compat`, through the
//! pure policy with the store in memory and with LMDB, and with the running server:
//! replies, records and lines of the log.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/answer.rs"]
mod answer;
#[path = "common/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicU64;

use answer::{answer, no_mails};
use postgrey::config::{self, Invocation, whitelists};
use postgrey::policy::decide::Policy;
use postgrey::policy::held::Held;
use postgrey::policy::instances::Instances;
use postgrey::policy::record::Database;
use postgrey::policy::request::{Event, RequestReader};
use postgrey::store::Store;
use postgrey::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use postgrey::store::memory::MemoryStore;
use server::{Client, Server, request, spawn, test_dir};

const COMPATS: [&str; 3] = ["targrey-1.37", "postgrey-1.37", "targrey-1.34"];
const START: u64 = 1_700_000_000;

/// A step: seconds since the start, the instance, client, recipient and stage, and the
/// reply with the option and without it.
struct Step {
    time: u64,
    instance: &'static str,
    client: &'static str,
    recipient: &'static str,
    state: &'static str,
    with: &'static str,
    without: &'static str,
}

#[rustfmt::skip]
const fn step(
    time: u64, instance: &'static str, client: &'static str, recipient: &'static str,
    state: &'static str, with: &'static str, without: &'static str,
) -> Step {
    Step { time, instance, client, recipient, state, with, without }
}

const PATIENT: &str = "192.0.2.7";
const IMPATIENT: &str = "198.51.100.9";
const BUSY: &str = "203.0.113.5";
const SLEEP: &str = "SLEEP 125";
const GREY: &str = "DEFER_IF_PERMIT";
const HEADER: &str = "PREPEND X-Waited: 375";
const DUNNO: &str = "DUNNO";

/// In the order they come. The triplets' delay is 300 s.
#[rustfmt::skip]
const STEPS: &[Step] = &[
    // One recipient.
    step(0, "a.1", PATIENT, "a", "RCPT", SLEEP, SLEEP),
    step(125, "a.1", PATIENT, "a", "DATA", DUNNO, DUNNO),
    // Three: those after the first pass, and DATA has no recipient.
    step(200, "a.2", PATIENT, "b", "RCPT", SLEEP, SLEEP),
    step(325, "a.2", PATIENT, "c", "RCPT", DUNNO, GREY),
    step(325, "a.2", PATIENT, "d", "RCPT", DUNNO, GREY),
    // The same once more.
    step(325, "a.2", PATIENT, "d", "RCPT", DUNNO, GREY),
    step(325, "a.2", PATIENT, "", "DATA", DUNNO, DUNNO),
    // Who hangs up is greylisted with all recipients, in each new session.
    step(400, "b.1", IMPATIENT, "a", "RCPT", SLEEP, SLEEP),
    step(410, "b.2", IMPATIENT, "a", "RCPT", GREY, GREY),
    step(410, "b.2", IMPATIENT, "b", "RCPT", GREY, GREY),
    step(420, "b.3", IMPATIENT, "b", "RCPT", GREY, GREY),
    // Another client with the instance of one that is held, as of another host.
    step(430, "b.1", PATIENT, "e", "RCPT", SLEEP, SLEEP),
    // Without an instance, and with an empty one, as without the option.
    step(440, "", "192.0.2.8", "f", "RCPT", SLEEP, SLEEP),
    step(440, "", "192.0.2.8", "g", "RCPT", GREY, GREY),
    step(440, "-", "192.0.2.8", "h", "RCPT", GREY, GREY),
    // Two mails of one client at the same time: DATA of the other takes the client out
    // of the tarpit, and this one is not held again.
    step(500, "c.1", BUSY, "a", "RCPT", SLEEP, SLEEP),
    step(510, "c.2", BUSY, "a", "RCPT", GREY, GREY),
    step(520, "c.2", BUSY, "", "DATA", DUNNO, DUNNO),
    step(625, "c.1", BUSY, "b", "RCPT", DUNNO, SLEEP),
    // A triplet that has waited passes as ever, in a mail that is held, too.
    step(700, "b.1", PATIENT, "c", "RCPT", HEADER, HEADER),
    step(700, "b.1", PATIENT, "d", "RCPT", DUNNO, DUNNO),
    // An hour is long enough, and no longer.
    step(500 + 3600, "c.1", BUSY, "c", "RCPT", DUNNO, GREY),
    step(500 + 3601, "c.1", BUSY, "d", "RCPT", GREY, GREY),
    step(4200, "c.1", BUSY, "", "DATA", DUNNO, DUNNO),
];

fn octets(step: &Step) -> Vec<u8> {
    let recipient = match step.recipient {
        "" => String::new(),
        user => format!("{user}@example.org"),
    };
    let time = (START + step.time).to_string();
    let mut attributes = vec![
        ("client_address", step.client),
        ("client_name", "unknown"),
        ("protocol_state", step.state),
        ("recipient", &recipient),
        ("policy_test_time", &time),
    ];
    match step.instance {
        "" => {}
        "-" => attributes.push(("instance", "")),
        instance => attributes.push(("instance", instance)),
    }
    request(&attributes)
}

fn options(compat: &str, is_on: bool) -> Vec<String> {
    let mut options: Vec<String> = [
        "--targrey",
        "--delay=300",
        "--greylist-text=later",
        "--x-greylist-header=X-Waited: %t",
        "--auto-whitelist-clients=0",
    ]
    .map(String::from)
    .into();
    options.push(format!("--compat={compat}"));
    if is_on {
        options.push("--tarpit-per-message".into());
    }
    options
}

/// What a dialogue leaves behind.
#[derive(Debug, Default, PartialEq)]
struct Traces {
    replies: Vec<String>,
    log: Vec<String>,
    records: BTreeMap<(usize, Vec<u8>), Vec<u8>>,
}

fn add_records(traces: &mut Traces, store: &mut dyn Store) {
    for (number, database) in Database::ALL.into_iter().enumerate() {
        let mut add = |key: &[u8], value: &[u8]| {
            let key = (number, key.to_vec());
            traces.records.insert(key, value.to_vec());
        };
        store
            .scan(database, b"", None, &mut |entry| {
                add(entry.key, entry.value);
                ControlFlow::Continue(())
            })
            .unwrap();
    }
}

/// The steps through the pure policy.
fn through_the_policy(
    compat: &str,
    is_on: bool,
    is_dry_run: bool,
    store: &mut dyn Store,
) -> Traces {
    let mut words: Vec<OsString> = options(compat, is_on).iter().map(OsString::from).collect();
    words.extend(["--unix=/x", "--whitelist-clients=/dev/null"].map(OsString::from));
    words.push("--whitelist-recipients=/dev/null".into());
    let Ok(Invocation::Serve(settings)) = config::parse(&words) else {
        panic!("not served")
    };
    let policy = Policy {
        rules: settings.rules.clone(),
        texts: settings.texts.clone(),
        whitelists: whitelists::load(&settings).whitelists,
        is_dry_run,
    };
    let (mails, ring) = (no_mails(), std::array::from_fn(|_| AtomicU64::new(0)));
    let (held, instances) = (Held::new(&mails), Instances::new(&ring));
    let mut traces = Traces::default();
    let mut reader = RequestReader::default();
    for step in STEPS {
        let octets = octets(step);
        assert_eq!(reader.next_event(&mut &octets[..]), Some(Event::Request));
        let request = reader.request();
        let (reply, log) = answer(&policy, store, request, 0.0, held, instances, None);
        traces.log.extend(log);
        traces.replies.push(reply);
    }
    add_records(&mut traces, store);
    traces
}

fn through_the_server(compat: &str, is_on: bool, connections: usize) -> Traces {
    let dir = test_dir();
    let options = options(compat, is_on);
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut server = Server::start(dir.path(), &[&options[..], &["--workers=2"]].concat());
    let mut clients: Vec<Client> = (0..connections).map(|_| server.connect()).collect();
    let mut traces = Traces::default();
    for (number, step) in STEPS.iter().enumerate() {
        let client = &mut clients[number % connections];
        traces.replies.push(client.try_ask(&octets(step)).unwrap());
    }
    drop(clients);
    assert!(server.stop().success());
    let log = server.log_text();
    let lines = log.lines().filter(|line| line.contains("action="));
    traces.log = lines.map(str::to_owned).collect();
    add_records(&mut traces, &mut server::open_store(&server.dbdir));
    traces
}

/// The reply without the text for the client.
fn action(reply: &str) -> &str {
    reply.strip_suffix(" later").unwrap_or(reply)
}

fn line(step: &Step, decision: &str) -> String {
    let recipient = match step.recipient {
        "" => String::new(),
        user => format!(", recipient={user}@example.org"),
    };
    format!(
        "{decision}, client_name=unknown, client_address={}, sender=alice@example.com{recipient}",
        step.client
    )
}

#[test]
fn a_mail_is_held_once_and_without_the_option_as_ever() {
    for compat in COMPATS {
        let without = through_the_policy(compat, false, false, &mut MemoryStore::default());
        let with = through_the_policy(compat, true, false, &mut MemoryStore::default());
        for (number, step) in STEPS.iter().enumerate() {
            let [own, plain] = [&with, &without].map(|traces| action(&traces.replies[number]));
            assert_eq!(own, step.with, "{compat} {number} with");
            assert_eq!(plain, step.without, "{compat} {number} without");
        }
        // Only replies and lines differ.
        assert_eq!(with.records, without.records, "{compat}");
        let expected: Vec<String> = STEPS
            .iter()
            .filter(|step| step.with != step.without)
            .map(|step| line(step, "action=pass, reason=held before"))
            .collect();
        let own = with.log.iter().filter(|line| line.contains("held before"));
        assert_eq!(own.cloned().collect::<Vec<_>>(), expected, "{compat}");
        // SLEEP, and DATA after it, have no line; all else has one.
        let is_logged = |step: &&Step| step.without != SLEEP && step.state == "RCPT";
        let lines = STEPS.iter().filter(is_logged).count();
        assert_eq!(without.log.len(), lines, "{compat}");
        assert_eq!(with.log.len(), lines + 1, "{compat}");
        let is_other = |line: &&String| !line.contains("held before");
        let mut others = with.log.iter().filter(is_other);
        assert!(others.all(|line| without.log.contains(line)), "{compat}");
        assert!(!without.log.iter().any(|line| line.contains("held before")));
    }
}

#[test]
fn lmdb_and_the_running_server_say_the_same() {
    for compat in COMPATS {
        for is_on in [true, false] {
            let expected = through_the_policy(compat, is_on, false, &mut MemoryStore::default());
            let dir = tempfile::tempdir().unwrap();
            let mut store = LmdbStore::new(LmdbOptions {
                dir: dir.path().to_owned(),
                map_size: 1 << 24,
                purpose: Purpose::WriteUnflushed,
                patience: std::time::Duration::ZERO,
            });
            let lmdb = through_the_policy(compat, is_on, false, &mut store);
            assert_eq!(lmdb, expected, "{compat} {is_on}");
            for connections in [1, 4] {
                let served = through_the_server(compat, is_on, connections);
                assert_eq!(served, expected, "{compat} {is_on} {connections}");
            }
        }
    }
}

#[test]
fn a_dry_run_logs_what_would_be() {
    let mut store = MemoryStore::default();
    let wet = through_the_policy(COMPATS[0], true, false, &mut store);
    let mut store = MemoryStore::default();
    let dry = through_the_policy(COMPATS[0], true, true, &mut store);
    assert!(dry.replies.iter().all(|reply| reply == DUNNO));
    assert_eq!((dry.log, dry.records), (wet.log, wet.records));
}

#[test]
fn it_is_counted_and_forgotten_with_the_server() {
    use nix::sys::signal::Signal;
    let dir = test_dir();
    let mut server = Server::start(dir.path(), &["--targrey", "--tarpit-per-message"]);
    let mut client = server.connect();
    let ask = |client: &mut Client, recipient: &str| {
        client.ask(&[("instance", "a.1"), ("recipient", recipient)])
    };
    assert_eq!(ask(&mut client, "a@b"), "SLEEP 125");
    assert_eq!(ask(&mut client, "c@d"), "DUNNO");
    // Whichever worker answers, and whoever replaces it.
    for worker in server.wait_for_children(3).into_iter().skip(1) {
        nix::sys::signal::kill(worker, Signal::SIGKILL).unwrap();
    }
    server.wait_for_log("starting another", 2);
    server.wait_for_children(3);
    let mut client = server.connect();
    assert_eq!(ask(&mut client, "e@f"), "DUNNO");
    server.signal(Signal::SIGUSR1);
    server.wait_for_log("pass_held_before=2 greylist_new=0 ", 1);
    drop(client);
    assert!(server.stop().success());
    server.start_again();
    let mut client = server.connect();
    assert!(ask(&mut client, "g@h").starts_with(GREY));
}

#[test]
fn thousands_wait_at_the_same_time() {
    const MAILS: usize = 3000;
    let dir = test_dir();
    let server = Server::start(
        dir.path(),
        &["--targrey", "--tarpit-per-message", "--sync=none"],
    );
    let mut clients = [server.connect(), server.connect()];
    let mut ask = |mail: usize, recipient: &str| {
        clients[(mail + recipient.len()) % 2].ask(&[
            ("instance", &format!("1a2b.{mail:x}.0")),
            (
                "client_address",
                &format!("198.18.{}.{}", mail / 250, mail % 250),
            ),
            ("recipient", recipient),
        ])
    };
    for mail in 0..MAILS {
        assert_eq!(ask(mail, "a@b"), "SLEEP 125");
    }
    // Over the other connection.
    let let_go = (0..MAILS).filter(|&mail| ask(mail, "cd@e") == "DUNNO");
    assert_eq!(let_go.count(), MAILS);
}

#[test]
fn a_session_of_spawn_remembers_its_own_mails() {
    let dir = test_dir();
    let options = ["--targrey", "--tarpit-per-message", "--tarpit=7"];
    let asked = |client: &mut Client, recipient: &str| {
        client.ask(&[("instance", "a.1"), ("recipient", recipient)])
    };
    let mut first = spawn(dir.path(), &options);
    assert_eq!(asked(&mut first.client, "a@b"), "SLEEP 7");
    assert_eq!(asked(&mut first.client, "c@d"), "DUNNO");
    let mut second = spawn(dir.path(), &options);
    assert!(asked(&mut second.client, "e@f").starts_with(GREY));
    for mut session in [first, second] {
        drop(session.client);
        assert!(session.child.wait().unwrap().success());
    }
}
