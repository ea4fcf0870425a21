//! A cluster, played: where requests go, and how it is found out that
//! something has changed.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::scripted::*;
use crate::*;

/// Lies in slot 15495, in the upper half.
const HIGH: &str = "a";
/// Lies in slot 3300, in the lower half.
const LOW: &str = "b";

type Answers = dyn Fn(&Asked) -> Do + Send + Sync;

/// Two nodes with half of the slots each. `lower` and `upper` may answer instead.
struct Pair {
    lower: Scripted,
    upper: Scripted,
    addresses: [SocketAddr; 2],
}

fn pair(lower: Box<Answers>, upper: Box<Answers>) -> Pair {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [&listeners[0], &listeners[1]].map(|listener| listener.local_addr().unwrap());
    let [first, second] = listeners;
    let with_map = |own: Box<Answers>| {
        move |asked: &Asked| match own(asked) {
            Nothing if asked.is("CLUSTER SLOTS") => {
                slots(&[(0, 8191, addresses[0]), (8192, 16383, addresses[1])])
            }
            own => own,
        }
    };
    Pair {
        lower: Scripted::on(first, with_map(lower)),
        upper: Scripted::on(second, with_map(upper)),
        addresses,
    }
}

impl Pair {
    fn client(&self) -> Client {
        client(&format!(
            "redis-cluster://{},{}",
            self.addresses[0], self.addresses[1]
        ))
    }
}

/// Answers a request with its key and a word.
fn echo(word: &'static str) -> Box<Answers> {
    Box::new(move |asked| match asked.words[0].as_str() {
        "CLUSTER" => Nothing,
        _ => bulk(&format!("{} {word}", asked.words[1])),
    })
}

/// The first times this, then the key and a word.
fn first(times: usize, line: String, word: &'static str) -> Box<Answers> {
    let count = AtomicUsize::new(0);
    Box::new(move |asked| match asked.words[0].as_str() {
        "CLUSTER" => Nothing,
        "ASKING" => say("+OK"),
        _ if count.fetch_add(1, Ordering::SeqCst) < times => say(&line),
        _ => bulk(&format!("{} {word}", asked.words[1])),
    })
}

#[test]
fn each_request_goes_to_the_node_of_its_slot() {
    let pair = pair(echo("lower"), echo("upper"));
    let mut client = pair.client();
    let answers = ask_all(&mut client, &[get(HIGH), get(LOW), get("{b}x")], AMPLE);
    let expected = ["a upper", "b lower", "{b}x lower"];
    assert_eq!(answers, expected.map(|word| Ok(text(word))));
    ask(&mut client, get(HIGH), AMPLE).unwrap();
    // The map is kept.
    assert_eq!(pair.lower.count("CLUSTER") + pair.upper.count("CLUSTER"), 1);
    assert_eq!((pair.lower.connections(), pair.upper.connections()), (1, 1));
    let deadline = Instant::now() + AMPLE;
    let nodes: Vec<_> = client.nodes(deadline).unwrap();
    let names: Vec<_> = nodes.iter().map(|node| node.to_string()).collect();
    assert_eq!(names, pair.addresses.map(|address| address.to_string()));
    let answer = client.ask_node(&nodes[1], &[b"SCAN", b"0"], deadline);
    assert_eq!(answer, Ok(text("0 upper")));
}

#[test]
fn a_slot_that_has_moved_is_followed_and_the_map_asked_anew() {
    let moved = Arc::new(Mutex::new(String::new()));
    let line = moved.clone();
    let lower: Box<Answers> = Box::new(move |asked| match asked.is("GET") {
        true => say(&line.lock().unwrap()),
        false => Nothing,
    });
    let pair = pair(lower, echo("upper"));
    *moved.lock().unwrap() = format!("-MOVED 3300 {}", pair.addresses[1]);
    let mut client = pair.client();
    assert_eq!(ask(&mut client, get(LOW), AMPLE), Ok(text("b upper")));
    // It is not asked for more often than ten times a second.
    std::thread::sleep(Duration::from_millis(120));
    ask(&mut client, get(LOW), AMPLE).unwrap();
    ask_until(&mut client, || {
        pair.lower.count("CLUSTER") + pair.upper.count("CLUSTER") == 2
    });
    // Two that send each other's requests around come to an end.
    *moved.lock().unwrap() = format!("-MOVED 3300 {}", pair.addresses[0]);
    let reason = reason(ask(&mut client, get(LOW), AMPLE));
    assert!(reason.contains("do not agree"), "{reason}");
}

/// Asks for what nobody minds until something has been seen.
fn ask_until(client: &mut Client, is_seen: impl Fn() -> bool) {
    let end = Instant::now() + AMPLE;
    while !is_seen() {
        assert!(Instant::now() < end);
        let _ = ask(client, get(HIGH), TIME);
    }
}

#[test]
fn a_key_on_its_way_is_asked_for_there_once() {
    let line = Arc::new(Mutex::new(String::new()));
    let asked_line = line.clone();
    let lower: Box<Answers> = Box::new(move |asked| match asked.is("GET") {
        true => say(&asked_line.lock().unwrap()),
        false => Nothing,
    });
    // It has to be told before each of them.
    let was_told = Mutex::new(false);
    let upper: Box<Answers> = Box::new(move |asked| {
        let mut was_told = was_told.lock().unwrap();
        let told = std::mem::replace(&mut *was_told, asked.is("ASKING"));
        match asked.words[0].as_str() {
            "ASKING" => say("+OK"),
            "GET" if told || asked.words[1] == HIGH => bulk(&asked.words[1]),
            "GET" => say("-MOVED 3300 127.0.0.1:1"),
            _ => Nothing,
        }
    });
    let pair = pair(lower, upper);
    *line.lock().unwrap() = format!("-ASK 3300 {}", pair.addresses[1]);
    let mut client = pair.client();
    let answers = ask_all(&mut client, &[get(LOW), get(HIGH), get("{b}2")], AMPLE);
    assert_eq!(answers, [LOW, HIGH, "{b}2"].map(|key| Ok(text(key))));
    assert_eq!(pair.upper.count("ASKING"), 2);
    // The slot has not moved: the map is as it was, and so is the next request.
    ask(&mut client, get(LOW), AMPLE).unwrap();
    assert_eq!(pair.lower.count("GET b"), 2);
    assert_eq!(pair.lower.count("CLUSTER") + pair.upper.count("CLUSTER"), 1);
}

#[test]
fn what_could_not_be_done_is_tried_again_for_a_moment() {
    for error in ["TRYAGAIN x", "CLUSTERDOWN x", "READONLY x", "MASTERDOWN x"] {
        let line = format!("-{error}");
        let pair = pair(first(3, line.clone(), "lower"), echo("upper"));
        assert_eq!(
            ask(&mut pair.client(), get(LOW), AMPLE),
            Ok(text("b lower"))
        );
        // Not without end, and others do not wait for long.
        let pair = self::pair(first(99, line, "lower"), echo("upper"));
        let start = Instant::now();
        let answers = ask_all(&mut pair.client(), &[get(LOW), get(HIGH)], AMPLE);
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "{:?}",
            start.elapsed()
        );
        assert!(answers[0].is_err() && answers[1].is_ok(), "{error}");
        assert_eq!(pair.lower.count("GET"), 5, "{error}");
    }
}

#[test]
fn trouble_of_one_node_is_that_of_its_slots() {
    let hung: Box<Answers> = Box::new(|_| Nothing);
    let pair = pair(hung, echo("upper"));
    let mut client = pair.client();
    ask(&mut client, get(HIGH), AMPLE).unwrap();
    let start = Instant::now();
    let answers = ask_all(&mut client, &[get(LOW), get(HIGH), get(LOW)], TIME);
    assert!(start.elapsed() < LATEST);
    assert_eq!(answers[1], Ok(text("a upper")));
    for answer in [&answers[0], &answers[2]] {
        let error = answer.as_ref().unwrap_err();
        assert_eq!(error.reason, "no answer in time");
        assert_eq!(error.path, pair.addresses[0].to_string());
    }
    // While it is left alone, nobody waits; after that not for long.
    let end = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < end {
        let start = Instant::now();
        let answers = ask_all(&mut client, &[get(LOW), get(HIGH)], AMPLE);
        assert!(start.elapsed() < LATEST, "{:?}", start.elapsed());
        assert!(answers[0].is_err() && answers[1].is_ok());
    }
    assert!(pair.lower.connections() >= 2);
}

#[test]
fn a_replica_that_has_taken_over_is_found() {
    // The lower one dies; some time later, the upper one has all slots.
    let upper_address = Arc::new(Mutex::new(None));
    let own = upper_address.clone();
    let upper: Box<Answers> = Box::new(move |asked| match asked.words[0].as_str() {
        "CLUSTER" => match *own.lock().unwrap() {
            None => Nothing,
            Some(address) => slots(&[(0, 16383, address)]),
        },
        _ => bulk(&asked.words[1]),
    });
    let lower: Box<Answers> = Box::new(|asked| match asked.words[1].as_str() {
        "SLOTS" => Nothing,
        "{b}last" => Close,
        key => bulk(key),
    });
    let pair = pair(lower, upper);
    let mut client = pair.client();
    for answer in ask_all(&mut client, &[get(LOW), get(HIGH)], AMPLE) {
        answer.unwrap();
    }
    let answers = ask_all(&mut client, &[get("{b}last"), get(LOW), get(HIGH)], AMPLE);
    // What was sent may have been done: it is not sent again.
    assert!(answers[0].is_err() && answers[1].is_err() && answers[2].is_ok());
    let (answer, took) = timed(&mut client, get(LOW), AMPLE);
    assert!(
        answer.is_err() && took < Duration::from_millis(200),
        "{took:?}"
    );
    *upper_address.lock().unwrap() = Some(pair.addresses[1]);
    let start = Instant::now();
    assert_eq!(ask_until_well(&mut client, &get(LOW)), text(LOW));
    // Long before the dead one is tried again.
    assert!(
        start.elapsed() < Duration::from_millis(500),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn what_was_not_sent_goes_to_the_new_node_at_once() {
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let gone_address = gone.local_addr().unwrap();
    drop(gone);
    let own = Arc::new(Mutex::new(None));
    let (address, maps) = (own.clone(), AtomicUsize::new(0));
    let server = Scripted::start(move |asked| {
        let own = address.lock().unwrap().unwrap();
        match asked.is("CLUSTER") {
            true if maps.fetch_add(1, Ordering::SeqCst) == 0 => slots(&[(0, 16383, gone_address)]),
            true => slots(&[(0, 16383, own)]),
            false => bulk(&asked.words[1]),
        }
    });
    *own.lock().unwrap() = Some(server.address);
    let mut client = client(&format!("redis-cluster://{}", server.address));
    // The map is young, so the first one fails; the next asks for a new one.
    let first = ask(&mut client, get(LOW), AMPLE);
    assert_eq!(reason(first), "Connection refused");
    std::thread::sleep(Duration::from_millis(120));
    assert_eq!(ask(&mut client, get(LOW), AMPLE), Ok(text(LOW)));
}

#[test]
fn seeds_are_tried_in_turn() {
    let pair = pair(echo("lower"), echo("upper"));
    let gone = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent_address = silent.local_addr().unwrap();
    let other = Scripted::saying("-ERR This instance has cluster support disabled\r\n");
    let garbage = Scripted::saying("HTTP/1.1 200\r\n");
    let url = format!(
        "redis-cluster://{gone},{silent_address},{},{},{}",
        other.address, garbage.address, pair.addresses[1]
    );
    let mut client = client(&url);
    let (answer, took) = timed(&mut client, get(LOW), AMPLE);
    assert_eq!(answer, Ok(text("b lower")));
    assert!(took < Duration::from_secs(1), "{took:?}");
    // None of them.
    let mut client = crate::client(&format!("redis-cluster://{gone}"));
    let error = ask(&mut client, get(LOW), AMPLE).unwrap_err();
    assert_eq!(
        (error.path, &*error.reason),
        (gone.to_string(), "Connection refused")
    );
    let mut client = crate::client(&format!("redis-cluster://{}", other.address));
    let error = ask(&mut client, get(LOW), AMPLE).unwrap_err();
    assert_eq!(
        error.reason,
        "the server is no cluster: use redis:// or rediss://"
    );
    let error = client.nodes(Instant::now() + AMPLE).unwrap_err();
    assert_eq!(
        (error.call, &*error.reason),
        (
            "CLUSTER",
            "the server is no cluster: use redis:// or rediss://"
        )
    );
    // In time.
    let mut client = crate::client(&format!("redis-cluster://{silent_address}"));
    let (answer, took) = timed(&mut client, get(LOW), TIME);
    assert_eq!(reason(answer), "no answer in time");
    assert!(took < LATEST, "{took:?}");
}

#[test]
fn a_slot_that_nobody_serves_fails_alone() {
    let own = Arc::new(Mutex::new(None));
    let address = own.clone();
    let server = Scripted::start(move |asked| match asked.is("CLUSTER") {
        true => slots(&[(8192, 16383, address.lock().unwrap().unwrap())]),
        false => bulk(&asked.words[1]),
    });
    *own.lock().unwrap() = Some(server.address);
    let mut client = client(&format!("redis-cluster://{}", server.address));
    let answers = ask_all(&mut client, &[get(LOW), get(HIGH)], AMPLE);
    assert_eq!(answers[1], Ok(text(HIGH)));
    let error = answers[0].as_ref().unwrap_err();
    assert_eq!(error.reason, "no node serves this slot");
}

/// Each node would be looked for among all others.
#[test]
fn a_map_with_more_nodes_than_a_cluster_has_is_none() {
    let server = Scripted::start(|_| {
        let node = |number: u32| {
            let host = format!("10.1.{}.{}", number / 250, number % 250);
            format!(
                "*3\r\n:{number}\r\n:{number}\r\n*2\r\n${}\r\n{host}\r\n:1\r\n",
                host.len()
            )
        };
        Say(format!(
            "*14000\r\n{}",
            (0..14_000).map(node).collect::<String>()
        ))
    });
    let mut client = client(&format!("redis-cluster://{}", server.address));
    let (answer, took) = timed(&mut client, get(LOW), TIME);
    assert_eq!(reason(answer), "it knows of too many nodes");
    assert!(took < LATEST, "{took:?}");
}

/// Behind a network that takes its time there is no answer to all of a new connection's
/// commands in the time that a node gets after its first trouble.
#[test]
fn a_node_far_away_returns_after_a_trouble() {
    let far = |own: Box<Answers>| -> Box<Answers> {
        Box::new(move |asked| match own(asked) {
            Say(text) => Later(Duration::from_millis(60), text),
            other => other,
        })
    };
    let gets = AtomicUsize::new(0);
    let lower = far(Box::new(move |asked| match asked.words[0].as_str() {
        "SCRIPT" => say("+OK"),
        "CLUSTER" => Nothing,
        _ if gets.fetch_add(1, Ordering::SeqCst) == 0 => Close,
        _ => bulk(&asked.words[1]),
    }));
    let upper: Box<Answers> = Box::new(|asked| match asked.words[0].as_str() {
        "SCRIPT" => say("+OK"),
        "CLUSTER" => Nothing,
        _ => bulk(&asked.words[1]),
    });
    let pair = pair(lower, upper);
    let url = format!("redis-cluster://{}", pair.addresses[1]);
    let mut client = Client::new(options(&url), &SCRIPTS[..1]);
    let start = Instant::now();
    assert_eq!(
        reason(ask(&mut client, get(LOW), AMPLE)),
        "the server closed the connection"
    );
    // Others use theirs all the while.
    loop {
        let answers = ask_all(&mut client, &[get(LOW), get(HIGH)], TIME);
        assert_eq!(answers[1], Ok(text(HIGH)));
        if answers[0] == Ok(text(LOW)) {
            break;
        }
        assert!(start.elapsed() < Duration::from_secs(6), "{answers:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
    // One that was closed, one that was too late, one that was there in time.
    assert_eq!(pair.lower.connections(), 3);
}
