//! `export`: all records as text that `import`, and in its first form Berkeley
//! DB's `db_load`, read again.

use super::escape::{escaped, push_escaped};
use super::failure::Failure;
use super::opened::Opened;
use super::options::Id;
use super::output::Output;
use super::progress::Progress;
use super::records::{Copied, database_with_name, each_record, short_name};
use super::server_options::settings_of_store;
use super::words::Words;
use crate::policy::record::Database;

#[derive(Clone, Copy, PartialEq)]
enum Format {
    /// As `db_dump -p` writes it.
    DbDump,
    /// Key, tab, value, escaped.
    Tab,
    /// One object a line.
    Json,
}

/// Writes one database or all.
pub fn run(words: &Words) -> Result<(), Failure> {
    let format = match words.octets(Id::Format) {
        None | Some(b"db_dump") => Format::DbDump,
        Some(b"tab") => Format::Tab,
        Some(b"json") => Format::Json,
        Some(_) => return Err(Failure::error("--format must be db_dump, tab or json")),
    };
    let (databases, is_alone) = match words.operands.is_empty() {
        true => (Database::ALL.to_vec(), false),
        false => (vec![database_with_name(words.operand(0))?], true),
    };
    let mut opened = Opened::for_reading(&settings_of_store(words)?)?;
    let mut output = Output::new();
    let mut progress = Progress::new("exporting", 0);
    let mut line = Vec::new();
    for database in databases {
        if format == Format::DbDump {
            output.write(header(database, is_alone).as_bytes())?;
        }
        each_record(opened.get(), database, b"", &mut |record| {
            line.clear();
            push_record(&mut line, format, database, is_alone, record);
            progress.add(1);
            output.line(&line)
        })?;
        if format == Format::DbDump {
            output.line("DATA=END")?;
        }
    }
    output.finish()
}

/// A single database goes without its name: with it `db_load` would make a
/// database inside a database.
fn header(database: Database, is_alone: bool) -> String {
    let name = match is_alone {
        true => String::new(),
        false => format!("database={}\n", database.name()),
    };
    format!("VERSION=3\nformat=print\n{name}type=btree\nHEADER=END\n")
}

fn push_record(
    line: &mut Vec<u8>,
    format: Format,
    database: Database,
    is_alone: bool,
    record: &Copied,
) {
    match format {
        Format::DbDump => {
            line.push(b' ');
            push_escaped(line, &record.key);
            line.extend_from_slice(b"\n ");
            push_escaped(line, &record.value);
        }
        Format::Tab => {
            if !is_alone {
                line.extend_from_slice(short_name(database).as_bytes());
                line.push(b'\t');
            }
            push_escaped(line, &record.key);
            line.push(b'\t');
            push_escaped(line, &record.value);
        }
        Format::Json => {
            let object = serde_json::json!({
                "database": short_name(database),
                "key": escaped(&record.key),
                "value": escaped(&record.value),
            });
            line.extend_from_slice(object.to_string().as_bytes());
        }
    }
}
