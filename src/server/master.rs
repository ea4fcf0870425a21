//! The master: starts the children, keeps their number, passes signals on, and
//! has a doubtful database verified. It never opens the database itself: no
//! damage can end it.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::background::Report;
use super::children::{Child, Parts, Role};
use super::control::{self, Coalesced, Message};
use super::counters::Counter;
use super::lists::reload_first;
use super::options_file::write_for_daemon;
use super::pidfile::PidFile;
use super::verification::{Reason, Verification, run_verifier};
use crate::log::Level;
use crate::sys::files::replace_file;
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
/// How long the children may take until they serve, when somebody waits for it.
const START_LIMIT: Duration = Duration::from_secs(30);
/// How long children may take to end before they are killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How long after a failure of the system the same is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How often the statistics file is written.
const STATISTICS_INTERVAL: Duration = Duration::from_secs(60);

/// From here on a signal ends the server in order, however far its start is.
pub fn watch_signals() -> io::Result<Signals> {
    let mut watched = SIGNALS.to_vec();
    watched.push(Signal::SIGCHLD);
    Signals::install(&watched)
}

/// The master process.
pub struct Master {
    parts: Parts,
    pid_file: PidFile,
    children: Vec<Child>,
    signals: Signals,
    incarnations: u32,
    reload: Coalesced,
    statistics: Coalesced,
    verification: Verification,
    started: Instant,
    stopping: Option<Instant>,
    next_statistics: Instant,
    report: Report,
}

impl Master {
    /// A master without children yet; `doubt` is why the database is to be
    /// verified first.
    pub fn new(
        parts: Parts,
        pid_file: PidFile,
        signals: Signals,
        report: Report,
        doubt: Option<Reason>,
    ) -> Self {
        let workers = (0..parts.settings.workers).map(Role::Worker);
        let now = Instant::now();
        let mut master = Master {
            children: std::iter::once(Role::Writer)
                .chain(workers)
                .map(|role| Child::new(role, now))
                .collect(),
            verification: Verification::new(&parts.settings.store),
            parts,
            pid_file,
            signals,
            incarnations: 0,
            reload: Coalesced::default(),
            statistics: Coalesced::default(),
            started: now,
            stopping: None,
            next_statistics: now,
            report,
        };
        if let Some(reason) = doubt {
            master.doubt_database(reason);
        }
        master
    }

    /// Runs the children until a signal ends the server. When all of them
    /// serve for the first time it is reported.
    pub fn run(&mut self) -> io::Result<()> {
        loop {
            self.start_due_children();
            self.start_due_verifier();
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
            if let Err(error) = poll.wait(timeout) {
                self.parts.log.complain(&format!("cannot wait: {error}"));
                std::thread::sleep(RETRY_PAUSE);
            }
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
            if self.report.is_awaited() && self.started.elapsed() >= START_LIMIT {
                self.stop();
                return Err(io::Error::other("no process comes to serve"));
            }
            if self.stopping.is_some() && self.drive_shutdown() {
                return Ok(());
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let dues = self.children.iter().filter_map(|child| child.due);
        let has_file = self.parts.settings.stats_file.is_some();
        let others = [
            has_file.then_some(self.next_statistics),
            self.stopping.map(|since| since + STOP_LIMIT),
            self.verification.due().filter(|_| self.stopping.is_none()),
            self.reload.due(),
            self.statistics.due(),
            self.report
                .is_awaited()
                .then_some(self.started + START_LIMIT),
        ];
        dues.chain(others.into_iter().flatten()).min()
    }

    fn start_due_children(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        for index in 0..self.children.len() {
            let now = Instant::now();
            if self.children[index].due.is_none_or(|due| due > now) {
                continue;
            }
            if let Err(error) = self.start_child(index) {
                let role = self.children[index].role;
                self.parts
                    .log
                    .complain(&format!("cannot start {role}: {error}"));
                self.children[index].due = Some(now + RETRY_PAUSE);
            }
        }
    }

    fn start_child(&mut self, index: usize) -> io::Result<()> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        self.incarnations += 1;
        let role = self.children[index].role;
        if role == Role::Writer {
            // From now on workers send to this one.
            self.parts.shared.next_writer_generation();
        }
        let blocked = signals::block_all()?;
        match process::fork()? {
            Side::Child => {
                drop(ours);
                let status = self.become_child(role, theirs, blocked);
                std::process::exit(status);
            }
            Side::Parent(pid) => {
                drop(blocked);
                self.children[index].begin(pid, ours, Instant::now());
                if role == Role::Writer {
                    self.tell_workers(Message::WriterReplaced);
                }
                Ok(())
            }
        }
    }

    /// What a child does from its fork to its end.
    fn become_child(&mut self, role: Role, control: UnixStream, blocked: signals::Blocked) -> i32 {
        let incarnation = self.incarnations;
        let signals = Signals::install(&SIGNALS);
        self.leave_master();
        drop(blocked);
        let result =
            signals.and_then(|signals| self.parts.run_role(role, incarnation, control, signals));
        match result {
            Ok(()) => 0,
            Err(error) => {
                self.parts
                    .log
                    .write(Level::Fatal, format!("{role} ends: {error}").as_bytes());
                1
            }
        }
    }

    /// What every child does first.
    fn leave_master(&mut self) {
        // The ends of the other children's sockets must not live on in this process:
        // each child sees by them that the master is gone.
        self.children.clear();
        drop(std::mem::take(&mut self.pid_file));
        self.report.drop_unsent();
        self.signals.uninstall();
    }

    fn start_due_verifier(&mut self) {
        let now = Instant::now();
        if self.stopping.is_some() {
            return;
        }
        let Some(reason) = self.verification.take_due(now) else {
            return;
        };
        match self.fork_verifier(reason) {
            Ok(pid) => self.verification.begin(pid),
            Err(error) => {
                self.parts
                    .log
                    .complain(&format!("cannot start the verifier: {error}"));
                self.verification.postpone(now);
            }
        }
    }

    fn fork_verifier(&mut self, reason: Reason) -> io::Result<Pid> {
        let own_pid = std::process::id() as i32;
        let blocked = signals::block_all()?;
        match process::fork()? {
            Side::Parent(pid) => Ok(pid),
            Side::Child => {
                self.leave_master();
                drop(blocked);
                let Parts {
                    settings,
                    lock,
                    log,
                    listeners,
                    ..
                } = &mut self.parts;
                listeners.sockets.clear();
                process::lower_priority();
                let status = run_verifier(&settings.dbdir, lock, reason, Some(own_pid), log);
                std::process::exit(status);
            }
        }
    }

    /// Takes the database out of use until it is verified.
    fn doubt_database(&mut self, reason: Reason) {
        if self.verification.is_wanted() || self.stopping.is_some() {
            return;
        }
        if self.verification.request(reason, Instant::now()) {
            self.suspend_database();
        }
    }

    fn suspend_database(&self) {
        self.parts.shared.set_store_usable(false);
        self.parts
            .log
            .complain("the database is being verified: requests pass ungreylisted until then");
    }

    fn tell_workers(&self, message: Message) {
        for child in &self.children {
            if let (Role::Worker(_), Some((_, control))) = (child.role, &child.process) {
                // A child that is gone is replaced, and needs no message then.
                let _ = control::send(control, message);
            }
        }
    }

    fn listen_to_child(&mut self, index: usize) {
        let process = &self.children[index].process;
        let messages = process
            .as_ref()
            .and_then(|(_, control)| control::receive(control));
        for message in messages.unwrap_or_default() {
            match message {
                Message::Ready => self.children[index].is_ready = true,
                Message::Reload => self.reload.request(Instant::now()),
                Message::Statistics => self.statistics.request(Instant::now()),
                Message::Damaged => self.doubt_database(Reason::Damage),
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
                self.note_child_exit(&death);
            }
        }
    }

    fn act_on_requests(&mut self) {
        if self.reload.take_due(Instant::now()) {
            self.parts
                .log
                .write(Level::One, b"HUP received: reloading whitelists...");
            let Parts {
                settings,
                policy,
                log,
                ..
            } = &mut self.parts;
            // For workers to come; those that are there read the lists themselves.
            if reload_first(settings, policy, log) {
                write_for_daemon(settings, log);
                self.tell_workers(Message::Reload);
            }
        }
        let counters = &self.parts.shared.counters;
        if self.statistics.take_due(Instant::now()) {
            self.parts.log.write(Level::One, counters.line().as_bytes());
        }
        if let Some(path) = &self.parts.settings.stats_file
            && self.next_statistics <= Instant::now()
        {
            self.next_statistics = Instant::now() + STATISTICS_INTERVAL;
            if let Err(error) = replace_file(path, counters.prometheus().as_bytes(), 0o644) {
                let path = path.display();
                self.parts
                    .log
                    .complain(&format!("cannot write statistics to {path}: {error}"));
            }
        }
    }

    /// Notes the end of a child and when its successor starts.
    fn note_child_exit(&mut self, death: &process::Death) {
        let now = Instant::now();
        if self.verification.note_end(death, now) {
            if !self.verification.is_wanted() {
                self.parts.shared.set_store_usable(true);
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
        child.end(death, now);
        let role = child.role;
        if let Role::Worker(place) = role {
            self.parts.shared.counters.set_connections(place, None);
        }
        if self.stopping.is_some() {
            child.due = None;
            return;
        }
        self.parts.shared.counters.add(Counter::ChildrenDied, 1);
        let line = format!(
            "{role} (pid {}) ended with {}: starting another",
            death.pid, death.how
        );
        self.parts.log.write(Level::Warning, line.as_bytes());
        if death.has_crashed && self.verification.note_crash(now) {
            self.suspend_database();
        }
    }

    /// Tells the workers to end; the writer ends after them.
    fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Instant::now());
        self.parts.listeners.sockets.clear();
        if let Some(pid) = self.verification.running() {
            // The mark stays, and with it the wish for another verification.
            let _ = kill(pid, Signal::SIGKILL);
        }
        for child in &mut self.children {
            child.due = None;
            if let (Role::Worker(_), Some((pid, _))) = (child.role, &child.process) {
                let _ = kill(*pid, Signal::SIGTERM);
            }
        }
    }

    /// Ends the writer when the workers have ended, and kills who takes too
    /// long; true when nobody is left, or was waited for long enough.
    fn drive_shutdown(&self) -> bool {
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
        // A verifier that was killed may still hold the claim.
        let is_verifying = self.verification.running().is_some();
        is_late || (!is_verifying && self.children.iter().all(|child| child.process.is_none()))
    }
}
