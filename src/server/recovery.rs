//! What a server does for the case that the machine goes down, and after it.
//!
//! The pages of the database are not flushed at each commit, so the disk may
//! hold any mixture of old and new ones then. There is a mark before the first
//! commit that leaves them unflushed, until everything is flushed; a server
//! that finds it cannot trust the database.
//!
//! With `--sync=commit` there are a copy and the journal of all commits since:
//! the database is made anew from them. With `--sync=none` there is the copy
//! alone, made every hour. The server reads the database first, and what could
//! be read is written anew: pages that look sound may be on the list of free
//! ones as well, and a new file has a new list. Where it is damaged the copy
//! takes its place. A process of its own does this, for a damaged file may well
//! end it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::unistd::Pid;

use crate::log::{Level, Log};
use crate::store::StoreError;
use crate::store::copies::{
    NOTICE, copy_of, identity_of, is_marked, look_through, new_file, put_in_place, remove_if_there,
    remove_mark,
};
use crate::store::journal::journal_of;
use crate::store::lmdb::{LmdbOptions, LmdbStore};
use crate::store::rebuild::{clear_away, rebuild, rebuilt_of};
use crate::sys::clock;
use crate::sys::lock::{Claim, LockFile};
use crate::sys::process::{self, Apart};

/// How old a copy gets before the next is made, or how long after one that
/// could not be made.
const COPY_INTERVAL: Duration = Duration::from_secs(3600);
/// How old a copy gets that has a journal: the older both are, the more would
/// be lost with an octet that the disk returns wrong.
const JOURNAL_INTERVAL: Duration = Duration::from_secs(24 * 3600);
/// How long another process may hold the claim to commit.
const PATIENCE: Duration = Duration::from_secs(10);
/// Seconds after which a database that is still not read is used as it is.
const LONGEST_LOOK: u32 = 600;
/// Where a damaged database stays for whoever wants to look at it.
const DAMAGED: &str = "data.mdb.damaged";
/// A journal of more octets is begun anew, so that a start after a crash does
/// not take long.
const LONG_JOURNAL: u64 = 64 << 20;

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
    let is_rebuilt = use_journal(dbdir, log)?;
    if dbdir.join("data.mdb").exists() && !is_rebuilt {
        match look_apart(dbdir)? {
            Ok(records) => {
                let line = format!("the server had not ended in order: {records} records verified");
                log.write(Level::One, line.as_bytes());
                write_anew(dbdir)?;
            }
            Err(why) => {
                let instead = replace(dbdir)?;
                log.complain(&format!(
                    "the database is damaged ({why}): {instead} takes its place"
                ));
            }
        }
    }
    // Who has the old file open looks every second if it is still there.
    std::thread::sleep(NOTICE);
    remove_mark(dbdir)
}

/// Puts a database made from the copy and its journal in the place of the old;
/// false if they are not there, or damaged.
fn use_journal(dbdir: &Path, log: &Log) -> io::Result<bool> {
    let said = apart(|| {
        let rebuilt = rebuild(dbdir)?;
        Ok(rebuilt.map_or(String::new(), |rebuilt| {
            format!("{} records, {}", rebuilt.records, rebuilt.commits)
        }))
    })?;
    let is_rebuilt = match said {
        Ok(found) if found.is_empty() => false,
        Ok(found) => {
            let made = local_time(fs::metadata(copy_of(dbdir))?.modified()?);
            log.write(
                Level::One,
                format!(
                    "the server had not ended in order: {found} commits behind the copy of {made}"
                )
                .as_bytes(),
            );
            put_in_place(&rebuilt_of(dbdir), dbdir)?;
            true
        }
        Err(why) => {
            log.complain(&format!("the journal cannot be used ({why})"));
            false
        }
    };
    clear_away(dbdir)?;
    Ok(is_rebuilt)
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
    apart(|| {
        let records = look_through(&mut LmdbStore::new_reader(dbdir))?;
        Ok(records.to_string())
    })
}

/// Does something with a database in a process of its own: what it says, or
/// what the damage is. An error is the system's.
fn apart(work: impl FnOnce() -> Result<String, StoreError>) -> io::Result<Result<String, String>> {
    const REFUSED: &str = "\0";
    let ended = process::run_apart(LONGEST_LOOK, || match work() {
        Ok(said) => Ok(said),
        Err(error) if error.is_of_system => Err(format!("{REFUSED}{error}")),
        Err(error) => Err(format!("{}: {}", error.call, error.reason)),
    })?;
    match ended {
        Apart::Said(Ok(said)) => Ok(Ok(said)),
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
    let part = copy_to(&part_of_copy(dbdir), dbdir)?;
    publish_copy(&part, dbdir)
}

fn part_of_copy(dbdir: &Path) -> PathBuf {
    dbdir.join("data.mdb.copy.new")
}

fn publish_copy(part: &File, dbdir: &Path) -> io::Result<()> {
    let path = part_of_copy(dbdir);
    if part.metadata()?.ino() != fs::metadata(&path)?.ino() {
        return Err(io::Error::other("another process makes one"));
    }
    fs::rename(path, copy_of(dbdir))?;
    File::open(dbdir)?.sync_all()
}

/// Begins a journal and makes the copy to which it belongs; behind that the
/// database need not be flushed. Commits go on meanwhile.
pub fn renew_journal(dbdir: &Path, lock: &LockFile) -> io::Result<()> {
    let mut store = LmdbStore::new(LmdbOptions {
        dir: dbdir.to_owned(),
        map_size: 0,
        sync: true,
    });
    // Most of what is to be flushed, while others may still commit.
    store.flush().map_err(io::Error::other)?;
    lock.lock(Claim::Commit)?;
    let begun = store.begin_journal();
    lock.unlock(Claim::Commit)?;
    let number = begun.map_err(io::Error::other)?;
    let copied = copy_to(&part_of_copy(dbdir), dbdir);
    lock.lock(Claim::Commit)?;
    let done = copied.and_then(|part| {
        store
            .rely_on_journal(number, &mut || publish_copy(&part, dbdir))
            .map_err(io::Error::other)
    });
    if done.is_err() {
        store.leave_journal().map_err(io::Error::other)?;
    }
    lock.unlock(Claim::Commit)?;
    done
}

/// True if the journal should be begun anew before its time: it is long, or
/// the database is another file than the one it was begun for.
pub fn is_renewal_wanted(dbdir: &Path, begun_for: Option<(u64, u64)>) -> bool {
    let length = fs::metadata(journal_of(dbdir)).map_or(0, |metadata| metadata.len());
    length > LONG_JOURNAL || identity_of(dbdir).ok() != begun_for
}

/// A copy that is on the disk.
fn copy_to(part: &Path, dbdir: &Path) -> io::Result<File> {
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
    copied.map(|()| file)
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
    pub fn next(dbdir: &Path, now: Instant) -> Self {
        Copying::Due(match journal_of(dbdir).exists() {
            true => now + JOURNAL_INTERVAL,
            false => now + COPY_INTERVAL,
        })
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
    fn a_journal_is_renewed_when_it_is_long_or_its_database_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = |begun_for| is_renewal_wanted(folder.path(), begun_for);
        assert!(!wanted(None));
        File::create(folder.path().join("data.mdb")).unwrap();
        assert!(wanted(None));
        let identity = identity_of(folder.path()).ok();
        assert!(!wanted(identity));
        let journal = File::create(journal_of(folder.path())).unwrap();
        journal.set_len(LONG_JOURNAL).unwrap();
        assert!(!wanted(identity));
        journal.set_len(LONG_JOURNAL + 1).unwrap();
        assert!(wanted(identity));
    }

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
        let next = || Copying::next(folder.path(), now).due();
        assert_eq!(next(), Some(now + hour));
        File::create(journal_of(folder.path())).unwrap();
        assert_eq!(next(), Some(now + 24 * hour));
        assert_eq!(Copying::Never.due(), None);
        assert_eq!(Copying::Running(Pid::this()).due(), None);
    }
}
