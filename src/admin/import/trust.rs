//! Which files are read with the rights of the caller.
//!
//! What root reads is copied to where the owner of the database, and with it
//! the server, has it. Whoever may put a link, or another name of a file, where
//! root looks could so read what is not his. So a link counts only as the word
//! of one who may read what it leads to; and in a directory a file counts only
//! as its owner's, or root's if nobody else could have put it there.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::Uid;

use crate::admin::failure::Failure;

/// Opens what the caller named. Links on the way are followed if they are
/// root's, the caller's, or of the owner of what they lead to.
pub fn open_named(path: &Path) -> Result<(File, Metadata), Failure> {
    let failed = |error: io::Error| Failure::file(path, &error);
    let refused = |why: String| failed(io::Error::other(why));
    let callers = [0, Uid::effective().as_raw()];
    let wanted = fs::metadata(path).map_err(failed)?;
    // Without what may stand behind a link: a slash would have it followed.
    let plain: PathBuf = path.components().collect();
    for step in plain.ancestors().filter(|step| *step != Path::new("")) {
        let named = fs::symlink_metadata(step).map_err(failed)?;
        if named.is_symlink() {
            let target = fs::metadata(step).map_err(failed)?;
            if !callers.contains(&named.uid()) && named.uid() != target.uid() {
                return Err(refused(format!(
                    "{} is a symbolic link of user {}, and what it leads to is user {}'s",
                    step.display(),
                    named.uid(),
                    target.uid()
                )));
            }
        }
    }
    let file = File::open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    // Some systems have devices for open files, which another file is opened by.
    let is_device = wanted.file_type().is_char_device() && callers.contains(&wanted.uid());
    if (found.dev(), found.ino()) != (wanted.dev(), wanted.ino()) && !is_device {
        return Err(refused("it has been replaced just now".into()));
    }
    if found.is_file() && found.nlink() > 1 {
        let folder = fs::canonicalize(path).and_then(|path| fs::metadata(folder_of(&path)));
        let folder = folder.map_err(failed)?;
        if folder.uid() != found.uid() || !is_private(&folder) {
            return Err(refused(links(&found)));
        }
    }
    Ok((file, found))
}

/// The directory a file is in.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// True if only the owner of a directory can put files there.
fn is_private(folder: &Metadata) -> bool {
    folder.mode() & 0o022 == 0
}

fn links(file: &Metadata) -> String {
    format!(
        "it has {} links, and may be a file from elsewhere",
        file.nlink()
    )
}

/// An open directory, from which nothing leads out.
pub struct Folder {
    path: PathBuf,
    listed: Dir,
    owner: u32,
    /// Only root can put files there.
    is_roots: bool,
}

impl Folder {
    /// Opens a directory.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        let (file, _) = open_named(path)?;
        Folder::of_open(path, file)
    }

    /// Takes a directory that is open.
    pub fn of_open(path: &Path, file: File) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::file(path, &error);
        let found = file.metadata().map_err(failed)?;
        let listed = Dir::from_fd(file.into());
        Ok(Folder {
            path: path.to_owned(),
            listed: listed.map_err(|error| failed(error.into()))?,
            owner: found.uid(),
            is_roots: found.uid() == 0 && is_private(&found),
        })
    }

    /// How it was called.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names in it, in no order.
    pub fn names(&mut self) -> io::Result<Vec<OsString>> {
        let entries = self.listed.iter();
        let name = |entry: nix::dir::Entry| OsStr::from_bytes(entry.file_name().to_bytes()).into();
        entries.map(|entry| Ok(name(entry?))).collect()
    }

    /// Opens a file in it; the error says why it does not count. Of what is no
    /// file, such as a FIFO, nothing is waited for.
    pub fn open_file(&self, name: &OsStr) -> io::Result<File> {
        let refused = |why: String| Err(io::Error::other(why));
        let flags = OFlag::O_RDONLY
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_NOCTTY
            | OFlag::O_CLOEXEC;
        let file = match openat(&self.listed, name, flags, Mode::empty()) {
            Ok(descriptor) => File::from(descriptor),
            Err(Errno::ELOOP) => return refused("a symbolic link, which is not followed".into()),
            Err(error) => return Err(error.into()),
        };
        let found = file.metadata()?;
        if !found.is_file() {
            return refused("not a regular file".into());
        }
        if found.nlink() > 1 {
            return refused(links(&found));
        }
        if found.uid() != self.owner && !self.is_roots {
            return refused(format!(
                "it belongs to user {}, and its directory to user {}",
                found.uid(),
                self.owner
            ));
        }
        Ok(file)
    }
}
