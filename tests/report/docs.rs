//! The manual page and the completions name every option, and each option has an example
//! that works.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use postgrey::report::options::OPTIONS;

use super::machine::skip;
use super::manual::{self, scripts_of};
use super::{report, summary};

fn manual() -> String {
    manual::page("postgreyreport.1")
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

/// The names in a JSON text, but for those that a log has chosen.
fn names_in(value: &serde_json::Value, names: &mut BTreeSet<String>) {
    if let Some(object) = value.as_object() {
        for (name, inner) in object {
            names.insert(name.clone());
            if name != "answers" {
                names_in(inner, names);
            }
        }
    }
    for inner in value.as_array().into_iter().flatten() {
        names_in(inner, names);
    }
}

#[test]
fn the_manual_names_all_that_programs_are_told() {
    let client = "client_name=mail.google.com, client_address=192.0.2.1, sender=a@b, recipient=c@d";
    let log = format!(
        "2026-11-24T02:27:10Z mx postgrey[9]: action=greylist, reason=new, {client}\n\
         2026-11-24T02:37:10Z mx postgrey[9]: action=pass, reason=triplet found, {client}\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let pools = dir.path().join("pools");
    fs::write(&pools, "google.com\n").unwrap();
    let options = format!("--pool-domains={}\n--inet=1\n", pools.display());
    fs::write(dir.path().join("postgrey.options"), options).unwrap();
    let words = ["--dbdir", dir.path().to_str().unwrap()];
    let mut names = BTreeSet::new();
    names_in(&summary(&words, log.as_bytes()), &mut names);
    assert!(names.len() > 40, "{names:?}");
    let words = [&["--summary", "--csv"], &words[..]].concat();
    let csv = report(&words, log.as_bytes()).quiet();
    let columns = csv.lines().next().unwrap().split(',');
    let columns: Vec<&str> = columns.take_while(|name| !name.contains(':')).collect();
    assert_eq!(columns.len(), 15);
    names.extend(columns.into_iter().map(str::to_owned));
    let manual = manual();
    let section = manual.split(".SS For programs").nth(1).unwrap();
    let section = section.split("\n.SH ").next().unwrap();
    let told: Vec<&str> = section
        .lines()
        .filter(|line| line.starts_with(".B"))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'))
        .collect();
    for name in names {
        assert!(told.contains(&name.as_str()), "{name}");
    }
}

#[test]
fn names_stand_as_the_manual_says() {
    let log = "2026-11-24T02:27:10Z mx postgrey[9]: action=greylist, reason=new, client_address=192.0.2.1, \
        sender=a@\u{fc}\\x, recipient=c@d\n";
    let found = summary(&[], log.as_bytes());
    let top = &found["top"]["sender_domains"]["never_came_back"];
    assert_eq!(top[0]["name"], "\\c3\\bc\\\\x");
    let text = report(&["--summary"], log.as_bytes()).quiet();
    assert!(text.contains("1 \\c3\\bc\\\\x\n"), "{text}");
}

#[test]
fn the_manual_is_plain() {
    manual::check_plain("postgreyreport.1");
}

#[test]
fn the_examples_of_the_manual_work() {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_postgreyreport");
    let search = manual::write_wrapper(folder.path(), "postgreyreport", program);
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
    let Some(mut offered) = manual::offered("postgreyreport", &["--"]) else {
        return;
    };
    let mut names: Vec<String> = OPTIONS
        .iter()
        .map(|spec| format!("--{}", spec.name))
        .collect();
    offered.sort();
    names.sort();
    assert_eq!(offered, names);
    let zsh = manual::zsh("postgreyreport");
    for spec in OPTIONS {
        let sign = if spec.value.is_some() { "=[" } else { "[" };
        assert!(
            zsh.contains(&format!("--{}{sign}", spec.name)),
            "{}",
            spec.name
        );
    }
}
