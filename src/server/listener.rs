//! The sockets the server listens on: made by the master, shared by workers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::Socket;

use super::StartError;
use crate::config::settings::{Listen, Settings};
use crate::sys::errors::describe;
use crate::sys::process::{self, Identity};
use crate::sys::socket;

/// Sockets to listen on at most: a worker looks at all of them each turn.
pub const MAX_LISTENERS: usize = 64;

/// How long a start waits for sockets that are in use: the orphaned workers of
/// a killed master let go of them in less.
const PATIENCE: Duration = Duration::from_secs(3);
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Listening sockets.
#[derive(Default)]
pub struct Listeners {
    /// All of them, non-blocking.
    pub sockets: Vec<Socket>,
    /// A line about each for the log.
    pub lines: Vec<String>,
    /// What went wrong without being fatal.
    pub warnings: Vec<String>,
    paths: Vec<PathBuf>,
}

impl Listeners {
    /// Binds everything the settings name.
    pub fn bind(settings: &Settings, identity: &Identity) -> Result<Self, StartError> {
        let mut listeners = Listeners::default();
        for listen in &settings.listen {
            match listen {
                Listen::Unix(path) => listeners.bind_unix(path, settings, identity)?,
                Listen::Inet { host: None, port } => {
                    listeners.bind_everywhere(*port, settings.listen_queue_size)?;
                }
                Listen::Inet {
                    host: Some(host),
                    port,
                } => {
                    listeners.bind_host(host, *port, settings.listen_queue_size)?;
                }
            }
        }
        Ok(listeners)
    }

    fn bind_unix(
        &mut self,
        path: &Path,
        settings: &Settings,
        identity: &Identity,
    ) -> Result<(), StartError> {
        let fail = |error: io::Error| {
            let reason = describe(&error);
            let path = path.display();
            StartError::new(
                2,
                format!("ERROR: Can't connect to UNIX socket at file {path} [{reason}]"),
            )
        };
        let socket = patiently(|| {
            remove_stale_socket(path)?;
            socket::listen_unix(path, settings.socket_mode, settings.listen_queue_size)
        })
        .map_err(fail)?;
        if process::is_root() {
            std::os::unix::fs::lchown(
                path,
                Some(identity.uid.as_raw()),
                Some(identity.gid.as_raw()),
            )
            .map_err(fail)?;
        }
        self.sockets.push(socket);
        self.lines
            .push(format!("Binding to UNIX socket file {}", path.display()));
        // The master changes its directory when it goes to the background.
        self.paths.push(std::path::absolute(path).map_err(fail)?);
        Ok(())
    }

    /// All addresses of the machine: one socket for both families, or IPv4
    /// alone where there is no IPv6.
    fn bind_everywhere(&mut self, port: u16, backlog: i32) -> Result<(), StartError> {
        let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        match patiently(|| socket::listen_inet(v6, backlog, true)) {
            Ok(socket) => {
                self.add_inet(socket, "*");
                Ok(())
            }
            Err(error) if is_family_missing(&error) => {
                let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
                let socket = patiently(|| socket::listen_inet(v4, backlog, false))
                    .map_err(|error| inet_error("*", port, &error))?;
                self.add_inet(socket, "*");
                Ok(())
            }
            Err(error) => Err(inet_error("*", port, &error)),
        }
    }

    /// All addresses of a host; one that this machine does not have only
    /// warns, as long as another works.
    fn bind_host(&mut self, host: &str, port: u16, backlog: i32) -> Result<(), StartError> {
        let mut addresses =
            addresses_of(host, port).map_err(|error| inet_error(host, port, &error))?;
        addresses.sort();
        addresses.dedup();
        let mut failures = Vec::new();
        let mut bound = 0;
        for address in addresses {
            match patiently(|| socket::listen_inet(address, backlog, false)) {
                Ok(socket) => {
                    bound += 1;
                    self.add_inet(socket, host);
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Err(inet_error(host, port, &error));
                }
                Err(error) => failures.push((address, error)),
            }
        }
        match failures.first() {
            Some((_, error)) if bound == 0 => Err(inet_error(host, port, error)),
            None if bound == 0 => Err(StartError::new(
                255,
                format!("ERROR: no address for {host}"),
            )),
            _ => {
                self.warnings.extend(
                    failures
                        .iter()
                        .map(|(at, error)| format!("not listening on {at}: {}", describe(error))),
                );
                Ok(())
            }
        }
    }

    fn add_inet(&mut self, socket: Socket, host: &str) {
        let port = socket
            .local_addr()
            .ok()
            .and_then(|address| address.as_socket());
        let port = port.map_or(0, |address| address.port());
        self.lines
            .push(format!("Binding to TCP port {port} on host {host}"));
        self.sockets.push(socket);
    }

    /// Removes the files of UNIX sockets; where that is not allowed they stay,
    /// and the next start replaces them.
    pub fn remove_files(&self) {
        for path in &self.paths {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Tries again for a while as long as the address is in use.
fn patiently(mut bind: impl FnMut() -> io::Result<Socket>) -> io::Result<Socket> {
    let start = Instant::now();
    loop {
        match bind() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && start.elapsed() < PATIENCE =>
            {
                std::thread::sleep(RETRY_INTERVAL);
            }
            result => return result,
        }
    }
}

/// A socket nobody listens on is removed; one that is in use is an error, and
/// so is anything else of that name.
fn remove_stale_socket(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::from_raw_os_error(libc::EEXIST));
    }
    if socket::is_unix_socket_alive(path) {
        return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
    }
    std::fs::remove_file(path)
}

/// The addresses of a host. That of localhost is known (RFC 6761, section 6.3)
/// where no file and no name server knows it.
fn addresses_of(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    match (host, port).to_socket_addrs() {
        Err(_) if host == "localhost" => Ok(vec![
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        ]),
        found => found.map(Iterator::collect),
    }
}

fn is_family_missing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL | libc::EPROTONOSUPPORT)
    )
}

fn inet_error(host: &str, port: u16, error: &io::Error) -> StartError {
    let reason = describe(error);
    StartError::new(
        255,
        format!("ERROR: Can't connect to TCP port {port} on {host} [{reason}]"),
    )
}
