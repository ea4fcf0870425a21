//! The lines of a text from outside, numbered and of bounded length.

use std::io::BufRead;

/// Octets of a line without its end: enough for a key and a value of the
/// longest, each octet as six.
pub const MAX_LINE: usize = 64 * 1024;

/// What is wrong with a text, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The line, counted from 1.
    pub line: u64,
    /// What is wrong with it.
    pub why: String,
}

/// A text read line by line.
pub struct Lines<R> {
    reader: R,
    number: u64,
    line: Vec<u8>,
    /// The last line had its end.
    pub is_whole: bool,
}

impl<R: BufRead> Lines<R> {
    /// The lines of what `reader` gives.
    pub fn new(reader: R) -> Self {
        Lines {
            reader,
            number: 0,
            line: Vec::new(),
            is_whole: true,
        }
    }

    /// The number of the last line.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The last line.
    pub fn line(&self) -> &[u8] {
        &self.line
    }

    /// Reads the next line, without its end; false at the end of the text.
    pub fn advance(&mut self) -> Result<bool, Wrong> {
        self.line.clear();
        self.number += 1;
        loop {
            let piece = match self.reader.fill_buf() {
                Ok(piece) => piece,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.wrong(format!("cannot be read: {error}"))),
            };
            if piece.is_empty() {
                self.is_whole = self.line.is_empty();
                if self.is_whole {
                    self.number -= 1;
                }
                return Ok(!self.is_whole);
            }
            let end = piece.iter().position(|&octet| octet == b'\n');
            let taken = end.unwrap_or(piece.len());
            if self.line.len() + taken > MAX_LINE {
                return Err(self.wrong(format!("longer than {MAX_LINE} octets")));
            }
            self.line.extend_from_slice(&piece[..taken]);
            self.reader.consume(taken + usize::from(end.is_some()));
            if end.is_some() {
                self.is_whole = true;
                return Ok(true);
            }
        }
    }

    /// Something wrong with the last line.
    pub fn wrong(&self, why: impl Into<String>) -> Wrong {
        Wrong {
            line: self.number,
            why: why.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_numbered_and_bounded() {
        let mut lines = Lines::new(&b"a\n\nb"[..]);
        assert_eq!(
            (lines.advance(), lines.line(), lines.number()),
            (Ok(true), &b"a"[..], 1)
        );
        assert_eq!(
            (lines.advance(), lines.line(), lines.is_whole),
            (Ok(true), &b""[..], true)
        );
        assert_eq!(
            (lines.advance(), lines.line(), lines.is_whole),
            (Ok(true), &b"b"[..], false)
        );
        assert_eq!((lines.advance(), lines.number()), (Ok(false), 3));
        let long = vec![b'x'; MAX_LINE + 1];
        assert_eq!(Lines::new(&long[..]).advance().unwrap_err().line, 1);
        assert_eq!(Lines::new(&long[1..]).advance(), Ok(true));
    }
}
