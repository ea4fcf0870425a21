//! What reads the counters of the server, and what sends the summary each morning.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicU64;

use postgrey::server::counters::{Counter, Counters};
use regex::Regex;

use super::common_server::test_dir;
use super::machine::skip;
use super::random::Random;
use super::{million, traffic};

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap()
}

/// What a server writes to its `--stats-file`.
fn statistics() -> String {
    let cells: &'static [AtomicU64; Counter::COUNT] =
        Box::leak(Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
    let counters = Counters::new(cells, &[]);
    counters.add(Counter::PassTriplet, 7);
    counters.add(Counter::Tarpitted, 12);
    counters.prometheus()
}

#[test]
fn the_counters_that_are_asked_for_are_there() {
    let statistics = statistics();
    let names: BTreeSet<&str> = statistics
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split([' ', '{']).next())
        .collect();
    let asked = Regex::new(r"postgrey_[a-z0-9_]+_total").unwrap();
    for name in ["rc/postgrey.rules.yml", "rc/postgrey.rules.test.yml"] {
        let text = text(name);
        let found: BTreeSet<&str> = asked.find_iter(&text).map(|found| found.as_str()).collect();
        assert!(found.len() >= 4);
        for name in found {
            assert!(names.contains(name), "{name}");
        }
    }
}

#[test]
fn the_plugin_of_munin_tells_the_counters() {
    let dir = tempfile::tempdir().unwrap();
    let stats = dir.path().join("postgrey.prom");
    let plugin = |words: &[&str]| {
        let mut command = Command::new("sh");
        command
            .arg(file("rc/postgrey.munin"))
            .args(words)
            .env("stats_file", &stats);
        let output = command.output().unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(plugin(&["autoconf"]).starts_with("no ("));
    assert!(plugin(&[]).lines().all(|line| line.ends_with(".value U")));
    fs::write(&stats, statistics()).unwrap();
    assert_eq!(plugin(&["autoconf"]), "yes\n");
    let values = plugin(&[]);
    assert!(
        values.contains("triplet.value 7\n") && values.contains("tarpitted.value 12\n"),
        "{values}"
    );
    // A counter that is not there has no number.
    assert!(!values.contains(".value U"), "{values}");
    let file = fs::File::options().write(true).open(&stats).unwrap();
    let days = std::time::Duration::from_secs(2 * 86_400);
    file.set_modified(std::time::SystemTime::now() - days)
        .unwrap();
    assert!(plugin(&[]).lines().all(|line| line.ends_with(".value U")));
    let config = plugin(&["config"]);
    for line in values.lines() {
        let field = line.split('.').next().unwrap();
        assert!(config.contains(&format!("\n{field}.label ")), "{field}");
        assert!(
            config.contains(&format!("\n{field}.type DERIVE\n")),
            "{field}"
        );
    }
}

#[test]
fn the_alert_rules_are_in_order() {
    for (word, name) in [
        ("check", "rc/postgrey.rules.yml"),
        ("test", "rc/postgrey.rules.test.yml"),
    ] {
        let Ok(output) = Command::new("promtool")
            .args([word, "rules"])
            .arg(file(name))
            .output()
        else {
            return skip("promtool", "alert rules for Prometheus");
        };
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn the_units_are_in_order_and_send_a_mail() {
    let dir = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_postgreyreport");
    let unit = text("rc/postgreyreport.service").replace("/usr/local/bin/postgreyreport", program);
    fs::write(dir.path().join("postgreyreport.service"), &unit).unwrap();
    fs::write(
        dir.path().join("postgreyreport.timer"),
        text("rc/postgreyreport.timer"),
    )
    .unwrap();
    match Command::new("systemd-analyze")
        .arg("verify")
        .arg(dir.path().join("postgreyreport.timer"))
        .output()
    {
        Ok(output) => assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        ),
        Err(_) => skip("systemd-analyze", "rc/postgreyreport.timer"),
    }
    // The command itself, with a journal and a sendmail of our own.
    let command = unit.split_once("ExecStart=/bin/sh -c '").unwrap().1;
    let command = command.rsplit_once('\'').unwrap().0.replace("\\\n", " ");
    let command = command
        .replace("/usr/sbin/sendmail", "cat #")
        .replace("journalctl ", "sh -c 'cat journal' ");
    fs::write(
        dir.path().join("journal"),
        "__REALTIME_TIMESTAMP=1700000000000000\nSYSLOG_IDENTIFIER=postgrey\nMESSAGE=action=pass, reason=client AWL, client_address=192.0.2.1\n\n",
    )
    .unwrap();
    let output = Command::new("sh")
        .args(["-ec", &command])
        .current_dir(dir.path())
        .output()
        .unwrap();
    let mail = String::from_utf8(output.stdout).unwrap();
    assert!(
        mail.starts_with("To: root\nSubject: greylisting on "),
        "{mail}"
    );
    assert!(mail.contains("\n\n1 requests, "), "{mail}");
}

#[test]
fn the_line_of_cron_is_a_command_that_works() {
    let cron = text("rc/postgreyreport.cron");
    let line = cron.lines().last().unwrap();
    let mut fields = line.splitn(7, ' ');
    let times: Vec<&str> = fields.by_ref().take(5).collect();
    assert_eq!(times, ["5", "7", "*", "*", "*"]);
    assert_eq!(fields.next(), Some("root"));
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("mail.log"), "").unwrap();
    let command = fields
        .next()
        .unwrap()
        .replace(
            "/usr/local/bin/postgreyreport",
            env!("CARGO_BIN_EXE_postgreyreport"),
        )
        .replace("/var/log/", &format!("{}/", dir.path().display()));
    let output = Command::new("sh").args(["-ec", &command]).output().unwrap();
    assert!(
        output.status.success() && output.stdout.starts_with(b"No requests.\n"),
        "{output:?}"
    );
}

#[test]
fn logwatch_counts_every_line_of_the_server() {
    if Command::new("logwatch").arg("--version").output().is_err() {
        return skip("logwatch", "the lines of the server");
    }
    let dir = test_dir();
    let logs = dir.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let log = logs.join("mail.log");
    let clients = traffic::make(&mut Random::new(1), 400, 0, true);
    let options = ["--targrey", "--tarpit=125", "--log-tarpit"];
    million::play(&dir.path().join("server"), &options, clients, &log);
    let text = fs::read_to_string(&log).unwrap();
    // It knows syslog's own times.
    let short = Regex::new(r"(?m)^2026-11-(\d\d)T([0-9:]+)Z").unwrap();
    let text = short.replace_all(&text, "Nov $1 $2").into_owned();
    for kind in [
        "action=tarpit, ",
        "reason=tarpit passed, ",
        "reason=early-retry (",
        "tarpit whitelisted: ",
        "reason=client AWL, ",
    ] {
        assert!(text.contains(kind), "{kind}");
    }
    let watch = |text: &str| {
        fs::write(&log, text).unwrap();
        let output = Command::new("logwatch")
            .arg("--logdir")
            .arg(&logs)
            .args([
                "--range",
                "all",
                "--service",
                "postfix",
                "--output",
                "stdout",
                "--detail",
                "low",
            ])
            .env("LC_ALL", "C")
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let told = watch(&text);
    let counted = told
        .lines()
        .find(|line| line.contains("   Postgrey"))
        .unwrap_or_default();
    let counted: usize = counted
        .split_whitespace()
        .next()
        .unwrap_or("0")
        .parse()
        .unwrap();
    assert_eq!(counted, text.lines().count(), "{told}");
    assert!(!told.contains("Unmatched"), "{told}");
    // It would say so.
    assert!(
        watch(&(text + "Nov  4 10:00:00 mx postgrey[99]: something else\n")).contains("Unmatched")
    );
}
