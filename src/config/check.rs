//! `--check`: what the options name is looked at, and everything that would
//! keep the server from starting or mail from flowing is said. Nothing is
//! created, changed or asked of a running server.

use std::fs::{self, Metadata};
use std::net::{TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::socket::UnixAddr;
use nix::unistd::{Gid, Group, Uid, User};

use super::settings::{Listen, Settings};
use super::whitelists;
use crate::sys::errors::describe;

/// Says what is wrong, one problem an entry; empty: nothing is.
pub fn check(settings: &Settings) -> Vec<String> {
    let mut problems = Vec::new();
    problems.extend(
        whitelists::load(settings)
            .problems
            .into_iter()
            .map(|problem| problem.text),
    );
    let user = check_user(settings, &mut problems);
    let group = check_group(settings, &mut problems);
    check_dbdir(settings, user.as_ref(), group, &mut problems);
    for (option, file) in [
        ("pidfile", &settings.pidfile),
        ("stats-file", &settings.stats_file),
    ] {
        if let Some(file) = file {
            check_directory_of(option, file, &mut problems);
        }
    }
    check_sockets(&settings.listen, &mut problems);
    check_sleep(settings, &mut problems);
    if !settings.s25r && !settings.s25r_except.is_empty() {
        problems.push("--s25r-except: of no use without --s25r".into());
    }
    problems
}

fn check_user(settings: &Settings, problems: &mut Vec<String>) -> Option<User> {
    let user = match settings.user.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(&settings.user),
    };
    match user {
        Ok(Some(user)) if user.uid.is_root() => {
            problems.push(format!("--user: \"{}\" is root", settings.user))
        }
        Ok(Some(user)) => return Some(user),
        _ => problems.push(format!("--user: No such user \"{}\"", settings.user)),
    }
    None
}

/// The group the server will run as, as far as the options say.
fn check_group(settings: &Settings, problems: &mut Vec<String>) -> Option<Gid> {
    let name = settings.group.as_ref()?;
    let group = match name.parse() {
        Ok(number) => Group::from_gid(Gid::from_raw(number)),
        Err(_) => Group::from_name(name),
    };
    if let Ok(Some(group)) = group {
        return Some(group.gid);
    }
    problems.push(format!("--group: No such group \"{name}\""));
    None
}

fn check_dbdir(
    settings: &Settings,
    user: Option<&User>,
    group: Option<Gid>,
    problems: &mut Vec<String>,
) {
    let dbdir = settings.dbdir.display();
    match fs::metadata(&settings.dbdir) {
        Err(error) => problems.push(format!("--dbdir: {dbdir}: {}", describe(&error))),
        Ok(found) if !found.is_dir() => problems.push(format!("--dbdir: {dbdir}: Not a directory")),
        Ok(found) => {
            if let Some(user) = user
                && !is_writable_by(&found, user, group.unwrap_or(user.gid))
            {
                problems.push(format!(
                    "--dbdir: {dbdir}: user \"{}\" may not write there",
                    user.name
                ));
            }
        }
    }
}

/// True if the mode lets the user create files, as owner, by this group or as
/// anyone.
fn is_writable_by(directory: &Metadata, user: &User, group: Gid) -> bool {
    let shift = if directory.uid() == user.uid.as_raw() {
        6
    } else if directory.gid() == group.as_raw() {
        3
    } else {
        0
    };
    directory.mode() >> shift & 0o3 == 0o3
}

fn check_directory_of(option: &str, file: &Path, problems: &mut Vec<String>) {
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let why = match fs::metadata(directory) {
        Ok(found) if found.is_dir() => return,
        Ok(_) => "Not a directory".to_owned(),
        Err(error) => describe(&error),
    };
    problems.push(format!("--{option}: {}: {why}", directory.display()));
}

fn check_sockets(sockets: &[Listen], problems: &mut Vec<String>) {
    for (index, socket) in sockets.iter().enumerate() {
        if sockets[..index].contains(socket) {
            let option = if matches!(socket, Listen::Unix(_)) {
                "unix"
            } else {
                "inet"
            };
            problems.push(format!("--{option}: {socket} is given twice"));
            continue;
        }
        match socket {
            Listen::Unix(path) => check_unix(path, problems),
            Listen::Inet {
                host: Some(host),
                port: _,
            } => check_host(host, problems),
            Listen::Inet {
                host: None,
                port: _,
            } => {}
        }
    }
}

fn check_unix(path: &PathBuf, problems: &mut Vec<String>) {
    check_directory_of("unix", path, problems);
    if let Err(error) = UnixAddr::new(path) {
        problems.push(format!("--unix: {}: {}", path.display(), error.desc()));
    }
    // A stale socket is replaced at the start, anything else is left alone.
    if fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket()) {
        problems.push(format!(
            "--unix: {}: exists and is not a socket",
            path.display()
        ));
    }
}

/// Finds out whether the name has an address and this machine owns it; one is
/// enough, since localhost may have an IPv6 address where there is no IPv6.
/// Port 0 is asked for: the right one may be in use by the server that runs.
fn check_host(host: &str, problems: &mut Vec<String>) {
    let why = match (host, 0).to_socket_addrs() {
        Ok(addresses) => {
            let addresses: Vec<_> = addresses.collect();
            TcpListener::bind(&*addresses).err()
        }
        Err(error) => Some(error),
    };
    if let Some(error) = why {
        problems.push(format!("--inet: {host}: {}", describe(&error)));
    }
}

/// Postfix wants digits after SLEEP, and after the comma, where the action
/// goes without --targrey, the name of a restriction; it answers 451 to all
/// else.
fn check_sleep(settings: &Settings, problems: &mut Vec<String>) {
    let Some(seconds) = &settings.rules.tarpit else {
        return;
    };
    if !seconds.bytes().all(|byte| byte.is_ascii_digit()) {
        problems.push(format!(
            "--tarpit: Postfix refuses SLEEP {seconds}: give digits only"
        ));
    }
    let action = &settings.texts.greylist_action;
    if !settings.rules.targrey && !is_restriction(action) {
        problems.push(format!(
            "--greylist-action: with --tarpit and without --targrey Postfix refuses \"{action}\": \
             give a restriction such as DEFER_IF_PERMIT"
        ));
    }
}

/// True for a restriction of smtpd that takes no argument.
fn is_restriction(action: &str) -> bool {
    let action = action.to_ascii_lowercase();
    let is_word = action
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let names = [
        "permit",
        "reject",
        "defer",
        "defer_if_permit",
        "defer_if_reject",
        "defer_unauth_destination",
    ];
    names.contains(&action.as_str())
        || (is_word && (action.starts_with("permit_") || action.starts_with("reject_")))
}
