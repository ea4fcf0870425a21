//! How long the writer gathers commands for a commit.
//!
//! Clients that were answered together ask again together. A writer that began
//! to commit with the first command it finds would split them for ever in those
//! that wait for a commit and those that are in it, and commit twice as often
//! as it need: so after a commit it gives those it has answered a moment.

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

/// What the writer remembers of its last commit.
#[derive(Debug)]
pub struct GroupCommitWindow {
    /// When it was answered.
    answered: Instant,
    /// What it took, at most [`LONGEST`].
    took: Duration,
    /// Commands that may be there soon: of the clients that it answered, and
    /// those that have come meanwhile.
    expected: usize,
}

impl GroupCommitWindow {
    /// Nothing was committed yet.
    pub fn new(now: Instant) -> Self {
        GroupCommitWindow {
            answered: now,
            took: Duration::ZERO,
            expected: 0,
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
        let is_after_a_commit = begun.saturating_duration_since(self.answered) < gap;
        let is_dear = self.took > CHEAP_SHARE * u32::try_from(at_hand).unwrap_or(u32::MAX);
        if !is_after_a_commit || !is_dear || at_hand >= self.expected {
            return None;
        }
        let left = (begun + self.took / MOST_PART).checked_duration_since(now)?;
        Some(left.min(gap)).filter(|time| !time.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn after_a_commit(committed: usize, waiting: usize) -> (GroupCommitWindow, Instant) {
        let now = Instant::now();
        let mut window = GroupCommitWindow::new(now);
        window.note(now, MS, committed, waiting);
        (window, now)
    }

    #[test]
    fn those_that_were_answered_together_are_waited_for() {
        let (window, now) = after_a_commit(8, 8);
        let soon = now + MS / 8;
        assert_eq!(window.patience(soon, soon, 8), Some(MS / 4));
        assert_eq!(window.patience(soon, soon, 15), Some(MS / 4));
        assert_eq!(window.patience(soon, soon, 16), None);
    }

    #[test]
    fn the_wait_ends() {
        let (window, now) = after_a_commit(8, 8);
        assert_eq!(window.patience(now, now + MS * 3 / 8, 9), Some(MS / 8));
        assert_eq!(window.patience(now, now + MS / 2, 9), None);
        assert_eq!(window.patience(now, now + MS, 9), None);
    }

    #[test]
    fn a_disk_that_hung_does_not_make_a_long_wait() {
        let now = Instant::now();
        let mut window = GroupCommitWindow::new(now);
        window.note(now, MS * 3000, 8, 8);
        assert_eq!(window.patience(now, now, 8), Some(MS * 5));
        assert_eq!(window.patience(now, now + MS * 10, 8), None);
    }

    #[test]
    fn a_command_that_comes_later_does_not_wait() {
        let (window, now) = after_a_commit(8, 8);
        let later = now + MS / 4;
        assert_eq!(window.patience(later, later, 1), None);
        let first = GroupCommitWindow::new(now);
        assert_eq!(first.patience(now, now, 1), None);
    }

    #[test]
    fn many_commands_do_not_wait_for_more() {
        let (window, now) = after_a_commit(50, 50);
        assert_eq!(window.patience(now, now, 19), Some(MS / 4));
        assert_eq!(window.patience(now, now, 20), None);
    }
}
