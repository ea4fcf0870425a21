//! A damaged database, found by whoever touches it first: mail is answered all
//! the while, one line says what became of the file, and greylisting goes on.

mod met_by_daemon;
mod met_by_others;

use std::fmt;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use postgrey::policy::record::Database;
use postgrey::store::Store;

use crate::server::{Client, PATIENCE, Server, give_to_server, open_store, request, test_dir};
use crate::tools::memory_dir;

const PAGE: usize = 4096;
/// Records that were there before: enough for pages of branches.
const RECORDS: usize = 4000;
/// How soon each request is answered.
const SOON: Duration = Duration::from_secs(2);
/// A client that is on the static whitelist.
const WHITELISTED: &str = "198.51.100.1";

/// What is wrong with the file.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    /// Pages after the meta pages, which never came to the disk.
    Zeros,
    /// The page with the names of the databases alone.
    Root,
    Half,
    OldFormat,
    Text,
    Empty,
    Directory,
}

impl Damage {
    const ALL: [Damage; 7] = [
        Damage::Zeros,
        Damage::Root,
        Damage::Half,
        Damage::OldFormat,
        Damage::Text,
        Damage::Empty,
        Damage::Directory,
    ];

    /// The octets of the sound file with this damage; `None`: no file.
    fn octets(self) -> Option<Vec<u8>> {
        let mut octets = sound_file().to_vec();
        let half = octets.len() / 2;
        match self {
            Damage::Zeros => octets[half / 2..half + half / 2].fill(0),
            Damage::Root => {
                for meta in [0, PAGE] {
                    // MDB_meta: what the second of two MDB_db ends with.
                    let at = meta + 128;
                    let number = octets[at..at + 8].try_into().unwrap();
                    let root = usize::try_from(u64::from_ne_bytes(number)).unwrap() * PAGE;
                    octets[root..root + PAGE].fill(0);
                }
            }
            Damage::Half => octets.truncate(half),
            Damage::OldFormat => {
                for meta in [0, PAGE] {
                    // MDB_meta: magic, version.
                    let version = meta + 8 + size_of::<usize>() + 4;
                    assert_eq!(octets[version..version + 4], 1_u32.to_ne_bytes());
                    octets[version] = 0;
                }
            }
            Damage::Text => octets = b"This is no database.\n".repeat(500),
            Damage::Empty => octets.clear(),
            Damage::Directory => return None,
        }
        Some(octets)
    }

    /// Does it to a database that is not in use.
    fn befall(self, db: &Path) {
        match self {
            Damage::Directory => self.replace(db),
            _ => self.change_in_place(db),
        }
    }

    /// Puts it in the place of the database.
    fn replace(self, db: &Path) {
        let part = db.join("part");
        match self.octets() {
            Some(octets) => fs::write(&part, octets).unwrap(),
            None => fs::create_dir(&part).unwrap(),
        }
        give_to_server(&part);
        let data = db.join("data.mdb");
        if self == Damage::Directory {
            // Only a name that is free can become that of a directory.
            fs::rename(&data, db.join("before")).unwrap();
        }
        fs::rename(&part, &data).unwrap();
    }

    /// Changes the file as it lies there, under whoever has it open.
    fn change_in_place(self, db: &Path) {
        let octets = self.octets().unwrap();
        let file = fs::File::options().write(true).open(db.join("data.mdb"));
        let file = file.unwrap();
        file.set_len(octets.len() as u64).unwrap();
        file.write_all_at(&octets, 0).unwrap();
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Damage::Zeros => "zeroed middle",
            Damage::Root => "zeroed root",
            Damage::Half => "cut to half",
            Damage::OldFormat => "old format",
            Damage::Text => "text",
            Damage::Empty => "empty",
            Damage::Directory => "directory",
        })
    }
}

fn sender(number: usize) -> String {
    // A letter beside the digits, or they would count as a variable part.
    format!("n{number:05}x@s.example")
}

/// A database with records, in the order of their keys.
fn sound_file() -> &'static [u8] {
    static FILE: OnceLock<Vec<u8>> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = test_dir();
        let db = folder.path().join("db");
        for numbers in (0..RECORDS).collect::<Vec<_>>().chunks(500) {
            let insert = open_store(&db).edit(&[], &mut |records| {
                numbers.iter().try_for_each(|&number| {
                    let key = format!("192.0.2.0/{}/user@example.org", sender(number));
                    let value = b"1700000000,1700000000,0,91";
                    records.put(Database::Greylist, key.as_bytes(), value)
                })
            });
            insert.unwrap();
        }
        fs::read(db.join("data.mdb")).unwrap()
    })
}

/// A directory with the sound database.
fn sound_dir() -> tempfile::TempDir {
    let folder = memory_dir();
    let db = folder.path().join("db");
    fs::write(db.join("data.mdb"), sound_file()).unwrap();
    give_to_server(&db.join("data.mdb"));
    fs::write(whitelist(folder.path()), format!("{WHITELISTED}\n")).unwrap();
    folder
}

/// The same after a server has used it.
fn used_dir() -> tempfile::TempDir {
    let folder = sound_dir();
    assert!(start(folder.path(), &[]).stop().success());
    folder
}

fn whitelist(folder: &Path) -> PathBuf {
    folder.join("whitelist")
}

fn whitelist_option(folder: &Path) -> String {
    format!("--whitelist-clients={}", whitelist(folder).display())
}

fn start(folder: &Path, options: &[&str]) -> Server {
    let whitelist = whitelist_option(folder);
    let options = [&[&whitelist[..], "--quiet", "--sync=none"], options].concat();
    Server::start(folder, &options)
}

/// What was seen of a service that met damage.
#[derive(Default)]
struct Seen {
    longest: Duration,
    longest_whitelisted: Duration,
    passed: usize,
    broken: usize,
    /// When it greylisted again for good.
    back: Duration,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} broken, longest answer {:.2?}, whitelisted {:.2?}, back in {:.2?}",
            self.passed, self.broken, self.longest, self.longest_whitelisted, self.back
        )
    }
}

/// Asks for triplets all over the database until all of some rounds are
/// greylisted; each is answered soon, and whitelisted clients at once.
fn watch(connect: &mut dyn FnMut() -> Client, is_settled: &dyn Fn() -> bool) -> Seen {
    const ROUND: usize = 16;
    let mut seen = Seen::default();
    let begun = Instant::now();
    let mut client = connect();
    for round in 0.. {
        let mut greylisted = 0;
        for place in 0..ROUND {
            let start = Instant::now();
            let is_whitelisted = place == 7;
            let sender = sender(place * RECORDS / ROUND + round);
            let request = match is_whitelisted {
                true => request(&[("client_address", WHITELISTED)]),
                false => request(&[("sender", &sender), ("policy_test_time", "1700000001")]),
            };
            let answer = client.try_ask(&request);
            let took = start.elapsed();
            match answer.as_deref() {
                Ok("DUNNO") if is_whitelisted => {
                    seen.longest_whitelisted = took.max(seen.longest_whitelisted);
                    continue;
                }
                Ok("DUNNO") => seen.passed += 1,
                Ok(answer) => {
                    assert!(answer.starts_with("DEFER_IF_PERMIT"), "{answer}");
                    greylisted += 1;
                }
                Err(_) => {
                    seen.broken += 1;
                    std::thread::sleep(Duration::from_millis(20));
                    client = connect();
                    continue;
                }
            }
            seen.longest = took.max(seen.longest);
        }
        if greylisted == ROUND - 1 && is_settled() {
            break;
        }
        seen.back = begun.elapsed();
        assert!(
            begun.elapsed() < PATIENCE,
            "it does not greylist again: {seen}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(
        seen.longest < SOON && seen.longest_whitelisted < SOON,
        "{seen}"
    );
    assert!(seen.broken <= 12, "{seen}");
    seen
}

/// The lines that tell of the damage.
fn told(text: &str) -> Vec<&str> {
    let words = ["damaged", "verified", "replaced", "ended with", "mdb_"];
    let is_told = |line: &&str| words.iter().any(|word| line.contains(word));
    text.lines().filter(is_told).collect()
}

/// One line says that the file was set aside, and where it is; it is there.
fn assert_set_aside(what: &str, log: &str, db: &Path) {
    let kept = db.join("data.mdb.damaged");
    let line = format!(
        "): it is kept as {}, and an empty one is begun",
        kept.display()
    );
    let lines = log
        .lines()
        .filter(|line| line.contains("the database is damaged ("));
    assert_eq!(lines.count(), 1, "{what}: {log}");
    assert_eq!(log.matches(&line).count(), 1, "{what}: {log}");
    assert!(kept.symlink_metadata().is_ok(), "{what}");
    assert!(!db.join("data.mdb.damaged.last").exists(), "{what}");
    // The empty one is begun by the first commit, and nobody misses it before.
    assert!(!log.contains("No such file or directory"), "{what}: {log}");
}

fn print(what: &str, seen: &Seen, log: &str, folder: &Path) {
    println!("check: {what}: {seen}");
    for line in told(log) {
        let line = line.replace(&folder.display().to_string(), "");
        println!("check:     {line}");
    }
}

/// True when the file was set aside.
fn is_set_aside(db: &Path) -> bool {
    db.join("data.mdb.damaged").symlink_metadata().is_ok()
}
