//! `smf/svc-postgrey`, the method, under each shell, with stubs in the place of
//! svcprop(1) and of the server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Each property, a value as svcprop shows it, and the options it becomes.
pub(super) const GOOD: [(&str, &str, &[&str]); 68] = [
    ("inet", "127.0.0.1:60000", &["--inet=127.0.0.1:60000"]),
    (
        "inet",
        ":60000 [::1]:25 mx.example.com:2 *:3",
        &[
            "--inet=:60000",
            "--inet=[::1]:25",
            "--inet=mx.example.com:2",
            "--inet=*:3",
        ],
    ),
    ("unix", "/a/b\\ c /d", &["--unix=/a/b c", "--unix=/d"]),
    ("socket_mode", "0666", &["--socketmode=0666"]),
    ("socket_mode", "660", &["--socketmode=660"]),
    ("listen_queue_size", "1", &["--listen-queue-size=1"]),
    ("listen_queue_size", "999", &["--listen-queue-size=999"]),
    ("user", "postgrey", &["--user=postgrey"]),
    ("user", "10023", &["--user=10023"]),
    ("group", "nogroup", &["--group=nogroup"]),
    (
        "dbdir",
        "/var/spool/postfix/postgrey",
        &["--dbdir=/var/spool/postfix/postgrey"],
    ),
    ("compat", "targrey-1.37", &["--compat=targrey-1.37"]),
    ("compat", "postgrey-1.37", &["--compat=postgrey-1.37"]),
    ("compat", "targrey-1.34", &["--compat=targrey-1.34"]),
    ("delay", "1", &["--delay=1"]),
    ("delay", "604800", &["--delay=604800"]),
    ("retry_window", "2", &["--retry-window=2"]),
    ("retry_window", "36h", &["--retry-window=36h"]),
    ("max_age", "7", &["--max-age=7"]),
    ("retry_count", "2", &["--retry-count=2"]),
    ("tarpit", "125", &["--tarpit=125"]),
    ("tarpit", "0", &["--tarpit=0"]),
    ("targrey", "true", &["--targrey"]),
    ("targrey", "false", &[]),
    ("tarpit_per_message", "true", &["--tarpit-per-message"]),
    ("tarpit_per_message", "false", &[]),
    ("log_tarpit", "true", &["--log-tarpit"]),
    ("log_tarpit", "false", &[]),
    (
        "auto_whitelist_clients",
        "0",
        &["--auto-whitelist-clients=0"],
    ),
    (
        "auto_whitelist_delay",
        "3600",
        &["--auto-whitelist-delay=3600"],
    ),
    ("lookup", "subnet", &["--lookup-by-subnet"]),
    ("lookup", "host", &["--lookup-by-host"]),
    ("lookup", "domain", &["--lookup-by-domain"]),
    ("ipv4cidr", "32", &["--ipv4cidr=32"]),
    ("ipv6cidr", "128", &["--ipv6cidr=128"]),
    ("max_new", "1000", &["--max-new=1000"]),
    ("privacy", "true", &["--privacy"]),
    (
        "whitelist_clients",
        "/a /b",
        &["--whitelist-clients=/a", "--whitelist-clients=/b"],
    ),
    ("whitelist_recipients", "/r", &["--whitelist-recipients=/r"]),
    ("whitelist_senders", "/s", &["--whitelist-senders=/s"]),
    (
        "greylist_recipients",
        "/a /b",
        &["--greylist-recipients=/a", "--greylist-recipients=/b"],
    ),
    ("suspect_clients", "/s", &["--suspect-clients=/s"]),
    ("s25r", "true", &["--s25r"]),
    ("s25r_except", "/e", &["--s25r-except=/e"]),
    (
        "greylist_action",
        "DEFER_IF_PERMIT",
        &["--greylist-action=DEFER_IF_PERMIT"],
    ),
    (
        "greylist_text",
        "Wait,\\ $HOME\\ *\\ \\`id\\`\\ \\\"%s\\\"\\ \\\\\\ s",
        &["--greylist-text=Wait, $HOME * `id` \"%s\" \\ s"],
    ),
    (
        "x_greylist_header",
        "X-G:\\ %t",
        &["--x-greylist-header=X-G: %t"],
    ),
    ("hostname", "mx.example.com", &["--hostname=mx.example.com"]),
    ("hostname", "\"\"", &[]),
    ("workers", "4", &["--workers=4"]),
    ("sync", "commit", &["--sync=commit"]),
    ("sync", "none", &["--sync=none"]),
    ("db_size", "4G", &["--db-size=4G"]),
    ("store", "lmdb", &["--store=lmdb"]),
    (
        "store",
        "redis-cluster://u@a:7000,[::1]:7001",
        &["--store=redis-cluster://u@a:7000,[::1]:7001"],
    ),
    ("store_password_file", "/w", &["--store-password-file=/w"]),
    ("store_ca_file", "/ca", &["--store-ca-file=/ca"]),
    (
        "store_certificate_file",
        "/c",
        &["--store-certificate-file=/c"],
    ),
    ("store_prefix", "site", &["--store-prefix=site"]),
    ("store_timeout", "200", &["--store-timeout=200"]),
    ("stats_file", "/var/run/s", &["--stats-file=/var/run/s"]),
    ("log_level", "quiet", &["--quiet"]),
    ("log_level", "normal", &[]),
    ("log_level", "verbose", &["--verbose"]),
    ("syslog_facility", "local0", &["--syslog-facility=local0"]),
    ("noaction", "true", &["--noaction"]),
    ("extra_options", "-v --exim", &["-v", "--exim"]),
    ("extra_options", "\"\" --a=b\\ c", &["--a=b c"]),
];

/// Each property, a bad value as svcprop shows it, and what is said about it.
pub(super) const WRONG: [(&str, &str, &str); 71] = [
    ("inet", "smtp", "'smtp' does not end with a port"),
    ("inet", "host:", "'host:' does not end with a port"),
    ("inet", "1:70000", "'1:70000': a port is from 1 to 65535"),
    ("inet", "0", "'0': a port is from 1 to 65535"),
    ("inet", "1 a\\;b:1", "'a;b:1' has no good host"),
    ("inet", "-x:1", "'-x:1' has no good host"),
    ("inet", "[x]:1", "'[x]:1' has no good host"),
    ("inet", "a]:1", "'a]:1' has no good host"),
    (
        "inet",
        "\"\"",
        "one of config/inet and config/unix must be set",
    ),
    ("unix", "socket", "'socket' is no absolute path"),
    ("socket_mode", "0888", "'0888' is no mode such as 0666"),
    ("socket_mode", "1777", "'1777' is no mode such as 0666"),
    ("listen_queue_size", "0", "'0' is no number from 1 to 999"),
    (
        "listen_queue_size",
        "1000",
        "'1000' is no number from 1 to 999",
    ),
    ("user", "-x", "'-x' is no name"),
    ("user", "a\\ b", "'a b' is no name"),
    ("user", "a b", "has more than one value"),
    ("group", "a\\;b", "'a;b' is no name"),
    (
        "dbdir",
        "var/postgrey",
        "'var/postgrey' is no absolute path",
    ),
    ("dbdir", "/a /b", "has more than one value"),
    (
        "compat",
        "1.37",
        "'1.37' is none of: targrey-1.37 postgrey-1.37 targrey-1.34",
    ),
    ("delay", "0", "'0' is no number from 1 to 604800"),
    ("delay", "604801", "'604801' is no number from 1 to 604800"),
    ("delay", "-5", "'-5' is no number from 1 to 604800"),
    ("delay", "5m", "'5m' is no number from 1 to 604800"),
    (
        "delay",
        "99999999999999999999",
        "'99999999999999999999' is no number from 1 to 604800",
    ),
    ("delay", "1 2", "has more than one value"),
    (
        "retry_window",
        "2.5",
        "'2.5' is no number of days, or of hours and 'h'",
    ),
    (
        "retry_window",
        "h",
        "'h' is no number of days, or of hours and 'h'",
    ),
    ("max_age", "0", "'0' is no number from 1 to 3650"),
    ("retry_count", "0", "'0' is no number from 1 to 1000"),
    ("tarpit", "3601", "'3601' is no number from 0 to 3600"),
    ("tarpit_per_message", "on", "'on' is neither true nor false"),
    ("log_tarpit", "1", "'1' is neither true nor false"),
    ("targrey", "yes", "'yes' is neither true nor false"),
    (
        "auto_whitelist_clients",
        "x",
        "'x' is no number from 0 to 1000000",
    ),
    (
        "auto_whitelist_delay",
        "0",
        "'0' is no number from 1 to 604800",
    ),
    ("lookup", "net", "'net' is none of: subnet host domain"),
    ("ipv4cidr", "33", "'33' is no number from 1 to 32"),
    ("ipv6cidr", "0", "'0' is no number from 1 to 128"),
    ("max_new", "many", "'many' is no number from 0 to 1000000"),
    ("privacy", "1", "'1' is neither true nor false"),
    ("whitelist_clients", "/a b", "'b' is no absolute path"),
    ("whitelist_recipients", "r", "'r' is no absolute path"),
    ("whitelist_senders", "s", "'s' is no absolute path"),
    ("greylist_recipients", "/a r", "'r' is no absolute path"),
    ("suspect_clients", "s", "'s' is no absolute path"),
    ("s25r", "on", "'on' is neither true nor false"),
    ("s25r_except", "e", "'e' is no absolute path"),
    ("greylist_action", "A\x01", "has a control character"),
    ("greylist_text", "a\\\nb", "has a value with a line end"),
    ("x_greylist_header", "X\x7f", "has a control character"),
    ("hostname", "mx_1!", "'mx_1!' is no name"),
    ("workers", "0", "'0' is no number from 1 to 64"),
    ("sync", "always", "'always' is none of: commit none"),
    (
        "db_size",
        "4X",
        "'4X' is no number, with K, M or G after it or not",
    ),
    (
        "store",
        "http://u:geheim@a",
        "is neither lmdb nor an address such as redis://HOST",
    ),
    ("store", "redis://a\x01", "has a control character"),
    ("store_password_file", "w", "'w' is no absolute path"),
    ("store_ca_file", "ca", "'ca' is no absolute path"),
    ("store_certificate_file", "c", "'c' is no absolute path"),
    ("store_prefix", "a\x7f", "has a control character"),
    ("store_timeout", "49", "'49' is no number from 50 to 900"),
    ("stats_file", "s", "'s' is no absolute path"),
    (
        "log_level",
        "debug",
        "'debug' is none of: quiet normal verbose",
    ),
    ("syslog_facility", "a\\\"", "'a\"' is no name"),
    ("noaction", "maybe", "'maybe' is neither true nor false"),
    (
        "extra_options",
        "delay",
        "'delay' is no option; write --option=value as one",
    ),
    (
        "extra_options",
        "--",
        "'--' is no option; write --option=value as one",
    ),
    ("extra_options", "--spawn", "'--spawn' cannot be used here"),
    (
        "extra_options",
        "--pidfile=/x",
        "'--pidfile=/x' cannot be used here",
    ),
];

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
