//! Many connections, too many, and slow ones.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::server::{PROGRAM, Server, request, skip, test_dir};

#[test]
fn thousands_of_idle_connections_cost_descriptors_only() {
    const IDLE: usize = 2000;
    let limit = postgrey::sys::process::raise_descriptor_limit().unwrap();
    if limit < 2 * IDLE as u64 {
        skip("limit of 4000 descriptors", "thousands of idle connections");
        return;
    }
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=4"]);
    let idle: Vec<_> = (0..IDLE)
        .map(|_| UnixStream::connect(&server.socket).unwrap())
        .collect();
    let mut clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for _ in 0..3 {
        for client in &mut clients {
            assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
        }
    }
    drop(idle);
}

#[test]
fn when_descriptors_run_out_those_that_fit_are_served() {
    let dir = test_dir();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", PROGRAM]);
    let server = Server::start_by(command, dir.path(), &["--workers=1"]);
    let mut clients = Vec::new();
    for index in 0..30 {
        let mut client = server.connect();
        client.ask(&[("sender", &format!("s{index}@example.com"))]);
        clients.push(client);
    }
    // More than fit: they wait in the queue of the listener.
    let waiting: Vec<_> = (0..40)
        .map(|_| UnixStream::connect(&server.socket).unwrap())
        .collect();
    server.wait_for_log("no new connections: ", 1);
    for client in &mut clients {
        assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
    }
    drop(clients);
    drop(waiting);
    assert!(server.connect().ask(&[]).starts_with("DEFER_IF_PERMIT"));
    assert_eq!(server.log_text().matches("no new connections: ").count(), 1);
}

#[test]
fn a_slow_client_is_served_when_its_request_is_whole() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=1"]);
    let mut stream = UnixStream::connect(&server.socket).unwrap();
    let text = request(&[]);
    for octet in &text[..text.len() - 1] {
        stream.write_all(&[*octet]).unwrap();
    }
    // Half a request keeps nobody waiting.
    assert!(
        server
            .connect()
            .ask(&[("sender", "b@example.com")])
            .starts_with("DEFER_IF_PERMIT")
    );
    stream.write_all(b"\n").unwrap();
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"action=DEFER_IF_");
}
