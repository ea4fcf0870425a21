//! Hostile input: what is committed in `tests/__fuzz__`, and some at random.
//!
//! Of each target there is a folder `corpus`, which reaches most of the code that
//! coverage-guided runs (`tests/fuzz.sh`) have reached, and after a finding one
//! named `crashes`: an input that panics, hangs or breaks a promise.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ops::ControlFlow;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use postgrey::admin::import;
use postgrey::policy::command::{Allowance, Command, Counting, Now, Verdict};
use postgrey::policy::decide::{Decision, Examined, Policy, Surroundings, Whitelists};
use postgrey::policy::instances::Instances;
use postgrey::policy::record::{Database, TripletRecord};
use postgrey::policy::request::{Event, MAX_REQUEST, RequestReader};
use postgrey::policy::rules::{Compat, Rules, Texts};
use postgrey::policy::triplet::Keys;
use postgrey::policy::whitelist::{ClientList, MailAddressList};
use postgrey::store::expiry::{Expiry, Progress};
use postgrey::store::memory::MemoryStore;
use postgrey::store::{Entry, Store};

/// No input may take longer, on the slowest machine.
const MOST_TIME: Duration = Duration::from_secs(10);

/// As an ordinary test it counts inputs, not seconds: a slow machine has to come
/// to the end of the corpus, too.
macro_rules! fuzz {
    ($try_input:ident) => {
        bolero::check!()
            .with_iterations(20_000)
            .for_each(|input: &[u8]| {
                let begin = Instant::now();
                $try_input(input);
                let time = begin.elapsed();
                assert!(time < MOST_TIME, "{time:?}");
            })
    };
}

fn policy(compat: Compat) -> Policy {
    Policy {
        rules: Rules {
            compat,
            targrey: compat == Compat::Targrey134,
            tarpit: Some("2".into()),
            ..Rules::default()
        },
        texts: Texts::default(),
        whitelists: Whitelists::new(compat),
        is_dry_run: false,
    }
}

/// The way of a request from its octets to its reply.
fn try_requests(input: &[u8]) {
    let cells = std::array::from_fn(|_| AtomicU64::new(0));
    let surroundings = Surroundings {
        instances: Instances::new(&cells),
        version: "2",
        date: &|_| {},
    };
    for compat in Compat::ALL {
        let policy = policy(compat);
        let mut store = MemoryStore::default();
        let (mut reader, mut keys) = (RequestReader::default(), Keys::default());
        for mut piece in input.chunks(if compat == Compat::Postgrey137 {
            7
        } else {
            4096
        }) {
            while let Some(event) = reader.next_event(&mut piece) {
                if event != Event::Request {
                    continue;
                }
                let decision = match policy.examine(reader.request(), 1.7e9, &mut keys) {
                    Examined::Decided(decision) => decision,
                    Examined::NeedsStore(command) => apply(&policy, &mut store, &command),
                };
                let mut reply = Vec::new();
                let mut log = |_, line: &[u8]| assert!(!line.contains(&b'\n'));
                policy.answer(
                    reader.request(),
                    &decision,
                    &surroundings,
                    &mut reply,
                    &mut Vec::new(),
                    &mut log,
                );
                let text = std::str::from_utf8(&reply).expect("valid UTF-8");
                let action = text
                    .strip_prefix("action=")
                    .and_then(|text| text.strip_suffix("\n\n"));
                assert!(
                    action.is_some_and(
                        |action| !action.is_empty() && !action.contains(char::is_control)
                    )
                );
                assert!(reply.len() < MAX_REQUEST);
            }
        }
    }
}

/// Through the octets in which a command travels, as between processes.
fn apply(policy: &Policy, store: &mut MemoryStore, command: &Command) -> Decision {
    let mut octets = Vec::new();
    command.encode(&mut octets);
    let travelled = Command::decode(&mut &octets[..]).expect("a command");
    let mut outcomes = Vec::new();
    store
        .apply_batch(&policy.rules, &[travelled], &mut outcomes)
        .unwrap();
    Decision::Stored(outcomes[0].unwrap())
}

/// The input is a file of clients and one of recipients, and what is asked.
fn try_whitelists(input: &[u8]) {
    let names = input.split(|&b| b == b'\n').take(3);
    for compat in Compat::ALL {
        let mut clients = ClientList::new(compat);
        let mut recipients = MailAddressList::of_recipients();
        let mut senders = MailAddressList::of_senders();
        let mut complaints = clients.add_file("clients", input);
        complaints.extend(clients.finish());
        complaints.extend(recipients.add_file("recipients", input));
        complaints.extend(recipients.finish());
        complaints.extend(senders.add_file("senders", input));
        complaints.extend(senders.finish());
        // Each entry stands in the list itself.
        assert!(clients.inside(&clients).len() <= clients.len());
        for complaint in complaints {
            let text = complaint.to_string();
            assert!(!text.contains(char::is_control), "{text:?}");
        }
        for name in names.clone() {
            let name = &name[..name.len().min(512)];
            let by_name = clients.match_name(name);
            let parsed = std::str::from_utf8(name)
                .ok()
                .and_then(|text| text.parse().ok());
            let by_address = clients.match_address(name, parsed);
            let is_listed = by_name.or(by_address).is_some();
            assert_eq!(clients.has(name, name, parsed), is_listed);
            for list in [&recipients, &senders] {
                assert_eq!(list.has(name), list.match_address(name).is_some());
            }
        }
    }
}

/// The input is the value of every record that a request meets.
fn try_records(input: &[u8]) {
    for compat in Compat::ALL {
        let rules = policy(compat).rules;
        for is_data in [false, true] {
            let mut store = MemoryStore::default();
            for database in Database::ALL {
                store.insert(database, b"k", input);
            }
            let command = Command {
                now: Now::new(1.7e9, None),
                address: b"k",
                client: b"k",
                own_client: b"",
                triplet: b"k",
                octet: b"1",
                counting: Counting::Always,
                is_data,
                allowance: Allowance::UNLIMITED,
            };
            let mut outcomes = Vec::new();
            store.try_read(&rules, &command).unwrap();
            for _ in 0..3 {
                store
                    .apply_batch(&rules, &[command], &mut outcomes)
                    .unwrap();
            }
            // What was no record is one now, if it was written at all.
            let is_written =
                !is_data && outcomes[2].unwrap().verdict != Verdict::ClientAutoWhitelisted;
            let mut is_record = false;
            let mut look = |entry: Entry| {
                is_record = TripletRecord::parse(entry.value).is_some();
                ControlFlow::Continue(())
            };
            store
                .scan(Database::Greylist, b"", None, &mut look)
                .unwrap();
            assert!(is_record || !is_written);
            let mut expiry = Expiry::new(&rules, 1e12);
            while expiry.step(&mut store, &rules).unwrap() != Progress::Done {}
        }
    }
}

/// The input is a text to be imported: refused with a line of it, or taken.
fn try_import(input: &[u8]) {
    let folder = std::env::temp_dir();
    if let Err(message) = import::try_text(input, &folder) {
        let rest = message.strip_prefix("ERROR: TEXT line ").expect(&message);
        let (line, _) = rest.split_once(": ").expect(&message);
        let lines = input.iter().filter(|&&octet| octet == b'\n').count() + 1;
        assert!(line.parse::<usize>().expect(&message) <= lines, "{message}");
        assert!(!message.contains(char::is_control), "{message:?}");
    }
}

#[test]
fn import_texts() {
    fuzz!(try_import);
}

#[test]
fn requests() {
    fuzz!(try_requests);
}

#[test]
fn whitelists() {
    fuzz!(try_whitelists);
}

#[test]
fn records() {
    fuzz!(try_records);
}
