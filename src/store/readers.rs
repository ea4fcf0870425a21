//! The file of LMDB's reader slots, `lock.mdb`, made whole before LMDB maps it.
//!
//! LMDB would leave it full of holes, which the system fills when a slot is
//! first used. On a full disk that is a SIGBUS, not an error: at the start, or
//! long after it in a session that Postfix spawned. So all of it is written
//! first; where there is no room for it, that is an error with words.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Readers are processes here: workers, spawned sessions (Postfix starts up to
/// 200 by default) and tools; LMDB's default is 126.
pub const MAX_READERS: u32 = 2000;
/// Octets of a slot, which has a cache line of its own.
const SLOT: usize = 64;
/// Octets in front of the slots, and some to spare: LMDB uses what it finds.
const HEAD: usize = 4096;

/// Makes the file if it is missing. It appears whole or not at all, since
/// another process may map it at once.
pub fn make_reader_file(dir: &Path) -> io::Result<()> {
    let path = dir.join("lock.mdb");
    if fs::symlink_metadata(&path).is_ok() {
        return Ok(());
    }
    let new = dir.join(format!("lock.mdb.{}", std::process::id()));
    let made = write_zeros(&new).and_then(|()| match fs::hard_link(&new, &path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    });
    let removed = fs::remove_file(&new);
    made.and(removed)
}

fn write_zeros(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    file.write_all(&vec![0; HEAD + MAX_READERS as usize * SLOT])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn the_file_has_no_holes_and_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        make_reader_file(folder.path()).unwrap();
        let path = folder.path().join("lock.mdb");
        let metadata = fs::metadata(&path).unwrap();
        assert!(metadata.blocks() * 512 >= metadata.len());
        assert_eq!(metadata.mode() & 0o777, 0o600);
        make_reader_file(folder.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), metadata.ino());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_goes_wrong_is_said() {
        let error = make_reader_file(Path::new("/nowhere")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
