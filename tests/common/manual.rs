//! Manual pages and completions, for tests that compare them with the tables of options.
#![allow(dead_code)] // each test binary uses its part

#[path = "script.rs"]
mod script;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::common_server::skip;
pub use script::write_script;

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A file of the sources.
pub fn text(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap()
}

/// A manual page without the escapes of troff.
pub fn page(name: &str) -> String {
    text(&format!("man/{name}"))
        .replace("\\-", "-")
        .replace("\\e", "\\")
}

/// Checks that a page uses simple macros only, and that mandoc has nothing to say.
pub fn check_plain(name: &str) {
    let known = [
        ".TH", ".SH", ".SS", ".TP", ".IP", ".PP", ".B", ".I", ".BR", ".RB", ".BI", ".IR", ".RI",
        ".nf", ".fi", ".RS", ".RE", ".\\\"",
    ];
    let file = format!("man/{name}");
    for line in text(&file).lines().filter(|line| line.starts_with('.')) {
        assert!(known.contains(&line.split(' ').next().unwrap()), "{line}");
    }
    let lint = Command::new("mandoc")
        .args(["-T", "lint", "-W", "warning"])
        .arg(path(&file))
        .output();
    match lint {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), ""),
        Err(_) => skip("mandoc", &format!("lint of {name}")),
    }
}

/// The scripts in a section of a page.
pub fn scripts_of(page: &str, section: &str) -> Vec<String> {
    let section = page
        .split("\n.SH ")
        .find(|part| part.starts_with(section))
        .unwrap();
    let blocks = section.split("\n.nf\n").skip(1);
    blocks
        .map(|block| block.split("\n.fi").next().unwrap().to_owned())
        .collect()
}

/// Puts a program into a folder that runs this command; the value of PATH that finds it.
pub fn write_wrapper(folder: &Path, name: &str, command: &str) -> String {
    let file = folder.join(name);
    write_script(&file, &format!("#!/bin/sh\nexec {command} \"$@\"\n"));
    format!("{}:{}", folder.display(), std::env::var("PATH").unwrap())
}

/// What bash would offer after these words of a program; `None` without bash.
pub fn offered(program: &str, words: &[&str]) -> Option<Vec<String>> {
    let completion = path(&format!("completions/{program}.bash"));
    let script = format!(
        ". '{}'\nCOMP_WORDS=({program} {}); COMP_CWORD={}\n_{program}\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        completion.display(),
        words
            .iter()
            .map(|word| format!("'{word}'"))
            .collect::<Vec<_>>()
            .join(" "),
        words.len(),
    );
    let Ok(output) = Command::new("bash").args(["-c", &script]).output() else {
        skip("bash", &format!("completions of {program}"));
        return None;
    };
    assert!(output.stderr.is_empty(), "{words:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty());
    Some(lines.map(str::to_owned).collect())
}

/// The completion of zsh for a program, which zsh finds in order.
pub fn zsh(program: &str) -> String {
    let name = format!("completions/_{program}");
    if let Ok(output) = Command::new("zsh").arg("-n").arg(path(&name)).output() {
        assert!(output.status.success(), "{output:?}");
    }
    text(&name)
}
