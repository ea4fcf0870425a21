//! Numbers the way the original's language reads and prints them.
//!
//! Times and counts are stored as text, and with `policy_test_time` any text
//! can become a time: `1.5e9`, ` 1000000000 ` or `abc`. Records must come out
//! byte for byte, so text is kept as it came and only its value is computed.

/// The value of a text: leading white space, a sign, digits, a fraction and an
/// exponent count, the rest is ignored; a text without a number is 0.
pub fn number_of_text(text: &[u8]) -> f64 {
    let start = text
        .iter()
        .position(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c))
        .unwrap_or(text.len());
    let text = text.get(start..).unwrap_or_default();
    if let Some(value) = infinity_or_nan(text) {
        return value;
    }
    let mut end = usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let whole = count_digits(text, end);
    end += whole;
    let mut fraction = 0;
    if text.get(end) == Some(&b'.') {
        fraction = count_digits(text, end + 1);
        end += 1 + fraction;
    }
    if whole + fraction == 0 {
        return 0.0;
    }
    if matches!(text.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        let exponent = count_digits(text, end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    text.get(..end)
        .and_then(|number| std::str::from_utf8(number).ok())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0)
}

fn count_digits(text: &[u8], from: usize) -> usize {
    text.iter()
        .skip(from)
        .take_while(|b| b.is_ascii_digit())
        .count()
}

fn infinity_or_nan(text: &[u8]) -> Option<f64> {
    let (sign, word) = match text.first() {
        Some(b'-') => (-1.0, text.get(1..)?),
        Some(b'+') => (1.0, text.get(1..)?),
        _ => (1.0, text),
    };
    let word = word.get(..3)?;
    if word.eq_ignore_ascii_case(b"inf") {
        Some(sign * f64::INFINITY)
    } else if word.eq_ignore_ascii_case(b"nan") {
        Some(f64::NAN)
    } else {
        None
    }
}

/// Appends a number with at most 15 significant digits, whole numbers without
/// a point (`%.15g` of printf).
pub fn push_number(out: &mut Vec<u8>, value: f64) {
    const EXACT: f64 = 1e15;
    if value.trunc() == value && value.abs() < EXACT {
        out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    } else if value.is_nan() {
        out.extend_from_slice(b"NaN");
    } else if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"Inf" } else { b"-Inf" });
    } else {
        out.extend_from_slice(general_format(value).as_bytes());
    }
}

fn general_format(value: f64) -> String {
    let scientific = format!("{value:.14e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |digits: &str| match digits.contains('.') {
        true => digits
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_string(),
        false => digits.to_string(),
    };
    if (-4..15).contains(&exponent) {
        let decimals = usize::try_from(14 - exponent).unwrap_or(0);
        trim(&format!("{value:.decimals$}"))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(value: f64) -> String {
        let mut out = Vec::new();
        push_number(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_read_up_to_the_first_odd_character() {
        for (text, value) in [
            ("1700000000", 1.7e9),
            (" 1000000000 ", 1e9),
            ("1.5e9", 1.5e9),
            ("1e", 1.0),
            ("1e+x", 1.0),
            ("12abc", 12.0),
            ("0x10", 0.0),
            ("-5", -5.0),
            ("+7", 7.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("", 0.0),
            ("abc", 0.0),
            ("-", 0.0),
            (".", 0.0),
        ] {
            assert_eq!(number_of_text(text.as_bytes()), value, "{text:?}");
        }
        assert_eq!(number_of_text(b"Infinity"), f64::INFINITY);
        assert!(number_of_text(b"nan").is_nan());
    }

    #[test]
    fn numbers_are_printed_with_fifteen_digits() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (300.0, "300"),
            (-18.0, "-18"),
            (0.5, "0.5"),
            (1.5e9, "1500000000"),
            (1e15, "1e+15"),
            (1.0 / 3.0, "0.333333333333333"),
            (1e-5, "1e-05"),
            (1234567.25, "1234567.25"),
        ] {
            assert_eq!(printed(value), text);
        }
    }
}
