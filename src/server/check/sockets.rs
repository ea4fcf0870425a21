//! The addresses: whether they can be had, and whether Postfix can come there.

use std::fs;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use nix::sys::socket::UnixAddr;

use super::{Findings, may_write_beside};
use crate::config::settings::{Listen, Settings};
use crate::server::listener::left_addresses;
use crate::sys::errors::describe;
use crate::sys::socket::{addresses_of, is_family_missing, is_unix_socket_alive, listen_inet};

/// Looks at each address; one that the running server has may be in use.
pub fn check(settings: &Settings, server: Option<i32>, findings: &mut Findings) {
    // As the server has left its own.
    let settings = &settings
        .with_absolute_paths()
        .unwrap_or_else(|_| settings.clone());
    let own = match server {
        Some(_) => left_addresses(&settings.dbdir),
        None => Vec::new(),
    };
    for (index, listen) in settings.listen.iter().enumerate() {
        let option = match listen {
            Listen::Unix(_) => "unix",
            Listen::Inet { .. } => "inet",
        };
        let mut problem = |why: String| findings.problem(format!("--{option}: {why}"));
        if settings.listen[..index].contains(listen) {
            problem(format!("{listen} is given twice"));
            continue;
        }
        let is_own = own.contains(listen);
        match listen {
            Listen::Unix(path) => check_unix(path, &settings.dbdir, is_own, findings),
            Listen::Inet { host, port } => {
                if let Err(error) = bind(host.as_deref(), *port)
                    && !(is_own && error.kind() == ErrorKind::AddrInUse)
                {
                    problem(format!("{listen}: {}", why_not(&error)));
                }
            }
        }
    }
}

fn why_not(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::AddrInUse => "in use by another program".to_owned(),
        _ => describe(error),
    }
}

/// Listens for a moment as the start does: at one address of a host at least, and at
/// none that is in use.
fn bind(host: Option<&str>, port: u16) -> io::Result<()> {
    let Some(host) = host else {
        let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        return match listen_inet(v6, 1, true) {
            Err(error) if is_family_missing(&error) => {
                listen_inet(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), 1, false).map(drop)
            }
            result => result.map(drop),
        };
    };
    let mut result = Err(io::Error::other("no address"));
    for address in addresses_of(host, port)? {
        match listen_inet(address, 1, false) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => return Err(error),
            Err(error) if result.is_err() => result = Err(error),
            Err(_) => {}
            Ok(_) => result = Ok(()),
        }
    }
    result
}

fn check_unix(path: &Path, dbdir: &Path, is_own: bool, findings: &mut Findings) {
    let shown = path.display();
    if let Err(why) = may_write_beside(path) {
        return findings.problem(format!("--unix: {why}"));
    }
    if let Err(error) = UnixAddr::new(path) {
        findings.problem(format!("--unix: {shown}: {}", error.desc()));
    }
    match fs::symlink_metadata(path) {
        // A stale socket is replaced at the start, anything else is left alone.
        Ok(found) if !found.file_type().is_socket() => {
            findings.problem(format!("--unix: {shown}: exists and is not a socket"));
        }
        Ok(_) if !is_own && is_unix_socket_alive(path) => {
            findings.problem(format!("--unix: {shown}: in use by another program"));
        }
        _ => {}
    }
    check_way(path, dbdir, findings);
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
