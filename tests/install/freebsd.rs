//! `rc/postgrey.freebsd`, the rc.d script, with stubs in the place of the
//! server and of rc.subr and under each shell; `make install-freebsd`; and the
//! port in `ports/`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::makefile::{built, makers, makes, tree};
use super::{Done, file, find_or_skip, run, shells, skip, text, write_script};

const WRONG: &str = "WARNING: the settings are wrong; a server that runs is left alone\n";

/// A directory with the stubs, an rc.conf, and the script that uses them.
struct Place {
    dir: tempfile::TempDir,
    shell: PathBuf,
}

impl Place {
    fn new(shell: &Path) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let stub = fs::read_to_string(file("tests/install/stub-server")).unwrap();
        write_script(&dir.path().join("postgrey"), &stub);
        let here = dir.path().display().to_string();
        let script = text("rc/postgrey.freebsd")
            .replace(
                "\n. /etc/rc.subr\n",
                &format!("\n. {}\n", file("tests/install/stub-rc.subr").display()),
            )
            .replace("/usr/local/sbin", &here)
            .replace("/var/run", &here);
        write_script(&dir.path().join("rc.d"), &script);
        fs::create_dir(dir.path().join("db")).unwrap();
        let place = Place {
            dir,
            shell: shell.to_owned(),
        };
        place.set("postgrey_enable=YES\n");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn set(&self, more: &str) {
        let lines = format!("postgrey_dbdir={}\n{more}", self.path("db").display());
        fs::write(self.path("rc.conf"), lines).unwrap();
    }

    fn script(&self, verb: &str) -> Done {
        run(Command::new(&self.shell)
            .arg(self.path("rc.d"))
            .arg(verb)
            .current_dir("/")
            .env("RC_CONF", self.path("rc.conf")))
    }

    fn expect(&self, verb: &str, status: i32, stdout: &str) {
        let done = self.script(verb);
        let shell = self.shell.display();
        assert_eq!(
            (done.status, done.stdout.as_str(), done.stderr.as_str()),
            (status, stdout, ""),
            "{shell} {verb}"
        );
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }
}

impl Drop for Place {
    /// Ends the stubs that a failed test has left, by the number each had.
    fn drop(&mut self) {
        super::end_stubs(&self.path("pids"));
    }
}

fn under_each_shell(test: impl Fn(&Place)) {
    if find_or_skip("ps", "rc/postgrey.freebsd").is_none() {
        return;
    }
    for shell in shells("rc/postgrey.freebsd under it") {
        test(&Place::new(&shell));
    }
}

#[test]
fn a_life_on_freebsd() {
    under_each_shell(|place| {
        place.expect("status", 1, "postgrey is not running.\n");
        place.expect("start", 0, "Starting postgrey.\n");
        let first = place.read("postgrey.pid");
        let running = format!("postgrey is running as pid {}.\n", first.trim());
        place.expect("status", 0, &running);
        place.expect("reload", 0, "");
        super::wait_until("no HUP", || place.path("hup").exists());
        place.expect("status", 0, &running);

        place.expect("restart", 0, "Stopping postgrey.\nStarting postgrey.\n");
        assert_ne!(place.read("postgrey.pid"), first);
        assert!(place.path("pids").exists());
        // The server may not remove the file in a directory of root.
        place.expect("stop", 0, "Stopping postgrey.\n");
        fs::write(place.path("keep"), "").unwrap();
        place.expect("start", 0, "Starting postgrey.\n");
        place.expect("stop", 0, "Stopping postgrey.\n");
        assert!(!place.path("postgrey.pid").exists());
        place.expect(
            "stop",
            1,
            &format!(
                "postgrey not running? (check {}).\n",
                place.path("postgrey.pid").display()
            ),
        );
    });
}

#[test]
fn rc_conf_decides_on_freebsd() {
    under_each_shell(|place| {
        let pidfile = format!("--pidfile={}", place.path("postgrey.pid").display());
        let dbdir = format!("--dbdir={}", place.path("db").display());
        for (more, wanted) in [
            (
                "postgrey_enable=YES\n".to_owned(),
                vec!["-d", &pidfile, &dbdir, "--inet=10023"],
            ),
            (
                "postgrey_enable=YES\npostgrey_options=\"--delay=60 --greylist-text='Wait,  %s * s'\"\n"
                    .to_owned(),
                vec![
                    "-d",
                    &pidfile,
                    &dbdir,
                    "--delay=60",
                    "--greylist-text=Wait,  %s * s",
                ],
            ),
            (
                format!("postgrey_enable=YES\npostgrey_flags='-d {pidfile} -v'\n"),
                vec!["-d", &pidfile, "-v"],
            ),
        ] {
            place.set(&more);
            place.expect("start", 0, "Starting postgrey.\n");
            assert_eq!(place.read("args").lines().collect::<Vec<_>>(), wanted);
            place.expect("configtest", 0, "");
            let checked = place.read("checked");
            let checked: Vec<_> = checked.lines().collect();
            assert_eq!(checked[0], "--check");
            assert_eq!(checked[1..], wanted);
            place.expect("stop", 0, "Stopping postgrey.\n");
        }
        let other = place.path("other.pid");
        place.set(&format!(
            "postgrey_enable=YES\npostgrey_pidfile={}\n",
            other.display()
        ));
        place.expect("start", 0, "Starting postgrey.\n");
        assert!(other.exists() && !place.path("postgrey.pid").exists());
        place.expect("stop", 0, "Stopping postgrey.\n");
        // Off is the default.
        place.set("");
        let done = place.script("start");
        assert_eq!((done.status, done.stdout.as_str()), (0, ""));
        assert!(
            done.stderr.contains("Set postgrey_enable to YES"),
            "{done:?}"
        );
        place.expect("onestart", 0, "Starting postgrey.\n");
        place.expect("onestop", 0, "Stopping postgrey.\n");
    });
}

#[test]
fn wrong_settings_stop_nothing_on_freebsd() {
    under_each_shell(|place| {
        place.expect("start", 0, "Starting postgrey.\n");
        let first = place.read("postgrey.pid");
        fs::write(place.path("bad"), "Unknown option: delya\n").unwrap();
        for verb in ["restart", "reload", "configtest"] {
            let done = place.script(verb);
            assert_eq!((done.status, done.stdout.as_str()), (1, ""), "{done:?}");
            assert!(done.stderr.starts_with("Unknown option: delya\n"));
            assert!(done.stderr.ends_with(WRONG), "{done:?}");
            assert_eq!(place.read("postgrey.pid"), first, "{verb}");
            assert!(!place.path("ended").exists() && !place.path("hup").exists());
        }
        fs::remove_file(place.path("bad")).unwrap();
        place.expect("restart", 0, "Stopping postgrey.\nStarting postgrey.\n");
        place.expect("stop", 0, "Stopping postgrey.\n");
        fs::write(place.path("fail"), "ERROR: no\n").unwrap();
        let done = place.script("start");
        assert_eq!(done.status, 1, "{done:?}");
        assert!(done.stderr.starts_with("ERROR: no\n"));
        fs::remove_dir(place.path("db")).unwrap();
        let done = place.script("start");
        assert_eq!(done.status, 1);
        assert!(done.stderr.contains("/db is not a directory."), "{done:?}");
    });
}

/// What rcorder(8) reads.
#[test]
fn rcorder_finds_its_lines() {
    let script = text("rc/postgrey.freebsd");
    for line in ["PROVIDE: postgrey", "BEFORE: mail", "KEYWORD: shutdown"] {
        assert!(script.contains(&format!("\n# {line}\n")), "{line}");
    }
}

/// The places of FreeBSD, with programs that were built for them.
fn installed() -> Vec<(String, tempfile::TempDir)> {
    let built = built(&[
        "/var/db/postgrey",
        "/usr/local/etc/postfix/postgrey_whitelist_clients",
        "/usr/local/etc/postfix/postgrey_whitelist_recipients",
        "postgrey",
    ]);
    makers()
        .iter()
        .map(|maker| {
            let root = tempfile::tempdir().unwrap();
            let said = makes(maker, built.path(), root.path(), &["install-freebsd"]);
            (said, root)
        })
        .collect()
}

#[test]
fn install_freebsd_has_its_places() {
    for (said, root) in installed() {
        let tree = tree(root.path());
        assert_eq!(tree["usr/local/etc/rc.d/postgrey"].0, 0o100_555);
        assert_eq!(
            String::from_utf8_lossy(&tree["usr/local/etc/rc.d/postgrey"].1),
            text("rc/postgrey.freebsd")
        );
        assert!(tree.keys().all(|name| name.starts_with("usr/local/")));
        let page = &tree["usr/local/share/man/man8/postgrey.8"].1;
        let page = String::from_utf8_lossy(page);
        assert!(page.contains("/var/db/postgrey") && !page.contains("/spool/postfix/postgrey"));
        for step in [
            "pw groupadd -n postgrey\n",
            "pw useradd -n postgrey -g postgrey -d /var/db/postgrey -s /usr/sbin/nologin\n",
            "    sysrc postgrey_enable=YES\n    /usr/local/sbin/postgrey --check --inet=127.0.0.1:10023\n",
            "{ inet:127.0.0.1:10023, ",
            "service postgrey start\n",
        ] {
            assert!(said.contains(step), "{step}\n--\n{said}");
        }
        let maker = &makers()[0];
        let words = [
            "uninstall",
            "SYSCONFDIR=/usr/local/etc/postfix",
            "DBDIR=/var/db/postgrey",
        ];
        makes(maker, Path::new("target"), root.path(), &words);
        let left: Vec<_> = super::makefile::tree(root.path()).into_keys().collect();
        assert_eq!(left.len(), 6, "{left:?}");
        assert!(left.iter().all(|name| name.contains("/etc/postfix/")));
    }
}

/// The list of the port is what is installed; its configuration files come as
/// samples, which pkg(8) copies where none is.
#[test]
fn the_port_lists_what_is_installed() {
    let list = text("ports/pkg-plist");
    let mut listed = BTreeSet::new();
    for line in list.lines() {
        let name = match line.split_once(' ') {
            Some(("@sample", name)) => name.strip_suffix(".sample").unwrap(),
            Some((word, _)) => {
                assert_eq!(word, "@dir(postgrey,postgrey,0700)");
                continue;
            }
            None => line,
        };
        let name = name.replace("%%DOCSDIR%%", "share/doc/postgrey");
        // man(1) pages are compressed by the framework.
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        assert!(listed.insert(name.to_owned()), "{name}");
    }
    for (_, root) in installed() {
        let found: BTreeSet<String> = tree(root.path())
            .into_keys()
            .map(|name| name.strip_prefix("usr/local/").unwrap().to_owned())
            .collect();
        assert_eq!(found, listed);
    }
    let configs = text("ports/Makefile");
    let configs = configs.split_once("CONFIGS=\t").unwrap().1;
    let configs = configs.split_once("\n\n").unwrap().0.replace('\\', "");
    let samples: Vec<_> = list
        .lines()
        .filter_map(|line| line.strip_prefix("@sample etc/postfix/"))
        .filter_map(|name| name.strip_suffix(".sample"))
        .collect();
    assert_eq!(configs.split_whitespace().collect::<Vec<_>>(), samples);
    let makefile = text("ports/Makefile");
    let version = format!("DISTVERSION=\t{}\n", env!("CARGO_PKG_VERSION"));
    assert!(makefile.contains(&version));
    assert!(text("ports/pkg-descr").lines().all(|line| line.len() < 80));
}

/// The sources of LMDB that cargo has.
fn lmdb() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map_or_else(
        || Path::new(&std::env::var_os("HOME").unwrap_or_default()).join(".cargo"),
        PathBuf::from,
    );
    let found = fs::read_dir(home.join("registry/src"))
        .into_iter()
        .flatten()
        .map(|index| index.unwrap().path())
        .map(|index| index.join("lmdb-rkv-sys-0.11.2/lmdb/libraries/liblmdb"))
        .find(|dir| dir.exists());
    if found.is_none() {
        skip("sources of lmdb-rkv-sys", "rc/lmdb-freebsd.h");
    }
    found
}

/// Where BSD is defined LMDB takes semaphores, which a process that is killed
/// does not give back; with the header in front of its sources, mutexes that
/// are taken back from it. What ARCHITECTURE.md says of both.
#[test]
fn the_header_keeps_the_lock_from_dying_with_its_owner() {
    let Some(gcc) = find_or_skip("gcc", "rc/lmdb-freebsd.h") else {
        return;
    };
    let Some(lmdb) = lmdb() else {
        return;
    };
    let header = file("rc/lmdb-freebsd.h").display().to_string();
    for (flags, said) in [
        (&[][..], "goes on\ngoes on\n"),
        (&["-DBSD=199506"], "waits\ngoes on\n"),
        (&["-DBSD=199506", "-include", &header], "goes on\ngoes on\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("locks");
        let built = run(Command::new(&gcc)
            .args(["-w", "-DMDB_IDL_LOGN=16"])
            .args(flags)
            .arg("-I")
            .arg(&lmdb)
            .arg(file("tests/install/locks.c"))
            .args([lmdb.join("mdb.c"), lmdb.join("midl.c")])
            .args(["-lpthread", "-o"])
            .arg(&program));
        assert_eq!((built.status, built.stderr.as_str()), (0, ""), "{flags:?}");
        let database = dir.path().join("db");
        fs::create_dir(&database).unwrap();
        let done = run(Command::new(&program).arg(&database));
        assert_eq!((done.status, done.stdout.as_str()), (0, said), "{flags:?}");
    }
    let makefile = text("Makefile");
    let uses = makefile.matches("-include `pwd`/rc/lmdb-freebsd.h").count();
    assert_eq!(uses, 2);
}
