//! `--sync=none` and a crash of the machine: pages written since the last flush
//! are on the disk in any version. The server must find out whether that is
//! still a database, and use the copy where it is not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use postgrey::policy::record::Database;
use postgrey::store::Store;
use postgrey::store::copies::look_through;
use regex::Regex;

use crate::daemon::{Daemon, give_to_server, make_folder, open_store, records, request};
use crate::random::{Random, number_from};

const PAGE: usize = 4096;
/// Records that were there when the copy was made: enough for branch pages.
const EARLY: usize = 3000;

fn ask_for(daemon: &Daemon, numbers: std::ops::Range<usize>) {
    let mut client = daemon.connect();
    for number in numbers {
        // Half of them known, so that records change in their place as well.
        let sender = format!("n{}x@s.example", number - number % 2);
        let address = format!("10.{}.1.1", number % 200);
        client.ask(&request(&address, &sender, "u@example.org", &[]));
    }
}

fn start(folder: &Path) -> Daemon {
    let socket = folder.join("socket");
    let unix = format!("--unix={}", socket.display());
    Daemon::start(folder, &[&unix, "--quiet", "--sync=none"])
}

fn early_records() -> BTreeMap<String, String> {
    (0..EARLY)
        .map(|number| (format!("192.0.2.0/{number}@s.example/u"), "1,2,3".into()))
        .collect()
}

/// The data file at some moments of a server's life.
fn versions_of_a_database() -> Vec<Vec<u8>> {
    let folder = make_folder();
    let db = folder.path().join("db");
    crate::daemon::make_dbdir(&db);
    open_store(&db)
        .edit(&mut |all| {
            early_records().iter().try_for_each(|(key, value)| {
                all.put(Database::Greylist, key.as_bytes(), value.as_bytes())
            })
        })
        .unwrap();
    for name in ["data.mdb", "lock.mdb"] {
        give_to_server(&db.join(name));
    }
    let mut daemon = start(folder.path());
    let mut versions = Vec::new();
    for part in 0..8 {
        versions.push(fs::read(db.join("data.mdb")).unwrap());
        ask_for(&daemon, part * 60..(part + 1) * 60);
    }
    assert!(daemon.stop().success());
    assert!(!db.join("data.mdb.unflushed").exists(), "flushed");
    versions
}

/// The last version, but for some pages of earlier ones.
fn mix(random: &mut Random, versions: &[Vec<u8>], lost_percent: usize) -> Vec<u8> {
    let mut mixture = versions.last().unwrap().clone();
    for (number, page) in mixture.chunks_mut(PAGE).enumerate() {
        if random.percent(lost_percent) {
            let earlier = random.pick(versions);
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
    let folder = make_folder();
    let db = folder.path().join("db");
    crate::daemon::make_dbdir(&db);
    for (name, octets) in [
        ("data.mdb", data),
        ("data.mdb.copy", copy),
        ("data.mdb.unflushed", b""),
    ] {
        fs::write(db.join(name), octets).unwrap();
        give_to_server(&db.join(name));
    }
    let mut daemon = start(folder.path());
    ask_for(&daemon, 1000..1300);
    assert!(daemon.stop().success(), "{what}");
    let log = daemon.log_text();
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
    if is_damaged {
        assert!(
            early_records()
                .iter()
                .all(|(key, value)| held.get(key) == Some(value)),
            "{what}"
        );
    }
    assert!(
        held.contains_key("10.8.1.0/n1008x@s.example/u@example.org"),
        "{what}: {held:?}"
    );
    is_damaged
}

#[test]
fn a_crash_of_the_machine_leaves_the_database_or_its_copy() {
    let versions = versions_of_a_database();
    let seed = Random::choose_seed();
    let mut random = Random::new(seed);
    let number = number_from("POSTGREY_POWER_CUTS", 60) as usize / 5;
    let cases: Vec<(usize, Vec<u8>)> = (0..number)
        .map(|number| {
            let lost_percent = [0, 1, 5, 60][number % 4];
            (lost_percent, mix(&mut random, &versions, lost_percent))
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
                        let what = format!("{lost} % lost, POSTGREY_SEED={seed}");
                        let is_damaged = live_on(data, copy, &what);
                        assert!(is_damaged || *lost < 60, "{what}");
                        assert!(!is_damaged || *lost > 0, "{what}");
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
