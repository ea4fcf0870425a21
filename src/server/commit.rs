//! How commands are committed: by the writer for all workers at once, or here.
//!
//! A worker sends the commands of one turn to the writer in few datagrams and
//! goes on. The short cut: a worker that was alone in its last commit, which was
//! a short one, has nothing under way and gets the lock at once commits by
//! itself; so does a spawned session always, a worker whose commits flush
//! nothing (`--sync=none`), and one whose writer is silent. A command is tried
//! twice, then its request is answered without the store.

use std::collections::VecDeque;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::contained;
use super::counters::{Counter, Counters};
use super::datagram::{Answers, MAX_DATAGRAM, Parcel, TAG_LEN, Tag};
use super::pace::is_short;
use super::shared::Shared;
use crate::log::Log;
use crate::policy::command::{Command, Outcome};
use crate::policy::rules::Rules;
use crate::store::lmdb::LmdbStore;
use crate::store::{Store, StoreError};
use crate::sys::lock::{Claim, LockFile};

/// How long the writer may take before a worker helps itself.
pub const WRITER_PATIENCE: Duration = Duration::from_secs(1);
/// How long a session without a writer waits for its turn to commit.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// How long a worker does whose writer is silent. All its clients wait so long.
const SISTER_PATIENCE: Duration = Duration::from_millis(50);
/// How often a command is tried.
const MOST_TRIES: u8 = 2;

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

/// A command on its way.
struct Traveller {
    owner: u64,
    command: Vec<u8>,
    /// When its request came: sending it again wins no time, for the client
    /// waits all the while.
    since: Instant,
    tries: u8,
    is_sent: bool,
}

/// A command that is done, by its owner; `None` if the store failed.
pub type Done = (u64, Option<Outcome>);

/// Commits the commands of a process.
pub struct Committer {
    store: LmdbStore,
    lock: LockFile,
    /// Which opening of the store the lock file belongs to.
    opening: u64,
    link: Option<WriterLink>,
    /// Commits by itself what comes next, if nothing is under way.
    short_cut: bool,
    /// Commands under way; the first has the tag `first_tag`.
    travellers: VecDeque<Option<Traveller>>,
    first_tag: Tag,
    /// Buffers of commands that are done, for those to come.
    spare: Vec<Vec<u8>>,
    log: Rc<Log>,
    shared: Shared,
}

impl Committer {
    /// A committer over a store; without a link it commits everything itself.
    pub fn new(
        store: LmdbStore,
        lock: LockFile,
        link: Option<WriterLink>,
        log: Rc<Log>,
        shared: Shared,
    ) -> Self {
        let opening = store.openings();
        Committer {
            store,
            lock,
            opening,
            link,
            short_cut: true,
            travellers: VecDeque::new(),
            first_tag: 0,
            spare: Vec::new(),
            log,
            shared,
        }
    }

    /// The store, for reading.
    pub fn store(&mut self) -> &mut LmdbStore {
        &mut self.store
    }

    /// The link, to wait for.
    pub fn link(&self) -> Option<&WriterLink> {
        self.link.as_ref()
    }

    /// True if commands are under way.
    pub fn is_busy(&self) -> bool {
        !self.travellers.is_empty()
    }

    /// How many commands are under way.
    pub fn under_way(&self) -> usize {
        self.travellers.iter().flatten().count()
    }

    /// True if commands are left that the writer's queue did not take.
    pub fn has_unsent(&self) -> bool {
        self.travellers
            .iter()
            .flatten()
            .any(|traveller| !traveller.is_sent)
    }

    /// Takes a command; [`Committer::commit`] follows at the end of the turn.
    /// The owner is what the caller knows it by.
    pub fn push(&mut self, owner: u64, command: &[u8]) {
        let mut buffer = self.spare.pop().unwrap_or_default();
        buffer.clear();
        buffer.extend_from_slice(command);
        let since = Instant::now();
        let traveller = Traveller {
            owner,
            command: buffer,
            since,
            tries: 1,
            is_sent: false,
        };
        self.travellers.push_back(Some(traveller));
    }

    /// Commits what was pushed, or sends it to the writer.
    pub fn commit(&mut self, rules: &Rules, done: &mut Vec<Done>) {
        let is_first = self
            .travellers
            .iter()
            .flatten()
            .all(|traveller| !traveller.is_sent);
        let may_commit = match &self.link {
            None => self.lock_patiently(LOCK_PATIENCE),
            Some(_) if !is_first => false,
            Some(_) if self.store.flushes() => self.short_cut && self.try_lock(),
            Some(_) => self.lock_soon(),
        };
        if may_commit {
            self.commit_here(rules, done, |_| true);
        } else if self.link.is_some() {
            self.send();
        } else {
            self.give_up(done, |_| true);
        }
    }

    /// False if another process has the lock.
    fn lock(&mut self) -> io::Result<bool> {
        if self.store.openings() != self.opening {
            self.opening = self.store.openings();
            self.lock.reopen()?;
        }
        self.lock.try_lock(Claim::Commit)
    }

    fn try_lock(&mut self) -> bool {
        let result = self.lock();
        self.is_locked(result)
    }

    fn is_locked(&self, result: io::Result<bool>) -> bool {
        result.unwrap_or_else(|error| {
            self.log
                .complain(&format!("cannot lock the database: {error}"));
            false
        })
    }

    /// Waits a moment for the lock: a commit that flushes nothing is over before
    /// the writer would be awake.
    fn lock_soon(&mut self) -> bool {
        const TRIES: usize = 100;
        for _ in 0..TRIES {
            match self.lock() {
                Ok(false) => std::thread::yield_now(),
                result => return self.is_locked(result),
            }
        }
        false
    }

    /// Without a writer to turn to, waits for the lock, but no longer than this.
    fn lock_patiently(&mut self, patience: Duration) -> bool {
        let start = Instant::now();
        let mut pause = Duration::from_micros(200);
        loop {
            match self.lock() {
                Ok(false) if start.elapsed() < patience => std::thread::sleep(pause),
                Ok(false) => {
                    self.log
                        .complain("another process keeps the database locked");
                    return false;
                }
                result => return self.is_locked(result),
            }
            pause = (pause * 2).min(Duration::from_millis(5));
        }
    }

    /// Commits those under way for which `is_chosen`, under the lock that is
    /// held, and gives it back.
    fn commit_here(
        &mut self,
        rules: &Rules,
        done: &mut Vec<Done>,
        is_chosen: impl Fn(&Traveller) -> bool,
    ) {
        let chosen: Vec<usize> = (0..self.travellers.len())
            .filter(|&index| self.travellers[index].as_ref().is_some_and(&is_chosen))
            .collect();
        let commands: Vec<Command> = chosen
            .iter()
            .filter_map(|&index| self.travellers[index].as_ref())
            .filter_map(|traveller| Command::decode(&mut &traveller.command[..]))
            .collect();
        let begun = Instant::now();
        let result = apply_counted(&mut self.store, rules, &self.shared.counters, &commands);
        let took = begun.elapsed();
        drop(commands);
        if self.store.take_has_grown() {
            self.ask_for_expiry();
        }
        if let Err(error) = self.lock.unlock(Claim::Commit) {
            self.log
                .complain(&format!("cannot unlock the database: {error}"));
        }
        self.short_cut = is_short(took);
        tell_of_journal(&mut self.store, &self.log);
        match result {
            Ok(outcomes) => {
                for (index, outcome) in chosen.into_iter().zip(outcomes) {
                    self.finish(index, Some(outcome), done);
                }
            }
            Err(error) => {
                self.log.complain(&error.to_string());
                for index in chosen {
                    self.finish(index, None, done);
                }
            }
        }
        self.drop_finished();
    }

    /// The map was full: the writer may find something to remove. A datagram
    /// without commands wakes it.
    fn ask_for_expiry(&self) {
        self.shared.want_expiry();
        if let Some(link) = &self.link {
            send_datagram(
                &link.to_writer,
                &Parcel::head(link.worker, link.incarnation),
                &self.log,
            );
        }
    }

    fn finish(&mut self, index: usize, outcome: Option<Outcome>, done: &mut Vec<Done>) {
        if let Some(traveller) = self.travellers.get_mut(index).and_then(Option::take) {
            self.spare.push(traveller.command);
            done.push((traveller.owner, outcome));
        }
    }

    fn drop_finished(&mut self) {
        while let Some(None) = self.travellers.front() {
            self.travellers.pop_front();
            self.first_tag += 1;
        }
    }

    fn give_up(&mut self, done: &mut Vec<Done>, is_chosen: impl Fn(&Traveller) -> bool) {
        for index in 0..self.travellers.len() {
            if self.travellers[index].as_ref().is_some_and(&is_chosen) {
                self.finish(index, None, done);
            }
        }
        self.drop_finished();
    }

    /// Sends what is unsent; what the queue does not take stays for later.
    pub fn send(&mut self) {
        let Some(link) = &self.link else { return };
        let head = Parcel::head(link.worker, link.incarnation);
        let mut datagram = Vec::with_capacity(MAX_DATAGRAM);
        let mut packed = Vec::new();
        for index in 0..self.travellers.len() {
            let Some(traveller) = &self.travellers[index] else {
                continue;
            };
            if traveller.is_sent {
                continue;
            }
            let length = TAG_LEN + traveller.command.len();
            if datagram.len() + length > MAX_DATAGRAM && !self.send_packed(&datagram, &mut packed) {
                return;
            }
            if packed.is_empty() {
                datagram.clear();
                datagram.extend_from_slice(&head);
            }
            let Some(traveller) = &self.travellers[index] else {
                continue;
            };
            datagram.extend_from_slice(&(self.first_tag + index as u64).to_le_bytes());
            datagram.extend_from_slice(&traveller.command);
            packed.push(index);
        }
        self.send_packed(&datagram, &mut packed);
    }

    /// Sends a datagram and notes it of the commands in it; false if the queue
    /// does not take it.
    fn send_packed(&mut self, datagram: &[u8], packed: &mut Vec<usize>) -> bool {
        let Some(link) = &self.link else { return false };
        if packed.is_empty() {
            return true;
        }
        if !send_datagram(&link.to_writer, datagram, &self.log) {
            return false;
        }
        for index in packed.drain(..) {
            if let Some(traveller) = &mut self.travellers[index] {
                traveller.is_sent = true;
            }
        }
        true
    }

    /// Takes the outcomes that have come from the writer.
    pub fn receive(&mut self, done: &mut Vec<Done>) {
        let mut buffer = [0; MAX_DATAGRAM];
        while let Some(link) = &self.link {
            let Ok(length) = link.from_writer.recv(&mut buffer) else {
                break;
            };
            let Some(answers) = Answers::of(&buffer[..length]) else {
                continue;
            };
            if answers.incarnation != link.incarnation {
                continue;
            }
            self.short_cut = answers.short_cut;
            for (tag, outcome) in answers.iter() {
                if let Some(index) = tag.checked_sub(self.first_tag) {
                    self.finish(index as usize, outcome, done);
                }
            }
            self.drop_finished();
        }
        if self.has_unsent() {
            self.send();
        }
    }

    /// The writer was replaced: what it may have taken along is sent again,
    /// unless it was sent twice already.
    pub fn send_again(&mut self, done: &mut Vec<Done>) {
        self.give_up(done, |traveller| {
            traveller.is_sent && traveller.tries >= MOST_TRIES
        });
        for traveller in self.travellers.iter_mut().flatten() {
            if traveller.is_sent {
                traveller.tries += 1;
                traveller.is_sent = false;
            }
        }
        self.send();
    }

    /// Looks after commands that the writer has had for too long.
    pub fn look_after_overdue(&mut self, rules: &Rules, done: &mut Vec<Done>) {
        let now = Instant::now();
        let is_overdue =
            |traveller: &Traveller| now.duration_since(traveller.since) >= WRITER_PATIENCE;
        let overdue = self
            .travellers
            .iter()
            .flatten()
            .filter(|t| is_overdue(t))
            .count();
        if overdue == 0 {
            return;
        }
        self.shared
            .counters
            .add(Counter::WriterSilent, overdue as u64);
        self.log.complain("the writer is silent");
        // A sister may be doing the same.
        if self.lock_patiently(SISTER_PATIENCE) {
            self.commit_here(rules, done, is_overdue);
            // It may be back for the next ones.
            self.short_cut = false;
        } else {
            self.give_up(done, is_overdue);
        }
    }

    /// When to look after overdue commands next; `None` if none is under way.
    pub fn deadline(&self) -> Option<Instant> {
        let oldest = self
            .travellers
            .iter()
            .flatten()
            .map(|traveller| traveller.since)
            .min();
        oldest.map(|since| since + WRITER_PATIENCE)
    }
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

/// Says that a commit had to do without the journal, if one had.
pub fn tell_of_journal(store: &mut LmdbStore, log: &Log) {
    if let Some(why) = store.take_trouble() {
        log.complain(&format!("the journal is given up: {why}"));
    }
}

/// Applies commands in one transaction and counts it.
pub fn apply_counted(
    store: &mut dyn Store,
    rules: &Rules,
    counters: &Counters,
    commands: &[Command],
) -> Result<Vec<Outcome>, StoreError> {
    let start = Instant::now();
    let mut outcomes = Vec::with_capacity(commands.len());
    let applied = contained(|| store.apply_batch(rules, commands, &mut outcomes));
    applied.unwrap_or_else(|| {
        counters.add(Counter::Bugs, 1);
        Err(StoreError::of_bug())
    })?;
    counters.add_batch(commands.len(), start.elapsed());
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Level, Sinks};
    use crate::policy::command::Now;
    use crate::server::buggy::BuggyStore;
    use crate::store::lmdb::LmdbOptions;
    use crate::store::memory::MemoryStore;

    /// A committer in an empty folder, and the other ends of its link.
    fn committer(dir: &std::path::Path, sync: bool) -> (Committer, [UnixDatagram; 2]) {
        let (to_writer, queue) = UnixDatagram::pair().unwrap();
        let (answers, from_writer) = UnixDatagram::pair().unwrap();
        let shared = Shared::new(1).unwrap();
        let log = Rc::new(Log::new(Level::Zero, Sinks::default(), shared.complaints));
        let store = LmdbStore::new(LmdbOptions {
            dir: dir.to_owned(),
            map_size: 1 << 20,
            sync,
        });
        let link = WriterLink {
            to_writer,
            from_writer,
            worker: 0,
            incarnation: 1,
        };
        let lock = LockFile::new(dir.join("lock"), 0o600);
        let committer = Committer::new(store, lock, Some(link), log, shared);
        (committer, [queue, answers])
    }

    fn a_command() -> Command<'static> {
        Command {
            now: Now::new(1e9, None),
            address: b"192.0.2.1",
            client: b"192.0.2.1",
            triplet: b"192.0.2.0/a/b",
            octet: b"1",
            is_data: false,
        }
    }

    #[test]
    fn who_is_not_alone_sends_unless_commits_flush_nothing() {
        for sync in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let (mut committer, _ends) = committer(folder.path(), sync);
            committer.short_cut = false;
            let mut command = Vec::new();
            a_command().encode(&mut command);
            committer.push(7, &command);
            let mut done = Vec::new();
            committer.commit(&Rules::default(), &mut done);
            assert_eq!(done.is_empty(), sync);
            assert_eq!(committer.is_busy(), sync);
        }
    }

    #[test]
    fn a_command_that_is_sent_again_wins_no_time() {
        let folder = tempfile::tempdir().unwrap();
        let (mut committer, _ends) = committer(folder.path(), false);
        committer.push(7, b"a command");
        let deadline = committer.deadline();
        committer.send();
        assert!(!committer.has_unsent());
        let mut done = Vec::new();
        committer.send_again(&mut done);
        assert_eq!((committer.deadline(), done.len()), (deadline, 0));
        // The second try was the last.
        committer.send_again(&mut done);
        assert_eq!(done, [(7, None)]);
        assert_eq!(committer.deadline(), None);
    }

    #[test]
    fn a_bug_at_applying_fails_the_batch_and_no_more() {
        let shared = Shared::new(1).unwrap();
        let counters = &shared.counters;
        let commands = [a_command()];
        let failed = apply_counted(&mut BuggyStore, &Rules::default(), counters, &commands);
        assert_eq!(failed, Err(StoreError::of_bug()));
        assert_eq!(counters.get(Counter::Bugs), 1);
        let mut memory = MemoryStore::default();
        let applied = apply_counted(&mut memory, &Rules::default(), counters, &commands);
        assert_eq!(applied.map(|outcomes| outcomes.len()), Ok(1));
    }
}
