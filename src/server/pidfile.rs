//! The file with the number of the master.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::start_error::{StartError, give_to};
use crate::sys::lock::{Claim, LockFile};
use crate::sys::process::Identity;

/// A lock on the file tells a living master from a file left behind. The file
/// goes with it, in the process that wrote it. Where the directory does not
/// allow that, it keeps its number: the original starts over that of a process
/// that is gone, and refuses to start over an empty file.
#[derive(Default)]
pub struct PidFile {
    lock: Option<LockFile>,
    owner: u32,
}

impl PidFile {
    /// Writes the number of this process into the file, if one is wanted.
    pub fn write(path: Option<&Path>, identity: &Identity) -> Result<Self, StartError> {
        let Some(path) = path else {
            return Ok(PidFile::default());
        };
        let fail = |error: io::Error| {
            StartError::of_io(&format!("can't write pid file {}", path.display()), &error)
        };
        let lock = LockFile::new(path.to_owned(), 0o644);
        lock.file().map_err(fail)?;
        if !lock.try_lock(Claim::Daemon).map_err(fail)? {
            let holder = lock.holder(Claim::Daemon).ok().flatten().unwrap_or(0);
            let message = format!(
                "FATAL: Pid_file already exists for running process ({holder})... aborting"
            );
            return Err(StartError::new(25, message));
        }
        let written = PidFile {
            lock: Some(lock),
            owner: std::process::id(),
        };
        written.fill(identity).map_err(fail)?;
        Ok(written)
    }

    fn fill(&self, identity: &Identity) -> io::Result<()> {
        let Some(lock) = &self.lock else {
            return Ok(());
        };
        let mut file = lock.file()?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        give_to(file, identity)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        let Some(lock) = &self.lock else { return };
        if self.owner == std::process::id() {
            let _ = std::fs::remove_file(lock.path());
        }
    }
}
