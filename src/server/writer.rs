//! The writer: the only process of the daemon that commits.
//!
//! It drains its queue, applies everything in one transaction, commits, and
//! answers each worker in few datagrams. Between its batches it does the
//! maintenance, in slices. If it dies, the master starts another, and the
//! workers send again.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::commit::apply_counted;
use super::commit::newcomers::NewcomerLimit;
use super::commit::remote::is_overdue;
use super::commit::wire::{Arrived, MAX_ANSWERS, ReceiveBuffer, begin_answers, push_answer};
use super::control::{self, Message};
use super::counters::Counter;
use super::group_commit::GroupCommitWindow;
use super::shared::{Shared, StoreEpoch};
use super::store::ServerStore;
use crate::log::{Level, Log};
use crate::policy::command::{Command, Outcome};
use crate::policy::record::Database;
use crate::policy::rules::Rules;
use crate::store::expiry::{Expiry, Progress, finished_line};
use crate::store::{CommitReport, ErrorKind, StoreError};
use crate::sys::clock;
use crate::sys::lock::Claim;
use crate::sys::poll::{self, Interest, PollSet};
use crate::sys::signals::Signals;

/// When the first maintenance starts, and how long one is after another.
const FIRST_EXPIRY: Duration = Duration::from_secs(60);
const EXPIRY_INTERVAL: Duration = Duration::from_secs(3600);
/// How long a ping is told of a commit that failed, if no other came after it.
const TROUBLE_REMEMBERED: Duration = Duration::from_secs(60);
/// How long the writer stays when the master is gone: the workers finish first.
const ORPHAN_GRACE: Duration = Duration::from_secs(1);
/// Datagrams that are kept for a worker that does not take them. An answer is of
/// no use after a second, so the oldest go first.
const MOST_KEPT: usize = 256;

/// Places in the poll set; those of the workers' sockets follow.
const SIGNALS: usize = 0;
const CONTROL: usize = 1;
const QUEUE: usize = 2;
const ANSWERS: usize = 3;

/// The writer process.
pub struct Writer {
    /// Commands come out of here.
    pub queue: UnixDatagram,
    /// Outcomes go in here, one socket for each worker.
    pub answers: Vec<AnswerQueue>,
    /// Master's messages.
    pub control: UnixStream,
    /// Signals; only the master's words end the writer.
    pub signals: Signals,
    /// Where the records are.
    pub store: ServerStore,
    /// `--dbdir`.
    pub dbdir: PathBuf,
    /// The numbers and switches that decide.
    pub rules: Rules,
    /// How many new records each client may have.
    pub limit: Option<NewcomerLimit>,
    /// Its log.
    pub log: Rc<Log>,
    /// What all processes share.
    pub shared: Shared,
    /// Tells it from the writers before.
    pub generation: u32,
    /// When the database was last put in use or out of use.
    pub epoch: StoreEpoch,
    /// What came out of the queue and is not committed yet.
    pub received: ReceiveBuffer,
    /// How long to wait for more of it.
    pub window: GroupCommitWindow,
    /// When records are expired.
    pub maintenance: Maintenance,
    /// When requests could last not be committed, if none could since.
    pub failed_at: Option<Instant>,
}

/// The way of the answers to a worker.
pub struct AnswerQueue {
    socket: UnixDatagram,
    /// What the socket did not take yet.
    kept: VecDeque<Vec<u8>>,
}

impl AnswerQueue {
    /// Answers go into this socket, non-blocking.
    pub fn new(socket: UnixDatagram) -> Self {
        AnswerQueue {
            socket,
            kept: VecDeque::new(),
        }
    }

    /// Sends a datagram, or keeps it for later: false then.
    fn send(&mut self, datagram: &[u8]) -> bool {
        if self.kept.is_empty() && self.socket.send(datagram).is_ok() {
            return true;
        }
        if self.kept.len() >= MOST_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(datagram.to_vec());
        false
    }

    /// Sends what was kept.
    fn send_kept(&mut self) {
        while let Some(datagram) = self.kept.front() {
            match self.socket.send(datagram) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return,
                _ => self.kept.pop_front(),
            };
        }
    }
}

/// Maintenance under way, or when the next begins.
pub enum Maintenance {
    /// It begins then.
    Due(Instant),
    /// It goes on.
    Running(Expiry),
}

impl Maintenance {
    /// The first one of a writer.
    pub fn first(now: Instant) -> Self {
        Maintenance::Due(now + FIRST_EXPIRY)
    }
}

impl Writer {
    /// Serves until the master is gone or closes its control socket.
    pub fn run(&mut self) -> io::Result<()> {
        let mut poll = PollSet::default();
        poll.set(SIGNALS, &self.signals, Interest::INPUT);
        poll.set(CONTROL, &self.control, Interest::INPUT);
        poll.set(QUEUE, &self.queue, Interest::INPUT);
        let mut orphaned: Option<Instant> = None;
        self.shared.beats.note_writer();
        control::send(&self.control, Message::Ready)?;
        loop {
            let wake = match &self.maintenance {
                Maintenance::Due(at) if self.received.arrived().is_empty() => Some(*at),
                _ => Some(Instant::now()),
            };
            let wake = [wake, orphaned].into_iter().flatten().min();
            poll.wait(wake.map(|at| at.saturating_duration_since(Instant::now())))?;
            self.shared.beats.note_writer();
            self.follow_store();
            if poll.readiness(SIGNALS).input {
                // TERM and its like are for the workers; they still need the
                // writer then.
                control::pass_on(&mut self.signals, &self.control);
            }
            let control = poll.readiness(CONTROL);
            if control.input || control.gone {
                match control::receive(&self.control) {
                    Some(messages) if messages.contains(&Message::End) => return self.finish(),
                    Some(_) => {}
                    None => {
                        poll.clear(CONTROL);
                        orphaned = Some(Instant::now() + ORPHAN_GRACE);
                    }
                }
            }
            self.send_kept_answers(&mut poll);
            if poll.readiness(QUEUE).input || !self.received.arrived().is_empty() {
                self.gather();
                self.write_batch();
                self.send_kept_answers(&mut poll);
            }
            if orphaned.is_some_and(|at| at <= Instant::now()) {
                // Another server may have begun: then it is its database.
                return match self.store.lock().holder(Claim::Daemon) {
                    Ok(Some(_)) => Ok(()),
                    _ => self.finish(),
                };
            }
            self.maintain();
        }
    }

    /// After an orderly end a power cut undoes nothing, whatever `--sync` says.
    fn finish(&mut self) -> io::Result<()> {
        // Renewals, which no worker waits for, may still lie there.
        self.received.take(&self.queue, self.generation);
        self.write_batch();
        self.follow_store();
        if !self.epoch.is_usable() {
            // The mark says that it was not verified, which stays true.
            return Ok(());
        }
        match self.store.get().end() {
            Ok(()) => Ok(()),
            Err(error) => {
                self.report(&error);
                Err(io::Error::other("not all could be flushed"))
            }
        }
    }

    /// After a verification the environment may be another one.
    fn follow_store(&mut self) {
        let epoch = self.shared.store_epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.store.get().close();
        }
    }

    /// Takes what the queue holds, and what comes in a moment.
    fn gather(&mut self) {
        let begun = Instant::now();
        self.received.take(&self.queue, self.generation);
        while !self.received.is_full()
            && let Some(time) =
                self.window
                    .patience(begun, Instant::now(), self.received.arrived().len())
        {
            // A signal, too, ends the wait.
            if !poll::wait_for_input(&self.queue, time).unwrap_or(false) {
                return;
            }
            self.received.take(&self.queue, self.generation);
        }
    }

    /// Commits what was received as one.
    fn write_batch(&mut self) {
        let received = std::mem::take(&mut self.received);
        let mut taken = Vec::with_capacity(received.arrived().len());
        let mut commands = Vec::with_capacity(received.arrived().len());
        let now = clock::monotonic();
        // One that is overdue its worker has given up: counting it now would
        // count the client's next try twice.
        for arrived in received.arrived() {
            if !is_overdue(arrived.since, now)
                && let Some(command) = received.command(arrived)
            {
                taken.push(arrived.clone());
                commands.push(command);
            }
        }
        let begun = Instant::now();
        let outcomes = match commands.is_empty() {
            true => Vec::new(),
            false => self.apply(&mut commands),
        };
        drop(commands);
        let took = begun.elapsed();
        self.received = received;
        self.received.clear();
        // Before the answers, or it could be theirs already.
        self.received.take(&self.queue, self.generation);
        let waiting = self.received.arrived().len();
        self.answer(&taken, &outcomes);
        self.window.note(Instant::now(), took, taken.len(), waiting);
    }

    /// The outcomes of the commands; none if the store failed, and none of those
    /// whose part of it did.
    fn apply(&mut self, commands: &mut [Command]) -> Vec<Option<Outcome>> {
        let mut outcomes = Vec::with_capacity(commands.len());
        if !self.epoch.is_usable() {
            return outcomes;
        }
        // The disk may be full for all but a ping, which needs no new page.
        let is_of_pings = commands.iter().all(Command::is_ping);
        if is_of_pings
            && self
                .failed_at
                .is_some_and(|at| at.elapsed() < TROUBLE_REMEMBERED)
        {
            return outcomes;
        }
        let applied = apply_counted(
            self.store.get(),
            &self.rules,
            self.limit.as_mut(),
            &self.shared.counters,
            commands,
            &mut outcomes,
        );
        if !is_of_pings {
            let has_failed = outcomes.iter().any(Option::is_none) || applied.is_err();
            self.failed_at = has_failed.then(Instant::now);
        }
        match applied {
            Ok(report) => self.act_on_report(report),
            Err(error) => self.report(&error),
        }
        outcomes
    }

    fn act_on_report(&mut self, report: CommitReport) {
        if report.was_replaced {
            let line = format!(
                "the database in {} was replaced: the new one is used",
                self.dbdir.display()
            );
            self.log.write(Level::Warning, line.as_bytes());
        }
        for trouble in &report.troubles {
            self.report(trouble);
        }
        if report.has_grown && matches!(self.maintenance, Maintenance::Due(_)) {
            self.maintenance = Maintenance::Due(Instant::now());
        }
    }

    /// Says why the store failed; damage is the master's to look after.
    fn report(&mut self, error: &StoreError) {
        let line = format!("{error}: requests pass ungreylisted");
        self.log.complain_about(error.cause(), &line);
        if error.kind == ErrorKind::Damage {
            let _ = control::send(&self.control, Message::Damaged);
        }
    }

    /// Answers each worker, in as few datagrams as possible.
    fn answer(&mut self, taken: &[Arrived], outcomes: &[Option<Outcome>]) {
        let mut by_worker: BTreeMap<(u8, u32), Vec<usize>> = BTreeMap::new();
        for (index, Arrived { head, .. }) in taken.iter().enumerate() {
            let worker = (head.worker, head.incarnation);
            by_worker.entry(worker).or_default().push(index);
        }
        let mut datagram = Vec::new();
        for ((worker, incarnation), indexes) in by_worker {
            let Some(queue) = self.answers.get_mut(usize::from(worker)) else {
                continue;
            };
            for indexes in indexes.chunks(MAX_ANSWERS) {
                begin_answers(&mut datagram, incarnation);
                for &index in indexes {
                    push_answer(
                        &mut datagram,
                        taken[index].tag,
                        outcomes.get(index).and_then(Option::as_ref),
                    );
                }
                if !queue.send(&datagram) {
                    let counters = &self.shared.counters;
                    counters.add(Counter::AnswersDelayed, indexes.len() as u64);
                }
            }
        }
    }

    /// Sends what workers did not take before, and waits for those that still
    /// do not.
    fn send_kept_answers(&mut self, poll: &mut PollSet) {
        for (index, queue) in self.answers.iter_mut().enumerate() {
            if !queue.kept.is_empty() {
                queue.send_kept();
                match queue.kept.is_empty() {
                    true => poll.clear(ANSWERS + index),
                    false => poll.set(ANSWERS + index, &queue.socket, Interest::OUTPUT),
                }
            }
        }
    }

    fn maintain(&mut self) {
        match &mut self.maintenance {
            Maintenance::Due(at) if *at > Instant::now() => {}
            Maintenance::Due(at) if !self.epoch.is_usable() => *at += Duration::from_secs(1),
            Maintenance::Due(_) if self.store.get().expires_by_itself() => self.end_maintenance(),
            Maintenance::Due(_) => {
                self.log.write(Level::One, b"cleaning up old entries...");
                let expiry = Expiry::new(&self.rules, clock::seconds());
                self.maintenance = Maintenance::Running(expiry);
            }
            Maintenance::Running(_) if !self.epoch.is_usable() => self.end_maintenance(),
            Maintenance::Running(expiry) => match expiry.step(self.store.get(), &self.rules) {
                Ok(Progress::More) => {}
                Ok(Progress::Finished {
                    database,
                    before,
                    after,
                }) => self.log_finished(database, before, after),
                Ok(Progress::Done) => self.end_maintenance(),
                Err(error) => {
                    self.report(&error);
                    self.end_maintenance();
                }
            },
        }
    }

    fn log_finished(&self, database: Database, before: u64, after: u64) {
        let line = finished_line(database, before, after);
        self.log.write(Level::One, line.as_bytes());
    }

    fn end_maintenance(&mut self) {
        self.maintenance = Maintenance::Due(Instant::now() + EXPIRY_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_not_taken_at_once_are_kept_in_order() {
        let (socket, worker) = UnixDatagram::pair().unwrap();
        socket.set_nonblocking(true).unwrap();
        worker.set_nonblocking(true).unwrap();
        let mut queue = AnswerQueue::new(socket);
        let mut sent = 0_u32;
        while queue.send(&sent.to_le_bytes()) {
            sent += 1;
        }
        sent += 1;
        queue.send(&sent.to_le_bytes());
        assert_eq!(queue.kept.len(), 2);
        let mut seen = Vec::new();
        let mut octets = [0; 4];
        while !queue.kept.is_empty() {
            while worker.recv(&mut octets).is_ok() {
                seen.push(u32::from_le_bytes(octets));
            }
            queue.send_kept();
        }
        while worker.recv(&mut octets).is_ok() {
            seen.push(u32::from_le_bytes(octets));
        }
        assert_eq!(seen, (0..=sent).collect::<Vec<_>>());
        for _ in 0..100_000 {
            queue.send(b"more");
        }
        assert_eq!(queue.kept.len(), MOST_KEPT);
    }
}
