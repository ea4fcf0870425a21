//! `import` and `export`.

use crate::common_server::skip;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use postgrey::policy::record::Database;

use super::{ctl, ctl_with_input, fill, records};

pub const DATABASES: [(&str, Database); 3] = [
    ("postgrey", Database::Greylist),
    ("postgrey_clients", Database::Clients),
    ("tarpit_clients", Database::Tarpit),
];

fn data(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(folder)
}

fn unpacked(path: &Path) -> Vec<u8> {
    let mut content = Vec::new();
    let file = fs::File::open(path).unwrap();
    flate2::read::GzDecoder::new(file)
        .read_to_end(&mut content)
        .unwrap();
    content
}

/// The recorded dialogues that come with their Berkeley DB files.
pub fn samples() -> Vec<PathBuf> {
    let folders = ["dialogues/basic", "dialogues/open"].map(data);
    let scenarios = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).unwrap());
    let mut samples: Vec<PathBuf> = scenarios
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.join("bdb").exists())
        .collect();
    samples.sort();
    assert_eq!(samples.len(), 6);
    samples
}

/// What `dump --escape` must show.
fn expected(sample: &Path, name: &str) -> Vec<String> {
    let content = fs::read_to_string(sample.join("db").join(name)).unwrap_or_default();
    sorted(&content)
}

fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

#[track_caller]
fn assert_imported(dir: &Path, sample: &Path) {
    for (name, _) in DATABASES {
        let dumped = ctl(dir, &["dump", "--escape", name]).ok();
        assert_eq!(
            sorted(&dumped),
            expected(sample, name),
            "{} {name}",
            sample.display()
        );
    }
}

fn has_db_dump() -> bool {
    let has = Command::new("db_dump").arg("-V").output().is_ok();
    if !has {
        skip("db_dump", "files of Berkeley DB");
    }
    has
}

pub fn unpack_berkeley(sample: &Path, folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (name, _) in DATABASES {
        let packed = sample.join("bdb").join(format!("{name}.db.gz"));
        if packed.exists() {
            let file = folder.join(format!("{name}.db"));
            fs::write(&file, unpacked(&packed)).unwrap();
            files.push(file);
        }
    }
    files
}

#[test]
fn the_recorded_databases_come_in_as_they_are() {
    if !has_db_dump() {
        return;
    }
    for sample in samples() {
        let old = tempfile::tempdir().unwrap();
        let files = unpack_berkeley(&sample, old.path());
        let by_directory = tempfile::tempdir().unwrap();
        ctl(
            by_directory.path(),
            &["import", old.path().to_str().unwrap()],
        )
        .ok();
        assert_imported(by_directory.path(), &sample);
        let by_file = tempfile::tempdir().unwrap();
        for file in &files {
            ctl(by_file.path(), &["import", file.to_str().unwrap()]).ok();
        }
        assert_imported(by_file.path(), &sample);
        for encoding in [&["-p"][..], &[]] {
            let by_text = tempfile::tempdir().unwrap();
            for file in &files {
                let text = Command::new("db_dump")
                    .args(encoding)
                    .arg(file)
                    .output()
                    .unwrap()
                    .stdout;
                let name = file.file_stem().unwrap().to_str().unwrap();
                ctl_with_input(by_text.path(), &["import", "--database", name, "-"], &text).ok();
            }
            assert_imported(by_text.path(), &sample);
        }
    }
}

#[test]
fn the_old_directory_may_be_the_new_one() {
    if !has_db_dump() {
        return;
    }
    let sample = &samples()[1];
    let dir = tempfile::tempdir().unwrap();
    unpack_berkeley(sample, dir.path());
    ctl(dir.path(), &["import", dir.path().to_str().unwrap()]).ok();
    assert_imported(dir.path(), sample);
}

#[test]
fn texts_made_by_db_dump_are_guessed() {
    for (file, name, database) in [
        ("b06-postgrey.print.gz", "postgrey", Database::Greylist),
        (
            "b06-postgrey_clients.print.gz",
            "postgrey_clients",
            Database::Clients,
        ),
        (
            "b06-tarpit_clients.bytevalue.gz",
            "tarpit_clients",
            Database::Tarpit,
        ),
        ("o14-postgrey.bytevalue.gz", "postgrey", Database::Greylist),
        ("o10-postgrey.print.gz", "postgrey", Database::Greylist),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let text = unpacked(&data("bdb").join(file));
        let said = ctl_with_input(dir.path(), &["import", "-"], &text).ok();
        assert!(said.contains(database.name()), "{said}");
        let prefix = &file[..3];
        let sample = samples().into_iter().find(|path| {
            path.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .starts_with(prefix)
        });
        let dumped = ctl(dir.path(), &["dump", "--escape", name]).ok();
        assert_eq!(sorted(&dumped), expected(&sample.unwrap(), name), "{file}");
    }
}

const OLD: &[(Database, &[u8], &[u8])] = &[
    (Database::Greylist, b"192.0.2.0/a/b", b"100,200,1,5"),
    (Database::Greylist, b"192.0.2.0/\\\xfc/b", b"100,200,1,5"),
    (Database::Clients, b"192.0.2.1", b"5,100"),
    (Database::Tarpit, b"192.0.2.1", b"100"),
];

#[test]
fn an_export_comes_in_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), OLD);
    let long = [b"192.0.2.0/", &[b's'; 600][..], b"/r"].concat();
    fill(dir.path(), &[(Database::Greylist, &long, b"1,2,1")]);
    let whole = |dir: &Path| DATABASES.map(|(_, database)| records(dir, database));
    for format in ["db_dump", "tab", "json"] {
        let copy = tempfile::tempdir().unwrap();
        let words = ["export", "--format", format];
        let text = ctl(dir.path(), &words).ok();
        ctl_with_input(copy.path(), &["import", "-"], text.as_bytes()).ok();
        assert_eq!(whole(copy.path()), whole(dir.path()), "{format}");
        assert_eq!(ctl(copy.path(), &words).ok(), text);
        let again = ctl_with_input(copy.path(), &["import", "-"], text.as_bytes()).ok();
        assert!(
            again
                .lines()
                .all(|line| line.contains(": 0 taken, 0 merged, ")),
            "{again}"
        );
    }
    let text = ctl(dir.path(), &["export", "clients"]).ok();
    assert_eq!(
        text,
        "VERSION=3\nformat=print\ntype=btree\nHEADER=END\n 192.0.2.1\n 5,100\nDATA=END\n"
    );
    // With -p it does not escape backslashes, so that is no exact copy.
    if let Ok(dumped) = Command::new("mdb_dump").arg("-a").arg(dir.path()).output() {
        let copy = tempfile::tempdir().unwrap();
        ctl_with_input(copy.path(), &["import", "-"], &dumped.stdout).ok();
        assert_eq!(whole(copy.path()), whole(dir.path()), "mdb_dump");
    }
}

#[test]
fn conflicts_are_resolved_for_the_client_s_good() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), OLD);
    let text =
        "192.0.2.0/a/b\t50,150,7,9\n192.0.2.0/new/b\t1,2,0\n192.0.2.0/\\\\\\fc/b\t100,200,1,5\n";
    let said = ctl_with_input(dir.path(), &["import", "-"], text.as_bytes()).ok();
    assert_eq!(
        said,
        "standard input: greylist (postgrey.db) with retry counts: \
         1 taken, 1 merged, 1 kept, 0 refused\n"
    );
    let all: BTreeMap<_, _> = records(dir.path(), Database::Greylist)
        .into_iter()
        .collect();
    assert_eq!(all[&b"192.0.2.0/a/b"[..]], b"50,200,7,5");
}

#[test]
fn plain_records_that_had_passed_come_in_as_passed() {
    for (from, value, stored) in [
        (
            "postgrey-1.34",
            "1000000000,1000000400,10",
            "1000000000,1000000400,,10",
        ),
        (
            "postgrey-1.34",
            "1000000000,1000000000,10",
            "1000000000,1000000000,,10",
        ),
        (
            "postgrey-1.37",
            "1000000000,1000000400",
            "1000000000,1000000400",
        ),
        (
            "targrey-1.37",
            "1000000000,1000000400,1",
            "1000000000,1000000400,1",
        ),
        (
            "targrey-1.34",
            "1000000000,1000000000,0,9",
            "1000000000,1000000000,0,9",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("192.0.2.0/a@b/c@d\t{value}\n");
        ctl_with_input(
            dir.path(),
            &["import", "--from", from, "-"],
            text.as_bytes(),
        )
        .ok();
        let all = records(dir.path(), Database::Greylist);
        assert_eq!(all[0].1, stored.as_bytes(), "{from}");
    }
}

#[test]
fn records_that_are_none_are_told_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let text = "n/a/b\t1,2,1\nn/c/d\tnonsense\nn/e/f\t3,4,1\n";
    let ran = ctl_with_input(dir.path(), &["import", "-"], text.as_bytes());
    assert_eq!(
        ran.stderr,
        "standard input line 2: refused: the value is no record of a triplet\n"
    );
    assert!(ran.ok().ends_with("2 taken, 0 merged, 0 kept, 1 refused\n"));
}

#[test]
fn bad_input_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let missing = ctl(dir.path(), &["import", "/nonexistent/file"]).failed(2);
    assert_eq!(
        missing,
        "ERROR: /nonexistent/file: No such file or directory\n"
    );
    let empty = ctl(dir.path(), &["import", dir.path().to_str().unwrap()]).failed(2);
    assert!(
        empty.contains("there are no databases of the original"),
        "{empty}"
    );
    let good = unpacked(&data("bdb").join("b06-postgrey.print.gz"));
    for (text, message) in [
        (&good[..good.len() - 9], "standard input line 13: cut off"),
        (b"", "standard input line 0: the text is empty"),
        (b"root:x:0:0:root:/root:/bin/sh\n", "standard input line 1: neither"),
        (
            b"VERSION=3\nformat=print\ntype=hash\nHEADER=END\n postmaster\\00\n root\\00\nDATA=END\n",
            "standard input line 5: ",
        ),
        (b"a/b/c\t1,2\nx\n", "standard input line 2: not [DATABASE tab] KEY tab VALUE"),
    ] {
        let said = ctl_with_input(dir.path(), &["import", "-"], text).failed(2);
        assert!(said.starts_with(&format!("ERROR: {message}")), "{said}");
        assert!(said.ends_with("nothing was imported\n"), "{said}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    let wrong = ctl(dir.path(), &["import", "--from=postgrey-2", "-"]).failed(2);
    assert!(wrong.starts_with("ERROR: --from must be "), "{wrong}");
}

#[test]
fn damaged_berkeley_files_are_refused() {
    if !has_db_dump() {
        return;
    }
    let old = tempfile::tempdir().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = unpack_berkeley(&samples()[1], old.path()).remove(0);
    let whole = fs::read(&file).unwrap();
    let mut broken = whole.clone();
    broken[4096..].fill(0xa5);
    for content in [&whole[..5000], &whole[..100], &broken] {
        fs::write(&file, content).unwrap();
        let said = ctl(dir.path(), &["import", file.to_str().unwrap()]).failed(2);
        assert!(
            said.contains("postgrey.db") && said.lines().count() == 1,
            "{said}"
        );
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn without_db_dump_the_package_is_named() {
    // The places besides PATH cannot be hidden, so this shows only where none has it.
    if Path::new("/usr/bin/db_dump").exists() {
        return;
    }
    let old = tempfile::tempdir().unwrap();
    let file = unpack_berkeley(&samples()[1], old.path()).remove(0);
    let said = ctl(old.path(), &["import", file.to_str().unwrap()]).failed(2);
    assert!(said.contains("db-util"), "{said}");
}

#[test]
fn a_text_cut_anywhere_is_refused_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), OLD);
    let before = DATABASES.map(|(_, database)| records(dir.path(), database));
    let whole = unpacked(&data("bdb").join("o14-postgrey.bytevalue.gz"));
    for place in 1..60 {
        let text = &whole[..whole.len() * place / 60];
        let said = ctl_with_input(dir.path(), &["import", "-"], text).failed(2);
        assert!(said.starts_with("ERROR: standard input line "), "{said}");
    }
    assert_eq!(
        DATABASES.map(|(_, database)| records(dir.path(), database)),
        before
    );
}
