//! What an import does not read, and commands that mean nothing.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::sys::stat::Mode;
use nix::unistd::{Uid, mkfifo};
use postgrey::policy::record::Database;

use super::common_server::{is_root, nobody, skip, test_dir};
use super::import::{samples, unpack_berkeley};
use super::{ctl, ctl_with_input, fill, records};

/// A user that is in no list.
const FOREIGN: u32 = 47_110;
/// The head of a log file of Berkeley DB.
const LOG_HEAD: &[u8] = b"\0\0\0\0\x1c\0\0\0\xb4\x34\x09\x3e\x88\x09\x04\0";
/// Names and contents.
type Files<'a> = &'a [(&'a str, &'a [u8])];
/// The head of a database of Berkeley DB.
const HEAD: &[u8] = b"\0\0\0\0\0\0\0\0\0\0\0\0\x62\x31\x05\0";

fn give(path: &Path, uid: u32) {
    nix::unistd::fchownat(
        nix::fcntl::AT_FDCWD,
        path,
        Some(Uid::from_raw(uid)),
        None,
        nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .unwrap();
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn is_there(what: &str) -> bool {
    let has_tools = ["db_dump", "db_recover"]
        .iter()
        .all(|tool| Command::new(tool).arg("-V").output().is_ok());
    if !has_tools || !is_root() {
        skip("db_dump, db_recover, or root,", what);
    }
    has_tools && is_root()
}

/// An import of this must fail, and leave nothing behind.
#[track_caller]
fn assert_refused(from: &Path, message: &str) {
    let dir = tempfile::tempdir().unwrap();
    let ran = ctl(dir.path(), &["import", from.to_str().unwrap()]);
    assert!([1, 2].contains(&ran.status), "{ran:?}");
    assert_eq!(ran.stderr, format!("ERROR: {message}\n"));
    assert_eq!(ran.stdout, b"");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// How many records came from there.
#[track_caller]
fn imported(from: &Path) -> usize {
    let dir = tempfile::tempdir().unwrap();
    ctl(dir.path(), &["import", from.to_str().unwrap()]).ok();
    records(dir.path(), Database::Greylist).len()
}

#[test]
fn nothing_leads_out_of_a_directory_of_the_original() {
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::write(&secret, LOG_HEAD).unwrap();
    for name in [
        "log.0000000001",
        "postgrey.db",
        "postgrey_clients.db",
        "tarpit_clients.db",
    ] {
        let old = folder.path().join("old");
        let file = old.join(name);
        let make: [(&str, &dyn Fn()); 5] = [
            ("a symbolic link, which is not followed", &|| {
                symlink(&secret, &file).unwrap();
            }),
            ("a symbolic link, which is not followed", &|| {
                symlink("nowhere", &file).unwrap();
            }),
            ("it has 2 links, and may be a file from elsewhere", &|| {
                fs::hard_link(&secret, &file).unwrap();
            }),
            ("not a regular file", &|| {
                mkfifo(&file, Mode::S_IRWXU).unwrap();
            }),
            ("not a regular file", &|| fs::create_dir(&file).unwrap()),
        ];
        for (why, make) in make {
            fs::create_dir(&old).unwrap();
            make();
            assert_refused(&old, &format!("{}: {why}", file.display()));
            fs::remove_dir_all(&old).unwrap();
        }
    }
    // Nor from beside a single file, or from beside what a link leads to.
    let old = folder.path().join("old");
    fs::create_dir(&old).unwrap();
    let (file, log) = (old.join("postgrey.db"), old.join("log.0000000001"));
    fs::write(&file, HEAD).unwrap();
    symlink(&secret, &log).unwrap();
    let link = folder.path().join("link");
    symlink(&file, &link).unwrap();
    for from in [&file, &link] {
        let why = "a symbolic link, which is not followed";
        assert_refused(from, &format!("{}: {why}", log.display()));
    }
}

#[test]
fn a_file_counts_as_its_directory_owners_or_roots() {
    if !is_there("whose files root imports") {
        return;
    }
    let folder = test_dir();
    let old = folder.path().join("old");
    fs::create_dir(&old).unwrap();
    let file = unpack_berkeley(&samples()[1], &old).remove(0);
    for entry in fs::read_dir(&old).unwrap() {
        let path = entry.unwrap().path();
        if path != file {
            fs::remove_file(path).unwrap();
        }
    }
    let nobody = nobody().uid.as_raw();
    let all = imported(&old);
    assert!(all > 0);
    for (owner, mode, of_file, is_read) in [
        // Whoever it is, such as a number of another machine.
        (FOREIGN, 0o700, FOREIGN, true),
        (nobody, 0o775, nobody, true),
        // Copies that root has made in a directory of his own.
        (0, 0o755, nobody, true),
        (0, 0o700, FOREIGN, true),
        (0, 0o1777, 0, true),
        (0, 0o1777, nobody, false),
        (0, 0o775, FOREIGN, false),
        // What the owner of the directory cannot have written.
        (nobody, 0o700, 0, false),
        (nobody, 0o700, FOREIGN, false),
    ] {
        give(&old, owner);
        set_mode(&old, mode);
        give(&file, of_file);
        if is_read {
            assert_eq!(imported(&old), all, "{owner} {mode:o} {of_file}");
            continue;
        }
        let why = format!("it belongs to user {of_file}, and its directory to user {owner}");
        assert_refused(&old, &format!("{}: {why}", file.display()));
        // Named by itself it is the administrator's word.
        assert_eq!(imported(&file), all);
    }
}

#[test]
fn a_link_counts_only_as_the_word_of_who_may_read() {
    if !is_there("whose links root follows") {
        return;
    }
    let folder = test_dir();
    set_mode(folder.path(), 0o755);
    let (old, other) = (folder.path().join("old"), folder.path().join("other"));
    fs::create_dir(&old).unwrap();
    fs::create_dir(&other).unwrap();
    give(&other, FOREIGN);
    let file = unpack_berkeley(&samples()[1], &old).remove(0);
    let (link, to_file) = (other.join("link"), other.join("file"));
    symlink(&old, &link).unwrap();
    symlink(&file, &to_file).unwrap();
    let below = link.join("postgrey.db");
    let with_slash = Path::new(link.to_str().unwrap()).join("");
    let everything = [&link, &to_file, &below, &with_slash];
    let all = imported(&old);
    for path in everything {
        assert_eq!(imported(path), all, "{}", path.display());
    }
    give(&link, FOREIGN);
    give(&to_file, FOREIGN);
    for path in everything {
        let step = if path == &to_file { &to_file } else { &link };
        assert_refused(
            path,
            &format!(
                "{}: {} is a symbolic link of user {FOREIGN}, and what it leads to is user 0's",
                path.display(),
                step.display()
            ),
        );
    }
    for path in [&old, &file] {
        give(path, FOREIGN);
    }
    let more: Vec<_> = fs::read_dir(&old).unwrap().collect();
    more.into_iter()
        .for_each(|entry| give(&entry.unwrap().path(), FOREIGN));
    for path in everything {
        assert_eq!(imported(path), all, "{}", path.display());
    }
    // Another name of a file that is not of the directory's owner.
    let secret = folder.path().join("secret");
    fs::write(&secret, "192.0.2.0/a/b\t1,2\n").unwrap();
    let name = other.join("name");
    fs::hard_link(&secret, &name).unwrap();
    let why = "it has 2 links, and may be a file from elsewhere";
    assert_refused(&name, &format!("{}: {why}", name.display()));
    give(&secret, FOREIGN);
    assert_eq!(imported(&name), 1);
    // Where others could have made the name.
    set_mode(&other, 0o1777);
    assert_refused(&name, &format!("{}: {why}", name.display()));
}

/// A shell hands on pipes and open files by names.
#[test]
fn a_pipe_that_is_named_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let text = b"192.0.2.0/a/b\t1,2\n";
    let from_pipe = ctl_with_input(folder.path(), &["import", "/dev/stdin"], text).ok();
    assert!(from_pipe.contains(": 1 taken, "), "{from_pipe}");
    let pipe = folder.path().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| fs::write(&pipe, text).unwrap());
        let said = ctl(folder.path(), &["import", pipe.to_str().unwrap()]).ok();
        assert!(said.contains(": 0 taken, 0 merged, 1 kept, "), "{said}");
    });
    // A file that has lost its name.
    let file = folder.path().join("text");
    fs::write(&file, text).unwrap();
    let opened = fs::File::open(&file).unwrap();
    fs::remove_file(&file).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_postgreyctl"))
        .arg("--dbdir")
        .arg(folder.path())
        .args(["--defaults", "import", "/dev/stdin"])
        .stdin(opened)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_is_no_database_is_named_and_none_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let (no_database, no_log) = (
        "not a database of Berkeley DB",
        "not a log file of Berkeley DB",
    );
    let missing = "the log file before it is missing";
    let cases: [(Files, &str, &str); 8] = [
        (
            &[
                ("log.0000000001", b"garbage\n"),
                ("postgrey.db", b"garbage\n"),
            ],
            "postgrey.db",
            no_database,
        ),
        (
            &[
                ("postgrey.db", HEAD),
                ("tarpit_clients.db", b"garbage, much more of it\n"),
            ],
            "tarpit_clients.db",
            no_database,
        ),
        (
            &[("log.0000000001", b"garbage\n")],
            "log.0000000001",
            no_log,
        ),
        (
            &[("log.0000000001", b"garbage\n"), ("postgrey.db", HEAD)],
            "log.0000000001",
            no_log,
        ),
        (&[("log.0000000001", b"")], "log.0000000001", no_log),
        (
            &[("log.0000000001", b""), ("log.0000000002", LOG_HEAD)],
            "log.0000000001",
            no_log,
        ),
        (
            &[("log.0000000002", LOG_HEAD), ("log.0000000003", b"\0\0\0x")],
            "log.0000000003",
            no_log,
        ),
        (
            &[
                ("log.0000000001", LOG_HEAD),
                ("log.0000000003", LOG_HEAD),
                ("postgrey.db", HEAD),
            ],
            "log.0000000003",
            missing,
        ),
    ];
    for (files, name, why) in cases {
        let old = folder.path().join("old");
        fs::create_dir(&old).unwrap();
        for (name, content) in files {
            fs::write(old.join(name), content).unwrap();
        }
        assert_refused(&old, &format!("{}: {why}", old.join(name).display()));
        fs::remove_dir_all(&old).unwrap();
    }
    if !is_there("databases that are blank") {
        return;
    }
    let old = folder.path().join("old");
    fs::create_dir(&old).unwrap();
    unpack_berkeley(&samples()[1], &old);
    fs::write(old.join("postgrey_clients.db"), [0; 4096]).unwrap();
    let why = "it is blank, and no log.* files have what belongs in it; nothing was imported";
    assert_refused(
        &old,
        &format!("{}: {why}", old.join("postgrey_clients.db").display()),
    );
}

#[test]
fn an_option_that_means_nothing_is_a_mistake() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), &[(Database::Clients, b"192.0.2.1", b"5,100")]);
    for name in ["clients", "tarpit", "postgrey_clients", "tarpit_clients"] {
        let shown = name
            .trim_start_matches("postgrey_")
            .trim_end_matches("_clients");
        for option in ["sender", "recipient"] {
            let given = format!("--{option}=x");
            let said = ctl(dir.path(), &["list", name, &given]).failed(1);
            assert_eq!(
                said,
                format!("Option {option} is not one of list {shown}\n")
            );
        }
    }
    for words in [
        &["list", "--sender=x"][..],
        &["list", "greylist", "--sender=x"],
    ] {
        assert!(!ctl(dir.path(), words).ok().contains("192.0.2.1"));
    }
    // Each of its files would be taken for this one.
    let old = tempfile::tempdir().unwrap();
    fs::write(old.path().join("postgrey.db"), HEAD).unwrap();
    let words = ["import", "--database=clients", old.path().to_str().unwrap()];
    assert_eq!(
        ctl(dir.path(), &words).failed(1),
        "Option database is not one of import DIRECTORY\n"
    );
}

#[test]
fn whoever_may_not_look_is_told_so() {
    if !is_root() {
        skip("root", "a database that may not be read");
        return;
    }
    let folder = test_dir();
    set_mode(folder.path(), 0o755);
    let program = folder.path().join("postgreyctl");
    let cp = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_postgreyctl"))
        .arg(&program)
        .status();
    assert!(cp.unwrap().success());
    set_mode(&program, 0o755);
    let (db, mine) = (folder.path().join("closed"), folder.path().join("mine"));
    fs::create_dir(&db).unwrap();
    fs::create_dir(&mine).unwrap();
    give(&mine, FOREIGN);
    fill(&db, &[(Database::Clients, b"192.0.2.1", b"5,100")]);
    set_mode(&db, 0o700);
    let backup = mine.join("copy");
    let run = |words: &[&str]| {
        let output = Command::new(&program)
            .arg("--dbdir")
            .arg(&db)
            .arg("--defaults")
            .args(words)
            .uid(FOREIGN)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let all: [&[&str]; 8] = [
        &["stats"],
        &["list"],
        &["verify"],
        &["export"],
        &["dump", "clients"],
        &["expire"],
        &["compact"],
        &["backup", backup.to_str().unwrap()],
    ];
    let data = db.join("data.mdb");
    for words in all {
        let expected = format!("ERROR: {}: Permission denied\n", data.display());
        assert_eq!(run(words), (Some(2), expected), "{words:?}");
    }
    assert!(!backup.exists());
    fs::remove_file(data).unwrap();
    set_mode(&db, 0o755);
    let expected = format!("ERROR: {}: there is no database (data.mdb)\n", db.display());
    assert_eq!(run(&["stats"]), (Some(2), expected));
}

#[test]
fn a_database_of_another_program_is_none_of_postgrey() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("other.mdb");
    let environment = lmdb::Environment::new()
        .set_flags(lmdb::EnvironmentFlags::NO_SUB_DIR)
        .open(&file);
    drop(environment.unwrap());
    let db = folder.path().join("db");
    fs::create_dir(&db).unwrap();
    let name = file.to_str().unwrap();
    let said = ctl(&db, &["verify", name]).failed(1);
    let word = "mdb_dbi_open: no database of postgrey\n";
    assert_eq!(said, format!("ERROR: damaged: {name}: {word}"));
    let said = ctl(&db, &["restore", name]).failed(1);
    assert_eq!(said, format!("ERROR: damaged: {name}: {word}"));
    fs::copy(&file, db.join("data.mdb")).unwrap();
    let said = ctl(&db, &["stats"]).failed(1);
    assert_eq!(said, format!("ERROR: damaged: {}: {word}", db.display()));
}
