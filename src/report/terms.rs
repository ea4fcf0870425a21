//! By what lines are counted: the options of the report, and those of the server where
//! it has left them beside its database.

use std::ffi::OsStr;
use std::path::Path;

use super::options::Id;
use super::tally::Terms;
use super::tally::periods::By;
use super::words::Words;
use crate::admin::environment;
use crate::admin::failure::Failure;
use crate::admin::words::settings_of;
use crate::config::settings::Settings;
use crate::config::{paths, saved, whitelists};
use crate::policy::rules::Rules;
use crate::sys::errors::describe;

/// The terms, by the settings of the server.
pub fn read(words: &Words, settings: &Settings) -> Result<Terms, Failure> {
    let by = match words.value(Id::By) {
        None => By::Day,
        Some(name) => by_name(name)?,
    };
    // The domains are wanted whatever the server does with them.
    let with_pools = Settings {
        rules: Rules {
            by_domain: true,
            ..settings.rules.clone()
        },
        whitelist_clients: Vec::new(),
        whitelist_recipients: Vec::new(),
        ..settings.clone()
    };
    let mut lists = whitelists::load(&with_pools).whitelists;
    let pools = lists.pools.clone().unwrap_or_default();
    lists.pools = lists.pools.take().filter(|_| settings.rules.by_domain);
    let text = words
        .value(Id::GreylistText)
        .unwrap_or(OsStr::new("Greylisted"));
    let greylist_text = regex::bytes::Regex::new(&text.to_string_lossy()).map_err(|_| {
        Failure::usage(format!(
            "Value \"{}\" invalid for option greylist-text (pattern expected)",
            text.display()
        ))
    })?;
    Ok(Terms {
        by,
        rules: settings.rules.clone(),
        lists,
        pools,
        greylist_text,
    })
}

fn by_name(name: &OsStr) -> Result<By, Failure> {
    let found = By::ALL.iter().find(|(own, _)| *own == name);
    found.map(|(_, by)| *by).ok_or_else(|| {
        Failure::usage(format!(
            "Value \"{}\" invalid for option by (hour, day or week expected)",
            name.display()
        ))
    })
}

/// The settings of the server with this database; the defaults if it has left none that
/// this user may read: the log is told all the same.
pub fn settings(words: &Words) -> Result<Settings, Failure> {
    let given = words.value(Id::DbDir).map(Path::new);
    let dbdir = given.unwrap_or(Path::new(paths::DBDIR));
    if given.is_some() {
        let found = std::fs::metadata(dbdir).map_err(|error| Failure::file(dbdir, &error))?;
        if !found.is_dir() {
            return Err(Failure::error(format!(
                "{}: Not a directory",
                dbdir.display()
            )));
        }
    }
    let settings = left(dbdir).or_else(|why| {
        if given.is_some() {
            let file = saved::path(dbdir);
            crate::admin::complain(&format!(
                "WARNING: {}: {why}: the defaults of the server count",
                file.display()
            ));
        }
        settings_of(&[], &[])
    })?;
    // The directory may have been moved, or be a copy.
    Ok(Settings {
        dbdir: dbdir.to_owned(),
        ..settings
    })
}

/// The settings that the server has left; the defaults without any.
fn left(dbdir: &Path) -> Result<Settings, String> {
    let content = saved::read(dbdir).map_err(|error| describe(&error))?;
    let words = content.map_or(Vec::new(), |content| saved::words(&content));
    settings_of(&words, &[]).map_err(|failure| failure.message)
}

/// True if there is a database: in its directory, or in Redis.
pub fn has_database(settings: &Settings) -> bool {
    !settings.store.is_lmdb() || environment::exists(&settings.dbdir)
}
