//! Commits of a worker: the writer makes them for all workers at once.
//!
//! The commands of one turn go to the writer in few datagrams, and the worker
//! goes on. It never waits: what is not answered after [`WRITER_PATIENCE`] is
//! given up, and its request is answered without the store. The writer leaves
//! such a command alone, unless it is in a transaction already: then it counts,
//! once.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::WRITER_PATIENCE;
use super::wire::{BatchHead, CommandBatch, MAX_DATAGRAM, Tag, answers};
use crate::log::Log;
use crate::policy::command::Outcome;
use crate::server::counters::Counter;
use crate::server::shared::Shared;
use crate::sys::clock;

/// How often a command is sent: again to the writer after one that died.
const MOST_SENDS: u8 = 2;

/// The end of a worker's conversation with the writer.
pub struct WriterLink {
    /// Commands go in here; all workers share it.
    pub to_writer: UnixDatagram,
    /// Outcomes come out here; each worker has its own.
    pub from_writer: UnixDatagram,
    /// The worker's place.
    pub worker: u8,
    /// Tells this process from its predecessors at the same place.
    pub incarnation: u32,
}

/// Who waits for a command: the caller's own name for a connection. `None`:
/// nobody, the request was answered before.
pub type Owner = Option<u64>;

/// A command that was not answered yet.
struct PendingCommand {
    owner: Owner,
    command: Vec<u8>,
    /// When its request came, in microseconds of [`clock::monotonic`]: sending
    /// it again wins no time, for the client waits all the while.
    since: u64,
    sends: u8,
    /// The generation of the writer it was sent to; `None` if it is unsent.
    sent_to: Option<u32>,
}

/// A command that is done, by its owner; `None` if the store failed.
pub type Done = (u64, Option<Outcome>);

/// The commands of a worker that are on their way.
pub struct RemoteCommit {
    link: WriterLink,
    /// The first has the tag `first_tag`; answered ones leave a gap.
    pending: VecDeque<Option<PendingCommand>>,
    first_tag: Tag,
    under_way: usize,
    unsent: usize,
    /// Commands under way that nobody waits for.
    renewals: usize,
    /// Buffers of commands that are done, for those to come.
    spare: Vec<Vec<u8>>,
    log: Rc<Log>,
    shared: Shared,
}

impl RemoteCommit {
    /// Nothing is on its way yet.
    pub fn new(link: WriterLink, log: Rc<Log>, shared: Shared) -> Self {
        RemoteCommit {
            link,
            pending: VecDeque::new(),
            first_tag: 0,
            under_way: 0,
            unsent: 0,
            renewals: 0,
            spare: Vec::new(),
            log,
            shared,
        }
    }

    /// The link, to wait for.
    pub fn link(&self) -> &WriterLink {
        &self.link
    }

    /// How many commands are on their way.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// True if commands are on their way that nobody waits for.
    pub fn has_renewals(&self) -> bool {
        self.renewals > 0
    }

    /// True if commands are left that the writer's queue did not take.
    pub fn has_unsent(&self) -> bool {
        self.unsent > 0
    }

    /// Takes an encoded command; [`RemoteCommit::send`] follows at the end of
    /// the turn.
    pub fn push(&mut self, owner: Owner, command: &[u8]) {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(command);
        self.under_way += 1;
        self.unsent += 1;
        self.renewals += usize::from(owner.is_none());
        self.pending.push_back(Some(PendingCommand {
            owner,
            command: buffer,
            since: clock::monotonic(),
            sends: 0,
            sent_to: None,
        }));
    }

    /// Sends what is unsent; what the queue does not take stays for later.
    pub fn send(&mut self) {
        let generation = self.shared.writer_generation();
        let head = BatchHead {
            worker: self.link.worker,
            incarnation: self.link.incarnation,
            generation,
        };
        let mut at = 0;
        while self.unsent > 0 && at < self.pending.len() {
            let mut batch = CommandBatch::new(head);
            let start = at;
            let mut packed = 0;
            while let Some(slot) = self.pending.get(at) {
                if let Some(pending) = slot
                    && pending.sent_to.is_none()
                {
                    if !batch.has_room(pending.command.len()) {
                        break;
                    }
                    // Nobody tries again what nobody waits for: it is never late.
                    let since = pending.owner.map_or(u64::MAX, |_| pending.since);
                    batch.push(self.first_tag + at as u64, since, &pending.command);
                    packed += 1;
                }
                at += 1;
            }
            if packed == 0 || !send_datagram(&self.link.to_writer, batch.octets(), &self.log) {
                return;
            }
            let sent = self.pending.range_mut(start..at).flatten();
            for pending in sent.filter(|pending| pending.sent_to.is_none()) {
                pending.sent_to = Some(generation);
                pending.sends += 1;
            }
            self.unsent -= packed;
        }
    }

    /// Takes the outcomes that have come from the writer.
    pub fn receive(&mut self, done: &mut Vec<Done>) {
        let mut buffer = [0; MAX_DATAGRAM];
        while let Ok(length) = self.link.from_writer.recv(&mut buffer) {
            for (tag, outcome) in answers(&buffer[..length], self.link.incarnation) {
                if let Some(index) = tag.checked_sub(self.first_tag) {
                    self.finish(index as usize, outcome, done);
                }
            }
            self.drop_finished();
        }
        self.send();
    }

    /// The writer was replaced: what an earlier one may have taken along is sent
    /// again, unless it was sent twice already.
    pub fn send_again(&mut self, done: &mut Vec<Done>) {
        let generation = self.shared.writer_generation();
        for index in 0..self.pending.len() {
            let Some(Some(pending)) = self.pending.get_mut(index) else {
                continue;
            };
            if pending.sent_to.is_none_or(|sent_to| sent_to == generation) {
                continue;
            }
            pending.sent_to = None;
            let was_sent_too_often = pending.sends >= MOST_SENDS;
            self.unsent += 1;
            if was_sent_too_often {
                self.finish(index, None, done);
            }
        }
        self.drop_finished();
        self.send();
    }

    /// Gives up what the writer has had for too long.
    pub fn give_up_overdue(&mut self, done: &mut Vec<Done>) {
        let now = clock::monotonic();
        let mut overdue = 0;
        while let Some(Some(oldest)) = self.pending.front()
            && is_overdue(oldest.since, now)
        {
            overdue += u64::from(oldest.owner.is_some());
            self.finish(0, None, done);
            self.drop_finished();
        }
        if overdue > 0 {
            self.shared.counters.add(Counter::WriterSilent, overdue);
            self.log
                .complain("the writer is silent: requests pass ungreylisted");
        }
    }

    /// When the oldest command is given up; `None` if none is on its way.
    pub fn deadline(&self) -> Option<Instant> {
        let oldest = self.pending.front()?.as_ref()?;
        let age = clock::monotonic().saturating_sub(oldest.since);
        let left = WRITER_PATIENCE.saturating_sub(Duration::from_micros(age));
        Some(Instant::now() + left)
    }

    fn finish(&mut self, index: usize, outcome: Option<Outcome>, done: &mut Vec<Done>) {
        let Some(pending) = self.pending.get_mut(index).and_then(Option::take) else {
            return;
        };
        self.under_way -= 1;
        self.unsent -= usize::from(pending.sent_to.is_none());
        self.renewals -= usize::from(pending.owner.is_none());
        self.spare.push(pending.command);
        done.extend(pending.owner.map(|owner| (owner, outcome)));
    }

    /// The first one is never a gap.
    fn drop_finished(&mut self) {
        while let Some(None) = self.pending.front() {
            self.pending.pop_front();
            self.first_tag += 1;
        }
    }
}

/// True if a command of this time is given up by its worker; both times in
/// microseconds.
pub fn is_overdue(since: u64, now: u64) -> bool {
    u128::from(now.saturating_sub(since)) >= WRITER_PATIENCE.as_micros()
}

/// Sends a datagram; false if the queue is full or the other end gone.
fn send_datagram(socket: &UnixDatagram, datagram: &[u8], log: &Log) -> bool {
    loop {
        match socket.send(datagram) {
            Ok(_) => return true,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            // Some systems say so when the queue is full.
            Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return false,
            Err(error) => {
                log.complain(&format!("cannot send to the writer: {error}"));
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{ReceiveBuffer, begin_answers, push_answer};
    use super::*;
    use crate::log::{Level, Sinks};

    /// A worker's end, the queue of the writer, and the writer's end of the
    /// answers.
    fn commit() -> (RemoteCommit, UnixDatagram, UnixDatagram) {
        let (to_writer, queue) = UnixDatagram::pair().unwrap();
        let (answers, from_writer) = UnixDatagram::pair().unwrap();
        for socket in [&to_writer, &queue, &from_writer] {
            socket.set_nonblocking(true).unwrap();
        }
        let shared = Shared::new(1).unwrap();
        let log = Rc::new(Log::new(Level::Zero, Sinks::default(), shared.complaints));
        let link = WriterLink {
            to_writer,
            from_writer,
            worker: 0,
            incarnation: 1,
        };
        (RemoteCommit::new(link, log, shared), queue, answers)
    }

    fn taken(queue: &UnixDatagram, generation: u32) -> usize {
        let mut buffer = ReceiveBuffer::default();
        buffer.take(queue, generation);
        buffer.arrived().len()
    }

    #[test]
    fn answers_find_their_owners_in_any_order() {
        let (mut commit, _queue, answers) = commit();
        for owner in [7, 8, 9] {
            commit.push(Some(owner), b"command");
        }
        commit.push(None, b"renewal");
        commit.send();
        let mut done = Vec::new();
        for tags in [vec![2, 3], vec![0, 99], vec![1, 1]] {
            let mut datagram = Vec::new();
            begin_answers(&mut datagram, 1);
            for tag in tags {
                push_answer(
                    &mut datagram,
                    tag,
                    (tag == 2).then(Outcome::default).as_ref(),
                );
            }
            answers.send(&datagram).unwrap();
            commit.receive(&mut done);
        }
        assert_eq!(done, [(9, Some(Outcome::default())), (7, None), (8, None)]);
        assert_eq!((commit.under_way(), commit.deadline()), (0, None));
    }

    #[test]
    fn a_new_writer_gets_what_was_meant_for_the_old_one_once() {
        let (mut commit, queue, _answers) = commit();
        let first = commit.shared.next_writer_generation();
        commit.push(Some(7), b"command");
        let deadline = commit.deadline().unwrap();
        commit.send();
        assert!(!commit.has_unsent());
        let second = commit.shared.next_writer_generation();
        assert_ne!(first, second);
        let mut done = Vec::new();
        commit.send_again(&mut done);
        // Told twice of the same writer.
        commit.send_again(&mut done);
        assert_eq!((taken(&queue, second), done.len()), (1, 0));
        let moved = deadline.max(commit.deadline().unwrap()) - deadline;
        assert!(moved < Duration::from_millis(100), "{moved:?}");
        // The second try was the last.
        commit.shared.next_writer_generation();
        commit.send_again(&mut done);
        assert_eq!(done, [(7, None)]);
        assert_eq!((commit.under_way(), commit.has_unsent()), (0, false));
    }

    #[test]
    fn what_a_full_queue_does_not_take_is_sent_later() {
        let (mut commit, queue, _answers) = commit();
        let generation = commit.shared.writer_generation();
        let command = [0; 1000];
        let mut pushed = 0;
        while !commit.has_unsent() {
            commit.push(Some(0), &command);
            commit.send();
            pushed += 1;
        }
        commit.push(Some(0), &command);
        let mut arrived = taken(&queue, generation);
        commit.receive(&mut Vec::new());
        assert!(!commit.has_unsent());
        arrived += taken(&queue, generation);
        assert_eq!(arrived, pushed + 1);
    }

    #[test]
    fn what_is_overdue_is_given_up() {
        let (mut commit, _queue, _answers) = commit();
        commit.push(Some(7), b"command");
        commit.push(Some(8), b"command");
        commit.send();
        let mut done = Vec::new();
        commit.give_up_overdue(&mut done);
        assert_eq!(done, []);
        let long_ago = clock::monotonic() - WRITER_PATIENCE.as_micros() as u64;
        commit.pending[0].as_mut().unwrap().since = long_ago;
        assert!(commit.deadline().unwrap() <= Instant::now());
        commit.give_up_overdue(&mut done);
        assert_eq!(done, [(7, None)]);
        assert_eq!(commit.under_way(), 1);
        assert_eq!(commit.shared.counters.get(Counter::WriterSilent), 1);
    }
}
