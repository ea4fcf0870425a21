//! The file with the number of the master.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::start_error::{StartError, give_to};
use crate::sys::lock::{Claim, LockFile};
use crate::sys::process::Identity;

/// A lock on the file tells a living master from a file left behind.
#[derive(Default)]
pub struct PidFile(Option<LockFile>);

impl PidFile {
    /// Writes the number of this process into the file, if one is wanted.
    pub fn write(path: Option<&Path>, identity: &Identity) -> Result<Self, StartError> {
        let Some(path) = path else {
            return Ok(PidFile(None));
        };
        let fail = |error: io::Error| {
            StartError::of_io(&format!("can't write pid file {}", path.display()), &error)
        };
        let lock = LockFile::new(path.to_owned(), 0o644);
        let mut file = lock.file().map_err(fail)?;
        if !lock.try_lock(Claim::Daemon).map_err(fail)? {
            let holder = lock.holder(Claim::Daemon).ok().flatten().unwrap_or(0);
            let message = format!(
                "FATAL: Pid_file already exists for running process ({holder})... aborting"
            );
            return Err(StartError::new(25, message));
        }
        file.set_len(0).map_err(fail)?;
        writeln!(file, "{}", std::process::id()).map_err(fail)?;
        file.set_permissions(Permissions::from_mode(0o644))
            .map_err(fail)?;
        give_to(file, identity).map_err(fail)?;
        Ok(PidFile(Some(lock)))
    }

    /// Removes it. Where the directory does not allow it, the file is emptied.
    pub fn remove(&self) {
        let Some(lock) = &self.0 else { return };
        if std::fs::remove_file(lock.path()).is_err()
            && let Ok(file) = lock.file()
        {
            let _ = file.set_len(0);
        }
    }
}
