//! `--sync=none` and a crash of the machine: pages written since the last flush
//! are on the disk in any version. The server must find out whether that is
//! still a database, and use the copy where it is not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgrey::policy::apply::Records;
use postgrey::policy::record::Database;
use postgrey::store::copies::look_through;
use postgrey::store::{Store, StoreError};
use postgrey::sys::process::{Apart, run_apart};
use regex::Regex;

use crate::random::{Random, number_from};
use crate::server::{
    PATIENCE, Server, common_options, give_to_server, open_store, records, spawn, test_dir,
    wait_until,
};

const PAGE: usize = 4096;
/// Records that were there when the copy was made: enough for branch pages.
const EARLY: usize = 3000;

fn ask_for(server: &Server, numbers: std::ops::Range<usize>) {
    let mut client = server.connect();
    for number in numbers {
        // Half of them known, so that records change in their place as well.
        let sender = format!("n{}x@s.example", number - number % 2);
        let address = format!("10.{}.1.1", number % 200);
        client.ask(&[("client_address", &address), ("sender", &sender)]);
    }
}

fn start(folder: &Path) -> Server {
    Server::start(folder, &["--quiet", "--sync=none"])
}

fn early_records() -> BTreeMap<Vec<u8>, Vec<u8>> {
    (0..EARLY)
        .map(|number| {
            (
                format!("192.0.2.0/{number}@s.example/u").into(),
                b"1,2,3".to_vec(),
            )
        })
        .collect()
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
    open_store(&db).edit(&mut insert).unwrap();
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
/// ends it; true if it found damage.
fn live_on(data: &[u8], copy: &[u8], what: &str) -> bool {
    let folder = test_dir();
    let db = folder.path().join("db");
    for (name, octets) in [
        ("data.mdb", data),
        ("data.mdb.copy", copy),
        ("data.mdb.unflushed", b""),
    ] {
        fs::write(db.join(name), octets).unwrap();
        give_to_server(&db.join(name));
    }
    let mut server = start(folder.path());
    ask_for(&server, 1000..1300);
    assert!(server.stop().success(), "{what}");
    let log = server.log_text();
    let damage = Regex::new(
        r"^the database is damaged \(.*\): the copy of \d{4}-.* with 3000 records takes its place\n$",
    );
    let sound = Regex::new(r"^the server had not ended in order: \d+ records verified\n$");
    let is_damaged = damage.unwrap().is_match(&log);
    assert!(is_damaged || sound.unwrap().is_match(&log), "{what}: {log}");
    assert_eq!(db.join("data.mdb.damaged").exists(), is_damaged, "{what}");
    assert!(!db.join("data.mdb.unflushed").exists(), "{what}");
    look_through(&mut open_store(&db)).unwrap_or_else(|error| panic!("{what}: {error}"));
    let held = records(&db, Database::Greylist);
    assert!(
        early_records()
            .iter()
            .all(|(key, value)| held.get(key) == Some(value)),
        "{what}"
    );
    let late = b"10.8.1.0/n1008x@s.example/user@example.org";
    assert!(held.contains_key(&late[..]), "{what}");
    is_damaged
}

#[test]
fn a_crash_of_the_machine_leaves_the_database_or_its_copy() {
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
    let damaged = std::thread::scope(|scope| {
        // Each waits for more than a second.
        let workers: Vec<_> = cases
            .chunks(cases.len().div_ceil(4))
            .map(|cases| {
                let copy = &versions[0];
                scope.spawn(move || {
                    let mut damaged = 0;
                    for (lost, data) in cases {
                        let what = format!("{lost:?} lost, POSTGREY_SEED={seed}");
                        let is_damaged = live_on(data, copy, &what);
                        assert!(is_damaged || *lost != Lost::AllButMeta, "{what}");
                        assert!(!is_damaged || *lost != Lost::Nothing, "{what}");
                        damaged += usize::from(is_damaged);
                    }
                    damaged
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum::<usize>()
    });
    println!("check: {number} crashes without flushes: {damaged} databases were damaged");
}

fn copy_is_there(server: &Server) {
    wait_until("a copy", || server.dbdir.join("data.mdb.copy").exists());
}

#[test]
fn whoever_kills_every_process_loses_nothing() {
    let folder = test_dir();
    let mut server = start(folder.path());
    ask_for(&server, 0..40);
    copy_is_there(&server);
    let data = server.dbdir.join("data.mdb");
    let file_number = || fs::metadata(&data).unwrap().ino();
    let before = file_number();
    server.kill_all();
    server.start_again();
    ask_for(&server, 40..42);
    assert!(server.stop().success());
    assert_eq!(server.records(Database::Greylist).len(), 42);
    server.wait_for_log(
        "the server had not ended in order: 40 records verified\n",
        1,
    );
    assert_ne!(file_number(), before, "what was read is written anew");
    // Afterwards there is nothing to verify.
    server.start_again();
    assert!(server.stop().success());
    assert_eq!(server.log_text().matches("verified").count(), 1);
}

#[test]
fn a_copy_is_made_at_once_and_when_the_last_is_an_hour_old() {
    let folder = test_dir();
    let mut server = start(folder.path());
    copy_is_there(&server);
    ask_for(&server, 0..2);
    assert!(server.stop().success());
    let copy = server.dbdir.join("data.mdb.copy");
    let modified = || fs::metadata(&copy).unwrap().modified().unwrap();
    let age = |seconds| {
        let then = SystemTime::now() - Duration::from_secs(seconds);
        let file = fs::File::options().write(true).open(&copy).unwrap();
        file.set_modified(then).unwrap();
        modified()
    };
    let young = age(3000);
    server.start_again();
    ask_for(&server, 2..4);
    assert!(server.stop().success());
    assert_eq!(modified(), young);
    let old = age(3700);
    server.start_again();
    wait_until("a new copy", || modified() != old);
    assert!(server.stop().success());
    let place = folder.path().join("copy");
    fs::create_dir(&place).unwrap();
    fs::copy(&copy, place.join("data.mdb")).unwrap();
    assert_eq!(records(&place, Database::Greylist).len(), 4);
}

#[test]
fn a_copy_that_is_damaged_too_is_not_used() {
    for garbage in [&b""[..], &[0; 2 * PAGE], &[0xa5; 9 * PAGE]] {
        let folder = test_dir();
        let db = folder.path().join("db");
        for name in ["data.mdb", "data.mdb.copy", "data.mdb.unflushed"] {
            fs::write(db.join(name), garbage).unwrap();
            give_to_server(&db.join(name));
        }
        let mut server = start(folder.path());
        ask_for(&server, 0..2);
        assert!(server.stop().success());
        assert_eq!(server.records(Database::Greylist).len(), 2);
        let log = server.log_text();
        if !garbage.is_empty() {
            assert!(log.contains("): an empty one takes its place\n"), "{log}");
            for kept in ["data.mdb.damaged", "data.mdb.copy.damaged"] {
                assert_eq!(fs::read(db.join(kept)).unwrap(), garbage, "{kept}: {log}");
            }
        }
    }
}

#[test]
fn a_spawned_session_verifies_and_leaves_the_mark_of_a_server() {
    let folder = test_dir();
    let mut server = start(folder.path());
    let mark = server.dbdir.join("data.mdb.unflushed");
    let ask = || {
        let mut spawned = spawn(folder.path(), &["--sync=none"]);
        let answer = spawned.client.ask(&[]);
        drop(spawned.client);
        assert!(spawned.child.wait().unwrap().success());
        answer
    };
    assert!(ask().starts_with("DEFER_IF_PERMIT"));
    assert!(mark.exists());
    assert!(server.stop().success());
    fs::write(&mark, "").unwrap();
    give_to_server(&mark);
    assert!(ask().starts_with("DEFER_IF_PERMIT"));
    assert!(!mark.exists());
    assert_eq!(server.records(Database::Greylist).len(), 1);
}

#[test]
fn a_crash_apart_is_told_from_an_end_by_others() {
    let ended = |work: fn()| {
        run_apart(60, || {
            work();
            Ok("done".into())
        })
    };
    let crashed = |how: &str| Apart::Crashed(how.into());
    let said = ended(|| ()).unwrap();
    assert_eq!(said, Apart::Said(Ok("done".into())));
    let said = run_apart(60, || Err("why".into())).unwrap();
    assert_eq!(said, Apart::Said(Err("why".into())));
    assert_eq!(ended(|| panic!()).unwrap(), crashed("status 101"));
    let aborted = ended(|| std::process::abort()).unwrap();
    assert_eq!(aborted, crashed("signal SIGABRT"));
    let by = |signal| kill(Pid::this(), signal).unwrap();
    for (seconds, signal) in [
        (60, Signal::SIGKILL),
        (60, Signal::SIGTERM),
        (1, Signal::SIGALRM),
    ] {
        let result = run_apart(seconds, || {
            if seconds > 1 {
                by(signal);
            }
            std::thread::sleep(PATIENCE);
            Ok(String::new())
        });
        let error = result.unwrap_err().to_string();
        assert_eq!(error, format!("ended with signal {signal}"));
    }
}

#[test]
fn a_database_that_could_not_be_verified_stays_marked() {
    let folder = test_dir();
    let Some(mut command) = crate::preloaded(folder.path()) else {
        return;
    };
    let mut server = start(folder.path());
    ask_for(&server, 0..2);
    assert!(server.stop().success());
    let mark = server.dbdir.join("data.mdb.unflushed");
    fs::write(&mark, "").unwrap();
    give_to_server(&mark);
    let faults = folder.path().join("faults");
    fs::write(&faults, format!("map {}\n", libc::ENOMEM)).unwrap();
    let refused = command
        .env("POSTGREY_FAULTS", &faults)
        .args(common_options(folder.path()))
        .arg(format!("--unix={}", server.socket.display()))
        .output()
        .unwrap();
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(stderr.contains("cannot verify the database: "), "{stderr}");
    assert_eq!(refused.status.code(), Some(2), "{stderr}");
    assert!(mark.exists());
    server.start_again();
    assert!(server.stop().success());
    server.wait_for_log(": 2 records verified\n", 1);
}

#[test]
fn the_mark_stays_where_the_last_flush_failed() {
    let folder = test_dir();
    let Some(mut command) = crate::preloaded(folder.path()) else {
        return;
    };
    let faults = folder.path().join("faults");
    command.env("POSTGREY_FAULTS", &faults);
    let mut server = Server::start_by(command, folder.path(), &["--quiet", "--sync=none"]);
    ask_for(&server, 0..2);
    copy_is_there(&server);
    fs::write(&faults, format!("sync {}\n", libc::EIO)).unwrap();
    server.stop();
    let mark = server.dbdir.join("data.mdb.unflushed");
    assert!(mark.exists(), "{}", server.log_text());
    fs::remove_file(&faults).unwrap();
    server.start_again();
    assert!(server.stop().success());
    assert!(!mark.exists());
    server.wait_for_log(": 2 records verified\n", 1);
}

#[test]
fn nothing_is_written_to_a_database_that_was_not_verified() {
    let folder = test_dir();
    let mut server = start(folder.path());
    ask_for(&server, 0..2);
    assert!(server.stop().success());
    fs::write(server.dbdir.join("data.mdb.unflushed"), "").unwrap();
    let dbdir = server.dbdir.clone();
    let compact = || {
        Command::new(env!("CARGO_BIN_EXE_postgreyctl"))
            .arg(format!("--dbdir={}", dbdir.display()))
            .args(["compact"])
            .output()
            .unwrap()
    };
    let refused = compact();
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(
        stderr,
        format!(
            "ERROR: {}: the server has not ended in order: start it first, it verifies the database\n",
            dbdir.display()
        )
    );
    assert_eq!(refused.status.code(), Some(2));
    server.start_again();
    assert!(server.stop().success());
    let compacted = compact();
    assert!(compacted.status.success(), "{compacted:?}");
}
