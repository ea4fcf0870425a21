//! From the settings to a running server, and to its end.
//!
//! The order of a start: lock, sockets, pid file, privileges, database,
//! whitelists, children. What needs root comes first; what can fail comes
//! before anybody is told that the server runs.

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use nix::unistd::{AccessFlags, Group, access};

use super::background::Report;
use super::children::{Links, Parts};
use super::listener::{Listeners, MAX_LISTENERS};
use super::lists::load_policy;
use super::master::{Master, watch_signals};
use super::options_file::write_for_daemon;
use super::pidfile::PidFile;
use super::shared::Shared;
use super::start_error::{StartError, give_to};
use super::verification::Reason;
use crate::config::settings::Settings;
use crate::config::{VERSION, paths};
use crate::log::{Level, Log, Sinks, report_panics_to_syslog};
use crate::policy::record::Database;
use crate::store::berkeley::old_berkeley_files;
use crate::store::lmdb::claim::{data_file, lock_file, restore_file};
use crate::store::lmdb::mark::is_marked;
use crate::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use crate::store::{ErrorKind, Store, StoreError};
use crate::sys::errors::describe;
use crate::sys::files::remove_if_there;
use crate::sys::lock::{Claim, LockFile};
use crate::sys::process::{self, ChildResult, Identity};
use crate::sys::syslog;

/// Seconds for which a start waits for the first look at the database. Requests
/// are served from then on, whatever the disk does.
const FIRST_LOOK: u32 = 1;
/// The files of versions that had a journal.
const JOURNAL_FILES: [&str; 3] = ["data.mdb.journal", "data.mdb.copy", "data.mdb.rebuilt"];
/// How long that look waits for another process that writes.
const LOOK_PATIENCE: Duration = Duration::from_millis(500);

/// From the settings to a running server, and to its end.
pub fn serve(settings: &Settings, report: &Report) -> Result<(), StartError> {
    let identity = find_identity(settings)?;
    process::set_umask(0o077);
    process::forbid_core_dumps()
        .map_err(|error| StartError::of_io("cannot forbid core dumps", &error))?;
    let lock = take_daemon_lock(settings, &identity)?;
    // Before anything is made that an end in order removes.
    let signals =
        watch_signals().map_err(|error| StartError::of_io("cannot watch for signals", &error))?;
    let listeners = Listeners::bind(settings, &identity)?;
    if listeners.sockets.len() > MAX_LISTENERS {
        let most = MAX_LISTENERS;
        return Err(StartError::new(
            2,
            format!("ERROR: more than {most} addresses to listen on"),
        ));
    }
    let is_daemon = settings.daemonize;
    let shared = Shared::new(settings.workers)
        .map_err(|error| StartError::of_io("cannot share memory", &error))?;
    let sinks = Sinks {
        stderr: !is_daemon || settings.log_stderr,
        syslog: is_daemon,
        times: settings.log_time,
    };
    if is_daemon {
        syslog::open(&settings.syslog_facility);
        report_panics_to_syslog();
    }
    let log = Rc::new(Log::new(settings.verbosity, sinks, shared.complaints));
    let pid_file = PidFile::write(settings.pidfile.as_deref(), &identity)?;
    log_start(&log, &listeners, &identity, is_daemon);
    process::become_user(&identity)
        .map_err(|message| StartError::new(255, format!("ERROR: {message}")))?;
    let doubt = match settings.store.is_lmdb() {
        true => {
            let doubt = look_at_database(settings, &identity, &lock, &log)?;
            tell_of_journal(settings, &log);
            doubt
        }
        // It is reached when it is needed: mail does not wait for it.
        false => None,
    };
    if let Some(ignored) = &settings.ignored_words {
        log.complain(ignored);
    }
    let policy = load_policy(settings, &log);
    write_for_daemon(settings, &log);
    if is_daemon {
        let keep_stderr = settings.log_stderr;
        process::close_stdio(keep_stderr)
            .map_err(|error| StartError::of_io("cannot close standard output", &error))?;
    }
    let links = Links::new(settings.workers)
        .map_err(|error| StartError::of_io("cannot make sockets", &error))?;
    let parts = Parts {
        settings: settings.clone(),
        policy,
        listeners,
        lock,
        log: Rc::clone(&log),
        shared,
        links,
    };
    let mut master = Master::new(parts, pid_file, signals, report.clone(), doubt);
    let result = master.run();
    log.write_timestamped(Level::Two, b"Server closing!");
    result.map_err(|error| StartError::of_io("the master ends", &error))
}

/// Whom the server becomes: with root's privileges the user of the settings;
/// without, whoever started it, unless another user was asked for.
pub(super) fn find_identity(settings: &Settings) -> Result<Identity, StartError> {
    let fail = |message: String| StartError::new(255, format!("ERROR: {message}"));
    if !process::is_root() && settings.user == paths::USER {
        return process::current_identity().map_err(fail);
    }
    let identity = process::find_identity(&settings.user, settings.group.as_deref(), paths::GROUP)
        .map_err(fail)?;
    if identity.uid.is_root() {
        return Err(fail(format!("--user: \"{}\" is root", settings.user)));
    }
    Ok(identity)
}

/// What to do so that this user can use the directory of the database and what is in
/// it, as the end of a message; empty if it is not that.
pub(super) fn advice_for_dbdir(dbdir: &Path, identity: &Identity) -> String {
    let group = Group::from_gid(identity.gid).ok().flatten();
    let group = group.map_or_else(|| identity.gid.to_string(), |group| group.name);
    let chown = |path: &Path| format!("chown {}:{group} {}", identity.name, path.display());
    match std::fs::symlink_metadata(dbdir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let dir = dbdir.display();
            return format!(": mkdir -m 0700 {dir} && {}", chown(dbdir));
        }
        _ if !dbdir.is_dir() => return String::new(),
        _ => {}
    }
    let is_refused = |path: &Path, flags| access(path, flags) == Err(nix::Error::EACCES);
    if is_refused(dbdir, AccessFlags::W_OK | AccessFlags::X_OK) {
        return format!(": {}", chown(dbdir));
    }
    let files = files_to_write(dbdir);
    let refused = files
        .iter()
        .find(|path| is_refused(path, AccessFlags::R_OK | AccessFlags::W_OK));
    refused.map_or_else(String::new, |path| format!(": {}", chown(path)))
}

/// The files that a server has to write, if they are there.
pub(super) fn files_to_write(dbdir: &Path) -> [PathBuf; 3] {
    [data_file(dbdir), dbdir.join("lock.mdb"), lock_file(dbdir)]
}

/// Makes sure that no other daemon uses the directory.
fn take_daemon_lock(settings: &Settings, identity: &Identity) -> Result<LockFile, StartError> {
    let path = lock_file(&settings.dbdir);
    let fail = |error: io::Error| {
        let (path, reason) = (path.display(), describe(&error));
        let advice = advice_for_dbdir(&settings.dbdir, identity);
        StartError::new(
            2,
            format!("ERROR: can't open lock file: {path}: {reason}{advice}"),
        )
    };
    let lock = LockFile::new(path.clone(), 0o600);
    give_to(lock.file().map_err(fail)?, identity).map_err(fail)?;
    if lock.try_lock(Claim::Daemon).map_err(fail)? {
        // Of a restore that was killed: one that goes on has this lock.
        let _ = remove_if_there(&restore_file(&settings.dbdir));
        return Ok(lock);
    }
    let holder = lock.holder(Claim::Daemon).ok().flatten();
    let holder = holder.map_or_else(String::new, |pid| format!(" (by process {pid})"));
    Err(StartError::new(
        11,
        format!("ERROR: locked: {}{holder}", path.display()),
    ))
}

/// The lines of a start, in the shapes that logwatch knows.
fn log_start(log: &Log, listeners: &Listeners, identity: &Identity, is_daemon: bool) {
    let pid = std::process::id();
    let starting = format!("postgrey (type postgrey {VERSION}) starting! pid({pid})");
    log.write_timestamped(Level::Two, starting.as_bytes());
    for line in &listeners.lines {
        log.write(Level::Two, line.as_bytes());
    }
    for warning in &listeners.warnings {
        log.complain(warning);
    }
    if process::is_root() {
        let (uid, gid) = (identity.uid, identity.gid);
        log.write(
            Level::Two,
            format!("Setting gid to \"{gid} {gid}\"").as_bytes(),
        );
        log.write(Level::Two, format!("Setting uid to \"{uid}\"").as_bytes());
    }
    if is_daemon {
        log.write(Level::Two, b"Process Backgrounded");
    }
}

/// Names what versions between the releases have left, which nobody uses.
fn tell_of_journal(settings: &Settings, log: &Log) {
    let is_there = |name: &&str| settings.dbdir.join(name).exists();
    let left: Vec<&str> = JOURNAL_FILES.into_iter().filter(is_there).collect();
    if !left.is_empty() {
        let (names, dbdir) = (left.join(", "), settings.dbdir.display());
        let line = format!("files of an unreleased version in {dbdir} are not used: {names}");
        log.write(Level::One, line.as_bytes());
    }
}

/// Opens the database once, in a process of its own, which may die of it: what
/// the system refuses ends the start; of damage, or a mark, the reason for a
/// verification comes back.
fn look_at_database(
    settings: &Settings,
    identity: &Identity,
    lock: &LockFile,
    log: &Log,
) -> Result<Option<Reason>, StartError> {
    const DAMAGED: &str = "\0";
    const OLD_FILES: &str = "old files";
    let looked = process::run_in_child(FIRST_LOOK, || {
        let found = lock
            .for_child()
            .map_err(|error| StoreError::of_io("dup", lock.path(), &error))
            .and_then(|lock| open_once(settings, lock));
        match found {
            Ok(true) => Ok(OLD_FILES.to_owned()),
            Ok(false) => Ok(String::new()),
            Err(error) if error.kind == ErrorKind::Damage => Err(format!("{DAMAGED}{error}")),
            Err(error) if error.kind == ErrorKind::Busy => Ok(String::new()),
            Err(error) => Err(error.to_string()),
        }
    });
    let doubt = match looked {
        Ok(ChildResult::Ok(found)) => {
            if found == OLD_FILES {
                let dbdir = settings.dbdir.display();
                let line = format!(
                    "old Berkeley DB files in {dbdir} are not used: \"postgreyctl --dbdir={dbdir} import {dbdir}\" takes them along"
                );
                log.write(Level::One, line.as_bytes());
            }
            None
        }
        Ok(ChildResult::Err(why)) if why.starts_with(DAMAGED) => Some(Reason::Damage),
        Ok(ChildResult::Err(why)) => {
            let advice = advice_for_dbdir(&settings.dbdir, identity);
            return Err(StartError::new(2, format!("ERROR: {why}{advice}")));
        }
        Ok(ChildResult::Crashed(_)) => Some(Reason::Damage),
        Err(error) => {
            // A disk that hangs, or a machine without room: the children will see.
            log.complain(&format!("cannot look at the database: {error}"));
            None
        }
    };
    Ok(match is_marked(&settings.dbdir) {
        true => Some(Reason::Mark),
        false => doubt,
    })
}

/// True if the greylist is empty beside the records of years in the original's
/// files: whoever comes from there is told how to take them along.
fn open_once(settings: &Settings, lock: LockFile) -> Result<bool, StoreError> {
    if is_marked(&settings.dbdir) {
        return Ok(false);
    }
    let options = LmdbOptions {
        dir: settings.dbdir.clone(),
        map_size: settings.db_size,
        purpose: Purpose::WriteFlushed,
        patience: LOOK_PATIENCE,
    };
    let mut store = LmdbStore::with_lock(options, lock);
    store.prepare()?;
    if store.is_short()? {
        let why = "the file ends before its last page";
        return Err(StoreError::new(
            ErrorKind::Damage,
            "stat",
            &settings.dbdir,
            why,
        ));
    }
    if old_berkeley_files(&settings.dbdir).is_empty() {
        return Ok(false);
    }
    let mut is_empty = true;
    store.scan(Database::Greylist, b"", None, &mut |_| {
        is_empty = false;
        ControlFlow::Break(())
    })?;
    Ok(is_empty)
}
