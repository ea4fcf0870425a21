//! The init script, `rc/postgrey`, beside a Postfix with traffic: what it
//! says, how it ends, and that a restart by it costs no client a 451.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::faults::under_traffic;
use crate::instance::Service;
use crate::server::{PATIENCE, PROGRAM, free_port, is_alive, make_dbdir, skip};
use crate::smtp::Smtp;
use crate::{Scenario, Stage, check};

const STARTED: &str = "Postgrey has Started\n";
const STOPPED: &str = "Postgrey has Stopped\n";
const START: &str = "Start Postgrey\n";
const STOP: &str = "Stop Postgrey\n";
const RESTART: &str = "Stop Postgrey\nStart Postgrey\n";

pub fn scenarios() -> Vec<Scenario> {
    let policy = free_port();
    vec![Scenario {
        name: "script",
        service: Service::at_rcpt(
            free_port(),
            &format!("check_policy_service inet:127.0.0.1:{policy}"),
        ),
        play: Box::new(move |stage, port| life(stage, port, policy)),
    }]
}

/// The script with settings of its own: everything it touches is in a folder.
struct Script {
    folder: PathBuf,
}

impl Script {
    fn new(folder: &Path, policy: u16) -> Script {
        let dbdir = folder.join("db");
        make_dbdir(&dbdir);
        fs::write(folder.join("none"), "").unwrap();
        let script = Script {
            folder: folder.to_owned(),
        };
        script.set_options(policy, "");
        script
    }

    /// Writes the settings, with these options more.
    fn set_options(&self, policy: u16, more: &str) {
        let place = self.folder.display();
        let settings = format!(
            "POSTGREY={PROGRAM}\n\
             PIDFILE={place}/pid\n\
             SVCS={place}/no-svcs\n\
             POSTGREY_OPTS=\"--dbdir={place}/db --inet=127.0.0.1:{policy} --user=nobody \
             --group=nogroup --workers=2 --delay=3 --whitelist-clients={place}/none \
             --whitelist-recipients={place}/none{more}\"\n"
        );
        fs::write(self.folder.join("defaults"), settings).unwrap();
    }

    /// Runs it to its end: exit status, and what it wrote on stdout and stderr.
    /// Through files, since the server that it leaves behind holds them open.
    fn run(&self, shell: &str, verb: &str) -> (i32, String) {
        let said = self.folder.join("said");
        let file = fs::File::create(&said).unwrap();
        let status = Command::new(shell)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("rc/postgrey"))
            .arg(verb)
            .env("POSTGREY_DEFAULTS", self.folder.join("defaults"))
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .status()
            .unwrap();
        (
            status.code().unwrap_or(-1),
            fs::read_to_string(said).unwrap(),
        )
    }

    fn expect(&self, verb: &str, when: &str, status: i32, words: &str) {
        self.expect_under("sh", verb, when, status, words);
    }

    fn expect_under(&self, shell: &str, verb: &str, when: &str, status: i32, words: &str) {
        let start = Instant::now();
        let got = self.run(shell, verb);
        check(
            got.0 == status && got.1 == words,
            &format!("rc/postgrey {verb} ({when})"),
            format!("{}, {:?}, {:.1?}", got.0, got.1, start.elapsed()),
        );
    }

    fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.folder.join("pid")).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.run("sh", "stop");
    }
}

fn life(stage: &Stage, port: u16, policy: u16) {
    let script = Script::new(&stage.folder("script"), policy);
    script.expect("status", "not started yet", 3, STOPPED);
    script.expect("start", "stopped", 0, START);
    let first = script.pid();
    script.expect("start", "running", 0, STARTED);
    script.expect("status", "running", 0, STARTED);
    script.expect("reload", "running", 0, "Reload Postgrey\n");
    check(
        script.pid() == first && first.is_some_and(is_alive),
        "rc/postgrey: the same server after a second start and reload",
        format!("{first:?}"),
    );
    mistakes(&script, port, policy);
    restarts(&script, port);
    under_traffic(port, "reload by the script", || {
        for _ in 0..5 {
            script.expect("reload", "traffic", 0, "Reload Postgrey\n");
            std::thread::sleep(Duration::from_millis(200));
        }
    });
    script.expect("stop", "running", 0, STOP);
    script.expect("status", "stopped", 3, STOPPED);
    script.expect("stop", "stopped", 0, STOPPED);
    script.expect("reload", "stopped", 7, STOPPED);
    script.expect("restart", "stopped", 0, &format!("{STOPPED}{START}"));
    let mut smtp = Smtp::appear_as(port, "192.0.2.200", "client.example.net");
    let reply = smtp.offer("a@s.example", "last@example.org");
    check(
        reply.code == 450,
        "rc/postgrey: served after all that",
        &reply,
    );
    let (status, words) = script.run("sh", "");
    check(
        status == 1 && words.ends_with("{ start | stop | restart | reload | status }\n"),
        "rc/postgrey: usage",
        format!("{status}, {words:?}"),
    );
    let last = script.pid();
    script.expect("stop", "the end", 0, STOP);
    let start = Instant::now();
    while last.is_some_and(is_alive) && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(10));
    }
    check(
        last.is_some_and(|pid| !is_alive(pid)) && script.pid().is_none(),
        "rc/postgrey: neither a process nor its number is left",
        format!("{last:?}"),
    );
}

/// Settings that the server would not start with: it goes on, and no client
/// notices.
fn mistakes(script: &Script, port: u16, policy: u16) {
    let first = script.pid();
    let said = |verb: &str| {
        format!(
            "Unknown option: delya\npostgrey: no {verb}: the settings are wrong (exit status 1); \
             a server that runs is left alone\n"
        )
    };
    script.set_options(policy, " --delya=5");
    under_traffic(port, "restart with a mistake in the settings", || {
        for verb in ["restart", "reload"] {
            script.expect(verb, "a mistake in the settings", 1, &said(verb));
        }
    });
    script.set_options(policy, "");
    check(
        script.pid() == first && first.is_some_and(is_alive),
        "rc/postgrey: the same server after a mistake in the settings",
        format!("{first:?}"),
    );
}

/// Restarts under traffic, by Debian's shell and by Solaris'.
fn restarts(script: &Script, port: u16) {
    for (shell, path) in [("sh", "/bin/sh"), ("ksh93", "/usr/bin/ksh93")] {
        if !Path::new(path).exists() {
            skip(shell, "restart by rc/postgrey under it");
            continue;
        }
        let before = script.pid();
        under_traffic(
            port,
            &format!("restart by the script under {shell}"),
            || {
                for _ in 0..3 {
                    script.expect_under(path, "restart", &format!("traffic, {shell}"), 0, RESTART);
                    std::thread::sleep(Duration::from_millis(1500));
                }
            },
        );
        let after = script.pid();
        check(
            before != after && after.is_some_and(is_alive),
            &format!("rc/postgrey restart ({shell}): another server"),
            format!("{before:?} {after:?}"),
        );
    }
}
