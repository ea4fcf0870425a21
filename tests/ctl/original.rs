//! The databases of a real original: running, killed, stopped, of another user.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::{User, chown};
use postgrey::policy::record::Database;
use postgrey::sys::clock;

use super::common_original::{ORIGINAL, Original};
use super::common_server::{self, Client, is_root, make_dbdir, skip};
use super::{ctl, records};

/// Whether there is an original to compare with; if not, that is said.
pub fn is_there() -> bool {
    let has_tools = ["db_dump", "db_recover", "db_load"]
        .iter()
        .all(|tool| Command::new(tool).arg("-V").output().is_ok());
    let is_there = Path::new(ORIGINAL).exists() && has_tools && is_root();
    if !is_there {
        skip(
            "postgrey, db_recover, or root,",
            "databases of the original",
        );
    }
    is_there
}

/// The mail of this number, twice, so that it passes; what is recorded of it.
fn send(client: &mut Client, number: u32, now: u64) -> (Vec<u8>, Vec<u8>) {
    let address = format!("198.51.{}.{}", number / 250, number % 250);
    let sender = format!("s{number}@x.example");
    for time in [now - 1000, now - 400] {
        client.ask(&[
            ("client_address", &address),
            ("sender", &sender),
            ("policy_test_time", &time.to_string()),
        ]);
    }
    let key = format!("198.51.{}.0/{sender}/user@example.org", number / 250);
    let value = format!("{},{}", now - 1000, now - 400);
    (key.into_bytes(), value.into_bytes())
}

/// A directory of ours for a user that is not the original's.
fn directory_of_daemon() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let user = User::from_name("daemon").unwrap().unwrap();
    chown(dir.path(), Some(user.uid), None).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    dir
}

/// The records of a database.
pub fn all(dir: &Path, database: Database) -> BTreeMap<Vec<u8>, Vec<u8>> {
    records(dir, database).into_iter().collect()
}

/// The directory of an original that only its user may enter.
fn directory_of_original(folder: &Path) -> std::path::PathBuf {
    let dbdir = folder.join("original");
    make_dbdir(&dbdir);
    fs::set_permissions(&dbdir, fs::Permissions::from_mode(0o700)).unwrap();
    dbdir
}

struct EndsLoad<'a>(&'a AtomicBool);

impl Drop for EndsLoad<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_running_original_and_a_killed_one_give_all_they_have_answered() {
    if !is_there() {
        return;
    }
    let folder = common_server::test_dir();
    let old = directory_of_original(folder.path());
    let old_path = old.to_str().unwrap();
    let dir = directory_of_daemon();
    let now = clock::seconds() as u64;
    let original = Original::start(&old, &[]);
    let (is_over, sent) = (AtomicBool::new(false), AtomicU32::new(0));
    let mut expected = BTreeMap::new();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            let mut client = Client::unix(&original.socket).unwrap();
            let mut recorded = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                recorded.push(send(&mut client, recorded.len() as u32, now));
                sent.store(recorded.len() as u32, Ordering::SeqCst);
            }
            recorded
        });
        // A failure ends the load, too.
        let end = EndsLoad(&is_over);
        for round in 1..=3 {
            let start = Instant::now();
            while sent.load(Ordering::SeqCst) < round * 100 {
                assert!(start.elapsed() < Duration::from_secs(60));
                std::thread::sleep(Duration::from_millis(5));
            }
            let before = sent.load(Ordering::SeqCst);
            let said = ctl(dir.path(), &["import", old_path]).ok();
            let taken = records(dir.path(), Database::Greylist).len();
            assert!(taken >= before as usize, "{taken} of {before}: {said}");
            let clients = records(dir.path(), Database::Clients).len();
            assert!((before as usize..=taken).contains(&clients), "{clients}");
        }
        drop(end);
        expected.extend(load.join().unwrap());
    });
    original.kill();
    let before = listing(&old);
    // Nothing of it is in the files yet.
    let dumped = Command::new("db_dump")
        .arg("-p")
        .arg(old.join("postgrey.db"))
        .output();
    assert!(
        String::from_utf8(dumped.unwrap().stdout)
            .unwrap()
            .lines()
            .count()
            < 2 * expected.len()
    );
    ctl(dir.path(), &["import", old_path]).ok();
    assert_eq!(all(dir.path(), Database::Greylist), expected);
    // The same by a file beside its log files, for a directory of its own.
    let other = directory_of_daemon();
    let file = old.join("postgrey.db");
    ctl(other.path(), &["import", file.to_str().unwrap()]).ok();
    assert_eq!(all(other.path(), Database::Greylist), expected);
    assert_eq!(listing(&old), before);
    for dir in [&dir, &other] {
        let owner = fs::metadata(dir.path()).unwrap().uid();
        let own = listing(dir.path());
        assert_eq!(own.len(), 3, "{own:?}");
        assert!(own.values().all(|(uid, ..)| *uid == owner), "{own:?}");
    }
    // It goes on as ever, and what it has then comes in as well.
    let original = Original::start(&old, &[]);
    let (key, value) = send(&mut Client::unix(&original.socket).unwrap(), 60_000, now);
    expected.insert(key, value);
    original.stop();
    ctl(dir.path(), &["import", old_path]).ok();
    assert_eq!(all(dir.path(), Database::Greylist), expected);
}

/// Owner, mode, length and last change of each file.
fn listing(dir: &Path) -> BTreeMap<std::ffi::OsString, (u32, u32, u64, i64)> {
    let files = fs::read_dir(dir).unwrap().map(|entry| {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        let shown = (found.uid(), found.mode(), found.len(), found.mtime());
        (entry.file_name(), shown)
    });
    files.collect()
}

#[test]
fn a_database_without_records_is_no_success_without_a_word() {
    if !is_there() {
        return;
    }
    let folder = common_server::test_dir();
    let old = directory_of_original(folder.path());
    let original = Original::start(&old, &[]);
    let now = clock::seconds() as u64;
    for number in 0..10 {
        send(&mut Client::unix(&original.socket).unwrap(), number, now);
    }
    original.kill();
    let dir = tempfile::tempdir().unwrap();
    let copies = folder.path().join("copies");
    fs::create_dir(&copies).unwrap();
    for name in ["postgrey.db", "postgrey_clients.db"] {
        fs::copy(old.join(name), copies.join(name)).unwrap();
    }
    // The files of a killed one alone.
    let said = ctl(dir.path(), &["import", copies.to_str().unwrap()]).failed(1);
    let word = "there are no records in it; those of an original that runs or was killed are in \
                its log.* files: import its whole directory\n";
    assert_eq!(said, format!("ERROR: {}: {word}", copies.display()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let file = copies.join("postgrey.db");
    let ran = ctl(dir.path(), &["import", file.to_str().unwrap()]);
    assert_eq!(
        (ran.status, ran.stderr),
        (0, format!("{}: {word}", file.display()))
    );
    // A file that was made, and not written yet when its machine crashed.
    let (blank, other) = (folder.path().join("blank"), tempfile::tempdir().unwrap());
    fs::create_dir(&blank).unwrap();
    for entry in fs::read_dir(&old).unwrap() {
        let entry = entry.unwrap();
        // Its socket is there, too.
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), blank.join(entry.file_name())).unwrap();
        }
    }
    fs::write(blank.join("postgrey.db"), [0; 4096]).unwrap();
    ctl(other.path(), &["import", blank.to_str().unwrap()]).ok();
    assert_eq!(all(other.path(), Database::Greylist).len(), 10);
    // The text that db_dump makes of such a file.
    let text = Command::new("db_dump")
        .arg("-p")
        .arg(&file)
        .output()
        .unwrap()
        .stdout;
    let ran = super::ctl_with_input(dir.path(), &["import", "-"], &text);
    assert_eq!(
        (ran.status, ran.stderr),
        (0, format!("standard input: {word}"))
    );
    // One that had nothing to keep.
    let idle = folder.path().join("idle");
    make_dbdir(&idle);
    let original = Original::start(&idle, &[]);
    let mut client = Client::unix(&original.socket).unwrap();
    // It answers when its databases are there, and keeps nothing of this.
    let answer = client.try_ask(b"request=smtpd_access_policy\n\n");
    assert_eq!(answer.unwrap(), "DUNNO");
    original.stop();
    let ran = ctl(dir.path(), &["import", idle.to_str().unwrap()]);
    let file = |name: &str| idle.join(name).display().to_string();
    assert_eq!(
        (ran.status, ran.stderr),
        (
            0,
            format!(
                "{}: there are no records in it, nor for it in the log.* files\n\
                 {}: there are no records in it, nor for it in the log.* files\n",
                file("postgrey.db"),
                file("postgrey_clients.db")
            )
        )
    );
}

/// A directory with stand-ins for every program that could read the files.
fn stand_ins(folder: &Path, recover: Option<&str>) -> String {
    let bin = folder.join("bin");
    let _ = fs::remove_dir_all(&bin);
    fs::create_dir(&bin).unwrap();
    let script = |name: &str, text: &str| {
        fs::write(bin.join(name), format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    for entry in fs::read_dir("/usr/bin").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.starts_with("db") && name.contains("dump") {
            script(&name, "exit 0");
            if let Some(text) = recover {
                script(&name.replace("dump", "recover"), text);
            }
        }
    }
    format!("{}:{}", bin.display(), std::env::var("PATH").unwrap())
}

#[test]
fn without_db_recover_it_is_said_what_to_run() {
    if !is_there() {
        return;
    }
    let folder = common_server::test_dir();
    let old = directory_of_original(folder.path());
    let original = Original::start(&old, &[]);
    send(
        &mut Client::unix(&original.socket).unwrap(),
        1,
        1_700_000_000,
    );
    let dir = tempfile::tempdir().unwrap();
    for (recover, why) in [
        (
            None,
            "/bin/db_recover, which is not there (package db-util, ",
        ),
        (
            Some("echo 'log version 3 is too old' >&2; exit 1"),
            "/bin/db_recover: log version 3 is too old; ",
        ),
    ] {
        let path = stand_ins(folder.path(), recover);
        let output = Command::new(env!("CARGO_BIN_EXE_postgreyctl"))
            .args([
                "--dbdir",
                dir.path().to_str().unwrap(),
                "--defaults",
                "import",
                old.to_str().unwrap(),
            ])
            .env("PATH", path)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(why), "{said}");
        assert!(
            said.contains("nothing was imported: start the original once more and stop it"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
