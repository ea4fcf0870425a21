//! Settings as values of options again: the opposite of [`super::values`], for
//! `--print-config` and the defaults in `--help`.

use std::ffi::OsString;
use std::fmt::{Display, Write as _};
use std::path::PathBuf;

use super::OptionSpec;
use super::options::{OPTIONS, Value};
use super::settings::{Listen, Settings};

/// The options that make these settings out of the defaults, as words for the
/// command line. Read again they give equal settings.
pub fn words(settings: &Settings) -> Vec<OsString> {
    let defaults = Settings::default();
    let mut words = Vec::new();
    for spec in OPTIONS {
        let values = (spec.show)(settings);
        if values != (spec.show)(&defaults) {
            words.extend(values.iter().map(|value| word(spec, value)));
        }
    }
    words
}

fn word(spec: &OptionSpec, value: &OsString) -> OsString {
    let mut word = OsString::from("--");
    word.push(spec.name);
    if spec.value != Value::Flag {
        word.push("=");
        word.push(value);
    }
    word
}

/// The text of `--help`.
pub fn help_text() -> String {
    let mut text = String::from(
        "Usage: postgrey [OPTION ...]\n\n\
         Greylisting and tarpitting policy server for Postfix; see postgrey(8).\n",
    );
    for group in super::options::Group::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{}:", group.title());
        for spec in OPTIONS.iter().filter(|spec| spec.group == group) {
            push_help_line(&mut text, spec);
        }
    }
    text
}

fn push_help_line(text: &mut String, spec: &OptionSpec) {
    let mut names = spec
        .short
        .map_or("    ".to_owned(), |letter| format!("-{letter}, "));
    names.push_str("--");
    names.push_str(spec.name);
    match spec.value {
        Value::Flag => {}
        Value::Required(value) | Value::Integer(value) => names.push_str(&format!("={value}")),
        Value::Optional(value) => names.push_str(&format!("[={value}]")),
    }
    for alias in spec.aliases {
        names.push_str(&format!(", --{alias}"));
    }
    let separator = if names.len() > 32 {
        format!("\n{:36}", "")
    } else {
        "  ".to_owned()
    };
    let default = match spec.default_text() {
        None => String::new(),
        Some(default) if default.len() > 30 => format!("\n{:36}[{default}]", ""),
        Some(default) => format!(" [{default}]"),
    };
    let _ = writeln!(text, "  {names:32}{separator}{}{default}", spec.help);
}

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
