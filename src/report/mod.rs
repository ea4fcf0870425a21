//! postgreyreport: what greylisting does, told from mail logs.
//!
//! It stands beside [`crate::admin`], whose output, failures and progress it uses.

mod database;
mod fatal;
mod follow;
mod html;
pub mod input;
pub mod options;
pub mod summary;
pub mod tally;
mod terms;
mod words;

use std::ffi::OsString;

use crate::admin::failure::Failure;
use crate::admin::output::Output;
use crate::config::settings::Settings;
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
    if words.has(Id::Follow) {
        return follow::run(words);
    }
    let page = match words.value(Id::Html) {
        None => None,
        Some(path) => Some(html::Page::open(path.as_ref())?),
    };
    if page.is_none() && !words.has(Id::Summary) {
        return finish(&fatal::run(words)?);
    }
    let settings = terms::settings(words)?;
    let (summary, mut troubles) = summarise(words, &settings)?;
    if let Some(page) = page {
        let databases = databases(&settings).unwrap_or_else(|failure| {
            // The page tells what the logs do.
            troubles.push(failure.message);
            None
        });
        page.write(&summary, databases.as_ref())?;
        if !words.has(Id::Summary) {
            return finish(&troubles);
        }
    }
    if words.has(Id::Json) {
        let mut output = Output::new();
        for piece in summary::json::pieces(&summary) {
            output.write(piece.as_bytes())?;
        }
        output.finish()?;
    } else if words.has(Id::Csv) {
        print(summary::csv::lines(&summary))?;
    } else {
        print(summary::text::lines(&summary))?;
    }
    finish(&troubles)
}

/// What the database holds; `None` if there is none.
fn databases(settings: &Settings) -> Result<Option<database::Databases>, Failure> {
    match terms::has_database(settings) {
        true => database::count(settings, clock::seconds()).map(Some),
        false => Ok(None),
    }
}

/// What was read is told; a log that could not be read to its end makes the status 1.
fn finish(troubles: &[String]) -> Result<(), Failure> {
    match troubles.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(troubles.join("\n"), 1)),
    }
}

/// Reads the logs and puts the summary together.
fn summarise(words: &Words, settings: &Settings) -> Result<(Summary, Vec<String>), Failure> {
    let mut tally = Tally::new(terms::read(words, settings)?);
    if words.has(Id::Html) {
        tally = tally.with_hours();
    }
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
