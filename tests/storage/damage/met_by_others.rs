//! What postgreyctl says of damage, and what spawned sessions do about it where no
//! daemon runs.

use std::fs;

use super::{
    Damage, assert_set_aside, is_set_aside, print, start, used_dir, watch, whitelist_option,
};
use crate::server::{give_to_server, test_dir};
use crate::tools::Tools;

const COMMANDS: [&[&str]; 6] = [
    &["verify"],
    &["list"],
    &["stats"],
    &["export"],
    &["backup", "-"],
    &["expire"],
];

/// The file is named, and no signal or assertion.
#[track_caller]
fn assert_says_damaged(stderr: &str, what: &str) {
    assert!(stderr.starts_with("ERROR: damaged: /"), "{what}: {stderr}");
    assert_eq!(stderr.matches('\n').count(), 1, "{what}: {stderr}");
    for word in ["signal", "SIG", "ssert", "panic", "core"] {
        assert!(!stderr.contains(word), "{what}: {stderr}");
    }
}

#[test]
fn postgreyctl_meets_damage() {
    let Some(tools) = Tools::build() else { return };
    for damage in Damage::ALL {
        let folder = used_dir();
        let db = folder.path().join("db");
        damage.befall(&db);
        for words in COMMANDS {
            let output = tools.ctl(folder.path(), words, &[]);
            let what = format!("{damage}, postgreyctl {}", words.join(" "));
            let stderr = String::from_utf8_lossy(&output.stderr);
            let shown = stderr.replace(&folder.path().display().to_string(), "");
            println!("check: {what}: {}: {}", output.status, shown.trim_end());
            assert_eq!(output.status.code(), Some(1), "{what}");
            assert_says_damaged(&stderr, &what);
        }
        let backup = folder.path().join("run/backup");
        let output = tools.ctl(folder.path(), &["backup", backup.to_str().unwrap()], &[]);
        assert_eq!(output.status.code(), Some(1), "{damage}");
        let length = fs::metadata(&backup).map_or(0, |found| found.len());
        assert_eq!(length, 0, "{damage}: half a backup");
        assert!(!is_set_aside(&db), "that is for a server: {damage}");
    }
}

/// What postgreyctl meets beside a server that has not touched it does the
/// server no harm.
#[test]
fn postgreyctl_meets_damage_beside_a_server() {
    let Some(tools) = Tools::build() else { return };
    let folder = used_dir();
    let db = folder.path().join("db");
    let server = start(folder.path(), &[]);
    watch(&mut || server.connect(), &|| true);
    Damage::Zeros.change_in_place(&db);
    for words in COMMANDS {
        let output = tools.ctl(folder.path(), words, &[]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{words:?}: {stderr}");
        assert_says_damaged(&stderr, words[0]);
    }
    let seen = watch(&mut || server.connect(), &|| is_set_aside(&db));
    let what = "zeroed middle, postgreyctl beside a server";
    print(what, &seen, &server.log_text(), folder.path());
    assert_set_aside(what, &server.log_text(), &db);
    let output = tools.ctl(folder.path(), &["verify"], &[]);
    assert!(output.status.success(), "{output:?}");
}

/// An empty file that nobody has used yet is a database without records.
#[test]
fn a_new_empty_file_is_a_new_database() {
    let Some(tools) = Tools::build() else { return };
    let folder = test_dir();
    let data = folder.path().join("db/data.mdb");
    fs::write(&data, "").unwrap();
    give_to_server(&data);
    let db = folder.path().join("db");
    for words in COMMANDS {
        let words = &[&["--defaults"], words].concat();
        let output = tools.ctl(folder.path(), words, &[]);
        if words[1] == "expire" {
            assert!(output.status.success(), "{output:?}");
            continue;
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        let expected = format!("ERROR: {}: stat: there is no database yet\n", db.display());
        assert_eq!(
            (&stderr[..], output.status.code()),
            (&expected[..], Some(2))
        );
    }
    assert_ne!(fs::metadata(&data).unwrap().len(), 0, "expire has begun it");
    fs::write(&data, "").unwrap();
    fs::remove_file(db.join("postgrey.lock")).unwrap();
    let mut session = tools.session(folder.path(), &[], &[]);
    let answer = session.client.ask(&[]);
    assert!(answer.starts_with("DEFER_IF_PERMIT"), "{answer}");
    drop(session.client);
    assert!(session.child.wait().unwrap().success());
}

#[test]
fn a_session_meets_damage() {
    let Some(tools) = Tools::build() else { return };
    for damage in Damage::ALL {
        for is_open in [false, true] {
            if is_open && damage == Damage::Directory {
                continue;
            }
            let folder = used_dir();
            let db = folder.path().join("db");
            let log = folder.path().join("run/syslog");
            let options = [&whitelist_option(folder.path())[..], "--quiet"];
            let mut sessions = Vec::new();
            let mut open = || {
                let environment = [("POSTGREY_SYSLOG", log.clone())];
                let session = tools.session(folder.path(), &options, &environment);
                sessions.push(session.child);
                session.client
            };
            let mut first = is_open.then(&mut open);
            if let Some(client) = &mut first {
                assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
            }
            damage.befall(&db);
            // The open one first, then, as Postfix does it, others.
            let mut connect = || first.take().unwrap_or_else(&mut open);
            let is_noticed = !is_open || damage != Damage::OldFormat;
            let seen = watch(&mut connect, &|| !is_noticed || is_set_aside(&db));
            let text = fs::read_to_string(&log).unwrap_or_default();
            let what = match is_open {
                true => format!("{damage}, under a session"),
                false => format!("{damage}, in front of a session"),
            };
            print(&what, &seen, &text, folder.path());
            if is_noticed {
                assert_set_aside(&what, &text, &db);
            }
            for mut session in sessions {
                session.wait().unwrap();
            }
        }
    }
}
