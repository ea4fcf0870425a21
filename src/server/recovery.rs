//! What makes `--sync=none` bearable: a mark that the database may not be whole
//! on the disk, a look at it where that mark is left, and the last copy for the
//! worst case.
//!
//! The mark is made before the first commit that is not flushed and goes when
//! everything is. A server that finds it knows that the machine may have gone
//! down, and the disk may hold any mixture of old and new pages. So it reads
//! everything in a process of its own, which a damaged file may well end. What
//! could be read is written anew: pages that look sound may be on the list of
//! free ones as well, and a new file has a new list.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::unistd::Pid;

use crate::log::{Level, Log};
use crate::store::copies::{
    NOTICE, is_marked, look_through, mark_of, new_file, put_in_place, remove_if_there,
};
use crate::store::lmdb::LmdbStore;
use crate::sys::clock;
use crate::sys::lock::{Claim, LockFile};
use crate::sys::process::{self, Apart};

/// How old a copy gets before the next is made.
const COPY_INTERVAL: Duration = Duration::from_secs(3600);
/// How long another process may hold the claim to commit.
const PATIENCE: Duration = Duration::from_secs(10);
/// Seconds after which a database that is still not read is used as it is.
const LONGEST_LOOK: u32 = 600;
/// Where a damaged database stays for whoever wants to look at it.
const DAMAGED: &str = "data.mdb.damaged";
/// What the mark says to whoever opens it.
const MARK_TEXT: &str =
    "A server with --sync=none uses the database, or did not come to its end.\n";

fn copy_of(dbdir: &Path) -> PathBuf {
    dbdir.join("data.mdb.copy")
}

/// Notes on the disk that commits are not flushed from now on.
pub fn set_mark(dbdir: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(mark_of(dbdir))?;
    file.write_all(MARK_TEXT.as_bytes())?;
    file.sync_all()?;
    File::open(dbdir)?.sync_all()
}

/// Notes that everything is on the disk.
pub fn remove_mark(dbdir: &Path) -> io::Result<()> {
    remove_if_there(&mark_of(dbdir))
}

/// Looks after a database whose mark was left, before anybody opens it; the
/// mark goes if all is on the disk now. `lock` keeps others from committing
/// meanwhile.
pub fn recover(dbdir: &Path, lock: &LockFile, log: &Log) -> io::Result<()> {
    if !is_marked(dbdir) {
        return Ok(());
    }
    let start = Instant::now();
    while !lock.try_lock(Claim::Commit)? {
        if start.elapsed() > PATIENCE {
            return Err(io::Error::other("another process keeps it locked"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    // Another session of spawn(8) may have been quicker.
    let result = match is_marked(dbdir) {
        true => recover_alone(dbdir, log),
        false => Ok(()),
    };
    lock.unlock(Claim::Commit)?;
    result
}

fn recover_alone(dbdir: &Path, log: &Log) -> io::Result<()> {
    if dbdir.join("data.mdb").exists() {
        match look_apart(dbdir)? {
            Ok(records) => {
                let line = format!("the server had not ended in order: {records} records verified");
                log.write(Level::Warning, line.as_bytes());
                write_anew(dbdir)?;
            }
            Err(why) => {
                let instead = replace(dbdir)?;
                log.complain(&format!(
                    "the database is damaged ({why}): {instead} takes its place"
                ));
            }
        }
        // Who has the old file open looks every second if it is still there.
        std::thread::sleep(NOTICE);
    }
    remove_mark(dbdir)
}

/// Puts the copy in the place of a damaged database, if it is sound, else
/// nothing; says what.
fn replace(dbdir: &Path) -> io::Result<String> {
    if let Ok(metadata) = fs::metadata(copy_of(dbdir)) {
        let kept = dbdir.join(DAMAGED);
        remove_if_there(&kept)?;
        fs::hard_link(dbdir.join("data.mdb"), kept)?;
        put_in_place(&copy_of(dbdir), dbdir)?;
        if let Ok(records) = look_apart(dbdir)? {
            let made = local_time(metadata.modified()?);
            return Ok(format!("the copy of {made} with {records} records"));
        }
        put_aside(dbdir, "data.mdb.copy.damaged")?;
    } else {
        put_aside(dbdir, DAMAGED)?;
    }
    Ok("an empty one".to_string())
}

fn put_aside(dbdir: &Path, name: &str) -> io::Result<()> {
    fs::rename(dbdir.join("data.mdb"), dbdir.join(name))?;
    remove_if_there(&dbdir.join("lock.mdb"))
}

/// Reads the database in a process of its own: how many records there are, or
/// what the damage is. An error is the system's.
fn look_apart(dbdir: &Path) -> io::Result<Result<String, String>> {
    const REFUSED: &str = "\0";
    let ended = process::run_apart(LONGEST_LOOK, || {
        match look_through(&mut LmdbStore::new_reader(dbdir)) {
            Ok(records) => Ok(records.to_string()),
            Err(error) if error.is_of_system => Err(format!("{REFUSED}{error}")),
            Err(error) => Err(format!("{}: {}", error.call, error.reason)),
        }
    })?;
    match ended {
        Apart::Said(Ok(records)) => Ok(Ok(records)),
        Apart::Said(Err(why)) => match why.strip_prefix(REFUSED) {
            Some(why) => Err(io::Error::other(why)),
            None => Ok(Err(why)),
        },
        Apart::Crashed(how) => Ok(Err(format!("reading it ended with {how}"))),
    }
}

/// Puts a copy of the database in its place.
fn write_anew(dbdir: &Path) -> io::Result<()> {
    let part = dbdir.join("data.mdb.new");
    copy_to(&part, dbdir)?;
    put_in_place(&part, dbdir)
}

/// Makes the copy that takes the place of a damaged database. A copy that is
/// there stays until the new one is whole.
pub fn make_copy(dbdir: &Path) -> io::Result<()> {
    let part = dbdir.join("data.mdb.copy.new");
    copy_to(&part, dbdir)?;
    fs::rename(&part, copy_of(dbdir))?;
    File::open(dbdir)?.sync_all()
}

fn copy_to(part: &Path, dbdir: &Path) -> io::Result<()> {
    remove_if_there(part)?;
    let file = new_file(part)?;
    let copied = LmdbStore::new_reader(dbdir)
        .copy_to(&file)
        .map_err(io::Error::other)
        .and_then(|()| file.sync_all());
    if copied.is_err() {
        // The disk may be full.
        let _ = fs::remove_file(part);
    }
    copied
}

/// When a copy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copying {
    /// The database is flushed, and needs none.
    Never,
    /// Then.
    Due(Instant),
    /// By this process, now.
    Running(Pid),
}

impl Copying {
    /// The first one of a server: at once if there is none.
    pub fn first(dbdir: &Path, now: Instant) -> Self {
        let age = fs::metadata(copy_of(dbdir))
            .and_then(|metadata| metadata.modified())
            .map(|made| made.elapsed().unwrap_or_default());
        let left = age.map_or(Duration::ZERO, |age| COPY_INTERVAL.saturating_sub(age));
        Copying::Due(now + left)
    }

    /// The one behind another, whether that was made or not.
    pub fn next(now: Instant) -> Self {
        Copying::Due(now + COPY_INTERVAL)
    }

    /// When it is due; `None` if none is, or it is being made.
    pub fn due(self) -> Option<Instant> {
        match self {
            Copying::Due(due) => Some(due),
            Copying::Never | Copying::Running(_) => None,
        }
    }
}

fn local_time(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut text = Vec::new();
    clock::push_time(&mut text, since.as_secs() as f64);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_due_an_hour_after_the_last() {
        let hour = Duration::from_secs(3600);
        let now = Instant::now();
        let folder = tempfile::tempdir().unwrap();
        let first = || Copying::first(folder.path(), now).due().unwrap();
        assert_eq!(first(), now);
        let file = File::create(copy_of(folder.path())).unwrap();
        for (age, left) in [(0, 3600), (1000, 2600), (4000, 0)] {
            let made = SystemTime::now() - Duration::from_secs(age);
            file.set_modified(made).unwrap();
            let late = now + Duration::from_secs(left) - first();
            assert!(late < Duration::from_secs(60), "{age}: {late:?}");
        }
        // The clock was set back since.
        file.set_modified(SystemTime::now() + 9 * hour).unwrap();
        assert_eq!(first(), now + hour);
        assert_eq!(Copying::next(now).due(), Some(now + hour));
        assert_eq!(Copying::Never.due(), None);
        assert_eq!(Copying::Running(Pid::this()).due(), None);
    }
}
