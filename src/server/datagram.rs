//! The datagrams between workers and writer.
//!
//! To the writer: a worker's place and incarnation, then commands, each behind
//! its tag. To a worker: its incarnation, whether it may commit the next commands
//! by itself, then answers, each a tag, whether the store took the command, the
//! outcome.

use std::os::unix::net::UnixDatagram;

use crate::policy::command::{Command, Outcome};

/// Octets of a datagram at most: every system takes that many.
pub const MAX_DATAGRAM: usize = 8 * 1024;
/// Octets of a tag.
pub const TAG_LEN: usize = 8;
/// Octets of an answer.
const ANSWER_LEN: usize = TAG_LEN + 1 + Outcome::ENCODED_LEN;
/// Octets before the answers.
const ANSWER_HEAD: usize = 4 + 1;
/// Answers in one datagram at most.
pub const MAX_ANSWERS: usize = (MAX_DATAGRAM - ANSWER_HEAD) / ANSWER_LEN;

/// Names a command of a worker until it is answered.
pub type Tag = u64;

/// Commands of a worker.
pub struct Parcel<'d> {
    /// The worker's place.
    pub worker: u8,
    /// Tells the process from its predecessors at the same place.
    pub incarnation: u32,
    /// The commands with their tags; none only wakes the writer.
    pub commands: Vec<(Tag, Command<'d>)>,
}

impl<'d> Parcel<'d> {
    /// The start of a worker's datagrams.
    pub fn head(worker: u8, incarnation: u32) -> [u8; 5] {
        let [a, b, c, d] = incarnation.to_le_bytes();
        [worker, a, b, c, d]
    }

    /// The parcel of a datagram; `None` if it is none.
    pub fn of(datagram: &'d [u8]) -> Option<Self> {
        let (&worker, rest) = datagram.split_first()?;
        let (incarnation, mut rest) = rest.split_first_chunk()?;
        let mut commands = Vec::new();
        while let Some((tag, command)) = rest.split_first_chunk::<TAG_LEN>() {
            rest = command;
            commands.push((Tag::from_le_bytes(*tag), Command::decode(&mut rest)?));
        }
        Some(Parcel {
            worker,
            incarnation: u32::from_le_bytes(*incarnation),
            commands,
        })
    }
}

/// The datagrams of a batch, in a buffer that is used again.
#[derive(Default)]
pub struct Inbox {
    octets: Vec<u8>,
    ends: Vec<usize>,
}

impl Inbox {
    /// Octets of datagrams beyond which no more are taken.
    const FULL: usize = 256 * 1024;

    /// Takes what a queue holds, as long as there is room.
    pub fn take(&mut self, queue: &UnixDatagram) {
        while !self.is_full() {
            let start = self.end();
            let room = start + MAX_DATAGRAM;
            if self.octets.len() < room {
                self.octets.resize(room, 0);
            }
            let Ok(length) = queue.recv(&mut self.octets[start..room]) else {
                return;
            };
            self.ends.push(start + length);
        }
    }

    fn end(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    /// True if no more is taken.
    pub fn is_full(&self) -> bool {
        self.end() >= Inbox::FULL
    }

    /// The parcels in the order in which they came.
    pub fn parcels(&self) -> impl Iterator<Item = Parcel<'_>> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let datagrams = starts
            .zip(&self.ends)
            .map(|(start, &end)| &self.octets[start..end]);
        datagrams.filter_map(Parcel::of)
    }

    /// The number of commands in all parcels.
    pub fn count_commands(&self) -> usize {
        self.parcels().map(|parcel| parcel.commands.len()).sum()
    }

    /// True if nothing was taken.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Forgets the datagrams.
    pub fn clear(&mut self) {
        self.ends.clear();
    }
}

/// Answers to a worker, as they lie in a datagram.
pub struct Answers<'d> {
    /// The process they are for.
    pub incarnation: u32,
    /// The worker may commit by itself what comes next.
    pub short_cut: bool,
    answers: &'d [u8],
}

impl<'d> Answers<'d> {
    /// Begins a datagram of answers.
    pub fn begin(datagram: &mut Vec<u8>, incarnation: u32, short_cut: bool) {
        datagram.extend_from_slice(&incarnation.to_le_bytes());
        datagram.push(u8::from(short_cut));
    }

    /// Appends an answer to a datagram; `None`: the store failed.
    pub fn push(datagram: &mut Vec<u8>, tag: Tag, outcome: Option<&Outcome>) {
        datagram.extend_from_slice(&tag.to_le_bytes());
        datagram.push(u8::from(outcome.is_some()));
        outcome.unwrap_or(&Outcome::default()).encode(datagram);
    }

    /// The answers of a datagram; `None` if it is none.
    pub fn of(datagram: &'d [u8]) -> Option<Self> {
        let (incarnation, rest) = datagram.split_first_chunk()?;
        let (&short_cut, answers) = rest.split_first()?;
        let incarnation = u32::from_le_bytes(*incarnation);
        Some(Answers {
            incarnation,
            short_cut: short_cut != 0,
            answers,
        })
    }

    /// Tag and outcome of each.
    pub fn iter(&self) -> impl Iterator<Item = (Tag, Option<Outcome>)> {
        self.answers.chunks_exact(ANSWER_LEN).filter_map(|answer| {
            let (tag, rest) = answer.split_first_chunk()?;
            let (&was_taken, mut outcome) = rest.split_first()?;
            let outcome = Outcome::decode(&mut outcome)?;
            Some((
                Tag::from_le_bytes(*tag),
                (was_taken != 0).then_some(outcome),
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::command::{Now, Verdict};

    #[test]
    fn an_inbox_takes_what_the_queue_holds() {
        let command = Command {
            now: Now::new(1.0, None),
            address: b"192.0.2.1",
            client: b"b",
            triplet: b"c",
            octet: b"",
            is_data: false,
        };
        let (workers, queue) = UnixDatagram::pair().unwrap();
        queue.set_nonblocking(true).unwrap();
        let mut inbox = Inbox::default();
        for _ in 0..2 {
            for (worker, commands) in [(1, 2), (2, 0), (1, 3)] {
                let mut datagram = Parcel::head(worker, 5).to_vec();
                for tag in 0..commands {
                    datagram.extend_from_slice(&u64::to_le_bytes(tag));
                    command.encode(&mut datagram);
                }
                workers.send(&datagram).unwrap();
            }
            workers.send(b"no").unwrap();
            inbox.take(&queue);
            let seen: Vec<_> = inbox
                .parcels()
                .map(|parcel| (parcel.worker, parcel.commands.len()))
                .collect();
            assert_eq!(seen, [(1, 2), (2, 0), (1, 3)]);
            assert_eq!(inbox.count_commands(), 5);
            inbox.clear();
            assert!(inbox.is_empty());
        }
    }

    #[test]
    fn a_full_inbox_leaves_the_rest_in_the_queue() {
        let (workers, queue) = UnixDatagram::pair().unwrap();
        queue.set_nonblocking(true).unwrap();
        let mut inbox = Inbox::default();
        let datagram = [7; MAX_DATAGRAM];
        for _ in 0..Inbox::FULL / MAX_DATAGRAM {
            workers.send(&datagram).unwrap();
            inbox.take(&queue);
        }
        workers.send(&datagram).unwrap();
        inbox.take(&queue);
        assert_eq!(inbox.ends.len(), Inbox::FULL / MAX_DATAGRAM);
        inbox.clear();
        inbox.take(&queue);
        assert_eq!(inbox.ends.len(), 1);
    }

    #[test]
    fn commands_and_answers_travel() {
        let command = Command {
            now: Now::new(1.0, None),
            address: b"a",
            client: b"b",
            triplet: b"c",
            octet: b"",
            is_data: false,
        };
        let mut datagram = Parcel::head(3, 70_000).to_vec();
        for tag in [7_u64, 8] {
            datagram.extend_from_slice(&tag.to_le_bytes());
            command.encode(&mut datagram);
        }
        let parcel = Parcel::of(&datagram).unwrap();
        assert_eq!((parcel.worker, parcel.incarnation), (3, 70_000));
        assert_eq!(parcel.commands, [(7, command), (8, command)]);
        assert!(Parcel::of(&datagram[..datagram.len() - 1]).is_none());

        let outcome = Outcome {
            verdict: Verdict::Tarpit,
            ..Outcome::default()
        };
        let mut datagram = Vec::new();
        Answers::begin(&mut datagram, 70_000, true);
        Answers::push(&mut datagram, 7, Some(&outcome));
        Answers::push(&mut datagram, 8, None);
        let answers = Answers::of(&datagram).unwrap();
        assert_eq!((answers.incarnation, answers.short_cut), (70_000, true));
        assert_eq!(
            answers.iter().collect::<Vec<_>>(),
            [(7, Some(outcome)), (8, None)]
        );
    }
}
