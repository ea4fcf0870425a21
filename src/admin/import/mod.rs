//! `import`: records of the original, or of an export, into the database of a
//! server that may be running.
//!
//! First everything is read to its end into a spool; what is wrong with a text
//! is told with its line, and nothing is imported. Then the records go in,
//! some thousands in a transaction. That can fail only for want of space or of
//! the lock; what is in stays in, and the same import once more goes on, since
//! merging a record twice changes nothing.

mod berkeley;
mod formats;
mod lines;
mod merge;
mod origin;
mod spool;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::time::Instant;

use self::formats::read_text;
use self::origin::Origin;
use self::spool::{Section, Spool, SpoolReader, Spooled};
use super::complain;
use super::environment::{become_owner, exists, open_or_create, server_of};
use super::failure::Failure;
use super::options::Id;
use super::output::Output;
use super::progress::Progress;
use super::records::{database_with_name, objection, short_name};
use super::server_options;
use super::words::Words;
use crate::config::settings::Settings;
use crate::config::values;
use crate::policy::record::Database;
use crate::policy::rules::Rules;
use crate::store::Store;
use crate::store::berkeley::{HEAD, is_berkeley, old_berkeley_files};
use crate::store::lmdb::LmdbStore;

/// Records of one transaction beside a running server: some 30 ms.
const SLICE: usize = 2000;
/// Without a server each flush counts, and only memory bounds a slice.
const LONE_SLICE: usize = 10_000;
/// Refused records told one by one.
const MOST_TOLD: u64 = 20;

/// Where the records come from.
enum Source {
    /// A text, with its name and its length if it has one.
    Text(Box<dyn Read>, String, u64),
    /// Berkeley DB files.
    Berkeley(Vec<PathBuf>),
}

/// What a section is taken for.
#[derive(Clone, Copy)]
struct SectionKind {
    database: Database,
    origin: Origin,
}

/// Takes in a file, a directory or standard input.
pub fn run(words: &Words) -> Result<(), Failure> {
    let origin = match words.octets(Id::From) {
        None => None,
        Some(name) => Some(Origin::with_name(name).ok_or_else(|| {
            Failure::error(
                "--from must be postgrey-1.34, postgrey-1.37, targrey-1.34 or targrey-1.37",
            )
        })?),
    };
    let database = words
        .octets(Id::Database)
        .map(database_with_name)
        .transpose()?;
    let settings = server_options::settings(words)?;
    let db_size = match words.value(Id::DbSize) {
        Some(size) => values::db_size(size).map_err(|message| Failure::new(message, 2))?,
        None => Settings::default().db_size,
    };
    let dbdir = words.dbdir();
    let source = open_source(words.operand(0))?;
    become_owner(&dbdir)?;
    let (sections, mut records) = read_source(source, &dbdir)?;
    let kinds: Vec<SectionKind> = sections
        .iter()
        .map(|section| kind_of(section, database, origin))
        .collect();
    let reading = |error: io::Error| Failure::file(&dbdir, &error);
    refuse_foreign(&sections, &kinds, &mut records, reading)?;
    let map_size = if exists(&dbdir) { 0 } else { db_size };
    let mut store = open_or_create(&dbdir, map_size)?;
    let total = sections.iter().map(|section| section.looks.records).sum();
    records.rewind().map_err(reading)?;
    let mut taking = Taking {
        rules: &settings.rules,
        sections: &sections,
        kinds: &kinds,
        counts: vec![Counts::default(); sections.len()],
        progress: Progress::new("importing", total),
        done: 0,
    };
    taking.take_all(&mut store, &mut records, reading)?;
    let counts = std::mem::take(&mut taking.counts);
    drop(taking);
    report(&sections, &kinds, &counts)
}

/// Reads a text of any format as an import would, up to where records go into
/// a database; `dir` is for the spool. Returns how many records it has, or what
/// is wrong with it, in one line that calls it TEXT.
pub fn try_text(text: &[u8], dir: &Path) -> Result<u64, String> {
    let reader = io::Cursor::new(text.to_vec());
    let source = Source::Text(Box::new(reader), "TEXT".into(), 0);
    let (sections, mut records) = read_source(source, dir).map_err(|failure| failure.message)?;
    let kinds: Vec<SectionKind> = sections
        .iter()
        .map(|section| kind_of(section, None, None))
        .collect();
    let reading = |error: io::Error| Failure::file(dir, &error);
    refuse_foreign(&sections, &kinds, &mut records, reading).map_err(|failure| failure.message)?;
    records.rewind().map_err(|error| error.to_string())?;
    let (mut record, mut count) = (Spooled::default(), 0);
    while records
        .read(&mut record)
        .map_err(|error| error.to_string())?
    {
        let kind = kinds[record.section];
        if objection(kind.database, &record.key, &record.value).is_none() {
            kind.origin.convert(kind.database, &record.value);
        }
        count += 1;
    }
    Ok(count)
}

/// Opens what the caller named, with the caller's rights.
fn open_source(name: &[u8]) -> Result<Source, Failure> {
    use std::os::unix::ffi::OsStrExt;
    if name == b"-" {
        return Ok(Source::Text(
            Box::new(io::stdin()),
            "standard input".into(),
            0,
        ));
    }
    let path = PathBuf::from(std::ffi::OsStr::from_bytes(name));
    let failed = |error: io::Error| Failure::file(&path, &error);
    if path.is_dir() {
        let files = old_berkeley_files(&path);
        if files.is_empty() {
            return Err(Failure::error(format!(
                "{}: there are no databases of the original",
                path.display()
            )));
        }
        return Ok(Source::Berkeley(files));
    }
    let mut file = File::open(&path).map_err(failed)?;
    if file.metadata().map_err(failed)?.is_file() {
        let mut head = Vec::new();
        Read::by_ref(&mut file)
            .take(HEAD as u64)
            .read_to_end(&mut head)
            .map_err(failed)?;
        if is_berkeley(&head) {
            return Ok(Source::Berkeley(vec![path]));
        }
        file.rewind().map_err(failed)?;
    }
    let length = file.metadata().map_err(failed)?.len();
    Ok(Source::Text(
        Box::new(file),
        path.display().to_string(),
        length,
    ))
}

/// Reads everything into a spool.
fn read_source(source: Source, dbdir: &Path) -> Result<(Vec<Section>, SpoolReader), Failure> {
    let failed = |error: io::Error| Failure::file(dbdir, &error);
    let mut spool = Spool::new(dbdir).map_err(failed)?;
    match source {
        Source::Text(reader, name, length) => {
            spool.begin_source(&name);
            let progress = Progress::new("reading", length);
            let reader = BufReader::with_capacity(128 * 1024, Counted { reader, progress });
            read_text(reader, &mut spool).map_err(|wrong| {
                Failure::error(format!(
                    "{name} line {}: {}; nothing was imported",
                    wrong.line, wrong.why
                ))
            })?;
        }
        Source::Berkeley(files) => {
            for file in files {
                spool.begin_source(&file.display().to_string());
                berkeley::read_file(&file, dbdir, &mut spool)?;
            }
        }
    }
    spool.finish().map_err(failed)
}

struct Counted {
    reader: Box<dyn Read>,
    progress: Progress,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.progress.add(count as u64);
        Ok(count)
    }
}

/// What the text says of itself counts more than the options, the name of the
/// file more than a guess.
fn kind_of(section: &Section, given: Option<Database>, origin: Option<Origin>) -> SectionKind {
    let file = section.source.rsplit('/').next().unwrap_or_default();
    let by_name = || {
        let is_part = |database: &Database| file.contains(database.name());
        Database::ALL.into_iter().find(is_part)
    };
    let database = section.named.or(given).or_else(by_name);
    SectionKind {
        database: database.unwrap_or_else(|| section.looks.database()),
        origin: origin.unwrap_or_else(|| section.looks.origin()),
    }
}

/// A text most of whose records are none of ours is of another program.
fn refuse_foreign(
    sections: &[Section],
    kinds: &[SectionKind],
    records: &mut SpoolReader,
    failed: impl Fn(io::Error) -> Failure + Copy,
) -> Result<(), Failure> {
    let mut refused = vec![(0_u64, 0_u64, ""); sections.len()];
    let mut record = Spooled::default();
    records.rewind().map_err(failed)?;
    while records.read(&mut record).map_err(failed)? {
        let Some(kind) = kinds.get(record.section) else {
            continue;
        };
        if let Some(why) = objection(kind.database, &record.key, &record.value) {
            let (count, line, first) = &mut refused[record.section];
            if *count == 0 {
                (*line, *first) = (record.line, why);
            }
            *count += 1;
        }
    }
    for ((section, kind), (count, line, why)) in sections.iter().zip(kinds).zip(refused) {
        if 2 * count > section.looks.records {
            return Err(Failure::error(format!(
                "{} line {line}: {why}; {count} of {} records are none of {}, so nothing was imported",
                section.source,
                section.looks.records,
                kind.database.name(),
            )));
        }
    }
    Ok(())
}

/// What became of the records of a section.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    taken: u64,
    merged: u64,
    kept: u64,
    refused: u64,
}

/// The second half of an import.
struct Taking<'a> {
    rules: &'a Rules,
    sections: &'a [Section],
    kinds: &'a [SectionKind],
    counts: Vec<Counts>,
    progress: Progress,
    done: u64,
}

impl Taking<'_> {
    fn take_all(
        &mut self,
        store: &mut LmdbStore,
        records: &mut SpoolReader,
        failed: impl Fn(io::Error) -> Failure + Copy,
    ) -> Result<(), Failure> {
        let has_server = server_of(store)?.is_some();
        let most = if has_server { SLICE } else { LONE_SLICE };
        let mut slice: Vec<Spooled> = Vec::new();
        loop {
            slice.clear();
            let mut record = Spooled::default();
            while slice.len() < most && records.read(&mut record).map_err(failed)? {
                if self.is_wanted(&mut record) {
                    slice.push(std::mem::take(&mut record));
                }
            }
            if slice.is_empty() {
                return Ok(());
            }
            let start = Instant::now();
            self.take_slice(store, &slice)?;
            if has_server {
                // The server gets as much time as we took from it.
                std::thread::sleep(start.elapsed());
            }
        }
    }

    /// Brings a record into our form, or says that it is none.
    fn is_wanted(&mut self, record: &mut Spooled) -> bool {
        let Some(&kind) = self.kinds.get(record.section) else {
            return false;
        };
        let counts = &mut self.counts[record.section];
        if let Some(why) = objection(kind.database, &record.key, &record.value) {
            counts.refused += 1;
            if counts.refused <= MOST_TOLD {
                let source = &self.sections[record.section].source;
                complain(&format!("{source} line {}: refused: {why}", record.line));
            } else if counts.refused == MOST_TOLD + 1 {
                complain("more records are refused");
            }
            return false;
        }
        record.value = kind.origin.convert(kind.database, &record.value);
        true
    }

    fn take_slice(&mut self, store: &mut LmdbStore, slice: &[Spooled]) -> Result<(), Failure> {
        let mut counts = self.counts.clone();
        let edited = store.edit(&mut |records| {
            counts.clone_from(&self.counts);
            for record in slice {
                let database = self.kinds[record.section].database;
                let counts = &mut counts[record.section];
                match records.get(database, &record.key)? {
                    None => {
                        records.put(database, &record.key, &record.value)?;
                        counts.taken += 1;
                    }
                    Some(old) => {
                        let value = merge::merged(self.rules, database, old, &record.value);
                        if value == old {
                            counts.kept += 1;
                        } else {
                            records.put(database, &record.key, &value)?;
                            counts.merged += 1;
                        }
                    }
                }
            }
            Ok(())
        });
        edited.map_err(|error| {
            Failure::error(format!(
                "{error}; {} records are in: the same import once more goes on",
                self.done
            ))
        })?;
        self.counts = counts;
        self.done += slice.len() as u64;
        self.progress.add(slice.len() as u64);
        Ok(())
    }
}

fn report(sections: &[Section], kinds: &[SectionKind], counts: &[Counts]) -> Result<(), Failure> {
    let mut output = Output::new();
    for ((section, kind), counts) in sections.iter().zip(kinds).zip(counts) {
        let Counts {
            taken,
            merged,
            kept,
            refused,
        } = counts;
        let origin = match (kind.database, kind.origin) {
            _ if section.looks.records == 0 => "",
            (Database::Greylist, Origin::Postgrey134) => " of plain postgrey 1.34",
            (Database::Greylist, Origin::Postgrey137) => " of plain postgrey 1.37",
            (Database::Greylist, Origin::Targrey) => " with retry counts",
            _ => "",
        };
        output.line(format!(
            "{}: {} ({}){origin}: {taken} taken, {merged} merged, {kept} kept, {refused} refused",
            section.source,
            short_name(kind.database),
            kind.database.name(),
        ))?;
    }
    output.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers without a pattern (xorshift), the same in each run.
    struct Random(u64);

    impl Random {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 as usize % limit.max(1)
        }
    }

    /// A text of each format that an import takes, to be varied. Each has the
    /// records of one database: mixed ones are refused as another program's,
    /// however they are varied.
    fn seeds() -> Vec<Vec<u8>> {
        let triplet = ("192.0.2.0/a\\fc\\\\/b", "1700000000,1700000400,1,91");
        let client = ("192.0.2.1", "5,1700000000");
        let digits = |text: &str| text.bytes().map(|b| format!("{b:02x}")).collect::<String>();
        let mut print =
            String::from("VERSION=3\nformat=print\ndatabase=postgrey.db\ntype=btree\nHEADER=END\n");
        let mut hex = String::from(
            "VERSION=3\nformat=bytevalue\ndatabase=postgrey_clients.db\ntype=btree\nHEADER=END\n",
        );
        let (mut tab, mut json) = (String::new(), String::new());
        for _ in 0..12 {
            let (key, value) = triplet;
            print.push_str(&format!(" {key}\n {value}\n"));
            tab.push_str(&format!("{key}\t{value}\n"));
            let (key, value) = client;
            hex.push_str(&format!(" {}\n {}\n", digits(key), digits(value)));
            json.push_str(
                &serde_json::json!({"key": key, "value": value, "database": "clients"}).to_string(),
            );
            json.push('\n');
        }
        print.push_str("DATA=END\n");
        hex.push_str("DATA=END\n");
        [print, hex, tab, json].map(String::into_bytes).to_vec()
    }

    const SCRAPS: [&[u8]; 14] = [
        b"\n",
        b"\t",
        b" ",
        b"\\",
        b"\0",
        b"\xff",
        b",",
        b"/",
        b"DATA=END\n",
        b"HEADER=END\n",
        b"VERSION=3\n",
        b"database=x\n",
        b"{\"key\":{}}\n",
        b"999999999999999999999999999999e999",
    ];

    /// The seed with up to eight pieces cut, doubled, overwritten or filled.
    fn varied(random: &mut Random, mut text: Vec<u8>) -> Vec<u8> {
        for _ in 0..=random.below(8) {
            let at = random.below(text.len());
            let end = (at + random.below(40)).min(text.len());
            match random.below(5) {
                0 => text.truncate(at),
                1 => {
                    let piece = text[at..end].to_vec();
                    text.splice(at..at, piece);
                }
                2 => {
                    text.drain(at..end);
                }
                3 => {
                    let octet = random.below(256) as u8;
                    if let Some(old) = text.get_mut(at) {
                        *old = octet;
                    }
                }
                _ => {
                    let scrap = SCRAPS[random.below(SCRAPS.len())];
                    text.splice(at..at, scrap.iter().copied());
                }
            }
        }
        text
    }

    #[test]
    fn ten_thousand_hostile_texts_are_refused_with_a_line_or_taken_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let seeds = seeds();
        for seed in &seeds {
            assert_eq!(try_text(seed, dir.path()), Ok(12));
        }
        let (mut refused, mut taken) = (0, 0);
        for round in 0..10_000 {
            let text = varied(&mut random, seeds[round % seeds.len()].clone());
            match try_text(&text, dir.path()) {
                Ok(_) => taken += 1,
                Err(message) => {
                    refused += 1;
                    let start = message.strip_prefix("ERROR: TEXT line ").expect(&message);
                    let (line, _) = start.split_once(": ").expect(&message);
                    let lines = text.iter().filter(|&&octet| octet == b'\n').count() + 1;
                    assert!(line.parse::<usize>().expect(&message) <= lines, "{message}");
                }
            }
        }
        assert!(refused > 500 && taken > 500, "{refused} {taken}");
    }
}
