//! `Makefile`: every make and shell installs the same, configuration is never
//! overwritten, and `make uninstall` leaves nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use super::{Done, file, find, find_or_skip, run, skip, write_script};

/// A program that makes, and the shell it runs commands with.
#[derive(Debug)]
pub(super) struct Maker {
    command: Vec<String>,
    /// A file in front of the Makefile, which sets the shell of BSD make.
    _front: Option<tempfile::NamedTempFile>,
}

/// All pairs of a make and a shell on this machine.
pub(super) fn makers() -> Vec<Maker> {
    let mut makers = Vec::new();
    for shell in ["dash", "ksh93"] {
        let Some(shell) = find_or_skip(shell, "Makefile") else {
            continue;
        };
        let shell = shell.display();
        if let Some(make) = find_or_skip("make", "Makefile") {
            let is_gnu = run(Command::new(&make).arg("--version"))
                .stdout
                .contains("GNU Make");
            if is_gnu {
                makers.push(Maker {
                    command: vec![make.display().to_string(), format!("SHELL={shell}")],
                    _front: None,
                });
            }
        }
        if let Some(make) = find_or_skip("bmake", "Makefile") {
            let front = tempfile::NamedTempFile::new().unwrap();
            let makefile = file("Makefile");
            let text = format!(
                ".SHELL: name=ksh path={shell} check=\"set -e\" ignore=\"set +e\"\n.include \"{}\"\n",
                makefile.display()
            );
            fs::write(front.path(), text).unwrap();
            let path = front.path().display().to_string();
            makers.push(Maker {
                command: vec![make.display().to_string(), "-f".into(), path],
                _front: Some(front),
            });
        }
    }
    makers
}

/// A directory of built programs, which say in --help what was built in.
pub(super) fn built(places: &[&str]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("release")).unwrap();
    let program = dir.path().join("release/postgrey");
    if places.is_empty() {
        fs::copy(env!("CARGO_BIN_EXE_postgrey"), &program).unwrap();
    } else {
        let help: String = places.iter().map(|place| format!("[{place}] ")).collect();
        write_script(&program, &format!("#!/bin/sh\necho '{help}'\n"));
    }
    for (name, built) in [
        ("postgreyctl", env!("CARGO_BIN_EXE_postgreyctl")),
        ("postgreyreport", env!("CARGO_BIN_EXE_postgreyreport")),
    ] {
        fs::copy(built, dir.path().join("release").join(name)).unwrap();
    }
    dir
}

pub(super) fn make(maker: &Maker, built: &Path, root: &Path, words: &[&str]) -> Done {
    let (program, args) = maker.command.split_first().unwrap();
    run(Command::new(program)
        .args(args)
        .args(words)
        .arg(format!("DESTDIR={}", root.display()))
        // As root without cargo: what was built before is installed.
        .arg("CARGO=no-such-cargo")
        .current_dir(file(""))
        .env_remove("MAKEFLAGS")
        .env_remove("MFLAGS")
        .env_remove("MAKELEVEL")
        .env("CARGO_TARGET_DIR", built))
}

#[track_caller]
pub(super) fn makes(maker: &Maker, built: &Path, root: &Path, words: &[&str]) -> String {
    let done = make(maker, built, root, words);
    assert_eq!(
        (done.status, done.stderr.as_str()),
        (0, ""),
        "{maker:?} {words:?}"
    );
    done.stdout
}

/// Files and links below a directory: mode, and content or target.
pub(super) fn tree(root: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                folders.push(path);
                continue;
            }
            let content = if metadata.is_symlink() {
                let target = fs::read_link(&path).unwrap();
                target.into_os_string().into_encoded_bytes()
            } else {
                fs::read(&path).unwrap()
            };
            let name = path.strip_prefix(root).unwrap().display().to_string();
            found.insert(name, (metadata.mode(), content));
        }
    }
    found
}

const INSTALL: [&str; 6] = [
    "install",
    "install-rc",
    "install-smf",
    "install-systemd",
    "install-cron",
    "install-timer",
];

/// What `make uninstall` leaves.
const KEPT: [&str; 7] = [
    "etc/default/postgrey",
    "etc/postfix/permit_client_nots25r",
    "etc/postfix/postgrey_pools",
    "etc/postfix/postgrey_whitelist_clients",
    "etc/postfix/postgrey_whitelist_recipients",
    "etc/postfix/whitelist_client",
    "etc/postfix/whitelist_recipient",
];

#[test]
fn every_make_and_shell_installs_the_same() {
    let makers = makers();
    let built = built(&[]);
    let mut first: Option<BTreeMap<_, _>> = None;
    for maker in &makers {
        let root = tempfile::tempdir().unwrap();
        for target in INSTALL {
            makes(maker, built.path(), root.path(), &[target]);
        }
        let tree = tree(root.path());
        for (name, mode) in [
            ("usr/local/sbin/postgrey", 0o100_755),
            ("usr/local/sbin/postgreyctl", 0o100_755),
            ("usr/local/bin/postgreyreport", 0o100_755),
            ("usr/local/share/man/man1/postgreyreport.1", 0o100_644),
            (
                "usr/local/share/bash-completion/completions/postgreyreport",
                0o100_644,
            ),
            (
                "usr/local/share/zsh/site-functions/_postgreyreport",
                0o100_644,
            ),
            ("usr/local/share/man/man8/postgrey.8", 0o100_644),
            ("usr/local/share/man/man8/postgreyctl.8", 0o100_644),
            ("usr/local/share/man/ja/man8/postgrey.8", 0o100_644),
            ("usr/local/share/man/man5/postgrey_whitelist.5", 0o100_644),
            ("usr/local/share/doc/postgrey/README.ja.md", 0o100_644),
            ("usr/local/share/man/man7/s25r.7", 0o100_644),
            ("usr/local/share/doc/postgrey/main.cf.example", 0o100_644),
            ("usr/local/share/doc/postgrey/redis.conf.example", 0o100_644),
            (
                "usr/local/share/bash-completion/completions/postgreyctl",
                0o100_644,
            ),
            ("usr/local/share/zsh/site-functions/_postgreyctl", 0o100_644),
            ("etc/postfix/postgrey_whitelist_clients", 0o100_644),
            ("etc/init.d/postgrey", 0o100_744),
            ("etc/default/postgrey", 0o100_644),
            ("lib/svc/manifest/network/postgrey.xml", 0o100_444),
            ("lib/svc/method/svc-postgrey", 0o100_555),
            ("lib/systemd/system/postgrey.service", 0o100_644),
            ("lib/systemd/system/postgreyreport.service", 0o100_644),
            ("lib/systemd/system/postgreyreport.timer", 0o100_644),
            ("etc/cron.d/postgreyreport", 0o100_644),
            ("usr/local/share/doc/postgrey/postgrey.munin", 0o100_644),
            ("usr/local/share/doc/postgrey/postgrey.rules.yml", 0o100_644),
        ] {
            assert_eq!(tree[name].0, mode, "{name}: {:o}", tree[name].0);
        }
        for link in ["rc0.d/K36", "rc1.d/K36", "rcS.d/K36", "rc2.d/S88"] {
            let (mode, target) = &tree[&format!("etc/{link}postgrey")];
            assert_eq!(mode & 0o170_000, 0o120_000);
            assert_eq!(target, b"/etc/init.d/postgrey");
        }
        assert!(tree.keys().all(|name| !name.ends_with(".new")));
        // The tables that the example names are there.
        let example = super::text("conf/main.cf.example");
        let tables = example
            .split_whitespace()
            .filter_map(|word| word.split_once(":/etc/postfix/"));
        for (_, name) in tables {
            let name = name.trim_end_matches([',', '.']);
            assert!(tree.contains_key(&format!("etc/postfix/{name}")), "{name}");
        }
        match &first {
            None => first = Some(tree),
            Some(first) => {
                assert!(first.keys().eq(tree.keys()), "{maker:?}");
                for (name, entry) in &tree {
                    assert!(first[name] == *entry, "{maker:?}: {name}");
                }
            }
        }
    }
}

#[test]
fn uninstall_leaves_configuration_and_data() {
    let built = built(&[]);
    for maker in makers() {
        let root = tempfile::tempdir().unwrap();
        for target in INSTALL {
            makes(&maker, built.path(), root.path(), &[target]);
        }
        let data = root.path().join("var/spool/postfix/postgrey/data.mdb");
        fs::create_dir_all(data.parent().unwrap()).unwrap();
        fs::write(&data, "records").unwrap();
        let said = makes(&maker, built.path(), root.path(), &["uninstall"]);
        assert!(said.contains("Kept: "), "{said}");
        let left: Vec<String> = tree(root.path()).into_keys().collect();
        let mut kept: Vec<String> = KEPT.map(String::from).to_vec();
        kept.push("var/spool/postfix/postgrey/data.mdb".into());
        assert_eq!(left, kept, "{maker:?}");
        // Nothing is left to remove, and that is no error.
        makes(&maker, built.path(), root.path(), &["uninstall"]);
    }
}

#[test]
fn configuration_that_is_there_is_kept() {
    let built = built(&[]);
    for maker in makers() {
        let root = tempfile::tempdir().unwrap();
        for name in KEPT {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "mine\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        for target in INSTALL {
            makes(&maker, built.path(), root.path(), &[target]);
        }
        let tree = tree(root.path());
        for name in KEPT {
            assert_eq!(tree[name], (0o100_640, b"mine\n".to_vec()), "{name}");
        }
        // The new ones are there to compare with.
        let doc = &tree["usr/local/share/doc/postgrey/postgrey_whitelist_clients"];
        assert!(doc.1.starts_with(b"# SPDX"));
    }
}

#[test]
fn every_place_can_be_another() {
    let places = [
        "/d/b",
        "/c/postgrey_whitelist_clients",
        "/c/postgrey_whitelist_recipients",
        "greyd",
    ];
    let built = built(&places);
    for maker in makers() {
        let root = tempfile::tempdir().unwrap();
        let variables = [
            "PREFIX=/opt/p",
            "SYSCONFDIR=/c",
            "DBDIR=/d/b",
            "USER=greyd",
            "GROUP=grey",
            "MANSECT=1m",
            "DEFAULTDIR=/x",
            "INITDIR=/i",
            "UNITDIR=/u",
            "SMFDIR=/s",
            "QUEUEDIR=/q",
            "CLIENT_TABLE=/t/client",
            "BASHCOMPDIR=/bash",
            "ZSHCOMPDIR=/zsh",
        ];
        let mut said = String::new();
        for target in INSTALL {
            let words = [&[target], &variables[..]].concat();
            said += &makes(&maker, built.path(), root.path(), &words);
        }
        for step in [
            "groupadd grey\n",
            "useradd -g grey -d /d/b -s /bin/false greyd\n",
            "chown greyd:grey /d/b && chmod 700 /d/b\n",
            "/opt/p/sbin/postgrey --check --inet=127.0.0.1:60000\n",
            "check_policy_service { inet:127.0.0.1:60000, ",
        ] {
            assert!(said.contains(step), "{step}\n--\n{said}");
        }
        let tree = tree(root.path());
        let read = |name: &str| String::from_utf8_lossy(&tree[name].1).into_owned();
        assert!(read("opt/p/share/man/man1m/postgrey.1m").contains("\n.TH POSTGREY 1M "));
        assert!(read("opt/p/share/man/man7/s25r.7").contains(".BR postgrey (1M)"));
        let japanese = read("opt/p/share/man/ja/man1m/postgrey.1m");
        assert!(japanese.contains("\n.TH POSTGREY 1M "));
        assert!(!japanese.contains("postgreyctl\\fP(8)"));
        assert!(japanese.contains("\\fBpostgreyctl\\fP(1M)"));
        assert!(read("i/postgrey").contains("\nPOSTGREY=/opt/p/sbin/postgrey\n"));
        assert!(read("u/postgrey.service").contains("\nUser=greyd\n"));
        assert!(read("s/method/svc-postgrey").contains(":-/opt/p/sbin/postgrey}"));
        let master = read("opt/p/share/doc/postgrey/master.cf.example");
        assert!(master.contains("user=greyd argv=/opt/p/sbin/postgrey --spawn"));
        let main = read("opt/p/share/doc/postgrey/main.cf.example");
        for part in [
            "--unix=/q/greylist/socket",
            "check_client_access hash:/t/client,",
            "check_recipient_access hash:/c/whitelist_recipient,",
            "postmap hash:/t/client\n",
        ] {
            assert!(main.contains(part), "{part}");
        }
        assert!(read("u/postgrey.service").contains(" -/q/greylist\n"));
        for name in [
            "c/permit_client_nots25r",
            "c/whitelist_recipient",
            "t/client",
            "opt/p/share/man/man1m/postgreyctl.1m",
            "opt/p/share/man/ja/man1m/postgrey.1m",
            "bash/postgreyctl",
            "zsh/_postgreyctl",
        ] {
            assert!(tree.contains_key(name), "{name}");
        }
        // No usual place is left in what is run or read by programs.
        for (name, (mode, content)) in &tree {
            let is_link = mode & 0o170_000 == 0o120_000;
            let is_program =
                name.ends_with("sbin/postgreyctl") || name.ends_with("bin/postgreyreport");
            if is_link || is_program || name.contains("share/doc") {
                continue;
            }
            let text = String::from_utf8_lossy(content);
            for old in [
                "/usr/local/sbin",
                "/var/spool/postfix/postgrey",
                "/var/spool/postfix/greylist",
                "/etc/postfix/postgrey_",
                "/etc/postfix/whitelist_",
                "/etc/default/postgrey",
                "/etc/init.d/postgrey",
            ] {
                assert!(!text.contains(old), "{name}: {old}");
            }
        }
        let words = [&["uninstall"], &variables[..]].concat();
        makes(&maker, built.path(), root.path(), &words);
        let left: Vec<String> = self::tree(root.path()).into_keys().collect();
        let kept = [
            "c/permit_client_nots25r",
            "c/postgrey_pools",
            "c/postgrey_whitelist_clients",
            "c/postgrey_whitelist_recipients",
            "c/whitelist_recipient",
            "t/client",
        ];
        let links = left
            .iter()
            .filter(|name| name.starts_with("etc/rc"))
            .count();
        assert_eq!(links, 0);
        assert!(kept.iter().all(|name| left.contains(&(*name).to_owned())));
        assert_eq!(left.len(), kept.len() + 1, "{left:?}");
    }
}

#[test]
fn programs_built_for_other_places_are_refused() {
    let built = built(&[]);
    let empty = tempfile::tempdir().unwrap();
    for maker in makers() {
        let root = tempfile::tempdir().unwrap();
        for (target_dir, words, said) in [
            (
                built.path(),
                &["install", "DBDIR=/d/b"][..],
                "was not built for /d/b",
            ),
            (
                empty.path(),
                &["install"],
                "nothing is built: run make first",
            ),
        ] {
            let done = make(&maker, target_dir, root.path(), words);
            assert_ne!(done.status, 0);
            let all = done.stdout + &done.stderr;
            assert!(all.contains(said), "{all}");
            assert!(tree(root.path()).is_empty());
        }
    }
}

#[test]
fn the_makefile_has_no_gnu_syntax() {
    let text = super::text("Makefile");
    for (number, line) in text.lines().enumerate() {
        let place = format!("Makefile line {}: {line}", number + 1);
        assert!(
            !line.starts_with("ifeq") && !line.starts_with("ifdef"),
            "{place}"
        );
        assert!(
            !line.starts_with("include ") && !line.starts_with('.') || line.starts_with(".PHONY"),
            "{place}"
        );
        let is_recipe = line.starts_with('\t');
        assert!(is_recipe || !line.contains('%'), "{place}");
        for word in [
            ":=",
            "?=",
            "+=",
            "$(shell",
            "$(wildcard",
            "$(subst",
            "$^",
            "$<",
            "$(MAKE)",
        ] {
            assert!(!line.contains(word), "{place}");
        }
        // install(1) differs between systems.
        assert!(!line.contains("install -"), "{place}");
    }
    if find("bmake").is_none() {
        skip("bmake", "Makefile with a make that is not GNU's");
    }
}
