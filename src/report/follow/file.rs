//! A log that grows, through its rotation.

use std::fs::{self, File};
use std::io::{self, BufReader, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::admin::failure::Failure;
use crate::mail_log::head::{self, Head};
use crate::mail_log::time::Times;
use crate::report::input::lines;

/// A log that is followed.
pub struct Followed {
    path: PathBuf,
    stream: BufReader<File>,
    /// Device and number of the file that is read.
    identity: (u64, u64),
    /// The start of a line whose end has not come yet.
    line: Vec<u8>,
    times: Times,
}

fn open(path: &Path) -> io::Result<(File, (u64, u64))> {
    // A FIFO would hold up whoever opens it.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let file = File::open(path)?;
    let found = file.metadata()?;
    let identity = (found.dev(), found.ino());
    Ok((file, identity))
}

impl Followed {
    /// Follows a log from its present end.
    pub fn open(path: &Path, now: i64) -> Result<Followed, Failure> {
        let opened = open(path).and_then(|(mut file, identity)| {
            file.seek(SeekFrom::End(0))?;
            Ok((file, identity))
        });
        let (file, identity) = opened.map_err(|error| Failure::file(path, &error))?;
        Ok(Followed {
            path: path.to_owned(),
            stream: BufReader::new(file),
            identity,
            line: Vec::new(),
            times: Times::new(now),
        })
    }

    /// Hands over the lines that have come; returns what was missed.
    pub fn poll(&mut self, now: i64, visit: &mut dyn FnMut(&Head)) -> Option<String> {
        self.times.set_reference(now);
        let mut missed = self.read(visit).err().map(|error| self.told(&error));
        let Ok(found) = fs::metadata(&self.path) else {
            // It is being rotated: the next one comes.
            return missed;
        };
        let position = self.stream.get_mut().stream_position().unwrap_or(0);
        let is_cut = found.len() < position;
        if (found.dev(), found.ino()) == self.identity && !is_cut {
            return missed;
        }
        let next = match open(&self.path) {
            Ok(next) => next,
            Err(error) => return missed.or(Some(self.told(&error))),
        };
        if is_cut && next.1 == self.identity {
            let path = self.path.display();
            missed = Some(format!("{path} was cut: lines before that may be missing"));
        } else if let Err(error) = self.read(visit) {
            // What came to the old one before it was moved away.
            missed = Some(self.told(&error));
        }
        if !self.line.is_empty() {
            visit(&head::split(&mut self.times, &self.line));
            self.line.clear();
        }
        (self.stream, self.identity) = (BufReader::new(next.0), next.1);
        if let Err(error) = self.read(visit) {
            missed = Some(self.told(&error));
        }
        missed
    }

    fn read(&mut self, visit: &mut dyn FnMut(&Head)) -> io::Result<()> {
        while lines::read(&mut self.stream, &mut self.line, true)? {
            visit(&head::split(&mut self.times, &self.line));
            self.line.clear();
        }
        Ok(())
    }

    fn told(&self, error: &io::Error) -> String {
        format!(
            "{}: {}",
            self.path.display(),
            crate::sys::errors::describe(error)
        )
    }
}
