//! `rc/postgrey`, the init script, with a stub in the place of the server and
//! under each shell; and `rc/postgrey.service`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Done, file, find_or_skip, run, shells, skip, text, write_script};

/// The options of the first user's script.
const OPTIONS: [&str; 9] = [
    "-d",
    "--dbdir=/var/spool/postfix/postgrey",
    "--inet=127.0.0.1:60000",
    "--tarpit=125",
    "--targrey",
    "--retry-count=2",
    "--delay=300",
    "--max-age=7",
    "--log-tarpit",
];

/// A directory with the stub and the settings that make the script use it.
struct Place {
    dir: tempfile::TempDir,
    shell: PathBuf,
}

impl Place {
    fn new(shell: &Path) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let stub = fs::read_to_string(file("tests/install/stub-server")).unwrap();
        write_script(&dir.path().join("postgrey"), &stub);
        let place = Place {
            dir,
            shell: shell.to_owned(),
        };
        place.set_defaults("");
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn set_defaults(&self, more: &str) {
        let dir = self.dir.path().display();
        let lines = format!(
            "POSTGREY={dir}/postgrey\nPIDFILE={dir}/pid\nSTOP_TIMEOUT=20\nSVCS={dir}/svcs\n{more}"
        );
        fs::write(self.path("defaults"), lines).unwrap();
    }

    fn script(&self, verb: &str) -> Done {
        run(Command::new(&self.shell)
            .arg(file("rc/postgrey"))
            .arg(verb)
            .env("POSTGREY_DEFAULTS", self.path("defaults")))
    }

    /// Runs the script and checks all that it says.
    fn expect(&self, verb: &str, status: i32, stdout: &str) {
        let done = self.script(verb);
        let shell = self.shell.display();
        assert_eq!(done.stdout, stdout, "{shell} {verb}: {done:?}");
        assert_eq!(done.status, status, "{shell} {verb}: {done:?}");
        assert_eq!(done.stderr, "", "{shell} {verb}");
    }

    fn args(&self) -> Vec<String> {
        let text = fs::read_to_string(self.path("args")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn pid(&self) -> String {
        fs::read_to_string(self.path("pid")).unwrap()
    }
}

impl Drop for Place {
    /// Ends the stubs that a failed test has left. Each had a number of its
    /// own; one that is gone has taken its name with it.
    fn drop(&mut self) {
        super::end_stubs(&self.path("pids"));
    }
}

/// Runs a test under each shell that is there.
fn under_each_shell(test: impl Fn(&Place)) {
    if find_or_skip("ps", "rc/postgrey").is_none() {
        return;
    }
    for shell in shells("rc/postgrey under it") {
        test(&Place::new(&shell));
    }
}

#[test]
fn a_life_from_start_to_stop() {
    under_each_shell(|place| {
        place.expect("status", 3, "Postgrey has Stopped\n");
        place.expect("start", 0, "Start Postgrey\n");
        let first = place.pid();
        place.expect("start", 0, "Postgrey has Started\n");
        place.expect("status", 0, "Postgrey has Started\n");
        assert_eq!(place.pid(), first);

        place.expect("reload", 0, "Reload Postgrey\n");
        super::wait_until("no HUP", || place.path("hup").exists());
        assert_eq!(place.pid(), first);

        place.expect("restart", 0, "Stop Postgrey\nStart Postgrey\n");
        assert_ne!(place.pid(), first);
        place.expect("force-reload", 0, "Stop Postgrey\nStart Postgrey\n");

        place.expect("stop", 0, "Stop Postgrey\n");
        assert!(place.path("ended").exists(), "stop waits for the end");
        place.expect("status", 3, "Postgrey has Stopped\n");
        place.expect("stop", 0, "Postgrey has Stopped\n");
        place.expect("reload", 7, "Postgrey has Stopped\n");
        place.expect("restart", 0, "Postgrey has Stopped\nStart Postgrey\n");
        place.expect("stop", 0, "Stop Postgrey\n");
    });
}

#[test]
fn the_options_are_those_of_the_first_user() {
    under_each_shell(|place| {
        place.expect("start", 0, "Start Postgrey\n");
        let mut args = place.args();
        let pidfile = format!("--pidfile={}", place.path("pid").display());
        assert_eq!(args.remove(1), pidfile);
        assert_eq!(args, OPTIONS);
        place.expect("stop", 0, "Stop Postgrey\n");
    });
    assert!(text("rc/postgrey").contains("PIDFILE=/var/run/postgrey.pid\n"));
    let joined = OPTIONS[1..].join(" ");
    assert!(text("rc/postgrey.default").contains(&joined));
    assert!(text("rc/postgrey.service").contains(&joined));
    assert!(
        text("conf/main.cf.example")
            .contains("--retry-count=2 --delay=300 --max-age=7 --log-tarpit")
    );
}

#[test]
fn the_defaults_file_decides() {
    under_each_shell(|place| {
        let other = place.path("other.pid");
        for form in ["--pidfile=", "--pidfile "] {
            place.set_defaults(&format!(
                "POSTGREY_OPTS=\"--inet=*:1 {form}{} -v\"\nPOSTGREY_TEXT='Wait,  %s * seconds'\n",
                other.display()
            ));
            let done = run(Command::new(&place.shell)
                .arg(file("rc/postgrey"))
                .arg("start")
                .current_dir("/")
                .env("POSTGREY_DEFAULTS", place.path("defaults")));
            assert_eq!(done.status, 0, "{done:?}");
            let args = place.args();
            assert_eq!(args[1], format!("--pidfile={}", other.display()));
            assert_eq!(args[2], "--greylist-text=Wait,  %s * seconds");
            assert_eq!(args[3], "--inet=*:1");
            assert_eq!(args.last().unwrap(), "-v");
            place.expect("status", 0, "Postgrey has Started\n");
            place.expect("stop", 0, "Stop Postgrey\n");
        }
    });
}

#[test]
fn a_server_that_fails_speaks_for_itself() {
    under_each_shell(|place| {
        fs::write(place.path("fail"), "ERROR: No such user \"x\"\n").unwrap();
        for verb in ["start", "restart"] {
            let done = place.script(verb);
            assert_eq!(done.status, 3, "{verb}: {done:?}");
            assert!(!done.stdout.contains("Start Postgrey"), "{done:?}");
            assert_eq!(
                done.stderr,
                "ERROR: No such user \"x\"\npostgrey: not started (exit status 3)\n"
            );
        }
        fs::remove_file(place.path("postgrey")).unwrap();
        let done = place.script("start");
        assert_eq!(done.status, 5, "{done:?}");
        assert!(done.stderr.ends_with("/postgrey is not installed\n"));
    });
}

/// What is wrong is said before anything is done to the server that runs.
#[test]
fn settings_that_are_wrong_stop_nothing() {
    under_each_shell(|place| {
        place.expect("start", 0, "Start Postgrey\n");
        let first = place.pid();
        fs::write(place.path("bad"), "Unknown option: delya\n").unwrap();
        for (verb, said) in [
            ("restart", "restart"),
            ("force-reload", "restart"),
            ("reload", "reload"),
        ] {
            let done = place.script(verb);
            assert_eq!((done.status, done.stdout.as_str()), (1, ""), "{done:?}");
            assert_eq!(
                done.stderr,
                format!(
                    "Unknown option: delya\npostgrey: no {said}: the settings are wrong \
                     (exit status 1); a server that runs is left alone\n"
                )
            );
            place.expect("status", 0, "Postgrey has Started\n");
            assert_eq!(place.pid(), first, "{verb}");
            assert!(!place.path("ended").exists() && !place.path("hup").exists());
        }
        // It was asked about what would be started.
        let mut checked = fs::read_to_string(place.path("checked")).unwrap();
        assert!(checked.starts_with("--check\n"));
        checked.drain(.."--check\n".len());
        assert_eq!(checked, fs::read_to_string(place.path("args")).unwrap());
        // Nor is a server stopped that could not be started again.
        fs::remove_file(place.path("bad")).unwrap();
        fs::rename(place.path("postgrey"), place.path("away")).unwrap();
        let done = place.script("restart");
        assert_eq!((done.status, done.stdout.as_str()), (5, ""), "{done:?}");
        fs::rename(place.path("away"), place.path("postgrey")).unwrap();
        place.expect("restart", 0, "Stop Postgrey\nStart Postgrey\n");
        assert_ne!(place.pid(), first);
        place.expect("stop", 0, "Stop Postgrey\n");
    });
}

/// The server may not remove it in a directory of root.
#[test]
fn a_pid_file_that_is_left_is_removed() {
    under_each_shell(|place| {
        fs::write(place.path("keep"), "").unwrap();
        place.expect("start", 0, "Start Postgrey\n");
        place.expect("stop", 0, "Stop Postgrey\n");
        assert!(!place.path("pid").exists());
        place.expect("status", 3, "Postgrey has Stopped\n");
    });
}

#[test]
fn a_pid_file_of_something_else_is_not_believed() {
    under_each_shell(|place| {
        // This test's own number: alive, but no postgrey.
        let mine = std::process::id().to_string();
        for stale in ["0", "1", "-1", "abc", "12x", mine.as_str(), "1\n2\n"] {
            fs::write(place.path("pid"), stale).unwrap();
            place.expect("stop", 0, "Postgrey has Stopped\n");
            place.expect("reload", 7, "Postgrey has Stopped\n");
            place.expect("status", 1, "Postgrey has Stopped\n");
        }
        fs::write(place.path("pid"), "").unwrap();
        place.expect("stop", 0, "Postgrey has Stopped\n");
        place.expect("status", 3, "Postgrey has Stopped\n");
        place.expect("start", 0, "Start Postgrey\n");
        place.expect("stop", 0, "Stop Postgrey\n");
    });
}

#[test]
fn a_server_that_does_not_hear_is_killed_in_the_end() {
    under_each_shell(|place| {
        fs::write(place.path("deaf"), "").unwrap();
        place.set_defaults("STOP_TIMEOUT=1\n");
        place.expect("start", 0, "Start Postgrey\n");
        let done = place.script("stop");
        assert_eq!(done.status, 0, "{done:?}");
        assert_eq!(done.stdout, "Stop Postgrey\n");
        assert!(done.stderr.contains("still there after 1 seconds: killed"));
        place.expect("status", 3, "Postgrey has Stopped\n");
    });
}

#[test]
fn smf_and_the_script_do_not_both_run_it() {
    under_each_shell(|place| {
        let say = |state: &str| {
            let stub = format!(
                "#!/bin/sh\n[ \"$*\" = '-H -o state svc:/network/postgrey:default' ] || exit 9\n\
                 echo '{state}'\n"
            );
            write_script(&place.path("svcs"), &stub);
        };
        for state in ["online", "online*", "degraded", "offline*"] {
            say(state);
            for (verb, instead) in [
                ("start", "enable"),
                ("stop", "disable"),
                ("restart", "restart"),
                ("reload", "refresh"),
            ] {
                let done = place.script(verb);
                assert_eq!((done.status, done.stdout.as_str()), (1, ""), "{state}");
                let wanted = format!("is online: use svcadm(1M) {instead}\n");
                assert!(done.stderr.ends_with(&wanted), "{done:?}");
            }
            place.expect("status", 0, "Postgrey has Started\n");
        }
        for state in ["disabled", "offline", "maintenance", "uninitialized"] {
            say(state);
            place.expect("start", 0, "Start Postgrey\n");
            place.expect("stop", 0, "Stop Postgrey\n");
        }
        assert!(place.args().contains(&"--targrey".to_owned()));
    });
}

#[test]
fn other_words_get_the_usage_line() {
    under_each_shell(|place| {
        for verb in ["", "begin"] {
            let usage = format!(
                "Usage: {} {{ start | stop | restart | reload | status }}\n",
                file("rc/postgrey").display()
            );
            place.expect(verb, 1, &usage);
        }
    });
}

#[test]
fn insserv_finds_its_header() {
    let script = text("rc/postgrey");
    let header = script
        .split_once("### BEGIN INIT INFO\n")
        .and_then(|(_, rest)| rest.split_once("### END INIT INFO\n"))
        .unwrap()
        .0;
    for field in [
        "Provides:          postgrey",
        "Required-Start:",
        "Required-Stop:",
        "Default-Start:     2 3 4 5",
        "Default-Stop:      0 1 6",
        "Short-Description:",
    ] {
        assert!(header.contains(&format!("# {field}")), "{field}");
    }
}

#[test]
fn the_unit_is_valid_and_sandboxed() {
    let Some(analyze) = find_or_skip("systemd-analyze", "rc/postgrey.service") else {
        return;
    };
    // The one of the package lets root bind sockets anywhere.
    for (name, most) in [("rc", 2.0), ("deb", 3.0)] {
        let unit = file(&format!("{name}/postgrey.service"));
        let verify = run(Command::new(&analyze)
            .args(["verify", "--man=no"])
            .arg(&unit));
        assert_eq!(
            (
                verify.status,
                verify.stdout.as_str(),
                verify.stderr.as_str()
            ),
            (0, "", "")
        );
        let security = run(Command::new(&analyze)
            .args(["security", "--offline=true", "--no-pager"])
            .arg(&unit));
        if security.stderr.contains("unrecognized option") {
            skip("systemd-analyze security --offline", "the sandbox");
            return;
        }
        let level = security
            .stdout
            .lines()
            .find_map(|line| line.split_once("postgrey.service: "))
            .unwrap_or_else(|| panic!("{security:?}"))
            .1;
        let level: f64 = level.split(' ').next().unwrap().parse().unwrap();
        assert!(level <= most, "{name}: exposure {level}");
    }
}

/// What systemd makes of the command line of the unit.
#[test]
fn the_unit_leaves_an_empty_text_out() {
    let unit = text("rc/postgrey.service");
    let command = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart=/bin/sh -c '"))
        .and_then(|rest| rest.strip_suffix('\''))
        .unwrap()
        .replace("$$", "$")
        .replace("exec /usr/local/sbin/postgrey", "printf '<%s>'");
    let shell = |text: &str| {
        run(Command::new("sh")
            .args(["-c", &command])
            .current_dir("/")
            .env("POSTGREY_OPTS", "--inet=*:1  -v")
            .env("POSTGREY_TEXT", text))
        .stdout
    };
    assert_eq!(shell(""), "<--inet=*:1><-v>");
    assert_eq!(
        shell("Wait * %s"),
        "<--inet=*:1><-v><--greylist-text=Wait * %s>"
    );
}
