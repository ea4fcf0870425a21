//! The programs of others that read our log lines and replies: what each of
//! them looks for is found in what we write. The patterns are facts about
//! these programs, written down anew.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/server.rs"]
mod server;

use std::fs;

use nix::sys::signal::Signal;
use regex::Regex;
use server::{Server, test_dir};

/// A log with every line that a server writes in a normal day.
fn log_of_a_day() -> (String, Vec<String>) {
    let dir = test_dir();
    let list = dir.path().join("list");
    fs::write(&list, "white.example\n").unwrap();
    let recipients = dir.path().join("recipients");
    fs::write(&recipients, "postmaster@\n").unwrap();
    let options = [
        format!("--whitelist-clients={}", list.display()),
        format!("--whitelist-recipients={}", recipients.display()),
        "--auto-whitelist-clients=1".to_string(),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut server = Server::start(dir.path(), &options);
    let mut client = server.connect();
    client.send(b"<<EOF\n");
    let mut replies = Vec::new();
    let mut ask = |attributes: &[(&str, &str)]| replies.push(client.ask(attributes));
    ask(&[
        ("policy_test_time", "1700000000"),
        ("queue_id", "4WXYZ1"),
        ("instance", "a"),
    ]);
    ask(&[("policy_test_time", "1700000001")]);
    ask(&[("policy_test_time", "1700000300"), ("instance", "b")]);
    ask(&[("policy_test_time", "1700000301")]);
    ask(&[("client_name", "mx.white.example")]);
    ask(&[
        ("client_address", "192.0.2.7"),
        ("recipient", "postmaster@example.org"),
    ]);
    ask(&[("client_address", "198.51.100.1"), ("sender", "")]);
    // A triplet that passed before its client was known.
    ask(&[
        ("client_address", "203.0.113.1"),
        ("sender", "x@y.example"),
        ("policy_test_time", "1700000000"),
    ]);
    ask(&[
        ("client_address", "203.0.113.1"),
        ("sender", "x@y.example"),
        ("policy_test_time", "1700000400"),
    ]);
    client.send(b"request=junk\n\n");
    server.signal(Signal::SIGHUP);
    server.wait_for_log("HUP received", 1);
    assert!(server.stop().success());
    (server.log_text(), replies)
}

#[test]
fn log_analysers_find_what_they_look_for() {
    let (log, replies) = log_of_a_day();
    let has = |who: &str, pattern: &str| {
        let regex = Regex::new(&format!("(?m){pattern}")).unwrap();
        assert!(
            regex.is_match(&log),
            "{who} does not find {pattern} in\n{log}"
        );
    };
    // logwatch: the action with optional queue id, delay, sender, recipient.
    has(
        "logwatch",
        r"^(?:[0-9A-Za-z]+: )?action=(.*?), reason=(.*?)(?:, delay=\d+)?, client_name=(.*?), client_address=(.*?)(?:, sender=(.*?))?(?:, recipient=(.*))?$",
    );
    has(
        "logwatch",
        r"^4WXYZ1: action=greylist, reason=new, client_name=",
    );
    has(
        "logwatch",
        r"^whitelisted: mail\.example\.com\[192\.0\.2\.91\]$",
    );
    has("logwatch", r"^ignoring garbage: <<<EOF>$");
    has("logwatch", r"^unrecognized request type: 'junk'$");
    has(
        "logwatch",
        r"^\d{4}/\d\d/\d\d-\d\d:\d\d:\d\d postgrey .* starting! pid\(\d+\)$",
    );
    has("logwatch", r"^Binding to ");
    has(
        "logwatch",
        r"^\d{4}/\d\d/\d\d-\d\d:\d\d:\d\d Server closing!$",
    );
    // Monitorix: fixed texts, the last comma and blank included.
    for text in [
        "action=greylist, reason=new, ",
        "action=greylist, reason=early-retry ",
        "action=pass, reason=triplet found, ",
        "action=pass, reason=client whitelist",
        "action=pass, reason=client AWL",
    ] {
        assert!(
            log.contains(text),
            "Monitorix does not find {text:?} in\n{log}"
        );
    }
    // munin: the action and the beginning of the reason.
    has("munin", r"action=greylist.*reason=new");
    has("munin", r"action=greylist.*reason=early-retry");
    has("munin", r"action=pass.*reason=triplet");
    has("munin", r"action=pass.*reason=client");
    // mail-in-a-box: from the start of the line to the recipient.
    has(
        "mail-in-a-box",
        r"^action=(greylist|pass), reason=(.*?), (?:delay=\d+, )?client_name=(.*), client_address=(.*), sender=(.*), recipient=(.*)$",
    );
    // docker-mailserver greps for these.
    has("docker-mailserver", r"action=pass, reason=client whitelist");
    has(
        "docker-mailserver",
        r"client_address=192\.0\.2\.91, sender=alice@example\.com, recipient=user@example\.org$",
    );
    // A null sender is left out.
    has(
        "the original",
        r"^action=greylist, reason=new, client_name=mail\.example\.com, client_address=198\.51\.100\.1, recipient=",
    );
    has(
        "the original",
        r"^action=pass, reason=recipient whitelist, ",
    );
    has(
        "the original",
        r"^action=pass, reason=triplet found, delay=300, client_name=",
    );
    // Every line has a shape that logwatch counts or ignores.
    let known = Regex::new(concat!(
        r"^(?:(?:[0-9A-Za-z]+: )?action=|(?:tarpit )?whitelisted: |ignoring garbage: |",
        r"unrecognized request type|Binding to |Setting [ug]id|HUP received|",
        r"\d{4}/\d\d/\d\d-\d\d:\d\d:\d\d (?:postgrey .* starting!|Server closing!))"
    ))
    .unwrap();
    for line in log.lines() {
        assert!(
            known.is_match(line),
            "logwatch would count {line:?} as unmatched"
        );
    }
    // Postfix's own line, which Monitorix, munin and Zentyal read, begins with
    // our text; check_postgrey wants a line of this form.
    assert!(
        replies[0].starts_with("DEFER_IF_PERMIT Greylisted, "),
        "{}",
        replies[0]
    );
    assert!(replies.iter().all(|reply| !reply.is_empty()));
    assert!(replies[2].starts_with("PREPEND X-Greylist: delayed 300 seconds by postgrey-"));
}

/// The rules of the Debian package for logcheck, as grep -E reads them.
fn logcheck_rules(name: &str) -> Vec<Regex> {
    let path = format!("{}/deb/logcheck/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(|rule| Regex::new(rule).unwrap()).collect()
}

/// What logcheck does not mail: the lines of a normal day, with a time of either
/// kind in front.
#[test]
fn logcheck_is_silent_about_a_normal_day_only() {
    let rules = logcheck_rules("ignore.d.server");
    let is_ignored = |line: &str| {
        [
            "Nov  3 09:05:00 mx postgrey[12]: ",
            "2026-11-03T09:05:00.123456+01:00 mx postgrey: ",
        ]
        .iter()
        .all(|head| {
            rules
                .iter()
                .any(|rule| rule.is_match(&format!("{head}{line}")))
        })
    };
    let (log, _) = log_of_a_day();
    let is_odd = |line: &str| line.starts_with("ignoring garbage") || line.starts_with("unrecog");
    for line in log.lines() {
        assert_eq!(is_ignored(line), !is_odd(line), "{line}");
    }
    // The others of the manual: those of a normal day have no "warning!".
    let page = fs::read_to_string(format!("{}/man/postgrey.8", env!("CARGO_MANIFEST_DIR")));
    let page = page.unwrap();
    let mut lines = 0;
    for line in page.lines() {
        for (head, shown) in [("warning! ", "WARNING: "), ("crit     ", "FATAL: ")] {
            if let Some(text) = line.strip_prefix(head) {
                lines += 1;
                assert!(!is_ignored(&format!("{shown}{text}")), "{line}");
                assert!(!is_ignored(text), "{line}");
            }
        }
    }
    assert!(lines > 20, "{lines}");
    for line in [
        "cleaning up old entries...",
        "cleaning tarpit blacklist database finished. before: 7, after: 3",
        "tarpit whitelisted: mail.example.com[192.0.2.7]",
        "Setting gid to \"112 112\"",
        "Process Backgrounded",
        "statistics: requests=7 clients=2",
        "2026/11/03-09:05:00 CONNECT UNIX Socket",
        "2026/11/03-09:05:00 CONNECT TCP Peer: \"127.0.0.1:5\"",
    ] {
        assert!(is_ignored(line), "{line}");
    }
}

/// What logcheck takes for a violation for a word in it, such as "reject" in the
/// name of a sender: ours, and what Postfix says to a client that is greylisted.
#[test]
fn logcheck_takes_no_decision_for_a_violation() {
    let rules = logcheck_rules("violations.ignore.d");
    for line in [
        "Nov  3 09:05:00 mx postgrey[12]: action=pass, reason=client AWL, client_name=x, \
         client_address=192.0.2.1, sender=reject@example.com, recipient=a@example.org",
        "Nov  3 09:05:00 mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from unknown[192.0.2.1]: \
         450 4.2.0 <a@example.org>: Recipient address rejected: Greylisted, see http://x/; \
         from=<b@example.com> to=<a@example.org> proto=ESMTP helo=<x>",
    ] {
        assert!(rules.iter().any(|rule| rule.is_match(line)), "{line}");
    }
    let other = "Nov  3 09:05:00 mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from \
                 unknown[192.0.2.1]: 554 5.7.1 <a@example.org>: Relay access denied";
    assert!(!rules.iter().any(|rule| rule.is_match(other)));
}

/// So are those that a list lets pass.
#[test]
fn who_is_passed_by_a_list_is_read_as_a_pass() {
    let dir = test_dir();
    let [senders, opted_in] = [
        ("senders", "friend.example\n"),
        ("opted-in", "in@x.example\n"),
    ]
    .map(|(name, text)| {
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        file
    });
    let options = [
        format!("--whitelist-senders={}", senders.display()),
        format!("--greylist-recipients={}", opted_in.display()),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let server = Server::start(dir.path(), &options);
    let mut client = server.connect();
    assert_eq!(client.ask(&[("sender", "a@friend.example")]), "DUNNO");
    assert_eq!(client.ask(&[("queue_id", "4WXYZ1")]), "DUNNO");
    let log = server.log_text();
    let lines: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("action="))
        .collect();
    assert_eq!(
        lines,
        [
            "action=pass, reason=sender whitelist, client_name=mail.example.com, \
             client_address=192.0.2.91, sender=a@friend.example, recipient=user@example.org",
            "4WXYZ1: action=pass, reason=recipient not opted in, client_name=mail.example.com, \
             client_address=192.0.2.91, sender=alice@example.com, recipient=user@example.org",
        ]
    );
    let logwatch = Regex::new(
        r"^(?:[0-9A-Za-z]+: )?action=(.*?), reason=(.*?)(?:, delay=\d+)?, client_name=(.*?), client_address=(.*?)(?:, sender=(.*?))?(?:, recipient=(.*))?$",
    );
    let (logwatch, rules) = (logwatch.unwrap(), logcheck_rules("ignore.d.server"));
    for line in lines {
        assert!(logwatch.is_match(line), "{line}");
        let logged = format!("Nov  3 09:05:00 mx postgrey[12]: {line}");
        assert!(rules.iter().any(|rule| rule.is_match(&logged)), "{line}");
    }
}

/// A line of ours has the form of the others, so that it is counted with them.
#[test]
fn a_recipient_of_a_held_mail_is_read_as_a_pass() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--targrey", "--tarpit-per-message"]);
    let mut client = server.connect();
    let ask = |client: &mut server::Client, recipient: &str| {
        client.ask(&[("instance", "a"), ("recipient", recipient)])
    };
    assert_eq!(ask(&mut client, "user@example.org"), "SLEEP 125");
    assert_eq!(ask(&mut client, "other@example.org"), "DUNNO");
    let log = server.log_text();
    let line = log.lines().find(|line| line.contains("action=")).unwrap();
    let form = Regex::new(
        r"^(?:[0-9A-Za-z]+: )?action=(pass), reason=([a-z ]+), client_name=(.*), client_address=(.*), sender=(.*), recipient=(.*)$",
    );
    let found = form.unwrap();
    let found = found.captures(line).unwrap();
    let parts: Vec<&str> = (1..7).map(|part| &found[part]).collect();
    assert_eq!(
        parts,
        [
            "pass",
            "held before",
            "mail.example.com",
            "192.0.2.91",
            "alice@example.com",
            "other@example.org"
        ]
    );
}
