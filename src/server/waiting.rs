//! What a worker waits for: everything, or the busy ones of many connections.
//!
//! poll(2) takes time for every descriptor it is given. When a few of many
//! connections are busy, only these are waited for, and the idle ones are looked
//! at from time to time.

use std::io;
use std::time::{Duration, Instant};

use crate::sys::poll::{PollSet, Readiness};

/// From this number of connections on it pays to wait for the busy ones alone.
const MANY_CONNECTIONS: usize = 50;
/// A connection that was read from is busy for this long.
const BUSY_TIME: Duration = Duration::from_millis(100);
/// A new one, whose first request is expected.
const NEW_TIME: Duration = Duration::from_millis(10);
/// How often the idle connections are looked at while others are busy: as
/// often as that takes a hundredth of the time, within these bounds. So long
/// may the first request of an idle connection wait.
const IDLE_LOOK_PART: u32 = 100;
const SHORTEST_IDLE_LOOK: Duration = Duration::from_millis(2);
const LONGEST_IDLE_LOOK: Duration = Duration::from_millis(25);

/// The descriptors of a worker, and which of them are waited for.
pub struct Waiting {
    /// The places before the first connection's belong to others.
    pub poll: PollSet,
    /// The place of the first connection. There are no gaps behind it: poll(2)
    /// refuses a set that is longer than the limit of descriptors.
    first: usize,
    /// So long more is expected of the connection at the same index. Apart from
    /// the connections, which fill many pages of memory.
    busy_until: Vec<Instant>,
    /// The places that are waited for between two looks at all of them.
    busy: Vec<usize>,
    /// The last wait was for the busy ones alone.
    waited_for_busy: bool,
    last_look: Instant,
    /// The time between two looks.
    idle_look: Duration,
    /// When the last wait was over.
    awake: Instant,
}

impl Waiting {
    /// Nothing to wait for yet; connections have the places from `first` on.
    pub fn new(first: usize) -> Self {
        let now = Instant::now();
        Waiting {
            poll: PollSet::default(),
            first,
            busy_until: Vec::new(),
            busy: Vec::new(),
            waited_for_busy: false,
            last_look: now,
            idle_look: SHORTEST_IDLE_LOOK,
            awake: now,
        }
    }

    /// The place of the connection at this index.
    pub fn place(&self, index: usize) -> usize {
        self.first + index
    }

    /// When the last wait was over.
    pub fn awake(&self) -> Instant {
        self.awake
    }

    /// A new connection is at this index: one of those before, or the next.
    pub fn expect_first(&mut self, index: usize) {
        if self.busy_until.len() <= index {
            self.busy_until.resize(index + 1, self.awake);
        }
        self.busy_until[index] = self.awake + NEW_TIME;
    }

    /// The connection at this index was read from.
    pub fn expect_more(&mut self, index: usize) {
        self.busy_until[index] = self.awake + BUSY_TIME;
    }

    /// How many connections are busy.
    pub fn count_busy(&self) -> usize {
        let awake = self.awake;
        self.busy_until
            .iter()
            .filter(|&&until| until > awake)
            .count()
    }

    /// Waits until something is ready or `deadline` has passed. So many
    /// connections are open.
    pub fn wait(&mut self, deadline: Option<Instant>, connections: usize) -> io::Result<()> {
        let now = Instant::now();
        let mut timeout = deadline.map(|at| at.saturating_duration_since(now));
        let mut look_begun = None;
        if !self.busy.is_empty() {
            let at_most = timeout.map_or(self.idle_look, |timeout| timeout.min(self.idle_look));
            let ready = self.poll.wait_for(&self.busy, Some(at_most))?;
            self.awake = Instant::now();
            self.waited_for_busy = true;
            if ready > 0 && self.awake.duration_since(self.last_look) < self.idle_look {
                return Ok(());
            }
            if ready > 0 {
                timeout = Some(Duration::ZERO);
                look_begun = Some(self.awake);
            }
        }
        self.poll.wait(timeout)?;
        self.awake = Instant::now();
        self.waited_for_busy = false;
        self.last_look = self.awake;
        self.choose_busy(connections);
        if let Some(begun) = look_begun {
            let took = begun.elapsed();
            self.idle_look = (took * IDLE_LOOK_PART).clamp(SHORTEST_IDLE_LOOK, LONGEST_IDLE_LOOK);
        }
        Ok(())
    }

    /// Looks again at what is waited for at present, unless that is much: false
    /// then.
    pub fn look_again(&mut self) -> io::Result<bool> {
        if self.count() >= MANY_CONNECTIONS {
            return Ok(false);
        }
        match self.waited_for_busy {
            true => self.poll.wait_for(&self.busy, Some(Duration::ZERO))?,
            false => self.poll.wait(Some(Duration::ZERO))?,
        };
        Ok(true)
    }

    /// Chooses what is waited for between two looks at everything: nothing if
    /// that is not worth it.
    fn choose_busy(&mut self, connections: usize) {
        self.busy.clear();
        if connections < MANY_CONNECTIONS {
            return;
        }
        let (now, first) = (self.last_look, self.first);
        let sessions = self.busy_until.iter().enumerate();
        let busy = sessions.filter(|&(_, &until)| until > now);
        self.busy.extend(0..first);
        self.busy.extend(busy.map(|(index, _)| first + index));
        let count = self.busy.len() - first;
        if count == 0 || count > connections / 2 {
            self.busy.clear();
        }
    }

    /// How many connections the last wait was for; [`Waiting::index`] has them.
    pub fn count(&self) -> usize {
        match self.waited_for_busy {
            true => self.busy.len().saturating_sub(self.first),
            false => self.busy_until.len(),
        }
    }

    /// The index of one of the connections the last wait was for.
    pub fn index(&self, at: usize) -> usize {
        match self.waited_for_busy {
            true => self.busy[self.first + at] - self.first,
            false => at,
        }
    }

    /// What the last wait saw of the connection at this index.
    pub fn readiness(&self, index: usize) -> Readiness {
        self.poll.readiness(self.place(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::Interest;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn seen(waiting: &Waiting) -> Vec<usize> {
        (0..waiting.count())
            .map(|at| waiting.index(at))
            .filter(|&index| waiting.readiness(index).input)
            .collect()
    }

    #[test]
    fn idle_connections_are_looked_at_from_time_to_time() {
        let (mut here, there): (Vec<_>, Vec<_>) =
            (0..100).map(|_| UnixStream::pair().unwrap()).unzip();
        let mut waiting = Waiting::new(1);
        for (index, stream) in there.iter().enumerate() {
            waiting
                .poll
                .set(waiting.place(index), stream, Interest::INPUT);
            waiting.expect_first(index);
        }
        let soon = |waiting: &mut Waiting| {
            let deadline = Instant::now() + Duration::from_secs(60);
            waiting.wait(Some(deadline), 100).unwrap();
        };
        for index in [7, 99] {
            here[index].write_all(b"x").unwrap();
        }
        // None of them is new any more.
        waiting.busy_until.fill(waiting.awake);
        soon(&mut waiting);
        assert_eq!(seen(&waiting), [7, 99]);
        waiting.expect_more(7);
        waiting.expect_more(99);
        assert_eq!(waiting.count_busy(), 2);
        soon(&mut waiting);
        // Whoever is busy is seen at once, an idle one at the next look.
        here[50].write_all(b"x").unwrap();
        waiting.idle_look = Duration::from_secs(30);
        soon(&mut waiting);
        assert_eq!((waiting.count(), seen(&waiting)), (2, vec![7, 99]));
        // The second look of a turn is for the same ones, and never for many.
        assert!(waiting.look_again().unwrap());
        assert_eq!((waiting.count(), seen(&waiting)), (2, vec![7, 99]));
        waiting.idle_look = Duration::ZERO;
        soon(&mut waiting);
        assert_eq!((waiting.count(), seen(&waiting)), (100, vec![7, 50, 99]));
        assert!(!waiting.look_again().unwrap());
    }

    #[test]
    fn few_connections_and_many_busy_ones_are_all_waited_for() {
        let mut waiting = Waiting::new(0);
        for (connections, busy, chosen) in [
            (49, 1, 0),
            (50, 1, 1),
            (50, 25, 25),
            (50, 26, 0),
            (50, 0, 0),
        ] {
            waiting.busy_until = vec![waiting.awake; connections];
            (0..busy).for_each(|index| waiting.expect_more(index));
            waiting.choose_busy(connections);
            assert_eq!(waiting.busy.len(), chosen, "{busy} of {connections}");
        }
    }
}
