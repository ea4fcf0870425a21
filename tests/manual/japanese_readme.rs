//! `README.ja.md` against `README.md`: it has the commands of the chapters it tells,
//! and no others but those that another test runs.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use regex::Regex;

use super::root;

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap()
}

/// What stands in code blocks, from headings on that begin so, up to the next one of
/// the same depth; comments are left out.
fn commands(text: &str, heading: &str) -> BTreeSet<String> {
    let depth = |line: &str| line.find(|c| c != '#').unwrap_or(0);
    let is_next = |line: &str| (1..=depth(heading)).contains(&depth(line));
    let comment = Regex::new(r"\s{2,}#.*$").unwrap();
    text.lines()
        .skip_while(|line| !line.starts_with(heading))
        .enumerate()
        .take_while(|(at, line)| *at == 0 || !is_next(line))
        .filter_map(|(_, line)| line.strip_prefix("    "))
        .map(|line| comment.replace(line.trim(), "").into_owned())
        .collect()
}

/// Its own commands: those of this chapter are run by tests/ctl/runbooks.rs, the
/// ones of man(1) by tests/install/lint.rs.
const RUN: &str = "## レコードを読む";
const OF_MAN: [&str; 2] = [
    "man ./man/ja/postgrey.8",
    "man -M /usr/local/share/man/ja postgrey",
];

#[test]
fn the_japanese_readme_has_the_commands_of_the_english_one() {
    let (english, japanese) = (read("README.md"), read("README.ja.md"));
    let theirs = commands(&japanese, "# postgrey");
    let mut wanted = BTreeSet::new();
    for heading in [
        "## Try it",
        "## Install it",
        "## Postfix",
        "## Solaris 11, step by step",
        "### Moving in from Debian's postgrey",
    ] {
        let found = commands(&english, heading);
        assert!(!found.is_empty(), "{heading}");
        wanted.extend(found);
    }
    let missing: Vec<&String> = wanted.difference(&theirs).collect();
    assert!(missing.is_empty(), "README.ja.md lacks {missing:#?}");

    let run = commands(&japanese, RUN);
    assert!(run.len() > 10, "{run:?}");
    let ours = commands(&english, "# postgrey");
    let page = read("man/postgrey.8");
    let unknown: Vec<&String> = theirs
        .iter()
        .filter(|line| !ours.contains(*line) && !run.contains(*line))
        .filter(|line| !OF_MAN.contains(&line.as_str()) && !page.contains(line.as_str()))
        .filter(|line| !line.starts_with("POSTGREY_OPTS="))
        .collect();
    assert!(unknown.is_empty(), "README.ja.md has {unknown:#?}");
}

/// The settings it shows are taken, in the form of /etc/default/postgrey.
#[test]
fn the_settings_of_the_japanese_readme_are_taken() {
    let setting = Regex::new(r#"(?m)^ {4,}POSTGREY_OPTS="(.+)"$"#).unwrap();
    let text = read("README.ja.md");
    let mut count = 0;
    for found in setting.captures_iter(&text) {
        let needs_redis = found[1].contains("--store=redis");
        if needs_redis && !cfg!(feature = "redis") {
            continue;
        }
        let shown = Command::new(env!("CARGO_BIN_EXE_postgrey"))
            .arg("--print-config")
            .args(found[1].split(' '))
            .output()
            .unwrap();
        let text = String::from_utf8(shown.stdout).unwrap();
        assert!(
            shown.status.success() && shown.stderr.is_empty(),
            "{found:?}"
        );
        for part in ["--tarpit=125\n", "--targrey\n", "--retry-count=2\n"] {
            assert!(text.contains(part), "{}: {text}", &found[1]);
        }
        count += 1;
    }
    assert!(count >= 2, "{count}");
}
