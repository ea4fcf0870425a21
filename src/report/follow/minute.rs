//! The line of a minute.

use crate::mail_log::head::Head;
use crate::report::tally::{Tally, Terms};
use crate::sys::clock;

/// Beyond so many triplets those that were put off are forgotten, and what comes back of
/// them is not counted as such.
const MOST_TRIPLETS: usize = 200_000;

/// The columns after the time.
pub const HEADING: &str =
    "TIME            REQ    PASS    GREY  TARPIT  WAITED    BACK CLIENTS     AWL";

/// What has come since the last line.
pub struct Minute {
    terms: Terms,
    /// Since the last line.
    recent: Tally,
    /// Since long, to know what comes back.
    all: Tally,
    /// Of what `all` has counted, what was told.
    told: u64,
    /// What was missed.
    missed: Vec<String>,
}

impl Minute {
    /// Nothing has come yet.
    pub fn new(terms: Terms) -> Minute {
        Minute {
            recent: Tally::new(terms.clone()),
            all: Tally::new(terms.clone()),
            terms,
            told: 0,
            missed: Vec::new(),
        }
    }

    /// Counts a line of a log.
    pub fn add(&mut self, head: &Head, log: usize) {
        self.recent.add(head, log);
        self.all.add(head, log);
    }

    /// Remembers what was missed.
    pub fn miss(&mut self, what: String) {
        self.missed.push(what);
    }

    /// The minute is over: nothing more is waited for.
    pub fn settle(&mut self) {
        self.recent.settle(i64::MAX);
    }

    /// The line, for the time at which the minute began.
    pub fn line(&self, began: i64) -> String {
        let mut sums = [0; 3];
        let mut waited = 0;
        for ((action, reason), count) in self.recent.kinds.iter().zip(self.counts()) {
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
        let whitelisted: u64 = self.recent.sums.values().map(|sums| sums.whitelisted).sum();
        let back = self.all.came_back.saturating_sub(self.told);
        let requests: u64 = self.counts().iter().sum();
        let clients = self.recent.clients.count() as u64;
        let [pass, greylist, tarpit] = sums;
        let mut line = time_of(began);
        for number in [
            requests,
            pass,
            greylist,
            tarpit,
            waited,
            back,
            clients,
            whitelisted,
        ] {
            line.push_str(&format!(" {number:>7}"));
        }
        line
    }

    fn counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.recent.kinds.len()];
        for sums in self.recent.sums.values() {
            for (own, count) in counts.iter_mut().zip(&sums.counts) {
                *own += count;
            }
        }
        counts
    }

    /// Why the numbers are not all.
    pub fn incomplete(&self, began: i64) -> Vec<String> {
        let lines = &self.recent.lines;
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
        self.recent = Tally::new(self.terms.clone());
        self.missed.clear();
        self.told = self.all.came_back;
        if self.all.triplets.all.count() > MOST_TRIPLETS {
            self.all = Tally::new(self.terms.clone());
            self.told = 0;
        }
    }
}

/// `11-24 02:27`.
fn time_of(time: i64) -> String {
    let [_, month, day, hour, minute, _] = clock::date_of_seconds(time as f64);
    format!("{month:02}-{day:02} {hour:02}:{minute:02}")
}
