//! `--max-new`: dialogues of our own, for all of `--compat`, with and without
//! `--lookup-by-domain` and `--tarpit-per-message`, through the pure policy with the
//! store in memory and with LMDB, and with the running server: replies, records and
//! lines of the log. And many at once.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/answer.rs"]
mod answer;
#[path = "../common/server.rs"]
mod server;

mod at_once;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use answer::{answer, no_mails};
use postgrey::config::{self, Invocation, whitelists};
use postgrey::policy::decide::Policy;
use postgrey::policy::held::Held;
use postgrey::policy::instances::Instances;
use postgrey::policy::newcomers::Newcomers;
use postgrey::policy::record::Database;
use postgrey::policy::request::{Event, RequestReader};
use postgrey::store::Store;
use postgrey::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use postgrey::store::memory::MemoryStore;
use server::{Client, Server, request, test_dir};

const START: u64 = 1_700_000_000;
const COMPATS: [&str; 3] = [
    "--compat=targrey-1.37",
    "--compat=postgrey-1.37",
    "--compat=targrey-1.34",
];

/// Seconds since the start, client address, client name, recipient, stage, how the
/// reply begins, and why by the log (empty: it has no line).
type Step = (
    u64,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const GREY: &str = "DEFER_IF_PERMIT later";
const PASS: &str = "PREPEND X-Waited: 400";
const NEW: &str = "greylist, reason=new";
const FOUND: &str = "pass, reason=triplet found, delay=400";

fn octets(&(number, client, name, recipient, state, ..): &Step) -> Vec<u8> {
    let recipient = match recipient {
        "" => String::new(),
        user => format!("{user}@example.org"),
    };
    let time = (START + number).to_string();
    // A client sends one mail at a time.
    let instance = format!("{client}.{}", number / 400);
    request(&[
        ("instance", &instance),
        ("client_address", client),
        ("client_name", name),
        ("protocol_state", state),
        ("recipient", &recipient),
        ("policy_test_time", &time),
    ])
}

/// The options of the dialogues, and these.
fn options(dir: &Path, more: &[&str]) -> Vec<String> {
    let pools = dir.join("pools");
    fs::write(&pools, "google.com\n").unwrap();
    let mut all: Vec<String> = [
        "--greylist-text=later",
        "--x-greylist-header=X-Waited: %t",
        "--whitelist-clients=/dev/null",
        "--whitelist-recipients=/dev/null",
    ]
    .map(String::from)
    .into();
    all.push(format!("--pool-domains={}", pools.display()));
    all.extend(more.iter().map(|&word| word.to_owned()));
    all
}

/// What a dialogue leaves behind.
#[derive(Debug, Default, PartialEq)]
struct Traces {
    replies: Vec<String>,
    log: Vec<String>,
    records: BTreeSet<(usize, String, String)>,
}

impl Traces {
    fn add_records(&mut self, store: &mut dyn Store) {
        let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
        for (number, database) in Database::ALL.into_iter().enumerate() {
            store
                .scan(database, b"", None, &mut |entry| {
                    let record = (number, text(entry.key), text(entry.value));
                    self.records.insert(record);
                    ControlFlow::Continue(())
                })
                .unwrap();
        }
    }

    /// The clients and recipients of the triplets, and the keys of other records.
    fn keys(&self, database: Database) -> Vec<String> {
        let own = self
            .records
            .iter()
            .filter(|(number, ..)| Database::ALL[*number] == database);
        own.map(|(_, key, _)| {
            key.replace("/alice@example.com/", " ")
                .replace("@example.org", "")
        })
        .collect()
    }
}

fn policy(words: &[String], is_dry_run: bool) -> Policy {
    let words = words.iter().map(OsString::from).chain(["--unix=/x".into()]);
    let Ok(Invocation::Serve(settings)) = config::parse(&words.collect::<Vec<_>>()) else {
        panic!("not served")
    };
    Policy {
        rules: settings.rules.clone(),
        texts: settings.texts.clone(),
        whitelists: whitelists::load(&settings).whitelists,
        is_dry_run,
    }
}

fn through_the_policy(policy: &Policy, steps: &[Step], store: &mut dyn Store) -> Traces {
    let (mails, ring) = (no_mails(), std::array::from_fn(|_| AtomicU64::new(0)));
    let (held, instances) = (Held::new(&mails), Instances::new(&ring));
    let mut newcomers = policy.rules.max_new.map(Newcomers::new);
    let mut traces = Traces::default();
    let mut reader = RequestReader::default();
    for step in steps {
        let octets = octets(step);
        assert_eq!(reader.next_event(&mut &octets[..]), Some(Event::Request));
        let request = reader.request();
        let newcomers = newcomers.as_mut();
        let (reply, log) = answer(policy, store, request, 0.0, held, instances, newcomers);
        traces.replies.push(reply);
        traces.log.extend(log);
    }
    traces.log.retain(|line| line.contains("action="));
    traces.add_records(store);
    traces
}

fn through_the_server(words: &[String], steps: &[Step]) -> Traces {
    let dir = test_dir();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut server = Server::start(dir.path(), &words);
    // Both workers answer.
    let mut clients = [server.connect(), server.connect()];
    let mut traces = Traces::default();
    for (number, step) in steps.iter().enumerate() {
        let client: &mut Client = &mut clients[number % 2];
        traces.replies.push(client.try_ask(&octets(step)).unwrap());
    }
    drop(clients);
    assert!(server.stop().success());
    let log = server.log_text();
    let lines = log.lines().filter(|line| line.contains("action="));
    traces.log = lines.map(str::to_owned).collect();
    traces.add_records(&mut server::open_store(&server.dbdir));
    traces
}

fn lmdb(dir: &Path, map_size: usize) -> LmdbStore {
    LmdbStore::new(LmdbOptions {
        dir: dir.to_owned(),
        map_size,
        purpose: Purpose::WriteUnflushed,
        patience: Duration::ZERO,
    })
}

/// Plays a dialogue in all three ways, which have to agree; returns what it left.
fn play(more: &[&str], steps: &[Step]) -> Traces {
    let dir = test_dir();
    let words = options(dir.path(), more);
    let policy = policy(&words, false);
    let traces = through_the_policy(&policy, steps, &mut MemoryStore::default());
    for (step, reply) in steps.iter().zip(&traces.replies) {
        assert!(reply.starts_with(step.5), "{more:?} {step:?}: {reply}");
    }
    let mut reasons = steps.iter().filter(|step| !step.6.is_empty());
    for line in &traces.log {
        let &(_, client, _, _, _, _, reason) = reasons.next().expect(line);
        assert!(line.starts_with(&format!("action={reason}")), "{line}");
        let client = format!("client_address={client},");
        assert!(line.contains(&client), "{more:?} {line} is not of {client}");
    }
    assert_eq!(reasons.next(), None, "{more:?}");
    let folder = tempfile::tempdir().unwrap();
    let of_lmdb = through_the_policy(&policy, steps, &mut lmdb(folder.path(), 1 << 22));
    assert_eq!(of_lmdb, traces, "LMDB {more:?}");
    assert_eq!(through_the_server(&words, steps), traces, "server {more:?}");
    traces
}

/// In each hour two of a network, be it asked from whichever address; what is known
/// goes on, and what had no record begins later.
#[rustfmt::skip]
const NETWORKS: &[Step] = &[
    (0, "192.0.2.7", "unknown", "a", "RCPT", GREY, NEW),
    (1, "192.0.2.8", "unknown", "b", "RCPT", GREY, NEW),
    (2, "192.0.2.9", "unknown", "c", "RCPT", GREY, NEW),
    (3, "2001:db8:1:2::7", "unknown", "a", "RCPT", GREY, NEW),
    (3, "2001:db8:1:2::8", "unknown", "b", "RCPT", GREY, NEW),
    (3, "2001:db8:1:2::9", "unknown", "c", "RCPT", GREY, NEW),
    (10, "192.0.2.7", "unknown", "a", "RCPT", GREY, "greylist, reason=early-retry (290s missing)"),
    (10, "192.0.2.9", "unknown", "c", "RCPT", GREY, NEW),
    (10, "198.51.100.9", "unknown", "c", "RCPT", GREY, NEW),
    (400, "192.0.2.9", "unknown", "a", "RCPT", PASS, FOUND),
    (402, "192.0.2.9", "unknown", "c", "RCPT", GREY, NEW),
    (410, "198.51.100.9", "unknown", "c", "RCPT", PASS, FOUND),
    (3599, "192.0.2.9", "unknown", "c", "RCPT", GREY, NEW),
    (3599, "192.0.2.9", "unknown", "b", "RCPT", "PREPEND", "pass, reason=triplet found, delay=3598"),
    (3600, "192.0.2.9", "unknown", "c", "RCPT", GREY, NEW),
    (3601, "192.0.2.9", "unknown", "d", "RCPT", GREY, NEW),
    (3602, "192.0.2.9", "unknown", "e", "RCPT", GREY, NEW),
    (4000, "192.0.2.9", "unknown", "c", "RCPT", PASS, FOUND),
    (4000, "192.0.2.9", "unknown", "e", "RCPT", GREY, NEW),
];

#[test]
fn what_is_new_beyond_is_greylisted_and_leaves_no_record() {
    for compat in COMPATS {
        for more in [&[][..], &["--lookup-by-domain"], &["--tarpit-per-message"]] {
            let options = [&[compat, "--max-new=2"], more].concat();
            let traces = play(&options, NETWORKS);
            let keys = traces.keys(Database::Greylist);
            let of = |start: &str| keys.iter().filter(|key| key.starts_with(start)).count();
            let networks = [of("192.0.2.0 "), of("198.51.100.0 "), of("2001:db8:1:2")];
            assert_eq!(networks, [4, 1, 2], "{compat} {keys:?}");
            assert!(!keys.iter().any(|key| key == "192.0.2.0 e"), "{keys:?}");
        }
    }
}

/// Clients that stand in triplets with their whole address.
#[rustfmt::skip]
const ADDRESSES: &[Step] = &[
    (0, "192.0.2.7", "h-2-7.example.com", "a", "RCPT", GREY, NEW),
    (0, "192.0.2.8", "h-2-8.example.com", "a", "RCPT", GREY, NEW),
    (0, "192.0.2.9", "h-2-9.example.com", "a", "RCPT", GREY, NEW),
    (0, "2001:db8:1:2::7", "mx.example.com", "a", "RCPT", GREY, NEW),
    (0, "2001:db8:1:2::8", "mx.example.com", "a", "RCPT", GREY, NEW),
    (0, "2001:db8:1:2::9", "mx.example.com", "a", "RCPT", GREY, NEW),
    (0, "2001:db8:1:3::9", "mx.example.com", "a", "RCPT", GREY, NEW),
];

#[test]
fn addresses_of_a_network_are_counted_together() {
    let dir = test_dir();
    let list = dir.path().join("suspects");
    fs::write(&list, "192.0.2.0/24\nmx.example.com\n").unwrap();
    let suspects = format!("--suspect-clients={}", list.display());
    for compat in COMPATS {
        for more in [
            &["--lookup-by-host"][..],
            &["--lookup-by-domain", &suspects],
        ] {
            let options = [&[compat, "--max-new=2"], more].concat();
            let keys = play(&options, ADDRESSES).keys(Database::Greylist);
            let of = |start: &str| keys.iter().filter(|key| key.starts_with(start)).count();
            let networks = [of("192.0.2."), of("2001:db8:1:2"), of("2001:db8:1:3")];
            assert_eq!(networks, [2, 2, 1], "{options:?} {keys:?}");
        }
    }
}

#[test]
fn enough_changes_nothing() {
    let dir = test_dir();
    let traces = |more: &[&str]| {
        let words = options(dir.path(), more);
        let policy = policy(&words, false);
        let pure = through_the_policy(&policy, NETWORKS, &mut MemoryStore::default());
        assert_eq!(through_the_server(&words, NETWORKS), pure, "{more:?}");
        pure
    };
    for compat in COMPATS {
        let without = traces(&[compat]);
        // The same mail has its header already.
        assert_eq!(without.replies[10], "DUNNO");
        assert_eq!(traces(&[compat, "--max-new=1000"]), without);
        assert_eq!(traces(&[compat, "--max-new=0"]), without);
    }
}

/// A pool is one client wherever its servers are, and not that of its network.
#[rustfmt::skip]
const POOL: &[Step] = &[
    (0, "209.85.208.53", "mail-ed1-f53.google.com", "a", "RCPT", GREY, NEW),
    (0, "74.125.82.50", "mail-wr1-f50.google.com", "b", "RCPT", GREY, NEW),
    (1, "2001:db8::7", "mail-x.google.com", "c", "RCPT", GREY, NEW),
    (1, "209.85.208.53", "unknown", "c", "RCPT", GREY, NEW),
    (400, "74.125.82.50", "mail-wr1-f50.google.com", "c", "RCPT", GREY, NEW),
    (400, "74.125.82.50", "mail-wr1-f50.google.com", "a", "RCPT", PASS, FOUND),
];

#[test]
fn a_pool_is_counted_as_one_client() {
    for compat in COMPATS {
        let traces = play(&[compat, "--max-new=2", "--lookup-by-domain"], POOL);
        let keys = traces.keys(Database::Greylist);
        assert_eq!(keys, ["209.85.208.0 c", "google.com a", "google.com b"]);
        let traces = play(
            &[compat, "--max-new=2", "--lookup-by-domain", "--privacy"],
            POOL,
        );
        assert_eq!(traces.keys(Database::Greylist).len(), 3);
    }
}

const SLEEP: &str = "SLEEP 125";

/// The tarpit goes by addresses: a network has as many there, and who leaves makes room.
/// Without a record a client is held again, since it may be one that waits.
#[rustfmt::skip]
const TARPIT: &[Step] = &[
    (0, "2001:db8:1:2::1", "unknown", "a", "RCPT", SLEEP, ""),
    (0, "2001:db8:1:2::2", "unknown", "b", "RCPT", SLEEP, ""),
    (0, "2001:db8:1:2::3", "unknown", "c", "RCPT", SLEEP, ""),
    (1, "2001:db8:1:2::1", "unknown", "d", "RCPT", GREY, NEW),
    (1, "2001:db8:1:2::3", "unknown", "c", "RCPT", SLEEP, ""),
    // It waits, and is let in like others.
    (126, "2001:db8:1:2::3", "unknown", "c", "DATA", "DUNNO", ""),
    (126, "2001:db8:1:2::3", "unknown", "c", "RCPT", SLEEP, ""),
    // One that has a record waits, and there is room for another.
    (130, "2001:db8:1:2::2", "unknown", "", "DATA", "DUNNO", ""),
    (131, "2001:db8:1:2::3", "unknown", "e", "RCPT", SLEEP, ""),
    (132, "2001:db8:1:2::3", "unknown", "e", "RCPT", GREY, NEW),
    (400, "2001:db8:1:2::4", "unknown", "a", "RCPT", PASS, FOUND),
    (3600, "2001:db8:1:2::5", "unknown", "f", "RCPT", SLEEP, ""),
    (3601, "2001:db8:1:2::5", "unknown", "g", "RCPT", GREY, NEW),
];

#[test]
fn the_tarpit_has_room_for_as_many_addresses() {
    // 1.34 has other networks of IPv6.
    for compat in &COMPATS[..2] {
        let options = [
            compat,
            "--max-new=2",
            "--targrey",
            "--auto-whitelist-clients=0",
        ];
        let traces = play(&options, TARPIT);
        let of = |last: &str| format!("2001:db8:1:2::{last}");
        assert_eq!(traces.keys(Database::Tarpit), ["1", "3", "5"].map(of));
        let keys = traces.keys(Database::Greylist);
        let network = |recipient| format!("2001:db8:1:2:0:0:0:0 {recipient}");
        assert_eq!(keys, ["a", "b", "f", "g"].map(network), "{compat}");

        // With the other option those who are held pass with further recipients.
        let mut steps = TARPIT.to_vec();
        for step in steps.iter_mut().skip(3) {
            if step.4 == "RCPT" && (step.5 == GREY || step.5 == SLEEP) && step.0 < 3600 {
                (step.5, step.6) = ("DUNNO", "pass, reason=held before");
            }
        }
        if let Some(last) = steps.last_mut() {
            (last.5, last.6) = ("DUNNO", "pass, reason=held before");
        }
        let once = play(&[&options[..], &["--tarpit-per-message"]].concat(), &steps);
        assert_eq!(once.records, traces.records);
    }
}

#[test]
fn a_tarpit_without_records_answers_as_ever() {
    let steps: Vec<Step> = NETWORKS[..3]
        .iter()
        .map(|step| {
            let mut step = *step;
            (step.5, step.6) = ("SLEEP 9, DEFER_IF_PERMIT", "");
            step
        })
        .collect();
    let traces = play(&["--max-new=2", "--tarpit=9"], &steps);
    assert_eq!(
        traces.keys(Database::Greylist),
        ["192.0.2.0 a", "192.0.2.0 b"]
    );
}

#[test]
fn a_dry_run_records_and_logs_what_would_be() {
    let dir = test_dir();
    let words = options(dir.path(), &["--max-new=2"]);
    let [wet, dry] = [false, true].map(|is_dry_run| {
        let policy = policy(&words, is_dry_run);
        through_the_policy(&policy, NETWORKS, &mut MemoryStore::default())
    });
    assert!(dry.replies.iter().all(|reply| reply == "DUNNO"));
    assert_eq!((dry.log, &dry.records), (wet.log, &wet.records));
    let dry = options(dir.path(), &["--max-new=2", "-n"]);
    assert_eq!(through_the_server(&dry, NETWORKS).records, wet.records);
}
