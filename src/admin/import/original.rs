//! The files of the original, opened with the rights of the caller, and a copy
//! of them that is the owner's.
//!
//! Berkeley DB's programs work on the copy: they would need rights that are
//! given up by then, and what is in the log files can be brought into the
//! databases there while a server goes on with the files themselves. The
//! databases are copied before the log files, and every change is in a log file
//! before it is in a database, so the log files lack nothing that the copies of
//! the databases have.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::trust::{Folder, folder_of};
use crate::admin::failure::Failure;
use crate::policy::record::Database;
use crate::store::berkeley::{HEAD, is_berkeley, is_log};
use crate::sys::files::new_file;

/// What the names of the log files begin with; ten digits follow.
const LOG: &str = "log.";
/// The server removes log files it needs no more: so often they are listed anew.
const MOST_LISTS: usize = 10;
/// What the name of a copy begins with; the process follows.
const COPY: &str = "import.copy.";

/// An open file and its name in its directory.
struct Opened {
    name: OsString,
    file: File,
}

/// Open files of one directory of the original.
pub struct Original {
    folder: Folder,
    databases: Vec<Opened>,
    /// Databases whose files are blank: what they have is in log files only.
    blank: Vec<OsString>,
    logs: Vec<Opened>,
    /// Databases that only the log files know are wanted, too.
    is_whole: bool,
}

impl Original {
    /// Opens the databases of a directory; `None` if it is none of the original's.
    pub fn of_directory(folder: Folder) -> Result<Option<Self>, Failure> {
        let (mut databases, mut blank) = (Vec::new(), Vec::new());
        for database in Database::ALL {
            let name = OsString::from(database.name());
            let path = folder.path().join(&name);
            let failed = |error: io::Error| Failure::file(&path, &error);
            let mut file = match folder.open_file(&name) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened.map_err(failed)?,
            };
            let head = head_of(&mut file).map_err(failed)?;
            if is_berkeley(&head) {
                databases.push(Opened { name, file });
            } else if is_blank(&head) {
                blank.push(name);
            } else {
                return Err(failed(io::Error::other("not a database of Berkeley DB")));
            }
        }
        let mut original = Original::with_logs(folder, databases, true)?;
        original.blank = blank;
        let has_any = !original.databases.is_empty()
            || !original.blank.is_empty()
            || !original.logs.is_empty();
        Ok(has_any.then_some(original))
    }

    /// Takes a database file that is open, and the log files beside it.
    pub fn of_file(path: &Path, file: File) -> Result<Self, Failure> {
        // Its log files are not beside a link to it.
        let path = match path.is_symlink() {
            true => fs::canonicalize(path).map_err(|error| Failure::file(path, &error))?,
            false => path.to_owned(),
        };
        let name = path.file_name().unwrap_or(OsStr::new("file")).to_owned();
        let folder = Folder::open(folder_of(&path))?;
        Original::with_logs(folder, vec![Opened { name, file }], false)
    }

    fn with_logs(folder: Folder, databases: Vec<Opened>, is_whole: bool) -> Result<Self, Failure> {
        let mut original = Original {
            folder,
            databases,
            blank: Vec::new(),
            logs: Vec::new(),
            is_whole,
        };
        for _ in 0..MOST_LISTS {
            let names = original
                .log_names()
                .map_err(|error| original.failed(&error))?;
            let open = |name: OsString| {
                let file = original.folder.open_file(&name);
                let file = file.map_err(|error| (name.clone(), error))?;
                Ok(Opened { name, file })
            };
            let opened: Result<Vec<Opened>, _> = names.into_iter().map(open).collect();
            match opened {
                Ok(logs) => {
                    original.logs = logs;
                    original.check_logs()?;
                    return Ok(original);
                }
                Err((_, error)) if error.kind() == ErrorKind::NotFound => {}
                Err((name, error)) => {
                    let path = original.folder.path().join(name);
                    return Err(Failure::file(&path, &error));
                }
            }
        }
        Err(original.failed(&io::Error::other("its log files come and go")))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::file(self.folder.path(), error)
    }

    /// `db_recover` takes a log file that it cannot read for the end, and says
    /// nothing. Only the last one may be without a head: it was just begun.
    fn check_logs(&mut self) -> Result<(), Failure> {
        let count = self.logs.len();
        let mut last = None;
        for (index, log) in self.logs.iter_mut().enumerate() {
            let path = self.folder.path().join(&log.name);
            let failed = |error: io::Error| Failure::file(&path, &error);
            let head = head_of(&mut log.file).map_err(failed)?;
            let is_begun = index > 0 && index + 1 == count && is_blank(&head);
            if !is_log(&head) && !is_begun {
                return Err(failed(io::Error::other("not a log file of Berkeley DB")));
            }
            let number = number_of(&log.name);
            if last.is_some_and(|last: u64| Some(last + 1) != number) {
                return Err(failed(io::Error::other(
                    "the log file before it is missing",
                )));
            }
            last = number;
        }
        Ok(())
    }

    /// The names of the log files that are there now, in order.
    fn log_names(&mut self) -> io::Result<Vec<OsString>> {
        let mut names = self.folder.names()?;
        names.retain(|name| number_of(name).is_some());
        names.sort();
        Ok(names)
    }

    /// True if what was written last may be in log files only.
    pub fn has_logs(&self) -> bool {
        !self.logs.is_empty()
    }

    /// True if it was given as a directory.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The directory the files are in.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Copies everything into a new directory beside our own database.
    pub fn copy(&mut self, dbdir: &Path) -> Result<Copy, Failure> {
        let copy = Copy::new(dbdir).map_err(|error| Failure::file(dbdir, &error))?;
        for opened in self.databases.iter_mut().chain(&mut self.logs) {
            let path = copy.folder.join(&opened.name);
            copy_file(&mut opened.file, &path).map_err(|error| Failure::file(&path, &error))?;
        }
        let known = self.logs.last().map(|last| last.name.clone());
        let newest = self.log_names().map_err(|error| self.failed(&error))?;
        if newest
            .last()
            .is_some_and(|newest| Some(newest) > known.as_ref())
        {
            return Err(Failure::no(format!(
                "ERROR: {}: the original has begun another log file while the last was copied; \
                 nothing was imported, run the same again",
                self.folder().display()
            )));
        }
        Ok(copy)
    }

    /// The databases of a copy that was recovered: their names, in order.
    pub fn names(&self, copy: &Copy) -> Result<Vec<OsString>, Failure> {
        if !self.is_whole {
            let names = self.databases.iter().map(|opened| opened.name.clone());
            return Ok(names.collect());
        }
        let is_there = |name: &OsString| copy.folder.join(name).is_file();
        if let Some(name) = self.blank.iter().find(|name| !is_there(name)) {
            let path = self.folder().join(name);
            return Err(Failure::no(format!(
                "ERROR: {}: it is blank, and no log.* files have what belongs in it; nothing was \
                 imported",
                path.display()
            )));
        }
        let mut names = Vec::from(Database::ALL.map(|database| database.name().into()));
        names.retain(is_there);
        if names.is_empty() {
            return Err(Failure::no(format!(
                "ERROR: {}: its log.* files have no database of the original; nothing was imported",
                self.folder().display()
            )));
        }
        Ok(names)
    }
}

fn head_of(file: &mut File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    Read::by_ref(file)
        .take(HEAD as u64)
        .read_to_end(&mut head)?;
    Ok(head)
}

/// True for the head of a file that was made, and written no further when the
/// original or its machine ended.
fn is_blank(head: &[u8]) -> bool {
    head.iter().all(|&octet| octet == 0)
}

/// The number of a log file.
fn number_of(name: &OsStr) -> Option<u64> {
    let digits = name.to_str()?.strip_prefix(LOG)?;
    let is_log = digits.len() == 10 && digits.bytes().all(|octet| octet.is_ascii_digit());
    is_log.then(|| digits.parse().ok())?
}

fn copy_file(from: &mut File, path: &Path) -> io::Result<()> {
    from.rewind()?;
    let mut to = new_file(path)?;
    io::copy(from, &mut to)?;
    Ok(())
}

/// A directory with copies, which goes with this value.
pub struct Copy {
    /// The directory.
    pub folder: PathBuf,
}

impl Copy {
    fn new(dbdir: &Path) -> io::Result<Self> {
        remove_left_over(dbdir)?;
        let folder = dbdir.join(format!("{COPY}{}", std::process::id()));
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Copy { folder })
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // The next import tries again.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Removes the copies of imports that were killed.
fn remove_left_over(dbdir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dbdir)? {
        let entry = entry?;
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(COPY));
        let Some(process) = process.and_then(|process| process.parse().ok()) else {
            continue;
        };
        let is_own = process == std::process::id().cast_signed();
        if is_own || kill(Pid::from_raw(process), None) == Err(Errno::ESRCH) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG_HEAD: &[u8] = b"\0\0\0\0\x1c\0\0\0\xb4\x34\x09\x3e\x88\x09\x04\0";

    #[test]
    fn copies_of_killed_imports_are_removed_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let one = std::process::Command::new("true").spawn().unwrap();
        let (gone, living) = (
            format!("{COPY}{}", ended.id()),
            format!("{COPY}{}", one.id()),
        );
        for name in [&gone, &living, "import.copy.x", "other"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let copy = Copy::new(dir.path()).unwrap();
        let mut names: Vec<_> = fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let own = format!("{COPY}{}", std::process::id());
        let mut expected = vec![own, living, "import.copy.x".into(), "other".into()];
        expected.sort();
        assert_eq!(names, expected);
        drop(copy);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        // Not awaited until here: its number was not free for another.
        let mut one = one;
        one.wait().unwrap();
    }

    #[test]
    fn only_log_files_with_a_number_are_taken_and_a_new_one_is_noticed() {
        let old = tempfile::tempdir().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| fs::write(old.path().join(name), LOG_HEAD).unwrap();
        for name in [
            "log.0000000002",
            "log.0000000001",
            "log.1",
            "log.000000000x",
            "mail.log",
        ] {
            write(name);
        }
        let folder = Folder::open(old.path()).unwrap();
        let mut original = Original::of_directory(folder).unwrap().unwrap();
        let copy = original.copy(dir.path()).unwrap();
        let names = fs::read_dir(&copy.folder).unwrap();
        assert_eq!(names.count(), 2);
        drop(copy);
        fs::remove_file(old.path().join("log.0000000001")).unwrap();
        // It is open, and so still there for us.
        let copy = original.copy(dir.path()).unwrap();
        assert!(copy.folder.join("log.0000000001").exists());
        drop(copy);
        write("log.0000000003");
        let failure = original.copy(dir.path()).err().unwrap();
        assert_eq!(failure.exit_code, 1);
        assert!(
            failure.message.contains("run the same again"),
            "{}",
            failure.message
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
