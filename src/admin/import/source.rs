//! Where the records come from: a text, or files of the original. Everything is
//! opened here, with the rights of the caller.

use std::io::{self, BufReader, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::berkeley;
use super::formats::read_text;
use super::original::Original;
use super::spool::{Section, Spool, SpoolReader};
use super::trust::{Folder, open_named};
use crate::admin::complain;
use crate::admin::failure::Failure;
use crate::admin::progress::Progress;
use crate::store::berkeley::{HEAD, is_berkeley};

/// Where the records come from.
pub enum Source {
    /// A text, with its name and its length if it has one.
    Text(Box<dyn Read>, String, u64),
    /// Berkeley DB files.
    Berkeley(Original),
}

impl Source {
    /// Opens what the caller named.
    pub fn open(name: &[u8]) -> Result<Source, Failure> {
        if name == b"-" {
            let input = Box::new(io::stdin());
            return Ok(Source::Text(input, "standard input".into(), 0));
        }
        let path = PathBuf::from(std::ffi::OsStr::from_bytes(name));
        let failed = |error: io::Error| Failure::file(&path, &error);
        let (mut file, metadata) = open_named(&path)?;
        if metadata.is_dir() {
            let original = Original::of_directory(Folder::of_open(&path, file)?)?;
            return original.map(Source::Berkeley).ok_or_else(|| {
                Failure::error(format!(
                    "{}: there are no databases of the original",
                    path.display()
                ))
            });
        }
        if metadata.is_file() {
            let mut head = Vec::new();
            Read::by_ref(&mut file)
                .take(HEAD as u64)
                .read_to_end(&mut head)
                .map_err(failed)?;
            if is_berkeley(&head) {
                let original = Original::of_file(&path, file)?;
                return Ok(Source::Berkeley(original));
            }
            file.rewind().map_err(failed)?;
        }
        let name = path.display().to_string();
        Ok(Source::Text(Box::new(file), name, metadata.len()))
    }

    /// True for a directory, whose files say which database each is.
    pub fn is_directory(&self) -> bool {
        matches!(self, Source::Berkeley(original) if original.is_whole())
    }

    /// Reads everything into a spool.
    pub fn read(self, dbdir: &Path) -> Result<(Vec<Section>, SpoolReader), Failure> {
        let failed = |error: io::Error| Failure::file(dbdir, &error);
        let mut spool = Spool::new(dbdir).map_err(failed)?;
        match self {
            Source::Text(reader, name, length) => {
                spool.begin_source(&name);
                let progress = Progress::new("reading", length);
                let reader = BufReader::with_capacity(128 * 1024, Counted { reader, progress });
                read_text(reader, &mut spool).map_err(|wrong| {
                    Failure::error(format!(
                        "{name} line {}: {}; nothing was imported",
                        wrong.line, wrong.why
                    ))
                })?;
                if spool.sections.iter().all(is_empty) {
                    complain(&format!("{name}: {NOTHING}; {ELSEWHERE}"));
                }
            }
            Source::Berkeley(mut original) => {
                berkeley::read(&mut original, dbdir, &mut spool)?;
                tell_empty(&spool.sections, &original)?;
            }
        }
        spool.finish().map_err(failed)
    }
}

const NOTHING: &str = "there are no records in it";
const ELSEWHERE: &str = "those of an original that runs or was killed are in its log.* files: \
import its whole directory";

fn is_empty(section: &Section) -> bool {
    section.looks.records == 0
}

/// A database without records is that of a server that had none, or the file of
/// one that was killed, without its log files. A whole directory without both is
/// no copy of what a server had.
fn tell_empty(sections: &[Section], original: &Original) -> Result<(), Failure> {
    if original.is_whole() && !original.has_logs() && sections.iter().all(is_empty) {
        let folder = original.folder().display();
        return Err(Failure::no(format!(
            "ERROR: {folder}: {NOTHING}; {ELSEWHERE}"
        )));
    }
    for section in sections.iter().filter(|section| is_empty(section)) {
        let source = &section.source;
        if original.has_logs() {
            complain(&format!(
                "{source}: {NOTHING}, nor for it in the log.* files"
            ));
        } else {
            complain(&format!("{source}: {NOTHING}; {ELSEWHERE}"));
        }
    }
    Ok(())
}

/// A reader that shows how far it is.
struct Counted {
    reader: Box<dyn Read>,
    progress: Progress,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.progress.add(count as u64);
        Ok(count)
    }
}
