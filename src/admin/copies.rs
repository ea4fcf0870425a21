//! `backup` and `compact`: copies of the whole database.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::opened::Opened;
use super::output::Output;
use super::progress::Progress;
use super::server_options::settings_of_store;
use super::words::Words;
use crate::config::settings::Settings;
use crate::store::lmdb::LmdbStore;
use crate::store::lmdb::claim::data_file;
use crate::sys::files::{new_file, remove_if_there};
use crate::sys::poll::{Interest, PollSet, Readiness};
use crate::sys::process::{self, Side};
use crate::sys::signals::{self, Blocked};

/// How often the progress of a copy is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Why there is no copy of a store that is no file.
const COPIES: &str = "its own programs make copies, and export writes all records as text";
/// How long the reader of a copy may take nothing.
const STALL_LIMIT: Duration = Duration::from_secs(60);

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
        let settings = settings_of_store(words)?;
        return copy_to_reader(Opened::for_reading(&settings)?.lmdb_for(COPIES)?, file);
    }
    let path = PathBuf::from(OsStr::from_bytes(name));
    // With the caller's rights: he names a path of his own. A child takes the
    // rights of the server's user, so that this process can remove the file.
    let failed = |error: io::Error| Failure::file(&path, &error);
    let settings = settings_of_store(words)?;
    let file = new_file(&path).map_err(failed)?;
    let blocked = signals::block_all().map_err(failed)?;
    let status = copy_in_child(&settings, &path, &file, &blocked).map_err(failed);
    if status != Ok(0) || blocked.is_ended() {
        remove_if_there(&path).map_err(failed)?;
    }
    match status? {
        0 => Ok(()),
        // It has said why.
        status => Err(Failure::new("", status)),
    }
}

/// Copies the database into a file in a child process, and returns its status.
/// Signals reach the child alone until then.
fn copy_in_child(
    settings: &Settings,
    path: &Path,
    file: &File,
    blocked: &Blocked,
) -> io::Result<i32> {
    match process::fork()? {
        Side::Parent(pid) => process::status_of(pid),
        Side::Child => {
            blocked.lift();
            let copied = Opened::for_reading(settings)
                .and_then(|mut opened| copy(opened.lmdb_for(COPIES)?, path, file));
            std::process::exit(copied.map_or_else(|failure| failure.report(), |()| 0));
        }
    }
}

/// Copies the database to whoever reads standard output. While it goes on the
/// pages of its moment cannot be used again and the file grows, so a reader that
/// takes nothing for [`STALL_LIMIT`] ends it.
fn copy_to_reader(store: &mut LmdbStore, mut output: File) -> Result<(), Failure> {
    let (read_end, write_end) =
        io::pipe().map_err(|error| Failure::error(format!("pipe: {error}")))?;
    let write_end = File::from(OwnedFd::from(write_end));
    thread::scope(|scope| {
        let relay = scope.spawn(move || relay(read_end, &mut output));
        let copied = store.copy_to(&write_end);
        drop(write_end);
        match relay.join() {
            Ok(Ok(())) => Ok(copied?),
            Ok(Err(error)) => Err(Failure::error(format!("standard output: {error}"))),
            Err(_) => Err(Failure::error("standard output: the copy was cut off")),
        }
    })
}

/// Passes octets on, as long as they are taken.
fn relay(mut from: impl Read, to: &mut File) -> io::Result<()> {
    // So much goes into a pipe without a wait when it is ready at all.
    let mut buffer = [0; 4096];
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let mut poll = PollSet::default();
        poll.set(0, to, Interest::OUTPUT);
        let begun = Instant::now();
        while poll.readiness(0) == Readiness::default() {
            let left = STALL_LIMIT.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let seconds = STALL_LIMIT.as_secs();
                return Err(io::Error::other(format!("not read for {seconds} s")));
            }
            poll.wait(Some(left))?;
        }
        to.write_all(&buffer[..length])?;
    }
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

/// `compact`: a copy without free pages in the place of the database. No server
/// may run, and nobody else may have the environment open.
pub fn compact(words: &Words) -> Result<(), Failure> {
    let dbdir = words.dbdir();
    let mut opened = Opened::for_writing(&settings_of_store(words)?)?;
    let store = opened.lmdb_for("its own program has the space")?;
    let (data, part) = (data_file(&dbdir), dbdir.join("data.mdb.compact"));
    let (mut before, mut after) = (0, 0);
    store.replace(|store| -> Result<PathBuf, Failure> {
        let failed = |error: io::Error| Failure::file(&part, &error);
        before = fs::metadata(&data)
            .map_err(|error| Failure::file(&data, &error))?
            .len();
        // Of a run that was killed: nobody uses it.
        remove_if_there(&part).map_err(failed)?;
        let file = new_file(&part).map_err(failed)?;
        if let Err(failure) = copy(store, &part, &file) {
            fs::remove_file(&part).map_err(failed)?;
            return Err(failure);
        }
        after = file.metadata().map_err(failed)?.len();
        Ok(part.clone())
    })?;
    let mut output = Output::new();
    output.line(format!(
        "{}: {before} octets before, {after} after",
        data.display()
    ))?;
    output.finish()
}
