//! Berkeley DB files of the original: read by Berkeley DB's own `db_dump`,
//! since the format is its own and differs between versions.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::formats::read_text;
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

/// A dump of print format is at most so many times as large as its file.
const LARGEST_DUMP: u64 = 64;

/// The programs that are there, the likeliest first.
fn programs() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(FOLDERS.iter().map(PathBuf::from));
    folders.retain(|folder| folder.is_absolute());
    let mut found: Vec<PathBuf> = Vec::new();
    for name in NAMES {
        if let Some(program) = folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|p| p.is_file())
            && !found.contains(&program)
        {
            found.push(program);
        }
    }
    found
}

/// Reads a file into the spool with the first program that can.
pub fn read_file(file: &Path, dbdir: &Path, spool: &mut Spool) -> Result<(), Failure> {
    let programs = programs();
    let mark = spool.mark().map_err(|error| Failure::file(dbdir, &error))?;
    let mut failure = Failure::error(NO_PROGRAM);
    for program in programs {
        match run_program(&program, file, dbdir, spool) {
            Ok(()) => return Ok(()),
            Err(error) => failure = error,
        }
        spool
            .return_to(&mark)
            .map_err(|error| Failure::file(dbdir, &error))?;
    }
    Err(failure)
}

fn run_program(
    program: &Path,
    file: &Path,
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
    let stderr = errors.try_clone().map_err(own)?;
    let mut child = Command::new(program)
        .args([OsStr::new("-p"), path.as_os_str()])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .map_err(|error| Failure::file(program, &error))?;
    let result = read_output(&mut child, size, spool);
    // Ended already, unless its output was not to be read on.
    let _ = child.kill();
    let status = child
        .wait()
        .map_err(|error| Failure::file(program, &error))?;
    let name = file.display();
    if status.success() {
        return result.map_err(|why| Failure::error(format!("{name}: {why}")));
    }
    let said = first_line(errors);
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
