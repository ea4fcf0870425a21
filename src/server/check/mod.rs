//! `--check`: whether a start would succeed, as the user that the server would be,
//! and what is worth knowing before. Nothing is created, changed or asked of a
//! running server.

mod rules;
mod sockets;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{AccessFlags, access};

use super::start::{advice_for_dbdir, find_identity};
use crate::config::settings::Settings;
use crate::config::whitelists;
use crate::store::ErrorKind;
use crate::store::lmdb::claim::{data_file, is_marked, lock_file};
use crate::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use crate::sys::errors::describe;
use crate::sys::lock::{Claim, LockFile};
use crate::sys::process::{self, ChildResult, Identity};

/// Seconds for which the database is looked at.
const LONGEST_LOOK: u32 = 10;

/// What is to be said.
#[derive(Default)]
pub struct Findings {
    /// For what a start would fail, or mail would not be greylisted at all.
    pub problems: Vec<String>,
    /// What a start survives.
    pub notes: Vec<String>,
}

impl Findings {
    fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

/// Looks at everything. This process is the server's user afterwards.
pub fn check(settings: &Settings) -> Findings {
    let mut findings = Findings::default();
    let server = running_server(&settings.dbdir);
    if !settings.spawn {
        sockets::check(settings, server, &mut findings);
        check_pid_file(settings, server, &mut findings);
    }
    let identity = become_user(settings, &mut findings);
    let dbdir_is_usable = check_dbdir(&settings.dbdir, &identity, &mut findings);
    if dbdir_is_usable && server.is_none() {
        check_database(&settings.dbdir, &mut findings);
    }
    if let Some(file) = &settings.stats_file
        && let Err(why) = may_write_beside(file)
    {
        findings.note(format!("--stats-file: {why}: no statistics are written"));
    }
    let problems = whitelists::load(settings).problems;
    findings
        .notes
        .extend(problems.into_iter().map(|problem| problem.text));
    rules::check(settings, &mut findings);
    findings
}

/// The process of the server that uses this directory.
fn running_server(dbdir: &Path) -> Option<i32> {
    let path = lock_file(dbdir);
    // It would be made if it were missing.
    fs::symlink_metadata(&path).ok()?;
    let lock = LockFile::new(path, 0o600);
    lock.holder(Claim::Daemon).ok().flatten()
}

/// Becomes the user of the server, as far as that is possible.
fn become_user(settings: &Settings, findings: &mut Findings) -> Identity {
    let wanted = match settings.spawn {
        // A session is what spawn(8) makes it.
        true => process::current_identity().map_err(|why| format!("ERROR: {why}")),
        false => find_identity(settings).map_err(|error| error.message),
    };
    if let Some(group) = &settings.group
        && !matches!(process::find_group(group), Ok(Some(_)))
    {
        findings.problem(format!("ERROR: No such group \"{group}\""));
    }
    let became = wanted.clone().and_then(|identity| {
        process::become_user(&identity).map_err(|why| format!("ERROR: {why}"))
    });
    if !settings.spawn
        && let Err(why) = became
        && !findings.problems.contains(&why)
    {
        findings.problem(why);
    }
    wanted.unwrap_or_else(|_| Identity {
        name: settings.user.clone(),
        uid: nix::unistd::Uid::effective(),
        gid: nix::unistd::Gid::effective(),
    })
}

/// A pid file that another server holds, or that cannot be made.
fn check_pid_file(settings: &Settings, server: Option<i32>, findings: &mut Findings) {
    let Some(path) = &settings.pidfile else {
        return;
    };
    if let Err(why) = may_write_beside(path) {
        return findings.problem(format!("--pidfile: {why}"));
    }
    if fs::symlink_metadata(path).is_err() {
        return;
    }
    match LockFile::new(path.clone(), 0o644).holder(Claim::Daemon) {
        Ok(holder) if holder.is_none() || holder == server => {}
        Ok(holder) => {
            let (path, pid) = (path.display(), holder.unwrap_or_default());
            findings.problem(format!(
                "--pidfile: {path}: another server uses it (process {pid})"
            ));
        }
        Err(error) => {
            findings.problem(format!(
                "--pidfile: {}: {}",
                path.display(),
                describe(&error)
            ));
        }
    }
}

/// Whether a file may be made in the directory of this path.
fn may_write_beside(file: &Path) -> Result<(), String> {
    let directory = match file.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    may_write_in(directory)
}

fn may_write_in(directory: &Path) -> Result<(), String> {
    let shown = directory.display();
    match fs::metadata(directory) {
        Err(error) => return Err(format!("{shown}: {}", describe(&error))),
        Ok(found) if !found.is_dir() => return Err(format!("{shown}: Not a directory")),
        Ok(_) => {}
    }
    match access(directory, AccessFlags::W_OK | AccessFlags::X_OK) {
        Ok(()) => Ok(()),
        Err(nix::Error::EACCES) => {
            let user = process::current_identity().map_or_else(|_| "?".into(), |who| who.name);
            Err(format!("{shown}: user \"{user}\" may not write there"))
        }
        Err(error) => Err(format!("{shown}: {}", error.desc())),
    }
}

/// True if it can be used.
fn check_dbdir(dbdir: &Path, identity: &Identity, findings: &mut Findings) -> bool {
    if let Err(why) = may_write_in(dbdir) {
        let advice = advice_for_dbdir(dbdir, identity);
        findings.problem(format!("--dbdir: {why}{advice}"));
        return false;
    }
    let mode = fs::metadata(dbdir).map_or(0, |found| found.mode());
    if mode & 0o007 != 0 {
        let (dir, mode) = (dbdir.display(), mode & 0o7777);
        findings.note(format!(
            "--dbdir: {dir}: others may look into it (mode {mode:04o}): chmod 0700 {dir}"
        ));
    }
    true
}

/// Opens the database, if there is one that no server uses, in a process that may
/// die of it.
fn check_database(dbdir: &Path, findings: &mut Findings) {
    if fs::symlink_metadata(data_file(dbdir)).is_err() {
        return;
    }
    if is_marked(dbdir) {
        let dir = dbdir.display();
        findings.note(format!(
            "--dbdir: {dir}: the last server did not end in order: the database will be verified"
        ));
        return;
    }
    let looked = process::run_in_child(LONGEST_LOOK, || {
        let mut store = LmdbStore::new(LmdbOptions {
            dir: dbdir.to_owned(),
            map_size: 0,
            purpose: Purpose::Verify,
            patience: std::time::Duration::ZERO,
        });
        match store.prepare().and_then(|()| store.is_short()) {
            Ok(false) => Ok(String::new()),
            Ok(true) => Err("the file ends before its last page".into()),
            Err(error) if error.kind == ErrorKind::Damage => {
                Err(format!("{}: {}", error.call, error.reason))
            }
            Err(_) => Ok(String::new()),
        }
    });
    let why = match looked {
        Ok(ChildResult::Err(why)) => why,
        Ok(ChildResult::Crashed(how)) => format!("reading it ended with {how}"),
        Ok(ChildResult::Ok(_)) | Err(_) => return,
    };
    let dir = dbdir.display();
    findings.note(format!(
        "--dbdir: {dir}: the database is damaged ({why}): it will be set aside, and an empty one begun"
    ));
}
