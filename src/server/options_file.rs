//! The options of the server beside its database, for postgreyctl: written by the
//! daemon when it starts and when it has read its whitelists again, and by a
//! spawned session where no daemon runs.

use std::io;

use crate::config::saved;
use crate::config::settings::Settings;
use crate::log::Log;
use crate::sys::errors::describe;
use crate::sys::lock::{Claim, LockFile};

/// Writes the options of the daemon. Mail does not suffer if that fails.
pub fn write_for_daemon(settings: &Settings, log: &Log) {
    let written = match saved::content(settings) {
        Ok(content) => write(settings, &content),
        Err(error) => {
            let _ = saved::remove(&settings.dbdir);
            Err(error)
        }
    };
    complain_of_failure(settings, written, log);
}

/// Writes the options of a session if they differ from those that are there and
/// no daemon runs, whose own are not a session's to change or remove.
pub fn write_for_session(settings: &Settings, lock: &LockFile, log: &Log) {
    complain_of_failure(settings, try_for_session(settings, lock), log);
}

fn try_for_session(settings: &Settings, lock: &LockFile) -> io::Result<()> {
    let content = saved::content(settings)?;
    if holds(settings, &content) || lock.holder(Claim::Daemon)?.is_some() {
        return Ok(());
    }
    write(settings, &content)
}

fn write(settings: &Settings, content: &[u8]) -> io::Result<()> {
    let written = saved::write(&settings.dbdir, content);
    if written.is_err() && !holds(settings, content) {
        // Those of another server would be taken for ours.
        let _ = saved::remove(&settings.dbdir);
    }
    written
}

/// True if these options are there. What cannot be read is not.
fn holds(settings: &Settings, content: &[u8]) -> bool {
    saved::read(&settings.dbdir).is_ok_and(|found| found.as_deref() == Some(content))
}

fn complain_of_failure(settings: &Settings, written: io::Result<()>, log: &Log) {
    if let Err(error) = written {
        let (path, reason) = (saved::path(&settings.dbdir), describe(&error));
        let line = format!(
            "cannot write the options for postgreyctl to {}: {reason}",
            path.display()
        );
        log.complain_about(&reason, &line);
    }
}
