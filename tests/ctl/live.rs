//! postgreyctl beside a running server.

use crate::common_server::skip;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use postgrey::policy::record::Database;

use super::common_server::{Server, is_root, test_dir};
use super::dialogue::{self, Dialogue};
use super::{ctl, ctl_with_input, import, records};

const DEFER: &str = "DEFER_IF_PERMIT Greylisted, see ";

/// The answer that `explain` foretells.
fn foretold(db: &Path, words: &[&str]) -> String {
    let none = [
        "--",
        "--whitelist-clients=/dev/null",
        "--whitelist-recipients=/dev/null",
    ];
    let text = ctl(db, &[&["explain"], words, &none].concat()).ok();
    let answer = text
        .lines()
        .find_map(|line| line.strip_prefix("answer       action="));
    answer.unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn a_server_answers_by_what_was_changed() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let mut server = Server::start(dir.path(), &[]);
    let mut client = server.connect();
    let mail = [
        ("client_address", "192.0.2.91"),
        ("sender", "a@b"),
        ("recipient", "c@d"),
    ];
    let words = [
        "--client-address=192.0.2.91",
        "--client-name=mail.example.com",
        "--sender=a@b",
        "--recipient=c@d",
    ];
    let mut ask = || {
        let expected = foretold(&db, &words);
        let answer = client.ask(&mail);
        assert_eq!(answer, expected);
        answer
    };
    assert!(ask().starts_with(DEFER));
    ctl(&db, &["add", "client", "192.0.2.91"]).ok();
    assert_eq!(ask(), "DUNNO");
    ctl(&db, &["delete", "client", "192.0.2.91"]).ok();
    assert!(ask().starts_with(DEFER));
    ctl(&db, &["pass", "a@b", "c@d"]).ok();
    assert_eq!(ask(), "DUNNO");
    ctl(&db, &["forget", "192.0.2.91"]).ok();
    assert!(ask().starts_with(DEFER));
    let listed = ctl(&db, &["list", "greylist", "--json"]).ok();
    assert!(
        listed.contains("\"state\":\"new\"") && listed.lines().count() == 1,
        "{listed}"
    );
    let said = ctl(&db, &["compact"]).failed(2);
    assert!(
        said.contains(&format!("a server runs (process {})", server.pid())),
        "{said}"
    );
    let stats = ctl(&db, &["stats"]).ok();
    assert!(
        stats.ends_with(&format!("\nServer: process {}\n", server.pid())),
        "{stats}"
    );
    ctl(&db, &["verify"]).ok();
    ctl(&db, &["expire"]).ok();
    server.stop();
    ctl(&db, &["compact"]).ok();
    let server = Server::start(dir.path(), &[]);
    assert!(server.connect().ask(&mail).starts_with(DEFER));
    assert_eq!(records(&db, Database::Greylist).len(), 1);
}

#[test]
fn an_import_leaves_a_busy_server_at_its_work() {
    const RECORDS: usize = 20_000;
    let dir = test_dir();
    let db = dir.path().join("db");
    let server = Server::start(dir.path(), &["--sync=none"]);
    let text: String = (0..RECORDS)
        .map(|n| format!("198.51.100.0/s@t/{n}@u\t1700000000,1700000400,1,7\n"))
        .collect();
    let is_over = AtomicBool::new(false);
    let asked = std::thread::scope(|scope| {
        let askers: Vec<_> = (0..16)
            .map(|asker| {
                let (server, is_over) = (&server, &is_over);
                scope.spawn(move || {
                    let mut client = server.connect();
                    let mut count = 0_usize;
                    while !is_over.load(Ordering::Relaxed) {
                        let sender = format!("a{asker}x{count}@b");
                        assert!(client.ask(&[("sender", &sender)]).starts_with(DEFER));
                        count += 1;
                    }
                    count
                })
            })
            .collect();
        ctl_with_input(&db, &["import", "-"], text.as_bytes()).ok();
        for n in 0..20 {
            ctl(&db, &["add", "client", &format!("203.0.113.{n}")]).ok();
        }
        ctl(&db, &["list"]).ok();
        is_over.store(true, Ordering::Relaxed);
        askers
            .into_iter()
            .map(|asker| asker.join().unwrap())
            .sum::<usize>()
    });
    assert_eq!(records(&db, Database::Greylist).len(), RECORDS + asked);
    assert_eq!(records(&db, Database::Clients).len(), 20);
    assert!(
        !server.log_text().contains("postgrey.db"),
        "{}",
        server.log_text()
    );
}

#[test]
fn root_leaves_no_file_of_its_own() {
    if !is_root() {
        skip("root", "that root leaves no file of its own");
        return;
    }
    let dir = test_dir();
    let db = dir.path().join("db");
    ctl_with_input(&db, &["import", "-"], b"n/a/b\t1,2,3\n").ok();
    ctl(&db, &["add", "client", "192.0.2.1"]).ok();
    ctl(&db, &["compact"]).ok();
    let owner = fs::metadata(&db).unwrap().uid();
    assert_ne!(owner, 0);
    let mut names = Vec::new();
    for entry in fs::read_dir(&db).unwrap() {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        assert_eq!(
            (found.uid(), found.mode() & 0o777),
            (owner, 0o600),
            "{entry:?}"
        );
        assert_ne!(found.gid(), 0, "{entry:?}");
        names.push(entry.file_name());
    }
    assert!(names.len() >= 2, "{names:?}");
    // What the caller names is opened with his own rights.
    let own = tempfile::tempdir().unwrap();
    let file = own.path().join("copy");
    ctl(&db, &["backup", file.to_str().unwrap()]).ok();
    fs::write(own.path().join("text"), "n/c/d\t1,2,3\n").unwrap();
    ctl(&db, &["import", own.path().join("text").to_str().unwrap()]).ok();
}

/// Part of a dialogue with a server that starts with this database.
fn play(dialogue: &Dialogue, dir: &Path, from: usize, to: usize) {
    let lists = ["whitelist_clients", "whitelist_recipients"].map(|name| {
        let path = dir.join(name);
        fs::write(&path, dialogue.whitelist(name)).unwrap();
        format!("--{}={}", name.replace('_', "-"), path.display())
    });
    let mut options: Vec<&str> = dialogue.options.iter().map(String::as_str).collect();
    let more = [
        dialogue.compat_option(),
        "--sync=none",
        &lists[0],
        &lists[1],
    ];
    options.extend(more);
    let mut server = Server::start(dir, &options);
    let mut client = server.connect();
    for index in from..to {
        client.send(&dialogue.requests[index]);
        if let Some(expected) = &dialogue.replies[index] {
            let reply = client.reply().expect("a reply");
            let expected = String::from_utf8_lossy(expected);
            assert_eq!(
                format!("action={reply}\n\n"),
                expected,
                "{} {index}",
                dialogue.name
            );
        }
    }
    server.stop();
}

#[test]
fn a_dialogue_of_1_34_goes_on_where_an_import_begins() {
    for name in [
        "b06-134t-targrey",
        "b12-134t-client-net",
        "o13-134t-user",
        "o10-134t-privacy-user",
    ] {
        let all = dialogue::without_clock();
        let dialogue = all.iter().find(|dialogue| dialogue.name == name).unwrap();
        let middle = dialogue.requests.len() / 2;
        let (before, after) = (test_dir(), test_dir());
        play(dialogue, before.path(), 0, middle);
        for database in Database::ALL {
            // The text that db_dump -p made of the original's file at this point.
            let short = &database.name()[..database.name().len() - 3];
            let text = ctl(&before.path().join("db"), &["export", short]).ok();
            let words = ["import", "--from=targrey-1.34", "--database", short, "-"];
            ctl_with_input(&after.path().join("db"), &words, text.as_bytes()).ok();
        }
        play(dialogue, after.path(), middle, dialogue.requests.len());
        for (name, database) in import::DATABASES {
            let db = after.path().join("db");
            let expected = dialogue.records(name).unwrap_or_default();
            let own: std::collections::BTreeMap<_, _> = records(&db, database)
                .into_iter()
                .map(|(key, value)| (dialogue::escape(&key), dialogue::escape(&value)))
                .collect();
            assert_eq!(own, expected, "{} {name}", dialogue.name);
        }
    }
}
