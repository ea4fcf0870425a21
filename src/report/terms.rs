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

/// Reads the terms.
pub fn read(words: &Words) -> Result<Terms, Failure> {
    let by = match words.value(Id::By) {
        None => By::Day,
        Some(name) => by_name(name)?,
    };
    let settings = settings(words)?;
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
        rules: settings.rules,
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
    let dbdir = words.value(Id::DbDir).unwrap_or(OsStr::new(paths::DBDIR));
    let dbdir = Path::new(dbdir);
    let left = saved::read(dbdir).ok().flatten();
    let words = left.map_or(Vec::new(), |content| saved::words(&content));
    let settings = settings_of(&words, &[])?;
    // The directory may have been moved, or be a copy.
    Ok(Settings {
        dbdir: dbdir.to_owned(),
        ..settings
    })
}

/// True if there is a database: in its directory, or in Redis.
pub fn has_database(settings: &Settings) -> bool {
    !settings.store.is_lmdb() || environment::exists(&settings.dbdir)
}
