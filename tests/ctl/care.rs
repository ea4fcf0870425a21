//! `expire`, `compact`, `backup`, `verify` and `stats`.

use crate::common_server::skip;
use std::fs;

use postgrey::policy::record::Database;
use postgrey::store::Store;
use postgrey::sys::lock::{Claim, LockFile};

use super::{ctl, fill, keys_of, records, store};

fn now() -> u64 {
    postgrey::sys::clock::seconds() as u64
}

#[test]
fn expired_records_go_by_the_rules_given() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (now() - 10 * 86400, now() - 60);
    fill(
        dir.path(),
        &[
            (
                Database::Greylist,
                b"n/a/b",
                format!("{},{old},1", old - 900).as_bytes(),
            ),
            (
                Database::Greylist,
                b"n/c/d",
                format!("{new},{new},0").as_bytes(),
            ),
            (
                Database::Greylist,
                b"n/e/f",
                format!("{old},{old},0").as_bytes(),
            ),
            (
                Database::Clients,
                b"192.0.2.1",
                format!("9,{old}").as_bytes(),
            ),
            (Database::Tarpit, b"192.0.2.1", format!("{old}").as_bytes()),
        ],
    );
    let said = ctl(dir.path(), &["expire"]).ok();
    assert_eq!(
        said,
        "cleaning main database finished. before: 3, after: 2\n\
         cleaning clients database finished. before: 1, after: 1\n"
    );
    let said = ctl(dir.path(), &["expire", "--", "--max-age=7", "--targrey"]).ok();
    assert_eq!(
        said,
        "cleaning main database finished. before: 2, after: 1\n\
         cleaning clients database finished. before: 1, after: 0\n\
         cleaning tarpit blacklist database finished. before: 1, after: 0\n"
    );
    assert_eq!(keys_of(dir.path(), Database::Greylist), [b"n/c/d"]);
}

/// An environment of some size, most of it free.
fn fill_and_empty(dir: &std::path::Path) {
    let keys: Vec<Vec<u8>> = (0..20_000)
        .map(|n| format!("n/a/{n:05}").into_bytes())
        .collect();
    let all: Vec<(Database, &[u8], &[u8])> = keys
        .iter()
        .map(|key| (Database::Greylist, &key[..], &b"1,2,3"[..]))
        .collect();
    fill(dir, &all);
    store(dir)
        .edit(&[], &mut |records| {
            keys[100..]
                .iter()
                .try_for_each(|key| records.delete(Database::Greylist, key))
        })
        .unwrap();
}

#[test]
fn compaction_keeps_the_records_and_gives_back_the_space() {
    let dir = tempfile::tempdir().unwrap();
    fill_and_empty(dir.path());
    let before = records(dir.path(), Database::Greylist);
    let size = || fs::metadata(dir.path().join("data.mdb")).unwrap().len();
    let large = size();
    fs::write(
        dir.path().join("data.mdb.compact"),
        "of a run that was killed",
    )
    .unwrap();
    let said = ctl(dir.path(), &["compact"]).ok();
    assert!(
        said.ends_with(&format!(": {large} octets before, {} after\n", size())),
        "{said}"
    );
    assert!(size() * 5 < large, "{large} {}", size());
    assert_eq!(records(dir.path(), Database::Greylist), before);
    fill(dir.path(), &[(Database::Clients, b"192.0.2.1", b"5,6")]);
    assert_eq!(keys_of(dir.path(), Database::Clients), [b"192.0.2.1"]);
    assert!(!dir.path().join("data.mdb.compact").exists());
}

#[test]
fn nobody_may_be_there_during_a_compaction() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), &[(Database::Clients, b"192.0.2.1", b"5,6")]);
    let lock = LockFile::new(dir.path().join("postgrey.lock"), 0o600);
    assert!(lock.try_lock(Claim::Daemon).unwrap());
    let said = ctl(dir.path(), &["compact"]).failed(2);
    let own = format!(
        "ERROR: {}: replace: a server runs (process {}): stop it first\n",
        dir.path().display(),
        std::process::id()
    );
    assert_eq!(said, own);
    lock.unlock(Claim::Daemon).unwrap();
    // A session of spawn(8) has no claim, but a reader's place.
    let mut session = store(dir.path());
    session.prepare().unwrap();
    let said = ctl(dir.path(), &["compact"]).failed(2);
    assert!(
        said.contains(&format!("process {} uses the database", std::process::id())),
        "{said}"
    );
    drop(session);
    assert_eq!(keys_of(dir.path(), Database::Clients), [b"192.0.2.1"]);
    ctl(dir.path(), &["compact"]).ok();
}

#[test]
fn a_backup_is_a_database() {
    let dir = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    fill(dir.path(), &[(Database::Clients, b"192.0.2.1", b"5,6")]);
    let file = other.path().join("data.mdb");
    let name = file.to_str().unwrap();
    assert_eq!(ctl(dir.path(), &["backup", name]).ok(), "");
    let taken = ctl(dir.path(), &["backup", name]).failed(2);
    assert_eq!(taken, format!("ERROR: {name}: File exists\n"));
    assert_eq!(keys_of(other.path(), Database::Clients), [b"192.0.2.1"]);
    let streamed = tempfile::tempdir().unwrap();
    fs::write(
        streamed.path().join("data.mdb"),
        ctl(dir.path(), &["backup", "-"]).stdout,
    )
    .unwrap();
    assert_eq!(keys_of(streamed.path(), Database::Clients), [b"192.0.2.1"]);
    let nothing = tempfile::tempdir().unwrap();
    let part = nothing.path().join("copy");
    ctl(nothing.path(), &["backup", part.to_str().unwrap()]).failed(2);
    assert_eq!(fs::read_dir(nothing.path()).unwrap().count(), 0);
}

#[test]
fn what_is_not_a_record_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let long = [b"192.0.2.0/", &[b's'; 600][..], b"/r"].concat();
    fill(
        dir.path(),
        &[
            (Database::Greylist, b"n/a/b", b"1,2,3"),
            (Database::Greylist, &long, b"1,2,3"),
        ],
    );
    assert_eq!(
        ctl(dir.path(), &["verify"]).ok(),
        "postgrey.db: 2 records, 0 bad\npostgrey_clients.db: 0 records, 0 bad\n\
         tarpit_clients.db: 0 records, 0 bad\n"
    );
    fill(
        dir.path(),
        &[
            (Database::Greylist, b"n/\x01/b", b"1,\0,3"),
            (Database::Greylist, &[b'k'; 511][..510], b"1,2,3"),
            (Database::Clients, b"c", b"many,1"),
        ],
    );
    let ran = ctl(dir.path(), &["verify"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (1, ""));
    let text = ran.text();
    for line in [
        "postgrey.db: n/\\01/b: the value is no record of a triplet\n",
        "postgrey.db: 4 records, 2 bad\n",
        "postgrey_clients.db: c: the value is not count,last\n",
    ] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn statistics_in_three_forms() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (now() - 40 * 86400, now() - 60);
    fill(
        dir.path(),
        &[
            (
                Database::Greylist,
                b"n/a/b",
                format!("{old},{old},0").as_bytes(),
            ),
            (
                Database::Greylist,
                b"n/c/d",
                format!("{new},{new},0").as_bytes(),
            ),
            (Database::Greylist, b"n/e/f", b"nonsense"),
            (
                Database::Clients,
                b"192.0.2.1",
                format!("9,{new}").as_bytes(),
            ),
        ],
    );
    let json: serde_json::Value =
        serde_json::from_str(&ctl(dir.path(), &["stats", "--json"]).ok()).unwrap();
    let greylist = &json["greylist"];
    assert_eq!(greylist["records"], 3);
    assert_eq!(greylist["states"]["new"], 1);
    assert_eq!(greylist["states"]["expired"], 1);
    assert_eq!(greylist["bad"], 1);
    assert_eq!(greylist["last_used"]["1h"], 1);
    assert_eq!(greylist["last_used"]["older"], 1);
    assert_eq!(json["clients"]["states"]["passed"], 1);
    assert_eq!(json["server"], serde_json::Value::Null);
    assert!(json["used_pages"].as_u64() > json["free_pages"].as_u64());
    let prometheus = ctl(dir.path(), &["stats", "--prometheus"]).ok();
    for line in [
        "postgrey_records{database=\"greylist\",state=\"new\"} 1\n",
        "postgrey_records{database=\"greylist\",state=\"bad\"} 1\n",
        "# TYPE postgrey_db_free_pages gauge\n",
    ] {
        assert!(prometheus.contains(line), "{prometheus}");
    }
    let text = ctl(dir.path(), &["stats"]).ok();
    assert!(text.contains("\nServer: none\n"), "{text}");
    ctl(dir.path(), &["stats", "--json", "--prometheus"]).failed(1);
}

#[test]
fn progress_shows_on_a_terminal_after_a_second_and_nowhere_else() {
    use std::process::Command;
    let terminal = Command::new("script")
        .args(["-qec", "true", "/dev/null"])
        .output();
    if !terminal.is_ok_and(|output| output.status.success()) {
        skip("terminal by script", "progress on a terminal");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let text: String = (0..20_000).map(|n| format!("n/a/{n}\t1,2,3\n")).collect();
    fs::write(dir.path().join("text"), text).unwrap();
    let import = |between: &str, redirection: &str| {
        let (program, place) = (env!("CARGO_BIN_EXE_postgreyctl"), dir.path().display());
        let command = format!(
            "(head -n 9000 {place}/text; {between}; tail -n +9001 {place}/text) \
             | {program} --dbdir={place} import - {redirection}"
        );
        let output = Command::new("script")
            .args(["-qec", &command, "/dev/null"])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let said = import("sleep 1.2", "");
    assert!(
        said.contains("reading ") && said.contains(": 20000 taken"),
        "{said}"
    );
    for said in [import(":", ""), import("sleep 1.2", "2>/dev/null")] {
        assert!(
            !said.contains("reading ") && said.contains(": 0 taken"),
            "{said}"
        );
    }
}
