//! By what lines are counted: the options of the report, and those of the server where
//! it has left them beside its database.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::options::Id;
use super::tally::Terms;
use super::tally::periods::By;
use super::words::Words;
use crate::admin::failure::Failure;
use crate::admin::words::settings_of;
use crate::config::settings::Settings;
use crate::config::{paths, saved, whitelists};
use crate::policy::rules::Rules;

/// The directory of the database.
pub fn dbdir(words: &Words) -> PathBuf {
    words
        .value(Id::DbDir)
        .unwrap_or(OsStr::new(paths::DBDIR))
        .into()
}

/// Reads the terms.
pub fn read(words: &Words) -> Result<Terms, Failure> {
    let by = match words.value(Id::By) {
        None => By::Day,
        Some(name) => by_name(name)?,
    };
    let settings = settings(&dbdir(words))?;
    // The domains are wanted whatever the server does with them.
    let with_pools = Settings {
        rules: Rules {
            by_domain: true,
            ..settings.rules.clone()
        },
        whitelist_clients: Vec::new(),
        whitelist_recipients: Vec::new(),
        s25r: false,
        s25r_except: Vec::new(),
        ..settings.clone()
    };
    let pools = whitelists::load(&with_pools).whitelists.pools;
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
        rules: Rules {
            // Names are told, not their hashes.
            privacy: false,
            ..settings.rules
        },
        pools: pools.unwrap_or_default(),
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
fn settings(dbdir: &Path) -> Result<Settings, Failure> {
    let left = saved::read(dbdir).ok().flatten();
    let words = left.map_or(Vec::new(), |content| saved::words(&content));
    settings_of(&words, &[])
}
