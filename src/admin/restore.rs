//! `restore`: a backup in the place of the database.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::environment::{become_owner, open_file, server_of};
use super::failure::Failure;
use super::opened::refuse_elsewhere;
use super::output::Output;
use super::server_options::settings_of_store;
use super::verify::count_bad;
use super::words::Words;
use crate::store::lmdb::claim::restore_file;
use crate::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use crate::store::verify::verify_environment;
use crate::sys::files::{new_file, remove_if_there};
use crate::sys::lock::Claim;
use crate::sys::process::{ChildResult, run_in_child};

/// How long a session that commits is waited for.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Seconds after which reading a backup is given up.
const LONGEST_READ: u32 = 3600;

/// Copies the backup beside the database, verifies the copy, and puts it in place.
/// All the while no server and no other restore can begin.
pub fn run(words: &Words) -> Result<(), Failure> {
    let path = Path::new(OsStr::from_bytes(words.operand(0)));
    let dbdir = words.dbdir();
    refuse_elsewhere(
        &settings_of_store(words)?,
        "its own programs put copies in place",
    )?;
    // With the caller's rights, since he names a path of his own; what lies beside the
    // database is read with those of its owner, who could have put a link there.
    let is_beside =
        is_in(path, &dbdir) || fs::canonicalize(path).is_ok_and(|path| is_in(&path, &dbdir));
    if is_beside {
        become_owner(&dbdir)?;
    }
    let mut source = open_source(path)?;
    become_owner(&dbdir)?;
    let mut store = LmdbStore::new(LmdbOptions {
        dir: dbdir.clone(),
        map_size: 0,
        purpose: Purpose::WriteFlushed,
        patience: PATIENCE,
    });
    let lock = store.lock();
    let taken = lock.try_lock(Claim::Daemon);
    if !taken.map_err(|error| Failure::file(lock.path(), &error))? {
        let pid = server_of(&dbdir)?.unwrap_or_default();
        let why = format!("a server runs (process {pid}): stop it first");
        return Err(Failure::error(why));
    }
    let part = restore_file(&dbdir);
    let restored = copy(&mut *source, path, &part)
        .and_then(|()| verified(&part, path))
        .and_then(|records| Ok((records, store.restore(&part)?)));
    let (records, kept) = match restored {
        Ok(restored) => restored,
        Err(failure) => {
            remove_if_there(&part).map_err(|error| Failure::file(&part, &error))?;
            return Err(failure);
        }
    };
    let mut output = Output::new();
    output.line(format!("{}: {records} restored", dbdir.display()))?;
    if let Some(kept) = kept {
        output.line(format!("what was there is kept as {}", kept.display()))?;
    }
    output.finish()
}

/// True if a path lies in the directory itself.
fn is_in(path: &Path, dir: &Path) -> bool {
    let parent = path
        .parent()
        .and_then(|parent| fs::canonicalize(parent).ok());
    parent.is_some() && parent == fs::canonicalize(dir).ok()
}

fn open_source(path: &Path) -> Result<Box<dyn Read>, Failure> {
    if path == Path::new("-") {
        return Ok(Box::new(io::stdin()));
    }
    let failed = |error: io::Error| Failure::file(path, &error);
    let file = File::open(path).map_err(failed)?;
    match file.metadata().map_err(failed)?.is_dir() {
        true => Err(Failure::error(format!(
            "{}: Is a directory",
            path.display()
        ))),
        false => Ok(Box::new(file)),
    }
}

fn copy(source: &mut dyn Read, path: &Path, part: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::file(part, &error);
    // Of a run that was killed: nobody uses it.
    remove_if_there(part).map_err(failed)?;
    let mut file = new_file(part).map_err(failed)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = match source.read(&mut buffer) {
            Ok(0) => return file.sync_all().map_err(failed),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            length => length.map_err(|error| Failure::file(path, &error))?,
        };
        file.write_all(&buffer[..length]).map_err(failed)?;
    }
}

/// Reads the whole copy in a process of its own, which may die of it. What there is,
/// in words.
fn verified(part: &Path, path: &Path) -> Result<String, Failure> {
    let (part_text, path_text) = (part.display().to_string(), path.display().to_string());
    let read = || {
        let mut store = open_file(part).map_err(|failure| failure.message)?;
        let records = verify_environment(&mut store).map_err(|error| format!("ERROR: {error}"))?;
        let bad = count_bad(&mut store).map_err(|failure| failure.message)?;
        Ok(match bad {
            0 => format!("{records} records"),
            bad => format!("{records} records, {bad} bad ones among them (see verify),"),
        })
    };
    let damaged = || format!("ERROR: damaged: {path_text}: reading it has failed");
    match run_in_child(LONGEST_READ, read) {
        Ok(ChildResult::Ok(records)) => Ok(records),
        Ok(ChildResult::Err(why)) if why.is_empty() => Err(Failure::no(damaged())),
        Ok(ChildResult::Err(why)) => Err(Failure::no(why.replace(&part_text, &path_text))),
        Ok(ChildResult::Crashed(_)) => Err(Failure::no(damaged())),
        Err(error) => Err(Failure::error(format!("cannot verify: {error}"))),
    }
}
