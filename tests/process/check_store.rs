//! What `--check` says of the options of a store.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::unistd::chown;

use crate::check;
use crate::server::{give_to_server, is_root, test_dir};

/// What `--check` says of the options; that nobody answers there is no matter of theirs.
fn check(dir: &Path, more: &[&str]) -> (Option<i32>, String) {
    let (status, said) = check::check(dir, more);
    let is_of_options = |line: &&str| !line.starts_with("--store: ");
    let own: Vec<&str> = said.split_inclusive('\n').filter(is_of_options).collect();
    match own.concat() {
        own if own == said => (status, said),
        // It is a problem.
        own => (status.filter(|&status| status != 1).or(Some(0)), own),
    }
}

#[test]
fn options_of_a_store_that_are_wrong_are_told() {
    let dir = test_dir();
    let word = dir.path().join("word");
    let file = format!("--store-password-file={}", word.display());
    let shown = word.display();
    let local = "--store=redis+unix:///nowhere";
    assert_eq!(
        check(dir.path(), &[local, &file]),
        (
            Some(1),
            format!("--store-password-file: {shown}: No such file or directory\n")
        )
    );
    fs::write(&word, "geheim\n").unwrap();
    for (mode, said) in [
        (
            0o604,
            format!(
                "note: --store-password-file: {shown}: others may read it (mode 0604): chmod o= {shown}\n"
            ),
        ),
        (0o640, String::new()),
    ] {
        give_to_server(&word);
        fs::set_permissions(&word, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(check(dir.path(), &[local, &file]), (Some(0), said));
    }
    if is_root() {
        chown(&word, Some(0.into()), Some(0.into())).unwrap();
        let said = format!("--store-password-file: {shown}: user \"nobody\" may not read it\n");
        assert_eq!(check(dir.path(), &[local, &file]), (Some(1), said));
        give_to_server(&word);
    }
    let clear = "note: --store: password and records go over the network in the clear: see \
                 rediss://\n";
    assert_eq!(
        check(dir.path(), &["--store=redis://nowhere.invalid", &file]),
        (Some(0), clear.into())
    );
    let ca = format!("--store-ca-file={}", dir.path().display());
    let said = format!(
        "--store-ca-file: {}: not a regular file\n",
        dir.path().display()
    );
    assert_eq!(
        check(dir.path(), &["--store=rediss://nowhere.invalid", &ca]),
        (Some(1), said)
    );
    let ca = format!("--store-ca-file={shown}");
    let said = "note: --store-ca-file: of no use without TLS (rediss://)\n";
    assert_eq!(check(dir.path(), &[local, &ca]), (Some(0), said.into()));
    let said = "note: --store-password-file: of no use with --store=lmdb\n\
                note: --store-prefix: of no use with --store=lmdb\n\
                note: --store-timeout: of no use with --store=lmdb\n";
    let more = [&file, "--store-prefix=a", "--store-timeout=100"];
    assert_eq!(check(dir.path(), &more), (Some(0), said.into()));
    let (status, said) = check(dir.path(), &["--store=redis://u:geheim@127.0.0.1"]);
    assert!(status == Some(1) && !said.contains("geheim"), "{said}");
}
