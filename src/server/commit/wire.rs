//! The datagrams between workers and writer, as octets.
//!
//! To the writer: a worker's place and incarnation, the generation of the
//! writer it is meant for; then commands, each after its tag, the time of its
//! request, and its length. To a worker: its incarnation; then answers, each a
//! tag, whether the store took the command, the outcome.

use std::ops::Range;
use std::os::unix::net::UnixDatagram;

use crate::policy::command::{Command, Outcome};

/// Octets of a datagram at most: every system takes that many.
pub const MAX_DATAGRAM: usize = 8 * 1024;
/// Octets in front of each command.
const COMMAND_HEAD: usize = 8 + 8 + 2;
/// Octets of an answer.
const ANSWER_LEN: usize = 8 + 1 + Outcome::ENCODED_LEN;
/// Octets before the answers.
const ANSWER_HEAD: usize = 4;
/// Answers in one datagram at most.
pub const MAX_ANSWERS: usize = (MAX_DATAGRAM - ANSWER_HEAD) / ANSWER_LEN;

/// Names a command of a worker until it is answered.
pub type Tag = u64;

/// Takes an array of octets off the start.
fn take<const N: usize>(octets: &mut &[u8]) -> Option<[u8; N]> {
    let (&taken, rest) = octets.split_first_chunk()?;
    *octets = rest;
    Some(taken)
}

/// Who sends a batch of commands, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHead {
    /// The worker's place.
    pub worker: u8,
    /// Tells the process from its predecessors at the same place.
    pub incarnation: u32,
    /// The writer that is meant. One that was started later leaves the batch
    /// alone: the worker sends it again.
    pub generation: u32,
}

/// Commands of a worker on their way, as a datagram.
#[derive(Debug)]
pub struct CommandBatch(Vec<u8>);

impl CommandBatch {
    /// A batch without commands.
    pub fn new(head: BatchHead) -> Self {
        let mut octets = Vec::with_capacity(MAX_DATAGRAM);
        octets.push(head.worker);
        octets.extend_from_slice(&head.incarnation.to_le_bytes());
        octets.extend_from_slice(&head.generation.to_le_bytes());
        CommandBatch(octets)
    }

    /// True if a command of so many octets has room in the datagram.
    pub fn has_room(&self, length: usize) -> bool {
        self.0.len() + COMMAND_HEAD + length <= MAX_DATAGRAM
    }

    /// Appends an encoded command of less than 64 KiB; `since` in microseconds of
    /// the clock all processes share.
    pub fn push(&mut self, tag: Tag, since: u64, command: &[u8]) {
        self.0.extend_from_slice(&tag.to_le_bytes());
        self.0.extend_from_slice(&since.to_le_bytes());
        self.0
            .extend_from_slice(&(command.len() as u16).to_le_bytes());
        self.0.extend_from_slice(command);
    }

    /// The datagram.
    pub fn octets(&self) -> &[u8] {
        &self.0
    }
}

/// A command that has arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrived {
    /// Who sent it.
    pub head: BatchHead,
    /// Its name at the worker.
    pub tag: Tag,
    /// When its request came, in microseconds.
    pub since: u64,
    /// Where it lies in the buffer.
    command: Range<usize>,
}

/// The commands for a transaction, in a buffer that is used again.
#[derive(Default)]
pub struct ReceiveBuffer {
    octets: Vec<u8>,
    end: usize,
    arrived: Vec<Arrived>,
}

impl ReceiveBuffer {
    /// Octets of datagrams beyond which no more are taken.
    const FULL: usize = 256 * 1024;

    /// Takes what a queue holds, as long as there is room. What is meant for
    /// another generation of the writer is dropped.
    pub fn take(&mut self, queue: &UnixDatagram, generation: u32) {
        while !self.is_full() {
            let room = self.end + MAX_DATAGRAM;
            if self.octets.len() < room {
                self.octets.resize(room, 0);
            }
            let Ok(length) = queue.recv(&mut self.octets[self.end..room]) else {
                return;
            };
            let start = self.end;
            self.end += length;
            self.sort_out(start, generation);
        }
    }

    /// Notes the commands of the datagram that begins there; `None` at its end,
    /// or where it is none.
    fn sort_out(&mut self, start: usize, generation: u32) -> Option<()> {
        let mut rest = &self.octets[start..self.end];
        let head = BatchHead {
            worker: u8::from_le_bytes(take(&mut rest)?),
            incarnation: u32::from_le_bytes(take(&mut rest)?),
            generation: u32::from_le_bytes(take(&mut rest)?),
        };
        if head.generation != generation {
            return None;
        }
        loop {
            let tag = Tag::from_le_bytes(take(&mut rest)?);
            let since = u64::from_le_bytes(take(&mut rest)?);
            let length = usize::from(u16::from_le_bytes(take(&mut rest)?));
            let start = self.end - rest.len();
            rest = rest.get(length..)?;
            self.arrived.push(Arrived {
                head,
                tag,
                since,
                command: start..start + length,
            });
        }
    }

    /// True if no more is taken.
    pub fn is_full(&self) -> bool {
        self.end >= ReceiveBuffer::FULL
    }

    /// What has arrived, in its order.
    pub fn arrived(&self) -> &[Arrived] {
        &self.arrived
    }

    /// A command that has arrived; `None` if it is none.
    pub fn command(&self, arrived: &Arrived) -> Option<Command<'_>> {
        Command::decode(&mut &self.octets[arrived.command.clone()])
    }

    /// Forgets what has arrived.
    pub fn clear(&mut self) {
        self.end = 0;
        self.arrived.clear();
    }
}

/// Begins a datagram of answers.
pub fn begin_answers(datagram: &mut Vec<u8>, incarnation: u32) {
    datagram.clear();
    datagram.extend_from_slice(&incarnation.to_le_bytes());
}

/// Appends an answer to a datagram; `None`: the store failed.
pub fn push_answer(datagram: &mut Vec<u8>, tag: Tag, outcome: Option<&Outcome>) {
    datagram.extend_from_slice(&tag.to_le_bytes());
    datagram.push(u8::from(outcome.is_some()));
    outcome.unwrap_or(&Outcome::default()).encode(datagram);
}

/// Tag and outcome of each answer in a datagram for this incarnation; none in
/// others.
pub fn answers(
    mut datagram: &[u8],
    incarnation: u32,
) -> impl Iterator<Item = (Tag, Option<Outcome>)> {
    if take(&mut datagram) != Some(incarnation.to_le_bytes()) {
        datagram = &[];
    }
    datagram.chunks_exact(ANSWER_LEN).filter_map(|mut answer| {
        let tag = Tag::from_le_bytes(take(&mut answer)?);
        let [was_taken] = take(&mut answer)?;
        let outcome = Outcome::decode(&mut answer)?;
        Some((tag, (was_taken != 0).then_some(outcome)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::command::{Allowance, Counting, Now, Verdict};

    const HEAD: BatchHead = BatchHead {
        worker: 3,
        incarnation: 70_000,
        generation: 9,
    };

    fn a_command() -> Command<'static> {
        Command {
            now: Now::new(1.0, None),
            address: b"192.0.2.1",
            client: b"b",
            own_client: b"",
            triplet: b"c",
            octet: b"",
            counting: Counting::Always,
            is_data: false,
            allowance: Allowance::UNLIMITED,
        }
    }

    fn batch(head: BatchHead, commands: u64) -> Vec<u8> {
        let mut octets = Vec::new();
        a_command().encode(&mut octets);
        let mut batch = CommandBatch::new(head);
        for tag in 0..commands {
            batch.push(tag, 100 + tag, &octets);
        }
        batch.octets().to_vec()
    }

    fn queue() -> (UnixDatagram, UnixDatagram) {
        let (workers, queue) = UnixDatagram::pair().unwrap();
        queue.set_nonblocking(true).unwrap();
        (workers, queue)
    }

    #[test]
    fn a_buffer_takes_what_is_meant_for_its_writer() {
        let (workers, queue) = queue();
        let mut buffer = ReceiveBuffer::default();
        for _ in 0..2 {
            for (worker, generation, commands) in [(1, 9, 2), (2, 9, 0), (1, 8, 7), (4, 9, 1)] {
                let head = BatchHead {
                    worker,
                    generation,
                    ..HEAD
                };
                workers.send(&batch(head, commands)).unwrap();
            }
            workers.send(b"no").unwrap();
            let cut = batch(HEAD, 2);
            workers.send(&cut[..cut.len() - 1]).unwrap();
            buffer.take(&queue, 9);
            let seen: Vec<_> = buffer
                .arrived()
                .iter()
                .map(|arrived| {
                    assert_eq!(buffer.command(arrived), Some(a_command()));
                    (arrived.head.worker, arrived.tag, arrived.since)
                })
                .collect();
            assert_eq!(seen, [(1, 0, 100), (1, 1, 101), (4, 0, 100), (3, 0, 100)]);
            buffer.clear();
            assert!(buffer.arrived().is_empty());
        }
    }

    #[test]
    fn a_full_buffer_leaves_the_rest_in_the_queue() {
        let (workers, queue) = queue();
        let mut buffer = ReceiveBuffer::default();
        let datagram = [7; MAX_DATAGRAM];
        for _ in 0..ReceiveBuffer::FULL / MAX_DATAGRAM {
            assert!(!buffer.is_full());
            workers.send(&datagram).unwrap();
            buffer.take(&queue, 9);
        }
        workers.send(&batch(HEAD, 1)).unwrap();
        buffer.take(&queue, 9);
        assert!(buffer.is_full() && buffer.arrived().is_empty());
        buffer.clear();
        buffer.take(&queue, 9);
        assert_eq!(buffer.arrived().len(), 1);
    }

    #[test]
    fn answers_come_as_they_were_sent() {
        let outcome = Outcome {
            verdict: Verdict::Tarpit,
            ..Outcome::default()
        };
        let mut datagram = Vec::new();
        begin_answers(&mut datagram, 70_000);
        push_answer(&mut datagram, 7, Some(&outcome));
        push_answer(&mut datagram, 8, None);
        let of = |incarnation| answers(&datagram, incarnation).collect::<Vec<_>>();
        assert_eq!(of(70_000), [(7, Some(outcome)), (8, None)]);
        assert_eq!(of(70_001), []);
    }

    #[test]
    fn a_batch_is_full_at_the_size_of_a_datagram() {
        let mut batch = CommandBatch::new(HEAD);
        let command = [0; 1000];
        let mut count = 0;
        while batch.has_room(command.len()) {
            batch.push(0, 0, &command);
            count += 1;
        }
        assert_eq!(count, 8);
        assert!(batch.octets().len() <= MAX_DATAGRAM);
    }
}
