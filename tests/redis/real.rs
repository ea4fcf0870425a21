//! A real server: by TCP and UNIX socket, with users and passwords.

use std::fs;

use nix::sys::signal::Signal;
use postgrey::store::redis::client::{Client, Request};

use crate::server::{RedisServer, has};
use crate::*;

/// Uses scripts and plain commands, and more than one answer at once.
pub(crate) fn try_client(client: &mut Client) {
    let script = Request::script(1, &[b"{k}a"], &[]);
    let requests = [
        set("{k}a", "1"),
        get("{k}a"),
        Request::new(b"{k}", &[b"MGET", b"{k}a", b"{k}none"]),
        script,
    ];
    let answers = ask_all(client, &requests, AMPLE);
    let expected = [
        Value::Okay,
        text("1"),
        Value::Array(vec![text("1"), Value::Nil]),
        text("1"),
    ];
    assert_eq!(answers, expected.map(Ok));
    let delete = Request::new(b"{k}", &[b"DEL", b"{k}a"]);
    assert_eq!(ask(client, delete, AMPLE), Ok(Value::Int(1)));
    let deadline = Instant::now() + AMPLE;
    let nodes = client.nodes(deadline).unwrap();
    assert_eq!(nodes.len(), 1);
    let scanned = client.ask_node(&nodes[0], &[b"SCAN", b"0"], deadline);
    assert_eq!(
        scanned,
        Ok(Value::Array(vec![text("0"), Value::Array(vec![])]))
    );
}

#[test]
fn a_server_by_tcp_and_by_its_socket() {
    if !has("redis-server", "Redis by TCP and by a UNIX socket") {
        return;
    }
    let mut server = RedisServer::start(&[]);
    let local = format!("redis://localhost:{}", server.port);
    let unix = format!("{}?db=5", server.unix_url());
    for address in [&server.url(), &unix, &local] {
        try_client(&mut Client::new(options(address), SCRIPTS));
    }
    // A database of its own.
    ask(&mut client(&unix), set("k", "v"), AMPLE).unwrap();
    assert_eq!(
        ask(&mut client(&server.url()), get("k"), AMPLE),
        Ok(Value::Nil)
    );
    let none = format!("{}/9999", server.url());
    assert_eq!(
        reason(ask(&mut client(&none), get("k"), AMPLE)),
        "SELECT: the server has no database of this number"
    );
    // It forgets its scripts, is stopped, killed, and started again.
    let mut client = Client::new(options(&server.url()), SCRIPTS);
    try_client(&mut client);
    let () = server.ask(&["SCRIPT", "FLUSH"]);
    try_client(&mut client);
    server.signal(Signal::SIGSTOP);
    let (answer, took) = timed(&mut client, get("k"), TIME);
    assert_eq!(reason(answer), "no answer in time");
    assert!((TIME..LATEST).contains(&took), "{took:?}");
    server.signal(Signal::SIGCONT);
    ask_until_well(&mut client, &get("k"));
    server.kill();
    server.start_again();
    // The end of the old connection is no trouble.
    try_client(&mut client);
    server.kill();
    let (answer, took) = timed(&mut client, get("k"), AMPLE);
    assert_eq!(reason(answer), "Connection refused");
    assert!(took < LATEST, "{took:?}");
    server.start_again();
    ask_until_well(&mut client, &get("k"));
    server.signal(Signal::SIGKILL);
}

#[test]
fn users_and_passwords() {
    if !has("redis-server", "users and passwords of Redis") {
        return;
    }
    let words = "--requirepass default-word \
                 --user grey on >grey-word ~k* +get +set +script|load +evalsha \
                 --user open on nopass ~* +@all \
                 --user default on >default-word ~* &* +@all";
    let server = RedisServer::start(&words.split_ascii_whitespace().collect::<Vec<_>>());
    let file = server.dir().join("password");
    let with = |user: &str, password: Option<&str>| {
        let url = format!("redis://{user}127.0.0.1:{}", server.port);
        let mut options = options(&url);
        if let Some(password) = password {
            fs::write(&file, password).unwrap();
            options.password_file = Some(file.clone());
        }
        Client::new(options, SCRIPTS)
    };
    let wrong = "user or password is wrong (WRONGPASS)";
    for (user, password, key, expected) in [
        ("", Some("default-word\n"), "k", None),
        ("default@", Some("default-word"), "x", None),
        ("grey@", Some("grey-word\n"), "k", None),
        ("open@", None, "x", None),
        ("", Some("other"), "k", Some(wrong)),
        ("grey@", Some("default-word"), "k", Some(wrong)),
        ("grey@", None, "k", Some(wrong)),
        ("nobody@", Some("x"), "k", Some(wrong)),
        (
            "",
            None,
            "k",
            Some("SCRIPT LOAD: the server wants a password (--store-password-file) (NOAUTH)"),
        ),
    ] {
        let answer = ask(&mut with(user, password), set(key, "v"), AMPLE);
        let found = answer.map_err(|error| error.reason);
        let expected = expected.map_or(Ok(Value::Okay), |reason| Err(reason.into()));
        assert_eq!(found, expected, "{user} {password:?} {key}");
    }
    let mut client = with("grey@", Some("grey-word"));
    for request in [set("x", "v"), Request::new(b"k", &[b"DEL", b"k"])] {
        let reason = reason(ask(&mut client, request, AMPLE));
        assert!(
            reason.starts_with("the user may not do that (NOPERM"),
            "{reason}"
        );
    }
    // That is no trouble of the server.
    assert_eq!(ask(&mut client, get("k"), AMPLE), Ok(text("v")));
    // A server without a password.
    let plain = RedisServer::start(&[]);
    let mut options = options(&plain.url());
    options.password_file = Some(file);
    assert_eq!(
        reason(ask(&mut Client::new(options, &[]), get("k"), AMPLE)),
        "the server has no password, but one was given"
    );
}

#[test]
fn a_probe_tries_what_is_needed() {
    if !has("redis-server", "what --check asks Redis") {
        return;
    }
    let words = "--maxmemory-policy allkeys-lru \
                 --user may on nopass ~p:* +get +mget +set +del +script|load +evalsha +scan \
                 --user less on nopass ~p:* +get +mget +set +script|load +evalsha +scan +info \
                 --user other on nopass ~q:* +@all";
    let server = RedisServer::start(&words.split_ascii_whitespace().collect::<Vec<_>>());
    let probe = |user: &str| {
        let url = format!("redis://{user}127.0.0.1:{}", server.port);
        client(&url).probe("p", Instant::now() + AMPLE)
    };
    let at = format!("127.0.0.1:{}", server.port);
    let evicts = format!(
        "{at}: maxmemory-policy allkeys-lru: when its memory is full, the server forgets records \
         that are in use: set noeviction or volatile-ttl"
    );
    let forgets = format!(
        "{at}: the server keeps nothing on a disk: after its restart all begins anew \
         (appendonly yes)"
    );
    assert_eq!(probe(""), Ok(vec![evicts.clone(), forgets]));
    // Who may do only what is needed is not told all.
    let unseen = format!(
        "{at}: the user may not see (INFO) whether the server forgets records to make room, and \
         whether it keeps them on a disk"
    );
    assert_eq!(probe("may@"), Ok(vec![unseen]));
    for (user, call) in [("less@", "DEL"), ("other@", "SET")] {
        let error = probe(user).unwrap_err();
        assert_eq!((error.call, &*error.path), (call, &*at));
        assert!(
            error.reason.starts_with("the user may not do that (NOPERM"),
            "{error}"
        );
    }
    // What is as it should be, and nothing is left behind.
    let () = server.ask(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    let () = server.ask(&["CONFIG", "SET", "save", "60 1"]);
    assert_eq!(probe(""), Ok(vec![]));
    let () = server.ask(&["CONFIG", "SET", "save", ""]);
    let () = server.ask(&["ACL", "SETUSER", "less", "+del"]);
    let unseen = format!(
        "{at}: it has no appendonly file, and the user may not see (CONFIG GET) whether it saves \
         records otherwise"
    );
    assert_eq!(probe("less@"), Ok(vec![unseen]));
    assert_eq!(server.ask::<i64>(&["DBSIZE"]), 0);
    // A replica takes no changes.
    let () = server.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    let error = probe("").unwrap_err();
    assert_eq!(
        error.reason,
        "the server is a replica, which takes no changes (READONLY)"
    );
}

/// Redis says so to whoever connects, whatever is asked first.
#[test]
fn a_server_without_room_is_told_from_a_wrong_password() {
    if !has("redis-server", "Redis with all connections taken") {
        return;
    }
    let server = RedisServer::start(&["--requirepass", "word", "--maxclients", "1"]);
    let file = server.dir().join("password");
    fs::write(&file, "word").unwrap();
    let with = |password_file| {
        let options = RedisOptions {
            password_file,
            ..options(&server.url())
        };
        Client::new(options, SCRIPTS)
    };
    let mut first = with(Some(file.clone()));
    ask_until_well(&mut first, &get("k"));
    for other in [Some(file), None] {
        let reason = reason(ask(&mut with(other), get("k"), AMPLE));
        assert!(
            reason.ends_with("the server has no room for another connection"),
            "{reason}"
        );
    }
}
