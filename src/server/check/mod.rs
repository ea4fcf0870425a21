//! `--check`: whether a start would succeed, as the user that the server would be,
//! and what is worth knowing before. Nothing is created, changed or asked of a
//! running server.

mod rules;
mod sockets;
mod store;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::signal::kill;
use nix::unistd::{AccessFlags, Pid, access};

use super::start::{advice_for_dbdir, files_to_write, find_identity};
use crate::config::settings::Settings;
use crate::config::whitelists;
use crate::policy::decide::Whitelists;
use crate::policy::whitelist::MailAddressList;
use crate::store::lmdb::claim::{data_file, lock_file};
use crate::store::lmdb::mark::is_marked;
use crate::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use crate::store::verify::is_refusal;
use crate::sys::errors::describe;
use crate::sys::files::is_disk_full;
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
        let pid_file_is_held = check_pid_file(settings, server, &mut findings);
        sockets::check(settings, server, pid_file_is_held, &mut findings);
    }
    let identity = become_user(settings, &mut findings);
    let dbdir_is_usable = check_dbdir(&settings.dbdir, identity.as_ref(), &mut findings);
    if dbdir_is_usable && server.is_none() && settings.store.is_lmdb() {
        check_database(&settings.dbdir, &mut findings);
    }
    if let Some(file) = &settings.stats_file
        && let Err(why) = may_write_beside(file)
    {
        findings.note(format!("--stats-file: {why}: no statistics are written"));
    }
    let loaded = whitelists::load(settings);
    let problems = loaded.problems.into_iter();
    findings.notes.extend(problems.map(|problem| problem.text));
    check_lists(&loaded.whitelists, &mut findings);
    rules::check(settings, &mut findings);
    store::check(settings, &mut findings);
    findings
}

/// What the lists mean together.
fn check_lists(lists: &Whitelists, findings: &mut Findings) {
    for complaint in lists.contradictions() {
        findings.note(complaint.to_string());
    }
    if lists
        .opted_in
        .as_ref()
        .is_some_and(MailAddressList::is_empty)
    {
        findings.note("--greylist-recipients: no recipient is listed: no mail is greylisted");
    }
    let Some(suspects) = &lists.suspects else {
        return;
    };
    // Those that are whitelisted whole are told.
    let whole = suspects.inside(&lists.clients);
    for (whitelisted, suspect) in lists.clients.inside(suspects) {
        if !whole.iter().any(|(told, _)| *told == suspect) {
            findings.note(format!(
                "{suspect}: {whitelisted} whitelists a part of it, and wins"
            ));
        }
    }
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
fn become_user(settings: &Settings, findings: &mut Findings) -> Option<Identity> {
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
    wanted.ok()
}

/// A pid file that cannot be made, or written. True if a server holds it: whoever asks
/// is about to stop that, or will hear of it at the start.
fn check_pid_file(settings: &Settings, server: Option<i32>, findings: &mut Findings) -> bool {
    let Some(path) = &settings.pidfile else {
        return false;
    };
    if fs::symlink_metadata(path).is_err() {
        if let Err(why) = may_write_beside(path) {
            findings.problem(format!("--pidfile: {why}"));
        }
        return false;
    }
    let shown = path.display();
    let holder = match LockFile::new(path.clone(), 0o644).holder(Claim::Daemon) {
        // The original keeps no lock.
        Ok(None) => living_process(path),
        Ok(holder) => holder,
        Err(error) => {
            findings.problem(format!("--pidfile: {shown}: {}", describe(&error)));
            return false;
        }
    };
    if let Some(pid) = holder.filter(|_| holder != server) {
        findings.note(format!("--pidfile: {shown}: process {pid} runs with it"));
    }
    holder.is_some()
}

/// The process whose number stands in a pid file, if there is one.
fn living_process(pid_file: &Path) -> Option<i32> {
    let text = fs::read_to_string(pid_file).ok()?;
    let pid = text.trim().parse().ok().filter(|&pid: &i32| pid > 1)?;
    match kill(Pid::from_raw(pid), None) {
        Err(nix::Error::ESRCH) => None,
        _ => Some(pid),
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

/// Whether a file of the server can be opened by it, if it is there.
fn may_write_file(file: &Path) -> Result<(), String> {
    let refused = |why: &str| Err(format!("{}: {why}", file.display()));
    match fs::symlink_metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return refused(&describe(&error)),
        Ok(found) if found.is_symlink() && fs::metadata(file).is_err() => {
            return refused("a link to nothing");
        }
        // Of data.mdb whatever is no file is set aside.
        Ok(found) if !found.is_file() && !file.ends_with("data.mdb") => {
            return refused("not a regular file");
        }
        Ok(found) if found.nlink() > 1 && file.ends_with("postgrey.lock") => {
            return refused("it has another name");
        }
        Ok(_) => {}
    }
    match access(file, AccessFlags::R_OK | AccessFlags::W_OK) {
        Ok(()) => Ok(()),
        Err(error) => refused(error.desc()),
    }
}

/// True if it can be used.
fn check_dbdir(dbdir: &Path, identity: Option<&Identity>, findings: &mut Findings) -> bool {
    let advice = || identity.map_or_else(String::new, |who| advice_for_dbdir(dbdir, who));
    if let Err(why) = may_write_in(dbdir) {
        findings.problem(format!("--dbdir: {why}{}", advice()));
        return false;
    }
    for file in files_to_write(dbdir) {
        if let Err(why) = may_write_file(&file) {
            findings.problem(format!("--dbdir: {why}{}", advice()));
        }
    }
    if is_disk_full(dbdir) {
        let text = format!("--dbdir: {}: the disk is full", dbdir.display());
        match fs::symlink_metadata(data_file(dbdir)) {
            Ok(_) => findings.note(text),
            Err(_) => findings.problem(text),
        }
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
            Err(error) if !is_refusal(&error) => Err(format!("{}: {}", error.call, error.reason)),
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
