//! A worker: any number of connections, one thing at a time.
//!
//! It blocks in poll(2) over the listening sockets, its connections, and its
//! pipes to master and writer; reads what is ready; answers each complete
//! request in order. No connection can hold it up, and an idle one costs a
//! descriptor.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use socket2::{SockAddr, Socket};

use super::commit::{Committer, Done};
use super::control::{self, Message};
use super::counters::Counter;
use super::engine::{Advance, Engine};
use super::lull::Lull;
use super::session::{STALL_LIMIT, Session};
use super::shared::Shared;
use super::waiting::Waiting;
use crate::log::{Level, Log};
use crate::sys::poll::Interest;
use crate::sys::signals::Signals;

/// Octets read at once.
const READ_BUFFER: usize = 64 * 1024;
/// How long a stopping worker waits for commits and for peers to read.
const STOP_LIMIT: Duration = Duration::from_secs(4);
/// How long a worker that has more connections than others leaves a new one to
/// them.
const POLITENESS: Duration = Duration::from_millis(1);
/// How many connections more than the least busy worker count as equal.
const FAIR_LEAD: usize = 4;
/// How often a turn looks for requests before it commits.
const MOST_LOOKS: usize = 3;
/// How long a listener is left alone when descriptors have run out.
const DESCRIPTOR_PAUSE: Duration = Duration::from_secs(1);

/// Places in the poll set: signals, master, writer, queue of the writer, then
/// the listeners, then the connections.
const SIGNALS: usize = 0;
const CONTROL: usize = 1;
const FROM_WRITER: usize = 2;
const TO_WRITER: usize = 3;
const LISTENERS: usize = 4;

/// A worker process.
pub struct Worker {
    /// Its place among the workers.
    place: usize,
    engine: Engine,
    committer: Committer,
    listeners: Vec<Socket>,
    control: UnixStream,
    signals: Signals,
    sessions: Vec<Option<Session>>,
    /// Tells a connection from an earlier one at the same index.
    serials: Vec<u32>,
    free: Vec<usize>,
    waiting: Waiting,
    /// The pause before a wait.
    lull: Lull,
    buffer: Vec<u8>,
    command: Vec<u8>,
    done: Vec<Done>,
    /// The listeners are left alone until then.
    accept_after: Option<Instant>,
    /// Connections whose peer does not read.
    has_stalled: bool,
    stopping: Option<Instant>,
    log: Rc<Log>,
    shared: Shared,
}

impl Worker {
    /// A worker on these listeners.
    #[allow(clippy::too_many_arguments)] // each is a part of its own
    pub fn new(
        place: usize,
        engine: Engine,
        committer: Committer,
        listeners: Vec<Socket>,
        control: UnixStream,
        signals: Signals,
        log: Rc<Log>,
        shared: Shared,
    ) -> Self {
        let waiting = Waiting::new(LISTENERS + listeners.len());
        Worker {
            place,
            engine,
            committer,
            listeners,
            control,
            signals,
            sessions: Vec::new(),
            serials: Vec::new(),
            free: Vec::new(),
            waiting,
            lull: Lull::new(Instant::now()),
            buffer: vec![0; READ_BUFFER],
            command: Vec::new(),
            done: Vec::new(),
            accept_after: None,
            has_stalled: false,
            stopping: None,
            log,
            shared,
        }
    }

    /// Serves until it is told to stop or the master is gone.
    pub fn run(&mut self) -> io::Result<()> {
        self.waiting
            .poll
            .set(SIGNALS, &self.signals, Interest::INPUT);
        self.waiting
            .poll
            .set(CONTROL, &self.control, Interest::INPUT);
        if let Some(link) = self.committer.link() {
            self.waiting
                .poll
                .set(FROM_WRITER, &link.from_writer, Interest::INPUT);
        }
        self.watch_listeners();
        self.shared.counters.set_connections(self.place, Some(0));
        control::send(&self.control, Message::Ready)?;
        while !self.is_finished() {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        self.wait()?;
        if self.waiting.poll.readiness(SIGNALS).input {
            self.act_on_signals();
        }
        let control = self.waiting.poll.readiness(CONTROL);
        if control.input || control.gone {
            self.act_on_control();
        }
        self.take_outcomes();
        self.accept();
        self.serve()?;
        self.look_after_time();
        self.watch_writer();
        Ok(())
    }

    /// Answers the requests whose outcomes have come, and goes on with sending
    /// commands that the writer's queue did not take.
    fn take_outcomes(&mut self) {
        if self.waiting.poll.readiness(FROM_WRITER).input
            || self.waiting.poll.readiness(TO_WRITER).output
        {
            self.committer.receive(&mut self.done);
            self.finish_requests();
        }
    }

    /// Waits until something is ready, and for requests to gather before.
    fn wait(&mut self) -> io::Result<()> {
        self.lull.note_turn(Instant::now());
        if let Some(length) = self.lull.length() {
            self.pause(length)?;
        }
        let under_way = self.committer.under_way();
        self.waiting.wait(self.deadline(), self.connections())?;
        let waiting = &self.waiting;
        self.lull.note_wait(waiting.awake(), under_way);
        self.lull.review(waiting.awake(), || waiting.count_busy());
        Ok(())
    }

    /// Reads no requests for so long; those whose outcomes come meanwhile are
    /// answered at once.
    fn pause(&mut self, length: Duration) -> io::Result<()> {
        const BESIDES: [usize; 4] = [SIGNALS, CONTROL, FROM_WRITER, TO_WRITER];
        let mut now = Instant::now();
        let end = now + length;
        while now < end {
            let under_way = self.committer.under_way();
            let ready = self.waiting.poll.wait_for(&BESIDES, Some(end - now))?;
            now = Instant::now();
            self.lull.note_wait(now, under_way);
            let control = self.waiting.poll.readiness(CONTROL);
            if self.waiting.poll.readiness(SIGNALS).input || control.input || control.gone {
                break;
            }
            if ready > 0 {
                self.take_outcomes();
                self.watch_writer();
            }
        }
        Ok(())
    }

    /// The next time something has to be looked after.
    fn deadline(&self) -> Option<Instant> {
        let stalled = self
            .has_stalled
            .then(|| Instant::now() + Duration::from_secs(1));
        let stopping = self.stopping.map(|since| since + STOP_LIMIT);
        [
            self.committer.deadline(),
            self.accept_after,
            stalled,
            stopping,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn is_finished(&self) -> bool {
        let is_quiet = self.sessions.iter().flatten().next().is_none();
        self.stopping
            .is_some_and(|since| is_quiet || since.elapsed() >= STOP_LIMIT)
    }

    fn act_on_signals(&mut self) {
        for signal in self.signals.take() {
            let message = match signal {
                Signal::SIGHUP => Message::Reload,
                Signal::SIGUSR1 => Message::Statistics,
                _ => {
                    self.stop();
                    continue;
                }
            };
            // The master does it for all of us; if it is gone, so are we soon.
            let _ = control::send(&self.control, message);
        }
    }

    fn act_on_control(&mut self) {
        let mut octets = [0; 64];
        match (&self.control).read(&mut octets) {
            Ok(0) => {
                // The master is gone: nobody would replace us.
                self.waiting.poll.clear(CONTROL);
                self.stop();
            }
            Ok(length) => {
                for message in octets[..length]
                    .iter()
                    .filter_map(|&octet| Message::of(octet))
                {
                    match message {
                        Message::Reload => self.engine.reload(),
                        Message::WriterReplaced => {
                            self.committer.send_again(&mut self.done);
                            self.finish_requests();
                        }
                        Message::Ready | Message::Statistics | Message::End => {}
                    }
                }
            }
            Err(_) => {}
        }
    }

    /// Accepts no more; answers what has been received and closes.
    fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Instant::now());
        for index in 0..self.listeners.len() {
            self.waiting.poll.clear(LISTENERS + index);
        }
        self.listeners.clear();
        self.accept_after = None;
        self.shared.counters.set_connections(self.place, None);
        for index in 0..self.sessions.len() {
            self.read(index);
        }
        self.commit();
        for index in 0..self.sessions.len() {
            self.tidy(index);
        }
    }

    fn watch_listeners(&mut self) {
        for (index, listener) in self.listeners.iter().enumerate() {
            self.waiting
                .poll
                .set(LISTENERS + index, listener, Interest::INPUT);
        }
    }

    fn leave_listeners(&mut self, time: Duration) {
        for index in 0..self.listeners.len() {
            self.waiting.poll.clear(LISTENERS + index);
        }
        self.accept_after = Some(Instant::now() + time);
    }

    fn connections(&self) -> usize {
        self.sessions.len() - self.free.len()
    }

    /// Accepts new connections, unless others have fewer: then they get a
    /// moment to do it.
    fn accept(&mut self) {
        let is_late = self.accept_after.is_some_and(|at| at <= Instant::now());
        if is_late {
            self.accept_after = None;
            self.watch_listeners();
        }
        for index in 0..self.listeners.len() {
            if !is_late && !self.waiting.poll.readiness(LISTENERS + index).input {
                continue;
            }
            let mut may_accept = is_late || self.is_least_busy();
            while may_accept {
                match self.listeners[index].accept() {
                    Ok((socket, peer)) => {
                        self.log_connection(&peer);
                        self.add(socket);
                    }
                    Err(error) => {
                        if is_descriptor_limit(&error) {
                            self.run_out_of_descriptors(&error);
                            return;
                        }
                        break;
                    }
                }
                may_accept = self.is_least_busy();
            }
            if !may_accept && !self.is_least_busy() {
                self.leave_listeners(POLITENESS);
                return;
            }
        }
    }

    fn is_least_busy(&self) -> bool {
        let fewest = self.shared.counters.fewest_connections().unwrap_or(0);
        self.connections() < fewest + fewest / 2 + FAIR_LEAD
    }

    fn run_out_of_descriptors(&mut self, error: &io::Error) {
        self.shared.counters.add(Counter::DescriptorsOut, 1);
        let connections = self.connections();
        self.log.complain(&format!(
            "no new connections beside {connections} of a worker: {}",
            crate::sys::errors::describe(error)
        ));
        self.leave_listeners(DESCRIPTOR_PAUSE);
    }

    /// The line of `--verbose`, beginning as that of the original.
    fn log_connection(&self, peer: &SockAddr) {
        if !self.log.shows(Level::Three) {
            return;
        }
        let line = match peer.as_socket() {
            Some(address) => format!("CONNECT TCP Peer: \"{address}\""),
            None => "CONNECT UNIX Socket".to_owned(),
        };
        self.log
            .write(Level::Three, &super::timestamped(line.as_bytes()));
    }

    fn add(&mut self, socket: Socket) {
        // Both fail only on sockets that fail at the next call anyway. Replies
        // are written whole, so there is nothing to gather.
        let _ = socket.set_nonblocking(true);
        let _ = socket.set_tcp_nodelay(true);
        self.shared.counters.add(Counter::Connections, 1);
        let index = self.free.pop().unwrap_or_else(|| {
            self.sessions.push(None);
            self.serials.push(0);
            self.sessions.len() - 1
        });
        self.serials[index] = self.serials[index].wrapping_add(1);
        let place = self.waiting.place(index);
        self.waiting.poll.set(place, &socket, Interest::INPUT);
        self.sessions[index] = Some(Session::new(socket));
        self.waiting.expect_first(index);
        self.shared
            .counters
            .set_connections(self.place, Some(self.connections()));
        // Postfix sends its request together with the connection.
        self.read(index);
    }

    /// Reads and writes what is ready, and commits what came of it together
    /// with what came meanwhile: the flush takes no longer for it.
    fn serve(&mut self) -> io::Result<()> {
        let mut gathered = self.committer.under_way();
        for look in 1..=MOST_LOOKS {
            for at in 0..self.waiting.count() {
                self.serve_one(self.waiting.index(at));
            }
            let under_way = self.committer.under_way();
            let more_may_come = under_way > gathered && under_way < self.waiting.count();
            if !more_may_come || look == MOST_LOOKS || !self.waiting.look_again()? {
                break;
            }
            gathered = under_way;
        }
        self.commit();
        Ok(())
    }

    fn serve_one(&mut self, index: usize) {
        let ready = self.waiting.readiness(index);
        if ready.output
            && let Some(session) = &mut self.sessions[index]
        {
            if session.flush().is_err() {
                return self.close(index);
            }
            self.advance(index);
        }
        if ready.input {
            self.read(index);
        } else if ready.gone {
            // Nobody is there to read an answer.
            self.close(index);
        }
    }

    /// Commits the commands of this turn, and of what follows in the input.
    fn commit(&mut self) {
        while self.committer.is_busy() {
            self.committer
                .commit(&self.engine.policy().rules, &mut self.done);
            if self.done.is_empty() {
                return;
            }
            self.finish_requests();
        }
    }

    /// Answers the requests whose commands are done and goes on with their
    /// connections.
    fn finish_requests(&mut self) {
        let mut done = std::mem::take(&mut self.done);
        for (owner, outcome) in done.drain(..) {
            let (index, serial) = ((owner >> 32) as usize, owner as u32);
            if self.serials.get(index) != Some(&serial) {
                continue;
            }
            let Some(Some(session)) = self.sessions.get_mut(index) else {
                continue;
            };
            session.is_waiting = false;
            let next = self
                .engine
                .finish(&session.reader, outcome, &mut session.output);
            session.is_closing |= next == Advance::Close;
            self.advance(index);
        }
        self.done = done;
    }

    fn read(&mut self, index: usize) {
        let Some(Some(session)) = self.sessions.get_mut(index) else {
            return;
        };
        if !session.can_advance() || !session.input.is_empty() {
            return;
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        match session.read(&mut buffer) {
            Ok(Some(length)) => {
                self.waiting.expect_more(index);
                self.lull.note_request();
                self.advance_with(index, &buffer[..length]);
            }
            Ok(None) => self.tidy(index),
            Err(_) => self.close(index),
        }
        self.buffer = buffer;
    }

    /// Goes on with input that was left over.
    fn advance(&mut self, index: usize) {
        let Some(Some(session)) = self.sessions.get_mut(index) else {
            return;
        };
        let input = std::mem::take(&mut session.input);
        self.advance_with(index, &input);
    }

    fn advance_with(&mut self, index: usize, mut input: &[u8]) {
        let Some(Some(session)) = self.sessions.get_mut(index) else {
            return;
        };
        while session.can_advance() {
            let next = self.engine.advance(
                self.committer.store(),
                &mut session.reader,
                &mut input,
                &mut session.output,
                &mut self.command,
            );
            match next {
                Advance::NeedCommit => {
                    session.is_waiting = true;
                    let owner = (index as u64) << 32 | u64::from(self.serials[index]);
                    self.committer.push(owner, &self.command);
                }
                Advance::Close => session.is_closing = true,
                Advance::NeedInput => break,
                // The peer may take them at once, and nothing else would make
                // this connection go on. If it is gone, `tidy` finds out, too.
                Advance::NeedOutput => {
                    let _ = session.flush();
                }
            }
        }
        if !session.is_closing {
            session.input.extend_from_slice(input);
        }
        self.tidy(index);
    }

    /// Writes what there is, and closes or watches the connection.
    fn tidy(&mut self, index: usize) {
        let Some(Some(session)) = self.sessions.get_mut(index) else {
            return;
        };
        if session.has_output() && session.flush().is_err() {
            return self.close(index);
        }
        self.has_stalled |= session.stalled_since.is_some();
        let is_idle = !session.is_waiting && !session.has_output();
        if session.is_finished() || (is_idle && self.stopping.is_some()) {
            return self.close(index);
        }
        let place = self.waiting.place(index);
        if let Some(Some(session)) = self.sessions.get(index) {
            self.waiting
                .poll
                .set(place, &session.socket, session.interest());
        }
    }

    fn close(&mut self, index: usize) {
        let Some(session) = self.sessions.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.waiting.poll.clear(self.waiting.place(index));
        self.free.push(index);
        self.serials[index] = self.serials[index].wrapping_add(1);
        drop(session);
        if self.stopping.is_none() {
            self.shared
                .counters
                .set_connections(self.place, Some(self.connections()));
        }
    }

    /// Commands the writer has had for too long, and peers that do not read.
    fn look_after_time(&mut self) {
        if self
            .committer
            .deadline()
            .is_some_and(|at| at <= Instant::now())
        {
            let rules = &self.engine.policy().rules;
            self.committer.look_after_overdue(rules, &mut self.done);
            self.finish_requests();
            self.commit();
        }
        if !self.has_stalled {
            return;
        }
        self.has_stalled = false;
        for index in 0..self.sessions.len() {
            let Some(Some(session)) = self.sessions.get(index) else {
                continue;
            };
            let Some(since) = session.stalled_since else {
                continue;
            };
            if since.elapsed() < STALL_LIMIT {
                self.has_stalled = true;
                continue;
            }
            self.shared.counters.add(Counter::Stalled, 1);
            self.log
                .complain("closing a connection whose peer does not read its replies");
            self.close(index);
        }
    }

    fn watch_writer(&mut self) {
        match self.committer.link() {
            Some(link) if self.committer.has_unsent() => {
                let interest = Interest {
                    input: false,
                    output: true,
                };
                self.waiting.poll.set(TO_WRITER, &link.to_writer, interest);
            }
            _ => self.waiting.poll.clear(TO_WRITER),
        }
    }
}

fn is_descriptor_limit(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}
