//! How long a worker lets requests gather before it looks for them.
//!
//! A request that is answered beside others costs a part of what it costs
//! alone: they share being woken, poll(2), and the commit with its flush. When
//! the clients are many and each takes a while from an answer to the next
//! request (behind Postfix milliseconds of SMTP and mail), the worker pauses
//! for a fraction of that while: few notice, and the processor is left to them.

use std::time::{Duration, Instant};

/// The clients are watched for so long before the next decision.
const WINDOW: Duration = Duration::from_millis(100);
/// The part of a client's time from request to request that is waited.
const PART: u32 = 2;
/// A client whose own time is shorter than this part of the time for which its
/// request is in hand waits for the worker, which shall not make it wait longer.
/// No larger part: beside busy clients a worker has requests in hand for longer
/// than it works on them.
const LEAST_PART: u32 = 2;
/// The shortest pause, since poll(2) counts milliseconds, and the longest: no
/// answer comes later by more than this.
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(10);
/// A lull that brings fewer requests together costs more than it saves.
const FEWEST: u32 = 3;

/// The pause between two turns of a worker, by what it saw of its clients.
#[derive(Debug)]
pub struct Lull {
    /// When the present window began.
    since: Instant,
    /// When the last wait was over, or the last turn.
    last: Instant,
    /// Requests read in the window.
    requests: u32,
    /// Those of them whose turn is over.
    counted: u32,
    /// How long they were in the worker's or the writer's hands, added up.
    in_hand: Duration,
    /// What the window before has shown to be right.
    length: Option<Duration>,
}

impl Lull {
    /// Nothing was seen yet: no pause.
    pub fn new(now: Instant) -> Self {
        Lull {
            since: now,
            last: now,
            requests: 0,
            counted: 0,
            in_hand: Duration::ZERO,
            length: None,
        }
    }

    /// The pause before the next turn; `None`: there is none.
    pub fn length(&self) -> Option<Duration> {
        self.length
    }

    /// Notes that a request came.
    pub fn note_request(&mut self) {
        self.requests = self.requests.saturating_add(1);
    }

    /// Notes the end of a turn: its requests took as long as it did.
    pub fn note_turn(&mut self, now: Instant) {
        self.pass(now, self.requests - self.counted);
        self.counted = self.requests;
    }

    /// Notes the end of a wait, during which so many requests were with the
    /// writer.
    pub fn note_wait(&mut self, now: Instant, under_way: usize) {
        self.pass(now, u32::try_from(under_way).unwrap_or(u32::MAX));
    }

    fn pass(&mut self, now: Instant, in_hand: u32) {
        let passed = now.saturating_duration_since(self.last);
        self.in_hand = self.in_hand.saturating_add(passed.saturating_mul(in_hand));
        self.last = now;
    }

    /// Decides anew at the end of a window; `clients` counts those that have
    /// sent something lately.
    pub fn review(&mut self, now: Instant, clients: impl FnOnce() -> usize) {
        let window = now.saturating_duration_since(self.since);
        if window < WINDOW {
            return;
        }
        let interval = window.checked_div(self.requests);
        self.length = interval.and_then(|interval| {
            let cycle = interval.saturating_mul(u32::try_from(clients()).unwrap_or(u32::MAX));
            // A request may have waited for as long as those before it were in
            // hand. What is left is the client's own time.
            let served = self.in_hand / self.requests * 2;
            let absence = cycle.saturating_sub(served);
            let length = (absence / PART).min(LONGEST);
            let waits_for_us = absence <= served / LEAST_PART;
            let pays = !waits_for_us && length >= SHORTEST.max(interval * FEWEST);
            pays.then(|| Duration::from_millis((length + SHORTEST / 2).as_millis() as u64))
        });
        *self = Lull {
            length: self.length,
            ..Lull::new(now)
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The pause after a second in which so many clients sent so many requests
    /// in turns, each of which took so long.
    fn pause(clients: usize, requests: u32, turns: u32, turn: Duration) -> Option<Duration> {
        let start = Instant::now();
        let mut lull = Lull::new(start);
        for number in 1..=turns {
            let awake = start + Duration::from_secs(1) * number / turns - turn;
            lull.note_wait(awake, 0);
            (0..requests / turns).for_each(|_| lull.note_request());
            lull.note_turn(awake + turn);
        }
        lull.review(start + Duration::from_secs(1), || clients);
        lull.length()
    }

    #[test]
    fn many_slow_clients_are_let_gather() {
        // 10 ms from request to request, of which 1 ms is the worker's.
        assert_eq!(pause(20, 2000, 2000, MS / 2), Some(5 * MS));
        assert_eq!(pause(20, 2200, 2200, MS / 2), Some(4 * MS));
        assert_eq!(pause(40, 2000, 2000, MS / 2), Some(LONGEST));
        assert_eq!(pause(100, 2000, 2000, MS / 2), Some(LONGEST));
        assert_eq!(pause(1000, 400, 400, MS), Some(LONGEST));
    }

    #[test]
    fn nobody_waits_for_others_that_do_not_come() {
        let turn = MS / 10;
        assert_eq!(pause(1, 500, 500, turn), None);
        assert_eq!(pause(6, 1000, 1000, turn), None);
        assert_eq!(pause(7, 1000, 1000, turn), Some(3 * MS));
        assert_eq!(pause(1000, 299, 299, turn), None);
        assert_eq!(pause(1000, 300, 300, turn), Some(LONGEST));
        assert_eq!(pause(0, 0, 1, turn), None);
    }

    #[test]
    fn clients_that_ask_again_at_once_are_served_at_once() {
        assert_eq!(pause(16, 20_000, 2000, MS / 10), None);
        assert_eq!(pause(200, 70_000, 1000, MS * 9 / 10), None);
    }

    #[test]
    fn clients_that_wait_for_the_worker_are_not_kept_longer() {
        // A commit of 5 ms serves one half of them, the next the other.
        assert_eq!(pause(200, 20_000, 200, MS * 49 / 10), None);
        assert_eq!(pause(200, 20_000, 200, MS * 34 / 10), None);
        assert_eq!(pause(200, 20_000, 200, MS * 33 / 10), Some(2 * MS));
    }

    #[test]
    fn clients_that_wait_for_the_writer_are_not_kept_longer() {
        let start = Instant::now();
        let mut lull = Lull::new(start);
        for commit in 0..10 {
            (0..100).for_each(|_| lull.note_request());
            lull.note_turn(start + commit * 10 * MS);
            lull.note_wait(start + (commit + 1) * 10 * MS, 100);
        }
        lull.review(start + WINDOW, || 200);
        assert_eq!(lull.length(), None);
    }

    #[test]
    fn each_window_is_judged_by_itself() {
        let start = Instant::now();
        let mut lull = Lull::new(start);
        (0..200).for_each(|_| lull.note_request());
        lull.review(start + WINDOW - MS, || panic!("the window is not over"));
        assert_eq!(lull.length(), None);
        lull.review(start + WINDOW, || 100);
        assert_eq!(lull.length(), Some(LONGEST));
        lull.review(start + WINDOW * 2, || 100);
        assert_eq!(lull.length(), None);
    }
}
