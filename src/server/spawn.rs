//! A spawned session: one process on standard input and output, started by
//! Postfix's spawn(8) for one smtpd.
//!
//! Standard error is the client's socket too, so everything goes to syslog.
//! The session commits for itself and shares the database with a daemon and
//! other sessions; it needs neither root nor the daemon's lock.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::rc::Rc;

use super::commit::Committer;
use super::engine::{Advance, Engine};
use super::master::lmdb_options;
use super::shared::Shared;
use super::{facility_of, load_policy, lock_path, recovery, report_panics_to_syslog};
use crate::config::settings::Settings;
use crate::log::{Level, Log, Sinks};
use crate::policy::request::RequestReader;
use crate::store::copies::is_marked;
use crate::store::lmdb::LmdbStore;
use crate::sys::lock::{Claim, LockFile};
use crate::sys::{process, syslog};

/// Octets read at once.
const READ_BUFFER: usize = 16 * 1024;

/// Serves standard input until it ends; returns the exit status.
pub fn run(settings: &Settings) -> i32 {
    syslog::open(facility_of(settings));
    report_panics_to_syslog();
    process::set_umask(0o077);
    // Where that is not allowed, mail still has to be answered.
    let _ = process::forbid_core_dumps();
    match serve(settings) {
        Ok(()) => 0,
        // The client is gone: nothing was lost that it could have read.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            let line = format!("the session ends: {error}");
            Log::to_syslog().write(Level::Fatal, line.as_bytes());
            1
        }
    }
}

/// Says to syslog why a session does not start.
pub fn report_mistakes(message: &str) {
    syslog::open(libc::LOG_MAIL);
    for line in message.lines() {
        Log::to_syslog().write(Level::Fatal, line.as_bytes());
    }
}

fn serve(settings: &Settings) -> io::Result<()> {
    let shared = Shared::new(0)?;
    let sinks = Sinks {
        stderr: false,
        syslog: true,
    };
    let log = Rc::new(Log::new(settings.verbosity, sinks, shared.complaints));
    let policy = load_policy(settings, &log);
    let mut engine = Engine::new(settings, policy, Rc::clone(&log), shared);
    let mut store = LmdbStore::new(lmdb_options(settings));
    let lock = LockFile::new(lock_path(settings), 0o600);
    // A server that runs has looked after it itself.
    if is_marked(&settings.dbdir)
        && matches!(lock.holder(Claim::Daemon), Ok(None))
        && let Err(error) = recovery::recover(&settings.dbdir, &lock, &log)
    {
        log.complain(&format!("cannot verify the database: {error}"));
        // What is there may be of use, but nobody may build on it.
        store = LmdbStore::new_reader(&settings.dbdir);
    }
    let mut committer = Committer::new(store, lock, None, log, shared);
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut reader = RequestReader::default();
    let (mut replies, mut command, mut done) = (Vec::new(), Vec::new(), Vec::new());
    let mut buffer = vec![0; READ_BUFFER];
    loop {
        let length = match input.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // Postfix closes the connection as it likes.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut rest = &buffer[..length];
        loop {
            let mut next = engine.advance(
                committer.store(),
                &mut reader,
                &mut rest,
                &mut replies,
                &mut command,
            );
            if next == Advance::NeedCommit {
                committer.push(0, &command);
                committer.commit(&engine.policy().rules, &mut done);
                let outcome = done.pop().and_then(|(_, outcome)| outcome);
                next = engine.finish(&reader, outcome, &mut replies);
                if next == Advance::NeedInput {
                    continue;
                }
            }
            output.write_all(&replies)?;
            replies.clear();
            match next {
                Advance::Close => return Ok(()),
                Advance::NeedOutput => {}
                Advance::NeedInput | Advance::NeedCommit => break,
            }
        }
    }
}
