//! `--sync=none` and a crash of the machine: pages written since the last flush
//! are on the disk in any version. The server must find out whether that is
//! still a database, while it answers, and set aside what is not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use postgrey::policy::apply::Records;
use postgrey::policy::record::Database;
use postgrey::store::lmdb::LmdbStore;
use postgrey::store::verify::verify_environment;
use postgrey::store::{Store, StoreError};
use regex::Regex;

use crate::random::{Random, number_from};
use crate::server::{PATIENCE, Server, give_to_server, open_store, records, test_dir};

const PAGE: usize = 4096;
/// Records that are there at first: enough for branch pages.
const EARLY: usize = 3000;
/// What no answer takes, on a busy machine either.
const AT_ONCE: Duration = Duration::from_secs(3);

/// Asks for these numbers; half of them are known, so that records change in
/// their place as well.
pub fn ask_for(server: &Server, numbers: std::ops::Range<usize>) {
    let mut client = server.connect();
    for number in numbers {
        let sender = format!("n{}x@s.example", number - number % 2);
        let address = format!("10.{}.1.1", number % 200);
        let answer = client.ask(&[("client_address", &address), ("sender", &sender)]);
        assert!(answer.starts_with("DEFER_IF_PERMIT"), "{number}: {answer}");
    }
}

/// Asks until there is greylisting; until then requests pass, each at once. How
/// many have passed.
pub fn wait_for_greylisting(server: &Server) -> usize {
    let mut client = server.connect();
    let start = Instant::now();
    for passed in 0.. {
        let begun = Instant::now();
        let answer = client.ask(&[("sender", "late@s.example")]);
        let took = begun.elapsed();
        assert!(took < AT_ONCE, "{took:?} for {answer}");
        if answer.starts_with("DEFER_IF_PERMIT") {
            return passed;
        }
        assert_eq!(answer, "DUNNO");
        assert!(start.elapsed() < PATIENCE, "{}", server.log_text());
        std::thread::sleep(Duration::from_millis(10));
    }
    unreachable!("the count ends")
}

pub fn start(folder: &Path) -> Server {
    Server::start(folder, &["--quiet", "--sync=none"])
}

/// Writes a file that the server can use.
pub fn write_for_server(path: &Path, octets: &[u8]) {
    fs::write(path, octets).unwrap();
    give_to_server(path);
}

fn early_records() -> BTreeMap<Vec<u8>, Vec<u8>> {
    let record = |number: usize| {
        let key = format!("192.0.2.0/{number}@s.example/u");
        (key.into(), b"1,2,3".to_vec())
    };
    (0..EARLY).map(record).collect()
}

/// The data file at some moments of a server's life.
fn versions_of_a_database() -> Vec<Vec<u8>> {
    let folder = test_dir();
    let db = folder.path().join("db");
    let mut insert = |all: &mut dyn Records<Error = StoreError>| {
        early_records()
            .iter()
            .try_for_each(|(key, value)| all.put(Database::Greylist, key, value))
    };
    open_store(&db).edit(&[], &mut insert).unwrap();
    for name in ["data.mdb", "lock.mdb"] {
        give_to_server(&db.join(name));
    }
    let mut server = start(folder.path());
    let mut versions = Vec::new();
    for number in 0..480 {
        // At last one for each commit.
        if number % 60 == 0 || number >= 460 {
            versions.push(fs::read(db.join("data.mdb")).unwrap());
        }
        ask_for(&server, number..number + 1);
    }
    assert!(server.stop().success());
    assert!(!db.join("data.mdb.unflushed").exists(), "all is flushed");
    versions
}

/// How much of what was written last is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lost {
    Nothing,
    /// What is left may look sound, with pages that count as free.
    OnePage,
    /// By chance what is left may be an earlier state as a whole.
    Percent(usize),
    /// Of every commit its meta page alone was written: records are missing.
    AllButMeta,
}

/// The last version, but for pages of earlier ones.
fn mix(random: &mut Random, versions: &[Vec<u8>], lost: Lost) -> Vec<u8> {
    let mut mixture = versions.last().unwrap().clone();
    let one = random.below(mixture.len() / PAGE);
    for (number, page) in mixture.chunks_mut(PAGE).enumerate() {
        let is_lost = match lost {
            Lost::Nothing => false,
            Lost::OnePage => number == one,
            Lost::Percent(percent) => random.percent(percent),
            Lost::AllButMeta => number >= 2,
        };
        if is_lost {
            let earlier = match lost {
                Lost::AllButMeta => &versions[0],
                _ => random.pick(versions),
            };
            match earlier.get(number * PAGE..(number + 1) * PAGE) {
                Some(octets) => page.copy_from_slice(octets),
                // Beyond the end there was nothing.
                None => page.fill(0),
            }
        }
    }
    mixture
}

/// Starts a server on a data file as a crash may leave it, lets it work, and
/// ends it. True if it found damage; and how many requests have passed.
fn live_on(data: &[u8], lost: Lost, what: &str) -> (bool, usize) {
    let folder = test_dir();
    let db = folder.path().join("db");
    write_for_server(&db.join("data.mdb"), data);
    write_for_server(&db.join("data.mdb.unflushed"), b"");
    let mut server = start(folder.path());
    let passed = wait_for_greylisting(&server);
    ask_for(&server, 1000..1300);
    assert!(server.stop().success(), "{what}");
    let log = crate::results_in(&server);
    let damage = Regex::new(
        r"^the database is damaged \(.+\): it is kept as /.+/data\.mdb\.damaged, and an empty one is begun without what was learnt so far; to use a backup instead, stop the server, call postgreyctl --dbdir=/.+ restore BACKUP, and start it\n$",
    );
    let sound = Regex::new(r"^the server had not ended in order: \d+ records verified\n$");
    let is_damaged = damage.unwrap().is_match(&log);
    assert!(is_damaged || sound.unwrap().is_match(&log), "{what}: {log}");
    let kept = fs::read(db.join("data.mdb.damaged")).ok();
    assert!(kept.as_deref() == is_damaged.then_some(data), "{what}");
    assert!(!db.join("data.mdb.unflushed").exists(), "{what}");
    let verified = verify_environment(&mut LmdbStore::new_reader(&db));
    verified.unwrap_or_else(|error| panic!("{what}: {error}"));
    let held = records(&db, Database::Greylist);
    let late = (1000..1300).filter(|number| {
        let address = number % 200;
        let key = format!(
            "10.{address}.1.0/n{}x@s.example/user@example.org",
            number - number % 2
        );
        held.contains_key(key.as_bytes())
    });
    assert_eq!(late.count(), 300, "{what}");
    let has_early = early_records()
        .iter()
        .all(|(key, value)| held.get(key) == Some(value));
    assert!(has_early || lost != Lost::Nothing, "{what}");
    (is_damaged, passed)
}

#[test]
fn a_crash_of_the_machine_leaves_a_sound_database_or_one_that_is_set_aside() {
    let versions = versions_of_a_database();
    let seed = Random::choose_seed();
    let mut random = Random::new(seed);
    let number = number_from("POSTGREY_POWER_CUTS", 60) as usize / 5;
    let losses = [
        Lost::Nothing,
        Lost::OnePage,
        Lost::Percent(60),
        Lost::Percent(5),
        Lost::OnePage,
        Lost::AllButMeta,
    ];
    let cases: Vec<(Lost, Vec<u8>)> = (0..number)
        .map(|number| {
            let lost = losses[number % losses.len()];
            (lost, mix(&mut random, &versions, lost))
        })
        .collect();
    let (damaged, passed) = std::thread::scope(|scope| {
        let workers: Vec<_> = cases
            .chunks(cases.len().div_ceil(4))
            .map(|cases| {
                scope.spawn(move || {
                    let (mut damaged, mut most) = (0, 0);
                    for (lost, data) in cases {
                        let what = format!("{lost:?} lost, POSTGREY_SEED={seed}");
                        let (is_damaged, passed) = live_on(data, *lost, &what);
                        assert!(is_damaged || *lost != Lost::AllButMeta, "{what}");
                        assert!(!is_damaged || *lost != Lost::Nothing, "{what}");
                        damaged += usize::from(is_damaged);
                        most = passed.max(most);
                    }
                    (damaged, most)
                })
            })
            .collect();
        let ended = workers.into_iter().map(|worker| worker.join().unwrap());
        ended.fold((0, 0), |(all, most), (damaged, passed)| {
            (all + damaged, passed.max(most))
        })
    });
    println!(
        "check: {number} crashes without flushes: {damaged} databases were set aside; at most {passed} \
         requests passed until then"
    );
}

#[test]
fn whoever_kills_every_process_loses_nothing() {
    let folder = test_dir();
    let mut server = start(folder.path());
    let mark = server.dbdir.join("data.mdb.unflushed");
    assert!(!mark.exists(), "nothing was committed");
    ask_for(&server, 0..40);
    assert!(mark.exists());
    let data = server.dbdir.join("data.mdb");
    let file_number = || fs::metadata(&data).unwrap().ino();
    let before = file_number();
    server.kill_all();
    server.start_again();
    wait_for_greylisting(&server);
    ask_for(&server, 40..42);
    assert!(server.stop().success());
    assert_eq!(server.records(Database::Greylist).len(), 43);
    let line = "the server had not ended in order: 40 records verified\n";
    assert_eq!(crate::results_in(&server), line);
    assert_ne!(file_number(), before, "what was read is written anew");
    assert!(!mark.exists());
    // Afterwards there is nothing to verify.
    server.start_again();
    ask_for(&server, 42..43);
    assert!(server.stop().success());
    assert_eq!(crate::results_in(&server), line);
}

#[test]
fn the_first_damaged_file_is_kept_and_the_last() {
    let folder = test_dir();
    let db = folder.path().join("db");
    let garbage = [&[0xa5; 9 * PAGE][..], b"", &[0; 2 * PAGE], &[0x5a; PAGE]];
    let mut server = None;
    for (round, octets) in garbage.iter().enumerate() {
        // A new file, as it would be after the one before was set aside.
        let _ = fs::remove_file(db.join("data.mdb"));
        write_for_server(&db.join("data.mdb"), octets);
        write_for_server(&db.join("data.mdb.unflushed"), b"");
        let server = server.get_or_insert_with(|| start(folder.path()));
        if round > 0 {
            server.start_again();
        }
        wait_for_greylisting(server);
        ask_for(server, 0..2);
        assert!(server.stop().success());
        assert_eq!(server.records(Database::Greylist).len(), 3);
        let name = match round {
            0 => "data.mdb.damaged",
            _ => "data.mdb.damaged.last",
        };
        for (name, kept) in [("data.mdb.damaged", &garbage[0]), (name, octets)] {
            assert_eq!(&fs::read(db.join(name)).unwrap(), kept, "{name}");
        }
        let log = crate::results_in(server);
        let line = log.lines().last().unwrap();
        assert!(
            line.contains(&format!("/{name}, and an empty one")),
            "{log}"
        );
        assert_eq!(log.lines().count(), round + 1, "{log}");
    }
}
