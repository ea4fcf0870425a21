//! Hours, days and weeks of the local time.

use crate::sys::clock;

/// How long a period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// From 0 minutes to 59.
    Hour,
    /// From midnight to midnight.
    Day,
    /// From Monday to Sunday.
    Week,
    /// As long as whoever counts says, see [`Periods::next`].
    Turn,
}

impl By {
    /// Those of the calendar, by name.
    pub const ALL: [(&'static str, By); 3] =
        [("hour", By::Hour), ("day", By::Day), ("week", By::Week)];

    /// Its name.
    pub fn name(self) -> &'static str {
        By::ALL
            .iter()
            .find(|(_, by)| *by == self)
            .map_or("", |(name, _)| name)
    }
}

/// Tells to which period a time belongs.
#[derive(Clone, Debug)]
pub struct Periods {
    by: By,
    /// The last answer: the quarter of an hour since 1970, and its period. Zones are
    /// whole quarters away from UTC.
    last: (i64, u32),
    /// The number of the present turn.
    turn: u32,
}

impl Periods {
    /// Periods of this length.
    pub fn new(by: By) -> Self {
        Periods {
            by,
            last: (i64::MIN, 0),
            turn: 1,
        }
    }

    /// Begins the next one of [`By::Turn`].
    pub fn next(&mut self) {
        self.turn += 1;
    }

    /// The number of the period of a time in seconds since 1970: hours, days or weeks
    /// of the local calendar since then.
    pub fn number(&mut self, time: i64) -> u32 {
        if self.by == By::Turn {
            return self.turn;
        }
        let quarter = time.div_euclid(900);
        if self.last.0 != quarter {
            let [year, month, day, hour, ..] = clock::date_of_seconds(time as f64);
            let days = clock::days_of_date(year, month, day);
            let number = match self.by {
                By::Hour => days * 24 + i64::from(hour),
                By::Day | By::Turn => days,
                // The first day of 1970 was a Thursday.
                By::Week => (days + 3).div_euclid(7),
            };
            self.last = (quarter, u32::try_from(number).unwrap_or_default());
        }
        self.last.1
    }

    /// When a period begins, in seconds since 1970, and what it is called.
    pub fn start(&self, number: u32) -> (i64, String) {
        let number = i64::from(number);
        let (days, hour) = match self.by {
            By::Hour => (number / 24, number % 24),
            By::Day | By::Turn => (number, 0),
            By::Week => (number * 7 - 3, 0),
        };
        // The system carries days beyond a month over. Every day has a noon, and not every
        // one a midnight.
        let at = |hour| clock::seconds_of_date([1970, 1, 1 + days as i32, hour, 0, 0]);
        let noon = at(12).unwrap_or_default();
        let [year, month, day, ..] = clock::date_of_seconds(noon);
        let time = at(hour as i32).unwrap_or(noon);
        let date = format!("{year:04}-{month:02}-{day:02}");
        let label = match self.by {
            By::Hour => format!("{date} {hour:02}h"),
            By::Day | By::Week | By::Turn => date,
        };
        (time as i64, label)
    }
}

/// In which periods something was seen, as far back as 32 of them: enough for logs of
/// several machines whose lines are not in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    last: u32,
    before: u32,
}

impl Seen {
    /// True if it was not seen in this period yet.
    pub fn is_new(&mut self, period: u32) -> bool {
        if period > self.last {
            let distance = period - self.last;
            self.before = match distance {
                1..=32 if self.last > 0 => {
                    (self.before.checked_shl(distance).unwrap_or(0)) | 1 << (distance - 1)
                }
                _ => 0,
            };
            self.last = period;
            return true;
        }
        let distance = self.last - period;
        match distance {
            0 => false,
            1..=32 => {
                let bit = 1 << (distance - 1);
                let is_new = self.before & bit == 0;
                self.before |= bit;
                is_new
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_begin_by_the_local_calendar() {
        for (by, date, label) in [
            (By::Hour, [2026, 11, 24, 2, 59, 59], "2026-11-24 02h"),
            (By::Day, [2026, 11, 24, 23, 59, 59], "2026-11-24"),
            // A Tuesday, and the Monday before it.
            (By::Week, [2026, 11, 24, 2, 0, 0], "2026-11-23"),
            (By::Week, [2026, 11, 23, 0, 0, 0], "2026-11-23"),
            (By::Week, [2026, 11, 22, 23, 59, 59], "2026-11-16"),
        ] {
            let time = clock::seconds_of_date(date).unwrap() as i64;
            let mut periods = Periods::new(by);
            let number = periods.number(time);
            let (start, name) = periods.start(number);
            assert_eq!(name, label);
            assert!(start <= time && periods.number(start) == number);
        }
    }

    #[test]
    fn each_period_counts_once_in_whatever_order() {
        let mut seen = Seen::default();
        let mut told = Vec::new();
        for period in [100, 100, 101, 100, 99, 99, 133, 101, 102, 102, 60] {
            told.push(seen.is_new(period));
        }
        let expected = [
            true, false, true, false, true, false, true, false, true, false, false,
        ];
        assert_eq!(told, expected);
    }
}
