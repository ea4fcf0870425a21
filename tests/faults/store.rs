//! Each call of the store fails in turn, at each point of a run of requests.

use std::rc::Rc;

use postgrey::config::settings::Settings;
use postgrey::config::{self, Invocation, whitelists};
use postgrey::log::{Level, Log, Sinks};
use postgrey::policy::apply::Reading;
use postgrey::policy::command::{Command, Outcome};
use postgrey::policy::decide::Policy;
use postgrey::policy::record::Database;
use postgrey::policy::request::RequestReader;
use postgrey::policy::rules::Rules;
use postgrey::server::engine::{Advance, Commands, Engine, Replies};
use postgrey::server::shared::Shared;
use postgrey::store::expiry::{Expiry, Progress};
use postgrey::store::memory::MemoryStore;
use postgrey::store::{CommitReport, Editor, ErrorKind, Found, Key, Store, StoreError, Visitor};

use crate::server::request;

/// A store that fails at its call number `fails_at`, counted from 0.
struct Failing {
    inner: MemoryStore,
    calls: usize,
    fails_at: usize,
    /// The name of the call that has failed.
    failed: &'static str,
}

impl Failing {
    fn call(&mut self, call: &'static str) -> Result<&mut MemoryStore, StoreError> {
        let number = self.calls;
        self.calls += 1;
        if number != self.fails_at {
            return Ok(&mut self.inner);
        }
        self.failed = call;
        Err(StoreError {
            call,
            path: "memory".into(),
            reason: "No space left on device".into(),
            kind: ErrorKind::System,
        })
    }
}

impl Store for Failing {
    fn try_read(&mut self, rules: &Rules, command: &Command) -> Result<Reading, StoreError> {
        self.call("try_read")?.try_read(rules, command)
    }

    fn apply_batch(
        &mut self,
        rules: &Rules,
        commands: &[Command],
        outcomes: &mut Vec<Option<Outcome>>,
    ) -> Result<CommitReport, StoreError> {
        self.call("apply_batch")?
            .apply_batch(rules, commands, outcomes)
    }

    fn scan(
        &mut self,
        database: Database,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visitor,
    ) -> Result<bool, StoreError> {
        self.call("scan")?.scan(database, prefix, after, visit)
    }

    fn records_of(&mut self, command: &Command) -> Result<Vec<Found>, StoreError> {
        self.call("records_of")?.records_of(command)
    }

    fn edit(&mut self, keys: &[Key], edit: &mut Editor) -> Result<CommitReport, StoreError> {
        self.call("edit")?.edit(keys, edit)
    }
}

fn settings() -> Settings {
    let args = [
        "--unix=/nowhere",
        "--targrey",
        "--tarpit=2",
        "--retry-count=2",
        "--delay=3",
        "--auto-whitelist-clients=2",
        "--whitelist-clients=/nowhere.local",
        "--whitelist-recipients=/nowhere.local",
    ];
    match config::parse(&args.map(Into::into)) {
        Ok(Invocation::Serve(settings)) => *settings,
        other => panic!("{other:?}"),
    }
}

/// A client on its way: tarpit, greylist, retries, DATA, auto-whitelist.
fn requests() -> Vec<Vec<u8>> {
    [
        ("RCPT", 1000),
        ("RCPT", 1001),
        ("RCPT", 1004),
        ("RCPT", 1005),
        ("DATA", 1006),
        ("RCPT", 5000),
        ("DATA", 5001),
        ("RCPT", 9000),
    ]
    .iter()
    .map(|(state, time)| {
        let time = time.to_string();
        request(&[("protocol_state", state), ("policy_test_time", &time)])
    })
    .collect()
}

struct Stage {
    engine: Engine,
    reader: RequestReader,
    shared: Shared,
}

impl Stage {
    fn new() -> Stage {
        let settings = settings();
        let shared = Shared::new(1).unwrap();
        let log = Rc::new(Log::new(Level::Two, Sinks::default(), shared.complaints));
        let policy = Policy {
            rules: settings.rules.clone(),
            texts: settings.texts.clone(),
            whitelists: whitelists::load(&settings).whitelists,
            is_dry_run: false,
        };
        Stage {
            engine: Engine::new(&settings, policy, log, shared),
            reader: RequestReader::default(),
            shared,
        }
    }

    /// One request, committed as the writer does it.
    fn ask(&mut self, store: &mut Failing, request: &[u8]) -> String {
        let (mut replies, mut commands) = (Replies::default(), Commands::default());
        let mut input = request;
        let engine = &mut self.engine;
        let next = engine.advance(
            Some(store),
            &mut self.reader,
            &mut input,
            &mut replies,
            &mut commands,
        );
        if next == Advance::NeedCommit {
            let mut outcomes = Vec::new();
            let decoded = Command::decode(&mut &commands.needed[..]).unwrap();
            let rules = engine.policy().rules.clone();
            let result = store.apply_batch(&rules, &[decoded], &mut outcomes);
            let outcome = result.ok().and_then(|_| outcomes[0]);
            let _ = engine.finish(&self.reader, outcome, &mut replies);
        }
        assert!(input.is_empty());
        String::from_utf8(replies.octets).unwrap()
    }
}

#[test]
fn each_store_call_that_fails_costs_one_dunno_and_no_more() {
    let requests = requests();
    let run = |fails_at: usize| {
        let mut store = Failing {
            inner: MemoryStore::default(),
            calls: 0,
            fails_at,
            failed: "",
        };
        let mut stage = Stage::new();
        let mut hit = None;
        let mut answers = Vec::new();
        for (index, request) in requests.iter().enumerate() {
            let before = store.calls;
            answers.push(stage.ask(&mut store, request));
            if (before..store.calls).contains(&fails_at) {
                hit = Some(index);
            }
        }
        let failed = store.failed;
        (
            answers,
            hit,
            store.calls,
            failed,
            stage.shared.counters.line(),
        )
    };
    let (right, _, calls, ..) = run(usize::MAX);
    let kinds: Vec<&str> = right
        .iter()
        .map(|answer| answer.split([' ', '\n']).next().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "action=SLEEP",
            "action=DEFER_IF_PERMIT",
            "action=DEFER_IF_PERMIT",
            "action=DUNNO",
            "action=DUNNO",
            "action=DUNNO",
            "action=DUNNO",
            "action=DUNNO",
        ]
    );
    let mut failed = 0;
    for fails_at in 0..calls {
        let (answers, hit, _, call, line) = run(fails_at);
        let hit = hit.expect("the call belongs to a request");
        if call == "try_read" {
            // Whoever commits reads it again.
            assert_eq!(answers, right, "call {fails_at}");
            continue;
        }
        assert_eq!(answers[hit], "action=DUNNO\n\n", "call {fails_at}");
        assert!(line.contains(" store_errors=1 "), "{line}");
        for answer in &answers {
            assert!(answer.starts_with("action=") && answer.ends_with("\n\n"));
            assert_eq!(answer.matches('\n').count(), 2, "{answer:?}");
        }
        // What came before is untouched, and the failed request has left
        // no trace: the rest is answered as without it.
        assert_eq!(answers[..hit], right[..hit]);
        let mut without = requests.clone();
        without.remove(hit);
        let mut stage = Stage::new();
        let mut store = Failing {
            inner: MemoryStore::default(),
            calls: 0,
            fails_at: usize::MAX,
            failed: "",
        };
        let expected: Vec<String> = without
            .iter()
            .map(|request| stage.ask(&mut store, request))
            .collect();
        assert_eq!(answers[hit + 1..], expected[hit..], "call {fails_at}");
        failed += 1;
    }
    println!("check: {failed} failures at each of {calls} store calls: one DUNNO each");
}

#[test]
fn maintenance_that_fails_anywhere_is_done_by_the_next_run() {
    let rules = settings().rules;
    let filled = || {
        let mut store = MemoryStore::default();
        for number in 0..3000 {
            let key = format!("192.0.2.0/s{number}/r");
            let last = if number % 2 == 0 {
                "5,9,0"
            } else {
                "1,99999999999,0"
            };
            store.insert(Database::Greylist, key.as_bytes(), last.as_bytes());
        }
        store
    };
    let left = |store: &mut MemoryStore| {
        let mut count = 0;
        let mut visit = |_: postgrey::store::Entry| {
            count += 1;
            std::ops::ControlFlow::Continue(())
        };
        store
            .scan(Database::Greylist, b"", None, &mut visit)
            .unwrap();
        count
    };
    for fails_at in 0.. {
        let mut store = Failing {
            inner: filled(),
            calls: 0,
            fails_at,
            failed: "",
        };
        let run = |store: &mut Failing| {
            let mut expiry = Expiry::new(&rules, 1.0e9);
            loop {
                match expiry.step(store, &rules) {
                    Ok(Progress::Done) => return true,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        let was_done = run(&mut store);
        if was_done {
            println!("check: maintenance failed at each of {fails_at} calls");
            assert!(fails_at > 2);
            return;
        }
        assert!(left(&mut store.inner) >= 1500);
        assert!(run(&mut store));
        assert_eq!(left(&mut store.inner), 1500);
    }
}
