//! The options that a server leaves beside its database.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use postgrey::policy::record::Database;
use postgrey::sys::clock;

use super::common_server::{Server, is_root, nobody, spawn, test_dir};
use super::{Ran, ctl, fill};

/// The program without what `ctl` adds.
fn plain_ctl(words: &[&str]) -> Ran {
    let output = Command::new(env!("CARGO_BIN_EXE_postgreyctl"))
        .args(words)
        .output()
        .unwrap();
    Ran {
        status: output.status.code().unwrap(),
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn dbdir_option(db: &Path) -> String {
    format!("--dbdir={}", db.display())
}

#[test]
fn a_server_leaves_its_options_for_the_tool() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let file = db.join("postgrey.options");
    let long = "--greylist-text=Try again later --privacy";
    let mut server = Server::start(dir.path(), &["--max-age=7", long, "--user=nobody"]);
    let found = fs::metadata(&file).unwrap();
    assert_eq!(found.mode() & 0o777, 0o600);
    if is_root() {
        assert_eq!(found.uid(), nobody().uid.as_raw());
    }
    let shown = ctl(&db, &["config"]);
    assert_eq!(shown.stderr, "");
    let shown = shown.ok();
    for line in ["--max-age=7", long, "--whitelist-clients=/dev/null"] {
        assert!(shown.lines().any(|found| found == line), "{shown}");
    }
    // It is a command line for the same server.
    let words: Vec<&str> = shown.lines().collect();
    let printed = Command::new(env!("CARGO_BIN_EXE_postgrey"))
        .args(&words)
        .arg("--print-config")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&printed.stdout), shown);

    let told = ctl(&db, &["list", "--verbose", "--", "--delay=7"]).stderr;
    for line in ["--max-age=7", "--delay=7"] {
        assert!(
            told.contains(&format!("option of the server: {line}\n")),
            "{told}"
        );
    }
    let told = ctl(&db, &["list", "--verbose", "--defaults"]).stderr;
    assert!(!told.contains("--max-age"), "{told}");

    // After its end they are those of the last server.
    server.stop();
    let told = ctl(&db, &["config"]);
    assert!(told.stderr.contains("no server runs"), "{}", told.stderr);
    assert_eq!(told.ok(), shown);
}

#[test]
fn records_expire_by_the_options_of_the_server() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let options = [
        "--max-age=90",
        "--retry-window=5",
        "--delay=3600",
        "--retry-count=2",
    ];
    let server = Server::start(dir.path(), &options);
    let old = clock::seconds() as u64 - 40 * 86400;
    let value = format!("{},{old},3", old - 7200);
    fill(
        &db,
        &[(Database::Greylist, b"192.0.2.0/a@b/c@d", value.as_bytes())],
    );
    let listed = ctl(&db, &["list", "greylist", "--json"]).ok();
    assert!(listed.contains("\"state\":\"passed\""), "{listed}");
    ctl(&db, &["expire"]).ok();
    assert_eq!(server.records(Database::Greylist).len(), 1);
    ctl(&db, &["expire", "--", "--max-age=30"]).ok();
    assert_eq!(server.records(Database::Greylist).len(), 0);
}

#[test]
fn without_a_server_the_defaults_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().to_owned();
    fill(&db, &[]);
    let expected = format!(
        "no server has left its options in {}: the defaults are taken\n",
        db.join("postgrey.options").display()
    );
    let ran = plain_ctl(&[&dbdir_option(&db), "list"]);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, expected.as_str()));
    // The directory may stand after the dashes, too.
    let ran = plain_ctl(&["list", "--", &dbdir_option(&db)]);
    assert_eq!((ran.status, ran.stderr.as_str()), (0, expected.as_str()));
    assert!(
        ctl(&db, &["config"])
            .failed(1)
            .contains("no server has left its options")
    );
}

#[test]
fn what_is_no_file_of_options_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let db = dir.path().to_owned();
    fill(&db, &[]);
    let file = db.join("postgrey.options");
    fs::write(&file, "--bogus=1\n").unwrap();
    let told = ctl(&db, &["list"]).failed(1);
    assert!(
        told.contains("postgrey.options: Unknown option: bogus"),
        "{told}"
    );
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    let told = ctl(&db, &["list"]).stderr;
    assert!(
        told.contains("postgrey.options: Too many symbolic links"),
        "{told}"
    );
}

#[test]
fn lists_that_the_server_has_not_read_are_named() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let list = dir.path().join("list");
    fs::write(&list, "one.example.com\n").unwrap();
    fs::set_permissions(&list, fs::Permissions::from_mode(0o644)).unwrap();
    let server = Server::start(
        dir.path(),
        &[&format!("--whitelist-clients={}", list.display())],
    );
    let words = [
        "explain",
        "--client-address=192.0.2.1",
        "--client-name=one.example.com",
    ];
    let stderr = || ctl(&db, &words).stderr;
    assert_eq!(stderr(), "");
    let note = format!(
        "{} was changed after the server has read it",
        list.display()
    );
    // In the same tick of the clock as the reading it could be either.
    super::common_server::wait_until("it is told", || {
        fs::write(&list, "/bad(/\n").unwrap();
        stderr().contains(&note)
    });
    // A reload that is refused changes nothing.
    server.signal(Signal::SIGHUP);
    server.wait_for_log("whitelists not reloaded", 1);
    assert!(stderr().contains(&note), "{}", stderr());
    fs::write(&list, "two.example.com\nthree.example.com\n").unwrap();
    server.signal(Signal::SIGHUP);
    server.wait_for_log(
        "HUP received: now 2 entries for clients, 0 for recipients",
        1,
    );
    super::common_server::wait_until("it is written", || stderr().is_empty());
}

#[test]
fn sessions_leave_their_options_where_no_daemon_runs() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let session = |options: &[&str]| {
        let mut spawned = spawn(dir.path(), options);
        assert!(spawned.client.ask(&[]).starts_with("DEFER"));
        drop(spawned.client);
        spawned.child.wait().unwrap();
    };
    session(&["--max-age=7"]);
    assert!(ctl(&db, &["config"]).text().contains("--max-age=7\n"));
    let stats = ctl(&db, &["stats"]).ok();
    assert!(stats.contains("\nServer: sessions of spawn(8)"), "{stats}");
    session(&["--max-age=8"]);
    assert!(ctl(&db, &["config"]).text().contains("--max-age=8\n"));
    let _server = Server::start(dir.path(), &["--max-age=9"]);
    session(&["--max-age=8"]);
    assert!(ctl(&db, &["config"]).text().contains("--max-age=9\n"));
}
