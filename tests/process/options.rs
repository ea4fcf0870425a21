//! The options beside the database are those of the daemon, whatever sessions
//! do at the same time.

use std::fs;
use std::path::Path;

use crate::server::{Server, spawn, test_dir};

/// The lines of the file; none without one.
fn options(dir: &Path) -> Vec<String> {
    let text = fs::read_to_string(dir.join("db/postgrey.options")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn has(dir: &Path, option: &str) -> bool {
    options(dir).iter().any(|found| found == option)
}

#[test]
fn a_session_does_not_remove_those_of_a_daemon() {
    let dir = test_dir();
    let file = dir.path().join("db/postgrey.options");
    let other = dir.path().join("db/copy");
    let mut server = Server::start(dir.path(), &["--max-age=9"]);
    // As a backup by hard links makes it: then it is not read.
    fs::hard_link(&file, &other).unwrap();
    let ask = || {
        let mut session = spawn(dir.path(), &["--max-age=8"]);
        assert!(session.client.ask(&[]).starts_with("DEFER"));
    };
    ask();
    assert!(has(dir.path(), "--max-age=9"), "{:?}", options(dir.path()));
    // Without a daemon it is replaced.
    assert!(server.stop().success());
    ask();
    assert!(has(dir.path(), "--max-age=8"), "{:?}", options(dir.path()));
    assert!(fs::read_to_string(other).unwrap().contains("--max-age=9"));
}
