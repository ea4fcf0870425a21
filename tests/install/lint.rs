//! What linters say to the scripts and the manual pages, and what they do not
//! know: words of GNU that Solaris' tools do not understand.

use std::fs;
use std::process::Command;

use regex::Regex;

use super::{file, find_or_skip, run, text};

/// All shell scripts that are installed or run by tests.
const SCRIPTS: [&str; 10] = [
    "rc/postgrey",
    "rc/postgrey.default",
    "rc/postgrey.munin",
    "rc/postgrey.freebsd",
    "tests/install/stub-rc.subr",
    "smf/svc-postgrey",
    "tests/install/stub-server",
    "tests/try.sh",
    "tests/check.sh",
    "tests/fuzz.sh",
];

/// Those that run on Debian alone, and may use what it has.
const OF_DEBIAN: [&str; 10] = [
    "deb/build.sh",
    "deb/postinst",
    "deb/prerm",
    "deb/postrm",
    "container/root.sh",
    "dist/dist.sh",
    "tests/checks.sh",
    "tests/dist.sh",
    "tests/release.sh",
    "tests/systems-check.sh",
];

/// Those that need bash.
const OF_BASH: [&str; 4] = [
    "tests/compose.sh",
    "tests/container.sh",
    "tests/deb.sh",
    "tests/rpm.sh",
];

/// Where the pages in Japanese are.
const JAPANESE: &str = "man/ja";

/// The macros of man(7) that Solaris' man(1) knows as well.
const MACROS: [&str; 18] = [
    "TH", "SH", "SS", "TP", "IP", "PP", "B", "I", "BR", "RB", "BI", "IR", "nf", "fi", "RS", "RE",
    "\\\"", "ad",
];

fn pages() -> Vec<String> {
    let in_folder = |folder: &'static str| {
        fs::read_dir(file(folder))
            .unwrap()
            .map(move |entry| format!("{folder}/{}", entry.unwrap().file_name().display()))
    };
    let mut pages: Vec<String> = in_folder("man")
        .chain(in_folder(JAPANESE))
        .filter(|name| Regex::new(r"\.[1-8]$").unwrap().is_match(name))
        .collect();
    pages.sort();
    assert!(pages.len() >= 5);
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
        silent("shellcheck", &["-x", "-s", "sh"], script);
        silent("checkbashisms", &["-p"], script);
    }
    for script in OF_BASH {
        silent("shellcheck", &["-x", "-s", "bash"], script);
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
        // With and without what groff knows of line breaks in Japanese.
        let (devices, name): (&[&[&str]], &str) = match page.starts_with(JAPANESE) {
            true => (
                &[&["-Kutf8", "-Tutf8"], &["-Kutf8", "-Tutf8", "-mja"]],
                "名前",
            ),
            false => (&[&["-Tascii"]], "NAME"),
        };
        for device in devices {
            let done = run(Command::new(&groff)
                .args(["-man", "-ww", "-P-cbou"])
                .args(*device)
                .arg(file(&page)));
            assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{page}");
            assert!(done.stdout.contains(name), "{page}");
        }
    }
}

/// As README.ja.md says, once it is installed.
#[test]
fn man_finds_the_japanese_page() {
    let Some(man) = find_or_skip("man", "the page in Japanese, by man -M") else {
        return;
    };
    let said = text("README.ja.md");
    assert!(said.contains("    man -M /usr/local/share/man/ja postgrey\n"));
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("ja/man8")).unwrap();
    fs::copy(
        file("man/ja/postgrey.8"),
        dir.path().join("ja/man8/postgrey.8"),
    )
    .unwrap();
    let found = [
        vec!["-M".into(), dir.path().join("ja"), "postgrey".into()],
        vec!["./man/ja/postgrey.8".into()],
    ];
    for words in found {
        let done = run(Command::new(&man)
            .args(&words)
            .current_dir(file(""))
            .env("LC_ALL", "C.UTF-8"));
        assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{words:?}");
        assert!(done.stdout.contains("要求の判定"), "{words:?}");
    }
}

/// A formatter that breaks lines at blanks only finds enough of them: no line is
/// wider than a terminal, but for those of log and examples, which are as wide in
/// the English page.
#[test]
fn the_japanese_page_fits_a_terminal() {
    let page = "man/ja/postgrey.8";
    let Some(mandoc) = find_or_skip("mandoc", page) else {
        return;
    };
    let done = run(Command::new(mandoc)
        .args(["-T", "utf8", "-O", "width=78"])
        .arg(file(page)));
    let overstruck = Regex::new(".\u{8}").unwrap();
    let is_wide = |c: char| ('\u{3000}'..'\u{a000}').contains(&c) || c >= '\u{ff01}';
    let mut count = 0;
    for line in done.stdout.lines() {
        let line = overstruck.replace_all(line, "");
        let width: usize = line.chars().map(|c| 1 + usize::from(is_wide(c))).sum();
        count += usize::from(line.chars().any(is_wide));
        assert!(width <= 78 || !line.contains(is_wide), "{width}: {line}");
    }
    assert!(count > 500, "{count}");
}
