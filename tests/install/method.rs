//! `smf/svc-postgrey`, the method, under each shell, with stubs in the place of
//! svcprop(1) and of the server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::properties::{GOOD, WRONG};
use super::{Done, file, run, shells, write_script};

/// What `smf/svc-postgrey` runs in: PATH begins with the stub of svcprop,
/// which shows the files of `props/` as svcprop shows properties.
pub(super) struct Place {
    pub(super) dir: tempfile::TempDir,
    shell: PathBuf,
}

impl Place {
    fn new(shell: &Path) -> Place {
        let dir = tempfile::tempdir().unwrap();
        let shown = dir.path().display();
        fs::create_dir(dir.path().join("props")).unwrap();
        write_script(
            &dir.path().join("svcprop"),
            &format!(
                "#!/bin/sh\n[ \"$1 $3\" = '-p svc:/network/postgrey:default' ] || exit 9\n\
                 [ \"$2\" = config ] && exit 0\nfile='{shown}/props/'${{2#config/}}\n\
                 [ -f \"$file\" ] && cat \"$file\"\n"
            ),
        );
        write_script(
            &dir.path().join("server"),
            "#!/bin/sh\nprintf '%s\\n' \"$@\" \"fmri=$SMF_FMRI\"\n",
        );
        fs::write(
            dir.path().join("include"),
            "SMF_EXIT_ERR_FATAL=95\nsmf_clear_env() { unset SMF_FMRI; }\n",
        )
        .unwrap();
        Place {
            dir,
            shell: shell.to_owned(),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn set(&self, property: &str, shown: &str) {
        fs::write(self.path("props").join(property), format!("{shown}\n")).unwrap();
    }

    fn unset(&self, property: &str) {
        fs::remove_file(self.path("props").join(property)).ok();
    }

    pub(super) fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.shell);
        let path = std::env::var("PATH").unwrap_or_default();
        command
            .arg(file("smf/svc-postgrey"))
            .arg(verb)
            .current_dir("/")
            .env("PATH", format!("{}:{path}", self.dir.path().display()))
            .env("SMF_FMRI", "svc:/network/postgrey:default")
            .env("POSTGREY_SERVER", self.path("server"))
            .env("POSTGREY_PIDFILE", self.path("pid"))
            .env("POSTGREY_SMF_INCLUDE", self.path("include"));
        command
    }

    fn start(&self) -> Done {
        run(&mut self.command("start"))
    }

    /// The options that the server is started with, besides -d, --pidfile and
    /// --inet=1.
    fn options(&self) -> Vec<String> {
        let done = self.start();
        assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{done:?}");
        let mut lines: Vec<String> = done.stdout.lines().map(str::to_owned).collect();
        assert_eq!(lines.pop().unwrap(), "fmri=", "the environment is cleared");
        assert_eq!(lines.remove(0), "-d");
        let pidfile = format!("--pidfile={}", self.path("pid").display());
        assert_eq!(lines.remove(0), pidfile);
        lines.retain(|line| line != "--inet=1");
        lines
    }
}

pub(super) fn under_each_shell(test: impl Fn(&Place)) {
    for shell in shells("smf/svc-postgrey under it") {
        let place = Place::new(&shell);
        place.set("inet", "1");
        test(&place);
    }
}

/// The rows with the first value of each property, those with the second, and
/// so on: the method is run once for each.
fn rounds<'a, T>(rows: &'a [(&'a str, &'a str, T)]) -> Vec<Vec<&'a (&'a str, &'a str, T)>> {
    let mut rounds: Vec<Vec<&(&str, &str, T)>> = Vec::new();
    for row in rows {
        let is_free = |round: &&mut Vec<&(&str, &str, T)>| round.iter().all(|r| r.0 != row.0);
        match rounds.iter_mut().find(is_free) {
            Some(round) => round.push(row),
            None => rounds.push(vec![row]),
        }
    }
    rounds
}

fn sorted<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut lines: Vec<_> = lines.collect();
    lines.sort_unstable();
    lines
}

#[test]
fn each_property_becomes_its_option() {
    under_each_shell(|place| {
        for round in rounds(&GOOD) {
            for (property, shown, _) in &round {
                place.set(property, shown);
            }
            let options = place.options();
            let expected = round.iter().flat_map(|row| row.2.iter().copied());
            assert_eq!(sorted(options.iter().map(String::as_str)), sorted(expected));
            round
                .iter()
                .for_each(|(property, ..)| place.unset(property));
            place.set("inet", "1");
        }
    });
}

#[test]
fn each_bad_value_is_96_and_a_message() {
    under_each_shell(|place| {
        for round in rounds(&WRONG) {
            for (property, shown, _) in &round {
                place.set(property, shown);
            }
            let done = place.start();
            let expected: Vec<String> = round
                .iter()
                .map(|(property, _, why)| format!("svc-postgrey: config/{property}: {why}"))
                .collect();
            assert_eq!(
                sorted(done.stderr.lines()),
                sorted(expected.iter().map(String::as_str))
            );
            assert_eq!((done.status, done.stdout.as_str()), (96, ""));
            round
                .iter()
                .for_each(|(property, ..)| place.unset(property));
            place.set("inet", "1");
        }
        // One is enough.
        place.set("delay", "x");
        assert_eq!(place.start().status, 96);
    });
}

#[test]
fn a_socket_alone_will_do() {
    under_each_shell(|place| {
        place.unset("inet");
        place.set("unix", "/var/spool/postfix/greylist/socket");
        assert_eq!(
            place.options(),
            ["--unix=/var/spool/postfix/greylist/socket"]
        );
        place.unset("unix");
        assert_eq!(place.start().status, 96);
    });
}

#[test]
fn what_is_not_the_properties_fault_is_95_or_99() {
    under_each_shell(|place| {
        let other = run(&mut place.command("stop"));
        assert_eq!(other.status, 95);
        assert!(other.stderr.contains("{ start | refresh }"), "{other:?}");
        let no_smf = run(place.command("start").env_remove("SMF_FMRI"));
        assert_eq!(no_smf.status, 99);
        let no_group = run(place.command("start").env("SMF_FMRI", "svc:/x:y"));
        assert_eq!(no_group.status, 95);
        let no_server = run(place
            .command("start")
            .env("POSTGREY_SERVER", "/nowhere/postgrey"));
        assert_eq!(no_server.status, 95);
        assert_eq!(
            no_server.stderr,
            "svc-postgrey: /nowhere/postgrey is not installed\n"
        );
        write_script(&place.path("server"), "#!/bin/sh\necho no >&2\nexit 11\n");
        let failed = place.start();
        assert_eq!((failed.status, failed.stderr.as_str()), (11, "no\n"));
    });
}

#[test]
fn it_works_without_smf_include() {
    under_each_shell(|place| {
        let done = run(place
            .command("start")
            .env("POSTGREY_SMF_INCLUDE", "/nowhere/include"));
        assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{done:?}");
    });
}
