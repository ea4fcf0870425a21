//! `backup`, `restore` and `verify` of a file.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chown};
use postgrey::policy::record::Database;

use super::common_server::{Server, is_root, nobody, skip, spawn, test_dir, wait_until};
use super::{ctl, ctl_with_input, fill, keys_of};

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A backup of a database with one client, and its folder.
fn backup(folder: &Path) -> PathBuf {
    let old = folder.join("old");
    fs::create_dir(&old).unwrap();
    fill(&old, &[(Database::Clients, b"192.0.2.1", b"5,6")]);
    let file = folder.join("backup.mdb");
    ctl(&old, &["backup", file.to_str().unwrap()]).ok();
    file
}

#[test]
fn a_backup_is_put_in_place_and_the_old_one_kept() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let file = backup(dir.path());
    let name = file.to_str().unwrap();
    let said = ctl(&db, &["restore", name]).ok();
    assert_eq!(said, format!("{}: 1 records restored\n", db.display()));
    let found = fs::metadata(db.join("data.mdb")).unwrap();
    assert_eq!(found.mode() & 0o777, 0o600);
    if is_root() {
        assert_eq!(found.uid(), nobody().uid.as_raw());
    }
    let mut server = Server::start(dir.path(), &[]);
    assert_eq!(server.records(Database::Clients).len(), 1);
    assert!(server.connect().ask(&[]).starts_with("DEFER"));
    let refused = ctl(&db, &["restore", name]).failed(2);
    let expected = format!(
        "ERROR: a server runs (process {}): stop it first\n",
        server.pid()
    );
    assert_eq!(refused, expected);
    assert_eq!(server.records(Database::Greylist).len(), 1);
    assert!(server.stop().success());

    let bytes = fs::read(&file).unwrap();
    let said = ctl_with_input(&db, &["restore", "-"], &bytes).ok();
    let kept = db.join("data.mdb.replaced");
    assert!(
        said.contains(&format!("what was there is kept as {}", kept.display())),
        "{said}"
    );
    // It is a database, too.
    let verified = ctl(&db, &["verify", kept.to_str().unwrap()]).ok();
    assert!(
        verified.starts_with("postgrey.db: 1 records, 0 bad\n"),
        "{verified}"
    );
    server.start_again();
    assert_eq!(server.records(Database::Greylist).len(), 0);
    assert_eq!(server.records(Database::Clients).len(), 1);
}

#[test]
fn records_that_are_none_are_counted() {
    let dir = test_dir();
    let old = dir.path().join("old");
    fs::create_dir(&old).unwrap();
    fill(
        &old,
        &[
            (Database::Clients, b"192.0.2.1", b"5,6"),
            (Database::Greylist, b"x", b"y"),
        ],
    );
    let file = dir.path().join("backup.mdb");
    ctl(&old, &["backup", file.to_str().unwrap()]).ok();
    let said = ctl(&dir.path().join("db"), &["restore", file.to_str().unwrap()]).ok();
    assert!(
        said.contains(": 2 records, 1 bad ones among them (see verify), restored\n"),
        "{said}"
    );
}

#[test]
fn a_session_that_lives_goes_on_with_the_backup() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let file = backup(dir.path());
    let mut spawned = spawn(dir.path(), &[]);
    assert!(spawned.client.ask(&[]).starts_with("DEFER"));
    ctl(&db, &["restore", file.to_str().unwrap()]).ok();
    assert!(
        spawned
            .client
            .ask(&[("sender", "b@example.com")])
            .starts_with("DEFER")
    );
    drop(spawned.client);
    spawned.child.wait().unwrap();
    assert_eq!(keys_of(&db, Database::Clients), [b"192.0.2.1"]);
    assert_eq!(
        keys_of(&db, Database::Greylist),
        [b"192.0.2.0/b@example.com/user@example.org"]
    );
}

#[test]
fn what_is_damaged_is_not_put_in_place_and_can_be_replaced() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let file = backup(dir.path());
    ctl(&db, &["restore", file.to_str().unwrap()]).ok();
    let bad = dir.path().join("bad.mdb");
    let bad_name = bad.to_str().unwrap();
    let whole = fs::read(&file).unwrap();
    let before = (names(&db), fs::read(db.join("data.mdb")).unwrap());
    let middle = whole.len() / 2;
    let mut zeroed = whole.clone();
    zeroed[8192..].fill(0);
    // Pages as LMDB has them, whose entries begin and end after the header.
    let mut without_entries = whole.clone();
    for page in without_entries.chunks_exact_mut(4096).skip(2) {
        page[12..14].copy_from_slice(&16_u16.to_ne_bytes());
    }
    for (what, content) in [
        ("text", b"no database".to_vec()),
        ("empty", Vec::new()),
        ("half", whole[..middle].to_vec()),
        ("zeros", zeroed),
        ("no entries", without_entries),
    ] {
        fs::write(&bad, &content).unwrap();
        for command in ["restore", "verify"] {
            let said = ctl(&db, &[command, bad_name]).failed(1);
            assert!(
                said.starts_with("ERROR: damaged: "),
                "{command} {what}: {said}"
            );
        }
        let after = (names(&db), fs::read(db.join("data.mdb")).unwrap());
        assert_eq!(after, before, "{what}");
    }
    let missing = ctl(&db, &["restore", "/nowhere"]).failed(2);
    assert_eq!(missing, "ERROR: /nowhere: No such file or directory\n");
    // The database itself may be anything, and be marked.
    fs::write(db.join("data.mdb"), fs::read(&bad).unwrap()).unwrap();
    for command in ["verify", "list"] {
        let said = ctl(&db, &[command]).failed(1);
        let why = format!(
            "ERROR: damaged: {}: mdb_dbi_open: no database of postgrey",
            db.display()
        );
        assert!(said.starts_with(&why), "{command}: {said}");
    }
    fs::write(db.join("data.mdb"), "text").unwrap();
    fs::write(db.join("data.mdb.unflushed"), "").unwrap();
    ctl(&db, &["restore", file.to_str().unwrap()]).ok();
    assert!(!db.join("data.mdb.unflushed").exists());
    let mut server = Server::start(dir.path(), &[]);
    assert_eq!(server.records(Database::Clients).len(), 1);
    assert!(server.stop().success());
    assert!(
        !server.log_text().contains("verified"),
        "{}",
        server.log_text()
    );
}

/// As root in a directory that the server's user cannot change.
#[test]
fn a_backup_that_fails_leaves_no_file() {
    let dir = test_dir();
    let db = dir.path().join("db");
    if !is_root() {
        return skip("root", "a backup into a directory of root's");
    }
    let own = dir.path().join("own");
    fs::create_dir(&own).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o700)).unwrap();
    let file = own.join("backup.mdb");
    let name = file.to_str().unwrap();
    ctl(&db, &["backup", name]).failed(2);
    assert_eq!(names(&own), [""; 0]);

    let _server = Server::start(dir.path(), &[]);
    ctl(&db, &["backup", name]).ok();
    assert!(ctl(&db, &["verify", name]).ok().contains("0 bad"));
    fs::remove_file(&file).unwrap();
    // Whoever interrupts it ends the child that copies.
    let full = "/dev/full";
    let mut child = Command::new(env!("CARGO_BIN_EXE_postgreyctl"))
        .arg(format!("--dbdir={}", db.display()))
        .args(["backup", name])
        .stderr(Stdio::null())
        .stdout(Stdio::from(fs::File::create(full).unwrap()))
        .spawn()
        .unwrap();
    let parent = Pid::from_raw(child.id() as i32);
    for pid in super::common_server::children_of(parent) {
        let _ = kill(pid, Signal::SIGINT);
    }
    let status = child.wait().unwrap();
    let is_left = file.exists();
    assert_eq!(is_left, status.success());
    wait_until("no child is left", || {
        super::common_server::children_of(parent).is_empty()
    });
}

#[test]
fn a_restore_keeps_others_off_to_its_end() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let file = backup(dir.path());
    ctl(&db, &["restore", file.to_str().unwrap()]).ok();
    // One that waits for its input.
    let mut first = Command::new(env!("CARGO_BIN_EXE_postgreyctl"))
        .arg(format!("--dbdir={}", db.display()))
        .args(["restore", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it has begun", || db.join("data.mdb.restore").exists());
    let said = ctl(&db, &["restore", file.to_str().unwrap()]).failed(2);
    assert!(
        said.contains(&format!("(process {})", first.id())),
        "{said}"
    );
    use std::io::Write;
    first
        .stdin
        .take()
        .unwrap()
        .write_all(&fs::read(&file).unwrap())
        .unwrap();
    assert!(first.wait().unwrap().success());
    assert_eq!(keys_of(&db, Database::Clients), [b"192.0.2.1"]);
}

#[test]
fn what_a_killed_restore_has_left_goes_at_the_next_start() {
    let dir = test_dir();
    let left = dir.path().join("db/data.mdb.restore");
    fs::write(&left, "half").unwrap();
    super::common_server::give_to_server(&left);
    let _server = Server::start(dir.path(), &[]);
    assert!(!left.exists());
}

/// The user of the server could have put a link to a file of root's there.
#[test]
fn a_backup_beside_the_database_is_read_with_the_rights_of_its_owner() {
    let dir = test_dir();
    let db = dir.path().join("db");
    if !is_root() {
        return skip("root", "a link to a file that only root may read");
    }
    let file = backup(dir.path());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let link = db.join("data.mdb.replaced");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    let said = ctl(&db, &["restore", link.to_str().unwrap()]).failed(2);
    assert!(
        said.contains("data.mdb.replaced: Permission denied"),
        "{said}"
    );
    // The administrator's own words are his.
    let link = dir.path().join("latest.mdb");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    ctl(&db, &["restore", link.to_str().unwrap()]).ok();
    // Also over a database that came as root's.
    chown(
        &db.join("data.mdb"),
        Some(nix::unistd::Uid::from_raw(0)),
        None,
    )
    .unwrap();
    ctl(&db, &["restore", link.to_str().unwrap()]).ok();
    assert!(db.join("data.mdb.replaced").exists());
    // A directory in its place is set aside.
    fs::remove_file(db.join("data.mdb")).unwrap();
    fs::create_dir(db.join("data.mdb")).unwrap();
    let said = ctl(&db, &["restore", link.to_str().unwrap()]).ok();
    assert!(
        said.contains("is kept as ") && said.contains("data.mdb.damaged"),
        "{said}"
    );
    assert!(db.join("data.mdb.replaced").exists());
    let said = ctl(&db, &["restore", dir.path().to_str().unwrap()]).failed(2);
    assert_eq!(
        said,
        format!("ERROR: {}: Is a directory\n", dir.path().display())
    );
}
