//! Sockets that listen.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::process;
use socket2::{Domain, SockAddr, Socket, Type};

/// How long a start waits for sockets that are in use: the orphaned workers of
/// a killed master let go of them in less.
const PATIENCE: Duration = Duration::from_secs(3);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

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

/// Tries again for a while as long as the address is in use, if that is likely to
/// end.
pub fn patiently(
    may_end: bool,
    mut bind: impl FnMut() -> io::Result<Socket>,
) -> io::Result<Socket> {
    let start = Instant::now();
    loop {
        match bind() {
            Err(error)
                if may_end
                    && error.kind() == io::ErrorKind::AddrInUse
                    && start.elapsed() < PATIENCE =>
            {
                std::thread::sleep(RETRY_INTERVAL);
            }
            result => return result,
        }
    }
}

/// A socket nobody listens on is removed; one that is in use is an error, and
/// so is anything else of that name.
pub fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::from_raw_os_error(libc::EEXIST));
    }
    if is_unix_socket_alive(path) {
        return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
    }
    std::fs::remove_file(path)
}

/// The addresses of a host. That of localhost is known (RFC 6761, section 6.3)
/// where no file and no name server knows it.
pub fn addresses_of(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match (host, port).to_socket_addrs() {
        Err(_) if host == "localhost" => Ok(vec![
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        ]),
        found => found.map(Iterator::collect),
    }
}

/// True if this machine has no addresses of that family.
pub fn is_family_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT)
    )
}
