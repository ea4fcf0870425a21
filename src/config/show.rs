//! Settings as values of options again: the opposite of [`super::values`], one
//! function per kind of value, for the table of options.

use std::ffi::OsString;
use std::fmt::Display;
use std::path::PathBuf;

use super::settings::{Listen, Settings, StoreSettings};

/// A flag.
pub fn on(is_on: bool) -> Vec<OsString> {
    if is_on {
        vec![OsString::new()]
    } else {
        Vec::new()
    }
}

/// A value that always exists.
pub fn text(value: impl Display) -> Vec<OsString> {
    vec![OsString::from(value.to_string())]
}

/// A text that may be missing.
pub fn maybe(value: Option<&String>) -> Vec<OsString> {
    value.into_iter().map(OsString::from).collect()
}

/// A number that may be missing.
pub fn number(value: Option<u32>) -> Vec<OsString> {
    value.into_iter().flat_map(text).collect()
}

/// A path that may be missing.
pub fn path(value: Option<&PathBuf>) -> Vec<OsString> {
    value.into_iter().map(OsString::from).collect()
}

/// Several paths.
pub fn paths(values: &[PathBuf]) -> Vec<OsString> {
    values.iter().map(OsString::from).collect()
}

/// The paths of the UNIX sockets.
pub fn unix(settings: &Settings) -> Vec<OsString> {
    let path = |listen: &Listen| match listen {
        Listen::Unix(path) => Some(path.clone().into_os_string()),
        Listen::Inet { .. } => None,
    };
    settings.listen.iter().filter_map(path).collect()
}

/// The addresses of the TCP sockets.
pub fn inet(settings: &Settings) -> Vec<OsString> {
    let address = |listen: &Listen| match listen {
        Listen::Inet { .. } => Some(OsString::from(listen.to_string())),
        Listen::Unix(_) => None,
    };
    settings.listen.iter().filter_map(address).collect()
}

/// Where the records are.
pub fn store(store: &StoreSettings) -> String {
    store
        .redis
        .as_ref()
        .map_or_else(|| "lmdb".into(), ToString::to_string)
}

/// A size in octets, with the largest suffix that loses nothing.
pub fn size(octets: usize) -> String {
    for (suffix, unit) in [("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)] {
        if octets.is_multiple_of(unit) {
            return format!("{}{suffix}", octets / unit);
        }
    }
    octets.to_string()
}

/// A retry window in days if they are whole, else in hours.
pub fn window(seconds: f64) -> String {
    if seconds % 86400.0 == 0.0 {
        format!("{}", seconds / 86400.0)
    } else {
        format!("{}h", seconds / 3600.0)
    }
}

/// The limit of the auto-whitelist. A limit of 0 needs two digits: `0` alone
/// switches the auto-whitelist off.
pub fn limit(passes: Option<f64>) -> String {
    match passes {
        None => "0".into(),
        Some(0.0) => "00".into(),
        Some(passes) => passes.to_string(),
    }
}
