//! Locks on octets of one file, by fcntl(2).
//!
//! Such a lock dies with its process, is not inherited by fork, and is lost
//! when any descriptor of the file is closed in the process: so the file is
//! opened once and kept open.

use std::cell::OnceCell;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};

/// What an octet of the lock file stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// To be the daemon of this directory: held by the master.
    Daemon,
    /// To commit: held during a write transaction.
    Commit,
}

/// A file to lock, opened when it is first needed.
#[derive(Debug)]
pub struct LockFile {
    path: PathBuf,
    mode: u32,
    file: OnceCell<File>,
}

impl LockFile {
    /// A lock file that is made with this mode if it is missing. A symbolic
    /// link is refused, and so is a file with a second name: root gives lock
    /// files away, in directories where others may make links.
    pub fn new(path: PathBuf, mode: u32) -> Self {
        LockFile {
            path,
            mode,
            file: OnceCell::new(),
        }
    }

    /// Closes the file if there is another one, or none, at its path: a lock on
    /// it keeps nobody off any more.
    pub fn follow_path(&mut self) -> io::Result<()> {
        let Some(file) = self.file.get() else {
            return Ok(());
        };
        let open = file.metadata()?;
        let is_same = std::fs::symlink_metadata(&self.path)
            .is_ok_and(|found| (found.dev(), found.ino()) == (open.dev(), open.ino()));
        if !is_same {
            self.file = OnceCell::new();
        }
        Ok(())
    }

    /// The path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open file.
    pub fn file(&self) -> io::Result<&File> {
        if self.file.get().is_none() {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(self.mode)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&self.path)?;
            let metadata = file.metadata()?;
            if !metadata.is_file() || metadata.nlink() > 1 {
                return Err(nix::Error::EMLINK.into());
            }
            // Nobody else could have set it: the cell is not shared.
            let _ = self.file.set(file);
        }
        self.file
            .get()
            .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
    }

    /// For a child: the same open file. The parent's locks stay with the
    /// parent.
    pub fn for_child(&self) -> io::Result<Self> {
        let file = self.file()?.try_clone()?;
        Ok(LockFile {
            path: self.path.clone(),
            mode: self.mode,
            file: OnceCell::from(file),
        })
    }

    /// Takes a lock if it is free; false if another process has it.
    pub fn try_lock(&self, claim: Claim) -> io::Result<bool> {
        match fcntl(
            self.file()?,
            FcntlArg::F_SETLK(&flock(claim, libc::F_WRLCK as i16)),
        ) {
            Ok(_) => Ok(true),
            Err(nix::Error::EACCES | nix::Error::EAGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a lock back.
    pub fn unlock(&self, claim: Claim) -> io::Result<()> {
        fcntl(
            self.file()?,
            FcntlArg::F_SETLK(&flock(claim, libc::F_UNLCK as i16)),
        )?;
        Ok(())
    }

    /// The process that has a lock; `None` if it is free or ours.
    pub fn holder(&self, claim: Claim) -> io::Result<Option<i32>> {
        let mut lock = flock(claim, libc::F_WRLCK as i16);
        fcntl(self.file()?, FcntlArg::F_GETLK(&mut lock))?;
        Ok((lock.l_type != libc::F_UNLCK as i16).then_some(lock.l_pid))
    }
}

fn flock(claim: Claim, kind: i16) -> libc::flock {
    // SAFETY: flock is a plain structure of integers, for which zeros are valid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = claim as libc::off_t;
    lock.l_len = 1;
    lock
}
