//! One server: its connection, what it was asked, and for how long it is left
//! alone after trouble.
//!
//! Nothing here waits. [`Node::advance`] does what can be done, and whoever
//! holds the nodes waits for all of them at once, by poll(2).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use redis::Value;

use super::greeting::greeting;
use super::lookup::Lookup;
use super::options::HostPort;
use super::question::{Access, At, Failure, Lost, Question};
use super::stream::{Came, Stream};
use super::tls;
use super::wire::{Garbage, Replies};
use super::words::{explain, explain_refusal};
use crate::sys::errors::describe;
use crate::sys::poll::{Interest, PollSet, Readiness};

/// How long a node is left alone after its first trouble; twice as long after
/// each further one.
const SHORTEST_REST: Duration = Duration::from_secs(1);
/// The longest time it is left alone.
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Octets that a node may answer to one exchange.
const MOST_OCTETS: usize = 64 << 20;
/// Pieces that are read of it before somebody looks at the time.
const MOST_PIECES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    LookingUp,
    Connecting,
    Greeting,
    Ready,
}

/// One server.
pub struct Node {
    /// Where it is.
    pub at: At,
    /// The same as text.
    pub name: String,
    phase: Phase,
    stream: Option<Stream>,
    lookup: Lookup,
    /// Addresses that this attempt has not tried.
    untried: usize,
    /// The address to begin with: the next one after each that was of no use.
    address: usize,
    replies: Replies,
    asked: VecDeque<Question>,
    /// What waits for the greeting to be over.
    queue: Vec<(Question, Vec<u8>)>,
    received: usize,
    rest: Duration,
    rests_until: Option<Instant>,
    /// The last trouble.
    reason: String,
    reconnects: bool,
    /// It connects while it is left alone.
    connects_ahead: bool,
    /// Since when it has been owing answers without a pause.
    busy_since: Option<Instant>,
}

impl Node {
    /// A node that nobody has asked yet.
    pub fn new(at: At) -> Self {
        let name = match &at {
            At::Host(host) => host.to_string(),
            At::Path(path) => path.display().to_string(),
        };
        Node {
            at,
            name,
            phase: Phase::Idle,
            stream: None,
            lookup: Lookup::default(),
            untried: 0,
            address: 0,
            replies: Replies::default(),
            asked: VecDeque::new(),
            queue: Vec::new(),
            received: 0,
            rest: Duration::ZERO,
            rests_until: None,
            reason: String::new(),
            reconnects: false,
            connects_ahead: false,
            busy_since: None,
        }
    }

    /// Its host and port, for what it leaves out of its answers.
    pub fn host(&self) -> HostPort {
        match &self.at {
            At::Host(host) => host.clone(),
            At::Path(path) => HostPort {
                host: path.display().to_string(),
                port: 0,
            },
        }
    }

    /// Why it is left alone, if it is.
    pub fn trouble(&self, now: Instant) -> Option<&str> {
        self.rests_until
            .filter(|&until| now < until)
            .map(|_| &*self.reason)
    }

    /// True if it was asked something and has not answered.
    pub fn is_busy(&self) -> bool {
        !self.queue.is_empty() || (self.is_ready() && !self.asked.is_empty())
    }

    /// True until the greeting is over.
    pub fn is_connecting(&self) -> bool {
        !matches!(self.phase, Phase::Idle | Phase::Ready)
    }

    /// True if it was asked for the map.
    pub fn owes_map(&self) -> bool {
        let queued = self.queue.iter().map(|(question, _)| question);
        self.asked
            .iter()
            .chain(queued)
            .any(|question| *question == Question::Map)
    }

    /// True if it answers, as far as is known.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready
    }

    /// True from its first trouble until it has answered a request.
    pub fn is_doubtful(&self) -> bool {
        self.rests_until.is_some()
    }

    /// Since when it has been owing answers without a pause.
    pub fn busy_since(&self) -> Option<Instant> {
        self.busy_since.filter(|_| self.is_busy())
    }

    /// Asks it something; it is sent when the node is ready.
    pub fn ask(&mut self, question: Question, packed: Vec<u8>, now: Instant) {
        if !self.is_busy() {
            self.busy_since = Some(now);
            if self.connects_ahead && self.is_connecting() {
                // In vain so far: another attempt may do better.
                self.address += 1;
                self.disconnect();
            }
        }
        self.put(question, packed);
    }

    fn put(&mut self, question: Question, packed: Vec<u8>) {
        match &mut self.stream {
            Some(stream) if self.phase == Phase::Ready => {
                stream.push(&packed);
                self.asked.push_back(question);
            }
            _ => self.queue.push((question, packed)),
        }
    }

    /// The next exchange uses another connection, and the next address.
    pub fn reconnect_later(&mut self) {
        self.reconnects = true;
        self.address += 1;
    }

    /// Before an exchange: sees whether the server has closed the connection
    /// meanwhile, as it may at any time. That is no trouble.
    pub fn freshen(&mut self) {
        self.received = 0;
        if self.phase != Phase::Ready || self.is_busy() {
            return;
        }
        let is_usable = !self.reconnects
            && self.stream.as_mut().is_some_and(|stream| {
                let mut came = Vec::new();
                // Something of TLS may come that is nothing to read.
                let mut pieces = (0..MOST_PIECES).map(|_| stream.fill(&mut came));
                let end = pieces.find(|result| *result != Ok(Came::Octets));
                end == Some(Ok(Came::Nothing)) && came.is_empty()
            });
        if !is_usable {
            self.disconnect();
        }
    }

    /// Drops the connection. What it was asked is forgotten, and what it still owes goes
    /// to nobody.
    pub fn disconnect(&mut self) {
        self.phase = Phase::Idle;
        self.stream = None;
        self.replies = Replies::default();
        self.asked.clear();
        self.queue.clear();
        (self.reconnects, self.connects_ahead) = (false, false);
    }

    /// Drops the connection and leaves the server alone for a while. If it was late it may
    /// be far away: then the next connection is made meanwhile, and what is asked next
    /// need not wait for that, too. Returns what it was asked.
    pub fn fail(&mut self, failure: Failure, now: Instant) -> Lost {
        self.rest = match failure.grows {
            true => (self.rest * 2).clamp(SHORTEST_REST, LONGEST_REST),
            false => SHORTEST_REST,
        };
        self.rests_until = Some(now + self.rest);
        self.reason = failure.reason;
        let queue = std::mem::take(&mut self.queue).into_iter();
        let lost = Lost {
            sent: self.asked.iter().copied().collect(),
            unsent: queue.map(|(question, _)| question).collect(),
        };
        if !(failure.is_late && self.is_connecting()) {
            self.address += usize::from(self.is_connecting());
            self.disconnect();
        }
        self.connects_ahead = failure.is_late;
        lost
    }

    /// Takes back requests that wait for the greeting; other questions stay.
    pub fn recall_requests(&mut self) {
        self.queue.retain(|(question, _)| !question.is_request());
    }

    /// True if requests were sent to it, and not answered.
    pub fn owes_requests(&self) -> bool {
        self.asked.iter().any(Question::is_request)
    }

    /// Begins to connect if that is needed and there is no connection.
    pub fn start(&mut self, access: &Access) -> Result<(), Failure> {
        let is_needed = self.connects_ahead || !self.queue.is_empty();
        if self.phase != Phase::Idle || !is_needed {
            return Ok(());
        }
        let At::Host(host) = &self.at else {
            self.untried = 1;
            return self.connect(access);
        };
        match self.lookup.addresses(host)?.len() {
            0 => self.phase = Phase::LookingUp,
            count => {
                self.untried = count;
                self.connect(access)?;
            }
        }
        Ok(())
    }

    /// Begins to connect to the next address that can be tried.
    fn connect(&mut self, access: &Access) -> Result<(), Failure> {
        let mut last = "it has no address".to_owned();
        while self.untried > 0 {
            self.untried -= 1;
            let begun = match &self.at {
                At::Path(path) => Stream::to_path(path),
                At::Host(host) => {
                    let known = self.lookup.known();
                    let address = known[self.address % known.len()];
                    let tls = match access.options.address.tls {
                        true => Some(tls::client(&access.options, &host.host)?),
                        false => None,
                    };
                    Stream::to_host(address, tls)
                }
            };
            match begun {
                Ok(stream) => {
                    self.stream = Some(stream);
                    self.phase = Phase::Connecting;
                    return Ok(());
                }
                Err(error) => last = describe(&error),
            }
            self.address += 1;
        }
        Err(last.into())
    }

    /// Has poll(2) wait for what it needs.
    pub fn register(&self, set: &mut PollSet, place: usize) {
        match (&self.stream, self.phase) {
            (Some(stream), Phase::Connecting) => set.set(place, stream, Interest::OUTPUT),
            (Some(stream), Phase::Greeting | Phase::Ready) => {
                set.set(place, stream, stream.interest());
            }
            _ => {
                if let Some(lookup) = self.lookup.descriptor()
                    && self.phase == Phase::LookingUp
                {
                    set.set(place, lookup, Interest::INPUT);
                }
            }
        }
    }

    /// Does what can be done after poll(2) saw this; the answers to requests
    /// and questions go to `answers`.
    pub fn advance(
        &mut self,
        access: &Access,
        seen: Readiness,
        answers: &mut Vec<(Question, Value)>,
    ) -> Result<(), Failure> {
        if self.phase == Phase::LookingUp {
            if !self.lookup.hear()? {
                return Ok(());
            }
            self.untried = self.lookup.known().len();
            self.connect(access)?;
            return Ok(());
        }
        if self.phase == Phase::Connecting && (seen.output || seen.gone) {
            let connected = self.stream.as_ref().map_or(Ok(()), Stream::check_connected);
            match connected {
                Ok(()) => self.greet(access)?,
                Err(error) if self.untried == 0 => return Err(describe(&error).into()),
                Err(_) => {
                    self.address += 1;
                    return self.connect(access);
                }
            }
        }
        match self.phase {
            Phase::Greeting | Phase::Ready => self.talk(access, answers),
            _ => Ok(()),
        }
    }

    /// Sends and receives what can be. What came before an error counts: it may
    /// say why.
    fn talk(
        &mut self,
        access: &Access,
        answers: &mut Vec<(Question, Value)>,
    ) -> Result<(), Failure> {
        let mut flushed = self.flush();
        for _ in 0..MOST_PIECES {
            let Some(stream) = &mut self.stream else {
                return Ok(());
            };
            let before = self.replies.octets().len();
            let came = stream.fill(self.replies.octets());
            self.received += self.replies.octets().len() - before;
            self.take_replies(access, answers)?;
            if self.received > MOST_OCTETS {
                return Err("its answer is too large".to_owned().into());
            }
            match came? {
                Came::Octets => {}
                Came::Nothing => break,
                Came::End if self.is_busy() => {
                    return Err("the server closed the connection".to_owned().into());
                }
                Came::End => {
                    self.disconnect();
                    return Ok(());
                }
            }
        }
        if flushed.is_ok() {
            // The greeting may be over, or TLS has something to say.
            flushed = self.flush();
        }
        flushed.map_err(Failure::from)
    }

    fn flush(&mut self) -> Result<(), String> {
        self.stream.as_mut().map_or(Ok(()), Stream::flush)
    }

    fn take_replies(
        &mut self,
        access: &Access,
        answers: &mut Vec<(Question, Value)>,
    ) -> Result<(), Failure> {
        let garbage = |Garbage| "what it answers is not the protocol of Redis".to_owned();
        while let Some(value) = self.replies.take().map_err(garbage)? {
            match self.asked.pop_front() {
                None => return Err("it answers what it was not asked".to_owned().into()),
                Some(Question::Aside) => {}
                Some(Question::Greeting(call)) => {
                    if let Value::ServerError(error) = &value {
                        let reason = match call {
                            "AUTH" => explain_refusal(error),
                            _ => format!("{call}: {}", explain(error, access.is_cluster)),
                        };
                        return Err(Failure {
                            grows: error.code() != "LOADING",
                            ..reason.into()
                        });
                    }
                    if self.asked.is_empty() {
                        self.be_ready();
                    }
                }
                Some(question) => answers.push((question, value)),
            }
        }
        Ok(())
    }

    /// The first commands on a connection: who we are, which database, and the
    /// scripts. Requests wait until all of it is granted.
    fn greet(&mut self, access: &Access) -> Result<(), Failure> {
        self.phase = Phase::Greeting;
        let greeting = greeting(access)?;
        if let Some(stream) = &mut self.stream {
            for (call, packed) in greeting {
                stream.push(&packed);
                self.asked.push_back(Question::Greeting(call));
            }
        }
        if self.asked.is_empty() {
            self.be_ready();
        }
        Ok(())
    }

    fn be_ready(&mut self) {
        self.phase = Phase::Ready;
        self.connects_ahead = false;
        for (question, packed) in std::mem::take(&mut self.queue) {
            self.put(question, packed);
        }
    }

    /// It has answered a request: the next trouble is a first one again.
    pub fn is_well(&mut self) {
        self.rest = Duration::ZERO;
        self.rests_until = None;
    }
}

#[cfg(test)]
mod tests;
