//! The mails that were held in the tarpit (`--tarpit-per-message`): who of their
//! senders is still there has waited, and their further recipients pass.
//!
//! Postfix asks for all recipients of a mail under the same `instance`, and under
//! a new one for each mail and session: whoever hangs up is not found here. All workers
//! share one table. A place of it is one atomic cell, so that it can lie in
//! shared memory and a process killed at any point leaves it usable. What the
//! table has forgotten is greylisted as without it.

use std::sync::atomic::{AtomicU64, Ordering};

use sha1::{Digest, Sha1};

use super::command::{Now, Verdict};
use super::decide::{Decision, Policy};
use super::request::{Attribute, Request};

/// Seconds for which a mail is remembered.
const REMEMBERED: u64 = 3600;
/// Places a mail may have: those of the group that its hash names.
const GROUP: usize = 16;
/// Bits of a cell that hold the time in seconds, without what is above them: 12
/// days. The others are those of the hash.
const TIME_BITS: u32 = 20;
const TIME: u64 = (1 << TIME_BITS) - 1;

/// The table of mails. A cell is 0 as long as it was never used.
#[derive(Clone, Copy, Debug)]
pub struct Held<'c> {
    cells: &'c [AtomicU64],
}

/// A mail as the table knows it: a hash of its instance and its client.
#[derive(Clone, Copy, Debug)]
struct Mail(u64);

impl Mail {
    /// `None` if nothing tells it from others.
    fn of(request: &Request) -> Option<Mail> {
        let instance = request.get(Attribute::Instance)?;
        if instance.is_empty() {
            return None;
        }
        let mut hash = Sha1::new();
        hash.update(instance);
        // Several hosts may ask, and no attribute holds a line end.
        hash.update(b"\n");
        hash.update(request.text(Attribute::ClientAddress));
        let octets = hash.finalize();
        let octets = octets.iter().take(8);
        Some(Mail(
            octets.fold(0, |hash, &octet| hash << 8 | u64::from(octet)),
        ))
    }

    /// The cell of this mail when it was held at this time.
    fn cell(self, now: u64) -> u64 {
        self.0 & !TIME | now & TIME
    }

    fn is_in(self, cell: u64) -> bool {
        cell & !TIME == self.0 & !TIME
    }
}

/// Seconds that a cell is old. One of a clock that was put back is very old.
fn age(cell: u64, now: u64) -> u64 {
    now.wrapping_sub(cell) & TIME
}

impl<'c> Held<'c> {
    /// The number of cells the table takes: 16 for each of 2048 groups. With ten
    /// thousand mails at a time one in some ten thousand is forgotten early.
    pub const CELLS: usize = 2048 * GROUP;

    /// A table in these cells, which begin as 0.
    pub fn new(cells: &'c [AtomicU64; Held::CELLS]) -> Self {
        Held { cells }
    }

    fn group(&self, mail: Mail) -> &'c [AtomicU64] {
        let groups = self.cells.chunks_exact(GROUP);
        // Bits that the cell does not hold.
        let number = (mail.0 & TIME) as usize % groups.len().max(1);
        self.cells
            .get(number * GROUP..)
            .map_or(&[], |rest| &rest[..GROUP])
    }

    fn has(&self, mail: Mail, now: u64) -> bool {
        self.group(mail).iter().any(|cell| {
            let cell = cell.load(Ordering::Relaxed);
            mail.is_in(cell) && age(cell, now) <= REMEMBERED
        })
    }

    /// Remembers a mail, in the place of the oldest of its group if none is free.
    fn add(&self, mail: Mail, now: u64) {
        let group = self.group(mail);
        // Another process may take the place meanwhile; then the next best.
        for _ in 0..GROUP {
            let ages = group.iter().map(|place| {
                let cell = place.load(Ordering::Relaxed);
                let age = if cell == 0 { u64::MAX } else { age(cell, now) };
                (age, cell, place)
            });
            let Some((_, cell, place)) = ages.max_by_key(|(age, ..)| *age) else {
                return;
            };
            let relaxed = Ordering::Relaxed;
            let new = mail.cell(now);
            if place.compare_exchange(cell, new, relaxed, relaxed).is_ok() {
                return;
            }
        }
    }
}

impl Policy {
    /// What becomes of a decision by the table of held mails: with
    /// `--tarpit-per-message` a mail is held once, and recipients that come after
    /// that, and would be held or greylisted, pass. `clock` is the time in seconds,
    /// replaced by the request's `policy_test_time` if there is one.
    pub fn settle(
        &self,
        request: &Request,
        decision: Decision,
        held: Held,
        clock: f64,
    ) -> Decision {
        let Decision::Stored(outcome) = decision else {
            return decision;
        };
        let is_held_back = matches!(outcome.verdict, Verdict::Tarpit | Verdict::Greylist { .. });
        if !self.rules.holds_mails_once() || !is_held_back {
            return decision;
        }
        let Some(mail) = Mail::of(request) else {
            return decision;
        };
        let now = Now::new(clock, request.get(Attribute::PolicyTestTime)).seconds as u64;
        if held.has(mail, now) {
            return Decision::HeldBefore(outcome);
        }
        if outcome.verdict == Verdict::Tarpit {
            held.add(mail, now);
        }
        decision
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cells() -> Box<[AtomicU64; Held::CELLS]> {
        let cells: Vec<AtomicU64> = (0..Held::CELLS).map(|_| AtomicU64::new(0)).collect();
        cells.try_into().unwrap()
    }

    fn mail(instance: &str, address: &str) -> Option<Mail> {
        let mut request = Request::default();
        request.set(Attribute::Instance, instance.as_bytes());
        request.set(Attribute::ClientAddress, address.as_bytes());
        Mail::of(&request)
    }

    #[test]
    fn a_mail_is_known_by_its_instance_and_its_client() {
        let cells = cells();
        let held = Held::new(&cells);
        let now = 1_700_000_000;
        let own = mail("1a2b.3.0", "192.0.2.1").unwrap();
        assert!(!held.has(own, now));
        held.add(own, now);
        assert!(held.has(own, now));
        assert!(held.has(mail("1a2b.3.0", "192.0.2.1").unwrap(), now));
        for (instance, address) in [("1a2b.3.1", "192.0.2.1"), ("1a2b.3.0", "192.0.2.2")] {
            assert!(!held.has(mail(instance, address).unwrap(), now));
        }
        assert!(mail("", "192.0.2.1").is_none());
        assert!(Mail::of(&Request::default()).is_none());
    }

    #[test]
    fn it_is_forgotten_after_an_hour() {
        let own = mail("a", "192.0.2.1").unwrap();
        // Around the end of what a cell can hold, too.
        for start in [
            0,
            1_700_000_000,
            (1 << TIME_BITS) - 100,
            (5 << TIME_BITS) - 1,
        ] {
            let cells = cells();
            let held = Held::new(&cells);
            held.add(own, start);
            for (after, is_known) in [(0, true), (3600, true), (3601, false), (86400, false)] {
                assert_eq!(held.has(own, start + after), is_known, "{start} {after}");
            }
            // A clock put back: as without the table.
            assert!(start == 0 || !held.has(own, start - 1));
        }
    }

    #[test]
    fn ten_thousand_at_a_time_are_remembered() {
        let cells = cells();
        let held = Held::new(&cells);
        let all: Vec<Mail> = (0..10_000)
            .map(|n| mail(&format!("1a2b.{n:x}.0"), "192.0.2.1").unwrap())
            .collect();
        // The table is full of older ones.
        for n in 0..200_000u64 {
            let older = mail(&format!("9f.{n:x}.0"), "192.0.2.9").unwrap();
            held.add(older, 1_700_000_000 - 200 + n / 1000);
        }
        for (n, &mail) in all.iter().enumerate() {
            held.add(mail, 1_700_000_000 + n as u64 / 100);
        }
        let known = all.iter().filter(|&&mail| held.has(mail, 1_700_000_125));
        let lost = all.len() - known.count();
        assert!(lost <= 10, "{lost}");
    }

    #[test]
    fn processes_that_add_at_once_lose_nothing() {
        let cells = cells();
        let held = Held::new(&cells);
        // All of one group, as many as it holds.
        let of_group: Vec<Mail> = (0..GROUP as u64)
            .map(|n| Mail((n + 1) << TIME_BITS))
            .collect();
        std::thread::scope(|scope| {
            for half in of_group.chunks(GROUP / 4) {
                scope.spawn(move || half.iter().for_each(|&mail| held.add(mail, 1_700_000_000)));
            }
        });
        assert!(of_group.iter().all(|&mail| held.has(mail, 1_700_000_000)));
        // One more takes the place of one.
        held.add(Mail(99 << TIME_BITS), 1_700_000_001);
        let left = of_group
            .iter()
            .filter(|&&mail| held.has(mail, 1_700_000_001));
        assert_eq!(left.count(), GROUP - 1);
        assert!(held.has(Mail(99 << TIME_BITS), 1_700_000_001));
    }
}
