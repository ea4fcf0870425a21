//! Commands and replies as octets (RESP, version 2).
//!
//! The end of a reply is looked for here, before the crate parses it, for two
//! reasons: a reply comes in pieces, and a server that promises gigabytes is to
//! be left before anything is kept for them.

use redis::{Cmd, Value, parse_redis_value};

/// Octets of the largest reply. A SCAN of some thousand keys has a tenth of it.
pub const MOST_OCTETS: usize = 4 << 20;
/// Values in the largest reply.
const MOST_VALUES: usize = 100_000;
/// Octets of a line: a number, a status or an error.
const LONGEST_LINE: usize = 16 << 10;

/// A command as it is sent.
pub fn pack(words: &[&[u8]]) -> Vec<u8> {
    let mut command = Cmd::new();
    for word in words {
        command.arg(*word);
    }
    command.get_packed_command()
}

/// What came is no reply of Redis, or too large for one.
#[derive(Debug, PartialEq, Eq)]
pub struct Garbage;

/// The octets that have come, and the replies in them.
#[derive(Default)]
pub struct Replies {
    octets: Vec<u8>,
    /// Where the next reply begins.
    start: usize,
    /// Up to where it is known to be one.
    scanned: usize,
    /// Values that it needs from there on; 0 if it is not begun.
    missing: usize,
    /// Values that it has in all.
    values: usize,
}

impl Replies {
    /// Where further octets go: at the end.
    pub fn octets(&mut self) -> &mut Vec<u8> {
        &mut self.octets
    }

    /// True if everything that came has been taken.
    pub fn is_empty(&self) -> bool {
        self.start == self.octets.len()
    }

    /// The next whole reply, if it has come.
    pub fn take(&mut self) -> Result<Option<Value>, Garbage> {
        if self.is_empty() {
            return Ok(None);
        }
        if self.missing == 0 {
            (self.missing, self.values) = (1, 1);
        }
        while self.missing > 0 {
            let Some(next) = self.value_end()? else {
                return Ok(None);
            };
            self.scanned = next;
        }
        let value = parse_redis_value(&self.octets[self.start..self.scanned]);
        self.start = self.scanned;
        if self.start == self.octets.len() || self.start > (64 << 10) {
            self.octets.drain(..self.start);
            (self.start, self.scanned) = (0, 0);
        }
        value.map(Some).map_err(|_| Garbage)
    }

    /// The end of the value at `scanned`, for an array of its head.
    fn value_end(&mut self) -> Result<Option<usize>, Garbage> {
        let rest = &self.octets[self.scanned..];
        if !matches!(rest.first(), None | Some(b'+' | b'-' | b':' | b'$' | b'*')) {
            return Err(Garbage);
        }
        let Some(end) = memchr::memchr(b'\n', rest) else {
            return match rest.len() > LONGEST_LINE {
                true => Err(Garbage),
                false => Ok(None),
            };
        };
        let line = rest[1..end].strip_suffix(b"\r").ok_or(Garbage)?;
        let mut length = end + 1;
        match rest[0] {
            b'$' => {
                if let Some(octets) = count(line)? {
                    length += octets + 2;
                }
            }
            b'*' => {
                let inner = count(line)?.unwrap_or(0);
                self.values = self.values.saturating_add(inner);
                if self.values > MOST_VALUES {
                    return Err(Garbage);
                }
                self.missing += inner;
            }
            b':' => {
                number(line)?;
            }
            _ => {}
        }
        if self.scanned - self.start + length > MOST_OCTETS {
            return Err(Garbage);
        }
        if rest.len() < length {
            // An array is never here: its head has come.
            return Ok(None);
        }
        if rest[0] == b'$' && !rest[..length].ends_with(b"\r\n") {
            return Err(Garbage);
        }
        self.missing -= 1;
        Ok(Some(self.scanned + length))
    }
}

fn number(line: &[u8]) -> Result<i64, Garbage> {
    let text = std::str::from_utf8(line).map_err(|_| Garbage)?;
    text.parse().map_err(|_| Garbage)
}

/// A length; `None` for -1, which says that there is nothing.
fn count(line: &[u8]) -> Result<Option<usize>, Garbage> {
    match number(line)? {
        -1 => Ok(None),
        number => usize::try_from(number)
            .ok()
            .filter(|&number| number <= MOST_OCTETS)
            .map(Some)
            .ok_or(Garbage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(octets: &[u8], piece: usize) -> Result<Vec<Value>, Garbage> {
        let mut replies = Replies::default();
        let mut found = Vec::new();
        for piece in octets.chunks(piece) {
            replies.octets().extend_from_slice(piece);
            while let Some(value) = replies.take()? {
                found.push(value);
            }
        }
        Ok(found)
    }

    #[test]
    fn replies_come_in_pieces_of_any_size() {
        let octets = b"+OK\r\n:-7\r\n$-1\r\n$0\r\n\r\n$4\r\na\r\nb\r\n*-1\r\n*0\r\n\
                       *3\r\n$1\r\nx\r\n*1\r\n:1\r\n$-1\r\n-MOVED 1 a:1\r\n";
        let bulk = |text: &str| Value::BulkString(text.into());
        let whole = all(octets, octets.len()).unwrap();
        assert_eq!(
            whole[..8],
            [
                Value::Okay,
                Value::Int(-7),
                Value::Nil,
                bulk(""),
                bulk("a\r\nb"),
                Value::Nil,
                Value::Array(Vec::new()),
                Value::Array(vec![
                    bulk("x"),
                    Value::Array(vec![Value::Int(1)]),
                    Value::Nil
                ]),
            ]
        );
        assert!(matches!(&whole[8], Value::ServerError(error) if error.code() == "MOVED"));
        for piece in 1..octets.len() {
            assert_eq!(all(octets, piece).unwrap(), whole, "{piece}");
        }
    }

    #[test]
    fn what_is_no_reply_is_garbage_at_once() {
        let deep = b"*1\r\n".repeat(200);
        for octets in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"\r\n",
            b"\0",
            b"$x\r\n",
            b"$-2\r\n",
            b":1x\r\n",
            b"*1.5\r\n",
            b"+OK\n",
            b"$1\r\nabc",
            b"*2\r\n:1\r\nx",
            b"%1\r\n+a\r\n+b\r\n",
            b"$99999999999999999999\r\n",
            b"*1000000\r\n",
            b"$1000000000\r\n",
            b"-\xff\xfe\r\n",
        ] {
            assert_eq!(all(octets, 1), Err(Garbage), "{}", octets.escape_ascii());
        }
        let mut nested = deep;
        nested.extend_from_slice(b":1\r\n");
        assert_eq!(all(&nested, 1024), Err(Garbage));
    }

    #[test]
    fn a_reply_without_end_is_left() {
        assert_eq!(all(&b"+x".repeat(LONGEST_LINE), 4096), Err(Garbage));
        // Each array promises a further one, or each string the largest of all.
        assert_eq!(all(&b"*9999\r\n".repeat(20), 4096), Err(Garbage));
        let mut large = b"*9\r\n".to_vec();
        for _ in 0..9 {
            large.extend_from_slice(format!("${}\r\n", 1 << 20).as_bytes());
            large.resize(large.len() + (1 << 20), b'x');
            large.extend_from_slice(b"\r\n");
        }
        assert_eq!(all(&large, 65536), Err(Garbage));
    }

    #[test]
    fn words_may_hold_any_octet() {
        assert_eq!(
            pack(&[b"GET", b"a\r\n\0"]),
            b"*2\r\n$3\r\nGET\r\n$4\r\na\r\n\0\r\n"
        );
    }
}
