//! `restore`: a backup in the place of the database.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::environment::{become_owner, open_file, server_of};
use super::failure::Failure;
use super::output::Output;
use super::words::Words;
use crate::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use crate::store::verify::verify_environment;
use crate::sys::files::{new_file, remove_if_there};
use crate::sys::process::{ChildResult, run_in_child};

/// How long a session that commits is waited for.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Seconds after which reading a backup is given up.
const LONGEST_READ: u32 = 3600;

/// Copies the backup beside the database, verifies the copy, and puts it in place.
pub fn run(words: &Words) -> Result<(), Failure> {
    // With the caller's rights: he names a path of his own.
    let path = Path::new(OsStr::from_bytes(words.operand(0)));
    let mut source: Box<dyn Read> = match words.operand(0) {
        b"-" => Box::new(io::stdin()),
        _ => Box::new(File::open(path).map_err(|error| Failure::file(path, &error))?),
    };
    let dbdir = words.dbdir();
    become_owner(&dbdir)?;
    let mut store = LmdbStore::new(LmdbOptions {
        dir: dbdir.clone(),
        map_size: 0,
        purpose: Purpose::WriteFlushed,
        patience: PATIENCE,
    });
    if let Some(pid) = server_of(&store)? {
        let why = format!("a server runs (process {pid}): stop it first");
        return Err(Failure::error(why));
    }
    let part = dbdir.join("data.mdb.restore");
    let restored = copy(&mut source, &part)
        .and_then(|()| verified(&part))
        .and_then(|records| Ok((records, store.restore(&part)?)));
    let (records, kept) = match restored {
        Ok(restored) => restored,
        Err(failure) => {
            remove_if_there(&part).map_err(|error| Failure::file(&part, &error))?;
            return Err(failure);
        }
    };
    let mut output = Output::new();
    output.line(format!("{}: {records} records restored", dbdir.display()))?;
    if let Some(kept) = kept {
        output.line(format!("what was there is kept as {}", kept.display()))?;
    }
    output.finish()
}

fn copy(source: &mut dyn Read, part: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::file(part, &error);
    // Of a run that was killed: nobody uses it.
    remove_if_there(part).map_err(failed)?;
    let mut file = new_file(part).map_err(failed)?;
    io::copy(source, &mut file).map_err(failed)?;
    file.sync_all().map_err(failed)
}

/// Reads the whole copy in a process of its own, which may die of it. How many
/// records there are.
fn verified(part: &Path) -> Result<String, Failure> {
    let read = || {
        let mut store = open_file(part).map_err(|failure| failure.message)?;
        let records = verify_environment(&mut store);
        records
            .map(|records| records.to_string())
            .map_err(|error| format!("ERROR: {error}"))
    };
    let damaged = || format!("ERROR: damaged: {}: reading it has failed", part.display());
    match run_in_child(LONGEST_READ, read) {
        Ok(ChildResult::Ok(records)) => Ok(records),
        Ok(ChildResult::Err(why)) if why.is_empty() => Err(Failure::no(damaged())),
        Ok(ChildResult::Err(why)) => Err(Failure::no(why)),
        Ok(ChildResult::Crashed(_)) => Err(Failure::no(damaged())),
        Err(error) => Err(Failure::error(format!("cannot verify: {error}"))),
    }
}
