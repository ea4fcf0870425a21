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
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::kill;
use nix::sys::stat::Mode;
use nix::unistd::Pid;

use crate::admin::failure::Failure;
use crate::policy::record::Database;
use crate::store::berkeley::{HEAD, is_berkeley};
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
    folder: PathBuf,
    listed: Dir,
    databases: Vec<Opened>,
    logs: Vec<Opened>,
    /// Databases that only the log files know are wanted, too.
    is_whole: bool,
}

impl Original {
    /// Opens the databases of a directory; `None` if it is none of the original's.
    pub fn of_directory(folder: &Path) -> Result<Option<Self>, Failure> {
        let mut databases = Vec::new();
        for database in Database::ALL {
            let path = folder.join(database.name());
            // Opening a FIFO would wait for its writer.
            if !path.is_file() {
                continue;
            }
            let failed = |error: io::Error| Failure::file(&path, &error);
            let mut file = File::open(&path).map_err(failed)?;
            if is_berkeley(&head_of(&mut file).map_err(failed)?) {
                let name = OsString::from(database.name());
                databases.push(Opened { name, file });
            }
        }
        let original = Original::with_logs(folder, databases, true)?;
        let has_any = !original.databases.is_empty() || !original.logs.is_empty();
        Ok(has_any.then_some(original))
    }

    /// Takes a database file that is open, and the log files beside it.
    pub fn of_file(path: &Path, file: File) -> Result<Self, Failure> {
        let folder = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        let name = path.file_name().unwrap_or(OsStr::new("file")).to_owned();
        Original::with_logs(folder, vec![Opened { name, file }], false)
    }

    fn with_logs(folder: &Path, databases: Vec<Opened>, is_whole: bool) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::file(folder, &error);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let listed = Dir::open(folder, flags, Mode::empty());
        let mut original = Original {
            folder: folder.to_owned(),
            listed: listed.map_err(|error| failed(error.into()))?,
            databases,
            logs: Vec::new(),
            is_whole,
        };
        for _ in 0..MOST_LISTS {
            let names = original.log_names().map_err(failed)?;
            let open = |name: OsString| {
                let path = folder.join(&name);
                let file = File::open(&path).map_err(|error| (path, error))?;
                Ok(Opened { name, file })
            };
            let opened: Result<Vec<Opened>, _> = names.into_iter().map(open).collect();
            match opened {
                Ok(logs) => {
                    original.logs = logs;
                    return Ok(original);
                }
                Err((_, error)) if error.kind() == ErrorKind::NotFound => {}
                Err((path, error)) => return Err(Failure::file(&path, &error)),
            }
        }
        Err(failed(io::Error::other("its log files come and go")))
    }

    /// The names of the log files that are there now, in order.
    fn log_names(&mut self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in self.listed.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            let digits = name.to_str().and_then(|name| name.strip_prefix(LOG));
            let is_log =
                |digits: &str| digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit());
            if digits.is_some_and(is_log) {
                names.push(name.to_owned());
            }
        }
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
        &self.folder
    }

    /// Copies everything into a new directory beside our own database.
    pub fn copy(&mut self, dbdir: &Path) -> Result<Copy, Failure> {
        let copy = Copy::new(dbdir).map_err(|error| Failure::file(dbdir, &error))?;
        for opened in self.databases.iter_mut().chain(&mut self.logs) {
            let path = copy.folder.join(&opened.name);
            copy_file(&mut opened.file, &path).map_err(|error| Failure::file(&path, &error))?;
        }
        let known = self.logs.last().map(|last| last.name.clone());
        let newest = self
            .log_names()
            .map_err(|error| Failure::file(&self.folder, &error))?;
        if newest
            .last()
            .is_some_and(|newest| Some(newest) > known.as_ref())
        {
            return Err(Failure::no(format!(
                "ERROR: {}: the original has begun another log file while the last was copied; \
                 nothing was imported, run the same again",
                self.folder.display()
            )));
        }
        Ok(copy)
    }

    /// The databases of a copy that was recovered: their names, in order.
    pub fn names(&self, copy: &Copy) -> Vec<OsString> {
        if !self.is_whole {
            return self
                .databases
                .iter()
                .map(|opened| opened.name.clone())
                .collect();
        }
        let names = Database::ALL.map(|database| OsString::from(database.name()));
        let is_there = |name: &OsString| copy.folder.join(name).is_file();
        names.into_iter().filter(is_there).collect()
    }
}

fn head_of(file: &mut File) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    Read::by_ref(file)
        .take(HEAD as u64)
        .read_to_end(&mut head)?;
    Ok(head)
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
        let write = |name: &str, text: &str| fs::write(old.path().join(name), text).unwrap();
        for name in [
            "log.0000000002",
            "log.0000000001",
            "log.1",
            "log.000000000x",
            "mail.log",
        ] {
            write(name, name);
        }
        write("postgrey.db", "this is not a database");
        let mut original = Original::of_directory(old.path()).unwrap().unwrap();
        let copy = original.copy(dir.path()).unwrap();
        let names = fs::read_dir(&copy.folder).unwrap();
        assert_eq!(names.count(), 2);
        drop(copy);
        fs::remove_file(old.path().join("log.0000000001")).unwrap();
        // It is open, and so still there for us.
        let copy = original.copy(dir.path()).unwrap();
        assert!(copy.folder.join("log.0000000001").exists());
        drop(copy);
        write("log.0000000003", "");
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
