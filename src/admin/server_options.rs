//! What the server does: its options, from the file beside its database, and
//! those of the caller after `--`, which beat them.

use std::fs;
use std::io::{self, ErrorKind, IsTerminal};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::complain;
use super::environment::server_of;
use super::escape::escaped;
use super::failure::Failure;
use super::options::Id;
use super::output::Output;
use super::words::{Words, settings_of};
use crate::config::paths::is_local_file;
use crate::config::settings::Settings;
use crate::config::{print_config, saved};
use crate::sys::errors::describe;

/// The settings of the server. If they cannot be had, the user is told by what the
/// command goes.
pub fn settings(words: &Words) -> Result<Settings, Failure> {
    let dbdir = words.dbdir();
    let found = match words.has(Id::Defaults) {
        true => None,
        false => read(&dbdir),
    };
    merge(words, dbdir, found)
}

/// The same for commands that need no more of them than where the records are.
pub fn settings_of_store(words: &Words) -> Result<Settings, Failure> {
    let dbdir = words.dbdir();
    let found = match words.has(Id::Defaults) {
        true => None,
        false => saved::read(&dbdir).ok().flatten(),
    };
    merge(words, dbdir, found)
}

fn merge(words: &Words, dbdir: PathBuf, found: Option<Vec<u8>>) -> Result<Settings, Failure> {
    let left = found.as_deref().map(saved::words).unwrap_or_default();
    let mut settings = settings_of(&left, words.server_options()).map_err(|failure| {
        // Those of the caller alone were read before.
        let path = saved::path(&dbdir);
        let why = escaped(failure.message.as_bytes());
        let message = format!("{}: {why} (--defaults does without)", path.display());
        Failure::new(message, failure.exit_code)
    })?;
    settings.dbdir = dbdir;
    if words.has(Id::Verbose) {
        for word in print_config(&settings).split(|&octet| octet == b'\n') {
            if !word.is_empty() {
                complain(&format!("option of the server: {}", escaped(word)));
            }
        }
    }
    Ok(settings)
}

/// What a server has left; if that is nothing, or cannot be read, the user is
/// told what is taken in its place.
fn read(dbdir: &Path) -> Option<Vec<u8>> {
    let path = saved::path(dbdir);
    let why = match saved::read(dbdir) {
        Ok(Some(found)) => return Some(found),
        Ok(None) => format!("no server has left its options in {}", path.display()),
        Err(error) => format!("cannot read {}: {}", path.display(), describe(&error)),
    };
    complain(&format!("{why}: the defaults are taken"));
    None
}

/// Names the whitelists that were changed after the server that runs has read
/// them: it goes by what they held then, also after a reload that was refused.
pub fn warn_of_changed_lists(settings: &Settings) {
    let server = server_of(&settings.dbdir);
    let (Ok(Some(pid)), Ok(read_at)) = (server, saved::written_at(&settings.dbdir)) else {
        return;
    };
    let rules = &settings.rules;
    let lists = [
        (true, &settings.whitelist_clients),
        (true, &settings.whitelist_recipients),
        (true, &settings.whitelist_senders),
        (true, &settings.greylist_recipients),
        (true, &settings.suspect_clients),
        (settings.s25r, &settings.s25r_except),
        (rules.by_domain, &settings.pool_domains),
    ];
    let read = lists.into_iter().filter(|(is_read, _)| *is_read);
    for path in read.flat_map(|(_, paths)| paths) {
        let is_later = |found: fs::Metadata| (found.ctime(), found.ctime_nsec()) > read_at;
        let is_changed = match fs::metadata(path) {
            Ok(found) => is_later(found),
            // It may never have been there: whoever removes it changes its directory.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let directory = path.parent().and_then(|parent| fs::metadata(parent).ok());
                !is_local_file(path.as_os_str()) && directory.is_some_and(is_later)
            }
            Err(_) => false,
        };
        if is_changed {
            complain(&format!(
                "{} was changed after the server has read it: the server goes by what was \
                 there until it reads the file again (kill -HUP {pid})",
                path.display()
            ));
        }
    }
}

/// `config`: the options of the server.
pub fn run(words: &Words) -> Result<(), Failure> {
    let dbdir = words.dbdir();
    let path = saved::path(&dbdir);
    let found = saved::read(&dbdir).map_err(|error| Failure::file(&path, &error))?;
    let Some(content) = found else {
        return Err(Failure::no(format!(
            "no server has left its options in {}",
            path.display()
        )));
    };
    if server_of(&dbdir)?.is_none() {
        complain(
            "no server runs: these are the options of the last one, or of sessions of spawn(8)",
        );
    }
    let mut output = Output::new();
    if !io::stdout().is_terminal() {
        output.write(&content)?;
        return output.finish();
    }
    for word in saved::words(&content) {
        output.line(escaped(word.as_bytes()))?;
    }
    output.finish()
}
