//! `--whitelist-senders`, `--greylist-recipients` and `--suspect-clients`: dialogues of
//! our own, for all of `--compat`, through the pure policy with the store in memory and
//! with LMDB, and with the running server: replies, records and lines of the log.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/answer.rs"]
mod answer;
mod dialogues;
#[path = "../common/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use answer::{answer, no_mails};
use dialogues::{DIALOGUES, DUNNO, Dialogue, HOUR, NOT_IN, SENDER, START, Step};
use nix::sys::signal::Signal;
use postgrey::config::{self, Invocation, whitelists};
use postgrey::policy::decide::Policy;
use postgrey::policy::held::Held;
use postgrey::policy::instances::Instances;
use postgrey::policy::record::Database;
use postgrey::policy::request::{Event, RequestReader};
use postgrey::store::Store;
use postgrey::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use postgrey::store::memory::MemoryStore;
use server::{Client, Server, request, spawn, test_dir, wait_until};

const COMPATS: [&str; 3] = ["targrey-1.37", "postgrey-1.37", "targrey-1.34"];
fn octets(step: &Step) -> Vec<u8> {
    let &(time, name, address, sender, recipient, state, ..) = step;
    let time = (START + time).to_string();
    request(&[
        ("client_name", name),
        ("client_address", address),
        ("sender", sender),
        ("recipient", recipient),
        ("protocol_state", state),
        ("policy_test_time", &time),
    ])
}

fn options(dir: &Path, dialogue: &Dialogue, compat: &str) -> Vec<String> {
    let mut options: Vec<String> = [
        "--greylist-text=later",
        "--x-greylist-header=X-Waited: %t",
        "--delay=300",
    ]
    .map(String::from)
    .into();
    options.push(format!("--compat={compat}"));
    options.extend(dialogue.options.iter().map(|&word| word.to_owned()));
    for (option, content) in dialogue.files {
        let file = dir.join(option.trim_start_matches('-'));
        // Half of it in the file that comes with it.
        let (own, local) = content.split_at(content.find('\n').unwrap() + 1);
        fs::write(&file, own).unwrap();
        fs::write(format!("{}.local", file.display()), local).unwrap();
        options.push(format!("{option}={}", file.display()));
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

impl Traces {
    fn keys(&self, database: Database) -> Vec<String> {
        let number = Database::ALL.iter().position(|&one| one == database);
        let own = self.records.keys().filter(|(of, _)| Some(*of) == number);
        own.map(|(_, key)| String::from_utf8(key.clone()).unwrap())
            .collect()
    }
}

fn add_records(traces: &mut Traces, store: &mut dyn Store) {
    for (number, database) in Database::ALL.into_iter().enumerate() {
        let records = &mut traces.records;
        store
            .scan(database, b"", None, &mut |entry| {
                records.insert((number, entry.key.to_vec()), entry.value.to_vec());
                ControlFlow::Continue(())
            })
            .unwrap();
    }
}

fn policy(options: &[String]) -> Policy {
    let mut words = vec![OsString::from("--unix=/x")];
    // The last one counts of those that do not repeat; lists add up.
    for list in ["--whitelist-clients", "--whitelist-recipients"] {
        if !options.iter().any(|word| word.starts_with(list)) {
            words.push(format!("{list}=/dev/null").into());
        }
    }
    words.extend(options.iter().map(OsString::from));
    let Ok(Invocation::Serve(settings)) = config::parse(&words) else {
        panic!("not served")
    };
    let loaded = whitelists::load(&settings);
    let fatal: Vec<_> = loaded.problems.iter().filter(|p| p.is_fatal).collect();
    assert!(fatal.is_empty(), "{fatal:?}");
    Policy {
        rules: settings.rules.clone(),
        texts: settings.texts.clone(),
        whitelists: loaded.whitelists,
        is_dry_run: false,
    }
}

fn through_the_policy(dialogue: &Dialogue, compat: &str, store: &mut dyn Store) -> Traces {
    let dir = test_dir();
    let policy = policy(&options(dir.path(), dialogue, compat));
    let (mails, ring) = (no_mails(), std::array::from_fn(|_| AtomicU64::new(0)));
    let (held, instances) = (Held::new(&mails), Instances::new(&ring));
    let mut traces = Traces::default();
    let mut reader = RequestReader::default();
    for step in dialogue.steps {
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

fn through_the_server(dialogue: &Dialogue, compat: &str) -> Traces {
    let dir = test_dir();
    let options = options(dir.path(), dialogue, compat);
    let mut options: Vec<&str> = options.iter().map(String::as_str).collect();
    options.push("--workers=2");
    let mut server = Server::start(dir.path(), &options);
    let mut clients: Vec<Client> = (0..3).map(|_| server.connect()).collect();
    let mut traces = Traces::default();
    for (number, step) in dialogue.steps.iter().enumerate() {
        let client = &mut clients[number % 3];
        traces.replies.push(client.try_ask(&octets(step)).unwrap());
    }
    drop(clients);
    assert!(server.stop().success());
    let log = server.log_text();
    let is_ours = |line: &&str| line.contains("action=") || line.contains("whitelisted: ");
    traces.log = log.lines().filter(is_ours).map(str::to_owned).collect();
    add_records(&mut traces, &mut server::open_store(&server.dbdir));
    traces
}

#[test]
fn each_dialogue_is_answered_as_it_says() {
    for dialogue in DIALOGUES {
        for compat in COMPATS {
            let traces = through_the_policy(dialogue, compat, &mut MemoryStore::default());
            let name = format!("{} {compat}", dialogue.name);
            let mut lines = traces.log.iter();
            for (number, step) in dialogue.steps.iter().enumerate() {
                let &(.., expected, line) = step;
                let reply = &traces.replies[number];
                assert!(reply.starts_with(expected), "{name} {number}: {reply}");
                if !line.is_empty() {
                    let found = lines.next().unwrap();
                    assert!(found.starts_with(line), "{name} {number}: {found}");
                    // The line of the pass comes after that of the client.
                    if line.starts_with("whitelisted") {
                        lines.next();
                    }
                }
            }
            assert_eq!(lines.next(), None, "{name}");
            assert_eq!(traces.keys(Database::Clients), dialogue.clients, "{name}");
            assert_eq!(traces.keys(Database::Tarpit), dialogue.tarpit, "{name}");
        }
    }
}

#[test]
fn lmdb_and_the_running_server_say_the_same() {
    for dialogue in DIALOGUES {
        for compat in COMPATS {
            let expected = through_the_policy(dialogue, compat, &mut MemoryStore::default());
            let dir = tempfile::tempdir().unwrap();
            let mut store = LmdbStore::new(LmdbOptions {
                dir: dir.path().to_owned(),
                map_size: 1 << 24,
                purpose: Purpose::WriteUnflushed,
                patience: std::time::Duration::ZERO,
            });
            let lmdb = through_the_policy(dialogue, compat, &mut store);
            assert_eq!(lmdb, expected, "{} {compat}", dialogue.name);
            let served = through_the_server(dialogue, compat);
            assert_eq!(served, expected, "{} {compat}", dialogue.name);
        }
    }
}

#[test]
fn a_suspect_client_stands_in_triplets_with_its_whole_address() {
    let suspects = DIALOGUES.iter().find(|one| one.name == "suspects").unwrap();
    for (compat, key) in [
        ("targrey-1.37", "198.51.100.9/32/a@y.example/u@x.example"),
        ("targrey-1.34", "198.51.100.9/a@y.example/u@x.example"),
    ] {
        let traces = through_the_policy(suspects, compat, &mut MemoryStore::default());
        let keys = traces.keys(Database::Greylist);
        assert!(keys.iter().any(|own| own == key), "{compat} {keys:?}");
        let network = "192.0.2.0/a@y.example/u@x.example";
        assert!(keys.iter().any(|own| own == network), "{compat} {keys:?}");
    }
}

/// What a session says and the server counts, and that HUP reads all three lists, or none.
#[test]
fn lists_are_reloaded_together_and_passes_are_counted() {
    let dir = test_dir();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
    write("senders", "a@y.example\n");
    write("opted", "u@x.example\nv@x.example\n");
    write("suspects", "192.0.2.9\n");
    let options = [
        format!("--whitelist-senders={}", path("senders")),
        format!("--greylist-recipients={}", path("opted")),
        format!("--suspect-clients={}", path("suspects")),
        "--auto-whitelist-clients=1".into(),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut server = Server::start(dir.path(), &options);
    let mut client = server.connect();
    let mut asked = |address: &str, sender: &str, recipient: &str, time: u64| {
        let time = (START + time).to_string();
        let reply = client.ask(&[
            ("client_address", address),
            ("sender", sender),
            ("recipient", recipient),
            ("policy_test_time", &time),
        ]);
        reply.split(' ').next().unwrap().to_owned()
    };
    // 192.0.2.9 would be on the auto-whitelist if it were not suspect.
    for (time, reply) in [(0, "DEFER_IF_PERMIT"), (300, "PREPEND")] {
        assert_eq!(
            asked("192.0.2.7", "b@y.example", "v@x.example", time),
            reply
        );
    }
    let all = |asked: &mut dyn FnMut(&str, &str, &str, u64) -> String| {
        [
            asked("192.0.2.8", "a@y.example", "u@x.example", HOUR),
            asked("192.0.2.8", "c@y.example", "w@x.example", HOUR),
            asked("192.0.2.7", "d@y.example", "u@x.example", HOUR),
        ]
    };
    assert_eq!(all(&mut asked), ["DUNNO", "DUNNO", "DUNNO"]);
    // One of them is bad: all stay as they were.
    write("senders", "b@y.example\n");
    write("opted", "/[/\nu@x.example\nw@x.example\n");
    write("suspects", "192.0.2.7\n");
    server.signal(Signal::SIGHUP);
    server.wait_for_log("whitelists not reloaded: the old ones stay in use", 1);
    server.wait_for_log(&format!("{} line 1: ", path("opted")), 1);
    assert_eq!(all(&mut asked), ["DUNNO", "DUNNO", "DUNNO"]);
    fs::remove_file(path("opted")).unwrap();
    server.signal(Signal::SIGHUP);
    server.wait_for_log(&format!("can't open {}: ", path("opted")), 1);
    assert_eq!(all(&mut asked), ["DUNNO", "DUNNO", "DUNNO"]);
    write("opted", "u@x.example\nw@x.example\n");
    server.signal(Signal::SIGHUP);
    server.wait_for_log(", 1 for senders, 2 opted in, 1 suspect", 1);
    wait_until("the new lists", || {
        all(&mut asked) == ["DEFER_IF_PERMIT", "DEFER_IF_PERMIT", "DEFER_IF_PERMIT"]
    });
    let log = server.log_text();
    let [senders, opted_in] = [SENDER, NOT_IN].map(|line| log.matches(line).count());
    server.signal(Signal::SIGUSR1);
    server.wait_for_log(
        &format!(" pass_sender_whitelist={senders} pass_not_opted_in={opted_in} "),
        1,
    );
    assert!(senders >= 3 && opted_in >= 3, "{log}");
    drop(client);
    assert!(server.stop().success());
}

/// A list that is not there when the server starts: mail passes, and the log says why.
#[test]
fn without_the_list_of_those_that_opted_in_nobody_is_greylisted() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--greylist-recipients=/nonexistent/list"]);
    assert_eq!(server.connect().ask(&[]), DUNNO);
    server.wait_for_log("can't open /nonexistent/list: No such file or directory", 1);
    server.wait_for_log(NOT_IN, 1);
}

#[test]
fn a_session_of_spawn_has_the_lists() {
    let dir = test_dir();
    let list = dir.path().join("senders");
    fs::write(&list, "<>\n").unwrap();
    let option = format!("--whitelist-senders={}", list.display());
    let mut session = spawn(dir.path(), &[&option]);
    assert_eq!(session.client.ask(&[("sender", "")]), DUNNO);
    let other = session.client.ask(&[]);
    assert!(other.starts_with("DEFER_IF_PERMIT"), "{other}");
    drop(session.client);
    assert!(session.child.wait().unwrap().success());
}

/// Under the rules of 1.34 an attribute may be missing; that is not the null sender.
#[test]
fn a_sender_that_is_missing_is_not_the_null_sender() {
    let dir = test_dir();
    let list = dir.path().join("senders");
    fs::write(&list, "<>\n").unwrap();
    let options = [
        format!("--whitelist-senders={}", list.display()),
        "--compat=targrey-1.34".into(),
    ];
    let policy = policy(&options);
    let mut store = MemoryStore::default();
    for (sender, is_passed) in [("sender=\n", true), ("", false)] {
        let octets = format!(
            "request=smtpd_access_policy\nclient_address=192.0.2.7\nclient_name=unknown\n\
             recipient=a@b.example\n{sender}\n"
        );
        let mut reader = RequestReader::default();
        let event = reader.next_event(&mut octets.as_bytes());
        assert_eq!(event, Some(Event::Request));
        let (mails, ring) = (no_mails(), std::array::from_fn(|_| AtomicU64::new(0)));
        let (held, instances) = (Held::new(&mails), Instances::new(&ring));
        let (reply, _) = answer(
            &policy,
            &mut store,
            reader.request(),
            1.7e9,
            held,
            instances,
            None,
        );
        assert_eq!(reply == DUNNO, is_passed, "{sender:?} {reply}");
    }
}
