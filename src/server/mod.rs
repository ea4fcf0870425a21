//! The server: how it starts, serves and ends.
//!
//! The order of a start: lock, sockets, pid file, privileges, store,
//! whitelists, children. What needs root comes first; what can fail comes
//! before anybody is told that the server runs.

pub mod children;
pub mod commit;
pub mod control;
pub mod counters;
pub mod datagram;
pub mod engine;
pub mod listener;
pub mod lull;
pub mod master;
pub mod pace;
pub mod recovery;
pub mod session;
pub mod shared;
pub mod spawn;
pub mod waiting;
pub mod worker;
pub mod writer;

#[cfg(test)]
mod buggy;

use std::cell::Cell;
use std::fmt;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::rc::Rc;

use crate::config::settings::Settings;
use crate::config::{VERSION, paths, whitelists};
use crate::log::{Level, Log, Sinks};
use crate::policy::decide::Policy;
use crate::policy::record::Database;
use crate::store::Store;
use crate::store::berkeley::old_berkeley_files;
use crate::store::copies::{is_marked, remove_mark, set_mark};
use crate::store::journal;
use crate::store::lmdb::LmdbStore;
use crate::sys::errors::describe;
use crate::sys::lock::{Claim, LockFile};
use crate::sys::process::{self, Identity, Side};
use crate::sys::{clock, syslog};
use listener::{Listeners, MAX_LISTENERS};
use master::{Master, lmdb_options};
use shared::Shared;

/// Why the server does not start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    /// The status the program ends with.
    pub exit_code: i32,
    /// The text for standard error.
    pub message: String,
}

impl StartError {
    fn new(exit_code: i32, message: impl Into<String>) -> Self {
        StartError {
            exit_code,
            message: message.into(),
        }
    }

    fn of_io(what: &str, error: &io::Error) -> Self {
        StartError::new(2, format!("ERROR: {what}: {}", describe(error)))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for StartError {}

/// Serves until a signal ends it; returns the exit status.
pub fn run(settings: &Settings) -> i32 {
    process::clean_environment();
    if settings.spawn {
        return spawn::run(settings);
    }
    if !settings.daemonize {
        return match serve(settings, &Report::default()) {
            Ok(()) => 0,
            Err(error) => {
                say(&error.message);
                error.exit_code
            }
        };
    }
    match go_to_background(settings) {
        Ok(status) => status,
        Err(error) => {
            say(&format!("ERROR: cannot go to the background: {error}"));
            2
        }
    }
}

/// Writes a line to standard error; if that is closed nobody can be told.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Starts the server as a process of its own and waits for its word: an octet
/// 0 when it serves, else the reason why it does not.
fn go_to_background(settings: &Settings) -> io::Result<i32> {
    let settings = with_absolute_paths(settings)?;
    let (mut ours, theirs) = UnixStream::pair()?;
    match process::fork()? {
        Side::Child => {
            drop(ours);
            let status = match process::leave_terminal() {
                Ok(()) => run_in_background(&settings, theirs),
                Err(_) => 2,
            };
            std::process::exit(status);
        }
        Side::Parent(pid) => {
            drop(theirs);
            let mut word = Vec::new();
            let mut octet = [0];
            while ours.read(&mut octet)? == 1 {
                if octet == [0] {
                    return Ok(0);
                }
                word.push(octet[0]);
            }
            say(&String::from_utf8_lossy(&word));
            let status = nix::sys::wait::waitpid(pid, None)?;
            Ok(match status {
                nix::sys::wait::WaitStatus::Exited(_, status) if status != 0 => status,
                _ => 2,
            })
        }
    }
}

/// Where a server in the background says, once, how its start went. Children
/// of the server take it out and drop it.
#[derive(Clone, Default)]
pub struct Report(Rc<Cell<Option<UnixStream>>>);

impl Report {
    fn to(socket: UnixStream) -> Self {
        Report(Rc::new(Cell::new(Some(socket))))
    }

    fn send(&self, word: &[u8]) {
        if let Some(mut socket) = self.0.take() {
            // Whoever started us may be gone; we serve all the same.
            let _ = socket.write_all(word);
        }
    }

    fn drop_unsent(&self) {
        self.0.take();
    }
}

fn run_in_background(settings: &Settings, report: UnixStream) -> i32 {
    let report = Report::to(report);
    match serve(settings, &report) {
        Ok(()) => 0,
        Err(error) => {
            syslog::open(facility_of(settings));
            Log::to_syslog().write(Level::Fatal, error.message.as_bytes());
            report.send(error.message.as_bytes());
            error.exit_code
        }
    }
}

/// The directory changes on the way to the background; paths must not.
fn with_absolute_paths(settings: &Settings) -> io::Result<Settings> {
    let mut settings = settings.clone();
    let whitelists = settings
        .whitelist_clients
        .iter_mut()
        .chain(&mut settings.whitelist_recipients)
        .chain(&mut settings.s25r_except);
    let files = settings.pidfile.iter_mut().chain(&mut settings.stats_file);
    for path in whitelists.chain(files).chain([&mut settings.dbdir]) {
        *path = std::path::absolute(&*path)?;
    }
    for listen in &mut settings.listen {
        if let crate::config::settings::Listen::Unix(path) = listen {
            *path = std::path::absolute(&*path)?;
        }
    }
    Ok(settings)
}

fn facility_of(settings: &Settings) -> i32 {
    syslog::facility_number(&settings.syslog_facility).unwrap_or(libc::LOG_MAIL)
}

/// From the settings to a running server, and to its end.
fn serve(settings: &Settings, report: &Report) -> Result<(), StartError> {
    let identity = find_identity(settings)?;
    process::set_umask(0o077);
    process::forbid_core_dumps()
        .map_err(|error| StartError::of_io("cannot forbid core dumps", &error))?;
    let lock = take_daemon_lock(settings, &identity)?;
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
    };
    if is_daemon {
        syslog::open(facility_of(settings));
        report_panics_to_syslog();
    }
    let log = Rc::new(Log::new(settings.verbosity, sinks, shared.complaints));
    let pid_file = PidFile::write(settings, &identity)?;
    log_start(&log, &listeners, &identity, is_daemon);
    process::become_user(&identity)
        .map_err(|message| StartError::new(255, format!("ERROR: {message}")))?;
    if let Err(error) = recovery::recover(&settings.dbdir, &lock, &log) {
        log.complain(&format!("cannot verify the database: {error}"));
    }
    let mut store = LmdbStore::new(lmdb_options(settings));
    store
        .prepare()
        .map_err(|error| StartError::new(2, format!("ERROR: {error}")))?;
    make_sure_of_the_database(settings, &mut store, &log);
    tell_of_old_files(&mut store, settings, &log);
    // Each child opens the environment itself, as LMDB wants it.
    drop(store);
    let policy = load_policy(settings, &log);
    if is_daemon {
        let keep_stderr = settings.log_stderr;
        process::close_stdio(keep_stderr)
            .map_err(|error| StartError::of_io("cannot close standard output", &error))?;
    }
    let mut master = Master::new(
        settings,
        policy,
        listeners,
        lock,
        Rc::clone(&log),
        shared,
        report.clone(),
    )
    .map_err(|error| StartError::of_io("cannot start", &error))?;
    master.pid_file = pid_file;
    let result = master.run();
    log.write(Level::Two, &timestamped(b"Server closing!"));
    if master.is_flushed()
        && !lmdb_options(settings).sync
        && let Err(error) = remove_mark(&settings.dbdir)
    {
        log.complain(&format!("cannot note that all is on the disk: {error}"));
    }
    master.remove_socket_files();
    master.pid_file.remove();
    result.map_err(|error| StartError::of_io("the master ends", &error))
}

/// Notes that this server may leave the database unflushed, and begins without a
/// journal. Trouble with it does not keep mail waiting.
fn make_sure_of_the_database(settings: &Settings, store: &mut LmdbStore, log: &Log) {
    let left = match is_marked(&settings.dbdir) {
        // It could not be recovered: the next start needs the journal as it is.
        true => store.forget_journal().map_err(io::Error::other),
        false => store
            .leave_journal()
            .map_err(io::Error::other)
            .and_then(|()| journal::remove(&settings.dbdir)),
    };
    if let Err(error) = left {
        log.complain(&format!("cannot begin without a journal: {error}"));
    }
    if !store.flushes()
        && let Err(error) = set_mark(&settings.dbdir)
    {
        log.complain(&format!(
            "cannot note that commits are not flushed: {error}"
        ));
    }
}

/// Whom the server becomes: with root's privileges the user of the settings;
/// without, whoever started it, unless another user was asked for.
fn find_identity(settings: &Settings) -> Result<Identity, StartError> {
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

/// Makes sure that no other daemon uses the directory.
fn take_daemon_lock(settings: &Settings, identity: &Identity) -> Result<LockFile, StartError> {
    let path = lock_path(settings);
    let fail = |error: io::Error| {
        let (path, reason) = (path.display(), describe(&error));
        StartError::new(2, format!("ERROR: can't open lock file: {path}: {reason}"))
    };
    let lock = LockFile::new(path.clone(), 0o600);
    give_to(lock.file().map_err(fail)?, identity).map_err(fail)?;
    if lock.try_lock(Claim::Daemon).map_err(fail)? {
        return Ok(lock);
    }
    let holder = lock.holder(Claim::Daemon).ok().flatten();
    let holder = holder.map_or_else(String::new, |pid| format!(" (by process {pid})"));
    Err(StartError::new(
        11,
        format!("ERROR: locked: {}{holder}", path.display()),
    ))
}

/// The lock file of a database directory.
pub fn lock_path(settings: &Settings) -> PathBuf {
    settings.dbdir.join("postgrey.lock")
}

/// Gives a file to the user the server becomes.
fn give_to(file: &std::fs::File, identity: &Identity) -> io::Result<()> {
    if !process::is_root() {
        return Ok(());
    }
    std::os::unix::fs::fchown(
        file,
        Some(identity.uid.as_raw()),
        Some(identity.gid.as_raw()),
    )
}

/// The file with the number of the master. A lock on it tells a living master
/// from a file left behind.
#[derive(Default)]
pub struct PidFile(Option<LockFile>);

impl PidFile {
    fn write(settings: &Settings, identity: &Identity) -> Result<Self, StartError> {
        let Some(path) = &settings.pidfile else {
            return Ok(PidFile(None));
        };
        let fail = |error: io::Error| {
            StartError::of_io(&format!("can't write pid file {}", path.display()), &error)
        };
        let lock = LockFile::new(path.clone(), 0o644);
        let mut file = lock.file().map_err(fail)?;
        if !lock.try_lock(Claim::Daemon).map_err(fail)? {
            let holder = lock.holder(Claim::Daemon).ok().flatten().unwrap_or(0);
            let message = format!(
                "FATAL: Pid_file already exists for running process ({holder})... aborting"
            );
            return Err(StartError::new(25, message));
        }
        file.set_len(0).map_err(fail)?;
        writeln!(file, "{}", std::process::id()).map_err(fail)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
            .map_err(fail)?;
        give_to(file, identity).map_err(fail)?;
        Ok(PidFile(Some(lock)))
    }

    /// Where the directory does not allow it, the file is emptied.
    fn remove(&self) {
        let Some(lock) = &self.0 else { return };
        if std::fs::remove_file(lock.path()).is_err()
            && let Ok(file) = lock.file()
        {
            let _ = file.set_len(0);
        }
    }
}

fn timestamped(text: &[u8]) -> Vec<u8> {
    let mut line = Vec::new();
    clock::push_timestamp(&mut line);
    line.push(b' ');
    line.extend_from_slice(text);
    line
}

/// The lines of a start, in the shapes that logwatch knows.
fn log_start(log: &Log, listeners: &Listeners, identity: &Identity, is_daemon: bool) {
    let pid = std::process::id();
    let starting = format!("postgrey (type postgrey {VERSION}) starting! pid({pid})");
    log.write(Level::Two, &timestamped(starting.as_bytes()));
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

/// Whoever comes from the original starts with an empty environment beside the
/// records of years: he is told how to take them along.
fn tell_of_old_files(store: &mut LmdbStore, settings: &Settings, log: &Log) {
    if old_berkeley_files(&settings.dbdir).is_empty() {
        return;
    }
    let is_empty = store.scan(Database::Greylist, None, &mut |_| ControlFlow::Break(()));
    if is_empty == Ok(true) {
        let dbdir = settings.dbdir.display();
        let line = format!(
            "old Berkeley DB files in {dbdir} are not used: \"postgreyctl --dbdir={dbdir} import {dbdir}\" takes them along"
        );
        log.write(Level::One, line.as_bytes());
    }
}

/// The policy with its whitelists; what is wrong with these is logged.
fn load_policy(settings: &Settings, log: &Log) -> Policy {
    let loaded = whitelists::load(settings);
    for problem in &loaded.problems {
        log.complain(&problem.text);
    }
    Policy {
        rules: settings.rules.clone(),
        texts: settings.texts.clone(),
        whitelists: loaded.whitelists,
        is_dry_run: settings.noaction,
    }
}

/// Runs what serves one client, or a batch of commands; `None`: it panicked,
/// which has been reported. What others are owed goes on.
fn contained<T>(work: impl FnOnce() -> T) -> Option<T> {
    // What it leaves half done is its reply, its transaction, which the unwinding
    // ends, and buffers that are cleared before they are used.
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Where standard error is closed, or a client's socket, a panic goes to
/// syslog.
fn report_panics_to_syslog() {
    std::panic::set_hook(Box::new(|panic| {
        Log::to_syslog().write(Level::Fatal, panic.to_string().as_bytes());
    }));
}
