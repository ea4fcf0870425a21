//! The report of the original: triplets that never came back.
//!
//! Without a database the log alone decides: a triplet is out if it passed, or if its
//! tries are as far apart as the delay.

mod clients;
mod database;
mod layout;
mod tries;

use std::hash::RandomState;

use super::options::Id;
use super::words::Words;
use super::{input, terms};
use crate::admin::failure::Failure;
use crate::admin::output::Output;
use crate::sys::clock;
use crate::sys::process::{become_user, find_identity, is_root};
use layout::Layout;
use tries::{Filter, Tries};

/// Seconds after which a try shows that a client comes back, as in the original.
const DELAY: f64 = 300.0;

/// Reads the logs and prints the report; returns why a log could not be read to its end.
pub fn run(words: &Words) -> Result<Vec<String>, Failure> {
    let delay = match words.value(Id::Delay) {
        None => DELAY,
        Some(text) => number(text)?,
    };
    let layout = Layout::new(words);
    let filter = Filter::new(words)?;
    let settings = terms::settings(words)?;
    let terms = terms::read(words, &settings)?;
    let hasher = RandomState::new();
    let mut tries = Tries::new(terms, filter, hasher.clone());
    let now = clock::seconds() as i64;
    let troubles = input::each_line(&words.logs, now, &mut |head, _| tries.add(head))?;
    let mut found = tries.finish();
    if words.has(Id::DbDir) || terms::has_database(&settings) {
        become_reader(words)?;
        let wanted = found.iter().flat_map(|one| one.keys).collect();
        let used = database::used_again(&settings, &wanted, &hasher, delay)?;
        // What the database does not know was removed from it, or never got there.
        found.retain(|one| one.keys.iter().all(|key| !used.contains(key)));
    } else {
        crate::admin::complain(&format!(
            "{}: there is no database: what came back is told from the log alone",
            settings.dbdir.display()
        ));
        found.retain(|one| !one.has_passed && ((one.last - one.first) as f64) < delay);
    }
    let mut output = Output::new();
    let mut text = Vec::new();
    layout.write(&found, &mut text);
    output.write(&text)?;
    output.finish()?;
    Ok(troubles)
}

/// Takes the identity that was asked for; the database is opened as its owner
/// otherwise.
fn become_reader(words: &Words) -> Result<(), Failure> {
    let Some(user) = words.value(Id::User).filter(|_| is_root()) else {
        return Ok(());
    };
    let identity = find_identity(&user.to_string_lossy(), None, "").map_err(Failure::error)?;
    become_user(&identity).map_err(Failure::error)
}

fn number(text: &std::ffi::OsStr) -> Result<f64, Failure> {
    let number = text.to_str().and_then(|text| text.parse::<f64>().ok());
    number.filter(|number| number.is_finite()).ok_or_else(|| {
        Failure::usage(format!(
            "Value \"{}\" invalid for option delay (number expected)",
            text.display()
        ))
    })
}
