//! postgreyreport: what greylisting does, told from mail logs.
//!
//! It stands beside [`crate::admin`], whose output, failures and progress it uses.

mod fatal;
pub mod input;
pub mod options;
pub mod summary;
pub mod tally;
mod terms;
mod words;

use std::ffi::OsString;

use crate::admin::failure::Failure;
use crate::admin::output::Output;
use crate::sys::clock;
use crate::sys::process::lower_priority;
use options::Id;
use summary::Summary;
use tally::Tally;
use words::Words;

/// Does what the command line asks for; returns the exit status.
pub fn run(args: &[OsString]) -> i32 {
    match Words::read(args).and_then(|words| answer(&words)) {
        Ok(()) => 0,
        Err(failure) => failure.report(),
    }
}

fn answer(words: &Words) -> Result<(), Failure> {
    if words.has(Id::Help) {
        return print([options::help_text().trim_end()]);
    }
    if words.has(Id::Version) {
        return print([&format!("postgreyreport {}", crate::config::VERSION)]);
    }
    words.check()?;
    lower_priority();
    if !words.has(Id::Summary) {
        return finish(&fatal::run(words)?);
    }
    let (summary, troubles) = summarise(words)?;
    if words.has(Id::Json) {
        print([summary::json::value(&summary).to_string()])?;
    } else if words.has(Id::Csv) {
        print(summary::csv::lines(&summary))?;
    } else {
        print(summary::text::lines(&summary))?;
    }
    finish(&troubles)
}

/// What was read is told; a log that could not be read to its end makes the status 1.
fn finish(troubles: &[String]) -> Result<(), Failure> {
    match troubles.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(troubles.join("\n"), 1)),
    }
}

/// Reads the logs and puts the summary together.
fn summarise(words: &Words) -> Result<(Summary, Vec<String>), Failure> {
    let mut tally = Tally::new(terms::read(words)?);
    let now = clock::seconds() as i64;
    let troubles = input::each_line(&words.logs, now, &mut |head, log| tally.add(head, log))?;
    let mut summary = Summary::new(&mut tally);
    let incomplete = troubles.iter().map(|trouble| {
        let why = trouble.trim_start_matches("ERROR: ");
        format!("incomplete: a log could not be read to its end: {why}")
    });
    summary.notes.splice(0..0, incomplete);
    Ok((summary, troubles))
}

fn print(lines: impl IntoIterator<Item = impl AsRef<str>>) -> Result<(), Failure> {
    let mut output = Output::new();
    for line in lines {
        output.line(line.as_ref())?;
    }
    output.finish()
}
