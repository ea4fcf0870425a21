//! How a worker accepts connections: so that all workers have about as many,
//! and so that running out of descriptors ends.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use socket2::{SockAddr, Socket};

use super::shared::Shared;
use crate::log::{Level, Log};
use crate::sys::errors::describe;
use crate::sys::poll::{Interest, PollSet};

/// How long a worker that has more connections than others leaves a new one to
/// them; then it takes one that is still there.
const ACCEPT_YIELD: Duration = Duration::from_millis(1);
/// So many more than the worker with the fewest, and half as many again, are
/// about as many.
const FAIR_LEAD: usize = 4;
/// How long the listeners are left alone when descriptors have run out.
const DESCRIPTOR_PAUSE: Duration = Duration::from_secs(1);

/// The listening sockets of a worker.
pub struct Acceptor {
    listeners: Vec<Socket>,
    /// The place of the first in the poll set.
    first: usize,
    /// They are left alone until then.
    paused_until: Option<Instant>,
    log: Rc<Log>,
    shared: Shared,
}

impl Acceptor {
    /// Accepts on these sockets, which other workers share and which have the
    /// places from `first` on in the poll set.
    pub fn new(listeners: Vec<Socket>, first: usize, log: Rc<Log>, shared: Shared) -> Self {
        Acceptor {
            listeners,
            first,
            paused_until: None,
            log,
            shared,
        }
    }

    /// Puts the sockets into the poll set, or takes them out.
    pub fn watch(&self, poll: &mut PollSet, is_watched: bool) {
        for (index, listener) in self.listeners.iter().enumerate() {
            match is_watched {
                true => poll.set(self.first + index, listener, Interest::INPUT),
                false => poll.clear(self.first + index),
            }
        }
    }

    /// Closes the sockets.
    pub fn close(&mut self, poll: &mut PollSet) {
        self.watch(poll, false);
        self.listeners.clear();
        self.paused_until = None;
    }

    /// When a pause is over.
    pub fn resumes_at(&self) -> Option<Instant> {
        self.paused_until
    }

    /// Appends a new connection of each listener, and whether it is from this
    /// machine, for a worker that has so many.
    /// An error says that descriptors have run out.
    pub fn accept(
        &mut self,
        connections: usize,
        poll: &mut PollSet,
        accepted: &mut Vec<(Socket, bool)>,
    ) -> io::Result<()> {
        let is_late = self.paused_until.is_some_and(|at| at <= Instant::now());
        let is_ready = |index: usize| poll.readiness(self.first + index).input;
        if !is_late && !(0..self.listeners.len()).any(is_ready) {
            return Ok(());
        }
        let fewest = self.shared.counters.fewest_connections().unwrap_or(0);
        if !is_late && connections >= fewest + fewest / 2 + FAIR_LEAD {
            self.pause(ACCEPT_YIELD, poll);
            return Ok(());
        }
        for listener in &self.listeners {
            match listener.accept() {
                Ok((socket, peer)) => {
                    self.log_connection(&peer);
                    let is_local = is_local(&peer) || is_own_address(&socket, &peer);
                    accepted.push((socket, is_local));
                }
                Err(error) if is_descriptor_limit(&error) => return Err(error),
                // There is none, or another worker was quicker.
                Err(_) => {}
            }
        }
        if is_late {
            self.paused_until = None;
            self.watch(poll, true);
        }
        Ok(())
    }

    /// Leaves the listeners alone for a while: there is no descriptor for a new
    /// connection.
    pub fn wait_for_descriptors(&mut self, error: &io::Error, poll: &mut PollSet) {
        self.log
            .complain(&format!("no new connections: {}", describe(error)));
        self.pause(DESCRIPTOR_PAUSE, poll);
    }

    fn pause(&mut self, time: Duration, poll: &mut PollSet) {
        self.watch(poll, false);
        self.paused_until = Some(Instant::now() + time);
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
        self.log.write_timestamped(Level::Three, line.as_bytes());
    }
}

/// True for UNIX sockets and loopback addresses, IPv4 ones in IPv6 too.
fn is_local(peer: &SockAddr) -> bool {
    let address = peer.as_socket().map(|address| address.ip().to_canonical());
    address.is_none_or(|address| address.is_loopback())
}

/// True if the peer has the address that it has connected to.
fn is_own_address(socket: &Socket, peer: &SockAddr) -> bool {
    let ip = |address: &SockAddr| address.as_socket().map(|address| address.ip());
    socket.local_addr().is_ok_and(|own| ip(&own) == ip(peer))
}

fn is_descriptor_limit(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn peers_on_this_machine_are_told() {
        for (address, expected) in [
            ("127.0.0.1:1", true),
            ("127.8.9.1:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("192.0.2.1:1", false),
            ("[::ffff:192.0.2.1]:1", false),
            ("[2001:db8::1]:1", false),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(is_local(&address.into()), expected, "{address}");
        }
        assert!(is_local(&SockAddr::unix("/nowhere").unwrap()));
    }
}
