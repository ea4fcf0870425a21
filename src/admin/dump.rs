//! `dump`: key, tab, value; for scripts and tests.

use super::escape::push_escaped;
use super::failure::Failure;
use super::opened::Opened;
use super::options::Id;
use super::output::Output;
use super::records::{database_with_name, each_record};
use super::server_options::settings_of_store;
use super::words::Words;

/// Prints the records of one database.
pub fn run(words: &Words) -> Result<(), Failure> {
    let database = database_with_name(words.operand(0))?;
    let mut opened = Opened::for_reading(&settings_of_store(words)?)?;
    let mut output = Output::new();
    let is_escaped = words.has(Id::Escape);
    let mut line = Vec::new();
    each_record(opened.get(), database, b"", &mut |record| {
        line.clear();
        if is_escaped {
            push_escaped(&mut line, &record.key);
            line.push(b'\t');
            push_escaped(&mut line, &record.value);
        } else {
            line.extend_from_slice(&record.key);
            line.push(b'\t');
            line.extend_from_slice(&record.value);
        }
        output.line(&line)
    })?;
    output.finish()
}
