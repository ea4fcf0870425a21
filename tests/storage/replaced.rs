//! A file that is put in the place of the database by hand while sessions have
//! the old one open: whoever comes next works on the new one, and so do they.

use std::fs;
use std::path::Path;

use postgrey::policy::record::Database;

use crate::server::{Client, Server, Spawned, give_to_server, records};
use crate::tools::{Tools, memory_dir};

fn ask(client: &mut Client, sender: &str) {
    let answer = client.ask(&[("sender", sender)]);
    assert!(answer.starts_with("DEFER_IF_PERMIT"), "{sender}: {answer}");
}

/// A database with these many records, as `postgreyctl backup` writes one.
fn make_backup(tools: &Tools, number: usize) -> Vec<u8> {
    let folder = memory_dir();
    let mut server = Server::start(folder.path(), &["--quiet", "--sync=none"]);
    let mut client = server.connect();
    for count in 0..number {
        ask(&mut client, &format!("backup{count}x@s.example"));
    }
    let path = folder.path().join("run/backup");
    let backup = tools.ctl(folder.path(), &["backup", path.to_str().unwrap()], &[]);
    assert!(backup.status.success(), "{backup:?}");
    assert!(server.stop().success());
    fs::read(path).unwrap()
}

/// Where the backup is put.
fn put_back(db: &Path, backup: &[u8]) {
    let part = db.join("part");
    fs::write(&part, backup).unwrap();
    give_to_server(&part);
    fs::rename(&part, db.join("data.mdb")).unwrap();
}

#[test]
fn a_backup_that_is_put_back_beside_sessions_is_used_by_all() {
    const OF_BACKUP: usize = 40;
    let Some(tools) = Tools::build() else { return };
    let backup = make_backup(&tools, OF_BACKUP);
    // An odd or an even number of commits: LMDB has two meta pages.
    for commits in 1..7 {
        let folder = memory_dir();
        let db = folder.path().join("db");
        let open = || tools.session(folder.path(), &["--quiet"], &[]);
        let (mut first, mut second) = (open(), open());
        for count in 0..commits {
            ask(&mut first.client, &format!("old{count}x@s.example"));
        }
        ask(&mut second.client, "old0x@s.example");
        put_back(&db, &backup);
        let mut third = open();
        for (name, session) in [
            ("third", &mut third),
            ("first", &mut first),
            ("second", &mut second),
        ] {
            ask(&mut session.client, &format!("{name}x@s.example"));
        }
        let mut server = Server::start(folder.path(), &["--quiet"]);
        ask(&mut server.connect(), "daemonx@s.example");
        ask(&mut first.client, "first-again@s.example");
        for Spawned { client, mut child } in [first, second, third] {
            drop(client);
            assert!(child.wait().unwrap().success());
        }
        assert!(server.stop().success());
        let held = records(&db, Database::Greylist);
        let has = |sender: &str| {
            let key = format!("192.0.2.0/{sender}@s.example/user@example.org");
            held.contains_key(key.as_bytes())
        };
        let mut lost: Vec<String> = (0..OF_BACKUP)
            .map(|count| format!("backup{count}x"))
            .collect();
        lost.extend(["thirdx", "firstx", "secondx", "daemonx", "first-again"].map(String::from));
        lost.retain(|sender| !has(sender));
        assert!(lost.is_empty(), "{commits} commits: lost {lost:?}");
        assert!(!has("old0x"), "a mixture of both");
    }
    println!("check: a backup put back beside 2 sessions, then a third and a daemon: nothing lost");
}
