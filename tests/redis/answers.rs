//! What the server answers: its errors, its greeting, its scripts.

use std::fs;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use postgrey::store::ErrorKind;
use postgrey::store::redis::client::{Client, Request};

use crate::scripted::*;
use crate::*;

#[test]
fn errors_of_the_server_are_told_in_plain_words() {
    for (line, words, kind) in [
        (
            "-NOAUTH x",
            "the server wants a password (--store-password-file) (NOAUTH)",
            ErrorKind::System,
        ),
        (
            "-NOPERM no get",
            "the user may not do that (NOPERM no get)",
            ErrorKind::System,
        ),
        (
            "-OOM x",
            "the server has no memory left (maxmemory) (OOM)",
            ErrorKind::MapFull,
        ),
        (
            "-LOADING x",
            "the server is still loading its data (LOADING)",
            ErrorKind::System,
        ),
        (
            "-MISCONF x",
            "the server cannot save its data, and takes no changes (MISCONF)",
            ErrorKind::System,
        ),
        (
            "-MOVED 1 127.0.0.1:1",
            "the server belongs to a cluster: use redis-cluster:// or rediss-cluster:// (MOVED)",
            ErrorKind::System,
        ),
        ("-WRONGTYPE x", "WRONGTYPE x", ErrorKind::Other),
    ] {
        let server = Scripted::start(move |_| say(line));
        let error = ask(&mut client(&server.url()), get("a"), AMPLE).unwrap_err();
        assert_eq!((&*error.reason, error.kind), (words, kind));
    }
}

#[test]
fn a_server_that_loads_is_left_alone_for_a_second() {
    let start = Instant::now();
    let server = Scripted::start(
        move |_| match start.elapsed() < Duration::from_millis(1500) {
            true => say("-LOADING Redis is loading the dataset in memory"),
            false => say("+OK"),
        },
    );
    let mut client = client(&server.url());
    ask(&mut client, get("a"), TIME).unwrap_err();
    ask(&mut client, get("a"), TIME).unwrap_err();
    assert_eq!(ask_until_well(&mut client, &get("a")), redis::Value::Okay);
    // After 1 and 2 seconds: it was not left alone for longer the second time.
    assert_eq!(server.count("GET"), 3);
    assert!(
        start.elapsed() < Duration::from_millis(2800),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_replica_is_told_and_looked_up_anew() {
    let server = Scripted::start(|asked| match asked.connection {
        0 => say("-READONLY You can't write against a read only replica."),
        _ => say("+OK"),
    });
    let mut client = client(&server.url());
    assert_eq!(
        reason(ask(&mut client, set("a", "b"), AMPLE)),
        "the server is a replica, which takes no changes (READONLY)"
    );
    assert_eq!(
        ask(&mut client, set("a", "b"), AMPLE),
        Ok(redis::Value::Okay)
    );
    assert_eq!(server.connections(), 2);
}

#[test]
fn the_greeting_is_granted_before_anything_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "geheim\n").unwrap();
    let server = Scripted::start(|asked| match asked.words[0].as_str() {
        "AUTH" if asked.words[2] == "wrong" => say("-WRONGPASS invalid username-password pair"),
        "DEL" => Close,
        _ => say("+OK"),
    });
    let mut options = options(&format!("redis://grey@{}/7", server.address));
    options.password_file = Some(file.clone());
    let mut client = Client::new(options, SCRIPTS);
    ask(&mut client, get("a"), AMPLE).unwrap();
    let greeting = [
        "AUTH grey geheim".to_owned(),
        "SELECT 7".into(),
        format!("SCRIPT LOAD {}", SCRIPTS[0]),
        format!("SCRIPT LOAD {}", SCRIPTS[1]),
    ];
    assert_eq!(server.asked()[..4], greeting);
    assert_eq!(server.asked()[4..], ["GET a"]);
    // It is read anew for each connection; nothing is asked if it is wrong.
    fs::write(&file, "wrong").unwrap();
    client.close();
    let error = ask(&mut client, get("b"), AMPLE).unwrap_err();
    assert_eq!(error.reason, "user or password is wrong (WRONGPASS)");
    assert_eq!(server.count("GET b"), 0);
    fs::write(&file, "right\r\n").unwrap();
    ask_until_well(&mut client, &get("c"));
    assert_eq!(server.count("AUTH grey right"), 1);
    // A file that is none.
    for content in ["", "\n", "a\nb\n"] {
        fs::write(&file, content).unwrap();
        let mut options = crate::options(&server.url());
        options.password_file = Some(file.clone());
        let reason = reason(ask(&mut Client::new(options, &[]), get("d"), AMPLE));
        assert!(reason.ends_with("not a password on one line"), "{reason}");
    }
    fs::remove_file(&file).unwrap();
    let mut options = crate::options(&server.url());
    options.password_file = Some(file);
    let reason = reason(ask(&mut Client::new(options, &[]), get("d"), AMPLE));
    assert!(reason.ends_with("No such file or directory"), "{reason}");
    assert_eq!(server.count("GET d"), 0);
}

#[test]
fn scripts_are_loaded_again_when_the_server_has_lost_them() {
    let loads = Mutex::new(0);
    let server = Scripted::start(move |asked| {
        let mut loads = loads.lock().unwrap();
        *loads += usize::from(asked.is("SCRIPT"));
        match asked.words[0].as_str() {
            "EVALSHA" if *loads < 4 => say("-NOSCRIPT No matching script"),
            "EVALSHA" if asked.words.last().unwrap() == "never" => say("-NOSCRIPT x"),
            "EVALSHA" => bulk(asked.words.last().unwrap()),
            _ => say("+OK"),
        }
    });
    let mut client = Client::new(options(&server.url()), SCRIPTS);
    let script = |argument: &str| Request::script(0, &[b"k"], &[argument.as_bytes()]);
    assert_eq!(ask(&mut client, script("a"), AMPLE), Ok(text("a")));
    assert_eq!(
        (server.count("SCRIPT LOAD"), server.count("EVALSHA")),
        (4, 2)
    );
    // Not without end.
    let reason = reason(ask(&mut client, script("never"), AMPLE));
    assert_eq!(reason, "the server does not keep scripts (NOSCRIPT)");
    assert_eq!(server.count("EVALSHA"), 4);
    let none = Request::script(9, &[b"k"], &[]);
    assert_eq!(
        ask(&mut client, none, AMPLE).unwrap_err().kind,
        ErrorKind::Other
    );
}
