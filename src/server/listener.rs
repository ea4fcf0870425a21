//! The sockets the server listens on: made by the master, shared by workers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use socket2::Socket;

use super::start_error::StartError;
use crate::config::settings::{Listen, Settings};
use crate::config::{self, Invocation, saved};
use crate::sys::errors::describe;
use crate::sys::process::{self, Identity};
use crate::sys::socket::{self, addresses_of, is_family_missing, patiently, remove_stale_socket};

/// Sockets to listen on at most: a worker looks at all of them each turn.
pub const MAX_LISTENERS: usize = 64;

/// Why an address cannot be had.
const IN_USE: &str = "in use by another program";
const NO_SOCKET: &str = "it is no socket: remove it, or give another path";

/// Listening sockets. The files of UNIX sockets go with it, in the process that
/// made them.
#[derive(Default)]
pub struct Listeners {
    /// All of them, non-blocking.
    pub sockets: Vec<Socket>,
    /// A line about each for the log.
    pub lines: Vec<String>,
    /// What went wrong without being fatal.
    pub warnings: Vec<String>,
    paths: Vec<PathBuf>,
    owner: u32,
    /// Where the last server of this directory listened: orphaned workers of one that
    /// was killed let go of it soon.
    left: Vec<Listen>,
}

/// Where the server that has left its options in this directory listened.
pub fn left_addresses(dbdir: &Path) -> Vec<Listen> {
    let words = saved::read(dbdir).ok().flatten();
    let words = words.as_deref().map(saved::words).unwrap_or_default();
    match config::parse_over(&words, &[]) {
        Ok(Invocation::PrintConfig(settings)) => settings.listen,
        _ => Vec::new(),
    }
}

impl Listeners {
    /// Binds everything the settings name.
    pub fn bind(settings: &Settings, identity: &Identity) -> Result<Self, StartError> {
        let mut listeners = Listeners::default();
        listeners.owner = std::process::id();
        listeners.left = left_addresses(&settings.dbdir);
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
            let path = path.display();
            let why = match error.raw_os_error() {
                Some(libc::EADDRINUSE) => IN_USE,
                Some(libc::EEXIST) => NO_SOCKET,
                _ => {
                    let reason = describe(&error);
                    return StartError::new(
                        2,
                        format!("ERROR: Can't connect to UNIX socket at file {path} [{reason}]"),
                    );
                }
            };
            StartError::new(2, format!("ERROR: cannot listen on {path}: {why}"))
        };
        let absolute = std::path::absolute(path).map_err(fail)?;
        let is_left = self.left.contains(&Listen::Unix(absolute.clone()));
        let socket = patiently(is_left, || {
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
        self.paths.push(absolute);
        Ok(())
    }

    /// All addresses of the machine: one socket for both families, or IPv4
    /// alone where there is no IPv6.
    fn bind_everywhere(&mut self, port: u16, backlog: i32) -> Result<(), StartError> {
        let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let is_left = self.was_left(None, port);
        match patiently(is_left, || socket::listen_inet(v6, backlog, true)) {
            Ok(socket) => {
                self.add_inet(socket, "*");
                Ok(())
            }
            Err(error) if is_family_missing(&error) => {
                let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
                let socket = patiently(is_left, || socket::listen_inet(v4, backlog, false))
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
        let is_left = self.was_left(Some(host), port);
        for address in addresses {
            match patiently(is_left, || socket::listen_inet(address, backlog, false)) {
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

    fn was_left(&self, host: Option<&str>, port: u16) -> bool {
        let host = host.map(str::to_owned);
        self.left.contains(&Listen::Inet { host, port })
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
}

impl Drop for Listeners {
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            for path in &self.paths {
                // Where that is not allowed it stays, and the next start
                // replaces it.
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

fn inet_error(host: &str, port: u16, error: &io::Error) -> StartError {
    let message = match error.kind() {
        io::ErrorKind::AddrInUse => format!("ERROR: cannot listen on {host}:{port}: {IN_USE}"),
        _ => {
            let reason = describe(error);
            format!("ERROR: Can't connect to TCP port {port} on {host} [{reason}]")
        }
    };
    StartError::new(255, message)
}
