//! Micro-benchmarks: the steps on the way of a request, each by itself.
//!
//! `cargo bench --bench micro`; a word after `--` chooses, as `-- store`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

#[path = "common/requests.rs"]
mod requests;

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use divan::{Bencher, black_box};
use postgrey::config::settings::Settings;
use postgrey::config::whitelists;
use postgrey::policy::apply::Reading;
use postgrey::policy::command::{Addition, Allowance, Command, Counting, Now, Outcome, Verdict};
use postgrey::policy::decide::{Decision, Examined, Policy, Surroundings};
use postgrey::policy::held::Held;
use postgrey::policy::instances::Instances;
use postgrey::policy::newcomers::Newcomers;
use postgrey::policy::request::{Attribute, Event, Request, RequestReader};
use postgrey::policy::rules::{Compat, Rules};
use postgrey::policy::triplet::Keys;
use postgrey::policy::whitelist::ClientList;
use postgrey::store::Store;
use postgrey::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use requests::{Subject, push_request};

fn main() {
    divan::main();
}

/// The time records are made at.
const TIME: u64 = 1_800_000_000;

fn subject(number: u64, is_whitelisted: bool) -> Subject {
    Subject {
        network: 10,
        client: number,
        mail: number,
        is_whitelisted,
    }
}

fn text(is_whitelisted: bool) -> Vec<u8> {
    let mut text = Vec::new();
    push_request(&mut text, &subject(1, is_whitelisted), 1, None);
    text
}

fn read(is_whitelisted: bool) -> RequestReader {
    let mut reader = RequestReader::default();
    let text = text(is_whitelisted);
    assert_eq!(reader.next_event(&mut &text[..]), Some(Event::Request));
    reader
}

/// A whole request from one piece.
#[divan::bench(min_time = 0.2)]
fn read_request(bencher: Bencher) {
    let text = text(false);
    let mut reader = RequestReader::default();
    bencher
        .counter(divan::counter::BytesCount::of_slice(&text))
        .bench_local(|| reader.next_event(&mut black_box(&text[..])));
}

/// The same in two pieces, cut inside a line.
#[divan::bench(min_time = 0.2)]
fn read_request_in_pieces(bencher: Bencher) {
    let text = text(false);
    let (first, second) = text.split_at(300);
    let mut reader = RequestReader::default();
    bencher.bench_local(|| {
        let nothing = reader.next_event(&mut black_box(first));
        assert_eq!(nothing, None);
        reader.next_event(&mut black_box(second))
    });
}

/// Names, networks and a pattern for each hundred lines.
fn clients(lines: usize) -> ClientList {
    let mut text = String::new();
    for line in 0..lines {
        match line % 100 {
            0 => writeln!(text, "/^mx[0-9]+\\.big{line}\\.example$/"),
            1..20 => writeln!(
                text,
                "{}.{}.{}.0/24",
                60 + line % 7,
                line / 250 % 250,
                line % 250
            ),
            _ => writeln!(text, "mail{line}.example"),
        }
        .unwrap();
    }
    let mut list = ClientList::new(Compat::Targrey137);
    list.add_file("list", text.as_bytes());
    list.finish();
    list
}

/// A name and an address that are not on the list.
#[divan::bench(args = [10, 1000, 100_000], min_time = 0.2)]
fn whitelist_miss(bencher: Bencher, lines: usize) {
    let list = clients(lines);
    let address = "10.1.2.3".parse().ok();
    bencher.bench_local(|| {
        list.match_name(black_box(b"host-1-2.dsl.grey.example"))
            .is_some()
            || list
                .match_address(b"10.1.2.3", black_box(address))
                .is_some()
    });
}

/// A name that is.
#[divan::bench(args = [100, 1000, 100_000], min_time = 0.2)]
fn whitelist_hit(bencher: Bencher, lines: usize) {
    let list = clients(lines);
    let name = format!("a.b.mail{}.example", lines - 1);
    bencher.bench_local(|| list.match_name(black_box(name.as_bytes())).is_some());
}

fn policy() -> Policy {
    let settings = Settings::default();
    let mut whitelists = whitelists::empty(&settings);
    let conf = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf");
    let text = std::fs::read(conf.join("postgrey_whitelist_clients")).unwrap();
    whitelists.clients.add_file("clients", &text);
    whitelists.clients.add_file("more", b"white.example\n");
    whitelists.clients.finish();
    whitelists
        .recipients
        .add_file("recipients", b"postmaster@\nabuse@\n");
    whitelists.recipients.finish();
    Policy {
        rules: settings.rules,
        texts: settings.texts,
        whitelists,
        is_dry_run: false,
    }
}

fn answer(policy: &Policy, request: &Request, decision: &Decision, buffers: &mut [Vec<u8>; 2]) {
    let cells: [AtomicU64; Instances::CELLS] = std::array::from_fn(|_| AtomicU64::new(0));
    let surroundings = Surroundings {
        instances: Instances::new(&cells),
        version: "2.0.0",
        date: &|out| out.extend_from_slice(b"Tue, 24 Nov 2026 02:27:10 UTC"),
    };
    let [reply, line] = buffers;
    reply.clear();
    policy.answer(
        request,
        decision,
        &surroundings,
        reply,
        line,
        &mut |_, line| {
            black_box(line);
        },
    );
}

/// From a read request to its reply, the client being on a whitelist.
#[divan::bench(min_time = 0.2)]
fn decide_whitelisted(bencher: Bencher) {
    let (policy, reader) = (policy(), read(true));
    let (mut keys, mut buffers) = (Keys::default(), [Vec::new(), Vec::new()]);
    bencher.bench_local(|| {
        let request = black_box(reader.request());
        let Examined::Decided(decision) = policy.examine(request, TIME as f64, &mut keys) else {
            panic!("not whitelisted");
        };
        answer(&policy, request, &decision, &mut buffers);
    });
}

/// The same for a new triplet, without the store.
#[divan::bench(min_time = 0.2)]
fn decide_new(bencher: Bencher) {
    let (policy, reader) = (policy(), read(false));
    let (mut keys, mut buffers) = (Keys::default(), [Vec::new(), Vec::new()]);
    let outcome = Outcome {
        verdict: Verdict::Greylist {
            is_new: true,
            missing: 300.0,
        },
        ..Outcome::default()
    };
    bencher.bench_local(|| {
        let request = black_box(reader.request());
        let Examined::NeedsStore(command) = policy.examine(request, TIME as f64, &mut keys) else {
            panic!("whitelisted");
        };
        black_box(command);
        answer(&policy, request, &Decision::Stored(outcome), &mut buffers);
    });
}

/// What `--tarpit-per-message` adds for a further recipient of a mail that was held.
#[divan::bench(min_time = 0.2)]
fn find_held_mail(bencher: Bencher) {
    let (mut policy, reader) = (policy(), read(false));
    policy.rules.targrey = true;
    policy.rules.tarpit_per_message = true;
    let cells: Vec<AtomicU64> = (0..Held::CELLS).map(|_| AtomicU64::new(0)).collect();
    let cells: Box<[AtomicU64; Held::CELLS]> = cells.try_into().unwrap();
    let stored = |verdict| {
        Decision::Stored(Outcome {
            verdict,
            ..Outcome::default()
        })
    };
    let settle = |verdict| {
        let request = black_box(reader.request());
        let held = Held::new(&cells);
        policy.settle(request, stored(verdict), held, TIME as f64)
    };
    settle(Verdict::Tarpit);
    bencher.bench_local(|| {
        let found = settle(Verdict::Greylist {
            is_new: true,
            missing: 300.0,
        });
        assert!(matches!(found, Decision::HeldBefore(_)));
    });
}

/// What `--max-new` adds for a new triplet at the writer, with a full table.
#[divan::bench(min_time = 0.2)]
fn count_newcomer(bencher: Bencher) {
    let mut newcomers = Newcomers::new(u32::MAX);
    let networks: Vec<Vec<u8>> = (0..Newcomers::MOST)
        .map(|number| format!("10.{}.{}.0", number / 256, number % 256).into_bytes())
        .collect();
    let outcome = Outcome {
        triplet: Addition::Made,
        ..Outcome::default()
    };
    let mut next = networks.iter().cycle();
    bencher.bench_local(|| {
        let mut command = Command::PING;
        command.allowance.network = next.next().unwrap_or(&networks[0]);
        newcomers.allow(&mut command);
        newcomers.note(&command, black_box(&outcome))
    });
}

/// A store in a folder of its own: where `POSTGREY_BENCH_DIR` says, or where
/// temporary files are.
fn store(is_safe: bool) -> (LmdbStore, tempfile::TempDir) {
    let parent =
        std::env::var_os("POSTGREY_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = tempfile::Builder::new()
        .prefix("postgrey-bench-")
        .tempdir_in(parent)
        .unwrap();
    let store = LmdbStore::new(LmdbOptions {
        dir: folder.path().to_owned(),
        map_size: 4 << 30,
        purpose: match is_safe {
            true => Purpose::WriteFlushed,
            false => Purpose::WriteUnflushed,
        },
        patience: std::time::Duration::ZERO,
    });
    (store, folder)
}

/// Encoded commands of new triplets.
fn new_commands(number: &mut u64, count: usize) -> Vec<u8> {
    let rules = Rules::default();
    let policy = Policy {
        rules,
        ..policy_without_lists()
    };
    let mut encoded = Vec::new();
    let mut keys = Keys::default();
    for _ in 0..count {
        *number += 1;
        let mut request = Request::default();
        let [a, b, c, d] = subject(*number, false).address();
        request.set(
            Attribute::ClientAddress,
            format!("{a}.{b}.{c}.{d}").as_bytes(),
        );
        request.set(Attribute::ClientName, b"host.grey.example");
        let mut value = Vec::new();
        subject(*number, false).push_sender(&mut value);
        request.set(Attribute::Sender, &value);
        value.clear();
        subject(*number, false).push_recipient(&mut value);
        request.set(Attribute::Recipient, &value);
        if let Examined::NeedsStore(command) = policy.examine(&request, TIME as f64, &mut keys) {
            command.encode(&mut encoded);
        }
    }
    encoded
}

fn policy_without_lists() -> Policy {
    let settings = Settings::default();
    Policy {
        whitelists: whitelists::empty(&settings),
        rules: settings.rules,
        texts: settings.texts,
        is_dry_run: false,
    }
}

fn apply(bencher: Bencher, is_safe: bool, count: usize) {
    let (mut store, _folder) = store(is_safe);
    let rules = Rules::default();
    let mut number = 0;
    let mut outcomes = Vec::with_capacity(count);
    bencher
        .counter(divan::counter::ItemsCount::new(count))
        .with_inputs(|| new_commands(&mut number, count))
        .bench_local_refs(|encoded| {
            let mut rest = &encoded[..];
            let mut commands = Vec::with_capacity(count);
            while let Some(command) = Command::decode(&mut rest) {
                commands.push(command);
            }
            outcomes.clear();
            store.apply_batch(&rules, &commands, &mut outcomes).unwrap();
        });
}

/// New triplets in one transaction that is flushed.
#[divan::bench(args = [1, 16, 100], max_time = 1, sample_size = 1)]
fn store_apply(bencher: Bencher, commands: usize) {
    apply(bencher, true, commands);
}

/// The same without a flush.
#[divan::bench(args = [1, 16, 100], max_time = 1, sample_size = 1)]
fn store_apply_without_sync(bencher: Bencher, commands: usize) {
    apply(bencher, false, commands);
}

/// A client that is on the auto-whitelist: reading alone decides.
#[divan::bench(min_time = 0.2)]
fn store_read_awl(bencher: Bencher) {
    let (mut store, _folder) = store(false);
    let rules = Rules::default();
    let key = b"192.0.2.1";
    store
        .edit(&[], &mut |records| {
            for client in 0..1000 {
                let key = format!("192.0.{}.{}", client / 250, client % 250);
                let value = format!("5,{TIME}");
                let database = postgrey::policy::record::Database::Clients;
                records.put(database, key.as_bytes(), value.as_bytes())?;
            }
            Ok(())
        })
        .unwrap();
    let command = Command {
        now: Now::new(TIME as f64, None),
        address: key,
        client: b"192.0.2.1",
        own_client: b"",
        triplet: b"192.0.2.0/a@b.example/c@d.example",
        octet: b"1",
        counting: Counting::Always,
        is_data: false,
        allowance: Allowance::UNLIMITED,
    };
    let read = store.try_read(&rules, &command).unwrap();
    assert!(matches!(read, Reading::Decided(_)));
    bencher.bench_local(|| store.try_read(&rules, black_box(&command)));
}
