//! postgrey(8) against the program: every option, every line of the log and
//! every exit status is in the page, and the page has no others.

#![allow(clippy::unwrap_used)]

mod japanese;
mod japanese_readme;
mod log_lines;
mod sources;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

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
        "man/ja/postgrey.8",
        "README.md",
        "README.ja.md",
    ] {
        let text = plain(&fs::read_to_string(root().join(name)).unwrap());
        let lines = text.lines().filter(|line| !line.contains("postgreyctl "));
        let text = lines.collect::<Vec<_>>().join("\n");
        for found in option.captures_iter(&text) {
            let word = &found[1];
            // Options of systemctl, cargo, postgreyctl, redis-cli, buildah and docker.
            let is_other = [
                "cap-drop",
                "format",
                "read-only",
                "now",
                "long",
                "install",
                "locked",
                "no-default-features",
                "from",
                "json",
                "tls",
                "cacert",
                "cluster",
                "cluster-replicas",
                "scan",
                "pattern",
            ]
            .contains(&word);
            let of_report = postgrey::report::options::OPTIONS.iter();
            let is_other = is_other || of_report.map(|spec| spec.name).any(|name| name == word);
            let is_known = is_other || OptionSpec::with_name(word).is_some();
            assert!(is_known, "{name}: --{word}");
        }
    }
}

#[test]
fn the_version_of_rust_is_that_of_the_package() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap();
    let least = Regex::new(r#"(?m)^rust-version = "(.+)"$"#).unwrap();
    let least = least.captures(&read("Cargo.toml")).unwrap()[1].to_owned();
    let named = Regex::new(r"Rust (\d+\.\d+)").unwrap();
    for name in ["README.md", "README.ja.md", "CONTRIBUTING.md"] {
        let text = read(name);
        let mut found = named.captures_iter(&text).peekable();
        assert!(found.peek().is_some(), "{name}");
        assert!(found.all(|version| version[1] == least), "{name}: {least}");
    }
}

#[test]
fn the_page_has_every_exit_status() {
    let status = Regex::new(
        r"StartError::new\(\s*(\d+)|exit_code: (\d+)|self\.checked\([^;{]*?, (\d+)\)|\bexit\((\d+)\)",
    )
    .unwrap();
    let mut found: BTreeSet<u32> = BTreeSet::from([0, 101]);
    for source in sources::sources() {
        for captures in status.captures_iter(&source.code) {
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
    let source: BTreeSet<String> = postgrey::server::SIGNALS
        .iter()
        .map(|signal| signal.to_string())
        .collect();
    assert_eq!(page, source);
}

#[test]
fn the_page_has_the_limits() {
    use postgrey::policy::held::Held;
    use postgrey::policy::newcomers::Newcomers;
    use postgrey::policy::request::{MAX_ATTRIBUTE, MAX_ATTRIBUTES, MAX_LINE, MAX_REQUEST};
    use postgrey::server::{MAX_LISTENERS, STALL_LIMIT, engine::MAX_OUTPUT};
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
        format!("remembered as held        {} for an hour", Held::CELLS),
        format!("hash, {} KiB)", Held::CELLS * 8 / 1024),
        format!("(--max-new)     {} at a time", Newcomers::MOST),
    ] {
        assert!(text.contains(&limit), "{limit}\n--\n{text}");
    }
}
