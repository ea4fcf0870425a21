//! The manual page and the completions name every option, and each option has an example
//! that works.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use postgrey::report::options::OPTIONS;

use super::machine::skip;

fn text(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// The manual page without the escapes of troff.
fn manual() -> String {
    text("man/postgreyreport.1")
        .replace("\\-", "-")
        .replace("\\e", "\\")
}

#[test]
fn the_manual_names_every_option_and_no_other() {
    let manual = manual();
    let mut names = Vec::new();
    for line in manual.split("\n.TP\n").skip(1) {
        let line = line.lines().next().unwrap();
        if let Some(at) = line.find(" --") {
            names.push(line[at + 3..].split(['=', ' ']).next().unwrap().to_owned());
        }
    }
    assert!(names.len() >= OPTIONS.len());
    let options = manual
        .split("\n.SH ")
        .find(|part| part.starts_with("OPTIONS"))
        .unwrap();
    for spec in OPTIONS {
        let names = [Some(spec.name), spec.alias];
        for name in names.into_iter().flatten() {
            assert!(options.contains(&format!("--{name}")), "{name}");
        }
    }
    for name in names {
        let is_there = OPTIONS
            .iter()
            .any(|spec| spec.name == name || spec.alias == Some(&name));
        assert!(is_there, "{name}");
    }
}

#[test]
fn every_option_has_an_example() {
    let examples = scripts_of(&manual(), "EXAMPLES").join("\n");
    for spec in OPTIONS {
        assert!(
            examples.contains(&format!("--{}", spec.name)),
            "{}",
            spec.name
        );
    }
}

#[test]
fn the_manual_is_plain() {
    let known = [
        ".TH", ".SH", ".SS", ".TP", ".IP", ".PP", ".B", ".I", ".BR", ".RB", ".BI", ".IR", ".RI",
        ".nf", ".fi", ".RS", ".RE", ".\\\"",
    ];
    for line in text("man/postgreyreport.1")
        .lines()
        .filter(|line| line.starts_with('.'))
    {
        assert!(known.contains(&line.split(' ').next().unwrap()), "{line}");
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/postgreyreport.1");
    match Command::new("mandoc")
        .args(["-T", "lint", "-W", "warning"])
        .arg(page)
        .output()
    {
        Ok(output) => assert_eq!(String::from_utf8_lossy(&output.stdout), ""),
        Err(_) => skip("mandoc", "lint of postgreyreport(1)"),
    }
}

/// The scripts in a section of a page.
fn scripts_of(manual: &str, section: &str) -> Vec<String> {
    let section = manual
        .split("\n.SH ")
        .find(|part| part.starts_with(section))
        .unwrap();
    let blocks = section.split("\n.nf\n").skip(1);
    blocks
        .map(|block| block.split("\n.fi").next().unwrap().to_owned())
        .collect()
}

#[test]
fn the_examples_of_the_manual_work() {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_postgreyreport");
    let wrapper = folder.path().join("postgreyreport");
    fs::write(&wrapper, format!("#!/bin/sh\nexec {program} \"$@\"\n")).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    let search = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap()
    );
    let log = "Nov 24 02:27:10 mx postgrey[9]: action=greylist, reason=new, client_name=mail.example.net, \
         client_address=192.0.2.91, sender=alice@example.net, recipient=bob@example.com\n\
         Nov 24 02:27:10 mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from mail.example.net[192.0.2.91]: 450 4.2.0 \
         <bob@example.com>: Recipient address rejected: Greylisted; from=<alice@example.net> \
         to=<bob@example.com> proto=ESMTP helo=<mail.example.net>\n";
    for name in ["mail.log", "mail.log.1", "my_clients", "their_clients"] {
        let text = if name.ends_with("clients") {
            "example.org\n"
        } else {
            log
        };
        fs::write(folder.path().join(name), text).unwrap();
    }
    let db = folder.path().join("db");
    fs::create_dir(&db).unwrap();
    super::fatal::fill(&db);
    // Who reads as nobody must find it there.
    if super::machine::is_root() {
        let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
        for path in [
            db.clone(),
            db.join("data.mdb"),
            db.join("lock.mdb"),
            db.join("postgrey.lock"),
            folder.path().to_owned(),
        ] {
            std::os::unix::fs::chown(path, Some(nobody.uid.as_raw()), None).unwrap();
        }
    }
    let gzip = |name: &str| Command::new("gzip").arg(folder.path().join(name)).output();
    fs::write(folder.path().join("mail.log.2"), log).unwrap();
    if gzip("mail.log.2").is_err() {
        skip("gzip", "an example of postgreyreport(1)");
        fs::write(folder.path().join("mail.log.2.gz"), log).unwrap();
    }
    let examples = scripts_of(&manual(), "EXAMPLES");
    assert!(examples.len() >= 4, "{}", examples.len());
    for example in examples {
        let script = example
            .replace("/var/log/", "")
            .replace("/etc/postfix/", "");
        // The tests need no user of this name.
        let script = script.replace("--user=postgrey", "--user=nobody");
        let script = script.replace("/var/spool/postfix/postgrey", "db");
        let script = script.replace("timeout 90", "timeout 2");
        if script.contains("journalctl") {
            // Its output is tried in formats.rs.
            continue;
        }
        let output = Command::new("sh")
            .args(["-ec", &script])
            .current_dir(folder.path())
            .env("PATH", &search)
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {output:?}");
        assert!(output.stderr.is_empty(), "{script}: {output:?}");
    }
}

#[test]
fn the_completions_name_every_option() {
    if Command::new("bash").arg("--version").output().is_err() {
        return skip("bash", "completions of postgreyreport");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("completions/postgreyreport.bash");
    let script = format!(
        ". '{}'\nCOMP_WORDS=(postgreyreport --); COMP_CWORD=1\n_postgreyreport\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n",
        file.display()
    );
    let output = Command::new("bash").args(["-c", &script]).output().unwrap();
    let mut offered: Vec<String> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    let mut names: Vec<String> = OPTIONS
        .iter()
        .map(|spec| format!("--{}", spec.name))
        .collect();
    offered.sort();
    names.sort();
    assert_eq!(offered, names);
    let zsh = text("completions/_postgreyreport");
    for spec in OPTIONS {
        let sign = if spec.value.is_some() { "=[" } else { "[" };
        assert!(
            zsh.contains(&format!("--{}{sign}", spec.name)),
            "{}",
            spec.name
        );
    }
    if let Ok(output) = Command::new("zsh")
        .args(["-n", "completions/_postgreyreport"])
        .output()
    {
        assert!(output.status.success(), "{output:?}");
    }
}
