//! The section LOG against the sources.
//!
//! What is proved: whoever adds a line to the log has to add it to the page.
//! The sources are read, not run, since many lines are for troubles that no
//! test can bring about. A function logs if it calls one of the functions of
//! [`postgrey::log::Log`], or the closure that the policy logs by. Then
//!
//! * each text in it must be in the page, in one line with all its fixed parts
//!   in order;
//! * what it hands to the log must be put together from texts in the same
//!   function or by one of the [`MAKERS`], or the function must be in
//!   [`PASSED_ON`] with the shapes that these lines have in the page;
//! * each text in one of the [`MAKERS`] must be in the page, too.
//!
//! Functions are known by their names; how they name what is in them does not
//! matter.

use std::ops::Range;

use regex::Regex;

use super::page;
use super::sources::{Function, sources};

/// Calls that log.
const CALLS: &str = r"\.complain\(|(?:\.write|\blog)\(\s*Level::\w+,";

/// Calls that log their second argument; the first is not shown.
const CALLS_WITH_CAUSE: &str = r"\.complain_about\(";

/// Calls whose texts are no lines: why the server does not start, which
/// EXIT STATUS explains, and the calls that errors of the store name.
const NO_LINES: &str = r"\bStartError::\w+\(|\bStoreError::of_io\(";

/// Functions that put lines together for others.
const MAKERS: &[&str] = &[
    "push_action",
    "push_reason",
    "push_whitelisted",
    "finished_line",
    "add_inet",
    "bind_unix",
    "bind_host",
];

/// Functions that log what was put together elsewhere, and the shapes that the
/// page has for it.
const PASSED_ON: &[(&str, &[&str])] = &[
    // policy::whitelist::Complaint and config::whitelists.
    ("reload", FILES),
    ("load_policy", FILES),
    // store::StoreError
    ("decide", STORE),
    ("report", FAILED),
    ("commit", FAILED),
    // server::StartError
    ("report_mistakes", &["ERROR: WHY"]),
    ("run_in_background", &["ERROR: WHY"]),
    // server::listener
    (
        "log_start",
        &[
            "Binding to TCP port N on host HOST",
            "Binding to UNIX socket file PATH",
            "not listening on ADDRESS: WHY",
        ],
    ),
    // server::counters, policy::decide::Whitelists
    ("act_on_requests", &["statistics: requests=N ..."]),
    (
        "reload_first",
        &[
            "HUP received: now N entries",
            "FILE line N: WHY",
            "can't open FILE: WHY",
        ],
    ),
    ("serve", IGNORED),
    ("open", IGNORED),
    // std's text of a panic
    (
        "report_panics_to_syslog",
        &["panicked at FILE:LINE:COLUMN: WHY"],
    ),
];

const FAILED: &[&str] = &[
    "DIRECTORY: CALL: WHY: requests pass ungreylisted",
    "damaged: DIRECTORY: CALL: WHY: requests pass ungreylisted",
];
/// config::typed
const IGNORED: &[&str] = &["\"TEXT\" is no option: it is ignored"];
const FILES: &[&str] = &["FILE line N: WHY", "can't open FILE: WHY"];
const STORE: &[&str] = &["DIRECTORY: CALL: WHY", "damaged: DIRECTORY: CALL: WHY"];

#[test]
fn the_page_has_every_line_of_the_log() {
    let (page, sources) = (Page::read(), sources());
    let functions: Vec<Function> = sources
        .iter()
        // There complaints are about lines of files: one shape for all.
        .filter(|source| !source.name.starts_with("src/policy/whitelist/"))
        .flat_map(|source| source.functions())
        // Of the log itself only what it says of its own accord.
        .filter(|function| {
            function.source.name != "src/log.rs" || function.name == "report_panics_to_syslog"
        })
        .collect();
    let mut wrong = Vec::new();
    let mut count = 0;
    for function in &functions {
        let (source, name) = (function.source, function.name);
        let (causes, mut calls) = function.split_calls(CALLS_WITH_CAUSE);
        calls.extend(function.calls(CALLS));
        count += calls.len();
        if calls.is_empty() && !MAKERS.contains(&name) {
            continue;
        }
        let mut complain = |why: &str| wrong.push(format!("{}: {name}: {why}", source.name));
        let no_lines = [causes, function.calls(NO_LINES)].concat();
        for (at, text) in source.texts_in(&function.body) {
            if !no_lines.iter().any(|call| call.contains(&at)) && !page.has(text) {
                complain(&format!("not in the page: {text}"));
            }
        }
        match PASSED_ON.iter().find(|(known, _)| *known == name) {
            None if calls.iter().all(|call| is_made_in(function, call)) => {}
            None => complain("logs what was put together elsewhere and is not in PASSED_ON"),
            Some((_, shapes)) => {
                for shape in shapes.iter().filter(|shape| !page.has(shape)) {
                    complain(&format!("not in the page: {shape}"));
                }
            }
        }
    }
    assert!(count >= 35, "only {count} calls found");
    for name in MAKERS.iter().chain(PASSED_ON.iter().map(|(name, _)| name)) {
        if !functions.iter().any(|function| function.name == *name) {
            wrong.push(format!("{name}: there is no such function any more"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// True if the line that a call logs comes from a text or a maker in the same
/// function: in the call, or in a statement about what the call hands over.
fn is_made_in(function: &Function, call: &Range<usize>) -> bool {
    let source = function.source;
    let is_maker = |range: &Range<usize>| {
        let code = &source.code[range.clone()];
        source.texts_in(range).next().is_some()
            || words(code).any(|(word, _)| MAKERS.contains(&word))
    };
    if is_maker(call) {
        return true;
    }
    let statements = function.statements();
    let made: Vec<&str> = statements
        .iter()
        .filter(|statement| statement.end <= call.start || call.end <= statement.start)
        .filter(|statement| is_maker(statement))
        .flat_map(|statement| words(&source.code[statement.clone()]))
        .map(|(word, _)| word)
        .collect();
    // Names of values: neither fields and methods nor functions and types.
    words(&source.code[call.clone()])
        .filter(|(word, is_value)| *is_value && *word != "self" && *word != "super")
        .any(|(word, _)| made.contains(&word))
}

/// The words of a piece of code, and which of them stand for values.
fn words(code: &str) -> impl Iterator<Item = (&str, bool)> {
    let is_inside = |c: char| c.is_alphanumeric() || c == '_';
    code.split(move |c: char| !is_inside(c))
        .filter(|word| word.starts_with(|c: char| c.is_ascii_lowercase() || c == '_'))
        .map(move |word| {
            let start = word.as_ptr() as usize - code.as_ptr() as usize;
            let before = code[..start].chars().next_back();
            let after = code[start + word.len()..].chars().next();
            let is_part =
                matches!(before, Some('.' | ':')) || matches!(after, Some('(' | ':' | '!'));
            (word, !is_part)
        })
}

/// The page, as lines to be looked for.
struct Page {
    lines: Vec<String>,
    whole: String,
    /// What begins lines that end in `...`.
    shortened: Vec<Regex>,
    holes: Regex,
}

impl Page {
    fn read() -> Page {
        let lines: Vec<String> = page().into_iter().map(|line| line.text).collect();
        // In front is the priority; what varies is in capitals.
        let line = Regex::new(r"^\w+!? +(.{10,})\.\.\.$").unwrap();
        let varying = Regex::new(r"[A-Z]{2,}").unwrap();
        let shape = |found: regex::Captures| {
            let head = found.get(1).unwrap().as_str();
            let fixed: Vec<String> = varying.split(head).map(regex::escape).collect();
            Regex::new(&format!("^{}", fixed.join(".*"))).unwrap()
        };
        Page {
            whole: lines.join(" "),
            shortened: lines
                .iter()
                .filter_map(|text| line.captures(text).map(shape))
                .collect(),
            lines,
            holes: Regex::new(r"\{[^}]*\}").unwrap(),
        }
    }

    /// True if a line has all fixed parts of this text, in order, or begins
    /// like it and ends in `...`.
    fn has(&self, text: &str) -> bool {
        let text = text.trim();
        let parts: Vec<&str> = self.holes.split(text).collect();
        if !parts.iter().any(|part| part.contains(char::is_alphabetic)) {
            return true;
        }
        // Parts of a line may be explained in a paragraph.
        if parts.len() == 1 && self.whole.contains(text) {
            return true;
        }
        let has_parts = |line: &String| {
            let mut rest = line.as_str();
            parts.iter().all(|part| match rest.find(part) {
                Some(at) => {
                    rest = &rest[at + part.len()..];
                    true
                }
                None => false,
            })
        };
        let filled = self.holes.replace_all(text, "X");
        self.lines.iter().any(has_parts)
            || self.shortened.iter().any(|shape| shape.is_match(&filled))
    }
}
