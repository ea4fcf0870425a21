//! Tables of Postfix as they are: the server says about 1000 names what
//! postmap(1) finds in the table.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use postgrey::policy::s25r::{Exceptions, Verdict, suspicious_rule};

use super::Server;
use super::machine::skip;
use super::random::Random;

/// postmap(1), in `PATH` or where Postfix puts it.
fn find_postmap() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut programs = folders.map(|folder| folder.join("postmap"));
    programs.find(|program| program.exists())
}

/// What is greylisted and what passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Passes,
    Waits,
    /// The table says nothing.
    Nothing,
}

fn data(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/s25r");
    fs::read_to_string(path.join(name)).unwrap()
}

/// 450 lines, as the rules of S25R are used without a policy server.
fn long_table() -> String {
    let mut table = String::new();
    for n in 0..150 {
        writeln!(table, "/^mx{n}-[0-9]+\\.[a-z.]*example\\.[a-z]+$/\tOK").unwrap();
    }
    for n in 0..200 {
        let text = "450 S25R check, be patient";
        writeln!(
            table,
            "/^[^.]*[0-9]\\.(pool|dyn|ppp){n}\\.example\\.(net|org)$/ {text}"
        )
        .unwrap();
    }
    for n in 0..94 {
        writeln!(table, "/^p{n}-ip[a-z]+\\.tokyo\\.example\\.ne\\.jp$/ WARN").unwrap();
    }
    for rule in [
        r"/^unknown$/ 450 reverse lookup failure, be patient",
        r"/^[^.]*[0-9][^0-9.]+[0-9].*\./ 450 S25R check, be patient",
        r"/^[^.]*[0-9]{5}/ 450 S25R check, be patient",
        r"/^([^.]+\.)?[0-9][^.]*\.[^.]+\..+\.[a-z]/ 450 S25R check, be patient",
        r"/^[^.]*[0-9]\.[^.]*[0-9]-[0-9]/ 450 S25R check, be patient",
        r"/^(dhcp|dialup|ppp|[achrsvx]?dsl)[^.]*[0-9]/ 450 S25R check, be patient",
    ] {
        writeln!(table, "{rule}").unwrap();
    }
    assert_eq!(table.lines().count(), 450);
    table
}

/// Names of all kinds, always the same.
fn names() -> Vec<String> {
    let mut numbers = Random::new(25);
    let mut random = |end| numbers.below(end);
    let tails = [
        "example.com",
        "example.net",
        "example.org",
        "example.it",
        "mail.example.com",
        "isp.example",
        "tokyo.example.ne.jp",
        "ppp.example.ne.jp",
        "pool7.example.org",
        "dyn3.example.net",
        "example.br",
        "example.test",
    ];
    let mut names = vec!["unknown".to_owned()];
    while names.len() < 1000 {
        let (a, b, c) = (random(256), random(256), random(100_000));
        let name = match random(20) {
            0 => "mail".to_owned(),
            1 => format!("mx{}-{b}", a % 20),
            2 => format!("smtp{a}"),
            3 => format!("{a}-{b}-{}-7.dynamic", c % 256),
            4 => format!("host{c:05}"),
            5 => format!("dhcp{a}"),
            6 => format!("p{}-iptable", a % 100),
            7 => format!("MX{a}.Line{b}"),
            8 => format!("{:08x}", c * 40_000),
            9 => format!("{a}.line"),
            10 => format!("out-{a}-{b}"),
            11 => "ask.a1".to_owned(),
            12 => format!("Ask.host{a}"),
            13 => "mail.dynamic".to_owned(),
            14 => format!("h{a}.{b}.{}", c % 256),
            15 => format!("line.adsl-{a}"),
            16 => format!("cust-{a}"),
            17 => format!("d{a}.host{b}.x"),
            18 => "www.dyn".to_owned(),
            _ => format!("a{}", b % 10),
        };
        let tail = tails[random(tails.len())];
        names.push(format!("{name}.{tail}"));
    }
    names
}

/// What postmap says about each name; `None` where there is no postmap.
fn ask_postmap(table: &str, names: &[String]) -> Option<Vec<Found>> {
    let Some(postmap) = find_postmap() else {
        skip("postmap", "tables of Postfix as --s25r-except");
        return None;
    };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("main.cf"), "").unwrap();
    fs::write(dir.path().join("table"), table).unwrap();
    let mut child = Command::new(postmap)
        .arg("-c")
        .arg(dir.path())
        .args(["-q", "-"])
        .arg(format!("regexp:{}", dir.path().join("table").display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let asked = names.join("\n") + "\n";
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(asked.as_bytes()));
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    let said = String::from_utf8(done.stdout).unwrap();
    let mut lines = said.lines().peekable();
    let found = names.iter().map(|name| {
        let value = lines.next_if(|line| line.split('\t').next() == Some(name));
        match value.map(|line| line.split('\t').nth(1).unwrap()) {
            None => Found::Nothing,
            Some(value) if value.starts_with("OK") => Found::Passes,
            Some(value) if value.starts_with("DUNNO") => Found::Nothing,
            Some(value) => {
                assert!(value.starts_with(['4', 'W', 'D']), "{value}");
                Found::Waits
            }
        }
    });
    let found = found.collect();
    assert_eq!(lines.next(), None, "all that postmap said is read");
    Some(found)
}

/// Compares the table's verdicts; `rest` decides where it says nothing.
fn compare(table: &str, rest: impl Fn(&str) -> Found) {
    let names = names();
    let Some(said) = ask_postmap(table, &names) else {
        return;
    };
    for kind in [Found::Passes, Found::Waits, Found::Nothing] {
        let count = said.iter().filter(|found| **found == kind).count();
        assert!(count >= 20, "{count} names are {kind:?}");
    }
    let mut exceptions = Exceptions::default();
    let complaints = exceptions.add_file("table", table.as_bytes());
    assert!(complaints.iter().all(|c| !c.fatal), "{complaints:?}");
    let server = Server::start(table);
    for (name, said) in names.iter().zip(said) {
        let wanted = if said == Found::Nothing {
            rest(name)
        } else {
            said
        };
        let (verdict, reason) = exceptions.judge(name.as_bytes(), b"192.0.2.1");
        assert_eq!(
            verdict == Verdict::Ok,
            wanted == Found::Passes,
            "{name}: postmap {said:?}, we {reason:?}"
        );
        let action = server.ask(name, "u@example.org");
        assert_eq!(
            action == "action=DUNNO",
            wanted == Found::Passes,
            "{name}: {action}"
        );
    }
}

fn by_the_rules(name: &str) -> Found {
    match suspicious_rule(name.as_bytes()) {
        Some(_) => Found::Waits,
        None => Found::Passes,
    }
}

#[test]
fn a_table_of_warn_lines_and_one_that_lets_others_in() {
    compare(&data("warn_and_ok"), |_| Found::Waits);
}

#[test]
fn a_table_of_450_lines() {
    compare(&long_table(), by_the_rules);
}

#[test]
fn a_table_with_conditions() {
    compare(&data("conditions"), by_the_rules);
}

/// The table that is installed, whose last line guards against addresses.
#[test]
fn the_table_of_the_project() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/permit_client_nots25r");
    compare(&fs::read_to_string(path).unwrap(), |_| Found::Waits);
}
