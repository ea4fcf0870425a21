//! `dump`: key, tab, value; for scripts and tests.

use super::environment::open_reader;
use super::escape::push_escaped;
use super::failure::Failure;
use super::options::Id;
use super::output::Output;
use super::records::{database_with_name, each_record};
use super::words::Words;

/// Prints the records of one database.
pub fn run(words: &Words) -> Result<(), Failure> {
    let database = database_with_name(words.operand(0))?;
    let mut store = open_reader(&words.dbdir())?;
    let mut output = Output::new();
    let is_escaped = words.has(Id::Escape);
    let mut line = Vec::new();
    each_record(&mut store, database, b"", &mut |record| {
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
