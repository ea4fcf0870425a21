//! The line of a minute.

use crate::mail_log::head::Head;
use crate::report::tally::periods::By;
use crate::report::tally::{Sums, Tally, Terms};
use crate::sys::clock;

/// Beyond so many triplets or clients those that were put off are forgotten, and what
/// comes back of them is not counted as such.
const MOST_KNOWN: usize = 200_000;

/// The columns after the time.
pub const HEADING: &str =
    "TIME            REQ    PASS    GREY  TARPIT  WAITED    BACK CLIENTS     AWL";

/// What has come since the last line.
pub struct Minute {
    terms: Terms,
    /// Its periods are those between lines; who was put off is known for longer, to know
    /// what comes back.
    tally: Tally,
    /// What was missed.
    missed: Vec<String>,
}

impl Minute {
    /// Nothing has come yet.
    pub fn new(terms: Terms) -> Minute {
        let terms = Terms {
            by: By::Turn,
            ..terms
        };
        Minute {
            tally: Tally::new(terms.clone()),
            terms,
            missed: Vec::new(),
        }
    }

    /// Counts a line of a log.
    pub fn add(&mut self, head: &Head, log: usize) {
        self.tally.add(head, log);
    }

    /// Remembers what was missed.
    pub fn miss(&mut self, what: String) {
        if !self.missed.contains(&what) {
            self.missed.push(what);
        }
    }

    /// Nothing more is waited for that may have come before `now`.
    pub fn settle(&mut self, now: i64) {
        self.tally.settle(now);
    }

    /// The line, for the time at which the minute began.
    pub fn line(&self, began: i64) -> String {
        let mut sums = [0; 3];
        let mut waited = 0;
        let Sums {
            counts,
            clients,
            whitelisted,
            ..
        } = self.tally.sums.values().next().cloned().unwrap_or_default();
        for ((action, reason), count) in self.tally.kinds.iter().zip(&counts) {
            match action.as_str() {
                "pass" => sums[0] += count,
                "greylist" => sums[1] += count,
                "tarpit" => sums[2] += count,
                _ => {}
            }
            if reason == "tarpit passed" {
                waited += count;
            }
        }
        let requests: u64 = counts.iter().sum();
        let [pass, greylist, tarpit] = sums;
        let mut line = time_of(began);
        for number in [
            requests,
            pass,
            greylist,
            tarpit,
            waited,
            self.tally.came_back,
            clients,
            whitelisted,
        ] {
            line.push_str(&format!(" {number:>7}"));
        }
        line
    }

    /// Why the numbers are not all.
    pub fn incomplete(&self, began: i64) -> Vec<String> {
        let lines = &self.tally.lines;
        let mut all = self.missed.clone();
        for (count, what) in [
            (lines.lost, "lines were lost by the system's log"),
            (lines.untimed, "lines have no time"),
            (lines.unknown, "lines could not be understood"),
        ] {
            if count > 0 {
                all.push(format!("{count} {what}"));
            }
        }
        let time = time_of(began);
        all.iter()
            .map(|what| format!("{time} incomplete: {what}"))
            .collect()
    }

    /// Begins anew.
    pub fn restart(&mut self) {
        self.missed.clear();
        self.tally.next_turn();
        let known = self
            .tally
            .triplets
            .all
            .count()
            .max(self.tally.clients.count());
        if known > MOST_KNOWN {
            self.tally = Tally::new(self.terms.clone());
        }
    }
}

/// `11-24 02:27`.
fn time_of(time: i64) -> String {
    let [_, month, day, hour, minute, _] = clock::date_of_seconds(time as f64);
    format!("{month:02}-{day:02} {hour:02}:{minute:02}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail_log::head::Program;
    use crate::policy::decide::Whitelists;
    use crate::policy::pool::Pools;
    use crate::policy::rules::Rules;

    #[test]
    fn more_clients_than_some_are_forgotten() {
        let rules = Rules::default();
        let mut minute = Minute::new(Terms {
            by: By::Day,
            lists: Whitelists::new(rules.compat),
            rules,
            pools: Pools::default(),
            greylist_text: regex::bytes::Regex::new("Greylisted").unwrap(),
        });
        let pass = |minute: &mut Minute, client: usize| {
            let message = format!("action=pass, reason=client AWL, client_address={client}");
            let head = Head {
                time: Some(1_800_000_000),
                program: Program::Postgrey,
                message: message.as_bytes(),
            };
            minute.add(&head, 0);
        };
        for client in 0..=MOST_KNOWN {
            pass(&mut minute, client);
        }
        let line = minute.line(0);
        assert!(line.ends_with("  200001       0"), "{line}");
        minute.restart();
        assert_eq!(minute.tally.clients.count(), 0);
        pass(&mut minute, 7);
        minute.restart();
        assert_eq!(minute.tally.clients.count(), 1);
    }
}
