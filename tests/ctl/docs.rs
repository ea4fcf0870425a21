//! The manual page and the completions name everything there is, and the
//! examples of the manual work.

use crate::common_server::{Server, skip, test_dir};
use std::fs;
use std::path::Path;
use std::process::Command;

use postgrey::admin::options::{COMMANDS, OPTIONS};
use postgrey::policy::record::Database;

use super::manual::{self, scripts_of};
use super::{fill, import};

/// The manual page without the escapes of troff.
pub fn manual() -> String {
    manual::page("postgreyctl.8")
}

#[test]
fn the_manual_names_every_command_and_option() {
    let manual = manual();
    let (mut sections, mut options) = (Vec::new(), Vec::new());
    for line in manual.lines() {
        if let Some(name) = line.strip_prefix(".SS ") {
            sections.push(name.split(' ').next().unwrap());
        }
        if let Some(at) = line.find(" --").filter(|_| line.starts_with(".B")) {
            let name = line[at + 3..].split(['=', ' ']).next().unwrap();
            options.push((sections.last().copied().unwrap_or_default(), name));
        }
    }
    for command in COMMANDS {
        assert!(sections.contains(&command.name), "{}", command.name);
        for option in OPTIONS {
            if option.commands.contains(&command.command) {
                let documented = (command.name, option.name);
                assert!(options.contains(&documented), "{documented:?}");
            }
        }
        let example = format!("\npostgreyctl {}", command.name);
        let examples = manual.split(".SH EXAMPLES").nth(1).unwrap();
        let is_piped = examples.contains(&format!("| postgreyctl {}", command.name));
        assert!(is_piped || examples.contains(&example), "{}", command.name);
    }
    for option in OPTIONS.iter().filter(|option| option.commands.is_empty()) {
        assert!(
            options.iter().any(|(_, name)| *name == option.name),
            "{}",
            option.name
        );
    }
}

#[test]
fn the_manual_is_plain() {
    manual::check_plain("postgreyctl.8");
}

/// Puts a `postgreyctl` for this database into a folder; the value of PATH that
/// finds it.
pub fn write_wrapper(folder: &Path, db: &Path) -> String {
    let program = env!("CARGO_BIN_EXE_postgreyctl");
    let command = format!("{program} --dbdir={}", db.display());
    manual::write_wrapper(folder, "postgreyctl", &command)
}

#[test]
fn the_examples_with_a_server_work() {
    let dir = test_dir();
    let folder = tempfile::tempdir().unwrap();
    let search = write_wrapper(folder.path(), &dir.path().join("db"));
    let _server = Server::start(dir.path(), &[]);
    let examples = scripts_of(&manual(), "EXAMPLES").into_iter();
    let scripts: Vec<String> = examples
        .filter(|text| text.contains("postgreyctl ping"))
        .collect();
    assert_eq!(scripts.len(), 1);
    let run = Command::new("sh")
        .args(["-ec", &scripts[0]])
        .env("PATH", &search)
        .output();
    assert!(run.as_ref().unwrap().status.success(), "{run:?}");
}

#[test]
fn the_examples_of_the_manual_work() {
    let dir = tempfile::tempdir().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let now = postgrey::sys::clock::seconds() as u64;
    let waiting = format!("{},{},0,91", now - 200, now - 100);
    fill(
        dir.path(),
        &[
            (
                Database::Greylist,
                b"192.0.2.0/alice@example.net/bob@example.com",
                waiting.as_bytes(),
            ),
            (
                Database::Greylist,
                b"192.0.2.0/alice@example.net/carol@example.com",
                waiting.as_bytes(),
            ),
        ],
    );
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("old")).unwrap();
    import::unpack_berkeley(&import::samples()[1], &path("old"));
    fs::copy(path("old/postgrey_clients.db"), path("postgrey_clients.db")).unwrap();
    fs::write(
        path("mail.log"),
        "mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from mail.example.net[192.0.2.91]: 450 4.2.0 \
         <bob@example.com>: Recipient address rejected: Greylisted; from=<alice@example.net> \
         to=<bob@example.com> proto=ESMTP helo=<mail.example.net>\n",
    )
    .unwrap();
    let search = write_wrapper(folder.path(), dir.path());
    let examples = scripts_of(&manual(), "EXAMPLES");
    assert!(examples.len() >= 17, "{}", examples.len());
    for example in examples {
        let needs = ["db_dump ", "db_load ", "postgrey.old"];
        let has_berkeley = Command::new("db_dump").arg("-V").output().is_ok();
        if needs.iter().any(|word| example.contains(word)) && !has_berkeley {
            skip("db_dump", &example);
            continue;
        }
        if example.contains("postgreyctl ping") {
            // It needs a server.
            continue;
        }
        // What these read was made by an example that was left out.
        let reads = ["clients.txt", "postgrey.json"];
        if reads.iter().any(|file| example.contains(file)) && !has_berkeley {
            continue;
        }
        let script = example
            .replace("postgrey-20261124", "postgrey-`date +%Y%m%d`")
            .replace("/var/log/mail.log", "mail.log")
            .replace("/var/spool/postfix/postgrey.old", "old");
        let output = Command::new("sh")
            .args(["-ec", &script])
            .current_dir(folder.path())
            .env("PATH", &search)
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        if script.contains("explain") {
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(said.contains("\nnext         "), "{script}: {said}");
        }
    }
}

#[test]
fn bash_offers_every_command_and_option() {
    let Some(mut all) = manual::offered("postgreyctl", &[""]) else {
        return;
    };
    let offered = |words: &[&str]| manual::offered("postgreyctl", words).unwrap();
    let mut names: Vec<String> = COMMANDS.iter().map(|spec| spec.name.to_owned()).collect();
    names.sort();
    all.sort();
    assert_eq!(all, names);
    for command in COMMANDS {
        let mut all = offered(&["--dbdir", "=", "/x", command.name, "--"]);
        let options = OPTIONS
            .iter()
            .filter(|spec| spec.commands.is_empty() || spec.commands.contains(&command.command));
        let mut names: Vec<String> = options.map(|spec| format!("--{}", spec.name)).collect();
        names.sort();
        all.sort();
        assert_eq!(all, names, "{}", command.name);
    }
    assert_eq!(offered(&["ex"]), ["explain", "export", "expire"]);
    assert_eq!(offered(&["list", "--state", "=", "w"]), ["waiting"]);
    assert_eq!(offered(&["explain", "--state", "D"]), ["DATA"]);
    assert_eq!(offered(&["list", ""]), ["greylist", "clients", "tarpit"]);
    let url = ["--store", "=", "redis", ":", "//h", ":", "6379"];
    assert_eq!(offered(&[&url[..], &["expi"]].concat()), ["expire"]);
    assert_eq!(offered(&[&url[..], &["add", ""]].concat()), ["client"]);
    assert!(offered(&["list", "--store", "=", "l"]).contains(&"lmdb".to_owned()));
    assert!(offered(&["list", "--", "--d"]).is_empty());
}

#[test]
fn the_completion_of_zsh_names_every_command_and_option() {
    let script = manual::zsh("postgreyctl");
    let (before, after) = script.split_once("case $line[1] in").unwrap();
    for command in COMMANDS {
        assert!(
            before.contains(&format!("  '{}:", command.name)),
            "{}",
            command.name
        );
        let own = after.split(";;").find(|part| {
            let head = part.trim_start().lines().next().unwrap_or_default();
            head.trim_end_matches(')')
                .split('|')
                .any(|name| name.trim() == command.name)
        });
        let own = own.unwrap_or_else(|| panic!("{}", command.name));
        for option in OPTIONS
            .iter()
            .filter(|spec| spec.commands.contains(&command.command))
        {
            let sign = if option.value.is_some() { "=[" } else { "[" };
            let name = format!("--{}{sign}", option.name);
            assert!(own.contains(&name), "{} {name}", command.name);
        }
    }
    for option in OPTIONS.iter().filter(|spec| spec.commands.is_empty()) {
        assert!(
            before.contains(&format!("--{}", option.name)),
            "{}",
            option.name
        );
    }
}
