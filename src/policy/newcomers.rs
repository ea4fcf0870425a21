//! How many new records each client network has had within an hour (`--max-new`).
//!
//! A sender that floods has at most that many triplets in the database from each hour,
//! and as many addresses in the tarpit; what is new beyond is answered as ever and leaves
//! no record. Whoever commits has a table of its own, and counts there what it has
//! committed. What the table has forgotten is recorded as without it.

use std::collections::HashMap;

use super::command::{Addition, Allowance, Command, Outcome};

/// Seconds in which new records are counted together, from the first one on.
const PERIOD: f64 = 3600.0;

/// The table of client networks.
#[derive(Debug)]
pub struct Newcomers {
    limit: u32,
    clients: HashMap<Vec<u8>, Period>,
}

/// What was counted of a client network.
#[derive(Clone, Copy, Debug)]
struct Period {
    begin: f64,
    triplets: u32,
    /// Addresses that have come into the tarpit and are not out of it again.
    tarpit: u32,
    left_out: u64,
}

impl Period {
    /// True if what comes at this time is counted in it. Commands of several workers
    /// may come in another order than their times.
    fn includes(&self, now: f64) -> bool {
        (now - self.begin).abs() < PERIOD
    }
}

impl Newcomers {
    /// Client networks that are counted at a time. If there are more, at least the half
    /// that has had the fewest new triplets is forgotten, so that a flood from few is
    /// not forgotten for many who send a mail each.
    pub const MOST: usize = 4096;

    /// An empty table: so many new records in an hour are made of each.
    pub fn new(limit: u32) -> Self {
        Newcomers {
            limit,
            clients: HashMap::new(),
        }
    }

    /// The limit.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// Says in a command how many new records may still be made of its client.
    pub fn allow(&self, command: &mut Command) {
        let found = self.clients.get(command.allowance.network);
        let present = found.filter(|period| period.includes(command.now.seconds));
        let (triplets, tarpit) = present.map_or((0, 0), |own| (own.triplets, own.tarpit));
        command.allowance = Allowance {
            triplets: self.limit.saturating_sub(triplets),
            tarpit: self.limit.saturating_sub(tarpit),
            ..command.allowance
        };
    }

    /// Counts what became of a command, after its commit. If a record was left out:
    /// how many were, of this client in its present hour.
    pub fn note(&mut self, command: &Command, outcome: &Outcome) -> Option<u64> {
        let network = command.allowance.network;
        let additions = [outcome.triplet, outcome.tarpit];
        let now = command.now.seconds;
        let is_known = |own: &Period| own.includes(now);
        if !self.clients.get(network).is_some_and(is_known) {
            let is_new = |&of: &Addition| matches!(of, Addition::Made | Addition::LeftOut);
            if network.is_empty() || !additions.iter().any(is_new) {
                return None;
            }
            self.make_room(now);
            let new = Period {
                begin: now,
                triplets: 0,
                tarpit: 0,
                left_out: 0,
            };
            self.clients.insert(network.to_vec(), new);
        }
        let own = self.clients.get_mut(network)?;
        for (count, addition) in [&mut own.triplets, &mut own.tarpit]
            .into_iter()
            .zip(additions)
        {
            match addition {
                Addition::Made => *count = count.saturating_add(1),
                Addition::Undone => *count = count.saturating_sub(1),
                Addition::None | Addition::LeftOut => {}
            }
        }
        if !additions.contains(&Addition::LeftOut) {
            return None;
        }
        own.left_out += 1;
        Some(own.left_out)
    }

    /// Forgets hours that are over, and if there is no room yet those with few.
    fn make_room(&mut self, now: f64) {
        if self.clients.len() < Newcomers::MOST {
            return;
        }
        self.clients.retain(|_, own| own.includes(now));
        if self.clients.len() < Newcomers::MOST {
            return;
        }
        let mut counts: Vec<u32> = self.clients.values().map(|own| own.triplets).collect();
        let (_, &mut middle, _) = counts.select_nth_unstable(Newcomers::MOST / 2);
        self.clients.retain(|_, own| own.triplets > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::command::Now;

    fn command(network: &[u8], seconds: f64) -> Command<'_> {
        let mut command = Command {
            now: Now::new(seconds, None),
            triplet: b"t",
            ..Command::PING
        };
        command.allowance.network = network;
        command
    }

    /// A client has new triplets; returns how many were recorded.
    fn send(table: &mut Newcomers, network: &str, seconds: f64, triplets: u32) -> u32 {
        let mut recorded = 0;
        for _ in 0..triplets {
            let mut command = command(network.as_bytes(), seconds);
            table.allow(&mut command);
            let triplet = match command.allowance.triplets {
                0 => Addition::LeftOut,
                _ => Addition::Made,
            };
            recorded += u32::from(triplet == Addition::Made);
            let outcome = Outcome {
                triplet,
                ..Outcome::default()
            };
            table.note(&command, &outcome);
        }
        recorded
    }

    #[test]
    fn an_hour_begins_with_its_first_triplet() {
        let mut table = Newcomers::new(3);
        assert_eq!(send(&mut table, "192.0.2.0", 1000.0, 2), 2);
        assert_eq!(send(&mut table, "192.0.2.0", 4599.0, 5), 1);
        assert_eq!(send(&mut table, "192.0.3.0", 4599.0, 5), 3);
        assert_eq!(send(&mut table, "192.0.2.0", 4600.0, 5), 3);
        // Workers whose clocks were read a moment before, and a clock put back by a day.
        assert_eq!(send(&mut table, "192.0.2.0", 4599.0, 5), 0);
        assert_eq!(send(&mut table, "192.0.2.0", 4600.0 - 86400.0, 5), 3);
        assert_eq!(send(&mut table, "192.0.2.0", f64::NAN, 5), 5);
    }

    #[test]
    fn what_is_left_out_is_counted_by_client_and_hour() {
        let mut table = Newcomers::new(1);
        let mut note = |network: &str, seconds, triplet, tarpit| {
            let outcome = Outcome {
                triplet,
                tarpit,
                ..Outcome::default()
            };
            table.note(&command(network.as_bytes(), seconds), &outcome)
        };
        use Addition::{LeftOut, Made, None as Nothing};
        assert_eq!(note("a", 0.0, Made, Nothing), None);
        assert_eq!(note("a", 1.0, LeftOut, Nothing), Some(1));
        assert_eq!(note("a", 2.0, LeftOut, LeftOut), Some(2));
        assert_eq!(note("a", 2.0, Nothing, LeftOut), Some(3));
        assert_eq!(note("b", 2.0, LeftOut, Nothing), Some(1));
        assert_eq!(note("a", 3600.0, LeftOut, Nothing), Some(1));
        assert_eq!(note("", 3600.0, LeftOut, Nothing), None);
    }

    #[test]
    fn who_leaves_the_tarpit_makes_room_there() {
        let mut table = Newcomers::new(2);
        let mut note = |tarpit| {
            let mut own = command(b"a", 5.0);
            let outcome = Outcome {
                tarpit,
                ..Outcome::default()
            };
            table.note(&own, &outcome);
            table.allow(&mut own);
            (own.allowance.triplets, own.allowance.tarpit)
        };
        assert_eq!(note(Addition::Undone), (2, 2));
        assert_eq!(note(Addition::None), (2, 2));
        assert_eq!(note(Addition::Made), (2, 1));
        assert_eq!(note(Addition::Made), (2, 0));
        assert_eq!(note(Addition::Undone), (2, 1));
        // Who has had nothing new takes no place.
        let outcome = Outcome {
            tarpit: Addition::Undone,
            ..Outcome::default()
        };
        table.note(&command(b"b", 5.0), &outcome);
        assert_eq!(table.clients.len(), 1);
    }

    #[test]
    fn a_flood_is_not_forgotten_for_many_who_send_a_mail() {
        let mut table = Newcomers::new(100);
        assert_eq!(send(&mut table, "flood", 0.0, 1000), 100);
        for number in 0..20_000 {
            // None of them is held back, whether it was forgotten or not.
            let network = format!("network {number}");
            assert_eq!(send(&mut table, &network, 1.0, 2), 2);
            assert!(table.clients.len() <= Newcomers::MOST);
        }
        assert_eq!(send(&mut table, "flood", 2.0, 10), 0);
        // As many floods as there are places: recorded, and never more places.
        for number in 0..2 * Newcomers::MOST {
            send(&mut table, &format!("other {number}"), 3.0, 101);
            assert!(table.clients.len() <= Newcomers::MOST);
        }
        // Hours that are over go first.
        send(&mut table, "later", 3599.0, 100);
        for number in 0..2 * Newcomers::MOST {
            send(&mut table, &format!("new {number}"), 4000.0, 1);
        }
        assert_eq!(send(&mut table, "later", 4000.0, 10), 0);
    }
}
