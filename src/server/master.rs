//! The master: starts the children, keeps their number, passes signals on.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::children::{Child, Links, Role};
use super::commit::{Committer, WriterLink};
use super::control::{self, Coalesced, Message};
use super::counters::Counter;
use super::datagram::Inbox;
use super::engine::Engine;
use super::listener::Listeners;
use super::pace::Pace;
use super::recovery::{self, Copying};
use super::shared::Shared;
use super::worker::Worker;
use super::writer::Writer;
use super::{PidFile, Report};
use crate::config::settings::{Settings, Sync};
use crate::config::whitelists;
use crate::log::{Level, Log};
use crate::policy::decide::Policy;
use crate::store::copies::{identity_of, is_marked};
use crate::store::lmdb::{LmdbOptions, LmdbStore};
use crate::sys::lock::LockFile;
use crate::sys::poll::{Interest, PollSet};
use crate::sys::process::{self, Side};
use crate::sys::signals::{self, Signals};

/// The signals master and children react to.
pub const SIGNALS: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
];
/// How long children may take to end before they are killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long after a fork that failed the next is tried.
const FORK_PAUSE: Duration = Duration::from_secs(1);
/// How often the statistics file is written.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(60);
/// How often the journal is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// The master process.
pub struct Master {
    /// The file with the master's number; the children do not keep it open.
    pub pid_file: PidFile,
    settings: Settings,
    policy: Policy,
    listeners: Listeners,
    lock: LockFile,
    log: Rc<Log>,
    shared: Shared,
    links: Links,
    children: Vec<Child>,
    signals: Signals,
    incarnations: u32,
    reload: Coalesced,
    statistics: Coalesced,
    stopping: Option<Instant>,
    next_statistics: Instant,
    copying: Copying,
    /// When the journal is looked at next, and the file it was begun for.
    next_look: Option<Instant>,
    journal_of: Option<(u64, u64)>,
    /// The writer has flushed everything and ended, behind all others.
    is_flushed: bool,
    report: Report,
}

impl Master {
    /// A master without children yet.
    pub fn new(
        settings: &Settings,
        policy: Policy,
        listeners: Listeners,
        lock: LockFile,
        log: Rc<Log>,
        shared: Shared,
        report: Report,
    ) -> io::Result<Self> {
        let mut watched = SIGNALS.to_vec();
        watched.push(Signal::SIGCHLD);
        let roles = std::iter::once(Role::Writer).chain((0..settings.workers).map(Role::Worker));
        let now = Instant::now();
        let children = roles.map(|role| Child::new(role, now)).collect();
        Ok(Master {
            pid_file: PidFile::default(),
            settings: settings.clone(),
            policy,
            listeners,
            lock,
            log,
            shared,
            links: Links::new(settings.workers)?,
            children,
            signals: Signals::install(&watched)?,
            incarnations: 0,
            reload: Coalesced::default(),
            statistics: Coalesced::default(),
            stopping: None,
            next_statistics: now,
            copying: match settings.sync {
                // What is to be recovered yet needs the copy that is there.
                Sync::Commit if is_marked(&settings.dbdir) => Copying::Never,
                Sync::Commit => Copying::Due(now),
                Sync::None => Copying::first(&settings.dbdir, now),
            },
            next_look: (settings.sync == Sync::Commit).then_some(now),
            journal_of: None,
            is_flushed: false,
            report,
        })
    }

    /// True if everything that was committed is on the disk.
    pub fn is_flushed(&self) -> bool {
        self.is_flushed
    }

    /// Runs the children until a signal ends the server. When all of them
    /// serve for the first time it is reported.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            self.start_due_children()?;
            self.start_due_copy()?;
            let mut poll = PollSet::default();
            poll.set(0, &self.signals, Interest::INPUT);
            for (index, child) in self.children.iter().enumerate() {
                if let Some((_, control)) = &child.process {
                    poll.set(index + 1, control, Interest::INPUT);
                }
            }
            let timeout = self
                .deadline()
                .map(|at| at.saturating_duration_since(Instant::now()));
            poll.wait(timeout)?;
            for index in 0..self.children.len() {
                if poll.readiness(index + 1).input {
                    self.listen_to_child(index);
                }
            }
            if poll.readiness(0).input {
                self.act_on_signals();
            }
            self.act_on_requests();
            if self.children.iter().all(|child| child.is_ready) {
                self.report.send(&[0]);
            }
            if self.stopping.is_some() && self.is_stopped() {
                return Ok(());
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let dues = self.children.iter().filter_map(|child| child.due);
        let statistics = self
            .settings
            .stats_file
            .is_some()
            .then_some(self.next_statistics);
        let stopping = self.stopping.map(|since| since + STOP_LIMIT);
        let copy = self.copying.due().filter(|_| stopping.is_none());
        let look = self.next_look.filter(|_| stopping.is_none());
        let requests = [self.reload.due(), self.statistics.due()];
        dues.chain(
            requests
                .into_iter()
                .chain([statistics, stopping, copy, look])
                .flatten(),
        )
        .min()
    }

    fn start_due_children(&mut self) -> io::Result<()> {
        if self.stopping.is_some() {
            return Ok(());
        }
        for index in 0..self.children.len() {
            if self.children[index]
                .due
                .is_some_and(|due| due <= Instant::now())
            {
                self.start_child(index)?;
            }
        }
        Ok(())
    }

    fn start_child(&mut self, index: usize) -> io::Result<()> {
        let (ours, theirs) = UnixStream::pair()?;
        self.incarnations += 1;
        let blocked = signals::block_all()?;
        match process::fork() {
            Ok(Side::Child) => {
                drop(ours);
                let signals = Signals::install(&SIGNALS);
                let role = self.children[index].role;
                let status = self.become_child(role, theirs, signals, blocked);
                std::process::exit(status);
            }
            Ok(Side::Parent(pid)) => {
                drop(blocked);
                ours.set_nonblocking(true)?;
                let child = &mut self.children[index];
                child.begin(pid, ours, Instant::now());
                if child.role == Role::Writer {
                    self.tell_workers(Message::WriterReplaced);
                }
                Ok(())
            }
            Err(error) => {
                drop(blocked);
                self.log.complain(&format!("cannot fork: {error}"));
                self.children[index].due = Some(Instant::now() + FORK_PAUSE);
                Ok(())
            }
        }
    }

    /// Nobody waits for a copy, so it has a process of its own.
    fn start_due_copy(&mut self) -> io::Result<()> {
        if self.stopping.is_some() {
            return Ok(());
        }
        self.look_at_journal();
        if self.copying.due().is_none_or(|due| due > Instant::now()) {
            return Ok(());
        }
        self.journal_of = identity_of(&self.settings.dbdir).ok();
        let blocked = signals::block_all()?;
        match process::fork() {
            Ok(Side::Child) => {
                let left = self.leave_master(blocked);
                self.listeners.sockets.clear();
                let copied = left.and_then(|()| self.close_links()).and_then(|()| {
                    let dbdir = &self.settings.dbdir;
                    match self.settings.sync {
                        // It keeps the lock at times: others would wait for it.
                        Sync::Commit => recovery::renew_journal(dbdir, &self.lock.for_child()?),
                        Sync::None => {
                            process::lower_priority();
                            recovery::make_copy(dbdir)
                        }
                    }
                });
                if let Err(error) = copied {
                    self.log
                        .complain(&format!("cannot copy the database: {error}"));
                }
                std::process::exit(0);
            }
            Ok(Side::Parent(pid)) => self.copying = Copying::Running(pid),
            Err(error) => {
                self.log.complain(&format!("cannot fork: {error}"));
                self.copying = Copying::next(&self.settings.dbdir, Instant::now());
            }
        }
        Ok(())
    }

    /// Lets the next copy come sooner if the journal needs it.
    fn look_at_journal(&mut self) {
        let now = Instant::now();
        if self.next_look.is_some_and(|at| at <= now) {
            self.next_look = Some(now + LOOK_INTERVAL);
            let is_waiting = self.copying.due().is_some_and(|due| due > now);
            if is_waiting && recovery::is_renewal_wanted(&self.settings.dbdir, self.journal_of) {
                self.copying = Copying::Due(now);
            }
        }
    }

    fn tell_workers(&self, message: Message) {
        for child in &self.children {
            if let (Role::Worker(_), Some((_, control))) = (child.role, &child.process) {
                // A child that is gone is replaced, and needs no message then.
                let _ = control::send(control, message);
            }
        }
    }

    /// What every child does first.
    fn leave_master(&mut self, blocked: signals::Blocked) -> io::Result<()> {
        // The ends of its sisters' sockets must not live on in this process:
        // each child sees by them that the master is gone.
        self.children.clear();
        drop(std::mem::take(&mut self.pid_file));
        self.report.drop_unsent();
        drop(std::mem::replace(&mut self.signals, Signals::install(&[])?));
        drop(blocked);
        Ok(())
    }

    /// What a child does from its fork to its end.
    fn become_child(
        &mut self,
        role: Role,
        control: UnixStream,
        signals: io::Result<Signals>,
        blocked: signals::Blocked,
    ) -> i32 {
        let result = self
            .leave_master(blocked)
            .and_then(|()| self.run_role(role, control, signals));
        match result {
            Ok(()) => 0,
            Err(error) => {
                self.log
                    .write(Level::Fatal, format!("{role} ends: {error}").as_bytes());
                1
            }
        }
    }

    fn run_role(
        &mut self,
        role: Role,
        control: UnixStream,
        signals: io::Result<Signals>,
    ) -> io::Result<()> {
        control.set_nonblocking(true)?;
        match role {
            Role::Worker(place) => self.run_worker(place, control, signals?),
            Role::Writer => self.run_writer(control, signals?),
        }
    }

    fn open_store(&self) -> LmdbStore {
        let mut store = LmdbStore::new(lmdb_options(&self.settings));
        // A process that died may have left its reader slot: now is the time.
        if let Err(error) = store.clear_stale_readers() {
            self.log.complain(&error.to_string());
        }
        store
    }

    fn run_worker(
        &mut self,
        place: usize,
        control: UnixStream,
        signals: Signals,
    ) -> io::Result<()> {
        process::raise_descriptor_limit()?;
        let log = Rc::clone(&self.log);
        let link = WriterLink {
            to_writer: self.links.to_writer.0.try_clone()?,
            from_writer: self.links.answers[place].1.try_clone()?,
            worker: place as u8,
            incarnation: self.incarnations,
        };
        let lock = self.lock.for_child()?;
        let committer = Committer::new(
            self.open_store(),
            lock,
            Some(link),
            Rc::clone(&log),
            self.shared,
        );
        let policy = self.take_policy();
        let engine = Engine::new(&self.settings, policy, Rc::clone(&log), self.shared);
        let listeners = std::mem::take(&mut self.listeners.sockets);
        let mut worker = Worker::new(
            place,
            engine,
            committer,
            listeners,
            control,
            signals,
            log,
            self.shared,
        );
        self.close_links()?;
        worker.run()
    }

    fn run_writer(&mut self, control: UnixStream, signals: Signals) -> io::Result<()> {
        self.listeners.sockets.clear();
        let answers = self.links.answers.iter().map(|(send, _)| send.try_clone());
        let mut writer = Writer {
            queue: self.links.to_writer.1.try_clone()?,
            answers: answers.collect::<io::Result<_>>()?,
            control,
            signals,
            store: self.open_store(),
            lock: self.lock.for_child()?,
            rules: self.policy.rules.clone(),
            log: Rc::clone(&self.log),
            shared: self.shared,
            inbox: Inbox::default(),
            pace: Pace::new(self.settings.workers, Instant::now()),
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
    fn close_links(&mut self) -> io::Result<()> {
        self.links = Links::new(0)?;
        Ok(())
    }

    fn listen_to_child(&mut self, index: usize) {
        let mut octets = [0; 64];
        let length = match &mut self.children[index].process {
            Some((_, control)) => control.read(&mut octets).unwrap_or(0),
            None => 0,
        };
        for message in octets[..length]
            .iter()
            .filter_map(|&octet| Message::of(octet))
        {
            match message {
                Message::Ready => self.children[index].is_ready = true,
                Message::Reload => self.reload.request(Instant::now()),
                Message::Statistics => self.statistics.request(Instant::now()),
                Message::WriterReplaced | Message::End => {}
            }
        }
    }

    fn act_on_signals(&mut self) {
        let came = self.signals.take();
        for signal in &came {
            match signal {
                Signal::SIGCHLD => {}
                Signal::SIGHUP => self.reload.request(Instant::now()),
                Signal::SIGUSR1 => self.statistics.request(Instant::now()),
                _ => self.stop(),
            }
        }
        if came.contains(&Signal::SIGCHLD) {
            while let Some(death) = process::reap() {
                self.bury(&death);
            }
        }
    }

    fn act_on_requests(&mut self) {
        if self.reload.take_due(Instant::now()) {
            self.log
                .write(Level::One, b"HUP received: reloading whitelists...");
            let loaded = whitelists::load(&self.settings);
            // The workers say what is wrong; this is for those to come.
            if loaded.problems.iter().all(|problem| !problem.is_fatal) {
                self.policy.whitelists = loaded.whitelists;
            }
            self.tell_workers(Message::Reload);
        }
        if self.statistics.take_due(Instant::now()) {
            self.log
                .write(Level::One, self.shared.counters.line().as_bytes());
        }
        if let Some(path) = &self.settings.stats_file
            && self.next_statistics <= Instant::now()
        {
            self.next_statistics = Instant::now() + STATISTICS_INTERVAL;
            if let Err(error) = write_whole(path, self.shared.counters.prometheus().as_bytes()) {
                let path = path.display();
                self.log
                    .complain(&format!("cannot write statistics to {path}: {error}"));
            }
        }
    }

    /// Notes the end of a child and when its successor starts.
    fn bury(&mut self, death: &process::Death) {
        if self.copying == Copying::Running(death.pid) {
            self.copying = Copying::next(&self.settings.dbdir, Instant::now());
            if !death.was_orderly && self.stopping.is_none() {
                let how = &death.how;
                self.log
                    .complain(&format!("copying the database ended with {how}"));
            }
            return;
        }
        let is_it = |child: &&mut Child| {
            child
                .process
                .as_ref()
                .is_some_and(|(pid, _)| *pid == death.pid)
        };
        let Some(child) = self.children.iter_mut().find(is_it) else {
            return;
        };
        child.end(death, Instant::now());
        let role = child.role;
        if let Role::Worker(place) = role {
            self.shared.counters.set_connections(place, None);
        }
        if self.stopping.is_some() {
            child.due = None;
            self.is_flushed |= role == Role::Writer && death.was_orderly;
            return;
        }
        self.shared.counters.add(Counter::ChildrenDied, 1);
        let line = format!(
            "{role} (pid {}) ended with {}: starting another",
            death.pid, death.how
        );
        self.log.write(Level::Warning, line.as_bytes());
    }

    /// Tells the workers to end; the writer ends after them.
    fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Instant::now());
        self.listeners.sockets.clear();
        if let Copying::Running(pid) = self.copying {
            let _ = kill(pid, Signal::SIGKILL);
        }
        for child in &mut self.children {
            child.due = None;
            if let (Role::Worker(_), Some((pid, _))) = (child.role, &child.process) {
                let _ = kill(*pid, Signal::SIGTERM);
            }
        }
    }

    /// True if all children have ended, or had long enough to.
    fn is_stopped(&self) -> bool {
        let is_late = self
            .stopping
            .is_some_and(|since| since.elapsed() >= STOP_LIMIT);
        let workers_left = self
            .children
            .iter()
            .any(|child| child.role != Role::Writer && child.process.is_some());
        for child in &self.children {
            let Some((pid, control)) = &child.process else {
                continue;
            };
            if is_late {
                let _ = kill(*pid, Signal::SIGKILL);
            } else if child.role == Role::Writer && !workers_left {
                let _ = control::send(control, Message::End);
            }
        }
        // A copier that was killed may still be in a flush, with the database open.
        let is_copying = matches!(self.copying, Copying::Running(_));
        is_late || (!is_copying && self.children.iter().all(|child| child.process.is_none()))
    }

    /// Removes the files of UNIX sockets.
    pub fn remove_socket_files(&self) {
        self.listeners.remove_files();
    }
}

/// How the settings want the environment opened.
pub fn lmdb_options(settings: &Settings) -> LmdbOptions {
    LmdbOptions {
        dir: settings.dbdir.clone(),
        map_size: settings.db_size,
        // Where no process stays, none could verify or copy.
        sync: settings.spawn || settings.sync == Sync::Commit,
    }
}

/// Replaces a file as a whole: readers see the old one or the new one.
fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let mut file = std::fs::File::create(&name)?;
    file.write_all(content)?;
    drop(file);
    std::fs::rename(&name, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_flushed_unless_a_server_is_told_not_to() {
        for (spawn, sync, flushes) in [
            (false, Sync::Commit, true),
            (false, Sync::None, false),
            (true, Sync::None, true),
        ] {
            let settings = Settings {
                spawn,
                sync,
                ..Settings::default()
            };
            assert_eq!(lmdb_options(&settings).sync, flushes, "{settings:?}");
        }
    }
}
