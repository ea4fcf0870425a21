//! `--lookup-by-domain`: the same mails through the pure policy with the store in
//! memory, through LMDB, and through a running server, under all rules.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/answer.rs"]
mod answer;
#[path = "common/server.rs"]
mod server;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use answer::{answer, no_mails};
use postgrey::config::settings::Settings;
use postgrey::config::{self, Invocation, whitelists};
use postgrey::policy::decide::Policy;
use postgrey::policy::held::Held;
use postgrey::policy::instances::Instances;
use postgrey::policy::record::Database;
use postgrey::policy::request::{Attribute, Request};
use postgrey::policy::triplet::sha1_hex;
use postgrey::store::Store;
use postgrey::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use postgrey::store::memory::MemoryStore;
use server::{Client, Server, test_dir};

/// When it begins, in seconds since 1970.
const BEGIN: u64 = 1_800_000_000;

/// A mail: seconds since the begin, name and address of the client.
type Mail = (u64, &'static str, &'static str);

/// Whoever answers.
enum Way<'s> {
    Store(&'s Policy, &'s mut dyn Store),
    Server(Client),
}

impl Way<'_> {
    fn ask(&mut self, &(seconds, name, address): &Mail) -> String {
        let time = (BEGIN + seconds).to_string();
        match self {
            Way::Server(client) => client.ask(&[
                ("client_name", name),
                ("client_address", address),
                ("policy_test_time", &time),
            ]),
            Way::Store(policy, store) => {
                let mut request = Request::default();
                for (attribute, value) in [
                    (Attribute::ProtocolState, "RCPT"),
                    (Attribute::ClientName, name),
                    (Attribute::ClientAddress, address),
                    (Attribute::Sender, "alice@example.com"),
                    (Attribute::Recipient, "user@example.org"),
                    (Attribute::PolicyTestTime, &time),
                ] {
                    request.set(attribute, value.as_bytes());
                }
                let (mails, ring) = (no_mails(), std::array::from_fn(|_| AtomicU64::new(0)));
                let (held, instances) = (Held::new(&mails), Instances::new(&ring));
                answer(policy, *store, &request, 0.0, held, instances, None).0
            }
        }
    }
}

/// The options of a server in this directory.
fn options(dir: &Path, more: &[&str]) -> Vec<String> {
    let pools = dir.join("pools");
    fs::write(&pools, "google.com\n!lines.example\n").unwrap();
    let mut all = vec![
        "--lookup-by-domain".to_owned(),
        format!("--pool-domains={}", pools.display()),
        "--whitelist-clients=/dev/null".into(),
        "--whitelist-recipients=/dev/null".into(),
    ];
    all.extend(more.iter().map(|&word| word.to_owned()));
    all
}

fn settings(words: &[String]) -> Settings {
    let words = words.iter().map(OsString::from).chain(["--unix=/x".into()]);
    match config::parse(&words.collect::<Vec<_>>()) {
        Ok(Invocation::Serve(settings)) => *settings,
        other => panic!("{other:?}"),
    }
}

fn put(store: &mut dyn Store, client: &str, value: &str) {
    let mut edit =
        |records: &mut dyn postgrey::policy::apply::Records<Error = postgrey::store::StoreError>| {
            records.put(Database::Clients, client.as_bytes(), value.as_bytes())
        };
    store.edit(&[], &mut edit).unwrap();
}

/// Plays mails in all three ways: each begins with these clients on the
/// auto-whitelist, and has to come to these replies and keys.
fn play(
    more: &[&str],
    clients: &[(&str, &str)],
    mails: &[(Mail, &str)],
    keys: &[(Database, &str)],
) {
    let dir = test_dir();
    let words = options(dir.path(), more);
    let settings = settings(&words);
    let policy = Policy {
        rules: settings.rules.clone(),
        texts: settings.texts.clone(),
        whitelists: whitelists::load(&settings).whitelists,
        is_dry_run: false,
    };
    let expected: Vec<(Database, Vec<Vec<u8>>)> = Database::ALL
        .into_iter()
        .map(|database| {
            let own = keys.iter().filter(|(of, _)| *of == database);
            (
                database,
                own.map(|(_, key)| key.as_bytes().to_vec()).collect(),
            )
        })
        // One of which nothing is said may be as it is.
        .filter(|(_, keys): &(_, Vec<_>)| !keys.is_empty())
        .collect();
    let check = |what: &str, way: &mut Way| {
        for (mail, reply) in mails {
            let found = way.ask(mail);
            assert!(
                found.starts_with(reply),
                "{what} {more:?} {mail:?}: {found}"
            );
        }
    };
    let check_keys = |what: &str, found: &mut dyn FnMut(Database) -> Vec<Vec<u8>>| {
        for (database, keys) in &expected {
            assert_eq!(&found(*database), keys, "{what} {more:?}");
        }
    };
    let mut memory = MemoryStore::default();
    clients
        .iter()
        .for_each(|(client, value)| put(&mut memory, client, value));
    check("memory", &mut Way::Store(&policy, &mut memory));
    check_keys("memory", &mut |database| keys_in(&mut memory, database));

    let lmdb = tempfile::tempdir().unwrap();
    let mut store = LmdbStore::new(LmdbOptions {
        dir: lmdb.path().to_owned(),
        map_size: 1 << 22,
        purpose: Purpose::WriteUnflushed,
        patience: std::time::Duration::ZERO,
    });
    clients
        .iter()
        .for_each(|(client, value)| put(&mut store, client, value));
    check("LMDB", &mut Way::Store(&policy, &mut store));
    check_keys("LMDB", &mut |database| keys_in(&mut store, database));

    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut running = Server::start(dir.path(), &words);
    running.stop();
    clients.iter().for_each(|(client, value)| {
        put(&mut server::open_store(&running.dbdir), client, value);
    });
    running.start_again();
    check("server", &mut Way::Server(running.connect()));
    check_keys("server", &mut |database| {
        running
            .records(database)
            .into_keys()
            .map(String::into_bytes)
            .collect()
    });
}

fn keys_in(store: &mut dyn Store, database: Database) -> Vec<Vec<u8>> {
    let mut keys = Vec::new();
    store
        .scan(database, b"", None, &mut |entry| {
            keys.push(entry.key.to_vec());
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    keys
}

const COMPATS: [&str; 3] = [
    "--compat=targrey-1.37",
    "--compat=postgrey-1.37",
    "--compat=targrey-1.34",
];
const ONE: (&str, &str) = ("mail-ed1-f53.google.com", "209.85.208.53");
const OTHER: (&str, &str) = ("mail-wr1-f50.google.com", "74.125.82.50");

#[test]
fn the_servers_of_a_pool_are_one_client() {
    for compat in COMPATS {
        play(
            &[compat],
            &[],
            &[
                ((0, ONE.0, ONE.1), "DEFER_IF_PERMIT "),
                ((400, OTHER.0, OTHER.1), "PREPEND X-Greylist: delayed 400 "),
                (
                    (500, "mx.sub.example.co.uk", "192.0.2.7"),
                    "DEFER_IF_PERMIT ",
                ),
                ((900, "out.example.co.uk", "2001:db8::7"), "PREPEND "),
            ],
            &[
                (
                    Database::Greylist,
                    "example.co.uk/alice@example.com/user@example.org",
                ),
                (
                    Database::Greylist,
                    "google.com/alice@example.com/user@example.org",
                ),
                (Database::Clients, "example.co.uk"),
                (Database::Clients, "google.com"),
            ],
        );
    }
}

#[test]
fn all_others_are_known_by_their_network() {
    play(
        &[],
        &[],
        &[
            (
                (0, "host86-1-2-3.range86-1.example.com", "86.1.2.3"),
                "DEFER",
            ),
            (
                (400, "host86-1-3-3.range86-1.example.com", "86.1.3.3"),
                "DEFER",
            ),
            (
                (400, "host86-1-2-4.range86-1.example.com", "86.1.2.4"),
                "PREPEND",
            ),
            ((0, "unknown", "198.51.100.7"), "DEFER"),
            ((0, "mx.lines.example", "203.0.113.7"), "DEFER"),
        ],
        &[
            (
                Database::Greylist,
                "198.51.100.0/alice@example.com/user@example.org",
            ),
            (
                Database::Greylist,
                "203.0.113.0/alice@example.com/user@example.org",
            ),
            (
                Database::Greylist,
                "86.1.2.0/alice@example.com/user@example.org",
            ),
            (
                Database::Greylist,
                "86.1.3.0/alice@example.com/user@example.org",
            ),
            (Database::Clients, "86.1.2.4"),
        ],
    );
}

#[test]
fn who_is_on_the_auto_whitelist_by_his_address_stays() {
    let old = format!("5,{}", BEGIN - 5000);
    for compat in COMPATS {
        play(
            &[compat],
            &[(ONE.1, &old)],
            &[
                ((0, ONE.0, ONE.1), "DUNNO"),
                // It is his alone.
                ((1, OTHER.0, OTHER.1), "DEFER_IF_PERMIT "),
            ],
            &[(Database::Clients, ONE.1)],
        );
        play(
            &[compat],
            &[("google.com", &old)],
            &[
                ((0, ONE.0, ONE.1), "DUNNO"),
                ((1, OTHER.0, OTHER.1), "DUNNO"),
                ((1, "mail.example.com", ONE.1), "DEFER_IF_PERMIT "),
            ],
            &[(Database::Clients, "google.com")],
        );
    }
}

#[test]
fn the_tarpit_stays_by_address_and_hashes_hide_domains() {
    play(
        &["--targrey"],
        &[],
        &[
            ((0, ONE.0, ONE.1), "SLEEP 125"),
            ((10, OTHER.0, OTHER.1), "SLEEP 125"),
            ((20, ONE.0, ONE.1), "DEFER"),
            ((400, OTHER.0, OTHER.1), "PREPEND"),
        ],
        &[(Database::Tarpit, ONE.1), (Database::Tarpit, OTHER.1)],
    );
    let hash = |text: &str| String::from_utf8(sha1_hex(text.as_bytes()).to_vec()).unwrap();
    play(
        &["--privacy"],
        &[(&hash(ONE.1), &format!("5,{BEGIN}"))],
        &[
            ((0, ONE.0, ONE.1), "DUNNO"),
            ((0, OTHER.0, OTHER.1), "DEFER"),
        ],
        &[(
            Database::Greylist,
            &hash("google.com/alice@example.com/user@example.org"),
        )],
    );
}
