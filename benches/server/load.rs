//! The load generator: connections as Postfix' smtpd processes have them, one
//! request in flight on each, in one thread over poll(2).

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use postgrey::sys::poll::{Interest, PollSet};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::requests::{Subject, push_request};

/// A reply that takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Address {
    /// A connection, made at once or refused.
    pub fn connect(&self) -> io::Result<Socket> {
        let socket = match self {
            Address::Tcp(address) => {
                let socket = Socket::new(Domain::for_address(*address), Type::STREAM, None)?;
                socket.connect(&SockAddr::from(*address))?;
                socket.set_tcp_nodelay(true)?;
                socket
            }
            Address::Unix(path) => {
                let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
                socket.connect(&SockAddr::unix(path)?)?;
                socket
            }
        };
        socket.set_nonblocking(true)?;
        Ok(socket)
    }
}

/// The reply that a request must get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    Defer,
    Prepend,
    Dunno,
    /// Any action, for preparations and for a server that decides nothing.
    Any,
}

impl Expected {
    fn is_met_by(self, action: &[u8]) -> bool {
        match self {
            Expected::Defer => action.starts_with(b"DEFER_IF_PERMIT "),
            Expected::Prepend => action.starts_with(b"PREPEND X-Greylist: "),
            Expected::Dunno => action == b"DUNNO",
            Expected::Any => !action.is_empty(),
        }
    }
}

/// A request to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    pub subject: Subject,
    pub time: Option<u64>,
    pub expected: Expected,
}

/// What gives the requests, until it gives none.
pub type Source<'s> = dyn FnMut() -> Option<Ticket> + 's;

/// How a run went.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    /// All replies.
    pub replies: u64,
    /// Seconds from the first request to the last reply.
    pub seconds: f64,
    /// Nanoseconds from request to reply, sorted.
    pub latencies: Vec<u32>,
}

impl Measured {
    /// Replies a second.
    pub fn rate(&self) -> f64 {
        self.replies as f64 / self.seconds
    }

    /// Milliseconds in which this share of the requests was answered.
    pub fn milliseconds(&self, share: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let place = (last as f64 * share).round() as usize;
        f64::from(self.latencies.get(place).copied().unwrap_or(0)) / 1e6
    }
}

struct Connection {
    socket: Socket,
    expected: Expected,
    sent: Instant,
    is_busy: bool,
    reply: Vec<u8>,
}

/// Open connections to one server.
pub struct Load {
    connections: Vec<Connection>,
    poll: PollSet,
    request: Vec<u8>,
    serial: u64,
    latencies: Vec<u32>,
}

impl Load {
    /// Connects this many times.
    pub fn connect(address: &Address, connections: usize) -> io::Result<Load> {
        Load::spread(std::slice::from_ref(address), connections)
    }

    /// Connects this many times in all, to these servers in turn.
    pub fn spread(addresses: &[Address], connections: usize) -> io::Result<Load> {
        let mut poll = PollSet::default();
        let mut open = Vec::with_capacity(connections);
        for place in 0..connections {
            let socket = addresses[place % addresses.len()].connect()?;
            poll.set(place, &socket, Interest::INPUT);
            open.push(Connection {
                socket,
                expected: Expected::Any,
                sent: Instant::now(),
                is_busy: false,
                reply: Vec::with_capacity(512),
            });
        }
        Ok(Load {
            connections: open,
            poll,
            request: Vec::with_capacity(1024),
            // Instances differ between runs, or no header would be prepended.
            serial: std::time::UNIX_EPOCH
                .elapsed()
                .map_or(0, |since| since.as_nanos() as u64),
            latencies: Vec::new(),
        })
    }

    /// Sends requests until the time is over, the source is dry, or `is_over`
    /// says so; every request that was sent is waited for and its reply
    /// checked.
    pub fn run(
        &mut self,
        time: Duration,
        source: &mut Source,
        is_over: &mut dyn FnMut() -> bool,
    ) -> io::Result<Measured> {
        self.latencies.clear();
        let start = Instant::now();
        let mut is_ending = false;
        let mut replies = 0;
        let mut in_flight = 0;
        for place in 0..self.connections.len() {
            in_flight += usize::from(self.send(place, source)?);
        }
        while in_flight > 0 {
            if self.poll.wait(Some(PATIENCE))? == 0 && crate::was_interrupted() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            is_ending |= start.elapsed() >= time || is_over() || crate::was_interrupted();
            let mut is_answered = false;
            for place in 0..self.connections.len() {
                let ready = self.poll.readiness(place);
                if !(ready.input || ready.gone) || !self.receive(place)? {
                    continue;
                }
                is_answered = true;
                in_flight -= 1;
                replies += 1;
                if !is_ending {
                    in_flight += usize::from(self.send(place, source)?);
                }
            }
            if !is_answered {
                self.find_overdue()?;
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let mut latencies = std::mem::take(&mut self.latencies);
        latencies.sort_unstable();
        Ok(Measured {
            replies,
            seconds,
            latencies,
        })
    }

    fn send(&mut self, place: usize, source: &mut Source) -> io::Result<bool> {
        let Some(ticket) = source() else {
            return Ok(false);
        };
        self.serial += 1;
        self.request.clear();
        push_request(&mut self.request, &ticket.subject, self.serial, ticket.time);
        let connection = &mut self.connections[place];
        connection.expected = ticket.expected;
        connection.reply.clear();
        connection.is_busy = true;
        connection.sent = Instant::now();
        // The peer has read all before: there is room for a whole request.
        let length = (&connection.socket).write(&self.request)?;
        if length != self.request.len() {
            return Err(io::Error::other("a request was not taken whole"));
        }
        Ok(true)
    }

    /// True if the reply is there.
    fn receive(&mut self, place: usize) -> io::Result<bool> {
        let connection = &mut self.connections[place];
        let mut buffer = [0; 2048];
        let length = match (&connection.socket).read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("the server closed a connection")),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        };
        connection.reply.extend_from_slice(&buffer[..length]);
        let reply = &connection.reply[..];
        if !reply.ends_with(b"\n\n") && reply.len() < 2000 {
            return Ok(false);
        }
        let action = reply
            .strip_prefix(b"action=")
            .and_then(|rest| rest.strip_suffix(b"\n\n"))
            .filter(|action| !action.iter().any(u8::is_ascii_control));
        if !connection.is_busy
            || !action.is_some_and(|action| connection.expected.is_met_by(action))
        {
            let shown = String::from_utf8_lossy(reply).into_owned();
            let expected = connection.expected;
            return Err(io::Error::other(format!(
                "{expected:?} was expected, not {shown:?}"
            )));
        }
        let nanoseconds = connection.sent.elapsed().as_nanos();
        self.latencies
            .push(u32::try_from(nanoseconds).unwrap_or(u32::MAX));
        connection.is_busy = false;
        Ok(true)
    }

    fn find_overdue(&self) -> io::Result<()> {
        let is_overdue = |c: &Connection| c.is_busy && c.sent.elapsed() >= PATIENCE;
        match self.connections.iter().any(is_overdue) {
            true => Err(io::Error::other(format!("no reply within {PATIENCE:?}"))),
            false => Ok(()),
        }
    }
}
