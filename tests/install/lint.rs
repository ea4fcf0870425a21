//! What linters say to the scripts and the manual pages, and what they do not
//! know: words of GNU that Solaris' tools do not understand.

use std::fs;
use std::process::Command;

use regex::Regex;

use super::{file, find_or_skip, run, text};

/// All shell scripts that are installed or run by tests.
const SCRIPTS: [&str; 8] = [
    "rc/postgrey",
    "rc/postgrey.default",
    "rc/postgrey.munin",
    "smf/svc-postgrey",
    "tests/install/stub-server",
    "tests/try.sh",
    "tests/check.sh",
    "tests/fuzz.sh",
];

/// Those of the Debian package, which may use what Debian has.
const OF_DEBIAN: [&str; 4] = ["deb/build.sh", "deb/postinst", "deb/prerm", "deb/postrm"];

/// The macros of man(7) that Solaris' man(1) knows as well.
const MACROS: [&str; 17] = [
    "TH", "SH", "SS", "TP", "IP", "PP", "B", "I", "BR", "RB", "BI", "IR", "nf", "fi", "RS", "RE",
    "\\\"",
];

fn pages() -> Vec<String> {
    let mut pages: Vec<String> = fs::read_dir(file("man"))
        .unwrap()
        .map(|entry| format!("man/{}", entry.unwrap().file_name().display()))
        .filter(|name| Regex::new(r"\.[1-8]$").unwrap().is_match(name))
        .collect();
    pages.sort();
    assert!(pages.len() >= 2);
    pages
}

fn silent(program: &str, args: &[&str], path: &str) {
    let Some(found) = find_or_skip(program, path) else {
        return;
    };
    let done = run(Command::new(found).args(args).arg(file(path)));
    assert_eq!(
        (done.status, done.stdout.as_str(), done.stderr.as_str()),
        (0, "", ""),
        "{program} {path}"
    );
}

#[test]
fn linters_have_nothing_to_say() {
    for script in SCRIPTS {
        silent("dash", &["-n"], script);
        silent("ksh93", &["-n"], script);
    }
    // Not a script by itself: its variables are for the one that reads it.
    for script in SCRIPTS.iter().filter(|s| **s != "rc/postgrey.default") {
        silent("shellcheck", &["-s", "sh"], script);
        silent("checkbashisms", &["-p"], script);
    }
    for script in OF_DEBIAN {
        silent("dash", &["-n"], script);
        silent("shellcheck", &["-s", "sh"], script);
        silent("checkbashisms", &["-p"], script);
    }
    silent(
        "shellcheck",
        &["-s", "sh", "-e", "SC2034"],
        "rc/postgrey.default",
    );
}

#[test]
fn no_words_of_gnu() {
    let words = [
        r"\bsed\s+(-\w+\s+)*-\w*[irE]",
        r"\bgrep\s+(-\w+\s+)*-\w*[EFPor]",
        r"\b(ls|cp|mv|rm|sed|grep|sort|mkdir|chmod|chown|date|head|tail|id|ps|cut|tr|cat|touch|ln|df|du)\s+(-\w+\s+)*--\w",
        r"\b(pgrep|pkill)\s.*-f\b",
        r"\breadlink\b|\brealpath\b|\bmktemp\b|\bseq\b|\bpidof\b|\btac\b|\bstat\s",
        r"\bcp\s+-\w*a|\bxargs\s+-\w*[r0]|\bfind\b.*-(print0|maxdepth|delete)",
        r"\bdate\s+(-d|\+%s)|\bsort\s+-\w*V|\becho\s+-[neE]|\bps\s+(aux|-C)",
        r"\buseradd\b.*\s(-r|-M|--system)|\bid\s+-u",
        r"\blocal\s+\w|\bfunction\s+\w|\bsource\s+/|\[\[ |\s==\s|&>|<<<|\$'|\bdeclare\b",
        r"\$\{\w+(:\d|/|\^|,|@)",
    ];
    for word in words {
        let word = Regex::new(word).unwrap();
        for script in SCRIPTS {
            for (number, line) in text(script).lines().enumerate() {
                let is_comment = line.trim_start().starts_with('#');
                assert!(
                    is_comment || !word.is_match(line),
                    "{script} line {}: {line}",
                    number + 1
                );
            }
        }
    }
}

#[test]
fn pages_use_plain_macros() {
    for page in pages() {
        for (number, line) in text(&page).lines().enumerate() {
            let Some(rest) = line.strip_prefix('.') else {
                continue;
            };
            let name = rest.split(' ').next().unwrap();
            let known = MACROS.contains(&name) || name.starts_with("\\\"");
            assert!(known, "{page} line {}: {line}", number + 1);
        }
    }
}

#[test]
fn pages_render() {
    for page in pages() {
        silent("mandoc", &["-T", "lint", "-W", "warning"], &page);
        let Some(groff) = find_or_skip("groff", &page) else {
            continue;
        };
        let done = run(Command::new(groff)
            .args(["-man", "-Tascii", "-ww", "-P-cbou"])
            .arg(file(&page)));
        assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{page}");
        assert!(done.stdout.contains("NAME"), "{page}");
    }
}
