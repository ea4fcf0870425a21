//! The null server: reads requests, splits their attributes, answers DUNNO.
//! What no server can beat that works as ours does.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use postgrey::sys::poll::{Interest, PollSet};
use socket2::Socket;

/// Serves at an address until standard input ends.
pub fn serve(transport: &str, address: &str) {
    let listener: OwnedFd = match transport {
        "unix" => {
            let listener = UnixListener::bind(address).unwrap();
            // The clients may be another user's, as Postfix's are.
            fs::set_permissions(address, Permissions::from_mode(0o666)).unwrap();
            listener.into()
        }
        _ => TcpListener::bind(address).unwrap().into(),
    };
    let listener = Socket::from(listener);
    listener.listen(999).unwrap();
    listener.set_nonblocking(true).unwrap();
    let mut poll = PollSet::default();
    poll.set(0, &std::io::stdin(), Interest::INPUT);
    poll.set(1, &listener, Interest::INPUT);
    let mut connections: Vec<Option<(Socket, Vec<u8>)>> = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        poll.wait(None).unwrap();
        let parent = poll.readiness(0);
        if parent.input || parent.gone {
            return;
        }
        while poll.readiness(1).input {
            let Ok((socket, _)) = listener.accept() else {
                break;
            };
            socket.set_nonblocking(true).unwrap();
            let _ = socket.set_tcp_nodelay(true);
            let free = connections.iter().position(Option::is_none);
            let index = free.unwrap_or(connections.len());
            if free.is_none() {
                connections.push(None);
            }
            poll.set(2 + index, &socket, Interest::INPUT);
            connections[index] = Some((socket, Vec::new()));
        }
        for (index, place) in connections.iter_mut().enumerate() {
            let ready = poll.readiness(2 + index);
            if !(ready.input || ready.gone) {
                continue;
            }
            let Some((socket, kept)) = place else {
                continue;
            };
            let is_open = match (&*socket).read(&mut buffer) {
                Ok(0) => false,
                Ok(length) => answer(socket, kept, &buffer[..length]),
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            };
            if !is_open {
                poll.clear(2 + index);
                *place = None;
            }
        }
    }
}

/// Answers each whole request; false if the peer is gone.
fn answer(mut socket: &Socket, kept: &mut Vec<u8>, read: &[u8]) -> bool {
    kept.extend_from_slice(read);
    let mut start = 0;
    let mut line = 0;
    let mut attributes = 0_usize;
    while let Some(length) = memchr::memchr(b'\n', &kept[line..]) {
        if length > 0 {
            attributes += usize::from(memchr::memchr(b'=', &kept[line..line + length]).is_some());
            line += length + 1;
            continue;
        }
        line += 1;
        start = line;
        std::hint::black_box(attributes);
        if socket.write(b"action=DUNNO\n\n").is_err() {
            return false;
        }
    }
    kept.drain(..start);
    true
}
