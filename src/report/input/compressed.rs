//! Logs that were compressed, known by their first octets.

use std::io::{self, BufRead, BufReader, Read};

use flate2::read::MultiGzDecoder;
use xz4rust::{XzDecoder, XzError, XzNextBlockResult};

/// Octets by which a file is known.
pub const HEAD: u64 = 6;

/// What is in a file that begins with `head`, which is in `raw` again.
pub fn open(head: &[u8], raw: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    Ok(match head {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(raw)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(Streams {
            raw: BufReader::new(raw),
            decoder: XzDecoder::in_heap(),
            is_between: true,
        }),
        [b'B', b'Z', b'h', ..] => return Err(unknown("bzip2", "bzcat")),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => return Err(unknown("zstd", "zstdcat")),
        _ => Box::new(raw),
    })
}

fn unknown(by: &str, program: &str) -> io::Error {
    io::Error::other(format!(
        "compressed by {by}: give what {program} makes of it to standard input"
    ))
}

/// The streams of an .xz file one after the other.
struct Streams<R> {
    raw: BufReader<R>,
    decoder: Box<XzDecoder<'static>>,
    /// Between streams, where the file may end.
    is_between: bool,
}

impl<R: Read> Read for Streams<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() {
            let input = self.raw.fill_buf()?;
            match input.first() {
                None if self.is_between => return Ok(0),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
                // Zeros may stand between streams.
                Some(0) if self.is_between => {
                    self.raw.consume(1);
                    continue;
                }
                Some(_) => {}
            }
            self.is_between = false;
            let (used, made) = match self.decoder.decode(input, buffer) {
                Ok(XzNextBlockResult::NeedMoreData(used, made)) => (used, made),
                Ok(XzNextBlockResult::EndOfStream(used, made)) => {
                    self.is_between = true;
                    self.decoder.reset();
                    (used, made)
                }
                Err(XzError::Sha256NotSupported) => {
                    return Err(unknown("xz with SHA-256", "xzcat"));
                }
                Err(error) => return Err(io::Error::other(format!("damaged: {error}"))),
            };
            self.raw.consume(used);
            if made > 0 {
                return Ok(made);
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_an_error_and_what_is_empty_is_not() {
        let magic = [0xfd, b'7', b'z', b'X', b'Z', 0];
        let mut streams = open(&magic, io::Cursor::new(magic)).unwrap();
        assert!(streams.read_to_end(&mut Vec::new()).is_err());
        let mut plain = open(b"", io::Cursor::new(b"")).unwrap();
        assert_eq!(plain.read_to_end(&mut Vec::new()).unwrap(), 0);
        assert!(open(b"BZh9", io::empty()).is_err());
    }
}
