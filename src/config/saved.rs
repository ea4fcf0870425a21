//! The options of a server beside its database, from which postgreyctl knows
//! them: [`FILE`], one word for the command line on each line, as
//! `--print-config` prints them.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::print_config;
use super::settings::Settings;
use crate::sys::files::{remove_if_there, replace_file};

/// The name of the file.
pub const FILE: &str = "postgrey.options";
/// Octets of the longest file that is taken for one.
const MOST_OCTETS: u64 = 1 << 20;

/// The path of the file in a database directory.
pub fn path(dbdir: &Path) -> PathBuf {
    dbdir.join(FILE)
}

/// What the file holds for these settings: paths that do not depend on the
/// directory in which the server was started.
pub fn content(settings: &Settings) -> io::Result<Vec<u8>> {
    Ok(print_config(&settings.with_absolute_paths()?))
}

/// Writes the file, as a whole. The caller sees to it that nobody else does.
pub fn write(dbdir: &Path, content: &[u8]) -> io::Result<()> {
    replace_file(&path(dbdir), content, 0o600)
}

/// What the file holds; `None` if there is none. It may be read by root from the
/// directory of another user: nothing but a regular file is opened.
pub fn read(dbdir: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match open(dbdir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut content = Vec::new();
    file.take(MOST_OCTETS).read_to_end(&mut content)?;
    Ok(Some(content))
}

/// When the server wrote the file, which it does after each reading of the
/// whitelists; seconds and nanoseconds.
pub fn written_at(dbdir: &Path) -> io::Result<(i64, i64)> {
    let metadata = open(dbdir)?.metadata()?;
    Ok((metadata.ctime(), metadata.ctime_nsec()))
}

fn open(dbdir: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path(dbdir))?;
    let metadata = file.metadata()?;
    // A second name could be that of a file which only root may read.
    match metadata.is_file() && metadata.nlink() == 1 {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file with one name")),
    }
}

/// Removes the file: better none than one that is not true.
pub fn remove(dbdir: &Path) -> io::Result<()> {
    remove_if_there(&path(dbdir))
}

/// The words of a file's content.
pub fn words(content: &[u8]) -> Vec<OsString> {
    content
        .split(|&octet| octet == b'\n')
        .filter(|word| !word.is_empty())
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Invocation, parse_over};

    #[test]
    fn what_was_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), None);
        let mut settings = Settings::default();
        settings.rules.delay = 7.0;
        settings.texts.greylist_text = "Try again later --privacy".into();
        settings.whitelist_clients = vec!["relative".into()];
        write(dir.path(), &content(&settings).unwrap()).unwrap();
        let found = read(dir.path()).unwrap().unwrap();
        let Ok(Invocation::PrintConfig(back)) = parse_over(&words(&found), &[]) else {
            panic!("refused")
        };
        assert_eq!(back.rules, settings.rules);
        assert_eq!(back.texts, settings.texts);
        assert!(back.whitelist_clients.iter().all(|path| path.is_absolute()));
        let mode = std::fs::metadata(path(dir.path())).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_is_no_file_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", path(dir.path())).unwrap();
        assert!(read(dir.path()).is_err());
        std::fs::remove_file(path(dir.path())).unwrap();
        std::fs::write(dir.path().join("other"), "--delay=1\n").unwrap();
        std::fs::hard_link(dir.path().join("other"), path(dir.path())).unwrap();
        assert!(read(dir.path()).is_err());
    }
}
