//! A real server by TLS: whom it is taken for, and who we are.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use postgrey::store::redis::client::Client;

use crate::real::try_client;
use crate::server::{RedisCluster, RedisServer, has, make_certificates, openssl, sign};
use crate::*;

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

fn refused(why: &str) -> String {
    format!("TLS: the certificate of the server is not accepted: {why}")
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
    assert_eq!(
        reason(ask(&mut client, get("k"), AMPLE)),
        refused("nobody who is trusted has signed it")
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

/// The log has a line a minute for each reason: one that holds the time, or names, would
/// be another each time.
#[test]
fn a_certificate_that_is_not_accepted_is_told_in_the_same_words_each_time() {
    let what = "certificates of Redis that are not accepted";
    if !has("redis-server", what) || !has("openssl", what) || !has("faketime", what) {
        return;
    }
    let server = tls_server("no");
    let ca = server.dir().join("ca.pem");
    let names = "-addext subjectAltName=IP:127.0.0.1";
    let with = |name: &str| {
        let (certificate, key) = (format!("{name}.pem"), format!("{name}.key"));
        let words = [
            "CONFIG",
            "SET",
            "tls-cert-file",
            &certificate,
            "tls-key-file",
            &key,
        ];
        let () = server.ask(&words);
        let mut client = tls_client(&server, &ca, None, "127.0.0.1");
        reason(ask(&mut client, get("k"), AMPLE))
    };
    for (number, (day, names, why)) in [
        ("-30d", names, "it has expired"),
        ("+30d", names, "it is not valid yet"),
        (
            "+0d",
            "-addext subjectAltName=DNS:redis.example,IP:192.0.2.1",
            "its subjectAltName does not have this name or address",
        ),
        (
            "+0d",
            "",
            "its subjectAltName does not have this name or address",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("other{number}");
        sign(server.dir(), &name, names, &["faketime", "-f", day]);
        let first = with(&name);
        assert_eq!(first, refused(why), "{day} {names}");
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(with(&name), first);
    }
    // The extensions are forgotten easily, and openssl makes version 1 then.
    let dir = server.dir();
    openssl(
        dir,
        &[],
        "req -new -key server.key -subj /CN=127.0.0.1 -out old.csr",
    );
    openssl(
        dir,
        &[],
        "x509 -req -in old.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out old.pem",
    );
    fs::copy(dir.join("server.key"), dir.join("old.key")).unwrap();
    let told = [
        refused("it is of version 1, which has no subjectAltName"),
        // By openssl 3.4 and later.
        refused("its subjectAltName does not have this name or address"),
    ];
    let old = with("old");
    assert!(told.contains(&old), "{old}");
    // Who has one certificate and no more may give it for both.
    assert_eq!(
        with("ca"),
        refused("it is made out to sign others (CA:TRUE), and not for a server")
    );
}

/// Each node is called as it is called by whoever names it: by --store, or by the others.
#[test]
fn a_node_of_a_cluster_has_the_name_in_the_address_too() {
    let what = "a cluster by TLS and its names";
    if !has("redis-server", what) || !has("openssl", what) {
        return;
    }
    for (names, why) in [
        (
            "IP:127.0.0.1",
            Some("its subjectAltName does not have this name or address"),
        ),
        ("IP:127.0.0.1,DNS:localhost", None),
    ] {
        let folder = tempfile::tempdir().unwrap();
        make_certificates(folder.path());
        let names = format!("-addext subjectAltName={names}");
        sign(folder.path(), "server", &names, &[]);
        let cluster = RedisCluster::start_by_tls(folder.path(), &[]);
        let port = cluster.nodes[0].port;
        let of = |host: &str| {
            let mut options = options(&format!("rediss-cluster://{host}:{port}"));
            options.ca_file = Some(folder.path().join("ca.pem"));
            ask(&mut Client::new(options, SCRIPTS), set("k", "v"), AMPLE)
        };
        assert_eq!(of("127.0.0.1"), Ok(Value::Okay));
        match why {
            Some(why) => assert_eq!(reason(of("localhost")), refused(why)),
            None => assert_eq!(of("localhost"), Ok(Value::Okay)),
        }
    }
}
