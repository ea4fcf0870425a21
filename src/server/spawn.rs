//! A spawned session: one process on standard input and output, started by
//! Postfix's spawn(8) for one smtpd.
//!
//! Standard error is the client's socket too, so everything goes to syslog.
//! The session commits for itself and shares the database with a daemon and
//! other sessions; it needs neither root nor the daemon's lock.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::commit::local::LocalCommit;
use super::engine::{Advance, Commands, Engine, Replies};
use super::lists::load_policy;
use super::options_file::write_for_session;
use super::shared::Shared;
use super::store::ServerStore;
use super::verification::{Reason, Verification, run_verifier};
use crate::config::settings::Settings;
use crate::log::{Level, Log, Sinks, report_panics_to_syslog};
use crate::policy::request::RequestReader;
use crate::store::ErrorKind;
use crate::store::lmdb::Purpose;
use crate::store::lmdb::claim::lock_file;
use crate::store::lmdb::mark::{is_marked, mark_file};
use crate::sys::lock::{Claim, LockFile};
use crate::sys::process::{self, Side};
use crate::sys::{crash, syslog};

/// Octets read at once.
const READ_BUFFER: usize = 16 * 1024;
/// How long another process that writes is waited for: by reading, and then by
/// the commit. Postfix's spawn(8) is often given 10 seconds for both.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often a session looks whether the database is in doubt.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Serves standard input until it ends; returns the exit status.
pub fn run(settings: &Settings) -> i32 {
    syslog::open(&settings.syslog_facility);
    report_panics_to_syslog();
    process::set_umask(0o077);
    // Where that is not allowed, mail still has to be answered.
    let _ = process::forbid_core_dumps();
    match Session::open(settings).and_then(|mut session| session.serve()) {
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
    syslog::open("mail");
    for line in message.lines() {
        Log::to_syslog().write(Level::Fatal, line.as_bytes());
    }
}

/// A session.
struct Session {
    input: File,
    output: File,
    settings: Settings,
    engine: Engine,
    commit: LocalCommit,
    log: Rc<Log>,
    /// A verification that this session has started, or waits for.
    verification: Verification,
    /// When it looks again whether one is wanted.
    next_look: Instant,
}

impl Session {
    fn open(settings: &Settings) -> io::Result<Self> {
        let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        // An octet on standard error would be taken for a reply, and LMDB writes
        // there why it aborts.
        process::close_stdio(false)?;
        // If it ends this process, the next one has it verified.
        if settings.store.is_lmdb() {
            crash::leave_file(&mark_file(&settings.dbdir))?;
        }
        let shared = Shared::new(0)?;
        let sinks = Sinks {
            syslog: true,
            ..Sinks::default()
        };
        let log = Rc::new(Log::new(settings.verbosity, sinks, shared.complaints));
        if let Some(ignored) = &settings.ignored_words {
            log.complain(ignored);
        }
        let policy = load_policy(settings, &log);
        let lock = LockFile::new(lock_file(&settings.dbdir), 0o600);
        // Whatever --sync says: no process stays to end in order.
        let store = ServerStore::new(settings, Purpose::WriteFlushed, PATIENCE, lock);
        write_for_session(settings, store.lock(), &log);
        Ok(Session {
            input,
            output,
            settings: settings.clone(),
            engine: Engine::new(settings, policy, Rc::clone(&log), shared),
            commit: LocalCommit::new(store, &settings.rules, Rc::clone(&log), shared),
            log,
            verification: Verification::new(&settings.store),
            next_look: Instant::now(),
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut reader = RequestReader::default();
        let (mut replies, mut commands) = (Replies::default(), Commands::default());
        let mut buffer = vec![0; READ_BUFFER];
        loop {
            let length = match self.input.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Postfix closes the connection as it likes.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => return Ok(()),
                Err(error) => return Err(error),
            };
            let mut rest = &buffer[..length];
            loop {
                let is_usable = self.is_database_usable();
                let store = is_usable.then(|| self.commit.store.get());
                let mut next =
                    self.engine
                        .advance(store, &mut reader, &mut rest, &mut replies, &mut commands);
                if next == Advance::NeedCommit {
                    let outcome = self.commit_or_doubt(&commands.needed);
                    match self.engine.finish(&reader, outcome, &mut replies) {
                        ControlFlow::Continue(()) => continue,
                        ControlFlow::Break(end) => next = end,
                    }
                }
                self.output.write_all(&replies.octets)?;
                replies.octets.clear();
                for renewal in commands.renewals.drain(..) {
                    // Its client has been answered: if it fails, the next
                    // request renews.
                    let _ = self.commit.commit(&self.engine.policy().rules, &renewal);
                }
                match next {
                    Advance::Close => return Ok(()),
                    Advance::NeedOutput => {}
                    Advance::NeedInput | Advance::NeedCommit => break,
                }
            }
        }
    }

    fn commit_or_doubt(&mut self, command: &[u8]) -> Option<crate::policy::command::Outcome> {
        match self.commit.commit(&self.engine.policy().rules, command) {
            Ok(outcome) => Some(outcome),
            Err(kind) => {
                if kind == ErrorKind::Damage {
                    self.doubt_database(Reason::Damage);
                }
                None
            }
        }
    }

    /// False while the database is being verified, by this session or another.
    /// A daemon that runs does it itself.
    fn is_database_usable(&mut self) -> bool {
        let now = Instant::now();
        if self.verification.running().is_some()
            && let Some(death) = process::reap()
        {
            self.verification.note_end(&death, now);
        }
        if now >= self.next_look {
            self.next_look = now + LOOK_INTERVAL;
            if is_marked(&self.settings.dbdir) {
                self.doubt_database(Reason::Mark);
            }
        }
        self.start_due_verifier(now);
        !self.verification.is_wanted()
    }

    fn doubt_database(&mut self, reason: Reason) {
        let daemon = self.commit.store.lock().holder(Claim::Daemon);
        if matches!(daemon, Ok(None)) && self.verification.request(reason, Instant::now()) {
            self.log
                .complain("the database is being verified: requests pass ungreylisted until then");
        }
    }

    fn start_due_verifier(&mut self, now: Instant) {
        let Some(reason) = self.verification.take_due(now) else {
            return;
        };
        // The verifier reads it anew, and this session afterwards, too.
        self.commit.store.get().close();
        match process::fork() {
            Ok(Side::Parent(pid)) => self.verification.begin(pid),
            Ok(Side::Child) => {
                // Postfix waits for the end of its socket.
                let status = match self.close_sockets() {
                    Ok(()) => {
                        let lock = self.commit.store.lock();
                        run_verifier(&self.settings.dbdir, lock, reason, None, &self.log)
                    }
                    Err(_) => 1,
                };
                std::process::exit(status);
            }
            Err(error) => {
                self.log
                    .complain(&format!("cannot start the verifier: {error}"));
                self.verification.postpone(now);
            }
        }
    }

    /// In the verifier, which may crash, and is not to be taken for a session.
    fn close_sockets(&mut self) -> io::Result<()> {
        crash::leave_nothing()?;
        let null = File::open("/dev/null")?;
        self.input = null.try_clone()?;
        self.output = null;
        Ok(())
    }
}
