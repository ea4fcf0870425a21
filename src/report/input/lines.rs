//! Lines of a stream in a buffer that is used again, however long they are.

use std::io::{self, BufRead};

/// Octets of a line that are kept: syslogd cuts far below.
pub const MOST_OCTETS: usize = 64 * 1024;

/// Reads the next line, without its end, into `line`; false at the end of the stream.
/// What is beyond [`MOST_OCTETS`] is passed over. With `is_growing` a line without an
/// end stays in `line` until the rest has come, and false is returned.
pub fn read(stream: &mut dyn BufRead, line: &mut Vec<u8>, is_growing: bool) -> io::Result<bool> {
    let mut is_some = !line.is_empty();
    loop {
        let buffer = match stream.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            buffer => buffer?,
        };
        if buffer.is_empty() {
            return Ok(is_some && !is_growing);
        }
        is_some = true;
        let end = memchr::memchr(b'\n', buffer);
        let part = &buffer[..end.unwrap_or(buffer.len())];
        let room = MOST_OCTETS.saturating_sub(line.len());
        line.extend_from_slice(&part[..part.len().min(room)]);
        let used = part.len() + usize::from(end.is_some());
        stream.consume(used);
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_any_length_are_read() {
        let long = "x".repeat(MOST_OCTETS + 7);
        let text = format!("a\r\n\n{long}\nlast");
        let mut stream = io::BufReader::with_capacity(100, text.as_bytes());
        let mut lines = Vec::new();
        let mut line = Vec::new();
        while read(&mut stream, &mut line, false).unwrap() {
            lines.push(String::from_utf8(std::mem::take(&mut line)).unwrap());
        }
        assert_eq!(lines, ["a", "", &long[..MOST_OCTETS], "last"]);
    }

    #[test]
    fn a_line_that_grows_is_read_when_it_has_ended() {
        let mut line = Vec::new();
        assert!(!read(&mut &b"be"[..], &mut line, true).unwrap());
        assert!(read(&mut &b"gun\nx"[..], &mut line, true).unwrap());
        assert_eq!(line, b"begun");
    }
}
