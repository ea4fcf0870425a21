//! `backup` and `compact`: copies of the whole database.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use super::environment::{LiveStore, open_reader, open_writer};
use super::failure::Failure;
use super::output::Output;
use super::progress::Progress;
use super::words::Words;
use crate::store::copies::{NOTICE, new_file, put_in_place, remove_if_there};
use crate::store::lmdb::LmdbStore;
use crate::sys::lock::Claim;

/// How often the progress of a copy is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// `backup FILE|-`: what the database was at one moment, as a `data.mdb`.
pub fn backup(words: &Words) -> Result<(), Failure> {
    let name = words.operand(0);
    if name == b"-" {
        if io::stdout().is_terminal() {
            return Err(Failure::error("a database does not go to a terminal"));
        }
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        let file = File::from(
            stdout.map_err(|error| Failure::error(format!("standard output: {error}")))?,
        );
        return Ok(open_reader(&words.dbdir())?.copy_to(&file)?);
    }
    let path = PathBuf::from(OsStr::from_bytes(name));
    // With the caller's rights: he names a path of his own.
    let file = new_file(&path).map_err(|error| Failure::file(&path, &error))?;
    let result = open_reader(&words.dbdir()).and_then(|mut store| copy(&mut store, &path, &file));
    if result.is_err() {
        // The directory may no longer be ours to change; then the file is
        // left empty, which no one takes for a backup.
        let _ = fs::remove_file(&path).or_else(|_| file.set_len(0));
    }
    result
}

/// Copies the database into a file. LMDB does it in one call, so another thread
/// looks how far it has come.
fn copy(store: &mut LmdbStore, path: &Path, file: &File) -> Result<(), Failure> {
    let space = store.space()?;
    let total = space.used_pages.saturating_sub(space.free_pages) * space.page_size;
    let is_done = AtomicBool::new(false);
    let copied = thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut progress = Progress::new("copying", total);
            let mut seen = 0;
            while !is_done.load(Ordering::Relaxed) {
                let size = file.metadata().map_or(seen, |metadata| metadata.len());
                progress.add(size.saturating_sub(seen));
                seen = size.max(seen);
                thread::park_timeout(LOOK);
            }
        });
        let copied = store.copy_to(file);
        is_done.store(true, Ordering::Relaxed);
        watcher.thread().unpark();
        copied
    });
    copied?;
    file.sync_all().map_err(|error| Failure::file(path, &error))
}

/// `compact`: a copy without free pages in the place of the database.
///
/// The copy begins a new count of transactions, which nobody who has the old
/// file open may meet: so no server may run, nobody else may have the
/// environment open, and its lock file goes with the old file. The claim to
/// commit is kept until every process that opened the old file in the last
/// moment has noticed.
pub fn compact(words: &Words) -> Result<(), Failure> {
    let dbdir = words.dbdir();
    let mut store = open_writer(&dbdir)?;
    if let Some(pid) = store.server()? {
        return Err(Failure::error(format!(
            "a server runs (process {pid}): stop it first"
        )));
    }
    let lock_failed = |error: io::Error| Failure::error(format!("{}: {error}", dbdir.display()));
    for claim in [Claim::Daemon, Claim::Commit] {
        if !store.lock().try_lock(claim).map_err(lock_failed)? {
            return Err(Failure::error(
                "another process has just begun to write: try again",
            ));
        }
    }
    refuse_company(&mut store)?;
    let (data, part) = (dbdir.join("data.mdb"), dbdir.join("data.mdb.compact"));
    let failed = |error: io::Error| Failure::file(&part, &error);
    let before = fs::metadata(&data)
        .map_err(|error| Failure::file(&data, &error))?
        .len();
    // Of a run that was killed: nobody uses it.
    remove_if_there(&part).map_err(failed)?;
    let file = new_file(&part).map_err(failed)?;
    let copied = copy(store.environment(), &part, &file).and_then(|()| refuse_company(&mut store));
    if let Err(failure) = copied {
        fs::remove_file(&part).map_err(failed)?;
        return Err(failure);
    }
    let after = file.metadata().map_err(failed)?.len();
    let lock = store.into_lock();
    put_in_place(&part, &dbdir).map_err(failed)?;
    sleep(NOTICE);
    drop(lock);
    let mut output = Output::new();
    output.line(format!(
        "{}: {before} octets before, {after} after",
        data.display()
    ))?;
    output.finish()
}

/// Fails if another process has the environment open.
fn refuse_company(store: &mut LiveStore) -> Result<(), Failure> {
    store.environment().clear_stale_readers()?;
    let readers = store.environment().readers()?;
    let own = std::process::id();
    match readers
        .iter()
        .find(|reader| u32::try_from(reader.pid) != Ok(own))
    {
        None => Ok(()),
        Some(other) => Err(Failure::error(format!(
            "process {} uses the database: nobody else may while it is compacted",
            other.pid
        ))),
    }
}
