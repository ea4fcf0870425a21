//! Records on their way between files and Redis, records whose place a key does not show,
//! and postgreyctl without an answer.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use postgrey::sys::clock;

use crate::redis_server::{RedisServer, has};
use crate::server::{Client, Server, give_to_server, test_dir};
use crate::tool::{all_at, all_in, ctl, ctl_with_input};
use crate::{beside_others, start};

fn ask(client: &mut Client, address: &str, sender: &str, now: u64) -> String {
    client.ask(&[
        ("client_address", address),
        ("client_name", "unknown"),
        ("sender", sender),
        ("policy_test_time", &now.to_string()),
    ])
}

/// `postgreyctl export | postgreyctl --store=... import -`, as a shell runs it.
fn pipe(from: &Path, to: &Path, store: &str) {
    let program = env!("CARGO_BIN_EXE_postgreyctl");
    let mut export = Command::new(program)
        .args(["--dbdir", from.to_str().unwrap(), "export"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let import = Command::new(program)
        .args(["--dbdir", to.to_str().unwrap(), store, "import", "-"])
        .stdin(export.stdout.take().unwrap())
        .output()
        .unwrap();
    assert!(export.wait().unwrap().success());
    assert!(import.status.success(), "{import:?}");
}

#[test]
fn records_move_there_and_back_while_both_serve() {
    if !has("redis-server", "moving records to Redis and back") {
        return;
    }
    let _beside = beside_others();
    let redis = RedisServer::start(&[]);
    let folder = test_dir();
    let url = redis.url();
    let option = format!("--store={url}");
    let options = ["--auto-whitelist-clients=2", "--targrey", "--tarpit=1"];
    let files = Server::start(folder.path(), &options);
    let other = start(1, folder.path(), &[&options[..], &[&*option]].concat()).remove(0);
    let now = clock::seconds() as u64;
    let network = |number: u64| format!("10.{}.{}.1", 100 + number / 250, number % 250);
    let mut client = files.connect();
    for number in 0..2400_u64 {
        let (address, begun) = (network(number), now - 5000 + number);
        ask(&mut client, &address, "a@example.net", begun);
        if number % 3 == 0 {
            ask(&mut client, &address, "a@example.net", begun + 400);
        }
    }
    // Both serve other clients meanwhile.
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for (server, second) in [(&files, 1), (&other, 2)] {
            let is_over = &is_over;
            scope.spawn(move || {
                let mut client = server.connect();
                let mut number = 0;
                while !is_over.load(Ordering::Relaxed) {
                    number += 1;
                    let address = format!("10.{second}.{}.1", number % 250);
                    let reply = ask(
                        &mut client,
                        &address,
                        &format!("s{number}@example.net"),
                        now,
                    );
                    let is_grey = ["SLEEP", "DEFER"]
                        .iter()
                        .any(|word| reply.starts_with(word));
                    assert!(is_grey, "{reply}");
                }
                assert!(number > 0);
            });
        }
        pipe(&files.dbdir, folder.path(), &option);
        pipe(&other.dbdir, &files.dbdir, "--store=lmdb");
        is_over.store(true, Ordering::Relaxed);
    });
    // Once more when nobody changes anything: all is the same.
    pipe(&files.dbdir, &other.dbdir, &option);
    pipe(&other.dbdir, &files.dbdir, "--store=lmdb");
    let moved = all_at(&url);
    assert!(moved.len() > 4000, "{}", moved.len());
    assert!(moved == all_in(&files.dbdir), "the records differ");
    // What has waited at the one passes at the other.
    let mut client = other.connect();
    let reply = ask(&mut client, &network(1), "a@example.net", now);
    assert!(
        reply.starts_with("PREPEND X-Greylist: delayed 4999 seconds"),
        "{reply}"
    );
    assert_eq!(ask(&mut client, &network(0), "a@example.net", now), "DUNNO");
    // A record that has passed is kept for as long as files keep it.
    let name = "postgrey:greylist:{10.100.1.0}:10.100.1.0/a@example.net/user@example.org";
    let left: i64 = redis.ask(&["PTTL", name]);
    let expected = 35 * 86400 * 1000;
    assert!(
        left > expected - 20_000 && left <= expected + 1000,
        "{left}"
    );
}

#[test]
fn what_a_hash_does_not_show_is_said() {
    if !has("redis-server", "postgreyctl on Redis with --privacy") {
        return;
    }
    let _beside = beside_others();
    let redis = RedisServer::start(&[]);
    let folder = test_dir();
    let option = format!("--store={}", redis.url());
    let server = start(
        1,
        folder.path(),
        &[&option, "--privacy", "--auto-whitelist-clients=1"],
    )
    .remove(0);
    let db = &server.dbdir;
    let now = clock::seconds() as u64;
    let mut client = server.connect();
    for sender in ["a@example.net", "b@example.net"] {
        for ago in [1000, 500] {
            ask(&mut client, "192.0.2.7", sender, now - ago);
        }
    }
    ask(&mut client, "192.0.3.7", "a@example.net", now - 1000);
    let count = |name: &str| ctl(db, &["dump", name]).ok().lines().count();
    assert_eq!((count("greylist"), count("clients")), (2, 1));
    // What is there is found.
    let triplet = |address| ["triplet", address, "a@example.net", "user@example.org"];
    let said = ctl(db, &[&["delete"][..], &triplet("192.0.2.7")].concat()).ok();
    assert!(said.starts_with("deleted from greylist: "), "{said}");
    ctl(
        db,
        &["pass", "a@example.net", "user@example.org", "192.0.3.7"],
    )
    .ok();
    assert_eq!(ask(&mut client, "192.0.3.7", "a@example.net", now), "DUNNO");
    ctl(db, &["add", "client", "192.0.2.7"]).ok();
    assert_eq!(ask(&mut client, "192.0.2.7", "z@example.net", now), "DUNNO");
    let explained = ctl(
        db,
        &[
            "explain",
            "--client-address=192.0.2.7",
            "--sender=z@example.net",
            "--recipient=x@example.org",
        ],
    );
    assert!(explained.ok().contains("\nanswer       action=DUNNO\n"));
    assert!(!ctl(db, &["list", "clients"]).ok().contains("192.0.2.7"));
    ctl(db, &["forget", "192.0.2.7"]).failed(0);
    assert_eq!(count("clients"), 0);
    // What is not there cannot be begun from here.
    let cannot = "with --privacy only the server can begin a record there";
    let before = (count("greylist"), count("clients"));
    let text = format!("clients\t192.0.9.9\t7,{now}\n");
    for (words, input) in [
        (&["add", "client", "198.51.100.1"][..], ""),
        (
            &["pass", "n@example.net", "user@example.org", "198.51.100.1"],
            "",
        ),
        (&["import", "-"], &*text),
    ] {
        let complained = ctl_with_input(db, words, input.as_bytes()).failed(2);
        assert!(complained.contains(cannot), "{words:?} {complained}");
    }
    assert_eq!((count("greylist"), count("clients")), before);
}

#[test]
fn the_tarpit_of_a_pool_is_found_beside_the_pool() {
    if !has("redis-server", "postgreyctl on Redis with pools") {
        return;
    }
    let _beside = beside_others();
    let redis = RedisServer::start(&[]);
    let folder = test_dir();
    let pools = folder.path().join("pools");
    fs::write(&pools, "example.com\n").unwrap();
    let option = format!("--store={}", redis.url());
    let pools = format!("--pool-domains={}", pools.display());
    let options = [
        &*option,
        "--lookup-by-domain",
        &pools,
        "--targrey",
        "--tarpit=1",
        "--auto-whitelist-clients=1",
    ];
    let server = start(1, folder.path(), &options).remove(0);
    let db = &server.dbdir;
    let now = clock::seconds() as u64;
    let mut client = server.connect();
    let mut ask = |address: &str, sender: &str, ago: u64| {
        client.ask(&[
            ("client_address", address),
            ("client_name", "mx7.example.com"),
            ("sender", sender),
            ("policy_test_time", &(now - ago).to_string()),
        ])
    };
    // Begun at one address of the pool, passed at another.
    ask("192.0.2.7", "a@example.net", 1000);
    assert!(ask("198.51.100.7", "a@example.net", 500).starts_with("PREPEND"));
    let dumped = |name: &str| ctl(db, &["dump", name]).ok();
    assert!(
        dumped("greylist").starts_with("example.com/a@example.net/"),
        "{}",
        dumped("greylist")
    );
    assert!(
        dumped("clients").starts_with("example.com\t1,"),
        "{}",
        dumped("clients")
    );
    // All records of a request lie in one slot.
    let names: Vec<String> = redis.ask(&["KEYS", "*"]);
    let is_of_pool = |name: &&String| name.contains(":{example.com}:");
    assert_eq!(
        names.iter().filter(is_of_pool).count(),
        names.len(),
        "{names:?}"
    );
    for address in ["192.0.2.7", "198.51.100.7"] {
        let held = dumped("tarpit")
            .lines()
            .filter(|line| line.starts_with(address))
            .count();
        let said = ctl(db, &["delete", "tarpit", address]);
        assert_eq!(said.status, i32::from(held == 0), "{said:?}");
        assert!(!dumped("tarpit").contains(address));
    }
    ctl(db, &["delete", "client", "example.com"]).ok();
    assert_eq!(dumped("clients"), "");
    ctl(db, &["add", "client", "example.com"]).ok();
    assert_eq!(ask("203.0.113.7", "new@example.net", 0), "DUNNO");
    let said = ctl(
        db,
        &[
            "explain",
            "--client-address=203.0.113.9",
            "--client-name=mx9.example.com",
            "--sender=x@y",
            "--recipient=user@example.org",
        ],
    )
    .ok();
    assert!(said.contains("\nanswer       action=DUNNO\n"), "{said}");
}

#[test]
fn what_does_not_last_is_not_taken_in() {
    if !has("redis-server", "importing old records to Redis") {
        return;
    }
    let _beside = beside_others();
    let redis = RedisServer::start(&[]);
    let folder = test_dir();
    let store = format!("--store={}", redis.url());
    let now = clock::seconds() as u64;
    let old = now - 40 * 86400;
    let waiting = now - 3 * 86400;
    let text = format!(
        "greylist\t192.0.2.0/old@b/c@d\t{old},{},0,9\ngreylist\t192.0.2.0/waits@b/c@d\t{waiting},{waiting},0,9\n\
         greylist\t192.0.2.0/new@b/c@d\t{now},{now},0,9\nclients\t192.0.2.9\t7,{old}\n",
        old + 400
    );
    let words = ["--defaults", &store, "import", "-"];
    let import = |words: &[&str]| ctl_with_input(folder.path(), words, text.as_bytes()).ok();
    let said = import(&words);
    for line in [
        "1 taken, 0 merged, 0 kept, 0 refused, 2 expired",
        "0 taken, 0 merged, 0 kept, 0 refused, 1 expired",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let keys: Vec<_> = all_at(&redis.url())
        .into_keys()
        .map(|(_, key)| key)
        .collect();
    assert_eq!(keys, [b"192.0.2.0/new@b/c@d"]);
    // By other rules more of them last.
    import(&[&words[..], &["--", "--max-age=50", "--retry-window=4"]].concat());
    assert_eq!(all_at(&redis.url()).len(), 4);
}

#[test]
fn a_command_in_trouble_ends_with_its_reason() {
    if !has("redis-server", "postgreyctl without Redis") {
        return;
    }
    let _beside = beside_others();
    let mut redis = RedisServer::start(&["--requirepass", "secret"]);
    let folder = test_dir();
    let store = format!("--store={}", redis.url());
    let file = folder.path().join("password");
    fs::write(&file, "secret\n").unwrap();
    give_to_server(&file);
    let password = format!("--store-password-file={}", file.display());
    let commands: [&[&str]; 5] = [
        &["list"],
        &["export"],
        &["stats"],
        &["add", "client", "192.0.2.9"],
        &["dump", "greylist"],
    ];
    let run = |command: &[&str]| {
        let begun = Instant::now();
        let words = [&["--defaults", &store], command, &["--", &password]].concat();
        let ran = ctl(&folder.path().join("db"), &words);
        assert!(begun.elapsed() < Duration::from_secs(8));
        ran
    };
    for command in commands {
        run(command).ok();
        let words = [&["--defaults", &store], command].concat();
        let why = ctl(&folder.path().join("db"), &words).failed(2);
        assert!(
            why.contains("the server wants a password"),
            "{command:?} {why}"
        );
    }
    redis.signal(Signal::SIGSTOP);
    for command in [commands[0], commands[3]] {
        let why = run(command).failed(2);
        assert!(why.contains("no answer in time"), "{command:?} {why}");
    }
    redis.signal(Signal::SIGCONT);
    redis.kill();
    for command in commands {
        let why = run(command).failed(2);
        assert!(why.contains("Connection refused"), "{command:?} {why}");
        assert!(!why.contains("secret"), "{why}");
    }
}
