//! `--check` beside what it looks at, and what it foretells of a start.

use std::ffi::OsString;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::chown;

use crate::run;
use crate::server::{
    Server, common_options, give_to_server, is_root, make_dbdir, spawn, test_dir, wait_until,
};
use crate::small_disk::SmallDisk;

/// The options of a server in this directory, and more.
fn options(dir: &Path, more: &[&str]) -> Vec<OsString> {
    let socket = format!("--unix={}", dir.join("run/s").display());
    let own = [OsString::from(socket)];
    let more = more.iter().map(OsString::from);
    common_options(dir)
        .into_iter()
        .chain(own)
        .chain(more)
        .collect()
}

/// What `--check` says: its status and its lines.
pub fn check(dir: &Path, more: &[&str]) -> (Option<i32>, String) {
    make_private(dir);
    let mut all = vec![OsString::from("--check")];
    all.extend(options(dir, more));
    run(&all)
}

fn make_private(dir: &Path) {
    // The disk may be read-only.
    let _ = fs::set_permissions(dir.join("db"), fs::Permissions::from_mode(0o700));
}

#[test]
fn a_running_server_is_no_obstacle_for_its_own_options() {
    let dir = test_dir();
    let port = crate::server::free_port();
    let inet = format!("--inet=127.0.0.1:{port}");
    let pid_file = format!("--pidfile={}", dir.path().join("run/pid").display());
    let unix = format!("--unix={}", dir.path().join("run/s").display());
    let own = [inet.as_str(), pid_file.as_str()];
    let mut server = Server::start(dir.path(), &[&unix, own[0], own[1]]);
    assert_eq!(check(dir.path(), &own), (Some(0), String::new()));
    // However they are written.
    let dotted = format!("--unix={}", dir.path().join("db/../run/s").display());
    let mut all = common_options(dir.path());
    all.extend([
        dotted.into(),
        format!("--inet=localhost:{port}").into(),
        "--check".into(),
    ]);
    let (status, said) = run(&all);
    assert_eq!(
        (status, said.lines().any(|line| line.contains("in use"))),
        (Some(0), false)
    );
    // For another directory they are somebody else's.
    let other = test_dir();
    let (status, said) = check(other.path(), &[&inet, &unix]);
    assert_eq!(status, Some(1), "{said}");
    for line in [
        format!("--inet: 127.0.0.1:{port}: in use by another program"),
        format!(
            "--unix: {}: in use by another program",
            dir.path().join("run/s").display()
        ),
    ] {
        assert!(said.lines().any(|found| found == line), "{line}\n{said}");
    }
    // But one that the pid file names is about to be stopped.
    let (status, said) = check(other.path(), &own);
    assert_eq!(status, Some(0), "{said}");
    for line in [
        format!(
            "note: --pidfile: {}: process {} runs with it",
            dir.path().join("run/pid").display(),
            server.pid()
        ),
        format!("note: --inet: 127.0.0.1:{port}: in use, by the server that runs perhaps"),
    ] {
        assert!(said.lines().any(|found| found == line), "{line}\n{said}");
    }
    // So is one that keeps no lock, as the original.
    let plain = dir.path().join("run/plain");
    fs::write(&plain, format!("{}\n", std::process::id())).unwrap();
    let plain = format!("--pidfile={}", plain.display());
    assert_eq!(check(other.path(), &[&inet, &plain]).0, Some(0));
    // Workers whose master was killed are waited for, as by a start.
    server.kill_master();
    assert_eq!(check(dir.path(), &own).0, Some(0));
    server.start_again();
    server.stop();
    assert_eq!(check(dir.path(), &own), (Some(0), String::new()));
}

#[test]
fn a_port_of_another_program_is_named_at_once() {
    let dir = test_dir();
    let _server = Server::start(dir.path(), &[]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let inet = format!("--inet=127.0.0.1:{port}");
    let (status, said) = check(dir.path(), &[&inet]);
    let line = format!("--inet: 127.0.0.1:{port}: in use by another program\n");
    assert_eq!((status, said), (Some(1), line));
    let other = test_dir();
    let begun = Instant::now();
    let mut words = common_options(other.path());
    words.push(inet.into());
    let (status, said) = run(&words);
    let line = format!("ERROR: cannot listen on 127.0.0.1:{port}: in use by another program\n");
    assert_eq!((status, said), (Some(255), line));
    // It waits for orphans of a server of its own directory only: 3 s.
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn what_a_start_survives_is_a_note() {
    let dir = test_dir();
    let secret = dir.path().join("secret");
    fs::write(&secret, "example.com\n").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let list = format!("--whitelist-clients={}", secret.display());
    if is_root() {
        let expected = format!("note: can't open {}: Permission denied\n", secret.display());
        assert_eq!(check(dir.path(), &[&list]), (Some(0), expected));
    }
    for (more, expected) in [
        (
            &["--delay=0"][..],
            "note: --delay=0 stands for the default, 300\n",
        ),
        (
            &["--delay=7200", "--retry-window=2h"],
            "note: --delay: no triplet has the time to pass: the --retry-window of 7200 s is \
             not longer than the delay of 7200 s\n",
        ),
        (
            &["--tarpit-per-message", "--tarpit=65"],
            "note: --tarpit-per-message: of no use without --targrey\n",
        ),
        (&["--tarpit-per-message", "--targrey"], ""),
        (&["--max-new=1000"], ""),
        (
            &["--max-new=1000", "--spawn"],
            "note: --unix and --inet: of no use with --spawn\n\
             note: --max-new: each session of --spawn counts for itself\n",
        ),
        (
            &["--tarpit=301", "--targrey"],
            "note: --tarpit: 301 s are more than the 300 s for which mail servers wait: all of \
             them give up\n",
        ),
    ] {
        assert_eq!(
            check(dir.path(), more),
            (Some(0), expected.into()),
            "{more:?}"
        );
    }
    for content in [&b"text, and no database"[..], b""] {
        let data = dir.path().join("db/data.mdb");
        fs::write(&data, content).unwrap();
        give_to_server(&data);
        let (status, said) = check(dir.path(), &[]);
        assert_eq!(status, Some(0), "{said}");
        let is_told = said.contains("the database is damaged (");
        assert_eq!(is_told, !content.is_empty(), "{said}");
        // Nothing was made.
        assert_eq!(fs::read_dir(dir.path().join("db")).unwrap().count(), 1);
    }
    // A database without what the server had in it.
    let data = dir.path().join("db/data.mdb");
    fs::remove_file(&data).unwrap();
    drop(Server::start(dir.path(), &[]));
    empty_leaves(&data);
    let (status, said) = check(dir.path(), &[]);
    assert_eq!(status, Some(0), "{said}");
    let why = "the database is damaged (mdb_dbi_open: no database of postgrey";
    assert!(said.contains(why), "{said}");
    // And it does survive.
    fs::write(dir.path().join("db/data.mdb"), "text, and no database").unwrap();
    let server = Server::start(dir.path(), &["--delay=0", &list]);
    assert!(server.log_text().contains("can't open") || !is_root());
}

/// Takes all entries out of the leaves, as LMDB has them, of a database.
fn empty_leaves(data: &Path) {
    const PAGE: usize = 4096;
    const LEAF: u16 = 2;
    const HEADER: u16 = 16;
    let mut octets = fs::read(data).unwrap();
    for page in octets.chunks_exact_mut(PAGE).skip(2) {
        if u16::from_ne_bytes([page[10], page[11]]) & LEAF != 0 {
            page[12..14].copy_from_slice(&HEADER.to_ne_bytes());
        }
    }
    fs::write(data, octets).unwrap();
}

#[test]
fn others_in_the_database_are_noted() {
    let dir = test_dir();
    let db = dir.path().join("db");
    fs::set_permissions(&db, fs::Permissions::from_mode(0o755)).unwrap();
    let mut all = vec![OsString::from("--check")];
    all.extend(options(dir.path(), &[]));
    let (status, said) = run(&all);
    let expected = format!(
        "note: --dbdir: {0}: others may look into it (mode 0755): chmod 0700 {0}\n",
        db.display()
    );
    assert_eq!((status, said), (Some(0), expected));
}

#[test]
fn a_socket_that_postfix_cannot_reach_is_a_problem() {
    let dir = test_dir();
    let inside = format!("--unix={}", dir.path().join("db/socket").display());
    let (status, said) = check(dir.path(), &[&inside]);
    assert_eq!(status, Some(1));
    assert!(said.contains("Postfix cannot reach it: "), "{said}");
    // Another directory may be open to the group of Postfix.
    let closed = dir.path().join("closed");
    make_dbdir(&closed);
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o750)).unwrap();
    let option = format!("--unix={}", closed.join("socket").display());
    let (status, said) = check(dir.path(), &[&option]);
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("not everybody may enter"), "{said}");
}

#[test]
fn a_directory_that_cannot_be_written_fails_as_the_start_does() {
    let dir = test_dir();
    if !is_root() {
        return crate::server::skip("root", "--check as another user");
    }
    let db = dir.path().join("db");
    chown(&db, Some(nix::unistd::Uid::from_raw(0)), None).unwrap();
    assert_eq!(fs::metadata(&db).unwrap().uid(), 0);
    let (status, said) = check(dir.path(), &[]);
    let expected = format!(
        "--dbdir: {0}: user \"nobody\" may not write there: chown nobody:GROUP {0}\n",
        db.display()
    );
    let said = regex::Regex::new("nobody:[a-z]+")
        .unwrap()
        .replace(&said, "nobody:GROUP");
    assert_eq!((status, &said[..]), (Some(1), &expected[..]));
    give_to_server(&db);
    if let Some(disk) = SmallDisk::mount(&db, "size=4m", "--check on a read-only disk") {
        disk.remount("ro");
        let (status, said) = check(dir.path(), &[]);
        let expected = format!("--dbdir: {}: Read-only file system\n", db.display());
        assert_eq!((status, said), (Some(1), expected));
    }
}

#[test]
fn a_word_that_takes_options_along_is_told_and_survived() {
    let dir = test_dir();
    let ignored = "\"delay=5\" is no option: it is ignored, and so is what follows: --privacy";
    let words = ["delay=5", "--privacy"];
    let (status, said) = check(dir.path(), &words);
    assert_eq!((status, said), (Some(1), format!("{ignored}\n")));
    let unix = format!("--unix={}", dir.path().join("run/s").display());
    let server = Server::start(dir.path(), &[&unix, words[0], words[1]]);
    server.wait_for_log(ignored, 1);
    assert!(server.connect().ask(&[]).starts_with("DEFER"));
    drop(server);
    // In the background it is said on standard error.
    let pid_file = dir.path().join("run/pid");
    let mut all = vec![
        OsString::from("-d"),
        format!("--pidfile={}", pid_file.display()).into(),
    ];
    all.extend(options(dir.path(), &words));
    let (status, said) = run(&all);
    assert_eq!((status, said), (Some(0), format!("WARNING: {ignored}\n")));
    let pid = fs::read_to_string(&pid_file).unwrap();
    let pid = nix::unistd::Pid::from_raw(pid.trim().parse().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    wait_until("the end", || !crate::is_alive(pid));
    let mut spawned = spawn(dir.path(), &words);
    assert!(spawned.client.ask(&[]).starts_with("DEFER"));
    drop(spawned.client);
    spawned.child.wait().unwrap();
}

#[test]
fn addresses_that_are_the_same_are_told() {
    let dir = test_dir();
    let port = crate::server::free_port();
    for other in [
        format!("--inet=localhost:{port}"),
        format!("--inet=127.0.0.1:{port}"),
    ] {
        let inet = format!("--inet=127.0.0.1:{port}");
        let (status, said) = check(dir.path(), &[&inet, &other]);
        assert_eq!(status, Some(1));
        assert!(said.contains(&format!("{port} is given twice")), "{said}");
    }
    // The system chooses two.
    let any = "--inet=127.0.0.1:0";
    assert_eq!(check(dir.path(), &[any, any]), (Some(0), String::new()));
    let many = vec![any; 65];
    let (status, said) = check(dir.path(), &many);
    assert_eq!(
        (status, said.as_str()),
        (Some(1), "more than 64 addresses to listen on\n")
    );
}

#[test]
fn files_that_the_user_cannot_write_are_told_with_what_to_do() {
    let dir = test_dir();
    if !is_root() {
        return crate::server::skip("root", "files of root's in a directory of postgrey's");
    }
    let db = dir.path().join("db");
    let mut server = Server::start(dir.path(), &[]);
    assert!(server.connect().ask(&[]).starts_with("DEFER"));
    server.stop();
    for name in ["data.mdb", "lock.mdb"] {
        let file = db.join(name);
        chown(&file, Some(nix::unistd::Uid::from_raw(0)), None).unwrap();
        let (status, said) = check(dir.path(), &[]);
        let expected = format!(
            "--dbdir: {0}: Permission denied: chown nobody:",
            file.display()
        );
        assert_eq!(status, Some(1));
        assert!(said.starts_with(&expected) && said.contains(name), "{said}");
        let (status, said) = run(&options(dir.path(), &[]));
        assert_eq!(status, Some(2));
        let advice = "Permission denied: chown nobody:";
        assert!(
            said.contains(advice) && said.trim_end().ends_with(name),
            "{said}"
        );
        give_to_server(&file);
    }
    let lock = db.join("postgrey.lock");
    fs::hard_link(&lock, db.join("other")).unwrap();
    let (status, said) = check(dir.path(), &[]);
    assert_eq!(status, Some(1));
    assert!(
        said.contains("postgrey.lock: it has another name"),
        "{said}"
    );
    fs::remove_file(db.join("other")).unwrap();
    // A plain file is no directory, whoever owns it.
    let plain = dir.path().join("plain");
    fs::write(&plain, "").unwrap();
    let (status, said) = check(dir.path(), &[&format!("--dbdir={}", plain.display())]);
    let expected = format!("--dbdir: {}: Not a directory\n", plain.display());
    assert_eq!((status, said), (Some(1), expected));
}

#[test]
fn a_data_file_that_is_a_link_to_nothing_stays() {
    let dir = test_dir();
    let data = dir.path().join("db/data.mdb");
    std::os::unix::fs::symlink("/nowhere/data.mdb", &data).unwrap();
    let (status, said) = check(dir.path(), &[]);
    assert_eq!(status, Some(1));
    assert!(said.contains("data.mdb: a link to nothing"), "{said}");
    for _ in 0..2 {
        assert_eq!(run(&options(dir.path(), &[])).0, Some(2));
        assert!(fs::symlink_metadata(&data).unwrap().is_symlink());
    }
}

#[test]
fn a_fifo_among_the_lists_holds_nobody_up() {
    let dir = test_dir();
    let list = dir.path().join("list");
    nix::unistd::mkfifo(&list, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    let option = format!("--whitelist-recipients={}", list.display());
    let (status, said) = check(dir.path(), &[&option]);
    let expected = format!("note: can't open {}: not a regular file\n", list.display());
    assert_eq!((status, said), (Some(0), expected));
    let mut server = Server::start(dir.path(), &[&option]);
    server.signal(nix::sys::signal::Signal::SIGHUP);
    server.wait_for_log("whitelists not reloaded", 1);
    assert!(server.stop().success());
}
