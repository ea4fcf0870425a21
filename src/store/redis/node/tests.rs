//! Which of several addresses of a name is connected to.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use super::*;
use crate::store::redis::options::{RedisAddress, RedisOptions};
use crate::store::redis::wire::pack;

/// A server that answers each command.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut octets = [0; 4096];
            while let Ok(count @ 1..) = stream.read(&mut octets) {
                let commands = octets[..count].iter().filter(|&&octet| octet == b'*');
                stream
                    .write_all(&b"+OK\r\n".repeat(commands.count()))
                    .unwrap();
            }
        }
    });
    address
}

fn access() -> Access {
    Access {
        // A name server that fails takes nothing away.
        options: RedisOptions::new(RedisAddress::parse("redis://nobody.invalid").unwrap()),
        scripts: &["return 1"],
        is_cluster: false,
    }
}

/// Asks a node, and leaves it if it does not answer in time.
fn is_answered(node: &mut Node, access: &Access) -> bool {
    let begun = Instant::now();
    node.ask(Question::Request(0), pack(&[b"GET", b"a"]), begun);
    let mut answers = Vec::new();
    while begun.elapsed() < Duration::from_millis(200) {
        let mut set = PollSet::default();
        let started = node.start(access);
        node.register(&mut set, 0);
        set.wait(Some(Duration::from_millis(20))).unwrap();
        let advanced = started.and_then(|()| node.advance(access, set.readiness(0), &mut answers));
        if let Err(failure) = advanced {
            node.fail(failure, Instant::now());
            return false;
        }
        if !answers.is_empty() {
            return true;
        }
    }
    node.fail(Failure::late(), Instant::now());
    false
}

#[test]
fn the_address_that_serves_is_kept() {
    // It accepts, and that is all.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let known = [silent.local_addr().unwrap(), server()];
    let access = access();
    let host = "nobody.invalid".into();
    let mut node = Node::new(At::Host(HostPort { host, port: 1 }));
    node.lookup = Lookup::of(&known);
    let tries: Vec<bool> = (0..6)
        .map(|_| {
            let is_answered = is_answered(&mut node, &access);
            if is_answered {
                // As if the server had closed it.
                node.disconnect();
            }
            is_answered
        })
        .collect();
    assert_eq!(tries, [false, true, true, true, true, true]);
    // Nor does it lead away from there that one request was late.
    assert!(is_answered(&mut node, &access));
    node.fail(Failure::late(), Instant::now());
    assert!(is_answered(&mut node, &access));
    node.disconnect();
    // Who turns out to be a replica is not asked again at once.
    node.reconnect_later();
    assert!(!is_answered(&mut node, &access));
}
