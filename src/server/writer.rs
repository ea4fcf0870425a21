//! The writer: owns the daemon's write transactions.
//!
//! It drains its queue, applies everything in one transaction, commits, and
//! answers each worker in one datagram. Between its batches it does the
//! maintenance, in slices. If it dies, the master starts another, and the
//! workers send again.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::commit::{apply_counted, tell_of_journal};
use super::control::{self, Message};
use super::datagram::{Answers, Inbox, MAX_ANSWERS, Parcel, Tag};
use super::pace::Pace;
use super::shared::Shared;
use crate::log::{Level, Log};
use crate::policy::command::{Command, Outcome};
use crate::policy::rules::Rules;
use crate::store::expiry::{Expiry, Progress, finished_line};
use crate::store::lmdb::LmdbStore;
use crate::sys::clock;
use crate::sys::lock::{Claim, LockFile};
use crate::sys::poll::{self, Interest, PollSet};
use crate::sys::signals::Signals;

/// When the first maintenance starts, and how long one is after another.
const FIRST_EXPIRY: Duration = Duration::from_secs(60);
const EXPIRY_INTERVAL: Duration = Duration::from_secs(3600);
/// How long the writer stays when the master is gone: the workers finish first.
const FAREWELL: Duration = Duration::from_secs(1);

const SIGNALS: usize = 0;
const CONTROL: usize = 1;
const QUEUE: usize = 2;

/// The writer process.
pub struct Writer {
    /// Commands come out of here.
    pub queue: UnixDatagram,
    /// Outcomes go in here, one socket for each worker.
    pub answers: Vec<UnixDatagram>,
    /// Master's messages.
    pub control: UnixStream,
    /// Signals; only the master's words end the writer.
    pub signals: Signals,
    /// The environment.
    pub store: LmdbStore,
    /// Held while it writes.
    pub lock: LockFile,
    /// The numbers and switches that decide.
    pub rules: Rules,
    /// Its log.
    pub log: Rc<Log>,
    /// What all processes share.
    pub shared: Shared,
    /// What came out of the queue and is not committed yet.
    pub inbox: Inbox,
    /// How long to wait for more of it.
    pub pace: Pace,
}

/// Maintenance under way, or when the next begins.
enum Maintenance {
    Due(Instant),
    Running(Expiry),
}

/// What the master said.
enum Word {
    Nothing,
    End,
    Gone,
}

/// Whose command it is, and which.
struct Origin {
    worker: u8,
    incarnation: u32,
    tag: Tag,
}

impl Writer {
    /// Serves until the master is gone or closes its control socket.
    pub fn run(&mut self) -> io::Result<()> {
        let mut poll = PollSet::default();
        poll.set(SIGNALS, &self.signals, Interest::INPUT);
        poll.set(CONTROL, &self.control, Interest::INPUT);
        poll.set(QUEUE, &self.queue, Interest::INPUT);
        let mut maintenance = Maintenance::Due(Instant::now() + FIRST_EXPIRY);
        let mut farewell: Option<Instant> = None;
        control::send(&self.control, Message::Ready)?;
        loop {
            let wake = match &maintenance {
                Maintenance::Due(at) if self.inbox.is_empty() => Some(*at),
                _ => Some(Instant::now()),
            };
            let wake = [wake, farewell].into_iter().flatten().min();
            poll.wait(wake.map(|at| at.saturating_duration_since(Instant::now())))?;
            if poll.readiness(SIGNALS).input {
                self.act_on_signals();
            }
            let control = poll.readiness(CONTROL);
            if control.input || control.gone {
                match self.listen_to_master() {
                    Word::Nothing => {}
                    Word::End => return self.finish(),
                    Word::Gone => {
                        poll.clear(CONTROL);
                        farewell = Some(Instant::now() + FAREWELL);
                    }
                }
            }
            if poll.readiness(QUEUE).input || !self.inbox.is_empty() {
                self.gather();
                self.write_batch();
            }
            if farewell.is_some_and(|at| at <= Instant::now()) {
                // Another server may have begun: then it is its database.
                return match self.lock.holder(Claim::Daemon) {
                    Ok(Some(_)) => Ok(()),
                    _ => self.finish(),
                };
            }
            maintenance = self.maintain(maintenance);
        }
    }

    /// After an orderly end a power cut undoes nothing, whatever `--sync` says.
    fn finish(&mut self) -> io::Result<()> {
        let flushed = self.under_lock(|writer| {
            if writer.store.flushes() {
                writer.store.leave_journal()?;
            }
            writer.store.flush()
        });
        flushed.ok_or_else(|| io::Error::other("not all could be flushed"))
    }

    /// TERM and its like are for the workers; they still need the writer then.
    fn act_on_signals(&mut self) {
        for signal in self.signals.take() {
            let message = match signal {
                Signal::SIGHUP => Message::Reload,
                Signal::SIGUSR1 => Message::Statistics,
                _ => continue,
            };
            let _ = control::send(&self.control, message);
        }
    }

    fn listen_to_master(&self) -> Word {
        let mut octets = [0; 64];
        match (&self.control).read(&mut octets) {
            Ok(0) => Word::Gone,
            Ok(length)
                if octets[..length]
                    .iter()
                    .any(|&octet| Message::of(octet) == Some(Message::End)) =>
            {
                Word::End
            }
            _ => Word::Nothing,
        }
    }

    /// Takes what the queue holds, and what comes in a moment.
    fn gather(&mut self) {
        let begun = Instant::now();
        self.inbox.take(&self.queue);
        while !self.inbox.is_full()
            && let Some(time) =
                self.pace
                    .patience(begun, Instant::now(), self.inbox.count_commands())
        {
            // A signal, too, ends the wait.
            if !poll::wait_for_input(&self.queue, time).unwrap_or(false) {
                return;
            }
            self.inbox.take(&self.queue);
        }
    }

    /// Commits what the inbox holds as one.
    fn write_batch(&mut self) {
        let mut origins = Vec::new();
        let mut commands = Vec::new();
        let inbox = std::mem::take(&mut self.inbox);
        for parcel in inbox.parcels() {
            let Parcel {
                worker,
                incarnation,
                ..
            } = parcel;
            for (tag, command) in parcel.commands {
                origins.push(Origin {
                    worker,
                    incarnation,
                    tag,
                });
                commands.push(command);
            }
        }
        let begun = Instant::now();
        let outcomes = match commands.is_empty() {
            true => None,
            false => self.apply(&commands),
        };
        drop(commands);
        let took = begun.elapsed();
        self.inbox = inbox;
        self.inbox.clear();
        // Before the answers, or it could be theirs already.
        self.inbox.take(&self.queue);
        let waiting = self.inbox.count_commands();
        self.answer(&origins, outcomes.as_deref(), took);
        self.pace.note(Instant::now(), took, origins.len(), waiting);
    }

    /// `None` if the store failed.
    fn apply(&mut self, commands: &[Command]) -> Option<Vec<Outcome>> {
        let outcomes = self.under_lock(|writer| {
            apply_counted(
                &mut writer.store,
                &writer.rules,
                &writer.shared.counters,
                commands,
            )
        });
        if self.store.take_has_grown() {
            self.shared.want_expiry();
        }
        outcomes
    }

    /// Runs something that writes while no other process does.
    fn under_lock<T>(
        &mut self,
        write: impl FnOnce(&mut Self) -> Result<T, crate::store::StoreError>,
    ) -> Option<T> {
        if let Err(error) = self.lock.lock(Claim::Commit) {
            // LMDB has a lock of its own: this one only keeps batches together.
            self.log
                .complain(&format!("cannot lock the database: {error}"));
        }
        let opening = self.store.openings();
        let result = write(self);
        if self.store.openings() != opening {
            if let Err(error) = self.lock.reopen() {
                self.log
                    .complain(&format!("cannot open the lock file: {error}"));
            }
        } else if let Err(error) = self.lock.unlock(Claim::Commit) {
            self.log
                .complain(&format!("cannot unlock the database: {error}"));
        }
        tell_of_journal(&mut self.store, &self.log);
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.log.complain(&error.to_string());
                None
            }
        }
    }

    /// Answers each worker, in as few datagrams as possible. A worker that
    /// does not take its answer asks again.
    fn answer(&mut self, origins: &[Origin], outcomes: Option<&[Outcome]>, took: Duration) {
        let mut by_worker: BTreeMap<(u8, u32), Vec<usize>> = BTreeMap::new();
        for (index, origin) in origins.iter().enumerate() {
            by_worker
                .entry((origin.worker, origin.incarnation))
                .or_default()
                .push(index);
        }
        let workers: Vec<usize> = by_worker
            .keys()
            .map(|&(worker, _)| usize::from(worker))
            .collect();
        let short_cut = self.pace.short_cut(&workers, took, Instant::now());
        let mut datagram = Vec::new();
        for ((worker, incarnation), indexes) in by_worker {
            let Some(socket) = self.answers.get(usize::from(worker)) else {
                continue;
            };
            for indexes in indexes.chunks(MAX_ANSWERS) {
                datagram.clear();
                Answers::begin(&mut datagram, incarnation, short_cut);
                for &index in indexes {
                    let outcome = outcomes.and_then(|outcomes| outcomes.get(index));
                    Answers::push(&mut datagram, origins[index].tag, outcome);
                }
                let _ = socket.send(&datagram);
            }
        }
    }

    fn maintain(&mut self, maintenance: Maintenance) -> Maintenance {
        match maintenance {
            Maintenance::Due(at) => {
                if at > Instant::now() && !self.shared.take_expiry_wanted() {
                    return Maintenance::Due(at);
                }
                self.log.write(Level::One, b"cleaning up old entries...");
                Maintenance::Running(Expiry::new(&self.rules, clock::seconds()))
            }
            Maintenance::Running(mut expiry) => {
                let step = self.under_lock(|writer| expiry.step(&mut writer.store, &writer.rules));
                match step {
                    Some(Progress::More) => Maintenance::Running(expiry),
                    Some(Progress::Finished {
                        database,
                        before,
                        after,
                    }) => {
                        let line = finished_line(database, before, after);
                        self.log.write(Level::One, line.as_bytes());
                        Maintenance::Running(expiry)
                    }
                    Some(Progress::Done) | None => {
                        Maintenance::Due(Instant::now() + EXPIRY_INTERVAL)
                    }
                }
            }
        }
    }
}
