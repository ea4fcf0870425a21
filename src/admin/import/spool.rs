//! Records on their way in: a file without a name beside the database.
//!
//! A text is read to its end before the first record of it is written, so that
//! a bad one changes nothing; and the records are written in short
//! transactions, so that a running server goes on. In between they lie here,
//! not in memory.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::formats::Sink;
use super::origin::Looks;
use crate::policy::record::Database;
use crate::store::key::{MAX_KEY, split_stored};

/// Databases of one import.
const MAX_SECTIONS: usize = 100;
/// Octets before key and value: section, line, two lengths.
const HEADER: usize = 1 + 8 + 4 + 4;

/// Opens a file in this directory that has no name and goes with its last
/// descriptor.
pub fn nameless_file(dir: &Path) -> io::Result<File> {
    let path = dir.join(format!(".postgreyctl.{}", std::process::id()));
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

/// The records of one database in one text.
#[derive(Debug)]
pub struct Section {
    /// The name of the text.
    pub source: String,
    /// The database the text names.
    pub named: Option<Database>,
    /// What the records look like.
    pub looks: Looks,
}

/// A record as it came.
#[derive(Debug, Default)]
pub struct Spooled {
    /// The index of its section.
    pub section: usize,
    /// The line of its key.
    pub line: u64,
    /// The whole key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// The spool while it is written.
pub struct Spool {
    file: BufWriter<File>,
    /// What was read, in the order of the texts.
    pub sections: Vec<Section>,
    source: String,
    first_of_source: usize,
    current: usize,
}

/// A position in the spool: octets of the file, and sections.
pub struct Mark(u64, usize);

impl Spool {
    /// An empty spool in this directory.
    pub fn new(dir: &Path) -> io::Result<Self> {
        Ok(Spool {
            file: BufWriter::with_capacity(256 * 1024, nameless_file(dir)?),
            sections: Vec::new(),
            source: String::new(),
            first_of_source: 0,
            current: 0,
        })
    }

    /// The records to come are of this text.
    pub fn begin_source(&mut self, source: &str) {
        self.source = source.to_owned();
        self.first_of_source = self.sections.len();
    }

    /// The present end.
    pub fn mark(&mut self) -> io::Result<Mark> {
        self.file.flush()?;
        Ok(Mark(
            self.file.get_mut().stream_position()?,
            self.sections.len(),
        ))
    }

    /// Drops everything after a mark.
    pub fn return_to(&mut self, mark: &Mark) -> io::Result<()> {
        self.file.flush()?;
        let file = self.file.get_mut();
        file.set_len(mark.0)?;
        file.seek(SeekFrom::Start(mark.0))?;
        self.sections.truncate(mark.1);
        Ok(())
    }

    /// Ends the writing; the records can then be read.
    pub fn finish(self) -> io::Result<(Vec<Section>, SpoolReader)> {
        let file = self
            .file
            .into_inner()
            .map_err(io::IntoInnerError::into_error)?;
        Ok((
            self.sections,
            SpoolReader(BufReader::with_capacity(256 * 1024, file)),
        ))
    }

    fn push(&mut self, line: u64, key: &[u8], value: &[u8]) -> io::Result<()> {
        let section = self.current as u8;
        self.file.write_all(&[section])?;
        self.file.write_all(&line.to_le_bytes())?;
        for text in [key, value] {
            self.file.write_all(&(text.len() as u32).to_le_bytes())?;
        }
        self.file.write_all(key)?;
        self.file.write_all(value)
    }
}

impl Sink for Spool {
    fn begin(&mut self, named: Option<Database>) -> Result<(), String> {
        let of_source = &self.sections[self.first_of_source.min(self.sections.len())..];
        let known = of_source
            .iter()
            .position(|section| section.named == named && named.is_some());
        self.current = match known {
            Some(index) => self.first_of_source + index,
            None => {
                if self.sections.len() == MAX_SECTIONS {
                    return Err(format!("more than {MAX_SECTIONS} databases"));
                }
                self.sections.push(Section {
                    source: self.source.clone(),
                    named,
                    looks: Looks::default(),
                });
                self.sections.len() - 1
            }
        };
        Ok(())
    }

    fn record(&mut self, line: u64, key: &[u8], value: &[u8]) -> Result<(), String> {
        // A text of mdb_dump has long keys as the store has them.
        let (key, value) = match key.len() {
            MAX_KEY | 1 => split_stored(key, value),
            _ => (key, value),
        };
        if let Some(section) = self.sections.get_mut(self.current) {
            section.looks.add(key, value);
        }
        self.push(line, key, value)
            .map_err(|error| format!("the copy beside the database failed: {error}"))
    }
}

/// The spool while it is read.
pub struct SpoolReader(BufReader<File>);

impl SpoolReader {
    /// Goes back to the start.
    pub fn rewind(&mut self) -> io::Result<()> {
        self.0.rewind()
    }

    /// Reads the next record; false at the end.
    pub fn read(&mut self, record: &mut Spooled) -> io::Result<bool> {
        let mut header = [0; HEADER];
        match self.0.read_exact(&mut header) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
        let [section, rest @ ..] = header;
        let (line, lengths) = rest.split_at(8);
        let (key, value) = lengths.split_at(4);
        record.section = usize::from(section);
        record.line = u64::from_le_bytes(line.try_into().unwrap_or_default());
        for (text, length) in [(&mut record.key, key), (&mut record.value, value)] {
            let length = u32::from_le_bytes(length.try_into().unwrap_or_default());
            text.resize(length as usize, 0);
        }
        self.0.read_exact(&mut record.key)?;
        self.0.read_exact(&mut record.value)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back_in_order_and_none_after_a_mark() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        spool.begin_source("one");
        spool.begin(None).unwrap();
        spool.record(7, b"", b"1,2").unwrap();
        let mark = spool.mark().unwrap();
        spool.begin(Some(Database::Tarpit)).unwrap();
        spool.record(8, b"gone", b"gone").unwrap();
        spool.return_to(&mark).unwrap();
        spool.begin(Some(Database::Clients)).unwrap();
        spool.record(9, b"k", b"5,6").unwrap();
        spool.begin(Some(Database::Clients)).unwrap();
        let (sections, mut reader) = spool.finish().unwrap();
        assert_eq!(sections.len(), 2);
        assert_eq!(sections[1].named, Some(Database::Clients));
        reader.rewind().unwrap();
        let mut record = Spooled::default();
        let mut all = Vec::new();
        while reader.read(&mut record).unwrap() {
            all.push((
                record.section,
                record.line,
                record.key.clone(),
                record.value.clone(),
            ));
        }
        let expected = [
            (0, 7, b"".to_vec(), b"1,2".to_vec()),
            (1, 9, b"k".to_vec(), b"5,6".to_vec()),
        ];
        assert_eq!(all, expected);
    }
}
