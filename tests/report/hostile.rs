//! Whatever a log holds: no line ends the report, and each is counted once.

use std::collections::BTreeMap;

use postgrey::mail_log::head;
use postgrey::mail_log::time::Times;
use postgrey::policy::decide::Whitelists;
use postgrey::policy::pool::Pools;
use postgrey::policy::rules::{Compat, Rules};
use postgrey::report::summary::{Summary, csv, json, text};
use postgrey::report::tally::periods::By;
use postgrey::report::tally::{Tally, Terms};
use proptest::prelude::*;

/// Pieces of which lines are made: those that mean something, and their ends.
const PIECES: &[&str] = &[
    "Nov 24 02:27:10 ",
    "2026-11-24T02:27:10Z ",
    "2026-11-24T02:27:10.1+01:00 ",
    "1700000000.5 ",
    "<22>",
    "1 ",
    "Feb 29 23:59:60 ",
    "9999-12-31T23:59:59Z ",
    "0000-01-01T00:00:00Z ",
    "Dec 31 ",
    "mx ",
    "postgrey[9]: ",
    "postfix/smtpd[7]: ",
    "rsyslogd: ",
    "[ID 1 mail.notice] ",
    "[ID ",
    "4A1B: ",
    "action=greylist",
    "action=pass",
    "action=tarpit",
    "action=",
    ", reason=new",
    ", reason=early-retry (",
    "s missing)",
    ", reason=tarpit passed",
    ", delay=99999999999",
    ", client_name=a.google.com",
    ", client_address=192.0.2.1",
    ", client_address=::1/128",
    ", client_address=",
    ", sender=a@b",
    ", sender=@",
    ", sender=",
    ", recipient=c@d",
    ", recipient=",
    "whitelisted: x[1]",
    "NOQUEUE: reject: RCPT from u[192.0.2.1]: 450 ",
    "NOQUEUE: reject: ",
    "Greylisted; ",
    " from=<a@b> to=<c@d> ",
    "Greylisted; from=<a@b> to=<c@d> proto=ESMTP helo=<x>",
    " from=<\"a\\\"> b\"@c> to=<",
    " from=<",
    " to=<",
    ">",
    "[",
    "]",
    "message repeated 3 times: [ ",
    "last message repeated 99999999999999999999 times",
    "last message repeated 2 times",
    " lost 5 messages",
    "Suppressed ",
    ",",
    ": ",
    " ",
    "=",
    "\u{feff}",
    "é",
    "\0",
];

fn line() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        9 => prop::sample::select(PIECES).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>().prop_filter("a line", |octet| *octet != b'\n'), 0..9),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_line_ends_the_report(lines in prop::collection::vec(line(), 0..60), by in 0_usize..3, is_old in any::<bool>()) {
        let compat = if is_old { Compat::Targrey134 } else { Compat::Targrey137 };
        let mut tally = Tally::new(Terms {
            by: [By::Hour, By::Day, By::Week][by],
            rules: Rules { compat, by_domain: !is_old, ..Rules::default() },
            lists: Whitelists { pools: (!is_old).then(Pools::default), ..Whitelists::new(compat) },
            pools: Pools::default(),
            greylist_text: regex::bytes::Regex::new("Greylisted").unwrap(),
        })
        .with_hours();
        let mut times = Times::new(1_800_000_000);
        for (index, line) in lines.iter().enumerate() {
            tally.add(&head::split(&mut times, line), index % 2);
        }
        let summary = Summary::new(&mut tally);
        prop_assert_eq!(summary.lines.read, lines.len() as u64);
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for row in &summary.rows {
            *sums.entry("requests").or_default() += row.requests();
            *sums.entry("put off").or_default() += row.put_off;
            prop_assert!(row.sums.waited <= row.sums.held);
        }
        prop_assert_eq!(sums.get("requests").copied().unwrap_or(0), summary.total.requests());
        prop_assert_eq!(sums.get("put off").copied().unwrap_or(0), summary.total.put_off);
        prop_assert!(summary.total.came_back() <= summary.total.put_off);
        let shown = text::lines(&summary).join("\n");
        prop_assert!(shown.bytes().all(|octet| octet == b'\n' || (b' '..=b'~').contains(&octet)));
        prop_assert_eq!(csv::lines(&summary).len(), summary.rows.len() + 1);
        prop_assert!(json::value(&summary)["total"].is_object());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_line_ends_the_report_of_the_original(lines in prop::collection::vec(line(), 500)) {
        let ran = super::report(&["--show_tries", "--nosingle_line", "--skip_pool"], &lines.join(&b'\n'));
        prop_assert_eq!(ran.status, 0, "{}", ran.stderr);
    }
}

#[test]
fn addresses_of_any_length_are_told() {
    let long = "r".repeat(700);
    for (sender, recipient) in [("a@b", &long[..]), (&long, "c@d"), (&long, &long)] {
        let log = format!(
            "Nov  4 02:00:00 mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from a.example[192.0.2.10]: 450 4.2.0 \
             <{recipient}>: Recipient address rejected: Greylisted; from=<{sender}> to=<{recipient}> proto=ESMTP helo=<x>\n"
        );
        let told = super::report(&["--tab"], log.as_bytes()).ok();
        assert!(told.ends_with(&format!("\t{recipient}\n")), "{told}");
        let found = super::summary(&[], log.as_bytes());
        assert_eq!(found["total"]["requests"], 1);
    }
}

#[test]
fn answers_of_any_kind_cost_no_more_than_some() {
    let mut log = String::new();
    for kind in 0..20_000 {
        log.push_str(&format!(
            "2026-11-24T02:27:10Z mx postgrey[9]: action=a{kind}, reason=b{kind}, client_address=192.0.2.1\n"
        ));
    }
    let found = super::summary(&[], log.as_bytes());
    let answers = found["total"]["answers"].as_object().unwrap();
    assert_eq!(answers.len(), 101);
    assert_eq!(answers["(other)"]["(other)"], 19_900);
    assert_eq!(found["total"]["requests"], 20_000);
}

#[test]
fn lines_that_the_log_has_lost_are_counted() {
    for (line, lost) in [
        (
            "rsyslogd: imuxsock lost 7 messages from pid 9 due to rate-limiting",
            7,
        ),
        (
            "rsyslogd-2177: imjournal: 236 messages lost due to rate-limiting",
            236,
        ),
        (
            "rsyslogd: imuxsock[pid: 57, name: /usr/sbin/postgrey]: 12 messages lost due to rate-limiting (20 allowed within 5 seconds)",
            12,
        ),
        ("systemd-journal[1864]: Suppressed 917 messages from /", 917),
        (
            "systemd-journald[1]: Suppressed 3 messages from postgrey.service",
            3,
        ),
        ("rsyslogd: 5 messages", 0),
        ("rsyslogd: messages", 0),
        ("postfix/smtpd[9]: lost 7 messages", 0),
    ] {
        let found = super::summary(&[], format!("Nov 24 02:27:10 mx {line}\n").as_bytes());
        assert_eq!(found["lines"]["lost"], lost, "{line}");
    }
}

#[test]
fn a_time_that_no_clock_has_had_is_none() {
    for time in [
        "9999-12-31T23:59:59Z",
        "1969-12-31T23:59:59Z",
        "0000-01-01T00:00:00Z",
    ] {
        let line = format!(
            "{time} mx postgrey[9]: action=greylist, reason=new, client_address=192.0.2.1\n"
        );
        let found = super::summary(&[], line.as_bytes());
        assert_eq!(
            (&found["lines"]["without_time"], &found["total"]["requests"]),
            (&1.into(), &0.into()),
            "{time}"
        );
    }
}
