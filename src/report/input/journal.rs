//! The export format of systemd's journal (`journalctl -o export`).
//!
//! An entry is lines `NAME=VALUE`, or for values that are no text `NAME`, the length in
//! eight octets, the value; an empty line ends it.

use std::io::{self, BufRead, Read};

use super::lines;
use crate::mail_log::head::{self, Program};

/// An entry, but for its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Seconds since 1970.
    pub time: Option<i64>,
    /// Who wrote it.
    pub program: Program,
}

/// Octets by which an export is known.
pub const HEAD: u64 = 32;

/// True if a file begins like an export.
pub fn begins(start: &[u8]) -> bool {
    [&b"__CURSOR="[..], b"__REALTIME_TIMESTAMP="]
        .iter()
        .any(|name| start.starts_with(name))
}

/// Reads the next entry, its message into `message`; `None` at the end.
pub fn read(stream: &mut dyn BufRead, message: &mut Vec<u8>) -> io::Result<Option<Entry>> {
    let mut entry = Entry {
        time: None,
        program: Program::Other,
    };
    let mut is_empty = true;
    let mut line = Vec::new();
    loop {
        line.clear();
        if !lines::read(stream, &mut line, false)? {
            return Ok((!is_empty).then_some(entry));
        }
        if line.is_empty() {
            // More than one empty line is no entry.
            match is_empty {
                true => continue,
                false => return Ok(Some(entry)),
            }
        }
        is_empty = false;
        let mut value = Vec::new();
        let name = match memchr::memchr(b'=', &line) {
            Some(equals) => {
                value.extend_from_slice(&line[equals + 1..]);
                &line[..equals]
            }
            None => {
                read_octets(stream, &mut value)?;
                &line[..]
            }
        };
        match name {
            b"MESSAGE" => *message = value,
            b"SYSLOG_IDENTIFIER" => entry.program = head::program(&value),
            b"__REALTIME_TIMESTAMP" => {
                let microseconds = std::str::from_utf8(&value).ok();
                let microseconds = microseconds.and_then(|text| text.parse::<i64>().ok());
                entry.time = microseconds.map(|time| time / 1_000_000);
            }
            _ => {}
        }
    }
}

/// A value after its length; what is beyond the longest line is passed over.
fn read_octets(stream: &mut dyn BufRead, value: &mut Vec<u8>) -> io::Result<()> {
    let mut length = [0; 8];
    stream.read_exact(&mut length)?;
    let length = u64::from_le_bytes(length);
    let kept = length.min(lines::MOST_OCTETS as u64);
    let mut stream = stream;
    (&mut stream).take(kept).read_to_end(value)?;
    let rest = length - kept;
    let passed = io::copy(&mut (&mut stream).take(rest), &mut io::sink())?;
    // The line end after it.
    let mut end = [0];
    stream.read_exact(&mut end)?;
    match value.len() as u64 == kept && passed == rest && end == *b"\n" {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read() {
        let mut text = b"__CURSOR=s=1\n__REALTIME_TIMESTAMP=1700000000123456\n\
            SYSLOG_IDENTIFIER=postgrey\nMESSAGE=action=pass\n\n\
            __REALTIME_TIMESTAMP=1700000001000000\nSYSLOG_IDENTIFIER=postfix/smtpd\nMESSAGE\n"
            .to_vec();
        text.extend_from_slice(&6_u64.to_le_bytes());
        text.extend_from_slice(b"a\n\xff\n\nb\n\nX=y\n\n\n");
        let mut stream = &text[..];
        let mut all = Vec::new();
        let mut message = Vec::new();
        while let Some(entry) = read(&mut stream, &mut message).unwrap() {
            all.push((entry.time, entry.program, std::mem::take(&mut message)));
        }
        let expected = [
            (Some(1_700_000_000), Program::Postgrey, &b"action=pass"[..]),
            (Some(1_700_000_001), Program::Smtpd, b"a\n\xff\n\nb"),
            (None, Program::Other, b""),
        ];
        let expected = expected.map(|(time, program, text)| (time, program, text.to_vec()));
        assert_eq!(all, expected);
    }
}
