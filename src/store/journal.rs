//! The journal: what the commits behind a copy of the database have changed, in
//! one file that is written from its start to its end.
//!
//! A commit touches pages all over the database. To flush each of them costs
//! more than everything else; to flush the changes alone, one behind the
//! other, is one short write. So while there is a copy and a journal the pages
//! are left to the system, and after a crash of the machine the database is
//! made anew from these two.
//!
//! The place of the next entry is kept in the database, in the transaction
//! that wrote the last: an entry whose transaction was given up is overwritten
//! by the next. An entry has a checksum and a number, so the journal ends where
//! no entry fits.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::copies::{new_file, remove_if_there};
use crate::policy::record::Database;

/// The first octets of the file.
const MAGIC: &[u8; 24] = b"postgrey journal, 1    \n";
/// Octets in front of the first entry: the magic and the journal's number.
const HEAD: u64 = 32;
/// Octets in front of an entry's changes: checksum, their length, number.
const ENTRY_HEAD: usize = 16;
/// Octets in front of a change's key: database, lengths of key and value.
const CHANGE_HEAD: usize = 7;
/// The length of a value that stands for none: the record is removed.
const REMOVED: u32 = u32::MAX;
/// The file has octets to write over: one that grows with each write is
/// flushed together with the file system's own records, which takes longer. As
/// much as it has, but at most this, is written ahead.
const MOST_SPARE: u64 = 1 << 20;
/// What is written ahead at once: without memory of a process's own.
static ZEROS: [u8; 1 << 16] = [0; 1 << 16];

/// The journal of the database in this directory.
pub fn journal_of(dbdir: &Path) -> PathBuf {
    dbdir.join("data.mdb.journal")
}

/// Removes the journal of a directory, if there is one. Processes that have not
/// noticed yet may have it open: its octets go at once.
pub fn remove(dbdir: &Path) -> io::Result<()> {
    let path = journal_of(dbdir);
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path);
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?.set_len(0)?,
    }
    remove_if_there(&path)
}

/// Where a journal goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The journal's number: none before had it.
    pub journal: u64,
    /// Octets in front of the next entry.
    pub offset: u64,
    /// The number of the next entry.
    pub number: u64,
}

impl Place {
    /// The start of a journal.
    pub fn first(journal: u64) -> Self {
        Place {
            journal,
            offset: HEAD,
            number: 0,
        }
    }

    /// The place behind an entry of this length.
    fn behind(self, length: usize) -> Self {
        Place {
            offset: self.offset + length as u64,
            number: self.number + 1,
            ..self
        }
    }
}

/// An entry: the changes of one commit, in order.
#[derive(Debug, Default)]
pub struct Entry {
    octets: Vec<u8>,
}

impl Entry {
    /// Forgets all changes; the memory stays.
    pub fn clear(&mut self) {
        self.octets.clear();
        self.octets.resize(ENTRY_HEAD, 0);
    }

    /// Adds a record as it is stored, or that there is none under its key.
    pub fn push(&mut self, database: Database, stored_key: &[u8], stored_value: Option<&[u8]>) {
        let length = stored_value.map_or(REMOVED, |value| value.len() as u32);
        self.octets.push(database as u8);
        self.octets
            .extend_from_slice(&(stored_key.len() as u16).to_le_bytes());
        self.octets.extend_from_slice(&length.to_le_bytes());
        self.octets.extend_from_slice(stored_key);
        self.octets
            .extend_from_slice(stored_value.unwrap_or_default());
    }

    /// The entry for this place, and the place behind it.
    fn finish(&mut self, place: Place) -> io::Result<(&[u8], Place)> {
        let changes = self.octets.len() - ENTRY_HEAD;
        let length = u32::try_from(changes)
            .map_err(|_| io::Error::other("an entry is longer than 4 GiB"))?;
        self.octets[4..8].copy_from_slice(&length.to_le_bytes());
        self.octets[8..16].copy_from_slice(&place.number.to_le_bytes());
        let sum = checksum(place.journal, &[&self.octets[4..]]);
        self.octets[..4].copy_from_slice(&sum.to_le_bytes());
        Ok((&self.octets, place.behind(self.octets.len())))
    }
}

fn checksum(journal: u64, parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&journal.to_le_bytes());
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize()
}

/// A journal to write into.
#[derive(Debug)]
pub struct Journal {
    file: File,
    number: u64,
    /// Octets of the file that are there to be written over.
    length: u64,
}

impl Journal {
    /// Makes the journal of a directory, in the place of one that is no longer
    /// needed. It is on the disk with its first entry, its name when the
    /// directory was flushed.
    pub fn create(dbdir: &Path, number: u64) -> io::Result<Self> {
        remove(dbdir)?;
        let mut journal = Journal {
            file: new_file(&journal_of(dbdir))?,
            number,
            length: 0,
        };
        let made = journal.begin();
        if made.is_err() {
            // The disk may be full.
            remove(dbdir)?;
        }
        made.map(|()| journal)
    }

    fn begin(&mut self) -> io::Result<()> {
        self.make_room(HEAD)?;
        let head = [&MAGIC[..], &self.number.to_le_bytes()].concat();
        self.file.write_all_at(&head, 0)
    }

    /// Opens the journal with this number.
    pub fn open(dbdir: &Path, number: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOFOLLOW)
            .open(journal_of(dbdir))?;
        let mut head = [0; HEAD as usize];
        file.read_exact_at(&mut head, 0)?;
        if head[..MAGIC.len()] != MAGIC[..] || head[MAGIC.len()..] != number.to_le_bytes() {
            let other = "it belongs to another copy";
            return Err(io::Error::new(io::ErrorKind::InvalidData, other));
        }
        let length = file.metadata()?.len();
        Ok(Journal {
            file,
            number,
            length,
        })
    }

    /// Which one it is.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Writes an entry at its place. It is on the disk when this returns, with
    /// the place behind it. Whoever writes keeps all others from it.
    pub fn append(&mut self, place: Place, entry: &mut Entry) -> io::Result<Place> {
        let (octets, behind) = entry.finish(place)?;
        if self.file.metadata()?.nlink() == 0 {
            return Err(io::Error::other("it was removed"));
        }
        self.make_room(behind.offset)?;
        self.file.write_all_at(octets, place.offset)?;
        self.file.sync_data()?;
        Ok(behind)
    }

    fn make_room(&mut self, needed: u64) -> io::Result<()> {
        if needed <= self.length {
            return Ok(());
        }
        // Another process may have made room already.
        self.length = self.file.metadata()?.len();
        let enough = needed + self.length.min(MOST_SPARE);
        while self.length < enough {
            self.file.write_all_at(&ZEROS, self.length)?;
            self.length += ZEROS.len() as u64;
        }
        Ok(())
    }

    /// The entries from this place on, to be read.
    pub fn entries(self, place: Place) -> io::Result<Entries> {
        let mut file = BufReader::with_capacity(1 << 16, self.file);
        file.seek(SeekFrom::Start(place.offset))?;
        Ok(Entries { file, place })
    }
}

/// A change as an entry holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change<'a> {
    /// The database.
    pub database: Database,
    /// The key, as it is stored.
    pub stored_key: &'a [u8],
    /// The record, as it is stored; `None`: it is removed.
    pub stored_value: Option<&'a [u8]>,
}

/// Reads a journal to its end.
#[derive(Debug)]
pub struct Entries {
    file: BufReader<File>,
    place: Place,
}

impl Entries {
    /// The number of the next entry.
    pub fn number(&self) -> u64 {
        self.place.number
    }

    /// Appends the changes of the next entry to a buffer for [`changes_in`];
    /// false at the end.
    pub fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<bool> {
        let mut head = [0; ENTRY_HEAD];
        if !fill(&mut self.file, &mut head)? {
            return Ok(false);
        }
        let number = |octets: &[u8]| {
            let from_last = octets.iter().rev();
            from_last.fold(0, |all, &octet| all << 8 | u64::from(octet))
        };
        let (sum, length) = (number(&head[..4]), number(&head[4..8]));
        if number(&head[8..]) != self.place.number {
            return Ok(false);
        }
        let start = buffer.len();
        // Not more than there is, whatever the length says.
        let read = (&mut self.file).take(length).read_to_end(buffer)?;
        let found = checksum(self.place.journal, &[&head[4..], &buffer[start..]]);
        if read as u64 != length || sum != u64::from(found) {
            buffer.truncate(start);
            return Ok(false);
        }
        self.place = self.place.behind(ENTRY_HEAD + read);
        Ok(true)
    }
}

/// Fills a buffer; false if there is not enough.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buffer) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

/// The changes in the order in which they were made.
pub fn changes_in(mut buffer: &[u8]) -> impl Iterator<Item = Change<'_>> {
    std::iter::from_fn(move || {
        let (head, rest) = buffer.split_at_checked(CHANGE_HEAD)?;
        let database = *Database::ALL.get(usize::from(head[0]))?;
        let key_length = u16::from_le_bytes([head[1], head[2]]);
        let value_length = u32::from_le_bytes([head[3], head[4], head[5], head[6]]);
        let (stored_key, rest) = rest.split_at_checked(usize::from(key_length))?;
        let (stored_value, rest) = match value_length {
            REMOVED => (None, rest),
            length => {
                let (value, rest) = rest.split_at_checked(length as usize)?;
                (Some(value), rest)
            }
        };
        buffer = rest;
        Some(Change {
            database,
            stored_key,
            stored_value,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A journal with these entries of one record each.
    fn journal(dbdir: &Path, values: &[&[u8]]) -> Vec<Place> {
        let mut journal = Journal::create(dbdir, 7).unwrap();
        let mut entry = Entry::default();
        let mut places = vec![Place::first(7)];
        for value in values {
            entry.clear();
            entry.push(Database::Tarpit, b"key", Some(value));
            let place = journal.append(places[places.len() - 1], &mut entry);
            places.push(place.unwrap());
        }
        places
    }

    /// The values in a journal from this place on.
    fn values(dbdir: &Path, place: Place) -> Vec<Vec<u8>> {
        let journal = Journal::open(dbdir, place.journal).unwrap();
        let mut entries = journal.entries(place).unwrap();
        let mut buffer = Vec::new();
        while entries.read(&mut buffer).unwrap() {}
        let value = |change: Change| {
            assert_eq!(change.database, Database::Tarpit);
            assert_eq!(change.stored_key, b"key");
            change.stored_value.unwrap().to_vec()
        };
        let values: Vec<_> = changes_in(&buffer).map(value).collect();
        assert_eq!(entries.number() - place.number, values.len() as u64);
        values
    }

    #[test]
    fn entries_come_back_from_any_place_on() {
        let folder = tempfile::tempdir().unwrap();
        let long = vec![b'l'; 3 << 20];
        let all: [&[u8]; 4] = [b"1", b"", &long, b"4"];
        let places = journal(folder.path(), &all);
        for (from, place) in places.into_iter().enumerate() {
            assert_eq!(values(folder.path(), place), all[from..]);
        }
    }

    #[test]
    fn changes_of_one_entry_keep_their_order() {
        let mut entry = Entry::default();
        entry.clear();
        let changes = [
            (Database::Greylist, &b"a"[..], Some(&b"1,2"[..])),
            (Database::Greylist, &[b'k'; 511], None),
            (Database::Clients, b"a", Some(b"")),
        ];
        for (database, key, value) in changes {
            entry.push(database, key, value);
        }
        let found: Vec<_> = changes_in(&entry.octets[ENTRY_HEAD..])
            .map(|change| (change.database, change.stored_key, change.stored_value))
            .collect();
        assert_eq!(found, changes);
    }

    #[test]
    fn an_entry_of_which_an_octet_is_wrong_ends_the_journal() {
        let folder = tempfile::tempdir().unwrap();
        let places = journal(folder.path(), &[b"first", b"second", b"third"]);
        let file = journal_of(folder.path());
        let octets = std::fs::read(&file).unwrap();
        for at in places[1].offset..places[2].offset {
            let mut damaged = octets.clone();
            damaged[at as usize] ^= 1;
            std::fs::write(&file, damaged).unwrap();
            assert_eq!(values(folder.path(), places[0]), [b"first"], "{at}");
        }
        // And one that was not written to its end.
        for length in places[1].offset..places[2].offset {
            std::fs::write(&file, &octets[..length as usize]).unwrap();
            assert_eq!(values(folder.path(), places[0]), [b"first"], "{length}");
        }
    }

    #[test]
    fn what_was_given_up_is_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let places = journal(
            folder.path(),
            &[b"first", b"given up, and longer", b"never"],
        );
        let mut entry = Entry::default();
        entry.clear();
        entry.push(Database::Tarpit, b"key", Some(b"short"));
        let mut journal = Journal::open(folder.path(), 7).unwrap();
        journal.append(places[1], &mut entry).unwrap();
        let held = values(folder.path(), places[0]);
        assert_eq!(held, [&b"first"[..], b"short"]);
    }

    #[test]
    fn a_journal_is_told_from_others_and_replaces_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |number| Journal::open(folder.path(), number).unwrap_err().kind();
        assert_eq!(kind(7), io::ErrorKind::NotFound);
        journal(folder.path(), &[b"old"]);
        assert_eq!(kind(8), io::ErrorKind::InvalidData);
        let mut old = Journal::open(folder.path(), 7).unwrap();
        Journal::create(folder.path(), 8).unwrap();
        assert_eq!(values(folder.path(), Place::first(8)), [b""; 0]);
        // Whoever has the old one open keeps no room on the disk.
        assert_eq!(old.file.metadata().unwrap().len(), 0);
        let mut entry = Entry::default();
        entry.clear();
        let removed = old.append(Place::first(7), &mut entry).unwrap_err();
        assert_eq!(removed.to_string(), "it was removed");
        remove(folder.path()).unwrap();
        remove(folder.path()).unwrap();
        assert_eq!(kind(8), io::ErrorKind::NotFound);
        std::fs::write(journal_of(folder.path()), "short").unwrap();
        assert_eq!(kind(8), io::ErrorKind::UnexpectedEof);
    }
}
