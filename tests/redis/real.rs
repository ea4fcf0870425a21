//! A real server: by TCP, UNIX socket and TLS, with users and passwords.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use postgrey::store::redis::client::{Client, Request};

use crate::server::{RedisServer, has, make_certificates};
use crate::*;

/// Uses scripts and plain commands, and more than one answer at once.
fn try_client(client: &mut Client) {
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

fn tls_server(auth_clients: &str) -> RedisServer {
    let dir = tempfile::Builder::new()
        .prefix("postgrey-redis.")
        .tempdir()
        .unwrap();
    make_certificates(dir.path());
    RedisServer::start_in(
        dir,
        &[
            "--tls-port",
            "PORT",
            "--tls-cert-file",
            "server.pem",
            "--tls-key-file",
            "server.key",
            "--tls-ca-cert-file",
            "ca.pem",
            "--tls-auth-clients",
            auth_clients,
        ],
    )
}

fn tls_client(server: &RedisServer, ca: &Path, certificate: Option<&str>, host: &str) -> Client {
    let mut options = options(&format!("rediss://{host}:{}", server.port));
    options.ca_file = Some(ca.to_owned());
    options.certificate_file = certificate.map(|name| server.dir().join(name));
    Client::new(options, SCRIPTS)
}

#[test]
fn a_server_by_tls() {
    if !has("redis-server", "Redis by TLS") || !has("openssl", "Redis by TLS") {
        return;
    }
    let server = tls_server("no");
    let other = tempfile::tempdir().unwrap();
    make_certificates(other.path());
    let ca = server.dir().join("ca.pem");
    for host in ["127.0.0.1", "localhost"] {
        try_client(&mut tls_client(&server, &ca, None, host));
    }
    // A large request and answer, in many records of TLS.
    let large = "x".repeat(3 << 20);
    let mut client = tls_client(&server, &ca, None, "127.0.0.1");
    assert_eq!(ask(&mut client, set("k", &large), AMPLE), Ok(Value::Okay));
    assert_eq!(ask(&mut client, get("k"), AMPLE), Ok(text(&large)));
    server.signal(Signal::SIGSTOP);
    let (answer, took) = timed(&mut client, get("k"), TIME);
    assert_eq!(reason(answer), "no answer in time");
    assert!((TIME..LATEST).contains(&took), "{took:?}");
    server.signal(Signal::SIGCONT);
    ask_until_well(&mut client, &get("none"));
    // Who has not signed it, a name it does not have, what is no certificate.
    let mut client = tls_client(&server, &other.path().join("ca.pem"), None, "127.0.0.1");
    let not_signed = reason(ask(&mut client, get("k"), AMPLE));
    assert!(
        not_signed.starts_with("TLS: the certificate of the server is not accepted"),
        "{not_signed}"
    );
    let mut options = options(&format!("rediss://127.0.0.1:{}", server.port));
    let system = reason(ask(&mut Client::new(options.clone(), &[]), get("k"), AMPLE));
    assert!(system.starts_with("TLS: the "), "{system}");
    for (name, words) in [
        ("none", "No such file or directory"),
        ("server.key", "no certificate"),
    ] {
        options.ca_file = Some(server.dir().join(name));
        let reason = reason(ask(&mut Client::new(options.clone(), &[]), get("k"), AMPLE));
        assert!(
            reason.starts_with("TLS: /") && reason.ends_with(words),
            "{reason}"
        );
    }
    // Without TLS at its port.
    let mut plain = crate::client(&format!("redis://127.0.0.1:{}", server.port));
    ask(&mut plain, get("k"), AMPLE).unwrap_err();
}

#[test]
fn a_server_that_asks_for_a_certificate() {
    if !has("redis-server", "Redis by TLS") || !has("openssl", "Redis by TLS") {
        return;
    }
    let server = tls_server("yes");
    let ca = server.dir().join("ca.pem");
    try_client(&mut tls_client(
        &server,
        &ca,
        Some("client.pem"),
        "127.0.0.1",
    ));
    let reason_with = |certificate| {
        let mut client = tls_client(&server, &ca, certificate, "127.0.0.1");
        reason(ask(&mut client, get("k"), AMPLE))
    };
    let without = reason_with(None);
    assert!(without.contains("CertificateRequired"), "{without}");
    let without_key = reason_with(Some("server.pem"));
    assert!(without_key.ends_with("server.pem: no key"), "{without_key}");
}
