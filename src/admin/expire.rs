//! `expire`: the maintenance of the server, now, by the rules given.

use super::failure::Failure;
use super::opened::Opened;
use super::output::Output;
use super::progress::Progress;
use super::server_options;
use super::words::Words;
use crate::store::expiry::{Expiry, Progress as Slice, finished_line};
use crate::sys::clock;

/// Removes expired records and says how many there were, in the words of the
/// server's log.
pub fn run(words: &Words) -> Result<(), Failure> {
    let settings = server_options::settings(words)?;
    let rules = &settings.rules;
    let mut opened = Opened::for_writing(&settings)?;
    let store = opened.lmdb_for("records expire there by themselves")?;
    let total = store.space()?.records.iter().sum();
    let mut progress = Progress::new("expiring", total);
    let mut output = Output::new();
    let mut expiry = Expiry::new(rules, clock::seconds());
    loop {
        let seen = expiry.seen();
        match expiry.step(store, rules)? {
            Slice::More => progress.add(expiry.seen() - seen),
            Slice::Finished {
                database,
                before,
                after,
            } => {
                progress.add(before.saturating_sub(seen));
                output.line(finished_line(database, before, after))?;
            }
            Slice::Done => return output.finish(),
        }
    }
}
