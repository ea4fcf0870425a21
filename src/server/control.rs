//! What master and children say to each other: single octets on a socket of
//! their own. That it ends tells each that the other is gone.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::sys::signals::Signals;

/// The same request by signal to many processes is acted on once.
const COALESCING: Duration = Duration::from_millis(200);

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// From a child: it serves.
    Ready,
    /// From a child: it was asked by signal; from the master: read the
    /// whitelists again.
    Reload,
    /// From a child: it was asked by signal for statistics.
    Statistics,
    /// From a child: the database cannot be read as it is.
    Damaged,
    /// From the master: the writer is a new one.
    WriterReplaced,
    /// From the master to the writer: all workers have ended.
    End,
}

impl Message {
    fn octet(self) -> u8 {
        match self {
            Message::Ready => b'R',
            Message::Reload => b'H',
            Message::Statistics => b'U',
            Message::Damaged => b'D',
            Message::WriterReplaced => b'W',
            Message::End => b'E',
        }
    }

    /// The message of an octet.
    pub fn of(octet: u8) -> Option<Self> {
        use Message::{Damaged, End, Ready, Reload, Statistics, WriterReplaced};
        let all = [Ready, Reload, Statistics, Damaged, WriterReplaced, End];
        all.into_iter().find(|message| message.octet() == octet)
    }
}

/// Sends a message.
pub fn send(mut socket: &UnixStream, message: Message) -> io::Result<()> {
    socket.write_all(&[message.octet()])
}

/// The messages that have come, each once: none asks for more than to be done
/// after it has come, and reading long lists once for each of many HUPs would
/// keep clients waiting. `None` when the other end is gone.
pub fn receive(mut socket: &UnixStream) -> Option<Vec<Message>> {
    let mut octets = [0; 1024];
    let length = match socket.read(&mut octets) {
        Ok(0) => return None,
        Ok(length) => length,
        Err(_) => 0,
    };
    let mut messages = Vec::new();
    for message in octets[..length].iter().filter_map(|&o| Message::of(o)) {
        if !messages.contains(&message) {
            messages.push(message);
        }
    }
    Some(messages)
}

/// Passes signals on to the master, who acts on them for all; true if one of
/// them told this process to end.
pub fn pass_on(signals: &mut Signals, socket: &UnixStream) -> bool {
    let mut is_told_to_end = false;
    for signal in signals.take() {
        let message = match signal {
            Signal::SIGHUP => Message::Reload,
            Signal::SIGUSR1 => Message::Statistics,
            _ => {
                is_told_to_end = true;
                continue;
            }
        };
        // If the master is gone, so are we soon.
        let _ = send(socket, message);
    }
    is_told_to_end
}

/// A request that may come from several processes at once.
#[derive(Debug, Default)]
pub struct Coalesced {
    last: Option<Instant>,
    due: Option<Instant>,
}

impl Coalesced {
    /// Notes a request.
    pub fn request(&mut self, now: Instant) {
        let after = self.last.map_or(now, |last| last + COALESCING);
        self.due.get_or_insert(after);
    }

    /// When it is to be done; `None`: there is no request.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// True if it is to be done now: then it is taken for done.
    pub fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            (self.due, self.last) = (None, Some(now));
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_come_together_are_done_once() {
        let start = Instant::now();
        let mut requests = Coalesced::default();
        assert!(!requests.take_due(start));
        requests.request(start);
        requests.request(start);
        assert!(requests.take_due(start));
        // One that was meant for the first may come late.
        requests.request(start + COALESCING / 2);
        assert!(!requests.take_due(start + COALESCING / 2));
        assert_eq!(requests.due(), Some(start + COALESCING));
        assert!(requests.take_due(start + COALESCING));
        assert_eq!(requests.due(), None);
    }

    #[test]
    fn messages_that_come_together_are_heard_once() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        for message in [Message::Reload, Message::WriterReplaced, Message::Reload] {
            send(&theirs, message).unwrap();
        }
        let heard = Some(vec![Message::Reload, Message::WriterReplaced]);
        assert_eq!(receive(&ours), heard);
        ours.set_nonblocking(true).unwrap();
        assert_eq!(receive(&ours), Some(Vec::new()));
        drop(theirs);
        assert_eq!(receive(&ours), None);
    }
}
