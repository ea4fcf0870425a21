//! The claim to commit, and the one protocol by which the files of an
//! environment are opened and replaced.
//!
//! The files are a pair: `lock.mdb` holds the readers of just this `data.mdb`
//! and the number of its last transaction. An old one beside a new other makes
//! LMDB begin at the wrong state, which loses records without a word. So:
//!
//! * Whoever opens, commits, or replaces holds the claim, a lock by fcntl(2) on
//!   `postgrey.lock`, which dies with its process. (A reader on a read-only file
//!   system does without: nobody can replace anything there.)
//! * `postgrey.lock` says which pair belongs together. [`settle`] comes before
//!   every opening: it removes a `lock.mdb` that does not belong to the
//!   `data.mdb`, and makes a new one, whole.
//! * Each commit looks, under the claim, whether `lock.mdb` is still the one that
//!   this process has open. If not it opens the new pair first: nothing is
//!   committed into a file that is gone. (Who moves a file into the place of
//!   `data.mdb` alone, by hand and while it is in use, is noticed within a second.)
//! * [`put_in_place`] first gives the new file, which is flushed, the name
//!   `data.mdb.next`; then it removes `lock.mdb`, which ends the old pair; then
//!   it gives the new file its name. After a kill -9 before the removal the old
//!   pair is in force and [`settle`] removes the new file; after it, [`settle`]
//!   does what is left.
//! * [`set_aside`] gives a damaged file another name; then there is none, and
//!   [`settle`] removes the `lock.mdb`.
//!
//! The names are on the disk when the functions return.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::store::{ErrorKind, StoreError};
use crate::sys::files::{flush_names, identity_of, new_file, remove_if_there};
use crate::sys::lock::{Claim, LockFile};

/// The longest pause between two tries to get the claim.
const LONGEST_PAUSE: Duration = Duration::from_millis(2);
/// Processes that may have an environment open at once: workers, spawned
/// sessions (Postfix starts up to 200 by default) and tools. LMDB's default is
/// 126.
pub const MAX_READERS: u32 = 2000;
/// Octets of a reader's slot in `lock.mdb`, which has a cache line of its own.
const SLOT: usize = 64;
/// Octets in front of the slots, and some to spare: LMDB uses what it finds.
const HEAD: usize = 4096;

/// The file with the records.
pub fn data_file(dir: &Path) -> PathBuf {
    dir.join("data.mdb")
}

fn reader_file(dir: &Path) -> PathBuf {
    dir.join("lock.mdb")
}

/// A backup on its way into the place of the database.
pub fn restore_file(dir: &Path) -> PathBuf {
    dir.join("data.mdb.restore")
}

fn next_file(dir: &Path) -> PathBuf {
    dir.join("data.mdb.next")
}

/// The lock file of a database directory.
pub fn lock_file(dir: &Path) -> PathBuf {
    dir.join("postgrey.lock")
}

/// Which files an environment consists of, by device and inode; `None` for one
/// that is missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// `data.mdb`.
    pub data: Option<(u64, u64)>,
    /// `lock.mdb`.
    pub lock: Option<(u64, u64)>,
}

impl Identity {
    /// Octets of the text in the lock file.
    const TEXT_LEN: usize = 4 * 17;

    /// The files in a directory.
    pub fn of(dir: &Path) -> Self {
        Identity {
            data: identity_of(&data_file(dir)),
            lock: identity_of(&reader_file(dir)),
        }
    }

    /// `lock.mdb` in a directory.
    pub(super) fn of_reader_file(dir: &Path) -> Option<(u64, u64)> {
        identity_of(&reader_file(dir))
    }

    /// As the lock file holds it: always of the same length, so that it is
    /// written in one piece.
    fn text(&self) -> String {
        let (data, lock) = (self.data.unwrap_or_default(), self.lock.unwrap_or_default());
        format!(
            "{:016x} {:016x} {:016x} {:016x}\n",
            data.0, data.1, lock.0, lock.1
        )
    }
}

/// The claim to commit, given back when it goes out of scope.
pub(super) struct HeldClaim {
    lock: Rc<LockFile>,
}

impl Drop for HeldClaim {
    fn drop(&mut self) {
        // It fails only for a descriptor that is none.
        let _ = self.lock.unlock(Claim::Commit);
    }
}

/// Opens a lock file that was replaced anew: a claim on the old one would keep
/// nobody off.
pub(super) fn follow_lock_file(lock: &mut Rc<LockFile>) -> Result<(), StoreError> {
    match Rc::get_mut(lock) {
        Some(lock) => {
            let followed = lock.follow_path();
            followed.map_err(|error| StoreError::of_io("claim", lock.path(), &error))
        }
        // The claim is held.
        None => Ok(()),
    }
}

/// Takes the claim, and waits for it so long.
pub(super) fn take_claim(lock: &Rc<LockFile>, patience: Duration) -> Result<HeldClaim, StoreError> {
    let begun = Instant::now();
    let mut pause = Duration::from_micros(100);
    let path = lock.path();
    let failed = |error: io::Error| StoreError::of_io("claim", path, &error);
    loop {
        if lock.try_lock(Claim::Commit).map_err(failed)? {
            return Ok(HeldClaim {
                lock: Rc::clone(lock),
            });
        }
        if begun.elapsed() >= patience {
            let who = match lock.holder(Claim::Commit) {
                Ok(Some(pid)) => format!("process {pid}"),
                _ => "another process".to_owned(),
            };
            let why = format!("{who} has been writing for {} s", patience.as_secs());
            return Err(StoreError::new(ErrorKind::Busy, "claim", path, why));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Brings the files into a state in which they may be opened: ends what a kill
/// -9 has left half done, and sees to it that `lock.mdb` is whole and belongs to
/// `data.mdb`. Under the claim.
pub(super) fn settle(dir: &Path, lock: &LockFile) -> io::Result<()> {
    end_replacement(dir)?;
    let found = Identity::of(dir);
    if found.lock.is_some() && recorded_pair(lock)? != found.text() {
        remove_if_there(&reader_file(dir))?;
    }
    make_reader_file(dir)
}

/// Ends a replacement that was left half done. Under the claim.
pub(crate) fn end_replacement(dir: &Path) -> io::Result<()> {
    let next = next_file(dir);
    if fs::symlink_metadata(&next).is_err() {
        return Ok(());
    }
    match Identity::of(dir).lock {
        Some(_) => fs::remove_file(&next)?,
        None => fs::rename(&next, data_file(dir))?,
    }
    // Before anybody makes or removes a `lock.mdb`, by which it is decided.
    flush_names(dir)
}

/// Notes which pair was opened, if it is not noted already. Under the claim.
pub(super) fn record_pair(lock: &LockFile, pair: &Identity) -> io::Result<()> {
    let text = pair.text();
    if recorded_pair(lock)? == text {
        return Ok(());
    }
    let mut file = lock.file()?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(text.as_bytes())
}

fn recorded_pair(lock: &LockFile) -> io::Result<String> {
    let mut file = lock.file()?;
    file.seek(SeekFrom::Start(0))?;
    let mut text = String::new();
    // Whatever else stands there is not a pair.
    match file
        .take(Identity::TEXT_LEN as u64)
        .read_to_string(&mut text)
    {
        Err(error) if error.kind() != io::ErrorKind::InvalidData => Err(error),
        _ => Ok(text),
    }
}

/// True if the data file was opened as a database before. Under the claim.
pub(super) fn was_opened(lock: &LockFile, dir: &Path) -> bool {
    const DATA: usize = Identity::TEXT_LEN / 2;
    let text = Identity::of(dir).text();
    recorded_pair(lock).is_ok_and(|found| found.get(..DATA) == text.get(..DATA))
}

/// Makes `lock.mdb` if it is missing, and longer if it is too short. LMDB would
/// leave it full of holes, which the system fills when a slot is first used: on
/// a full disk that is a SIGBUS and not an error. It appears whole or not at
/// all.
fn make_reader_file(dir: &Path) -> io::Result<()> {
    let path = reader_file(dir);
    let whole = HEAD + MAX_READERS as usize * SLOT;
    match fs::metadata(&path) {
        Ok(found) => {
            let missing = (whole as u64).saturating_sub(found.len());
            if missing > 0 {
                let mut file = OpenOptions::new().append(true).open(&path)?;
                file.write_all(&vec![0; missing as usize])?;
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let part = dir.join("lock.mdb.new");
            remove_if_there(&part)?;
            let made = new_file(&part)
                .and_then(|mut file| file.write_all(&vec![0; whole]))
                .and_then(|()| fs::rename(&part, &path));
            if made.is_err() {
                // The disk may be full.
                let _ = fs::remove_file(&part);
            }
            made
        }
        Err(error) => Err(error),
    }
}

/// Makes the next opening begin with a new `lock.mdb`. Under the claim.
pub(crate) fn drop_reader_file(dir: &Path) -> io::Result<()> {
    remove_if_there(&reader_file(dir))
}

/// Puts a flushed file in the place of the database. Under the claim.
pub fn put_in_place(part: &Path, dir: &Path) -> io::Result<()> {
    put_in_place_keeping(part, dir, None)
}

/// The same, and gives what was there another name. Under the claim.
pub(super) fn put_in_place_keeping(part: &Path, dir: &Path, kept: Option<&Path>) -> io::Result<()> {
    if let Some(kept) = kept
        && fs::symlink_metadata(kept).is_ok_and(|found| found.is_dir())
    {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    fs::rename(part, next_file(dir))?;
    flush_names(dir)?;
    remove_if_there(&reader_file(dir))?;
    flush_names(dir)?;
    // After a kill -9 from here on `settle` gives the new file its name.
    if let Some(kept) = kept
        && let Err(error) = fs::rename(data_file(dir), kept)
    {
        // Nor may it take the place of one that is still there.
        fs::remove_file(next_file(dir))?;
        return Err(error);
    }
    fs::rename(next_file(dir), data_file(dir))?;
    flush_names(dir)
}

/// Gives what lies in the place of the database another name, which is
/// returned. The first damaged file is kept as it is, since it may be the only
/// one worth looking at; of those after it the last. Under the claim.
pub(crate) fn set_aside(dir: &Path) -> io::Result<PathBuf> {
    let first = dir.join("data.mdb.damaged");
    let kept = match fs::symlink_metadata(&first) {
        Ok(_) => dir.join("data.mdb.damaged.last"),
        Err(_) => first,
    };
    fs::rename(data_file(dir), &kept)?;
    remove_if_there(&reader_file(dir))?;
    flush_names(dir)?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// A folder with these files in it, each with its name as its content, and
    /// its lock file.
    fn folder(names: &[&str]) -> (tempfile::TempDir, LockFile) {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(folder.path().join(name), name).unwrap();
        }
        let lock = LockFile::new(lock_file(folder.path()), 0o600);
        (folder, lock)
    }

    fn content(dir: &Path) -> Option<String> {
        fs::read_to_string(data_file(dir)).ok()
    }

    #[test]
    fn a_pair_that_belongs_together_stays() {
        let (folder, lock) = folder(&["data.mdb", "lock.mdb"]);
        let pair = Identity::of(folder.path());
        assert!(!was_opened(&lock, folder.path()));
        record_pair(&lock, &pair).unwrap();
        assert!(was_opened(&lock, folder.path()));
        settle(folder.path(), &lock).unwrap();
        assert_eq!(Identity::of(folder.path()), pair);
        // Its lock file was too short.
        let length = fs::metadata(reader_file(folder.path())).unwrap().len();
        assert_eq!(length, (HEAD + MAX_READERS as usize * SLOT) as u64);
    }

    #[test]
    fn the_reader_file_of_another_database_is_made_anew() {
        for is_recorded in [false, true] {
            let (folder, lock) = folder(&["data.mdb", "lock.mdb", "other"]);
            let old = Identity::of(folder.path());
            if is_recorded {
                record_pair(&lock, &old).unwrap();
                fs::rename(folder.path().join("other"), data_file(folder.path())).unwrap();
                assert!(!was_opened(&lock, folder.path()));
            }
            // Held, so that its number is not given to the new one.
            let _held = fs::File::open(reader_file(folder.path())).unwrap();
            settle(folder.path(), &lock).unwrap();
            let new = Identity::of(folder.path());
            assert!(new.lock.is_some() && new.lock != old.lock);
            let metadata = fs::metadata(reader_file(folder.path())).unwrap();
            // Without holes.
            assert!(metadata.blocks() * 512 >= metadata.len());
            assert_eq!(metadata.mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_replacement_that_was_left_half_done_is_ended() {
        let (dir, lock) = folder(&["data.mdb", "lock.mdb", "data.mdb.next"]);
        record_pair(&lock, &Identity::of(dir.path())).unwrap();
        settle(dir.path(), &lock).unwrap();
        assert_eq!(content(dir.path()).as_deref(), Some("data.mdb"));
        assert!(!next_file(dir.path()).exists());
        for old in [&["data.mdb.next", "data.mdb"][..], &["data.mdb.next"]] {
            let (dir, lock) = folder(old);
            settle(dir.path(), &lock).unwrap();
            assert_eq!(content(dir.path()).as_deref(), Some("data.mdb.next"));
            assert!(!next_file(dir.path()).exists());
        }
        let (dir, _lock) = folder(&["data.mdb", "lock.mdb", "part"]);
        put_in_place(&dir.path().join("part"), dir.path()).unwrap();
        assert_eq!(content(dir.path()).as_deref(), Some("part"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_kept_stays_in_its_place() {
        let (dir, lock) = folder(&["data.mdb", "lock.mdb", "part"]);
        let kept = dir.path().join("kept");
        fs::create_dir(&kept).unwrap();
        let part = dir.path().join("part");
        assert!(put_in_place_keeping(&part, dir.path(), Some(&kept)).is_err());
        settle(dir.path(), &lock).unwrap();
        assert_eq!(content(dir.path()).as_deref(), Some("data.mdb"));
        // Nor where its new name has no directory.
        let kept = dir.path().join("missing/kept");
        assert!(put_in_place_keeping(&part, dir.path(), Some(&kept)).is_err());
        settle(dir.path(), &lock).unwrap();
        assert_eq!(content(dir.path()).as_deref(), Some("data.mdb"));
        assert!(!next_file(dir.path()).exists());
        let kept = dir.path().join("file");
        fs::write(&part, "part").unwrap();
        put_in_place_keeping(&part, dir.path(), Some(&kept)).unwrap();
        assert_eq!(content(dir.path()).as_deref(), Some("part"));
        assert_eq!(fs::read_to_string(kept).unwrap(), "data.mdb");
    }

    #[test]
    fn the_first_damaged_file_is_kept_and_the_last() {
        let (dir, _lock) = folder(&["lock.mdb"]);
        for number in 1..=3 {
            fs::write(data_file(dir.path()), number.to_string()).unwrap();
            let kept = set_aside(dir.path()).unwrap();
            assert_eq!(fs::read_to_string(kept).unwrap(), number.to_string());
        }
        assert_eq!(Identity::of(dir.path()), Identity::default());
        let kept = |name| fs::read_to_string(dir.path().join(name)).unwrap();
        assert_eq!(kept("data.mdb.damaged"), "1");
        assert_eq!(kept("data.mdb.damaged.last"), "3");
    }

    #[test]
    fn the_claim_follows_a_lock_file_that_was_replaced() {
        let (dir, _) = folder(&[]);
        let mut lock = Rc::new(LockFile::new(lock_file(dir.path()), 0o600));
        drop(take_claim(&lock, Duration::ZERO).unwrap());
        fs::remove_file(lock_file(dir.path())).unwrap();
        follow_lock_file(&mut lock).unwrap();
        drop(take_claim(&lock, Duration::ZERO).unwrap());
        assert!(lock_file(dir.path()).exists());
    }
}
