//! `import`: records of the original, or of an export, into the database of a
//! server that may be running.
//!
//! First everything is read to its end into a spool; what is wrong with a text
//! is told with its line, and nothing is imported. Then the records go in,
//! some thousands in a transaction. That can fail only for want of space or of
//! the lock; what is in stays in, and the same import once more goes on, since
//! merging a record twice changes nothing.

mod addresses;
mod berkeley;
mod formats;
mod lines;
mod merge;
mod origin;
mod original;
mod source;
mod spool;
mod taking;
mod trust;

use std::io;
use std::path::Path;

use self::origin::Origin;
use self::source::Source;
use self::spool::{Section, SpoolReader, Spooled};
use self::taking::{Counts, Taking};
use super::environment::{become_owner, server_of};
use super::failure::Failure;
use super::opened::Opened;
use super::options::Id;
use super::output::Output;
use super::records::{database_with_name, objection, short_name};
use super::server_options;
use super::words::Words;
use crate::config::settings::Settings;
use crate::config::values;
use crate::policy::record::Database;
use crate::policy::rules::Rules;

/// What a section is taken for.
#[derive(Clone, Copy)]
struct SectionKind {
    database: Database,
    origin: Origin,
    /// The user says that it is of 1.36, or, of clients, what is beside it does.
    is_136: bool,
}

impl SectionKind {
    /// Brings a record into the form in which a server with these rules has it.
    fn convert(self, rules: &Rules, record: &mut Spooled) {
        record.value = self.origin.convert(self.database, &record.value);
        let key = addresses::converted(rules, self.database, self.is_136, &record.key);
        if let Some(key) = key {
            record.key = key;
        }
    }
}

/// Takes in a file, a directory or standard input.
pub fn run(words: &Words) -> Result<(), Failure> {
    let origin = match words.octets(Id::From) {
        None => None,
        Some(name) => Some(Origin::with_name(name).ok_or_else(|| {
            Failure::error(
                "--from must be postgrey-1.34, postgrey-1.36, postgrey-1.37, targrey-1.34 or \
                 targrey-1.37",
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
    let source = Source::open(words.operand(0))?;
    if database.is_some() && source.is_directory() {
        return Err(Failure::usage(
            "Option database is not one of import DIRECTORY",
        ));
    }
    become_owner(&dbdir)?;
    let (sections, mut records) = source.read(&dbdir)?;
    let kinds = kinds_of(&sections, database, origin);
    let reading = |error: io::Error| Failure::file(&dbdir, &error);
    refuse_foreign(&sections, &kinds, &mut records, reading)?;
    let mut opened = Opened::for_import(&settings, db_size)?;
    records.rewind().map_err(reading)?;
    let mut taking = Taking::new(&settings.rules, &sections, &kinds);
    let has_server = server_of(&dbdir)?.is_some();
    taking.take_all(opened.get(), has_server, &mut records, reading)?;
    report(&sections, &kinds, &taking.into_counts())
}

/// Reads a text of any format as an import would, up to where records go into
/// a database; `dir` is for the spool. Returns how many records it has, or what
/// is wrong with it, in one line that calls it TEXT.
pub fn try_text(text: &[u8], dir: &Path) -> Result<u64, String> {
    let reader = io::Cursor::new(text.to_vec());
    let source = Source::Text(Box::new(reader), "TEXT".into(), 0);
    let (sections, mut records) = source.read(dir).map_err(|failure| failure.message)?;
    let kinds = kinds_of(&sections, None, None);
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
            kind.convert(&Rules::default(), &mut record);
        }
        count += 1;
    }
    Ok(count)
}

/// What each section is taken for. A file of clients may not show who wrote it:
/// what is beside it tells.
fn kinds_of(
    sections: &[Section],
    given: Option<Database>,
    origin: Option<Origin>,
) -> Vec<SectionKind> {
    let is_declared = origin == Some(Origin::Postgrey136);
    let has_lengths = sections.iter().any(|section| section.looks.lengths > 0);
    let kind = |section: &Section| {
        let database = database_of(section, given);
        SectionKind {
            database,
            origin: origin.unwrap_or_else(|| section.looks.origin()),
            is_136: is_declared || (has_lengths && database == Database::Clients),
        }
    };
    sections.iter().map(kind).collect()
}

/// What the text says of itself counts more than the options, the name of the
/// file more than a guess.
fn database_of(section: &Section, given: Option<Database>) -> Database {
    let file = section.source.rsplit('/').next().unwrap_or_default();
    let is_part = |database: &Database| file.contains(database.name());
    section
        .named
        .or(given)
        .or_else(|| Database::ALL.into_iter().find(is_part))
        .unwrap_or_else(|| section.looks.database())
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

fn report(sections: &[Section], kinds: &[SectionKind], counts: &[Counts]) -> Result<(), Failure> {
    let mut output = Output::new();
    for ((section, kind), counts) in sections.iter().zip(kinds).zip(counts) {
        let Counts {
            taken,
            merged,
            kept,
            refused,
            expired,
        } = counts;
        let expired = match expired {
            0 => String::new(),
            _ => format!(", {expired} expired"),
        };
        let origin = match (kind.database, kind.origin) {
            _ if section.looks.records == 0 => "",
            (Database::Greylist, Origin::Postgrey134) => " of plain postgrey 1.34",
            (Database::Greylist, Origin::Postgrey136) => " of plain postgrey 1.36",
            (Database::Greylist, Origin::Postgrey137) => " of plain postgrey 1.37",
            (Database::Greylist, Origin::Targrey) => " with retry counts",
            _ => "",
        };
        output.line(format!(
            "{}: {} ({}){origin}: {taken} taken, {merged} merged, {kept} kept, {refused} refused{expired}",
            section.source,
            short_name(kind.database),
            kind.database.name(),
        ))?;
    }
    output.finish()
}

#[cfg(test)]
mod tests;
