//! A server whose Redis gets into trouble and out of it again, and what its clients
//! notice.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::redis_server::{RedisServer, wait_until};
use crate::server::{Client, PROGRAM, Server, common_options, spawn, tell, test_dir};
use crate::tool::ctl;
use crate::{alone, start};

/// How long a trouble lasts: Redis is tried again after 1 s, and 2 s after that.
const SHORT: Duration = Duration::from_millis(700);
const LONG: Duration = Duration::from_millis(2500);
/// How often a trouble is tried, should others have the processors meanwhile.
const ATTEMPTS: usize = 4;
/// The longest that a client whom the store does not concern waits.
const AT_ONCE: Duration = Duration::from_millis(50);
/// The longest that any client waits.
const LONGEST: Duration = Duration::from_millis(1200);
/// Clients that need the store, at the same time.
const CLIENTS: usize = 4;
const WHITELISTED: &str = "192.0.2.250";
const UNGREYLISTED: &str = "requests pass ungreylisted";
/// How the first who notice may call it that their connection has ended.
pub const ENDED: [&str; 3] = [
    "Connection refused",
    "the server closed the connection",
    "Connection reset by peer",
];
const START: u64 = 1_700_000_000;

/// What becomes of the records in a trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Records {
    /// They are still there.
    Stay,
    /// They are lost.
    Go,
}

/// A trouble.
pub struct Trouble<'a> {
    /// What it is called.
    pub name: &'a str,
    /// Options of the server.
    pub options: &'a [&'a str],
    /// What becomes of the records.
    pub records: Records,
    /// Words of the line in the log.
    pub says: &'a [&'a str],
    /// It lasts, and is tried at the start and at the end of the server, too.
    pub is_thorough: bool,
}

/// A request that was answered.
struct Answered {
    asked: Instant,
    took: Duration,
    reply: String,
}

fn request<'a>(address: &'a str, now: &'a str) -> [(&'a str, &'a str); 4] {
    [
        ("client_address", address),
        ("client_name", "unknown"),
        ("sender", "a@example.net"),
        ("policy_test_time", now),
    ]
}

fn ask(client: &mut Client, address: &str, now: u64) -> String {
    client.ask(&request(address, &now.to_string()))
}

/// A client that no test has asked about before.
fn new_address() -> String {
    static NUMBER: Mutex<u32> = Mutex::new(0);
    let mut number = NUMBER.lock().unwrap();
    *number += 1;
    format!("10.{}.{}.1", *number / 256, *number % 256)
}

fn is_grey(reply: &str) -> bool {
    reply.starts_with("DEFER_IF_PERMIT")
}

/// Asks about clients until it is over.
fn ask_on(server: &Server, is_over: &AtomicBool, address: impl Fn() -> String) -> Vec<Answered> {
    let mut client = server.connect();
    let mut all = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let asked = Instant::now();
        let reply = ask(&mut client, &address(), START);
        let took = asked.elapsed();
        all.push(Answered { asked, took, reply });
        thread::sleep(Duration::from_millis(3));
    }
    all
}

fn longest(all: &[Answered]) -> Duration {
    all.iter().map(|one| one.took).max().unwrap_or_default()
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Runs a server through a trouble, which begins and ends with these functions.
pub fn survive<T>(
    trouble: &Trouble,
    redis: &mut RedisServer,
    mut begin: impl FnMut(&mut RedisServer) -> T,
    mut end: impl FnMut(&mut RedisServer, T),
) {
    let _alone = alone();
    for attempt in 1.. {
        if is_survived_at_once(trouble, redis, &mut begin, &mut end) {
            return;
        }
        assert!(attempt < ATTEMPTS, "a whitelisted client waited each time");
    }
}

/// True if a whitelisted client waited no longer than it may.
fn is_survived_at_once<T>(
    trouble: &Trouble,
    redis: &mut RedisServer,
    mut begin: impl FnMut(&mut RedisServer) -> T,
    mut end: impl FnMut(&mut RedisServer, T),
) -> bool {
    let folder = test_dir();
    let whitelist = folder.path().join("whitelist");
    fs::write(&whitelist, format!("{WHITELISTED}\n")).unwrap();
    let whitelist = format!("--whitelist-clients={}", whitelist.display());
    let mut options = trouble.options.to_vec();
    options.push(&whitelist);
    let mut server = start(1, folder.path(), &options).remove(0);
    // What this machine makes everybody wait for.
    let undisturbed = Server::start(folder.path(), &[&whitelist]);
    let mut client = server.connect();
    let known = new_address();
    assert!(is_grey(&ask(&mut client, &known, START)));

    let is_over = AtomicBool::new(false);
    let (grey, white, control, span, back) = thread::scope(|scope| {
        let (server, is_over, undisturbed) = (&server, &is_over, &undisturbed);
        let grey: Vec<_> = (0..CLIENTS)
            .map(|_| scope.spawn(move || ask_on(server, is_over, new_address)))
            .collect();
        let white = scope.spawn(move || ask_on(server, is_over, || WHITELISTED.into()));
        let control = scope.spawn(move || ask_on(undisturbed, is_over, || WHITELISTED.into()));
        thread::sleep(Duration::from_millis(100));
        let state = begin(redis);
        let begun = Instant::now();
        thread::sleep(if trouble.is_thorough { LONG } else { SHORT });
        let ping = ctl(&server.dbdir, &["ping"]);
        assert!(ping.status == 1 && is_told(&ping.said), "{ping:?}");
        let ended = Instant::now();
        end(redis, state);
        let since = Instant::now();
        wait_until("greylisting again", || {
            is_grey(&ask(&mut client, &new_address(), START))
        });
        let back = since.elapsed();
        thread::sleep(Duration::from_millis(100));
        is_over.store(true, Ordering::Relaxed);
        let grey: Vec<Answered> = grey
            .into_iter()
            .flat_map(|thread| thread.join().unwrap())
            .collect();
        let (white, control) = (white.join().unwrap(), control.join().unwrap());
        (grey, white, control, (begun, ended), back)
    });

    // During the trouble, and afterwards.
    let during: Vec<&Answered> = grey
        .iter()
        .filter(|one| one.asked >= span.0 && one.asked + one.took <= span.1)
        .collect();
    assert!(during.len() >= CLIENTS, "{}", during.len());
    for one in &during {
        assert_eq!(one.reply, "DUNNO");
    }
    assert!(
        grey.iter()
            .all(|one| one.reply == "DUNNO" || is_grey(&one.reply))
    );
    assert!(white.iter().all(|one| one.reply == "DUNNO"));
    let (waited, at_once, noise) = (longest(&grey), longest(&white), longest(&control));
    // If others have the processors this server is not to blame.
    let is_at_once = at_once < AT_ONCE.max(2 * noise);
    tell(&format!(
        "trouble: {}: longest answer {}, of a whitelisted client {} (of a server without Redis \
         {}), back after {}{}",
        trouble.name,
        milliseconds(waited),
        milliseconds(at_once),
        milliseconds(noise),
        milliseconds(back),
        if is_at_once { "" } else { ": tried again" },
    ));
    assert!(waited < LONGEST + 2 * noise, "{waited:?}");

    let is_known = ask(&mut client, &known, START + 300).starts_with("PREPEND");
    assert_eq!(is_known, trouble.records == Records::Stay);
    let log = server.log_text();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains(UNGREYLISTED))
        .collect();
    // The first that go wrong may do so otherwise than those that follow.
    assert!((1..=2).contains(&lines.len()), "{log}");
    for line in &lines {
        let mut expected = trouble.says.iter().chain(&ENDED);
        assert!(expected.any(|words| line.contains(words)), "{line}");
    }
    drop(client);
    if trouble.is_thorough {
        end_and_start(&mut server, folder.path(), &options, redis, begin, end);
    }
    assert!(server.stop().success(), "{}", server.log_text());
    is_at_once
}

fn is_told(said: &str) -> bool {
    said.starts_with("POSTGREY WARNING - mail passes ungreylisted: ")
}

/// Ends the server in the trouble, and starts it.
fn end_and_start<T>(
    server: &mut Server,
    folder: &Path,
    options: &[&str],
    redis: &mut RedisServer,
    mut begin: impl FnMut(&mut RedisServer) -> T,
    mut end: impl FnMut(&mut RedisServer, T),
) {
    let state = begin(redis);
    let mut client = server.connect();
    assert_eq!(ask(&mut client, &new_address(), START), "DUNNO");
    // One that the end of the server finds waiting gets an answer, too.
    client.send(&crate::server::request(&request(&new_address(), "1")));
    let begun = Instant::now();
    assert!(server.stop().success(), "{}", server.log_text());
    let took = begun.elapsed();
    assert_eq!(client.reply().as_deref(), Some("DUNNO"));
    assert!(took < Duration::from_secs(5), "{took:?}");

    let begun = Instant::now();
    let socket = format!("--unix={}", folder.join("0/run/checked").display());
    let checked = Command::new(PROGRAM)
        .args(common_options(&folder.join("0")))
        .args(options)
        .args([&*socket, "--check"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&checked.stderr);
    let is_problem = |line: &str| line.starts_with("--store: 127.0.0.1:");
    assert!(text.lines().any(is_problem), "{text}");
    assert_eq!((text.lines().count(), checked.status.code()), (1, Some(1)));
    assert!(begun.elapsed() < Duration::from_secs(8));

    // Mail first: it starts, and lets pass what it cannot know.
    server.start_again();
    let mut client = server.connect();
    let begun = Instant::now();
    assert_eq!(ask(&mut client, &new_address(), START), "DUNNO");
    assert_eq!(ask(&mut client, WHITELISTED, START), "DUNNO");
    let took = begun.elapsed();
    let begun = Instant::now();
    let mut session = spawn(&folder.join("0"), options);
    assert_eq!(ask(&mut session.client, &new_address(), START), "DUNNO");
    assert_eq!(ask(&mut session.client, &new_address(), START), "DUNNO");
    let took = took.max(begun.elapsed());
    tell(&format!(
        "started in trouble: longest answer {}",
        milliseconds(took)
    ));
    assert!(took < LONGEST + AT_ONCE, "{took:?}");
    end(redis, state);
    for client in [&mut client, &mut session.client] {
        wait_until("greylisting again", || {
            is_grey(&ask(client, &new_address(), START))
        });
    }
    drop(session.client);
    assert!(session.child.wait().unwrap().success());
}
