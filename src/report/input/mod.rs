//! The logs: files or standard input, as lines in the order of their times.
//!
//! Logs may be given in any order, as a shell names them, and be those of several
//! machines: each is opened when its time has come, so that few are open at once.

mod compressed;
mod journal;
pub mod lines;
mod source;

use std::path::PathBuf;

use crate::admin::failure::Failure;
use crate::admin::progress::Progress;
use crate::mail_log::head::Head;
use source::Source;

/// Reads all logs and hands each line over, in the order of their times; the second
/// argument says from which log it comes. Returns why a log could not be read to its
/// end.
pub fn each_line(
    logs: &[PathBuf],
    now: i64,
    visit: &mut dyn FnMut(&Head, usize),
) -> Result<Vec<String>, Failure> {
    let logs = &without_doubles(logs);
    let mut troubles = Vec::new();
    let mut waiting = Vec::new();
    for (index, path) in logs.iter().enumerate() {
        waiting.push((first_time(logs, path, now)?, index));
    }
    if logs.is_empty() {
        waiting.push((i64::MIN, 0));
    }
    // The last one is opened first.
    waiting.sort_by(|a, b| b.cmp(a));
    let size = logs.iter().map(|path| source::size(path)).sum();
    let mut progress = Progress::of_octets("reading", size);
    let mut open: Vec<(Source, usize)> = Vec::new();
    loop {
        let earliest = open.iter().map(|(source, _)| source.time()).min();
        if let Some(&(time, index)) = waiting.last()
            && earliest.is_none_or(|earliest| time <= earliest)
        {
            waiting.pop();
            let mut source = Source::open(logs.get(index).map(PathBuf::as_path), now)?;
            if go_on(&mut source, &mut troubles) {
                open.push((source, index));
            }
            continue;
        }
        let Some(earliest) = earliest else {
            return Ok(troubles);
        };
        let Some(at) = open
            .iter()
            .position(|(source, _)| source.time() == earliest)
        else {
            return Ok(troubles);
        };
        // As long as its lines are the earliest, no other log is looked at.
        let others = open.iter().enumerate().filter(|(other, _)| *other != at);
        let later = others
            .map(|(_, (source, _))| source.time())
            .chain(waiting.last().map(|(time, _)| *time))
            .min();
        let (source, index) = &mut open[at];
        loop {
            visit(&source.head(), *index);
            let more = go_on(source, &mut troubles);
            progress.add(source.take_read());
            if !more {
                open.remove(at);
                break;
            }
            if later.is_some_and(|later| later < source.time()) {
                break;
            }
        }
    }
}

/// The logs without those that are there under another name, or twice: their lines would
/// be counted twice.
pub fn without_doubles(logs: &[PathBuf]) -> Vec<PathBuf> {
    let mut known = Vec::new();
    let mut kept = Vec::new();
    for path in logs {
        let identity = source::identity(path);
        if identity.is_some() && known.contains(&identity) {
            let path = path.display();
            crate::admin::complain(&format!("WARNING: {path} is given twice"));
            continue;
        }
        known.push(identity);
        kept.push(path.clone());
    }
    kept
}

/// Goes to the next line; false at the end, or where a log cannot be read further.
fn go_on(source: &mut Source, troubles: &mut Vec<String>) -> bool {
    source.advance().unwrap_or_else(|failure| {
        troubles.push(failure.message);
        false
    })
}

/// When the first line of a log was written; the earliest time if that is not known, or
/// there is nothing to put in order. What is no regular file can be read only once: it is
/// opened first.
fn first_time(logs: &[PathBuf], path: &std::path::Path, now: i64) -> Result<i64, Failure> {
    if logs.len() < 2 || path.as_os_str() == "-" || !source::is_regular(path) {
        return Ok(i64::MIN);
    }
    let mut source = Source::open(Some(path), now)?;
    for _ in 0..1000 {
        // What cannot be read will be told when it is read.
        if !source.advance().unwrap_or(false) {
            break;
        }
        if source.has_time() {
            return Ok(source.time());
        }
    }
    Ok(i64::MIN)
}
