//! The addresses: whether they can be had, and whether Postfix can come there.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::socket::UnixAddr;
use socket2::Socket;

use super::{Findings, may_write_beside};
use crate::config::settings::{Listen, Settings};
use crate::server::listener::{MAX_LISTENERS, left_addresses};
use crate::sys::errors::describe;
use crate::sys::socket::{
    addresses_of, is_family_missing, is_unix_socket_alive, listen_inet, patiently,
};

const IN_USE: &str = "in use by another program";

/// Who may have an address now and will not at the start.
struct Own {
    /// A server of this directory runs, or one that the pid file names.
    is_running: bool,
    /// Its addresses, if it has left them.
    sockets: Vec<SocketAddr>,
    paths: Vec<PathBuf>,
    is_known: bool,
}

impl Own {
    fn new(settings: &Settings, server: Option<i32>, pid_file_is_held: bool) -> Own {
        let mut own = Own {
            is_running: server.is_some() || pid_file_is_held,
            sockets: Vec::new(),
            paths: Vec::new(),
            is_known: false,
        };
        // Without a server its orphans may still be there: a start waits for them.
        for listen in left_addresses(&settings.dbdir) {
            own.is_known = server.is_some();
            match listen {
                Listen::Unix(path) => own.paths.extend(same_path(&path)),
                Listen::Inet { host, port } => {
                    own.sockets
                        .extend(resolved(host.as_deref(), port).unwrap_or_default());
                }
            }
        }
        own
    }

    fn has(&self, address: &SocketAddr) -> bool {
        let is_same = |own: &SocketAddr| {
            let covers = |one: &SocketAddr| one.ip().is_unspecified() || own.ip() == address.ip();
            own.port() == address.port() && (covers(own) || covers(address))
        };
        self.sockets.iter().any(is_same)
    }
}

/// Looks at each address; one that the running server has may be in use.
pub fn check(
    settings: &Settings,
    server: Option<i32>,
    pid_file_is_held: bool,
    findings: &mut Findings,
) {
    let own = Own::new(settings, server, pid_file_is_held);
    // They are held to the end: two options may mean the same address.
    let mut held: Vec<Socket> = Vec::new();
    let mut count = 0;
    for (index, listen) in settings.listen.iter().enumerate() {
        match listen {
            Listen::Unix(path) if settings.listen[..index].contains(listen) => {
                findings.problem(format!("--unix: {} is given twice", path.display()));
            }
            Listen::Unix(path) => {
                count += 1;
                check_unix(path, &settings.dbdir, &own, findings);
            }
            Listen::Inet { host, port } => match resolved(host.as_deref(), *port) {
                Err(error) => findings.problem(format!("--inet: {listen}: {}", describe(&error))),
                Ok(addresses) => {
                    count += addresses.len();
                    check_inet(listen, &addresses, &own, &mut held, findings);
                }
            },
        }
    }
    if count > MAX_LISTENERS {
        findings.problem(format!("more than {MAX_LISTENERS} addresses to listen on"));
    }
}

/// The addresses of a host, as the start has them.
fn resolved(host: Option<&str>, port: u16) -> io::Result<Vec<SocketAddr>> {
    let Some(host) = host else {
        return Ok(vec![SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))]);
    };
    let mut addresses = addresses_of(host, port)?;
    addresses.sort();
    addresses.dedup();
    Ok(addresses)
}

/// Listens for a moment as the start does: at one address of a host at least, and at
/// none that is in use.
fn check_inet(
    listen: &Listen,
    addresses: &[SocketAddr],
    own: &Own,
    held: &mut Vec<Socket>,
    findings: &mut Findings,
) {
    let mut failure = None;
    let mut count = 0;
    for address in addresses {
        let is_own = own.has(address);
        let both = address.ip().is_unspecified();
        let bound = patiently(is_own && !own.is_running, || listen_inet(*address, 1, both));
        let bound = match bound {
            Err(error) if both && is_family_missing(&error) => listen_inet(
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())),
                1,
                false,
            ),
            bound => bound,
        };
        match bound {
            Ok(socket) => {
                count += 1;
                held.push(socket);
            }
            Err(error) if error.kind() != ErrorKind::AddrInUse => failure = Some(error),
            Err(_) if has_port(held, address.port()) => {
                return findings.problem(format!("--inet: {listen} is given twice"));
            }
            Err(_) if is_own && own.is_running => count += 1,
            Err(_) if own.is_running && !own.is_known => {
                count += 1;
                findings.note(format!(
                    "--inet: {listen}: in use, by the server that runs perhaps"
                ));
            }
            Err(_) => return findings.problem(format!("--inet: {listen}: {IN_USE}")),
        }
    }
    if count == 0 {
        let why = failure.map_or_else(|| "no address".into(), |error| describe(&error));
        findings.problem(format!("--inet: {listen}: {why}"));
    }
}

fn has_port(held: &[Socket], port: u16) -> bool {
    let port_of = |socket: &Socket| Some(socket.local_addr().ok()?.as_socket()?.port());
    held.iter().any(|socket| port_of(socket) == Some(port))
}

/// A path by which the same socket has the same name.
fn same_path(path: &Path) -> Option<PathBuf> {
    let parent = fs::canonicalize(path.parent()?).ok()?;
    Some(parent.join(path.file_name()?))
}

fn check_unix(path: &Path, dbdir: &Path, own: &Own, findings: &mut Findings) {
    let shown = path.display();
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Err(why) = may_write_beside(&path) {
        return findings.problem(format!("--unix: {why}"));
    }
    if let Err(error) = UnixAddr::new(&path) {
        findings.problem(format!("--unix: {shown}: {}", error.desc()));
    }
    let is_own = same_path(&path).is_some_and(|path| own.paths.contains(&path));
    match fs::symlink_metadata(&path) {
        // A stale socket is replaced at the start, anything else is left alone.
        Ok(found) if !found.file_type().is_socket() => {
            findings.problem(format!("--unix: {shown}: exists and is not a socket"));
        }
        Ok(_) if !is_own && is_unix_socket_alive(&path) => {
            if own.is_running && !own.is_known {
                findings.note(format!(
                    "--unix: {shown}: in use, by the server that runs perhaps"
                ));
            } else {
                findings.problem(format!("--unix: {shown}: {IN_USE}"));
            }
        }
        _ => {}
    }
    check_way(&same_path(&path).unwrap_or(path), dbdir, findings);
}

/// Whether another user comes to the socket through its directories.
fn check_way(path: &Path, dbdir: &Path, findings: &mut Findings) {
    let is_closed = |dir: &&Path| fs::metadata(dir).is_ok_and(|found| found.mode() & 0o001 == 0);
    let Some(closed) = path.ancestors().skip(1).find(is_closed) else {
        return;
    };
    let (shown, dir) = (path.display(), closed.display());
    let mode = fs::metadata(closed).map_or(0, |found| found.mode() & 0o7777);
    let same = |a: &Path, b: &Path| fs::canonicalize(a).ok() == fs::canonicalize(b).ok();
    match same(closed, dbdir) && mode & 0o010 == 0 {
        true => findings.problem(format!(
            "--unix: {shown}: Postfix cannot reach it: {dir} is for postgrey alone \
             (mode {mode:04o}); take a path in another directory"
        )),
        false => findings.note(format!(
            "--unix: {shown}: not everybody may enter {dir} (mode {mode:04o}): see that the \
             user of Postfix may"
        )),
    }
}
