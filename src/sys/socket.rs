//! Sockets: listeners of both kinds, and waiting for many descriptors at once.

use std::io;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use socket2::{Domain, SockAddr, Socket, Type};

/// A listening TCP socket; `both_families` lets an IPv6 one take IPv4 too.
pub fn listen_inet(address: SocketAddr, backlog: i32, both_families: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(!both_families)?;
    }
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A listening UNIX socket.
pub fn listen_unix(path: &Path, backlog: i32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(backlog)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// True if somebody listens on a UNIX socket.
pub fn is_unix_socket_alive(path: &Path) -> bool {
    let connect = || -> io::Result<()> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.connect(&SockAddr::unix(path)?)
    };
    match connect() {
        Ok(()) => true,
        // Its queue is full: somebody is there, if only just.
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Waits until one of the descriptors is ready; with `None` without end. False
/// if the time is over or a signal came.
pub fn poll(descriptors: &mut [PollFd], timeout: Option<Duration>) -> io::Result<bool> {
    let timeout = match timeout {
        None => PollTimeout::NONE,
        // Rounded up, so that a deadline has passed when the wait is over.
        Some(timeout) => {
            let milliseconds = timeout.as_micros().div_ceil(1000);
            PollTimeout::try_from(milliseconds.min(i32::MAX as u128)).unwrap_or(PollTimeout::MAX)
        }
    };
    match nix::poll::poll(descriptors, timeout) {
        Ok(ready) => Ok(ready > 0),
        Err(nix::Error::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits for one descriptor to take output.
pub fn wait_writable(descriptor: BorrowedFd, timeout: Duration) -> io::Result<bool> {
    poll(&mut [PollFd::new(descriptor, PollFlags::POLLOUT)], Some(timeout))
}
