//! The meaning of each option's value, and what is refused.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use postgrey::config::redis_address::RedisAddress;
use postgrey::config::settings::{Listen, Settings, StoreSettings, Sync};
use postgrey::config::{Invocation, parse, paths};
use postgrey::policy::rules::{Compat, Lookup, Rules, Texts};

use crate::{inet, parse_words, refused, rules, settings, unix};

#[test]
fn limits_of_the_auto_whitelist() {
    for (words, limit) in [
        (&["--auto-whitelist-clients", "7"][..], Some(7.0)),
        (&["--auto-whitelist-clients=7"], Some(7.0)),
        (&["--auto-whitelist-clients"], Some(5.0)),
        (&["--auto-whitelist-clients="], Some(5.0)),
        (&["--auto-whitelist-clients=0"], None),
        (&["--auto-whitelist-clients=abc"], Some(0.0)),
        (&["--auto-whitelist-clients=00"], Some(0.0)),
        (&["--auto-whitelist-clients=-3"], Some(-3.0)),
    ] {
        assert_eq!(rules(words).auto_whitelist, limit, "{words:?}");
    }
}

#[test]
fn values_out_of_range() {
    let socket = "--unix=/x";
    let window = "ERROR: --retry-window must be either a number of days or a number\n       \
                  followed by 'h' for hours ('6h' for example).";
    for value in ["2.5", "-1", "h", "6 h", "6d", "x"] {
        refused(&[socket, &format!("--retry-window={value}")], window, 2);
    }
    for (word, message) in [
        (
            "--ipv4cidr=33",
            "ERROR: --ipv4cidr must be a number from 1 to 32, or 0 for the default",
        ),
        (
            "--ipv4cidr=-1",
            "ERROR: --ipv4cidr must be a number from 1 to 32, or 0 for the default",
        ),
        (
            "--max-new=-1",
            "ERROR: --max-new must be a number from 1 to 4294967295, or 0 for no limit",
        ),
        (
            "--max-new=4294967296",
            "ERROR: --max-new must be a number from 1 to 4294967295, or 0 for no limit",
        ),
        (
            "--ipv6cidr=200",
            "ERROR: --ipv6cidr must be a number from 1 to 128, or 0 for the default",
        ),
        ("--user=root", "ERROR: --user must not be root"),
        ("--user=0", "ERROR: --user must not be root"),
        (
            "--socketmode=0888",
            "ERROR: --socketmode must be an octal number from 0 to 0777",
        ),
        (
            "--workers=0",
            "ERROR: --workers must be a number from 1 to 64",
        ),
        (
            "--workers=65",
            "ERROR: --workers must be a number from 1 to 64",
        ),
        ("--sync=maybe", "ERROR: --sync must be commit or none"),
        (
            "--store=mysql",
            "ERROR: --store must be lmdb, or begin with redis://, rediss://, redis+unix://, \
             redis-cluster:// or rediss-cluster://",
        ),
        (
            "--store=redis://grey:geheim@db",
            "ERROR: --store must not hold a password: --store-password-file is for it",
        ),
        (
            "--store=redis://",
            "ERROR: --store has no HOST or HOST:PORT (IPv6: [HOST]:PORT)",
        ),
        (
            "--store=redis-cluster://a/1",
            "ERROR: --store must not name a database: a cluster has number 0 only",
        ),
        (
            "--store-timeout=49",
            "ERROR: --store-timeout must be a number of milliseconds from 50 to 900",
        ),
        (
            "--store-timeout=1000",
            "ERROR: --store-timeout must be a number of milliseconds from 50 to 900",
        ),
        (
            "--store-prefix=a{b}",
            "ERROR: --store-prefix must be a text of at most 64 octets without blanks, control \
             characters, braces, brackets, '*', '?', '^' and '\\'",
        ),
        (
            "--compat=1.37",
            "ERROR: --compat must be one of targrey-1.37, postgrey-1.37, targrey-1.34",
        ),
        (
            "--greylist-text=a\nb",
            "ERROR: --greylist-text must not contain control characters",
        ),
        (
            "--dbdir=/a\nb",
            "ERROR: --dbdir must not contain a line break",
        ),
    ] {
        refused(&[socket, word], message, 2);
    }
    refused(
        &["--spawn", "-d"],
        "ERROR: --spawn and --daemonize exclude each other",
        2,
    );
    refused(
        &["--spawn", "--log-stderr"],
        "ERROR: --spawn and --log-stderr exclude each other",
        2,
    );
}

#[test]
fn retry_windows() {
    for (value, seconds) in [
        ("1", 86400.0),
        ("6h", 21600.0),
        ("6H", 21600.0),
        ("0h", 0.0),
        ("0", 0.0),
        ("02", 172_800.0),
    ] {
        assert_eq!(
            rules(&["--retry-window", value]).retry_window,
            seconds,
            "{value}"
        );
    }
}

#[test]
fn addresses() {
    for (value, host, port) in [
        ("60000", Some("localhost"), 60000),
        ("0", Some("localhost"), 0),
        (":60000", None, 60000),
        ("*:60000", None, 60000),
        ("127.0.0.1:60000", Some("127.0.0.1"), 60000),
        ("mx.example:25", Some("mx.example"), 25),
        ("0:10023", Some("0"), 10023),
        ("[::1]:70", Some("::1"), 70),
        ("::1:70", Some("::1"), 70),
        ("[::]:70", Some("::"), 70),
        ("fe80::1%eth0:70", Some("fe80::1%eth0"), 70),
        ("[]:70", None, 70),
    ] {
        assert_eq!(
            settings(&["--inet", value]).listen,
            inet(host, port),
            "{value}"
        );
    }
    for (value, message) in [
        (
            "abc",
            "ERROR: Could not determine port number from host [*]:abc",
        ),
        (
            "mx.example:smtp",
            "ERROR: Could not determine port number from host [mx.example]:smtp",
        ),
        (
            "mx.example:",
            "ERROR: Could not determine port number from host [mx.example]:",
        ),
        (
            "70000",
            "ERROR: --inet=70000: a port is a number from 0 to 65535",
        ),
        (
            "*:99999999999",
            "ERROR: --inet=*:99999999999: a port is a number from 0 to 65535",
        ),
        (
            "a:b:25",
            "ERROR: --inet=a:b:25: \"a:b\" is neither a host name nor an address",
        ),
        (
            "[::1:25",
            "ERROR: --inet=[::1:25: \"[::1\" is neither a host name nor an address",
        ),
    ] {
        refused(&["--inet", value], message, 255);
    }
}

#[test]
fn several_sockets() {
    let listen = settings(&["--inet=1", "--unix=/a", "-i", ":2", "-u", "/b"]).listen;
    assert_eq!(
        listen,
        [
            unix("/a"),
            unix("/b"),
            inet(Some("localhost"), 1),
            inet(None, 2)
        ]
        .concat()
    );
    refused(&[], "ERROR: --unix or --inet must be specified", 2);
    assert!(matches!(parse_words(&["--spawn"]), Ok(Invocation::Serve(settings)) if settings.spawn));
}

#[test]
fn whitelists() {
    let files = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
    let clients = |words: &[&str]| settings(words).whitelist_clients;
    let default = paths::whitelist_clients();
    let local = format!("{}.local", default.display());
    assert_eq!(clients(&[]), [default, local.into()]);
    let given = ["--whitelist-clients=/a", "--whitelist-clients", "/b.local"];
    assert_eq!(clients(&given), files(&["/a", "/a.local", "/b.local"]));
    let both = ["--whitelist-clients=/a", "--whitelist-clients=/a.local"];
    assert_eq!(clients(&both), files(&["/a", "/a.local"]));
    let recipients = settings(&["--whitelist-recipients=/r"]);
    assert_eq!(recipients.whitelist_recipients, files(&["/r", "/r.local"]));
    assert_eq!(recipients.whitelist_clients, clients(&[]));
    // Without their options there are none of these.
    type Read = fn(postgrey::config::settings::Settings) -> Vec<PathBuf>;
    let others: [(&str, Read); 3] = [
        ("--whitelist-senders", |s| s.whitelist_senders),
        ("--greylist-recipients", |s| s.greylist_recipients),
        ("--suspect-clients", |s| s.suspect_clients),
    ];
    for (option, read) in others {
        assert_eq!(read(settings(&[])), files(&[]));
        let words = [format!("{option}=/a"), format!("{option}=/b.local")];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let expected = files(&["/a", "/a.local", "/b.local"]);
        assert_eq!(read(settings(&words)), expected, "{option}");
        let relative = settings(&[&format!("{option}=f")]);
        let all = read(relative.with_absolute_paths().unwrap());
        assert!(all.iter().all(|path| path.is_absolute()), "{all:?}");
        assert_eq!(all.len(), 2);
    }
}

#[test]
fn values_are_bytes() {
    let word = |option: &str| OsString::from_vec([option.as_bytes(), b"/\xff"].concat());
    let Ok(Invocation::Serve(settings)) = parse(&[word("--unix="), word("--dbdir=")]) else {
        panic!("not served")
    };
    assert_eq!(settings.listen, [Listen::Unix(word("").into())]);
    assert_eq!(settings.dbdir, PathBuf::from(word("")));
    let error = parse(&["--unix=/x".into(), word("--greylist-text=")]).expect_err("not UTF-8");
    assert_eq!(
        (error.message.as_str(), error.exit_code),
        ("ERROR: --greylist-text must be valid UTF-8", 2)
    );
    let error = parse(&[word("--")]).expect_err("unknown");
    assert_eq!(error.exit_code, 1);
}

#[test]
fn the_first_users_command_line() {
    let line = "-d --dbdir=/var/spool/postfix/postgrey --inet=127.0.0.1:60000 \
                --tarpit=125 --targrey --retry-count=2 --delay=300 --max-age=7";
    let words: Vec<_> = line.split_whitespace().collect();
    let Ok(Invocation::Serve(settings)) = parse_words(&words) else {
        panic!("not served")
    };
    let rules = Rules {
        tarpit: Some("125".into()),
        targrey: true,
        retry_count: 2.0,
        max_age: 7.0 * 86400.0,
        ..Rules::default()
    };
    let wanted = Settings {
        daemonize: true,
        dbdir: "/var/spool/postfix/postgrey".into(),
        listen: inet(Some("127.0.0.1"), 60000),
        rules,
        ..Settings::default()
    };
    assert_eq!(*settings, wanted);
}

#[test]
fn other_options() {
    let all = settings(&[
        "--socketmode=0777",
        "--listen-queue-size=5000",
        "--exim",
        "--pidfile=/p",
        "--user=u",
        "--group=g",
        "--workers=8",
        "--db-size=64M",
        "--sync=none",
        "--store=rediss-cluster://grey@a,b:7000",
        "--store-password-file=/w",
        "--store-ca-file=/ca",
        "--store-certificate-file=/c",
        "--store-prefix=site-1",
        "--store-timeout=200",
        "--privacy",
        "--compat=targrey-1.34",
        "--lookup-by-subnet",
        "--lookup-by-host",
        "--ipv4cidr=32",
        "--ipv6cidr=128",
        "--max-new=1000",
        "--auto-whitelist-delay=60",
        "--greylist-action=DEFER",
        "--greylist-text=wait %s",
        "--x-greylist-header=X: %t",
        "--hostname=mx",
        "--log-stderr",
        "--stats-file=/s",
        "--s25r",
        "--s25r-except=/e",
        "--s25r-except=/f",
    ]);
    let rules = Rules {
        privacy: true,
        compat: Compat::Targrey134,
        lookup: Lookup::Host,
        ipv4_prefix: 32,
        ipv6_prefix: 128,
        max_new: Some(1000),
        clock_difference: 10.0,
        auto_whitelist_delay: 60.0,
        ..Rules::default()
    };
    let texts = Texts {
        greylist_action: "DEFER".into(),
        greylist_text: "wait %s".into(),
        x_greylist_header: "X: %t".into(),
        hostname: "mx".into(),
    };
    let wanted = Settings {
        socket_mode: 0o777,
        listen_queue_size: 999,
        exim: true,
        pidfile: Some("/p".into()),
        user: "u".into(),
        group: Some("g".into()),
        workers: 8,
        db_size: 64 << 20,
        sync: Sync::None,
        store: StoreSettings {
            redis: RedisAddress::parse("rediss-cluster://grey@a:6379,b:7000").ok(),
            password_file: Some("/w".into()),
            ca_file: Some("/ca".into()),
            certificate_file: Some("/c".into()),
            prefix: "site-1".into(),
            timeout: Duration::from_millis(200),
        },
        log_stderr: true,
        stats_file: Some("/s".into()),
        s25r: true,
        s25r_except: vec!["/e".into(), "/f".into()],
        rules,
        texts,
        ..Settings::default()
    };
    assert_eq!(all, wanted);
}
