//! What is printed from the table of options: the text of `--help`, and the
//! words of `--print-config`.
//!
//! Apart from [`super::show`], which the table itself needs.

use std::ffi::OsString;
use std::fmt::Write as _;

use super::options::{Group, OPTIONS, OptionSpec, Value};
use super::settings::Settings;

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
    for group in Group::ALL {
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
