//! `dump`, and what all commands have in common.

use postgrey::policy::record::Database;

use super::{ctl, fill};

#[test]
fn a_dump_shows_every_record() {
    let dir = tempfile::tempdir().unwrap();
    let long = [b"192.0.2.0/", &[b's'; 600][..], b"/r"].concat();
    fill(
        dir.path(),
        &[
            (Database::Greylist, b"192.0.2.0/a\\\xfc/b", b"1,2,0,91"),
            (Database::Greylist, &long, b"1,2,1"),
            (Database::Clients, b"", b"5,1700000000"),
        ],
    );
    let plain = ctl(dir.path(), &["dump", "postgrey"]);
    assert!(
        plain
            .stdout
            .starts_with(b"192.0.2.0/a\\\xfc/b\t1,2,0,91\n192.0.2.0/ss")
    );
    let escaped = ctl(dir.path(), &["dump", "--escape", "postgrey"]).ok();
    let long = String::from_utf8(long).unwrap();
    assert_eq!(
        escaped,
        format!("192.0.2.0/a\\\\\\fc/b\t1,2,0,91\n{long}\t1,2,1\n")
    );
    assert_eq!(
        ctl(dir.path(), &["dump", "clients"]).ok(),
        "\t5,1700000000\n"
    );
    assert_eq!(ctl(dir.path(), &["dump", "tarpit_clients"]).ok(), "");
}

#[test]
fn nothing_is_made_where_nothing_is() {
    let dir = tempfile::tempdir().unwrap();
    let message = ctl(dir.path(), &["dump", "postgrey"]).failed(2);
    assert!(
        message.starts_with("ERROR: /") && message.contains("no database"),
        "{message}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let missing = dir.path().join("missing");
    let message = ctl(&missing, &["dump", "postgrey"]).failed(2);
    assert!(
        message.ends_with("missing: No such file or directory\n"),
        "{message}"
    );
}

#[test]
fn help_and_version_and_mistakes() {
    let nowhere = std::path::Path::new("/nonexistent");
    assert_eq!(ctl(nowhere, &["--version"]).ok(), "postgreyctl 2.0.0\n");
    assert!(
        ctl(nowhere, &["dump", "-h"])
            .ok()
            .starts_with("Usage: postgreyctl ")
    );
    assert_eq!(
        ctl(nowhere, &["dump", "--bogus"]).failed(1),
        "Unknown option: bogus\n"
    );
    assert!(
        ctl(nowhere, &["dump", "x"])
            .failed(2)
            .starts_with("ERROR: there is no database \"x\"")
    );
}
