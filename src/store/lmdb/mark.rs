//! The mark beside a database that may not be whole on the disk.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::sys::files::{flush_names, remove_if_there};

/// What the mark says to whoever opens it.
const MARK_TEXT: &str =
    "Not all of data.mdb may be on the disk: a server uses it, or did not come to its end.\n";

/// The mark of a database that may not be whole on the disk: it is there from
/// the first commit without a flush to an orderly end.
pub fn mark_file(dir: &Path) -> PathBuf {
    dir.join("data.mdb.unflushed")
}

/// True if the mark is there.
pub fn is_marked(dir: &Path) -> bool {
    mark_file(dir).exists()
}

/// Sets the mark.
pub fn set_mark(dir: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(mark_file(dir))?;
    file.write_all(MARK_TEXT.as_bytes())?;
    file.sync_all()?;
    flush_names(dir)
}

/// Removes the mark: everything is on the disk.
pub fn remove_mark(dir: &Path) -> io::Result<()> {
    remove_if_there(&mark_file(dir))?;
    flush_names(dir)
}
