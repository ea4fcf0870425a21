//! A line of a log: whose mail it was about, and when.

use regex::Regex;

use crate::admin::failure::Failure;
use crate::admin::keys::{Lengthy, split_length};
use crate::mail_log::postfix::without_quotes;
use crate::mail_log::request::fields;
use crate::mail_log::{find, postfix};
use crate::policy::request::{Attribute, Request};
use crate::sys::clock;

/// The request that is told by a line of postgrey's or of Postfix, and its time. What copying
/// has left after it does not belong to its last value.
pub fn read(line: &[u8], now: f64) -> Result<(Request, Option<f64>), Failure> {
    let line = line
        .split(|&octet| octet == b'\n')
        .next()
        .unwrap_or_default()
        .trim_ascii_end();
    let request = own_line(line).or_else(|| postfix_line(line)).ok_or_else(|| {
        Failure::error(
            "the line has no client: neither client_address=... nor from NAME[ADDRESS]: ... from=<...> to=<...>",
        )
    })?;
    let time = time_of(line, now);
    Ok((request, time))
}

/// What Postfix sends of a client without a name and a mail without a sender.
pub fn plain_request() -> Request {
    let mut request = Request::default();
    request.set(Attribute::ProtocolState, b"RCPT");
    request.set(Attribute::ClientName, b"unknown");
    request.set(Attribute::Sender, b"");
    request.set(Attribute::Recipient, b"");
    request
}

/// `[QUEUE_ID: ]action=..., client_name=..., client_address=..., sender=...,
/// recipient=...`; what was empty was left out.
fn own_line(line: &[u8]) -> Option<Request> {
    let action = &line[find(line, b"action=")?..];
    let mut request = plain_request();
    if action.starts_with(b"action=pass, reason=tarpit passed,") {
        request.set(Attribute::ProtocolState, b"DATA");
    }
    let [name, address, sender, recipient] = fields(action);
    if !name.is_empty() {
        request.set(Attribute::ClientName, name);
    }
    set_address(&mut request, address);
    request.set(Attribute::Sender, sender);
    request.set(Attribute::Recipient, recipient);
    (!address.is_empty()).then_some(request)
}

/// `...: RCPT from NAME[ADDRESS]: ...; from=<SENDER> to=<RECIPIENT> ...`.
fn postfix_line(line: &[u8]) -> Option<Request> {
    let refused = postfix::refused(line)?;
    let mut request = plain_request();
    if refused.stage == b"DATA" {
        request.set(Attribute::ProtocolState, b"DATA");
    }
    for (attribute, value) in [
        (Attribute::ClientName, refused.client_name),
        (Attribute::ClientAddress, refused.client_address),
        (Attribute::Sender, &*without_quotes(refused.sender)),
        (Attribute::Recipient, &without_quotes(refused.recipient)),
    ] {
        request.set(attribute, value);
    }
    Some(request)
}

/// The client as Postfix has sent it: the original 1.36 of some distributions
/// logs it with a length.
fn set_address(request: &mut Request, text: &[u8]) {
    let whole = |found: &Lengthy| found.length == if found.address.is_ipv4() { 32 } else { 128 };
    match split_length(text).filter(whole) {
        Some(found) => {
            let address = found.address.to_string();
            request.set(Attribute::ClientAddress, address.as_bytes());
        }
        None => request.set(Attribute::ClientAddress, text),
    }
}

/// Dates with a year, as in RFC 3339 and in our own lines; without a zone they
/// are local.
const FULL: &str = r"(\d{4})[-/](\d\d)[-/](\d\d)[T -](\d\d):(\d\d):(\d\d)(?:[.,]\d+)? ?(Z\b|UTC\b|[+-]\d\d:?\d\d\b)?";
/// Those of syslog, mostly without a year.
const SHORT: &str = r"\b(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +(\d\d?) (?:(\d{4}) )?(\d\d):(\d\d):(\d\d)";
const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
/// So far in the future the time of a line may lie, for clocks that differ.
const TOLERANCE: f64 = 86_400.0;
/// A line without a year is not older.
const MOST_YEARS: i32 = 8;

/// When a line was written. The date stands before what is said.
fn time_of(line: &[u8], now: f64) -> Option<f64> {
    let end = [&b"action="[..], b" from "]
        .iter()
        .filter_map(|part| find(line, part))
        .min()?;
    let head = String::from_utf8_lossy(&line[..end]);
    full_time(&head).or_else(|| short_time(&head, now))
}

fn full_time(head: &str) -> Option<f64> {
    let found = Regex::new(FULL).ok()?.captures(head)?;
    let number = |index| found.get(index)?.as_str().parse::<i32>().ok();
    let mut date = [0; 6];
    for (index, part) in date.iter_mut().enumerate() {
        *part = number(index + 1)?;
    }
    match found.get(7).map(|zone| zone.as_str()) {
        None => clock::seconds_of_date(date),
        Some("Z" | "UTC") => seconds_of_utc(date),
        Some(zone) => {
            let (sign, digits) = zone.split_at(1);
            let hours: f64 = digits.get(..2)?.parse().ok()?;
            let minutes: f64 = digits.get(digits.len() - 2..)?.parse().ok()?;
            let ahead = hours * 3600.0 + minutes * 60.0;
            let ahead = if sign == "-" { -ahead } else { ahead };
            Some(seconds_of_utc(date)? - ahead)
        }
    }
}

fn seconds_of_utc([year, month, day, hour, minute, second]: [i32; 6]) -> Option<f64> {
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = clock::days_of_date(year, month, day);
    let seconds = i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second);
    Some((days * 86_400 + seconds) as f64)
}

fn short_time(head: &str, now: f64) -> Option<f64> {
    let found = Regex::new(SHORT).ok()?.captures(head)?;
    let number = |index| found.get(index)?.as_str().parse::<i32>().ok();
    let month = MONTHS.find(found.get(1)?.as_str())? as i32 / 3 + 1;
    let (day, hour, minute, second) = (number(2)?, number(4)?, number(5)?, number(6)?);
    let in_year = |year| clock::seconds_of_date([year, month, day, hour, minute, second]);
    if let Some(year) = number(3) {
        return in_year(year);
    }
    let latest = 1970 + (now / (365.2425 * 86_400.0)) as i32 + 1;
    let years = (latest - MOST_YEARS..=latest).rev();
    // The 29th of February is in leap years only.
    let is_leap = |year: i32| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    years
        .filter(|&year| (month, day) != (2, 29) || is_leap(year))
        .filter_map(in_year)
        .find(|&time| time <= now + TOLERANCE)
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Compares stage, address, name, sender and recipient.
    #[track_caller]
    pub fn assert_is(request: &Request, [state, address, name, sender, recipient]: [&str; 5]) {
        for (attribute, value) in [
            (Attribute::ProtocolState, state),
            (Attribute::ClientAddress, address),
            (Attribute::ClientName, name),
            (Attribute::Sender, sender),
            (Attribute::Recipient, recipient),
        ] {
            let own = String::from_utf8_lossy(request.text(attribute));
            assert_eq!(own, value, "{attribute:?}");
        }
    }

    #[test]
    fn lines_of_both_logs_are_read() {
        for (line, expected) in [
            (
                "Nov 24 02:27:10 mx postgrey[99]: 4A1B: action=greylist, reason=early-retry (20s missing), \
                 client_name=mail.example, client_address=192.0.2.1, sender=a@b, recipient=c@d\n",
                ["RCPT", "192.0.2.1", "mail.example", "a@b", "c@d"],
            ),
            (
                "action=pass, reason=client AWL, client_address=2001:db8::1, recipient=c, sender=x@d",
                ["RCPT", "2001:db8::1", "unknown", "", "c, sender=x@d"],
            ),
            (
                "Nov 24 02:27:10 mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from mail.example[192.0.2.1]: \
                 450 4.2.0 <c@d>: Recipient address rejected: Greylisted, see http://x/help/d.html; \
                 from=<a@b> to=<c@d> proto=ESMTP helo=<mail.example>",
                ["RCPT", "192.0.2.1", "mail.example", "a@b", "c@d"],
            ),
            (
                r#"NOQUEUE: reject: RCPT from u[192.0.2.1]: 450 4.2.0 <c d@e>: Greylisted; from=<"a, b"@c> to=<"c d"@e> proto=ESMTP helo=<x>"#,
                ["RCPT", "192.0.2.1", "u", "a, b@c", "c d@e"],
            ),
            (
                "NOQUEUE: reject: DATA from unknown[2001:db8::1]:4321: 450 4.2.0 <x>; from=<> proto=SMTP",
                ["DATA", "2001:db8::1", "unknown", "", ""],
            ),
            (
                "reject: RCPT from u[192.0.2.1]: 450 no; from=<a b@c> to=<d@e>",
                ["RCPT", "192.0.2.1", "u", "a b@c", "d@e"],
            ),
            (
                "postgrey[9]: action=pass, reason=client AWL, client_name=n, client_address=192.0.2.7/32, sender=a@b, recipient=c@d \t",
                ["RCPT", "192.0.2.7", "n", "a@b", "c@d"],
            ),
            (
                "action=greylist, reason=new, client_name=n, client_address=2001:DB8:0:0:0:0:0:7/128, recipient=c@d \r\n",
                ["RCPT", "2001:db8::7", "n", "", "c@d"],
            ),
            (
                "NOQUEUE: reject: RCPT from u[192.0.2.1]: 450 no; from=<a@c> to=<d@e>  ",
                ["RCPT", "192.0.2.1", "u", "a@c", "d@e"],
            ),
        ] {
            assert_is(&read(line.as_bytes(), 0.0).unwrap().0, expected);
        }
        for line in [
            "",
            "action=pass",
            "connect from u[192.0.2.1]",
            "x from [",
            "from=<a>",
        ] {
            assert!(read(line.as_bytes(), 0.0).is_err(), "{line}");
        }
    }

    #[test]
    fn the_time_of_a_line_is_found() {
        let now = clock::seconds_of_date([2024, 3, 1, 12, 0, 0]).unwrap();
        let local = |date| clock::seconds_of_date(date).unwrap();
        let of = |head: &str| time_of(format!("{head}action=pass").as_bytes(), now);
        for (head, date) in [
            ("Mar  1 11:59:10 mx postgrey[9]: ", [2024, 3, 1, 11, 59, 10]),
            (
                "mail.log.1:Nov 24 02:27:10 mx postgrey[9]: [ID 197553 mail.info] ",
                [2023, 11, 24, 2, 27, 10],
            ),
            (
                "Feb 29 02:27:10.123 mx postgrey[9]: ",
                [2024, 2, 29, 2, 27, 10],
            ),
            // A clock that is ahead; two days ahead, so of last year.
            ("Mar  2 11:00:00 mx postgrey[9]: ", [2024, 3, 2, 11, 0, 0]),
            ("Mar  3 11:00:00 mx postgrey[9]: ", [2023, 3, 3, 11, 0, 0]),
            (
                "Nov 24 2019 02:27:10 mx postgrey: ",
                [2019, 11, 24, 2, 27, 10],
            ),
            (
                "2023-11-24T02:27:10 mx postgrey: ",
                [2023, 11, 24, 2, 27, 10],
            ),
            ("2023/11/24-02:27:10 ", [2023, 11, 24, 2, 27, 10]),
            (
                "Fri 2023-11-24 02:27:10 mx postgrey: ",
                [2023, 11, 24, 2, 27, 10],
            ),
        ] {
            assert_eq!(of(head), Some(local(date)), "{head}");
        }
        for head in [
            "2023-11-14T22:15:00Z mx postgrey: ",
            "2023-11-14T22:15:00.123456+00:00 mx postgrey: ",
            "2023-11-14T23:15:00+01:00 mx postgrey: ",
            "2023-11-15T03:45:00+0530 mx postgrey: ",
            "2023-11-14T17:15:00-05:00 mx postgrey: ",
            "Tue 2023-11-14 22:15:00 UTC mx postgrey: ",
        ] {
            assert_eq!(of(head), Some(1_700_000_100.0), "{head}");
        }
        assert_eq!(
            seconds_of_utc([2024, 2, 29, 0, 0, 0]),
            Some(1_709_164_800.0)
        );
        assert_eq!(seconds_of_utc([2000, 3, 1, 0, 0, 1]), Some(951_868_801.0));
        assert_eq!(seconds_of_utc([1970, 1, 1, 0, 0, 0]), Some(0.0));
        for head in [
            "",
            "4A1B: ",
            "Foo 24 02:27:10 ",
            "2023-11-24 ",
            "2023-13-24T02:27:10Z ",
        ] {
            assert_eq!(of(head), None, "{head}");
        }
        // A date in an address is none of the line.
        assert_eq!(
            time_of(b"from=<x> from u[::1]: to=<2023-11-24T02:27:10@d>", now),
            None
        );
        let line = b"Nov 24 02:27:10 mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from u[::1]: x";
        assert_eq!(time_of(line, now), Some(local([2023, 11, 24, 2, 27, 10])));
    }
}
