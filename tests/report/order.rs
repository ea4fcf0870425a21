//! Logs in odd orders, from odd places, and at odd times.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::program::Ran;
use super::random::Random;
use super::traffic::{self, Event, START};
use super::{command, report, summary};

/// A line of the server; the client is known by its number.
fn line(time: &str, said: &str, client: u32) -> String {
    format!(
        "{time} mx postgrey[9]: {said}, client_name=unknown, client_address=192.0.{client}.1, \
         sender=a@b.example, recipient=r@here.example\n"
    )
}

const NEW: &str = "action=greylist, reason=new";
const FOUND: &str = "action=pass, reason=triplet found";

/// The summary where the local time is that of this zone.
fn summary_in(zone: &str, words: &[&str], log: &str) -> Value {
    let mut command = command(&[&["--summary", "--json"], words].concat());
    command.env("TZ", zone);
    serde_json::from_str(&Ran::of(command, log.as_bytes()).quiet()).unwrap()
}

#[test]
fn pipes_are_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let texts = [
        ("first", line("2026-11-24T02:00:00Z", NEW, 1)),
        ("second", line("2026-11-24T02:06:00Z", FOUND, 1)),
    ];
    fs::write(path("file"), line("2026-11-24T02:03:00Z", NEW, 2)).unwrap();
    let found = std::thread::scope(|scope| {
        for (name, text) in &texts {
            let fifo = path(name);
            nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
            scope.spawn(move || {
                let mut fifo = fs::File::options().write(true).open(fifo).unwrap();
                fifo.write_all(text.as_bytes())
            });
        }
        let own = command(&["--summary", "--json"]);
        let mut bounded = Command::new("timeout");
        bounded
            .arg("20")
            .arg(own.get_program())
            .args(own.get_args());
        bounded.args(["second", "file", "first"].map(path));
        Ran::of(bounded, b"")
    });
    let found: Value = serde_json::from_str(&found.quiet()).unwrap();
    let total = &found["total"];
    assert_eq!(
        [&total["requests"], &total["put_off"], &total["came_back"]],
        [&json!(3), &json!(2), &json!(1)]
    );
    assert_eq!(total["delay_p50"], 360);
}

#[test]
fn a_log_under_two_names_is_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let (log, link) = (dir.path().join("log"), dir.path().join("link"));
    fs::write(&log, line("2026-11-24T02:00:00Z", NEW, 1)).unwrap();
    std::os::unix::fs::symlink("log", &link).unwrap();
    let [log, link] = [&log, &link].map(|path| path.to_str().unwrap());
    let ran = report(&["--summary", "--csv", log, link, log], b"");
    assert_eq!(
        ran.stderr,
        format!("WARNING: {link} is given twice\nWARNING: {log} is given twice\n")
    );
    assert!(ran.ok().contains("\n2026-11-24,1795478400,1,1,1,1,0,"));
}

/// Requests of a week as lines in their order, with their times.
fn lines() -> Vec<(u64, String)> {
    let events: Vec<Event> = traffic::make(&mut Random::new(7), 3000, 0, false).concat();
    let mut lines = Vec::new();
    for event in &events {
        // Whatever the server said: what counts is that it is said once.
        let said = if event.time % 3 == 0 { FOUND } else { NEW };
        let Event {
            client,
            sender,
            recipient,
            ..
        } = event;
        let text = format!(
            "{} mx postgrey[9]: {said}, client_address={client}, sender={sender}, recipient={recipient}\n",
            traffic::date(event.time)
        );
        lines.push((event.time, text));
    }
    lines.sort();
    lines
}

fn concat(lines: &[(u64, String)]) -> String {
    lines.iter().map(|(_, text)| text.as_str()).collect()
}

#[test]
fn logs_are_put_in_order_whatever_their_order() {
    let lines = lines();
    let expected = summary(&[], concat(&lines).as_bytes());
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: String| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    // A rotation, named from the newest to the oldest, one of them cut by gzip.
    let quarter = lines.len() / 4;
    let names: Vec<String> = (0..4)
        .map(|index| {
            let end = if index == 3 {
                lines.len()
            } else {
                (index + 1) * quarter
            };
            write(
                &format!("mail.log.{}", 4 - index),
                concat(&lines[index * quarter..end]),
            )
        })
        .collect();
    let mut given: Vec<&str> = names.iter().rev().map(String::as_str).collect();
    assert_eq!(summary(&given, b""), expected);
    given.swap(0, 2);
    assert_eq!(summary(&given, b""), expected);
    // Two hosts, each with every other client, in two logs and mixed in one in which
    // lines are late by some seconds.
    let (one, other): (Vec<_>, Vec<_>) = lines
        .iter()
        .cloned()
        .partition(|(_, text)| text.len() % 2 == 0);
    let hosts = [write("one", concat(&one)), write("other", concat(&other))];
    let hosts = hosts.each_ref().map(|name| name.as_str());
    assert_eq!(summary(&hosts, b""), expected);
    let mut late = lines.clone();
    let mut random = Random::new(3);
    late.sort_by_cached_key(|(time, _)| time + random.below(5) as u64);
    assert_ne!(late, lines);
    assert_eq!(summary(&[], concat(&late).as_bytes()), expected);
}

#[test]
fn a_log_whose_parts_are_in_the_wrong_order_is_told() {
    let lines = lines();
    let half = lines.len() / 2;
    let text = concat(&lines[half..]) + &concat(&lines[..half]);
    let found = summary(&[], text.as_bytes());
    assert_eq!(found["lines"]["out_of_order"], half);
    let note = found["notes"][0].as_str().unwrap();
    let start = format!("incomplete: {half} lines are hours earlier than one before them");
    assert!(note.starts_with(&start), "{note}");
    assert_eq!(found["total"]["requests"], lines.len());
}

#[test]
fn the_hour_that_comes_twice_is_told_apart() {
    let at = |time: &str| format!("Oct 25 2026 {time}");
    let log = [
        line(&at("02:50:00"), NEW, 1),
        line(&at("02:10:00"), FOUND, 1),
        line(&at("02:20:00"), NEW, 2),
        line(&at("03:00:00"), FOUND, 2),
        line(&at("03:00:00"), NEW, 3),
        line(&at("03:10:00"), FOUND, 3),
    ];
    let found = summary_in("CET-1CEST,M3.5.0,M10.5.0/3", &[], &log.concat());
    let total = &found["total"];
    assert_eq!(
        [
            &total["delay_p50"],
            &total["delay_p90"],
            &total["came_back"]
        ],
        [&json!(1200), &json!(2400), &json!(3)]
    );
    assert_eq!(found["first"], 1_792_889_400);
    assert_eq!(found["last"], 1_792_889_400 + 3600 + 1200);
    assert_eq!(found["notes"].as_array().unwrap().len(), 1);
}

#[test]
fn a_day_without_a_midnight_has_its_name() {
    // There the clock goes from 23:59 to 01:00.
    let zone = "BRT3BRST,M10.3.0/0,M2.3.0/0";
    let log: String = ["17 23:59:59", "18 01:00:00", "18 12:00:00", "19 00:00:00"]
        .map(|time| line(&format!("Oct {} 2026 {}", &time[..2], &time[3..]), NEW, 1))
        .concat();
    for (by, expected) in [
        ("--by=day", vec!["2026-10-17", "2026-10-18", "2026-10-19"]),
        ("--by=week", vec!["2026-10-12", "2026-10-19"]),
        (
            "--by=hour",
            vec![
                "2026-10-17 23h",
                "2026-10-18 01h",
                "2026-10-18 12h",
                "2026-10-19 00h",
            ],
        ),
    ] {
        let found = summary_in(zone, &[by], &log);
        let periods = found["periods"].as_array().unwrap();
        let names: Vec<&str> = periods
            .iter()
            .map(|one| one["period"].as_str().unwrap())
            .collect();
        assert_eq!(names, expected);
        if by == "--by=day" {
            // 01:00 of a zone 2 hours behind.
            assert_eq!(periods[1]["start"], 1_792_292_400);
        }
    }
}

#[test]
fn what_is_no_text_is_told_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let good = line("2026-11-24T02:00:00Z", NEW, 1);
    for (name, before) in [
        ("octets", &b"\0\0\xff\xfe\n"[..]),
        ("long", &[b'x'; 10 << 20]),
        ("returns", b"\r\n\r\n"),
        ("empty", b""),
    ] {
        let end: &[u8] = if name == "long" { b"\n" } else { b"" };
        fs::write(path(name), [before, end, good.as_bytes()].concat()).unwrap();
        assert_eq!(
            summary(&[&path(name)], b"")["total"]["requests"],
            1,
            "{name}"
        );
    }
    assert!(Path::new(&path("long")).exists());
    // Another form of log, as JSON of the journal, is none that is known.
    let other = summary(&[], b"{\"MESSAGE\":\"action=pass, reason=client AWL\"}\n");
    let note = other["notes"][0].as_str().unwrap();
    assert!(note.starts_with("no line is one of postgrey"), "{note}");
    let packed = Command::new("xz")
        .args(["-k", "--check=sha256", &path("empty")])
        .status();
    match packed.is_ok_and(|status| status.success()) {
        true => {
            let said = report(&["--summary", &path("empty.xz")], b"").failed(2);
            assert!(said.contains("give what xzcat makes of it"), "{said}");
        }
        false => super::machine::skip("xz", "a log packed with SHA-256"),
    }
    let none = dir.path().join("none");
    fs::write(&none, "").unwrap();
    let none = none.to_str().unwrap();
    assert_eq!(summary(&[none], b"")["total"]["requests"], 0);
    assert_eq!(
        summary(&[none, &path("empty")], b"")["total"]["requests"],
        1
    );
    assert_eq!(traffic::date(START), "2026-11-02T00:00:00Z");
}
