//! The database and its disk: full, read-only, gone and back.

use std::fs;
use std::io::Write;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::run;
use crate::server::{
    Client, Server, common_options, free_port, make_dbdir, request, spawn, test_dir, wait_until,
};
use crate::small_disk::SmallDisk;

#[test]
fn a_full_map_grows_and_starts_the_maintenance() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=2", "--db-size=1M"]);
    let mut client = server.connect();
    let long = "x".repeat(200);
    // Records of long ago, so that the maintenance has something to remove.
    let batch = |from: usize, time: &str| -> Vec<u8> {
        (from..from + 50)
            .flat_map(|n| {
                request(&[
                    ("sender", &format!("{long}{n}@example.com")),
                    ("policy_test_time", time),
                ])
            })
            .collect()
    };
    for from in (0..6000).step_by(50) {
        client.send(&batch(from, "1000000000"));
        for _ in 0..50 {
            assert!(client.reply().unwrap().starts_with("DEFER_IF_PERMIT"));
        }
    }
    server.wait_for_log("cleaning up old entries...", 1);
    server.wait_for_log("cleaning main database finished. before: ", 1);
    assert!(
        !server.log_text().contains("WARNING"),
        "{}",
        server.log_text()
    );
}

#[test]
fn a_database_directory_that_vanishes_and_comes_back_is_followed() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=2"]);
    let mut client = server.connect();
    assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    wait_until("DUNNO", || client.ask(&[]) == "DUNNO");
    for _ in 0..50 {
        client.ask(&[]);
    }
    make_dbdir(&dir.path().join("db"));
    wait_until("greylisting", || {
        client.ask(&[]).starts_with("DEFER_IF_PERMIT")
    });
    assert!(dir.path().join("db/data.mdb").exists());
    let complaints = server
        .log_text()
        .matches("No such file or directory")
        .count();
    assert!((1..=6).contains(&complaints), "{}", server.log_text());
    assert!(server.connect().ask(&[]).starts_with("DEFER_IF_PERMIT"));
}

fn small_disk(db: &Path) -> Option<SmallDisk<'_>> {
    SmallDisk::mount(db, "size=512k,mode=0777", "a full and a read-only disk")
}

fn ping(client: &mut Client) -> String {
    client.send(b"request=postgrey_ping\n\n");
    let answer = client.line();
    assert_eq!(client.line().trim_end(), "");
    answer.trim_end().to_owned()
}

#[test]
fn a_full_disk_is_survived() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let Some(_disk) = small_disk(&db) else {
        return;
    };
    let server = Server::start(dir.path(), &["--workers=2"]);
    let mut client = server.connect();
    let mut number = 0;
    let mut ask = |client: &mut Client| {
        number += 1;
        client.ask(&[("sender", &format!("s{number}@example.com"))])
    };
    for _ in 0..500 {
        assert!(ask(&mut client).starts_with("DEFER_IF_PERMIT"));
    }
    let filler = db.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    wait_until("DUNNO", || ask(&mut client) == "DUNNO");
    for _ in 0..50 {
        ask(&mut client);
    }
    assert!(
        server
            .log_text()
            .contains("the disk is full (No space left on device): requests pass ungreylisted"),
        "{}",
        server.log_text()
    );
    assert!(server.log_text().matches("No space left on device").count() <= 3);
    // A ping would find room enough in pages that are free.
    assert_eq!(
        ping(&mut client),
        "ping=trouble: the database fails, see the log"
    );
    drop(file);
    fs::remove_file(&filler).unwrap();
    wait_until("greylisting", || {
        ask(&mut client).starts_with("DEFER_IF_PERMIT")
    });
    assert_eq!(ping(&mut client), "ping=ok");
}

/// postgreyctl would go by the defaults, and `expire` remove what these keep.
#[test]
fn a_full_disk_takes_no_options_away_that_are_true() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let Some(disk) = small_disk(&db) else {
        return;
    };
    let mut server = Server::start(dir.path(), &["--max-age=90"]);
    let options = || fs::read_to_string(db.join("postgrey.options")).unwrap_or_default();
    let before = options();
    assert!(before.contains("--max-age=90\n"), "{before}");
    disk.fill();
    server.signal(Signal::SIGHUP);
    server.wait_for_log("cannot write the options for postgreyctl", 1);
    assert_eq!(options(), before);
    server.stop();
    // Those of another server are not left.
    let server = Server::start(dir.path(), &["--max-age=30"]);
    server.wait_for_log("cannot write the options for postgreyctl", 1);
    assert_eq!(options(), "");
}

#[test]
fn a_read_only_file_system_is_survived() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let Some(disk) = small_disk(&db) else {
        return;
    };
    {
        let mut server = Server::start(dir.path(), &["--workers=2"]);
        server.connect().ask(&[]);
        server.stop();
    }
    disk.remount("ro");
    // A start says so; a spawned session has to answer all the same.
    let mut options = common_options(dir.path());
    options.push(format!("--inet=127.0.0.1:{}", free_port()).into());
    let (status, message) = run(&options);
    assert_eq!(status, Some(2));
    assert!(message.contains("Read-only file system"), "{message}");
    let mut session = spawn(dir.path(), &[]);
    assert_eq!(
        session.client.ask(&[("sender", "new@example.com")]),
        "DUNNO"
    );
    disk.remount("rw");
    wait_until("greylisting", || {
        session.client.ask(&[]).starts_with("DEFER_IF_PERMIT")
    });
}
