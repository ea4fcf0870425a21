//! A worker: any number of connections, one thing at a time.
//!
//! It blocks in poll(2) over the listening sockets, its connections, and its
//! pipes to master and writer; reads what is ready; answers each complete
//! request in order. No connection can hold it up, and an idle one costs a
//! descriptor. It never waits for a disk: what takes a commit goes to the writer.

mod serve;

use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use slab::Slab;
use socket2::Socket;

use crate::log::Log;
use crate::server::acceptor::Acceptor;
use crate::server::beats::WORKER_INTERVAL;
use crate::server::commit::remote::{Done, RemoteCommit};
use crate::server::connection::{Connection, STALL_LIMIT};
use crate::server::control::{self, Message};
use crate::server::counters::Counter;
use crate::server::engine::{Commands, Engine};
use crate::server::gather::GatherDelay;
use crate::server::shared::{Shared, StoreEpoch};
use crate::server::store::ServerStore;
use crate::sys::poll::{Interest, PollSet};
use crate::sys::process;
use crate::sys::signals::Signals;

/// Octets read at once.
const READ_BUFFER: usize = 64 * 1024;
/// How long a stopping worker waits for commits and for peers to read.
const STOP_LIMIT: Duration = Duration::from_secs(4);
/// Seconds after which a turn that does not end is a loop: the worker is ended,
/// and the master starts another.
const LONGEST_TURN: u32 = 60;

/// Places in the poll set: signals, master, writer, queue of the writer; then
/// the listeners; then the connections.
const SIGNALS: usize = 0;
const CONTROL: usize = 1;
const FROM_WRITER: usize = 2;
const TO_WRITER: usize = 3;
/// The place of the first listener.
const LISTENERS: usize = 4;

/// A worker process.
pub struct Worker {
    /// Its place among the workers.
    place: usize,
    engine: Engine,
    /// For reading alone.
    store: ServerStore,
    /// When the database was last put in use or out of use.
    epoch: StoreEpoch,
    commit: RemoteCommit,
    acceptor: Acceptor,
    control: UnixStream,
    signals: Signals,
    poll: PollSet,
    /// The place of the first connection in the poll set.
    first: usize,
    connections: Slab<Connection>,
    serial: u32,
    gather: GatherDelay,
    /// The connections are left alone until then.
    gathering: Option<Instant>,
    next_alarm: Instant,
    buffer: Vec<u8>,
    ready: Vec<usize>,
    commands: Commands,
    done: Vec<Done>,
    /// Connections whose peer does not read.
    has_stalled: bool,
    stopping: Option<Instant>,
    log: Rc<Log>,
    shared: Shared,
}

/// Where a worker hears from outside.
pub struct Inputs {
    /// The sockets all workers listen on.
    pub listeners: Vec<Socket>,
    /// The master's messages.
    pub control: UnixStream,
    /// Signals.
    pub signals: Signals,
}

impl Worker {
    /// A worker at this place among the others.
    pub fn new(
        place: usize,
        engine: Engine,
        store: ServerStore,
        commit: RemoteCommit,
        inputs: Inputs,
        log: Rc<Log>,
        shared: Shared,
    ) -> Self {
        let now = Instant::now();
        Worker {
            place,
            engine,
            store,
            epoch: shared.store_epoch(),
            commit,
            first: LISTENERS + inputs.listeners.len(),
            acceptor: Acceptor::new(inputs.listeners, LISTENERS, Rc::clone(&log), shared),
            control: inputs.control,
            signals: inputs.signals,
            poll: PollSet::default(),
            connections: Slab::new(),
            serial: 0,
            gather: GatherDelay::new(now),
            gathering: None,
            next_alarm: now,
            buffer: vec![0; READ_BUFFER],
            ready: Vec::new(),
            commands: Commands::default(),
            done: Vec::new(),
            has_stalled: false,
            stopping: None,
            log,
            shared,
        }
    }

    /// Serves until it is told to stop or the master is gone.
    pub fn run(&mut self) -> io::Result<()> {
        self.poll.set(SIGNALS, &self.signals, Interest::INPUT);
        self.poll.set(CONTROL, &self.control, Interest::INPUT);
        let from_writer = &self.commit.link().from_writer;
        self.poll.set(FROM_WRITER, from_writer, Interest::INPUT);
        self.acceptor.watch(&mut self.poll, true);
        self.shared.counters.set_connections(self.place, Some(0));
        control::send(&self.control, Message::Ready)?;
        while !self.is_finished() {
            self.turn()?;
        }
        Ok(())
    }

    fn turn(&mut self) -> io::Result<()> {
        self.wait()?;
        self.renew_alarm();
        self.follow_store();
        let is_signalled = self.poll.readiness(SIGNALS).input;
        if is_signalled && control::pass_on(&mut self.signals, &self.control) {
            self.stop();
        }
        let control = self.poll.readiness(CONTROL);
        if control.input || control.gone {
            self.listen_to_master();
        }
        if self.poll.readiness(FROM_WRITER).input || self.poll.readiness(TO_WRITER).output {
            self.commit.receive(&mut self.done);
            self.finish_requests();
        }
        if self.gathering.is_none() {
            self.accept();
            self.serve();
        }
        self.commit.send();
        self.report_damage();
        self.look_after_time();
        self.watch_writer();
        Ok(())
    }

    /// Waits until something is ready. While requests gather, connections and
    /// listeners are left out.
    fn wait(&mut self) -> io::Result<()> {
        let now = Instant::now();
        self.gather.note_turn(now);
        if self.gathering.is_none() && self.stopping.is_none() {
            self.gathering = self.gather.delay().map(|delay| now + delay);
        }
        let under_way = self.commit.under_way();
        if let Some(end) = self.gathering
            && end > now
        {
            self.poll
                .wait_for_first(LISTENERS, self.timeout(Some(end)))?;
            let now = Instant::now();
            self.gather.note_wait(now, under_way);
            if now < end {
                return Ok(());
            }
        }
        self.gathering = None;
        self.poll.wait(self.timeout(None))?;
        self.gather.note_wait(Instant::now(), under_way);
        Ok(())
    }

    /// How long to wait at most, with this end or without: an idle worker is not
    /// to be taken for one that loops, or is silent.
    fn timeout(&self, end: Option<Instant>) -> Option<Duration> {
        let now = Instant::now();
        let wake = [self.deadline(), end].into_iter().flatten().min();
        let left = wake.map_or(WORKER_INTERVAL, |at| at.saturating_duration_since(now));
        Some(left.min(WORKER_INTERVAL))
    }

    /// The next time something has to be looked after.
    fn deadline(&self) -> Option<Instant> {
        let stalled = self
            .has_stalled
            .then(|| Instant::now() + Duration::from_secs(1));
        let stopping = self.stopping.map(|since| since + STOP_LIMIT);
        [
            self.commit.deadline(),
            self.acceptor.resumes_at(),
            stalled,
            stopping,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn renew_alarm(&mut self) {
        let now = Instant::now();
        if self.next_alarm <= now {
            self.next_alarm = now + WORKER_INTERVAL;
            self.shared.beats.note_worker(self.place);
            process::end_unless_renewed(LONGEST_TURN);
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

    fn report_damage(&mut self) {
        if self.engine.take_damage() {
            // The master is told once, and forgets it if it was so lately.
            let _ = control::send(&self.control, Message::Damaged);
        }
    }

    fn is_finished(&self) -> bool {
        let is_quiet = self.connections.is_empty() && self.commit.under_way() == 0;
        self.stopping
            .is_some_and(|since| is_quiet || since.elapsed() >= STOP_LIMIT)
    }

    fn listen_to_master(&mut self) {
        let Some(messages) = control::receive(&self.control) else {
            // Nobody would replace us.
            self.poll.clear(CONTROL);
            return self.stop();
        };
        for message in messages {
            match message {
                Message::Reload => self.engine.reload(),
                Message::WriterReplaced => {
                    self.commit.send_again(&mut self.done);
                    self.finish_requests();
                }
                Message::Ready | Message::Statistics | Message::Damaged | Message::End => {}
            }
        }
    }

    /// Accepts no more; answers what has been received and closes.
    fn stop(&mut self) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(Instant::now());
        self.gathering = None;
        self.acceptor.close(&mut self.poll);
        self.shared.counters.set_connections(self.place, None);
        for index in self.indexes() {
            self.read(index);
        }
        self.commit.send();
        for index in self.indexes() {
            self.tidy(index);
        }
    }

    fn indexes(&self) -> Vec<usize> {
        self.connections.iter().map(|(index, _)| index).collect()
    }

    fn accept(&mut self) {
        let count = self.connections.len();
        let mut accepted = Vec::new();
        if let Err(error) = self.acceptor.accept(count, &mut self.poll, &mut accepted) {
            self.shared.counters.add(Counter::DescriptorsOut, 1);
            if !self.make_room() {
                self.acceptor.wait_for_descriptors(&error, &mut self.poll);
            }
        }
        for (socket, is_local) in accepted {
            self.add(socket, is_local);
        }
    }

    /// Closes the connection that has been idle longest, if one may be closed.
    fn make_room(&mut self) -> bool {
        let now = Instant::now();
        let idlest = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.may_make_room(now))
            .min_by_key(|(_, connection)| connection.last_heard)
            .map(|(index, _)| index);
        let Some(index) = idlest else { return false };
        self.shared.counters.add(Counter::IdleClosed, 1);
        self.log
            .complain("descriptors have run out: closing idle connections for new ones");
        self.close(index);
        true
    }

    fn add(&mut self, socket: Socket, is_local: bool) {
        // Both fail only on sockets that fail at the next call anyway. Replies
        // are written whole, so there is nothing to gather.
        let _ = socket.set_nonblocking(true);
        let _ = socket.set_tcp_nodelay(true);
        self.shared.counters.add(Counter::Connections, 1);
        self.serial = self.serial.wrapping_add(1);
        let connection = Connection::new(socket, is_local, self.serial, Instant::now());
        let index = self.connections.insert(connection);
        let count = self.connections.len();
        self.shared
            .counters
            .set_connections(self.place, Some(count));
        // Postfix sends its request together with the connection.
        self.read(index);
    }

    /// Commands the writer has had for too long, and peers that do not read.
    fn look_after_time(&mut self) {
        if self
            .commit
            .deadline()
            .is_some_and(|at| at <= Instant::now())
        {
            self.commit.give_up_overdue(&mut self.done);
            self.finish_requests();
            self.commit.send();
        }
        if !self.has_stalled {
            return;
        }
        self.has_stalled = false;
        for index in self.indexes() {
            let since = self.connections.get(index).and_then(|c| c.stalled_since);
            let Some(since) = since else { continue };
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
        if !self.commit.has_unsent() {
            return self.poll.clear(TO_WRITER);
        }
        let to_writer = &self.commit.link().to_writer;
        self.poll.set(TO_WRITER, to_writer, Interest::OUTPUT);
    }
}
