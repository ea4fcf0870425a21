//! One server in trouble: errors within the time, in plain words, and an end of
//! it when the server is well again.

use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use postgrey::store::ErrorKind;
use postgrey::store::redis::client::Request;
use socket2::{Domain, Socket, Type};

use crate::scripted::*;
use crate::*;

#[test]
fn all_is_sent_at_once_and_answered_in_order() {
    // No answer before the last request has come.
    let held = Mutex::new(Vec::new());
    let server = Scripted::start(move |asked| {
        let mut held = held.lock().unwrap();
        held.push(format!(
            "${}\r\n{}\r\n",
            asked.words[1].len(),
            asked.words[1]
        ));
        match held.len() {
            100 => Say(held.concat()),
            _ => Nothing,
        }
    });
    let mut client = client(&server.url());
    let requests: Vec<_> = (0..100)
        .map(|number| get(&format!("key{number}")))
        .collect();
    let answers = ask_all(&mut client, &requests, AMPLE);
    for (number, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer, Ok(text(&format!("key{number}"))));
    }
    assert_eq!(server.connections(), 1);
    assert!(client.exchange(&[], Instant::now() + TIME).is_empty());
}

#[test]
fn a_hung_server_costs_its_time_once_and_returns() {
    let is_hung = std::sync::Arc::new(AtomicBool::new(true));
    let hung = is_hung.clone();
    let server = Scripted::start(move |asked| match hung.load(Ordering::SeqCst) {
        true => Nothing,
        false => bulk(&asked.words[1]),
    });
    let mut client = client(&server.url());
    // Ten requests take no longer than one.
    let start = Instant::now();
    let requests: Vec<_> = (0..10).map(|number| get(&format!("key{number}"))).collect();
    for answer in ask_all(&mut client, &requests, TIME) {
        let error = answer.unwrap_err();
        assert_eq!((error.kind, error.call), (ErrorKind::System, "GET"));
        assert_eq!(error.path, server.address.to_string());
        assert_eq!(error.reason, "no answer in time");
    }
    assert!(
        (TIME..LATEST).contains(&start.elapsed()),
        "{:?}",
        start.elapsed()
    );
    // It is left alone now.
    is_hung.store(false, Ordering::SeqCst);
    let failed = Instant::now();
    let (answer, took) = timed(&mut client, get("a"), TIME);
    assert_eq!(reason(answer), "no answer in time");
    assert!(took < Duration::from_millis(50), "{took:?}");
    assert_eq!(server.count("GET"), 10);
    // It returns by itself, on a new connection.
    assert_eq!(ask_until_well(&mut client, &get("b")), text("b"));
    assert!(failed.elapsed() > Duration::from_millis(700));
    assert!(failed.elapsed() < Duration::from_secs(3));
    assert_eq!(server.connections(), 2);
}

#[test]
fn the_rest_grows_with_each_trouble() {
    let server = Scripted::start(|_| Close);
    let mut client = client(&server.url());
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(3500) {
        ask(&mut client, get("a"), TIME).unwrap_err();
        std::thread::sleep(Duration::from_millis(10));
    }
    // At 0, 1 and 3 seconds.
    assert_eq!(server.connections(), 3);
}

#[test]
fn a_late_answer_does_not_answer_the_next_question() {
    let server = Scripted::start(|asked| match asked.connection {
        0 => Later(TIME + Duration::from_millis(50), "$4\r\nlate\r\n".into()),
        _ => bulk(&asked.words[1]),
    });
    let mut client = client(&server.url());
    assert_eq!(
        reason(ask(&mut client, get("a"), TIME)),
        "no answer in time"
    );
    assert_eq!(ask_until_well(&mut client, &get("b")), text("b"));
}

#[test]
fn a_server_that_trickles_is_not_waited_for() {
    let server = Scripted::start(|_| {
        Trickle(
            Duration::from_millis(20),
            format!("$90\r\n{}\r\n", "x".repeat(90)),
        )
    });
    let (answer, took) = timed(&mut client(&server.url()), get("a"), TIME);
    assert_eq!(reason(answer), "no answer in time");
    assert!((TIME..LATEST).contains(&took), "{took:?}");
}

#[test]
fn a_connect_that_hangs_is_not_waited_for() {
    // A queue that is full drops what comes.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener
        .bind(
            &"127.0.0.1:0"
                .parse::<std::net::SocketAddr>()
                .unwrap()
                .into(),
        )
        .unwrap();
    listener.listen(0).unwrap();
    let address = listener.local_addr().unwrap().as_socket().unwrap();
    let fillers: Vec<_> = (0..3)
        .map(|_| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_nonblocking(true).unwrap();
            let _ = socket.connect(&address.into());
            socket
        })
        .collect();
    let mut client = client(&format!("redis://{address}"));
    let (answer, took) = timed(&mut client, get("a"), TIME);
    assert_eq!(reason(answer), "no answer in time");
    assert!((TIME..LATEST).contains(&took), "{took:?}");
    drop(fillers);
}

#[test]
fn a_handshake_that_hangs_is_not_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = client(&format!("rediss://{}", listener.local_addr().unwrap()));
    let (answer, took) = timed(&mut client, get("a"), TIME);
    assert_eq!(reason(answer), "no answer in time");
    assert!((TIME..LATEST).contains(&took), "{took:?}");
}

#[test]
fn a_server_without_tls_is_told_by_its_words() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let talker = std::thread::spawn(move || {
        use std::io::{Read, Write};
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(b"-ERR Protocol error\r\n");
    });
    let mut client = client(&format!("rediss://{address}"));
    let reason = reason(ask(&mut client, get("a"), AMPLE));
    assert_eq!(reason, "TLS: the server does not speak TLS at this port");
    talker.join().unwrap();
}

#[test]
fn what_is_not_redis_is_left_at_once() {
    let no_protocol = "what it answers is not the protocol of Redis";
    for (answer, expected) in [
        ("HTTP/1.1 400 Bad Request\r\n", no_protocol),
        ("$1000000000\r\nxxx", no_protocol),
        ("*1000000000\r\n", no_protocol),
        ("+OK\r\n+OK\r\n", "it answers what it was not asked"),
    ] {
        let server = Scripted::saying(answer);
        let mut client = client(&server.url());
        let (first, took) = timed(&mut client, get("a"), AMPLE);
        assert!(took < Duration::from_secs(2), "{took:?}");
        let second = ask(&mut client, get("b"), AMPLE);
        match first {
            // The first answer came before the one that is too much.
            Ok(_) => assert_eq!(reason(second), expected, "{answer}"),
            Err(error) => {
                assert_eq!(error.reason, expected, "{answer}");
                assert_eq!(reason(second), expected, "{answer}");
            }
        }
        assert_eq!(server.connections(), 1, "{answer}");
    }
}

#[test]
fn what_has_no_end_takes_no_memory() {
    for poured in ["+x", "*1000\r\n", "$-1\r\n"] {
        let server = Scripted::start(move |_| Pour(poured.into()));
        let mut client = client(&server.url());
        let (answer, took) = timed(&mut client, get("a"), TIME);
        assert!(took < LATEST, "{poured:?}: {took:?}");
        // The first "$-1" is an answer.
        assert_eq!(answer.is_err(), poured != "$-1\r\n", "{poured:?}");
    }
    // Many answers, each of a size that may be.
    let server = Scripted::start(|_| {
        let size = 3 << 20;
        Say(format!("${size}\r\n{}\r\n", "x".repeat(size)))
    });
    let requests: Vec<_> = (0..40).map(|_| get("a")).collect();
    let answers = ask_all(&mut client(&server.url()), &requests, AMPLE);
    let given: Vec<_> = answers.iter().filter(|answer| answer.is_ok()).collect();
    assert!((15..25).contains(&given.len()), "{}", given.len());
    assert_eq!(
        reason(answers.into_iter().next_back().unwrap()),
        "its answer is too large"
    );
}

#[test]
fn a_connection_that_is_closed_with_a_question_open_is_an_error() {
    let server = Scripted::start(|asked| match asked.words[0].as_str() {
        "DEL" => Close,
        _ => bulk(&format!("{}{}", asked.words[1], asked.connection)),
    });
    let mut client = client(&server.url());
    assert_eq!(ask(&mut client, get("a"), AMPLE), Ok(text("a0")));
    let delete = Request::new(b"a", &[b"DEL", b"a"]);
    assert_eq!(
        reason(ask(&mut client, delete, AMPLE)),
        "the server closed the connection"
    );
    assert_eq!(ask_until_well(&mut client, &get("b")), text("b1"));
}

#[test]
fn a_connection_that_was_closed_while_idle_is_opened_again() {
    let server = Scripted::start(|asked| match asked.connection {
        0 => SayAndClose("+OK\r\n".into()),
        _ => bulk(&asked.words[1]),
    });
    let mut client = client(&server.url());
    assert_eq!(ask(&mut client, get("a"), AMPLE), Ok(redis::Value::Okay));
    // Its end comes right behind the answer; without it, the next answer would
    // be an error.
    server.wait_for_ends(1);
    assert_eq!(ask(&mut client, get("b"), AMPLE), Ok(text("b")));
    assert_eq!(server.connections(), 2);
}

#[test]
fn nothing_is_sent_when_the_time_is_over() {
    let server = Scripted::saying("+OK\r\n");
    let mut client = client(&server.url());
    let error = ask(&mut client, get("a"), Duration::ZERO).unwrap_err();
    assert_eq!(error.reason, "no answer in time");
    assert_eq!(error.path, server.address.to_string());
    assert_eq!(ask(&mut client, get("a"), AMPLE), Ok(redis::Value::Okay));
    assert_eq!(
        reason(ask(&mut client, get("a"), Duration::ZERO)),
        "no answer in time"
    );
    // That was no trouble of the server.
    assert_eq!(ask(&mut client, get("a"), AMPLE), Ok(redis::Value::Okay));
    assert_eq!((server.count("GET"), server.connections()), (2, 1));
}

#[test]
fn a_name_nobody_knows_is_an_error_in_time() {
    let mut client = client("redis://no-such-host.invalid:6379");
    let (answer, took) = timed(&mut client, get("a"), TIME);
    let reason = reason(answer);
    assert!(
        reason.starts_with("its address is not known") || reason == "no answer in time",
        "{reason}"
    );
    assert!(took < LATEST, "{took:?}");
    let server = Scripted::saying("+OK\r\n");
    let url = format!("redis://localhost:{}", server.address.port());
    assert_eq!(
        ask(&mut crate::client(&url), get("a"), AMPLE),
        Ok(redis::Value::Okay)
    );
}

/// Connect, greeting and request together take too long; each by itself does not.
#[test]
fn a_connection_that_comes_late_serves_the_next_time() {
    let server = Scripted::start(|asked| {
        let answer = match asked.words[0].as_str() {
            "SCRIPT" => "+OK\r\n".to_owned(),
            _ => "$1\r\na\r\n".to_owned(),
        };
        Later(TIME * 2 / 3, answer)
    });
    let mut client = Client::new(options(&server.url()), &SCRIPTS[..1]);
    let (answer, took) = timed(&mut client, get("a"), TIME);
    assert_eq!(reason(answer), "no answer in time");
    assert!((TIME..LATEST).contains(&took), "{took:?}");
    // The second one is made while the server is left alone.
    assert_eq!(ask_until_well(&mut client, &get("a")), text("a"));
    assert_eq!((server.connections(), server.count("GET")), (2, 2));
}
