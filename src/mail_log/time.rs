//! The time in front of a line.
//!
//! syslogd writes the local time without a year (RFC 3164), or a whole date with the
//! distance from UTC (RFC 5424, ISO). Lines of one minute have the same head, so a
//! minute is computed once.

use crate::sys::clock;

/// So far in the future the time of a line may lie, in seconds, for clocks that differ.
pub const TOLERANCE: i64 = 86_400;
/// A line without a year is not older.
const MOST_YEARS: i32 = 8;
const MONTHS: &[u8] = b"JanFebMarAprMayJunJulAugSepOctNovDec";

/// Reads the times of the lines of one file.
#[derive(Clone, Debug)]
pub struct Times {
    /// Seconds since 1970 after which nothing was written.
    reference: i64,
    /// The head up to the minute that was seen last, and when this minute began by the
    /// local time, if the head has no distance from UTC.
    minute: Vec<u8>,
    local: Option<i64>,
}

/// A date up to its minute: how many octets it takes, and what it says.
struct Minute {
    length: usize,
    year: Option<i32>,
    month: i32,
    day: i32,
    hour: i32,
    minute: i32,
}

impl Times {
    /// For lines of which the last one was written at `reference`, in seconds since
    /// 1970. A line without a year is of the latest one in which it is no later.
    pub fn new(reference: i64) -> Self {
        Times {
            reference,
            minute: Vec::new(),
            local: None,
        }
    }

    /// The last line was written at this time: a log that grows.
    pub fn set_reference(&mut self, reference: i64) {
        self.reference = reference;
    }

    /// The time of a line in whole seconds since 1970, and what follows it. `None`: it
    /// begins with none.
    pub fn take<'l>(&mut self, line: &'l [u8]) -> Option<(i64, &'l [u8])> {
        let line = without_weekday(line);
        if line.len() > 10 && line[..10].iter().all(u8::is_ascii_digit) {
            return take_number(line);
        }
        let head = minute_of(line)?;
        let end = head.length;
        let second = match *line.get(end..end + 3)? {
            [b':', tens, ones] => i64::from(two_digits(&[tens, ones])?),
            _ => return None,
        };
        let mut rest = without_fraction(&line[end + 3..]);
        let base = match take_zone(rest).filter(|_| head.year.is_some()) {
            Some((ahead, after)) => {
                rest = after;
                seconds_of_utc(&head)? - ahead
            }
            None => self.local_minute(&line[..end], &head)?,
        };
        Some((base + second, rest.strip_prefix(b" ").unwrap_or(rest)))
    }

    fn local_minute(&mut self, text: &[u8], head: &Minute) -> Option<i64> {
        if self.minute != text {
            self.minute.clear();
            self.minute.extend_from_slice(text);
            self.local = self.compute(head).map(|time| self.after_last(time));
        }
        self.local
    }

    /// Of the two times that a local one may be in autumn, the one that fits the minute
    /// before.
    fn after_last(&self, time: i64) -> i64 {
        let local = |time: i64| clock::date_of_seconds(time as f64);
        let is_same = |other: &i64| local(*other) == local(time);
        let first = Some(time - 3600).filter(is_same).unwrap_or(time);
        let second = Some(first + 3600).filter(is_same);
        let has_passed = self.local.is_some_and(|last| first + 1800 < last);
        second.filter(|_| has_passed).unwrap_or(first)
    }

    fn compute(&self, head: &Minute) -> Option<i64> {
        let in_year = |year| {
            let date = [year, head.month, head.day, head.hour, head.minute, 0];
            clock::seconds_of_date(date).map(|time| time as i64)
        };
        if let Some(year) = head.year {
            return in_year(year);
        }
        let latest = 1970 + (self.reference as f64 / (365.2425 * 86_400.0)) as i32 + 1;
        // The 29th of February is in leap years only.
        let is_leap = |year: i32| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        (latest - MOST_YEARS..=latest)
            .rev()
            .filter(|&year| (head.month, head.day) != (2, 29) || is_leap(year))
            .filter_map(in_year)
            .find(|&time| time <= self.reference + TOLERANCE)
    }
}

/// The year stands in none of the two forms of syslog, or in front.
fn minute_of(line: &[u8]) -> Option<Minute> {
    if line.first()?.is_ascii_digit() {
        let date = line.get(..16)?;
        let is_date = matches!(
            *date,
            [
                _,
                _,
                _,
                _,
                b'-',
                _,
                _,
                b'-',
                _,
                _,
                b'T' | b' ',
                _,
                _,
                b':',
                _,
                _
            ]
        );
        let year = two_digits(&date[..2])? * 100 + two_digits(&date[2..4])?;
        let minute = Minute {
            length: 16,
            year: Some(year),
            month: two_digits(&date[5..7])?,
            day: two_digits(&date[8..10])?,
            hour: two_digits(&date[11..13])?,
            minute: two_digits(&date[14..16])?,
        };
        return (is_date && minute.is_possible()).then_some(minute);
    }
    let name = line.get(..3)?;
    let month = MONTHS.chunks_exact(3).position(|month| month == name)?;
    let (day, mut at) = match *line.get(3..7)? {
        [b' ', b' ', ones, b' '] => (two_digits(&[b'0', ones])?, 7),
        [b' ', tens, ones, b' '] => (two_digits(&[tens, ones])?, 7),
        [b' ', ones, b' ', _] => (two_digits(&[b'0', ones])?, 6),
        _ => return None,
    };
    let mut year = None;
    if let [a, b, c, d, b' '] = *line.get(at..at + 5)?
        && let (Some(century), Some(own)) = (two_digits(&[a, b]), two_digits(&[c, d]))
    {
        year = Some(century * 100 + own);
        at += 5;
    }
    let clock = line.get(at..at + 5)?;
    let minute = Minute {
        length: at + 5,
        year,
        month: month as i32 + 1,
        day,
        hour: two_digits(&clock[..2])?,
        minute: two_digits(&clock[3..])?,
    };
    (clock[2] == b':' && minute.is_possible()).then_some(minute)
}

impl Minute {
    fn is_possible(&self) -> bool {
        (1..=12).contains(&self.month)
            && (1..=31).contains(&self.day)
            && self.hour < 24
            && self.minute < 60
    }
}

fn two_digits(text: &[u8]) -> Option<i32> {
    match *text {
        [tens, ones] if tens.is_ascii_digit() && ones.is_ascii_digit() => {
            Some(i32::from(tens - b'0') * 10 + i32::from(ones - b'0'))
        }
        _ => None,
    }
}

/// `Fri ` stands in front of the dates of `journalctl -o short-full`.
fn without_weekday(line: &[u8]) -> &[u8] {
    match *line {
        [a, b, c, b' ', digit, ..]
            if [a, b, c].iter().all(u8::is_ascii_alphabetic) && digit.is_ascii_digit() =>
        {
            // A day of a month is one digit or two, a year has four.
            match line[4..].iter().take_while(|d| d.is_ascii_digit()).count() {
                4 => &line[4..],
                _ => line,
            }
        }
        _ => line,
    }
}

fn without_fraction(text: &[u8]) -> &[u8] {
    match *text {
        [b'.' | b',', digit, ..] if digit.is_ascii_digit() => {
            let digits = text[1..].iter().take_while(|d| d.is_ascii_digit()).count();
            &text[1 + digits..]
        }
        _ => text,
    }
}

/// Seconds that a zone is ahead of UTC, and what follows it.
fn take_zone(text: &[u8]) -> Option<(i64, &[u8])> {
    match *text {
        [b'Z', ref rest @ ..] => return Some((0, rest)),
        [b' ', b'U', b'T', b'C', ref rest @ ..] => return Some((0, rest)),
        _ => {}
    }
    let text = text.strip_prefix(b" ").unwrap_or(text);
    let (sign, rest) = match *text {
        [b'+', ref rest @ ..] => (1, rest),
        [b'-', ref rest @ ..] => (-1, rest),
        _ => return None,
    };
    let hours = two_digits(rest.get(..2)?)?;
    let rest = rest[2..].strip_prefix(b":").unwrap_or(&rest[2..]);
    let minutes = two_digits(rest.get(..2)?)?;
    Some((i64::from(sign * (hours * 3600 + minutes * 60)), &rest[2..]))
}

/// `1700000000.123 `, of `journalctl -o short-unix`.
fn take_number(line: &[u8]) -> Option<(i64, &[u8])> {
    let time = std::str::from_utf8(&line[..10]).ok()?.parse().ok()?;
    let rest = without_fraction(&line[10..]);
    Some((time, rest.strip_prefix(b" ")?))
}

/// Days are counted by the rule of the calendar, since there is no portable
/// call for dates that are not local.
fn seconds_of_utc(date: &Minute) -> Option<i64> {
    let days = clock::days_of_date(date.year?, date.month, date.day);
    Some(days * 86_400 + i64::from(date.hour) * 3600 + i64::from(date.minute) * 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_forms_are_read() {
        let local = |date| clock::seconds_of_date(date).unwrap() as i64;
        let now = local([2024, 3, 1, 12, 0, 0]);
        let mut times = Times::new(now);
        let mut of = |head: &str| {
            let line = format!("{head}mx postgrey[9]: x");
            times.take(line.as_bytes()).map(|(time, rest)| {
                assert_eq!(rest, b"mx postgrey[9]: x", "{head}");
                time
            })
        };
        for (head, date) in [
            ("Mar  1 11:59:10 ", [2024, 3, 1, 11, 59, 10]),
            ("Mar 1 11:59:11 ", [2024, 3, 1, 11, 59, 11]),
            ("Nov 24 02:27:10 ", [2023, 11, 24, 2, 27, 10]),
            ("Feb 29 02:27:10.123 ", [2024, 2, 29, 2, 27, 10]),
            // A clock that is ahead; two days ahead, so of last year.
            ("Mar  2 11:00:00 ", [2024, 3, 2, 11, 0, 0]),
            ("Mar  3 11:00:00 ", [2023, 3, 3, 11, 0, 0]),
            ("Nov 24 2019 02:27:10 ", [2019, 11, 24, 2, 27, 10]),
            ("2023-11-24T02:27:10 ", [2023, 11, 24, 2, 27, 10]),
            ("Fri 2023-11-24 02:27:10 ", [2023, 11, 24, 2, 27, 10]),
        ] {
            assert_eq!(of(head), Some(local(date)), "{head}");
        }
        for head in [
            "2023-11-14T22:15:00Z ",
            "2023-11-14T22:15:00.123456+00:00 ",
            "2023-11-14T23:15:00+01:00 ",
            "2023-11-15T03:45:00+0530 ",
            "2023-11-14T17:15:00-05:00 ",
            "Tue 2023-11-14 22:15:00 UTC ",
            "1700000100.5 ",
            "1700000100 ",
        ] {
            assert_eq!(of(head), Some(1_700_000_100), "{head}");
        }
        for head in [
            "",
            "4A1B: ",
            "Foo 24 02:27:10 ",
            "Nov 24 02:27 ",
            "Nov 24 25:27:10 ",
            "2023-11-24 ",
            "2023-13-24T02:27:10Z ",
            "2023-11-24T02:27:1",
        ] {
            assert_eq!(of(head), None, "{head}");
        }
    }

    #[test]
    fn the_year_goes_over() {
        let local = |date| clock::seconds_of_date(date).unwrap() as i64;
        let mut times = Times::new(local([2026, 1, 2, 6, 25, 0]));
        for (head, date) in [
            ("Dec 31 23:59:59 ", [2025, 12, 31, 23, 59, 59]),
            ("Jan  1 00:00:01 ", [2026, 1, 1, 0, 0, 1]),
        ] {
            assert_eq!(times.take(head.as_bytes()).unwrap().0, local(date));
        }
    }
}
