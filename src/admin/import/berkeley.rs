//! Berkeley DB files of the original: read by Berkeley DB's own `db_dump`,
//! since the format is its own and differs between versions, after its
//! `db_recover` has brought in what the log files have.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::formats::read_text;
use super::original::{Copy, Original};
use super::spool::{Spool, nameless_file};
use crate::admin::failure::Failure;

/// What systems call the program. A file is read by the version that wrote it
/// or a later one.
const NAMES: [&str; 12] = [
    "db_dump",
    "db5.3_dump",
    "db_dump-5.3",
    "db53_dump",
    "db6.2_dump",
    "db_dump-18.1",
    "db5.1_dump",
    "db48_dump",
    "db4.8_dump",
    "db_dump-4.8",
    "db47_dump",
    "db44_dump",
];

/// Where it may lie besides the directories of `PATH`.
const FOLDERS: [&str; 7] = [
    "/usr/bin",
    "/usr/local/bin",
    "/opt/csw/bin",
    "/opt/csw/bdb48/bin",
    "/opt/local/bin",
    "/usr/pkg/bin",
    "/usr/local/BerkeleyDB.5.3/bin",
];

const NO_PROGRAM: &str = "reading Berkeley DB files takes db_dump, and none was found: it comes \
with the package db-util (Debian, Ubuntu), libdb-utils (Fedora, RHEL) or database/berkeleydb-5 \
(Solaris); or import the text of db_dump -p made where the file is from";

/// What can be done where the log files cannot be used.
const WAYS_OUT: &str = "start the original once more and stop it in order, or run the db_recover \
of its version in a copy of the directory, and import that without its log.* files";

/// A dump of print format is at most so many times as large as its file.
const LARGEST_DUMP: u64 = 64;

/// The programs that are there, the likeliest first, each once.
fn programs() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(FOLDERS.iter().map(PathBuf::from));
    folders.retain(|folder| folder.is_absolute());
    let same = |path: &Path| path.canonicalize().ok();
    let mut found: Vec<PathBuf> = Vec::new();
    for name in NAMES {
        let mut places = folders.iter().map(|folder| folder.join(name));
        if let Some(program) = places.find(|path| path.is_file())
            && found.iter().all(|other| same(other) != same(&program))
        {
            found.push(program);
        }
    }
    found
}

/// Reads the databases into the spool with the first program that can.
pub fn read(original: &mut Original, dbdir: &Path, spool: &mut Spool) -> Result<(), Failure> {
    let own = |error: std::io::Error| Failure::file(dbdir, &error);
    let mark = spool.mark().map_err(own)?;
    let mut failure = None;
    for program in programs() {
        match read_with(&program, original, dbdir, spool) {
            Ok(()) => return Ok(()),
            // What the likeliest one says.
            Err(error) => failure = failure.or(Some(error)),
        }
        spool.return_to(&mark).map_err(own)?;
    }
    Err(failure.unwrap_or_else(|| no_program(original)))
}

fn no_program(original: &Original) -> Failure {
    if original.has_logs() {
        Failure::no(format!("ERROR: {NO_PROGRAM}"))
    } else {
        Failure::error(NO_PROGRAM)
    }
}

fn read_with(
    program: &Path,
    original: &mut Original,
    dbdir: &Path,
    spool: &mut Spool,
) -> Result<(), Failure> {
    let copy = original.copy(dbdir)?;
    if original.has_logs() {
        recover(program, original, &copy, dbdir)?;
    }
    for name in original.names(&copy)? {
        let shown = original.folder().join(&name);
        spool.begin_source(&shown.display().to_string());
        dump(program, &copy.folder.join(&name), &shown, dbdir, spool)?;
    }
    Ok(())
}

/// Brings what the log files have into the databases of the copy.
///
/// From the oldest log file on (`-c`): between the copies of the databases and
/// those of the log files the server may have set a mark from which recovery
/// would begin otherwise.
fn recover(dump: &Path, original: &Original, copy: &Copy, dbdir: &Path) -> Result<(), Failure> {
    let folder = original.folder().display();
    let failed = |why: String| {
        Failure::no(format!(
            "ERROR: {folder}: what the original wrote last is in its log.* files: {why}; nothing \
             was imported: {WAYS_OUT}"
        ))
    };
    let name = dump.file_name().and_then(OsStr::to_str).unwrap_or_default();
    let program = dump.with_file_name(name.replace("dump", "recover"));
    if !program.is_file() {
        return Err(failed(format!(
            "reading them takes {}, which is not there (package db-util, libdb-utils or \
             database/berkeleydb-5)",
            program.display()
        )));
    }
    let own = |error: std::io::Error| Failure::file(dbdir, &error);
    let errors = nameless_file(dbdir).map_err(own)?;
    let status = quiet(&program, &errors)
        .map_err(own)?
        .arg("-c")
        .current_dir(&copy.folder)
        .stdout(Stdio::null())
        .status()
        .map_err(|error| Failure::file(&program, &error))?;
    if status.success() {
        return Ok(());
    }
    Err(failed(format!(
        "{}: {}",
        program.display(),
        first_line(errors)
    )))
}

/// A program of Berkeley DB that asks nothing and is told of no other
/// directory.
fn quiet(program: &Path, errors: &File) -> std::io::Result<Command> {
    let mut command = Command::new(program);
    command
        .env("LC_ALL", "C")
        .env_remove("DB_HOME")
        .stdin(Stdio::null())
        .stderr(errors.try_clone()?);
    Ok(command)
}

fn dump(
    program: &Path,
    file: &Path,
    shown: &Path,
    dbdir: &Path,
    spool: &mut Spool,
) -> Result<(), Failure> {
    let size = std::fs::metadata(file)
        .map_err(|error| Failure::file(file, &error))?
        .len();
    // A path that cannot be taken for an option.
    let path = std::path::absolute(file).map_err(|error| Failure::file(file, &error))?;
    let own = |error: std::io::Error| Failure::file(dbdir, &error);
    let errors = nameless_file(dbdir).map_err(own)?;
    let mut child = quiet(program, &errors)
        .map_err(own)?
        .args([OsStr::new("-p"), path.as_os_str()])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::file(program, &error))?;
    let result = read_output(&mut child, size, spool);
    // Ended already, unless its output was not to be read on.
    let _ = child.kill();
    let status = child
        .wait()
        .map_err(|error| Failure::file(program, &error))?;
    let name = shown.display();
    if status.success() {
        return result.map_err(|why| Failure::error(format!("{name}: {why}")));
    }
    // The copy means nothing to the reader.
    let said = first_line(errors).replace(&*path.to_string_lossy(), &shown.to_string_lossy());
    match result {
        Err(why) if said.is_empty() => Err(Failure::error(format!("{name}: {why}"))),
        _ => Err(Failure::error(format!(
            "{name}: {}: {said}",
            program.display()
        ))),
    }
}

fn read_output(child: &mut Child, size: u64, spool: &mut Spool) -> Result<(), String> {
    let Some(stdout) = child.stdout.take() else {
        return Err("db_dump has no output".into());
    };
    let limit = size.saturating_mul(LARGEST_DUMP).saturating_add(1 << 20);
    let result = read_text(BufReader::new(stdout.take(limit)), spool);
    result.map_err(|wrong| format!("db_dump -p, line {}: {}", wrong.line, wrong.why))
}

/// What the program said first, on one line.
fn first_line(mut errors: File) -> String {
    let mut said = Vec::new();
    // Without its words the failure is told all the same.
    let _ = errors
        .rewind()
        .and_then(|()| errors.take(4096).read_to_end(&mut said));
    let line = said
        .split(|&octet| octet == b'\n')
        .next()
        .unwrap_or_default();
    crate::admin::escape::escaped(line)
}
