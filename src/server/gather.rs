//! How long a worker lets requests gather before it looks for them.
//!
//! A request that is answered beside others costs a part of what it costs
//! alone: they share being woken, poll(2), and the commit with its flush. When
//! the clients are many and each takes a while from an answer to the next
//! request (after Postfix has done milliseconds of SMTP and mail), the worker
//! leaves its connections alone for a fraction of that while: few notice, and
//! the processor is left to them.
//!
//! The delay is decided anew for each window of 100 ms. With `requests` in it
//! from `clients`, each client asks every `cycle = clients * window / requests`.
//! Of that a request is `served` for twice the time it is in hand, on the
//! average (it may have waited as long for those before it); the rest,
//! `absence = cycle - served`, is the client's own. The delay is half of the
//! absence, at most 10 ms, if
//!
//! * `absence > served / 2`: else the clients wait for us and not we for them;
//! * the delay brings at least three requests together
//!   (`delay >= 3 * window / requests`), and is at least 1 ms, which poll(2)
//!   counts in.

use std::time::{Duration, Instant};

const WINDOW: Duration = Duration::from_millis(100);
/// The part of a client's absence that is waited.
const DELAY_PART: u32 = 2;
/// A client with a smaller absence than this part of the time it is served
/// waits for the worker. No larger part: beside busy clients a worker has
/// requests in hand for longer than it works on them.
const LEAST_ABSENCE_PART: u32 = 2;
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(10);
/// A delay that brings fewer requests together costs more than it saves.
const FEWEST: u32 = 3;

/// The delay between two looks at the connections, by what was seen of them.
#[derive(Debug)]
pub struct GatherDelay {
    /// The number of the present window, from 1.
    window: u32,
    /// When it began.
    since: Instant,
    /// When the last wait was over, or the last turn.
    last: Instant,
    /// Requests read in the window.
    requests: u32,
    /// Those of them whose turn is over.
    counted: u32,
    /// Connections they came from.
    clients: u32,
    /// How long they were in the worker's or the writer's hands, added up.
    in_hand: Duration,
    /// What the window before has shown to be right.
    delay: Option<Duration>,
}

impl GatherDelay {
    /// Nothing was seen yet: no delay.
    pub fn new(now: Instant) -> Self {
        GatherDelay {
            window: 1,
            since: now,
            last: now,
            requests: 0,
            counted: 0,
            clients: 0,
            in_hand: Duration::ZERO,
            delay: None,
        }
    }

    /// The delay before the connections are looked at again; `None`: there is
    /// none.
    pub fn delay(&self) -> Option<Duration> {
        self.delay
    }

    /// Notes that a request came from a connection that was last counted in this
    /// window; returns the present one.
    pub fn note_request(&mut self, counted_in: u32) -> u32 {
        self.requests = self.requests.saturating_add(1);
        self.clients += u32::from(counted_in != self.window);
        self.window
    }

    /// Notes the end of a turn: its requests took as long as it did.
    pub fn note_turn(&mut self, now: Instant) {
        self.pass(now, self.requests - self.counted);
        self.counted = self.requests;
    }

    /// Notes the end of a wait, during which so many requests were with the
    /// writer, and decides anew at the end of a window.
    pub fn note_wait(&mut self, now: Instant, under_way: usize) {
        self.pass(now, u32::try_from(under_way).unwrap_or(u32::MAX));
        let window = now.saturating_duration_since(self.since);
        if window >= WINDOW {
            *self = GatherDelay {
                window: self.window.wrapping_add(1),
                delay: self.delay_after(window),
                ..GatherDelay::new(now)
            };
        }
    }

    fn pass(&mut self, now: Instant, in_hand: u32) {
        let passed = now.saturating_duration_since(self.last);
        self.in_hand = self.in_hand.saturating_add(passed.saturating_mul(in_hand));
        self.last = now;
    }

    fn delay_after(&self, window: Duration) -> Option<Duration> {
        let interval = window.checked_div(self.requests)?;
        let cycle = interval.saturating_mul(self.clients);
        let served = self.in_hand / self.requests * 2;
        let absence = cycle.saturating_sub(served);
        let delay = (absence / DELAY_PART).min(LONGEST);
        let waits_for_us = absence <= served / LEAST_ABSENCE_PART;
        let pays = !waits_for_us && delay >= SHORTEST.max(interval * FEWEST);
        // In whole milliseconds, as poll(2) has them.
        pays.then(|| Duration::from_millis((delay + SHORTEST / 2).as_millis() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The delay after a window in which so many clients sent so many requests,
    /// each of which was in hand for so long.
    fn delay(clients: u32, requests: u32, in_hand: Duration) -> Option<Duration> {
        GatherDelay {
            clients,
            requests,
            in_hand: in_hand * requests,
            ..GatherDelay::new(Instant::now())
        }
        .delay_after(WINDOW)
    }

    #[test]
    fn many_slow_clients_are_let_gather() {
        // 10 ms from request to request, of which 1 ms is the worker's.
        assert_eq!(delay(20, 200, MS / 2), Some(5 * MS));
        assert_eq!(delay(20, 220, MS / 2), Some(4 * MS));
        assert_eq!(delay(40, 200, MS / 2), Some(LONGEST));
        assert_eq!(delay(100, 200, MS / 2), Some(LONGEST));
        assert_eq!(delay(1000, 40, MS), Some(LONGEST));
    }

    #[test]
    fn nobody_waits_for_others_that_do_not_come() {
        let turn = MS / 10;
        assert_eq!(delay(1, 50, turn), None);
        assert_eq!(delay(6, 100, turn), None);
        assert_eq!(delay(7, 100, turn), Some(3 * MS));
        assert_eq!(delay(1000, 29, turn), None);
        assert_eq!(delay(1000, 30, turn), Some(LONGEST));
        assert_eq!(delay(0, 0, turn), None);
    }

    #[test]
    fn clients_that_ask_again_at_once_are_served_at_once() {
        assert_eq!(delay(16, 2000, MS / 10), None);
        assert_eq!(delay(200, 7000, MS * 9 / 10), None);
    }

    #[test]
    fn clients_that_wait_for_the_worker_are_not_kept_longer() {
        // A commit of 5 ms serves one half of them, the next the other.
        assert_eq!(delay(200, 2000, MS * 49 / 10), None);
        assert_eq!(delay(200, 2000, MS * 34 / 10), None);
        assert_eq!(delay(200, 2000, MS * 33 / 10), Some(2 * MS));
    }

    #[test]
    fn turns_and_waits_are_added_up() {
        let start = Instant::now();
        let mut gather = GatherDelay::new(start);
        for commit in 0..10 {
            (0..100).for_each(|_| assert_eq!(gather.note_request(0), 1));
            gather.note_turn(start + commit * 10 * MS);
            gather.pass(start + (commit + 1) * 10 * MS, 100);
        }
        assert_eq!(gather.in_hand, 10 * MS * 1000);
        // 200 clients that wait for the writer in turns.
        gather.clients = 200;
        assert_eq!(gather.delay_after(WINDOW), None);
    }

    #[test]
    fn each_window_is_judged_by_itself() {
        let start = Instant::now();
        let mut gather = GatherDelay::new(start);
        (0..200).for_each(|_| {
            gather.note_request(0);
        });
        gather.note_wait(start + WINDOW - MS, 0);
        assert_eq!(gather.delay(), None);
        gather.note_wait(start + WINDOW, 0);
        assert_eq!(gather.delay(), Some(LONGEST));
        assert_eq!(gather.note_request(1), 2);
        gather.note_wait(start + WINDOW * 2, 0);
        assert_eq!(gather.delay(), None);
    }
}
