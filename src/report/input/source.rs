//! One log: a file or standard input.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::{compressed, journal, lines};
use crate::admin::failure::Failure;
use crate::mail_log::head::{self, Head, Program};
use crate::mail_log::time::Times;

/// Octets that are read at once.
const BUFFER: usize = 128 * 1024;

/// A log that is being read, with its present line.
pub struct Source {
    path: Option<PathBuf>,
    stream: Box<dyn BufRead>,
    is_journal: bool,
    /// Octets read from the file, compressed or not, since they were asked for.
    read: Rc<Cell<u64>>,
    times: Times,
    line: Vec<u8>,
    /// The present line: its time, who wrote it, and where its message begins.
    time: Option<i64>,
    program: Program,
    message: usize,
}

/// Counts what is read from a file.
struct Counted<R> {
    inner: R,
    read: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.set(self.read.get() + count as u64);
        Ok(count)
    }
}

/// Octets of a file; 0 if that is not known.
pub fn size(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

/// True if it is a regular file, or there is none.
pub fn is_regular(path: &Path) -> bool {
    fs::metadata(path).map_or(true, |found| found.is_file())
}

/// Device and number of a regular file.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some((found.dev(), found.ino()))
}

impl Source {
    /// Opens a log, standard input without a path. Lines without a year are of the time
    /// before its last change, or before `now`.
    pub fn open(path: Option<&Path>, now: i64) -> Result<Source, Failure> {
        let path = path.filter(|path| path.as_os_str() != "-");
        let read = Rc::new(Cell::new(0));
        let (raw, changed): (Box<dyn Read>, _) = match path {
            None => (Box::new(io::stdin()), now),
            Some(path) => {
                let opened = File::open(path).and_then(|file| {
                    let found = file.metadata()?;
                    match found.is_dir() {
                        true => Err(io::Error::from_raw_os_error(libc::EISDIR)),
                        false => Ok((file, found.mtime())),
                    }
                });
                let (file, changed) = opened.map_err(|error| Failure::file(path, &error))?;
                (Box::new(file), changed.min(now))
            }
        };
        let counted = Counted {
            inner: raw,
            read: Rc::clone(&read),
        };
        let mut source = Source {
            path: path.map(Path::to_owned),
            stream: Box::new(io::empty()),
            is_journal: false,
            read,
            times: Times::new(changed),
            line: Vec::new(),
            time: None,
            program: Program::Other,
            message: 0,
        };
        source
            .start(counted)
            .map_err(|error| source.failure(&error))?;
        Ok(source)
    }

    /// Finds out what the log is.
    fn start(&mut self, mut raw: impl Read + 'static) -> io::Result<()> {
        let mut head = Vec::new();
        raw.by_ref().take(compressed::HEAD).read_to_end(&mut head)?;
        let mut plain = compressed::open(&head.clone(), Cursor::new(head).chain(raw))?;
        let mut start = Vec::new();
        plain.by_ref().take(journal::HEAD).read_to_end(&mut start)?;
        self.is_journal = journal::begins(&start);
        let whole = Cursor::new(start).chain(plain);
        self.stream = Box::new(BufReader::with_capacity(BUFFER, whole));
        Ok(())
    }

    /// Goes to the next line; false at the end.
    pub fn advance(&mut self) -> Result<bool, Failure> {
        self.line.clear();
        if self.is_journal {
            let found = journal::read(&mut self.stream, &mut self.line);
            let Some(entry) = found.map_err(|error| self.failure(&error))? else {
                return Ok(false);
            };
            self.time = entry.time.or(self.time);
            self.program = entry.program;
            self.message = 0;
            return Ok(true);
        }
        let more = lines::read(&mut self.stream, &mut self.line, false);
        if !more.map_err(|error| self.failure(&error))? {
            return Ok(false);
        }
        let head = head::split(&mut self.times, &self.line);
        // A line without a time was written after the one before it.
        self.time = head.time.or(self.time);
        self.program = head.program;
        self.message = self.line.len() - head.message.len();
        Ok(true)
    }

    /// The present line.
    pub fn head(&self) -> Head<'_> {
        Head {
            time: self.time,
            program: self.program,
            message: &self.line[self.message..],
        }
    }

    /// When the present line was written, for the order of lines.
    pub fn time(&self) -> i64 {
        self.time.unwrap_or(i64::MIN)
    }

    /// True if the time of the present line is known.
    pub fn has_time(&self) -> bool {
        self.time.is_some()
    }

    /// Octets that were read since this was asked last.
    pub fn take_read(&self) -> u64 {
        self.read.take()
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let name = self.path.as_deref().unwrap_or(Path::new("standard input"));
        Failure::file(name, error)
    }
}
