//! Redis is stopped, hung, emptied, full, closed to us or replaced by something else:
//! mail goes on, and greylisting by itself when the trouble is over.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::signal::Signal;
use socket2::{Domain, Socket, Type};

use crate::beside_others;
use crate::redis_server::{RedisServer, has, wait_until};
use crate::server::{Client, give_to_server, test_dir};
use crate::trouble::{ENDED, Records, Trouble, survive};

/// A server that has its records again after its end.
const LASTING: [&str; 2] = ["--appendonly", "yes"];

/// What comes from a server that does not know the store.
#[derive(Clone, Copy)]
enum Behaviour {
    /// Nothing ever.
    Silence,
    /// It closes.
    Close,
    /// These octets, whatever it is asked.
    Say(&'static [u8]),
    /// These, one at a time, without end.
    Trickle(&'static [u8]),
}

/// It listens at the port of a Redis that has ended.
struct Impostor {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Impostor {
    fn start(port: u16, behaviour: Behaviour) -> Self {
        let listener = listen(port);
        listener.set_nonblocking(true).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = thread::spawn(move || {
            let mut accepted = Vec::new();
            while !over.load(Ordering::Relaxed) {
                if let Ok((stream, _)) = listener.accept() {
                    stream.set_nonblocking(true).unwrap();
                    accepted.push((stream, 0));
                }
                accepted.retain_mut(|(stream, said)| {
                    let has_asked = stream.read(&mut [0; 4096]).is_ok_and(|count| count > 0);
                    match behaviour {
                        Behaviour::Silence => true,
                        Behaviour::Close => false,
                        Behaviour::Say(octets) if has_asked => stream.write_all(octets).is_ok(),
                        Behaviour::Trickle(octets) => {
                            *said += 1;
                            let octet = [octets[(*said - 1) % octets.len()]];
                            stream.write_all(&octet).is_ok()
                        }
                        Behaviour::Say(_) => true,
                    }
                });
                thread::sleep(Duration::from_millis(2));
            }
        });
        Impostor {
            is_over,
            thread: Some(thread),
        }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn listen(port: u16) -> TcpListener {
    let mut listener = None;
    wait_until("the port is free", || {
        listener = TcpListener::bind(("127.0.0.1", port)).ok();
        listener.is_some()
    });
    listener.unwrap()
}

/// A listener with a full queue: who connects hears nothing, as from a host behind a
/// filter of packets.
fn full_listener(port: u16) -> Vec<Socket> {
    let address = SocketAddr::from(([127, 0, 0, 1], port)).into();
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.set_reuse_address(true).unwrap();
    wait_until("the port is free", || listener.bind(&address).is_ok());
    listener.listen(0).unwrap();
    let mut all = vec![listener];
    for _ in 0..8 {
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        let _ = client.connect(&address);
        all.push(client);
    }
    all
}

/// A trouble of one that is asked by TCP.
fn survive_at(
    redis: &mut RedisServer,
    trouble: Trouble,
    impostor: impl Fn(u16) -> Box<dyn std::any::Any>,
) {
    let store = format!("--store={}", redis.url());
    let trouble = Trouble {
        options: &[&store],
        ..trouble
    };
    let begin = |redis: &mut RedisServer| {
        redis.kill();
        impostor(redis.port)
    };
    survive(&trouble, redis, begin, |redis, impostor| {
        drop(impostor);
        redis.start_again();
    });
}

/// A trouble that keeps the records.
fn of<'a>(name: &'a str, says: &'a [&'a str]) -> Trouble<'a> {
    Trouble {
        name,
        options: &[],
        records: Records::Stay,
        says,
        is_thorough: false,
    }
}

#[test]
fn it_is_stopped() {
    if !has("redis-server", "a Redis that is stopped") {
        return;
    }
    let mut redis = RedisServer::start(&LASTING);
    let trouble = Trouble {
        is_thorough: true,
        ..of("stopped", &ENDED)
    };
    survive_at(&mut redis, trouble, |_| Box::new(()));
}

#[test]
fn it_hangs() {
    if !has("redis-server", "a Redis that hangs") {
        return;
    }
    let mut redis = RedisServer::start(&[]);
    for is_unix in [false, true] {
        let store = match is_unix {
            true => format!("--store={}", redis.unix_url()),
            false => format!("--store={}", redis.url()),
        };
        let trouble = Trouble {
            options: &[&store],
            is_thorough: !is_unix,
            ..of("hung", &["no answer in time"])
        };
        let begin = |redis: &mut RedisServer| redis.signal(Signal::SIGSTOP);
        survive(&trouble, &mut redis, begin, |redis, ()| {
            redis.signal(Signal::SIGCONT);
        });
    }
}

#[test]
fn it_loses_its_records() {
    if !has("redis-server", "a Redis that loses its records") {
        return;
    }
    let mut redis = RedisServer::start(&[]);
    let trouble = Trouble {
        records: Records::Go,
        ..of("restarted empty", &ENDED)
    };
    survive_at(&mut redis, trouble, |_| Box::new(()));
    // Without an end of it nobody notices.
    let folder = test_dir();
    let store = format!("--store={}", redis.url());
    let server = crate::start(1, folder.path(), &[&store]).remove(0);
    let mut client = server.connect();
    for command in [["FLUSHALL", "SYNC"], ["SCRIPT", "FLUSH"]] {
        let is_grey = |client: &mut Client| {
            client
                .ask(&[("client_address", "10.9.9.9")])
                .starts_with("DEFER_IF_PERMIT")
        };
        assert!(is_grey(&mut client));
        let () = redis.ask(&command);
        assert!(is_grey(&mut client));
    }
    assert!(!server.log_text().contains("ungreylisted"));
}

#[test]
fn it_is_full() {
    if !has("redis-server", "a Redis that is full") {
        return;
    }
    let mut redis = RedisServer::start(&["--maxmemory-policy", "noeviction"]);
    let store = format!("--store={}", redis.url());
    let trouble = Trouble {
        options: &[&store],
        ..of("full", &["the server has no memory left (maxmemory) (OOM)"])
    };
    let begin = |redis: &mut RedisServer| {
        let () = redis.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    };
    survive(&trouble, &mut redis, begin, |redis, ()| {
        let () = redis.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    });
}

#[test]
fn it_becomes_a_replica() {
    if !has("redis-server", "a Redis that is a replica") {
        return;
    }
    let mut redis = RedisServer::start(&[]);
    let store = format!("--store={}", redis.url());
    let trouble = Trouble {
        options: &[&store],
        is_thorough: false,
        ..of(
            "a replica",
            &["the server is a replica, which takes no changes (READONLY)"],
        )
    };
    // Its master does not answer: it keeps what it has.
    let begin = |redis: &mut RedisServer| {
        let () = redis.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    };
    survive(&trouble, &mut redis, begin, |redis, ()| {
        let () = redis.ask(&["REPLICAOF", "NO", "ONE"]);
    });
}

#[test]
fn its_user_may_do_less() {
    if !has("redis-server", "a Redis with users") {
        return;
    }
    let mut redis = RedisServer::start(&[]);
    let () = redis.ask(&["ACL", "SETUSER", "mx", "on", ">right", "~*", "+@all"]);
    let folder = test_dir();
    let file = folder.path().join("password");
    let write = |password: &str| {
        fs::write(&file, password).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o400)).unwrap();
        give_to_server(&file);
    };
    write("right\n");
    let store = format!("--store=redis://mx@127.0.0.1:{}", redis.port);
    let password = format!("--store-password-file={}", file.display());
    let options = [&*store, &password];
    let change = |redis: &RedisServer, words: &[&str]| {
        let () = redis.ask(&[&["ACL", "SETUSER", "mx"], words].concat());
        let _: i64 = redis.ask(&["CLIENT", "KILL", "USER", "mx"]);
    };
    let wrong = ["user or password is wrong (WRONGPASS)"];
    let denied = ["the user may not do that (NOPERM"];
    for (name, says, before, after) in [
        (
            "another password",
            &wrong,
            &["resetpass", ">other"][..],
            &["resetpass", ">right"][..],
        ),
        ("a user who is off", &wrong, &["off"], &["on"]),
        ("no scripts", &denied, &["-evalsha"], &["+evalsha"]),
        ("no reading", &denied, &["-mget"], &["+mget"]),
        ("other keys", &denied, &["resetkeys", "~x:*"], &["~*"]),
    ] {
        let trouble = Trouble {
            options: &options,
            ..of(name, says)
        };
        survive(
            &trouble,
            &mut redis,
            |redis| change(redis, before),
            |redis, ()| change(redis, after),
        );
    }
    // The file follows later: nobody has to start the server again.
    let trouble = Trouble {
        options: &options,
        ..of("a new password", &wrong)
    };
    let begin = |redis: &mut RedisServer| change(redis, &["resetpass", ">new"]);
    survive(&trouble, &mut redis, begin, |_, ()| write("new\n"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "new\n");
}

#[test]
fn nothing_comes_from_it() {
    if !has("redis-server", "a Redis that is a black hole") {
        return;
    }
    let mut redis = RedisServer::start(&LASTING);
    let says = ["no answer in time"];
    survive_at(&mut redis, of("accepts and is silent", &says), |port| {
        Box::new(Impostor::start(port, Behaviour::Silence))
    });
    let trouble = Trouble {
        is_thorough: true,
        ..of("does not accept", &says)
    };
    survive_at(&mut redis, trouble, |port| Box::new(full_listener(port)));
}

#[test]
fn what_comes_from_it_is_garbage() {
    if !has("redis-server", "a Redis that answers garbage") {
        return;
    }
    let mut redis = RedisServer::start(&LASTING);
    let says = ["is not the protocol of Redis"].as_slice();
    // It may have said too little for what it was asked.
    let other = ["the reply is none to this command", "no answer in time"].as_slice();
    let silent = ["no answer in time"].as_slice();
    for (name, says, behaviour) in [
        (
            "another protocol",
            says,
            Behaviour::Say(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        ),
        ("octets", says, Behaviour::Say(b"\0\xff\n\r\xfe")),
        (
            "replies to another question",
            other,
            Behaviour::Say(b"+OK\r\n"),
        ),
        ("half a reply", silent, Behaviour::Say(b"$100\r\nabc")),
        ("a reply without end", silent, Behaviour::Trickle(b"+x")),
        ("closes", silent, Behaviour::Close),
    ] {
        survive_at(&mut redis, of(name, says), |port| {
            Box::new(Impostor::start(port, behaviour))
        });
    }
}

/// What it answers then repeats the command, with another name each time.
#[test]
fn it_does_not_know_a_command() {
    if !has("redis-server", "a Redis that lacks a command") {
        return;
    }
    let _beside = beside_others();
    for lacking in ["MGET", "EVALSHA"] {
        let redis = RedisServer::start(&["--rename-command", lacking, "hidden"]);
        let folder = test_dir();
        let store = format!("--store={}", redis.url());
        let server = crate::start(1, folder.path(), &[&store]).remove(0);
        let mut client = server.connect();
        for number in 0..20 {
            let address = format!("10.1.{number}.1");
            assert_eq!(client.ask(&[("client_address", &address)]), "DUNNO");
        }
        let log = server.log_text();
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("ungreylisted"))
            .collect();
        let why = format!(
            "127.0.0.1:{}: {lacking}: the server does not know this command: requests pass \
             ungreylisted",
            redis.port
        );
        assert!(lines.len() == 1 && lines[0].contains(&why), "{log}");
    }
}
