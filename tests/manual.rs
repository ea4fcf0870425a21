//! postgrey(8) against the program: every option, every line of the log and
//! every exit status is in the page, and the page has no others.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use postgrey::config::help_text;
use postgrey::config::options::{OPTIONS, OptionSpec, Value};
use regex::Regex;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A line of the page, without fonts and escapes.
#[derive(Debug)]
struct Line {
    macro_name: String,
    text: String,
}

/// The page as lines, each with the macro that made it.
fn page() -> Vec<Line> {
    let source = fs::read_to_string(root().join("man/postgrey.8")).unwrap();
    source
        .lines()
        .filter(|line| !line.starts_with(".\\\""))
        .map(|line| match line.strip_prefix('.') {
            None => Line {
                macro_name: String::new(),
                text: plain(line),
            },
            Some(request) => {
                let (name, rest) = request.split_once(' ').unwrap_or((request, ""));
                let words = arguments(rest);
                // Two fonts in turn are written without blanks between.
                let joint = if name.len() == 2 && name != "SH" && name != "SS" {
                    ""
                } else {
                    " "
                };
                Line {
                    macro_name: name.to_owned(),
                    text: plain(&words.join(joint)),
                }
            }
        })
        .collect()
}

fn arguments(rest: &str) -> Vec<String> {
    let word = Regex::new(r#""((?:[^"]|"")*)"|(\S+)"#).unwrap();
    word.captures_iter(rest)
        .map(|found| match found.get(1) {
            Some(quoted) => quoted.as_str().replace("\"\"", "\""),
            None => found[2].to_owned(),
        })
        .collect()
}

fn plain(text: &str) -> String {
    let fonts = Regex::new(r"\\f[BIRP]|\\&").unwrap();
    let text = fonts.replace_all(text, "");
    text.replace("\\-", "-")
        .replace("\\(bu", "*")
        .replace("\\e", "\\")
}

/// The lines of a section.
fn section(title: &str) -> Vec<Line> {
    let mut lines = page().into_iter();
    lines
        .by_ref()
        .find(|line| line.macro_name == "SH" && line.text == title)
        .unwrap_or_else(|| panic!("no section {title}"));
    lines.take_while(|line| line.macro_name != "SH").collect()
}

/// The paragraphs of a section with a tag: the tag and the text.
fn tagged(lines: &[Line]) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    let mut is_open = false;
    let mut lines = lines.iter();
    while let Some(line) = lines.next() {
        match line.macro_name.as_str() {
            "TP" => {
                found.push((lines.next().unwrap().text.clone(), String::new()));
                is_open = true;
            }
            "SS" | "PP" => is_open = false,
            _ if is_open => {
                let text = &mut found.last_mut().unwrap().1;
                text.push_str(&line.text);
                text.push(' ');
            }
            _ => {}
        }
    }
    found
}

/// How an option is written in --help and in the page.
fn usage(spec: &OptionSpec) -> String {
    let short = spec.short.map_or(String::new(), |c| format!("-{c}, "));
    let value = match spec.value {
        Value::Flag => String::new(),
        Value::Required(name) | Value::Integer(name) => format!("={name}"),
        Value::Optional(name) => format!("[={name}]"),
    };
    let aliases: String = spec.aliases.iter().map(|a| format!(", --{a}")).collect();
    format!("{short}--{}{value}{aliases}", spec.name)
}

#[test]
fn the_page_has_the_options_of_the_table() {
    let options = tagged(&section("OPTIONS"));
    let tags: Vec<&String> = options.iter().map(|(tag, _)| tag).collect();
    let table: Vec<String> = OPTIONS.iter().map(usage).collect();
    assert_eq!(tags, table.iter().collect::<Vec<_>>(), "in this order");
    for (spec, (tag, text)) in OPTIONS.iter().zip(&options) {
        if let Some(default) = spec.default_text()
            && usize::BITS == 64
        {
            let said = [
                format!("Default: {default}."),
                format!("Default: {default} ("),
            ];
            assert!(
                said.iter().any(|s| text.contains(s)),
                "{tag}: {default}: {text}"
            );
        }
        let says_so = text.contains("May be repeated") || text.contains("likewise");
        assert_eq!(spec.repeats, says_so, "{tag}: {text}");
    }
}

#[test]
fn help_has_the_options_of_the_table() {
    let help = help_text();
    let words = Regex::new(r"^  (?:    |-)").unwrap();
    let shown: Vec<&str> = help.lines().filter(|line| words.is_match(line)).collect();
    let table: Vec<String> = OPTIONS.iter().map(usage).collect();
    let shown: Vec<&str> = shown
        .iter()
        .map(|line| line.trim_start())
        .filter(|line| line.starts_with('-'))
        .map(|line| line.split("  ").next().unwrap())
        .collect();
    assert_eq!(shown, table);
}

#[test]
fn options_named_anywhere_exist() {
    let option = Regex::new(r"--([a-z0-9][a-z0-9-]*)").unwrap();
    for name in [
        "man/postgrey.8",
        "man/s25r.7",
        "man/postgrey_whitelist.5",
        "README.md",
    ] {
        let text = plain(&fs::read_to_string(root().join(name)).unwrap());
        for found in option.captures_iter(&text) {
            let word = &found[1];
            // Options of systemctl, cargo and postgreyctl.
            let is_other = ["now", "long", "install", "locked", "from", "json"].contains(&word);
            let is_known = is_other || OptionSpec::with_name(word).is_some();
            assert!(is_known, "{name}: --{word}");
        }
    }
}

/// Source files of the server, without their tests.
fn sources() -> Vec<(String, String)> {
    let comments = Regex::new(r"(?m)^\s*//.*$").unwrap();
    let mut files = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            // The tools have their own pages; main.rs writes to stderr.
            if name == "src/bin" || name == "src/admin" || name == "src/main.rs" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
            files.push((name, comments.replace_all(code, "").into_owned()));
        }
    }
    assert!(files.len() > 30);
    files
}

/// What stands between the parenthesis at `open` and its end.
fn inside(code: &str, open: usize) -> &str {
    let mut depth = 0;
    let mut in_text = false;
    let mut escaped = false;
    for (at, c) in code[open..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_text => escaped = true,
            '"' => in_text = !in_text,
            '(' if !in_text => depth += 1,
            ')' if !in_text => {
                depth -= 1;
                if depth == 0 {
                    return &code[open + 1..open + at];
                }
            }
            _ => {}
        }
    }
    panic!("no end: {}", &code[open..]);
}

/// The texts in a piece of code.
fn literals(code: &str) -> Vec<String> {
    let text = Regex::new(r#""((?:[^"\\]|\\.)*)""#).unwrap();
    text.captures_iter(code)
        .map(|found| found[1].replace("\\\"", "\"").replace("\\n", "\n"))
        .collect()
}

/// True if the page has a line with all fixed parts of this text, in order.
fn is_in(page: &[String], text: &str) -> bool {
    let holes = Regex::new(r"\{[^}]*\}").unwrap();
    let parts: Vec<&str> = holes.split(text).collect();
    page.iter().any(|line| {
        let mut rest = line.as_str();
        parts.iter().all(|part| match rest.find(part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
    })
}

/// Arguments of calls that log what was put together elsewhere: the shapes
/// that the page has for them.
const MADE_ELSEWHERE: &[(&str, &[&str])] = &[
    // policy::whitelist::Complaint, policy::s25r
    (
        "&problem.text",
        &["FILE line N: WHY", "can't open FILE: WHY"],
    ),
    // store::StoreError
    ("&error.to_string()", &["DIRECTORY: CALL: WHY"]),
    // server::StartError
    ("error.message.as_bytes()", &["ERROR: WHY"]),
    // std's text of a panic, and EXIT STATUS
    ("panic.to_string().as_bytes()", &["A bug in the program"]),
    // server::listener
    (
        "line.as_bytes()",
        &[
            "Binding to TCP port N on host HOST",
            "Binding to UNIX socket file PATH",
            "cleaning main database finished. before: N, after: M",
            "the session ends: WHY",
            "ended with HOW: starting another",
        ],
    ),
    ("warning", &["not listening on ADDRESS: WHY"]),
    (
        "self.shared.counters.line().as_bytes()",
        &["statistics: requests=N ..."],
    ),
    (
        "&timestamped(starting.as_bytes())",
        &["DATE postgrey (type postgrey VERSION) starting! pid(N)"],
    ),
    (
        "&super::timestamped(line.as_bytes())",
        &[
            "DATE CONNECT TCP Peer: \"ADDRESS:PORT\"",
            "DATE CONNECT UNIX Socket",
        ],
    ),
    // server::engine and policy::decide
    (
        "&line",
        &[
            "unrecognized request type: 'TEXT'",
            "ignoring garbage: <TEXT>",
            "attribute missing: NAME",
            "client_address is no address: TEXT",
            "action=pass, reason=REASON, delay=N",
            "action=greylist, reason=REASON",
        ],
    ),
    (
        "line",
        &[
            "action=pass, reason=REASON, delay=N",
            "whitelisted: NAME[ADDRESS]",
            "tarpit whitelisted: NAME[ADDRESS]",
        ],
    ),
];

/// Texts from which other modules make lines: file, beginning of the function
/// or item, and which of its texts are none.
const MAKERS: &[(&str, &str, &[&str])] = &[
    ("src/policy/line.rs", "fn push_reason", &[]),
    ("src/policy/line.rs", "pub fn push_whitelisted", &[]),
    ("src/policy/line.rs", "pub fn push_action", &[": ", ", "]),
    (
        "src/store/expiry.rs",
        "pub fn finished_line",
        &["main", "clients", "tarpit blacklist"],
    ),
    ("src/server/listener.rs", "    fn add_inet", &[]),
    ("src/server/worker.rs", "    fn log_connection", &[]),
];

#[test]
fn the_page_has_every_line_of_the_log() {
    let page: Vec<String> = page().into_iter().map(|line| line.text).collect();
    let whole = page.join(" ");
    let call = Regex::new(
        r"\.complain\(|\.write\(\s*Level::\w+,|\blog\(\s*(?:Level::\w+,|\n)|\bcomplain\(&?\w",
    )
    .unwrap();
    let level = Regex::new(r"^Level::\w+,\s*").unwrap();
    let mut missing = Vec::new();
    let mut calls = 0;
    for (name, code) in sources() {
        // There complaints are about lines of files: one shape for all.
        if name.starts_with("src/policy/whitelist/") || name == "src/log.rs" {
            continue;
        }
        for found in call.find_iter(&code) {
            let open = found.start() + found.as_str().find('(').unwrap();
            let argument = inside(&code, open).trim();
            let argument = level.replace(argument, "");
            let argument = argument.trim_end_matches(',').trim();
            calls += 1;
            let texts = literals(argument);
            if texts.is_empty() {
                let known = MADE_ELSEWHERE.iter().find(|(code, _)| *code == argument);
                match known {
                    None => missing.push(format!("{name}: unknown line {argument}")),
                    Some((_, shapes)) => {
                        for shape in *shapes {
                            if !page.iter().any(|line| line.contains(shape)) {
                                missing.push(format!("{name}: {shape}"));
                            }
                        }
                    }
                }
            }
            for text in texts {
                if !is_in(&page, &text) {
                    missing.push(format!("{name}: {text}"));
                }
            }
        }
    }
    assert!(calls >= 35, "only {calls} calls found");
    for (name, start, others) in MAKERS {
        let code = fs::read_to_string(root().join(name)).unwrap();
        let from = code
            .find(start)
            .unwrap_or_else(|| panic!("{name}: {start}"));
        let body = code[from..].split("\n}\n").next().unwrap();
        let body = body.split("\n    }\n").next().unwrap();
        for text in literals(body) {
            let text = text.trim();
            if !others.contains(&text) && !text.is_empty() && text.len() > 1 {
                let known = is_in(&page, text) || is_in(std::slice::from_ref(&whole), text);
                if !known {
                    missing.push(format!("{name}: {text}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn the_page_has_every_exit_status() {
    let status = Regex::new(
        r"StartError::new\(\s*(\d+)|exit_code: (\d+)|self\.checked\([^;{]*?, (\d+)\)|\bexit\((\d+)\)",
    )
    .unwrap();
    let mut found: BTreeSet<u32> = BTreeSet::from([0, 101]);
    for (_, code) in sources() {
        for captures in status.captures_iter(&code) {
            let number = captures.iter().skip(1).flatten().next().unwrap();
            found.insert(number.as_str().parse().unwrap());
        }
    }
    let page: BTreeSet<u32> = tagged(&section("EXIT STATUS"))
        .iter()
        .map(|(tag, _)| tag.parse().unwrap())
        .collect();
    assert_eq!(found, page);
}

#[test]
fn the_page_has_every_signal() {
    let tags = tagged(&section("PROCESSES AND SIGNALS"));
    let page: BTreeSet<String> = tags
        .iter()
        .flat_map(|(tag, _)| tag.split(", "))
        .map(|name| format!("SIG{name}"))
        .collect();
    let source: BTreeSet<String> = postgrey::server::master::SIGNALS
        .iter()
        .map(|signal| signal.to_string())
        .collect();
    assert_eq!(page, source);
}

#[test]
fn the_page_has_the_limits() {
    use postgrey::policy::request::{MAX_ATTRIBUTE, MAX_ATTRIBUTES, MAX_LINE, MAX_REQUEST};
    use postgrey::server::{engine::MAX_OUTPUT, listener::MAX_LISTENERS, session::STALL_LIMIT};
    let lines: Vec<String> = section("LIMITS").into_iter().map(|l| l.text).collect();
    let text = lines.join("\n");
    for limit in [
        format!("attribute   {MAX_ATTRIBUTE} octets"),
        format!("{} KiB\n", MAX_LINE / 1024),
        format!("{} KiB and {MAX_ATTRIBUTES} attributes", MAX_REQUEST / 1024),
        format!(
            "{} KiB of a connection, {} seconds",
            MAX_OUTPUT / 1024,
            STALL_LIMIT.as_secs()
        ),
        format!(
            "syslog                  {} octets",
            postgrey::log::SYSLOG_LINE
        ),
        format!("listen on          {MAX_LISTENERS}\n"),
    ] {
        assert!(text.contains(&limit), "{limit}\n--\n{text}");
    }
}
