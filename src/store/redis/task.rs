//! A request, and how far it has come.

use std::time::{Duration, Instant};

use redis::Value;

use super::slots::slot_of;
use super::wire::pack;
use super::words::name_of;
use crate::store::StoreError;

/// How often a request is sent elsewhere or again, in one exchange.
const MOST_TRIES: u32 = 5;
/// The pause before a request is sent again to a cluster that could not do it;
/// twice as long each further time, so that all of them take 75 ms.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// Stands for the digest of a script, which has as many octets.
const NO_DIGEST: [u8; 40] = [b'0'; 40];

/// One command, for the node that has its key.
#[derive(Clone, Debug)]
pub struct Request {
    slot: u16,
    call: &'static str,
    packed: Vec<u8>,
    /// The number of its script, and where its digest is to stand.
    script: Option<(usize, usize)>,
}

impl Request {
    /// A command of these words, which are sent as they are; all its keys lie in
    /// the slot of `key`.
    pub fn new(key: &[u8], words: &[&[u8]]) -> Self {
        Request {
            slot: slot_of(key),
            call: words.first().map_or("command", |command| name_of(command)),
            packed: pack(words),
            script: None,
        }
    }

    /// EVALSHA of the script of this number among those of the client. All its
    /// keys lie in one slot.
    pub fn script(script: usize, keys: &[&[u8]], arguments: &[&[u8]]) -> Self {
        let count = keys.len().to_string();
        let mut words: Vec<&[u8]> = vec![b"EVALSHA", &NO_DIGEST, count.as_bytes()];
        words.extend_from_slice(keys);
        words.extend_from_slice(arguments);
        let packed = pack(&words);
        let at = packed
            .windows(NO_DIGEST.len())
            .position(|window| window == NO_DIGEST);
        Request {
            slot: slot_of(keys.first().unwrap_or(&&[][..])),
            call: "EVALSHA",
            packed,
            script: at.map(|at| (script, at)),
        }
    }

    /// The name of the command, for errors.
    pub fn call(&self) -> &'static str {
        self.call
    }

    /// The octets, with the digest of the script; `None` if there is no such
    /// script.
    pub fn packed(&self, digests: &[String]) -> Option<Vec<u8>> {
        let mut packed = self.packed.clone();
        if let Some((number, at)) = self.script {
            let digest = digests.get(number)?.as_bytes();
            packed
                .get_mut(at..at + digest.len())?
                .copy_from_slice(digest);
        }
        Some(packed)
    }
}

/// For whom a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The node that has its slot.
    Slot(u16),
    /// The node of this number.
    Node(usize),
}

/// How far a request has come.
pub enum State {
    /// Nobody was asked, or it is to be sent anew.
    Unrouted,
    /// It waits for the map.
    NeedsMap,
    /// It waits until this time.
    Pausing(Instant),
    /// This node was asked.
    At(usize),
    /// It is over.
    Done(Result<Value, StoreError>),
}

/// A request of an exchange.
pub struct Task<'a> {
    /// What to send.
    pub request: &'a Request,
    /// To whom.
    pub target: Target,
    /// How far it is.
    pub state: State,
    /// ASKING goes before it.
    pub is_asking: bool,
    /// The scripts were loaded for it.
    pub has_loaded: bool,
    tries: u32,
    pauses: u32,
}

impl<'a> Task<'a> {
    /// A request for the node that has its slot, or for this one.
    pub fn new(request: &'a Request, node: Option<usize>) -> Self {
        Task {
            request,
            target: node.map_or(Target::Slot(request.slot), Target::Node),
            state: State::Unrouted,
            is_asking: false,
            has_loaded: false,
            tries: 0,
            pauses: 0,
        }
    }

    /// True if it may be sent elsewhere once more.
    pub fn may_try_again(&mut self) -> bool {
        self.tries += 1;
        self.tries <= MOST_TRIES
    }

    /// The pause before it is sent once more, if it may be.
    pub fn pause(&mut self) -> Option<Duration> {
        self.pauses += 1;
        (self.pauses < MOST_TRIES).then(|| FIRST_PAUSE * (1 << (self.pauses - 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_called_by_its_digest() {
        let request = Request::script(1, &[b"{a}x", b"{a}y"], &[&NO_DIGEST, b"z"]);
        let digests = ["1".repeat(40), "2".repeat(40)];
        let packed = String::from_utf8(request.packed(&digests).unwrap()).unwrap();
        let expected = format!(
            "*7\r\n$7\r\nEVALSHA\r\n$40\r\n{}\r\n$1\r\n2\r\n$4\r\n{{a}}x\r\n$4\r\n{{a}}y\r\n\
             $40\r\n{}\r\n$1\r\nz\r\n",
            digests[1],
            "0".repeat(40)
        );
        assert_eq!(packed, expected);
        assert_eq!(request.slot, slot_of(b"a"));
        assert_eq!(request.packed(&digests[..1]), None);
    }

    #[test]
    fn pauses_come_to_an_end() {
        let request = Request::new(b"a", &[b"get", b"a"]);
        assert_eq!(request.call(), "GET");
        let mut task = Task::new(&request, None);
        let pauses: Vec<_> = std::iter::from_fn(|| task.pause()).collect();
        assert_eq!(pauses.iter().sum::<Duration>(), Duration::from_millis(75));
        assert_eq!((0..9).filter(|_| task.may_try_again()).count(), 5);
    }
}
