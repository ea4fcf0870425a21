//! Sockets that listen.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::process;
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

/// A listening UNIX socket of this mode. The mode comes from the umask: by the
/// time of a chmod(2) the path could lead to another file.
pub fn listen_unix(path: &Path, mode: u32, backlog: i32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    let address = SockAddr::unix(path)?;
    let umask = process::set_umask(0o777 & !mode);
    let bound = socket.bind(&address);
    process::set_umask(umask);
    bound?;
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
