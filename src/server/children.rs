//! The children of the master: their places, their sockets, when another takes
//! the place of one that has ended, and what each does from its fork to its end.

use std::fmt;
use std::io;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::commit::WRITER_PATIENCE;
use super::commit::newcomers::NewcomerLimit;
use super::commit::remote::{RemoteCommit, WriterLink};
use super::commit::wire::ReceiveBuffer;
use super::engine::Engine;
use super::group_commit::GroupCommitWindow;
use super::listener::Listeners;
use super::shared::Shared;
use super::store::ServerStore;
use super::worker::{Inputs, Worker};
use super::writer::{AnswerQueue, Maintenance, Writer};
use crate::config::settings::{Settings, Sync};
use crate::config::whitelists;
use crate::log::Log;
use crate::policy::decide::Policy;
use crate::store::lmdb::Purpose;
use crate::sys::lock::LockFile;
use crate::sys::process::{self, Death};
use crate::sys::signals::Signals;

/// A child that lives shorter than this had trouble of its own.
const QUICK_DEATH: Duration = Duration::from_secs(1);
/// The longest wait before a child is replaced.
const MOST_BACKOFF: Duration = Duration::from_secs(60);

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Serves connections, at its place among the workers.
    Worker(usize),
    /// Commits.
    Writer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Worker(place) => write!(f, "worker {place}"),
            Role::Writer => f.write_str("writer"),
        }
    }
}

/// A child, or the place for one.
pub struct Child {
    /// What it does.
    pub role: Role,
    /// The process and our end of its socket; `None` while it is missing.
    pub process: Option<(Pid, UnixStream)>,
    started: Instant,
    /// It has said that it serves.
    pub is_ready: bool,
    /// When it is started, if it is missing.
    pub due: Option<Instant>,
    backoff: Duration,
}

impl Child {
    /// A place for a child that is to be started now.
    pub fn new(role: Role, now: Instant) -> Self {
        Child {
            role,
            process: None,
            started: now,
            is_ready: false,
            due: Some(now),
            backoff: Duration::ZERO,
        }
    }

    /// Notes that it was started.
    pub fn begin(&mut self, pid: Pid, control: UnixStream, now: Instant) {
        self.process = Some((pid, control));
        (self.started, self.is_ready, self.due) = (now, false, None);
    }

    /// Notes that it has ended, and when another is due. Who was killed, or
    /// asked to end, is replaced at once; who had trouble of its own soon after
    /// its start waits longer each time.
    pub fn end(&mut self, death: &Death, now: Instant) {
        let was_quick = now.saturating_duration_since(self.started) < QUICK_DEATH;
        let is_own_fault = !death.was_killed && death.status != Some(0);
        self.backoff = match was_quick && (is_own_fault || !self.is_ready) {
            true => (self.backoff * 2).clamp(QUICK_DEATH, MOST_BACKOFF),
            false => Duration::ZERO,
        };
        (self.process, self.is_ready) = (None, false);
        self.due = Some(now + self.backoff);
    }
}

/// The sockets between workers and writer. The master keeps all ends, so what
/// is queued outlives a process that dies.
pub struct Links {
    /// Commands: the workers' end, the writer's end.
    pub to_writer: (UnixDatagram, UnixDatagram),
    /// Outcomes, for each worker: the writer's end, the worker's end.
    pub answers: Vec<(UnixDatagram, UnixDatagram)>,
}

impl Links {
    /// New sockets for so many workers.
    pub fn new(workers: usize) -> io::Result<Self> {
        let pair = || -> io::Result<_> {
            let (send, receive) = UnixDatagram::pair()?;
            for end in [&send, &receive] {
                end.set_nonblocking(true)?;
            }
            Ok((send, receive))
        };
        Ok(Links {
            to_writer: pair()?,
            answers: (0..workers).map(|_| pair()).collect::<io::Result<_>>()?,
        })
    }
}

/// What the start has made and the children take with them.
pub struct Parts {
    /// The options as they are meant.
    pub settings: Settings,
    /// What decides about requests.
    pub policy: Policy,
    /// The sockets to listen on.
    pub listeners: Listeners,
    /// The lock file of the database directory.
    pub lock: LockFile,
    /// The log.
    pub log: Rc<Log>,
    /// What all processes share.
    pub shared: Shared,
    /// The sockets between workers and writer.
    pub links: Links,
}

impl Parts {
    /// Does what a child does until it is told to end. `incarnation` tells it
    /// from its predecessors.
    pub fn run_role(
        &mut self,
        role: Role,
        incarnation: u32,
        control: UnixStream,
        signals: Signals,
    ) -> io::Result<()> {
        control.set_nonblocking(true)?;
        match role {
            Role::Worker(place) => self.run_worker(place, incarnation, control, signals),
            Role::Writer => self.run_writer(control, signals),
        }
    }

    fn store(&self, purpose: Purpose, patience: Duration) -> io::Result<ServerStore> {
        let lock = self.lock.for_child()?;
        Ok(ServerStore::new(&self.settings, purpose, patience, lock))
    }

    fn run_worker(
        &mut self,
        place: usize,
        incarnation: u32,
        control: UnixStream,
        signals: Signals,
    ) -> io::Result<()> {
        process::raise_descriptor_limit()?;
        let log = Rc::clone(&self.log);
        let link = WriterLink {
            to_writer: self.links.to_writer.0.try_clone()?,
            from_writer: self.links.answers[place].1.try_clone()?,
            worker: place as u8,
            incarnation,
        };
        // It waits for nobody: until it gets the claim the writer reads for it.
        let store = self.store(Purpose::Read, Duration::ZERO)?;
        let commit = RemoteCommit::new(link, Rc::clone(&log), self.shared);
        let policy = self.take_policy();
        let engine = Engine::new(&self.settings, policy, Rc::clone(&log), self.shared);
        let inputs = Inputs {
            listeners: std::mem::take(&mut self.listeners.sockets),
            control,
            signals,
        };
        let mut worker = Worker::new(place, engine, store, commit, inputs, log, self.shared);
        self.close_links()?;
        worker.run()
    }

    fn run_writer(&mut self, control: UnixStream, signals: Signals) -> io::Result<()> {
        self.listeners.sockets.clear();
        let answers = self.links.answers.iter().map(|(send, _)| send.try_clone());
        let purpose = match self.settings.sync {
            Sync::Commit => Purpose::WriteFlushed,
            Sync::None => Purpose::WriteUnflushed,
        };
        let mut writer = Writer {
            queue: self.links.to_writer.1.try_clone()?,
            answers: answers
                .map(|socket| Ok(AnswerQueue::new(socket?)))
                .collect::<io::Result<_>>()?,
            control,
            signals,
            store: self.store(purpose, WRITER_PATIENCE)?,
            dbdir: self.settings.dbdir.clone(),
            rules: self.policy.rules.clone(),
            limit: NewcomerLimit::new(&self.policy.rules, &self.log),
            log: Rc::clone(&self.log),
            shared: self.shared,
            generation: self.shared.writer_generation(),
            epoch: self.shared.store_epoch(),
            received: ReceiveBuffer::default(),
            window: GroupCommitWindow::new(Instant::now()),
            maintenance: Maintenance::first(Instant::now()),
            failed_at: None,
        };
        self.close_links()?;
        writer.run()
    }

    /// The policy for a child, which is the only one in its process.
    fn take_policy(&mut self) -> Policy {
        let empty = whitelists::empty(&self.settings);
        Policy {
            rules: self.policy.rules.clone(),
            texts: self.policy.texts.clone(),
            whitelists: std::mem::replace(&mut self.policy.whitelists, empty),
            is_dry_run: self.policy.is_dry_run,
        }
    }

    /// A child keeps only the ends it took.
    pub fn close_links(&mut self) -> io::Result<()> {
        self.links = Links::new(0)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn death(was_killed: bool, status: Option<i32>) -> Death {
        Death {
            pid: Pid::from_raw(1),
            how: String::new(),
            status,
            was_killed,
            has_crashed: false,
        }
    }

    /// The seconds after which a child is due that was started and, this much
    /// later, ended so.
    fn wait_after(child: &mut Child, life: Duration, is_ready: bool, death: &Death) -> u64 {
        let start = Instant::now();
        child.begin(Pid::from_raw(1), UnixStream::pair().unwrap().0, start);
        assert_eq!(child.due, None);
        child.is_ready = is_ready;
        child.end(death, start + life);
        (child.due.unwrap() - (start + life)).as_secs()
    }

    #[test]
    fn trouble_soon_after_the_start_makes_the_next_wait_longer() {
        let mut child = Child::new(Role::Writer, Instant::now());
        let crash = death(false, Some(1));
        let waits: Vec<u64> = (0..8)
            .map(|_| wait_after(&mut child, SECOND / 2, true, &crash))
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(wait_after(&mut child, SECOND, true, &crash), 0);
        assert_eq!(wait_after(&mut child, SECOND / 2, true, &crash), 1);
    }

    #[test]
    fn who_was_killed_or_asked_to_end_is_replaced_at_once() {
        for death in [death(true, None), death(false, Some(0))] {
            let mut child = Child::new(Role::Worker(0), Instant::now());
            assert_eq!(wait_after(&mut child, SECOND / 2, true, &death), 0);
            // But not one that never came to serve.
            assert_eq!(wait_after(&mut child, SECOND / 2, false, &death), 1);
        }
    }
}
