//! Octets as printable text and back, as `db_dump -p` writes them: `\\` is a
//! backslash, `\hh` an octet that does not print.

/// Appends octets as printable text.
pub fn push_escaped(out: &mut Vec<u8>, octets: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for &octet in octets {
        match octet {
            b'\\' => out.extend_from_slice(b"\\\\"),
            b' '..=b'~' => out.push(octet),
            _ => out.extend_from_slice(&[
                b'\\',
                DIGITS[usize::from(octet >> 4)],
                DIGITS[usize::from(octet & 15)],
            ]),
        }
    }
}

/// Octets as printable text.
pub fn escaped(octets: &[u8]) -> String {
    let mut out = Vec::with_capacity(octets.len());
    push_escaped(&mut out, octets);
    // All of it is ASCII.
    out.into_iter().map(char::from).collect()
}

/// The octets that such a text stands for. Octets that do not print are taken
/// as they are; upper-case digits too.
///
/// # Errors
///
/// A backslash that is followed by neither a backslash nor two digits.
pub fn unescape(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'\\' {
            out.push(first);
            continue;
        }
        match *rest {
            [b'\\', ref tail @ ..] => {
                out.push(b'\\');
                rest = tail;
            }
            [high, low, ref tail @ ..] => {
                out.push(octet(high, low).ok_or("a backslash without two hexadecimal digits")?);
                rest = tail;
            }
            _ => return Err("a backslash without two hexadecimal digits"),
        }
    }
    Ok(out)
}

/// The octets of a text of hexadecimal digits.
///
/// # Errors
///
/// An odd number of digits, or something else between them.
pub fn unhex(text: &[u8]) -> Result<Vec<u8>, &'static str> {
    text.chunks(2)
        .map(|pair| match *pair {
            [high, low] => octet(high, low).ok_or("not a hexadecimal digit"),
            _ => Err("an odd number of hexadecimal digits"),
        })
        .collect()
}

fn octet(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_octet_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(unescape(escaped(&all).as_bytes()), Ok(all.clone()));
        assert_eq!(escaped(b"a\\\xfc\n~"), "a\\\\\\fc\\0a~");
        let hex: String = all.iter().map(|octet| format!("{octet:02X}")).collect();
        assert_eq!(unhex(hex.as_bytes()), Ok(all));
    }

    #[test]
    fn what_is_no_escaped_text_is_refused() {
        for text in ["\\", "a\\4", "\\zz", "\\4\\"] {
            assert!(unescape(text.as_bytes()).is_err(), "{text}");
        }
        assert!(unhex(b"4").is_err() && unhex(b"4g").is_err());
    }
}
