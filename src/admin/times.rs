//! Times as administrators write and read them.

use crate::policy::number::push_number;
use crate::sys::clock;

/// A time as a local date.
pub fn shown(time: f64) -> String {
    let mut text = Vec::new();
    // What lies beyond the year 9999 is some mistake; it is shown as it is.
    if (-6e10..2.5e11).contains(&time) {
        clock::push_time(&mut text, time);
    } else {
        push_number(&mut text, time);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// A time: seconds since 1970, a local date (`2026-11-24`, `2026-11-24 02:27`
/// or `2026-11-24T02:27:10`), or so long before (`2h`, `-2h`) or after (`+10m`)
/// now, in s, m, h, d or w. `None`: it is none of these.
pub fn parse(text: &[u8], now: f64) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if text == "now" {
        return Some(now);
    }
    if let Some(span) = parse_span(text.trim_start_matches(['+', '-'])) {
        let is_later = text.starts_with('+');
        return Some(if is_later { now + span } else { now - span });
    }
    if !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_digit()) {
        return text.parse().ok();
    }
    parse_date(text)
}

fn parse_span(text: &str) -> Option<f64> {
    let unit = match text.as_bytes().last()? {
        b's' => 1.0,
        b'm' => 60.0,
        b'h' => 3600.0,
        b'd' => 86400.0,
        b'w' => 7.0 * 86400.0,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let is_number = !number.is_empty() && number.bytes().all(|octet| octet.is_ascii_digit());
    is_number
        .then(|| number.parse::<f64>().ok())?
        .map(|number| number * unit)
}

fn parse_date(text: &str) -> Option<f64> {
    let (date, time) = text.split_once([' ', 'T']).unwrap_or((text, "0:0"));
    let mut numbers = [0; 6];
    let parts: Vec<&str> = date.split('-').collect();
    let clock: Vec<&str> = time.split(':').collect();
    if parts.len() != 3 || !(2..=3).contains(&clock.len()) || parts[0].len() != 4 {
        return None;
    }
    let limits = [9999, 12, 31, 23, 59, 60];
    for (index, part) in parts.iter().chain(&clock).enumerate() {
        let is_digits = (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        let number: i32 = is_digits.then(|| part.parse().ok())??;
        let least = i32::from(matches!(index, 1 | 2));
        if !(least..=limits[index]).contains(&number) {
            return None;
        }
        numbers[index] = number;
    }
    clock::seconds_of_date(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_spans_and_dates() {
        let now = 1.7e9;
        for (text, time) in [
            ("now", now),
            ("1600000000", 1.6e9),
            ("2h", now - 7200.0),
            ("-3d", now - 3.0 * 86400.0),
            ("+10m", now + 600.0),
            ("1w", now - 604_800.0),
        ] {
            assert_eq!(parse(text.as_bytes(), now), Some(time), "{text}");
        }
        let date = parse(b"2026-11-24 02:27:10", now).unwrap();
        assert_eq!(shown(date), "2026-11-24 02:27:10");
        assert_eq!(parse(b"2026-11-24T02:27", now), Some(date - 10.0));
        assert_eq!(
            shown(parse(b"2026-11-24", now).unwrap()),
            "2026-11-24 00:00:00"
        );
        for text in [
            "",
            "x",
            "h",
            "2x",
            "2026-11",
            "26-11-24",
            "2026-13-01",
            "2026-11-24 25:00",
            "+",
        ] {
            assert_eq!(parse(text.as_bytes(), now), None, "{text}");
        }
        assert_eq!(shown(1e300), "1e+300");
    }
}
