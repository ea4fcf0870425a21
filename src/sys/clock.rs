//! The clock and the local date.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

/// Microseconds of a clock that is never set, the same for all processes of
/// this machine. 0 where there is none.
pub fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC);
    now.map_or(0, |now| {
        now.tv_sec() as u64 * 1_000_000 + now.tv_nsec() as u64 / 1000
    })
}

/// Seconds since 1970, whole ones, as records have them.
pub fn seconds() -> f64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    since.as_secs() as f64
}

/// Appends the local date as a mail header has it, with the name of the time
/// zone: `Tue, 24 Nov 2026 02:27:10 UTC`.
pub fn push_date(out: &mut Vec<u8>) {
    push_local_time(out, c"%a, %d %b %Y %H:%M:%S %Z");
}

/// Appends the local time as start and stop lines have it:
/// `2026/11/24-02:27:10`.
pub fn push_timestamp(out: &mut Vec<u8>) {
    push_local_time(out, c"%Y/%m/%d-%H:%M:%S");
}

/// Appends the local time with its distance from UTC, as RFC 3339 has it:
/// `2026-11-24T02:27:10+01:00`.
pub fn push_rfc3339(out: &mut Vec<u8>) {
    push_local_time(out, c"%Y-%m-%dT%H:%M:%S%z");
    // The system has no colon there.
    out.insert(out.len().saturating_sub(2), b':');
}

/// Appends a time in seconds since 1970 as the local `2026-11-24 02:27:10`.
pub fn push_time(out: &mut Vec<u8>, time: f64) {
    push_local_time_of(out, time, c"%Y-%m-%d %H:%M:%S");
}

/// Appends a time in seconds since 1970 as syslogd writes it: `Nov 24 02:27:10`.
pub fn push_log_time(out: &mut Vec<u8>, time: f64) {
    push_local_time_of(out, time, c"%b %e %H:%M:%S");
}

/// The time in seconds since 1970 of a local date: year, month and day from 1,
/// hour, minute, second. Days and hours beyond their month or day go on into
/// the next; `None` if the system has no number for it.
pub fn seconds_of_date(date: [i32; 6]) -> Option<f64> {
    let [year, month, day, hour, minute, second] = date;
    // SAFETY: a tm is a plain structure; zeros (and null pointers, where it has
    // any) are a valid value.
    let mut broken_down: libc::tm = unsafe { std::mem::zeroed() };
    broken_down.tm_year = year.checked_sub(1900)?;
    broken_down.tm_mon = month.checked_sub(1)?;
    broken_down.tm_mday = day;
    broken_down.tm_hour = hour;
    broken_down.tm_min = minute;
    broken_down.tm_sec = second;
    // The system knows whether it was summer.
    broken_down.tm_isdst = -1;
    // SAFETY: the pointer is to an initialised tm that outlives the call.
    let time = unsafe { libc::mktime(&raw mut broken_down) };
    (time != -1).then_some(time as f64)
}

/// The local date of a time in seconds since 1970: year, month and day from 1, hour,
/// minute, second.
pub fn date_of_seconds(time: f64) -> [i32; 6] {
    let date = broken_down(time);
    [
        date.tm_year.saturating_add(1900),
        date.tm_mon + 1,
        date.tm_mday,
        date.tm_hour,
        date.tm_min,
        date.tm_sec,
    ]
}

/// Days from 1970-01-01 to a date, by the rule of the calendar.
pub fn days_of_date(year: i32, month: i32, day: i32) -> i64 {
    // Years that begin in March have their leap day at the end.
    let year = i64::from(year) - i64::from(month <= 2);
    let months = i64::from((month + 9) % 12);
    365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (153 * months + 2) / 5
        + i64::from(day)
        - 719_469
}

fn push_local_time(out: &mut Vec<u8>, format: &std::ffi::CStr) {
    push_local_time_of(out, seconds(), format);
}

fn broken_down(time: f64) -> libc::tm {
    let now = time as libc::time_t;
    let mut broken_down = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are valid; a tm of zeros is a valid value should
    // the call fail.
    unsafe {
        libc::localtime_r(&raw const now, broken_down.as_mut_ptr());
        broken_down.assume_init()
    }
}

fn push_local_time_of(out: &mut Vec<u8>, time: f64, format: &std::ffi::CStr) {
    let mut text = [0_u8; 128];
    let broken_down = broken_down(time);
    // SAFETY: the length is that of the buffer, the format ends in NUL and the
    // broken-down time is initialised.
    let length = unsafe {
        libc::strftime(
            text.as_mut_ptr().cast(),
            text.len(),
            format.as_ptr(),
            &raw const broken_down,
        )
    };
    out.extend_from_slice(&text[..length.min(text.len())]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_dates_are_written_and_read() {
        for date in [
            [2026, 11, 24, 2, 27, 10],
            [1970, 1, 3, 0, 0, 0],
            [2038, 2, 1, 12, 0, 0],
        ] {
            let mut text = Vec::new();
            push_time(&mut text, seconds_of_date(date).unwrap());
            let [year, month, day, hour, minute, second] = date;
            let expected =
                format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}");
            assert_eq!(String::from_utf8(text).unwrap(), expected);
            assert_eq!(date_of_seconds(seconds_of_date(date).unwrap()), date);
        }
    }

    #[test]
    fn days_are_counted() {
        for (date, days) in [
            ([1970, 1, 1], 0),
            ([2000, 3, 1], 951_868_800 / 86_400),
            ([2024, 2, 29], 1_709_164_800 / 86_400),
        ] {
            assert_eq!(days_of_date(date[0], date[1], date[2]), days);
        }
    }

    #[test]
    fn dates_have_the_shape_of_mail_headers() {
        let mut out = Vec::new();
        push_date(&mut out);
        let date = String::from_utf8(out).unwrap();
        let shape =
            regex::Regex::new(r"^[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d \S+$");
        assert!(shape.unwrap().is_match(&date), "{date}");
    }
}
