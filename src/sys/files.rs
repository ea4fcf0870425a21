//! Files and their names.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Which file a path leads to: device and inode; `None` if it is missing.
pub fn identity_of(path: &Path) -> Option<(u64, u64)> {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino()))
}

/// A new file that only its owner may read.
pub fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

/// Removes a file that may be missing.
pub fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Brings the names in a directory to the disk.
pub fn flush_names(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// True if less than a mebibyte is left for users.
pub fn is_disk_full(dir: &Path) -> bool {
    const LEAST: u128 = 1 << 20;
    statvfs(dir).is_ok_and(|disk| {
        u128::from(disk.blocks_available()) * u128::from(disk.fragment_size()) < LEAST
    })
}

/// Replaces a file as a whole: readers see the old one or the new one. Until then
/// the new one has the number of this process after its name.
pub fn replace_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let written = write_whole(Path::new(&name), content, mode);
    let replaced = written.and_then(|()| fs::rename(&name, path));
    if replaced.is_err() {
        // The disk may be full.
        let _ = fs::remove_file(&name);
    }
    replaced
}

fn write_whole(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    file.set_permissions(fs::Permissions::from_mode(mode))?;
    file.write_all(content)
}
