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
    let content = saved::content(settings);
    let written = content.and_then(|content| saved::write(&settings.dbdir, &content));
    complain_of_failure(settings, written, log);
}

/// Writes the options of a session if they differ from those that are there and
/// no daemon has left its own.
pub fn write_for_session(settings: &Settings, lock: &LockFile, log: &Log) {
    complain_of_failure(settings, try_for_session(settings, lock), log);
}

fn try_for_session(settings: &Settings, lock: &LockFile) -> io::Result<()> {
    let content = saved::content(settings)?;
    let is_there = saved::read(&settings.dbdir)?.as_deref() == Some(&content[..]);
    if is_there || lock.holder(Claim::Daemon)?.is_some() {
        return Ok(());
    }
    saved::write(&settings.dbdir, &content)
}

fn complain_of_failure(settings: &Settings, written: io::Result<()>, log: &Log) {
    if let Err(error) = written {
        // Those of another server would be taken for ours.
        let _ = saved::remove(&settings.dbdir);
        let (path, reason) = (saved::path(&settings.dbdir), describe(&error));
        let line = format!(
            "cannot write the options for postgreyctl to {}: {reason}",
            path.display()
        );
        log.complain_about(&reason, &line);
    }
}
