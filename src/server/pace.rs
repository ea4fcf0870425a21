//! How the writer keeps pace with the workers: how long it gathers commands for
//! a commit, and which worker may commit by itself.
//!
//! Clients that were answered together ask again together. A writer that began
//! to commit with the first command it finds would split them for ever in those
//! that wait for a commit and those that are in it, and commit twice as often
//! as it need: so behind a commit it gives those it has answered a moment.

use std::time::{Duration, Instant};

/// A commit of this length for each command in it is cheap: what the command
/// takes elsewhere is about as much, and goes on meanwhile.
const CHEAP_SHARE: Duration = Duration::from_micros(50);
/// The part of a commit's length in which another command must come.
const GAP_PART: u32 = 4;
/// The part of a commit's length that is gathered at most.
const MOST_PART: u32 = 2;
/// A commit that took longer was held up: nobody waits in proportion to it.
const LONGEST: Duration = Duration::from_millis(20);
/// For so long a worker has company after another one has sent something.
const COMPANY_TIME: Duration = Duration::from_millis(20);
/// What takes longer is the writer's: requests that need no commit would have
/// to wait for it, and waking the writer costs little beside it.
const SHORT: Duration = Duration::from_millis(1);

/// True if a commit that took so long may as well have been a worker's own.
pub fn is_short(took: Duration) -> bool {
    took <= SHORT
}

/// What the writer remembers of its commits.
#[derive(Debug)]
pub struct Pace {
    /// When the last commit was answered.
    answered: Instant,
    /// What it took, at most [`LONGEST`].
    took: Duration,
    /// Commands that may be there soon: of the clients that it answered, and
    /// those that have come meanwhile.
    expected: usize,
    /// When each worker last sent something.
    seen: Vec<Option<Instant>>,
}

impl Pace {
    /// Nothing was committed yet.
    pub fn new(workers: usize, now: Instant) -> Self {
        Pace {
            answered: now,
            took: Duration::ZERO,
            expected: 0,
            seen: vec![None; workers],
        }
    }

    /// Notes a commit that is answered now: what it took, how many commands
    /// were in it, and how many have come meanwhile.
    pub fn note(&mut self, now: Instant, took: Duration, committed: usize, waiting: usize) {
        self.answered = now;
        self.took = took.min(LONGEST);
        self.expected = committed + waiting;
    }

    /// How long to wait for a command more, when so many are at hand since
    /// `begun`; `None`: commit now.
    pub fn patience(&self, begun: Instant, now: Instant, at_hand: usize) -> Option<Duration> {
        let gap = self.took / GAP_PART;
        let is_behind_a_commit = begun.saturating_duration_since(self.answered) < gap;
        let is_dear = self.took > CHEAP_SHARE * u32::try_from(at_hand).unwrap_or(u32::MAX);
        if !is_behind_a_commit || !is_dear || at_hand >= self.expected {
            return None;
        }
        let left = (begun + self.took / MOST_PART).checked_duration_since(now)?;
        Some(left.min(gap)).filter(|time| !time.is_zero())
    }

    /// True if a worker may take the short cut behind a commit that took so
    /// long: those that have sent something now are one, and no other was seen
    /// lately.
    pub fn short_cut(&mut self, workers: &[usize], took: Duration, now: Instant) -> bool {
        for &worker in workers {
            if let Some(seen) = self.seen.get_mut(worker) {
                *seen = Some(now);
            }
        }
        let is_here = |seen: &&Option<Instant>| {
            seen.is_some_and(|seen| now.saturating_duration_since(seen) < COMPANY_TIME)
        };
        self.seen.iter().filter(is_here).count() <= 1 && is_short(took)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn after_a_commit(committed: usize, waiting: usize) -> (Pace, Instant) {
        let now = Instant::now();
        let mut pace = Pace::new(2, now);
        pace.note(now, MS, committed, waiting);
        (pace, now)
    }

    #[test]
    fn those_that_were_answered_together_are_waited_for() {
        let (pace, now) = after_a_commit(8, 8);
        let soon = now + MS / 8;
        assert_eq!(pace.patience(soon, soon, 8), Some(MS / 4));
        assert_eq!(pace.patience(soon, soon, 15), Some(MS / 4));
        assert_eq!(pace.patience(soon, soon, 16), None);
    }

    #[test]
    fn the_wait_ends() {
        let (pace, now) = after_a_commit(8, 8);
        assert_eq!(pace.patience(now, now + MS * 3 / 8, 9), Some(MS / 8));
        assert_eq!(pace.patience(now, now + MS / 2, 9), None);
        assert_eq!(pace.patience(now, now + MS, 9), None);
    }

    #[test]
    fn a_disk_that_hung_does_not_make_a_long_wait() {
        let now = Instant::now();
        let mut pace = Pace::new(2, now);
        pace.note(now, MS * 3000, 8, 8);
        assert_eq!(pace.patience(now, now, 8), Some(MS * 5));
        assert_eq!(pace.patience(now, now + MS * 10, 8), None);
    }

    #[test]
    fn a_command_that_comes_later_does_not_wait() {
        let (pace, now) = after_a_commit(8, 8);
        let later = now + MS / 4;
        assert_eq!(pace.patience(later, later, 1), None);
        let first = Pace::new(2, now);
        assert_eq!(first.patience(now, now, 1), None);
    }

    #[test]
    fn many_commands_do_not_wait_for_more() {
        let (pace, now) = after_a_commit(50, 50);
        assert_eq!(pace.patience(now, now, 19), Some(MS / 4));
        assert_eq!(pace.patience(now, now, 20), None);
    }

    #[test]
    fn a_worker_is_alone_when_the_others_have_been_silent() {
        let now = Instant::now();
        let mut pace = Pace::new(3, now);
        assert!(pace.short_cut(&[1], MS, now));
        assert!(!pace.short_cut(&[1, 2], MS, now));
        assert!(!pace.short_cut(&[2], MS, now + MS * 19));
        assert!(pace.short_cut(&[2], MS, now + MS * 20));
    }

    #[test]
    fn long_commits_are_the_writers() {
        let now = Instant::now();
        let mut pace = Pace::new(1, now);
        assert!(!pace.short_cut(&[0], MS + Duration::from_nanos(1), now));
        assert!(pace.short_cut(&[0], MS, now));
    }
}
