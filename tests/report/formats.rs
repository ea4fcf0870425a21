//! The same lines in every form of log give the same summary.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::machine::skip;
use super::{report, summary};

/// Times in seconds since 1970 and messages: of a log from the last day of a year to the
/// first of the next.
fn lines() -> Vec<(i64, &'static str, &'static str)> {
    let start = 1_767_225_540; // 2025-12-31 23:59:00 UTC
    vec![
        (
            start,
            "postgrey",
            "action=greylist, reason=new, client_name=a.example, client_address=192.0.2.7, sender=a@one.example, recipient=r@here.example",
        ),
        (
            start + 10,
            "postgrey",
            "4A1B: action=greylist, reason=early-retry (290s missing), client_name=a.example, client_address=192.0.2.7/32, sender=a@one.example, recipient=r@here.example",
        ),
        (
            start + 20,
            "postgrey",
            "action=tarpit, reason=new, client_name=b.example, client_address=2001:db8::1, sender=b@two.example, recipient=r@here.example",
        ),
        (
            start + 30,
            "postgrey",
            "action=tarpit, reason=new, client_name=c.example, client_address=198.51.100.1, recipient=r@here.example",
        ),
        (
            start + 40,
            "postgrey",
            "action=greylist, reason=new, client_name=unknown, client_address=203.0.113.9, sender=spam@three.example, recipient=r@here.example",
        ),
        (
            start + 59,
            "postgrey",
            "whitelisted: z.example[192.0.2.200]",
        ),
        (
            start + 145,
            "postgrey",
            "4A1C: action=pass, reason=tarpit passed, client_name=b.example, client_address=2001:db8::1, sender=b@two.example",
        ),
        (
            start + 150,
            "postfix/smtpd",
            "lost connection after RCPT from c.example[198.51.100.1]",
        ),
        (
            start + 312,
            "postgrey",
            "action=pass, reason=triplet found, delay=312, client_name=a.example, client_address=192.0.2.8, sender=a@one.example, recipient=r@here.example",
        ),
        (
            start + 320,
            "postgrey",
            "action=pass, reason=client whitelist, client_name=d.example, client_address=192.0.2.9, sender=a@one.example, recipient=r@here.example",
        ),
        (start + 330, "postgrey", "cleaning up old entries..."),
        (
            start + 340,
            "postfix/qmgr",
            "4A1B: from=<a@one.example>, size=1, nrcpt=1 (queue active)",
        ),
        (start + 350, "postgrey", "action=nonsense"),
    ]
}

/// A date of UTC by this format of date(1).
fn date(time: i64, format: &str) -> String {
    let output = Command::new("date")
        .args(["-u", "-d", &format!("@{time}"), &format!("+{format}")])
        .env("LC_ALL", "C")
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout)
        .unwrap()
        .trim_end()
        .to_owned()
}

fn log(of: &dyn Fn(i64, &str, &str) -> String) -> Vec<u8> {
    let all = lines()
        .into_iter()
        .map(|(time, program, message)| of(time, program, message));
    all.collect::<String>().into_bytes()
}

fn plain() -> Vec<u8> {
    log(&|time, program, message| {
        format!(
            "{} mx {program}[9]: {message}\n",
            date(time, "%b %e %H:%M:%S")
        )
    })
}

/// A file of this content that was last changed at this time.
fn write(path: &Path, content: &[u8], changed: i64) {
    fs::write(path, content).unwrap();
    let changed = std::time::UNIX_EPOCH + std::time::Duration::from_secs(changed as u64);
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(changed).unwrap();
}

#[test]
fn every_form_of_log_gives_the_same_summary() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mail.log");
    let name = path.to_str().unwrap();
    let iso = log(&|time, program, message| {
        format!(
            "{} mx {program}[9]: {message}\n",
            date(time, "%Y-%m-%dT%H:%M:%S.123456+00:00")
        )
    });
    let expected = summary(&[], &iso);
    let total = &expected["total"];
    assert_eq!(
        total["answers"],
        json!({
            "pass": {"client whitelist": 1, "tarpit passed": 1, "triplet found": 1},
            "greylist": {"early-retry": 1, "new": 2},
            "tarpit": {"new": 2},
        })
    );
    for (what, count) in [
        ("requests", 8),
        ("clients", 6),
        ("triplets", 4),
        ("put_off", 3),
        ("came_back", 1),
        ("delay_p50", 312),
        ("held", 2),
        ("waited", 1),
        ("gave_up", 1),
        ("auto_whitelisted", 1),
        ("broken_off", 1),
    ] {
        assert_eq!(total[what], count, "{what}");
    }
    let periods = expected["periods"].as_array().unwrap();
    let days: Vec<&str> = periods
        .iter()
        .map(|row| row["period"].as_str().unwrap())
        .collect();
    assert_eq!(days, ["2025-12-31", "2026-01-01"]);
    assert_eq!(periods[0]["requests"], 5);
    // Who was put off in the old year came back in the new one.
    assert_eq!(
        (&periods[0]["came_back"], &periods[1]["put_off"]),
        (&json!(1), &json!(0))
    );
    let lines_of = &expected["lines"];
    assert_eq!(lines_of["not_understood"], 1);
    assert_eq!(lines_of["other"], 1);
    assert_eq!(lines_of["postgrey_other"], 2);

    let structured = log(&|time, program, message| {
        format!(
            "<22>1 {} mx {program} 9 - - {message}\n",
            date(time, "%Y-%m-%dT%H:%M:%SZ")
        )
    });
    let mut journal = Vec::new();
    for (index, (time, program, message)) in lines().into_iter().enumerate() {
        write!(
            journal,
            "__CURSOR=s={index}\n__REALTIME_TIMESTAMP={time}000042\nSYSLOG_IDENTIFIER={program}\n"
        )
        .unwrap();
        if index % 2 == 0 {
            writeln!(journal, "MESSAGE={message}").unwrap();
        } else {
            journal.extend_from_slice(b"MESSAGE\n");
            journal.extend_from_slice(&(message.len() as u64).to_le_bytes());
            writeln!(journal, "{message}").unwrap();
        }
        journal.push(b'\n');
    }
    for (what, text) in [("RFC 5424", structured), ("journal", journal)] {
        assert_eq!(summary(&[], &text), expected, "{what}");
    }
    // Without a year: the time of the last change tells.
    let solaris = log(&|time, program, message| {
        let date = date(time, "%b %e %H:%M:%S");
        format!("{date} mx {program}[9]: [ID 197553 mail.notice] {message}\n")
    });
    let changed = lines().last().unwrap().0;
    for (what, text) in [("RFC 3164", plain()), ("Solaris", solaris)] {
        write(&path, &text, changed);
        assert_eq!(summary(&[name], b""), expected, "{what}");
    }
    write(&path, &plain(), changed);
    for program in ["gzip", "xz"] {
        let Ok(output) = Command::new(program).args(["-c", name]).output() else {
            skip(program, "compressed logs");
            continue;
        };
        // A file may hold several of them.
        let half = plain().len();
        let packed = folder.path().join("mail.log.packed");
        write(
            &packed,
            &[&output.stdout[..], &output.stdout].concat(),
            changed,
        );
        let twice = summary(&[packed.to_str().unwrap()], b"");
        assert_eq!(twice["lines"]["read"], 26, "{program} {half}");
        write(&packed, &output.stdout, changed);
        assert_eq!(
            summary(&[packed.to_str().unwrap()], b""),
            expected,
            "{program}"
        );
        // One that was cut: what is there is told, and that it is not all.
        write(&packed, &output.stdout[..output.stdout.len() - 12], changed);
        let ran = report(&["--summary", packed.to_str().unwrap()], b"");
        assert!(
            ran.text()
                .contains("incomplete: a log could not be read to its end")
        );
        assert!(ran.failed(1).starts_with("ERROR: "));
    }
}

#[test]
fn logs_are_read_in_the_order_of_their_times() {
    let folder = tempfile::tempdir().unwrap();
    let expected = summary(
        &[],
        &log(&|time, program, message| {
            format!(
                "{} mx {program}[9]: {message}\n",
                date(time, "%Y-%m-%dT%H:%M:%SZ")
            )
        }),
    );
    // Two machines, each with an old and a new log.
    let mut logs = vec![String::new(); 4];
    for (index, (time, program, message)) in lines().into_iter().enumerate() {
        let which = index % 2 + if index < 6 { 2 } else { 0 };
        let date = date(time, "%Y-%m-%dT%H:%M:%SZ");
        writeln!(
            logs[which],
            "{date} mx{} {program}[9]: {message}",
            index % 2
        )
        .unwrap();
    }
    let mut names = Vec::new();
    for (index, text) in logs.iter().enumerate() {
        let path = folder.path().join(format!("log.{index}"));
        fs::write(&path, text).unwrap();
        names.push(path.to_str().unwrap().to_owned());
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(summary(&names, b""), expected);
}

#[test]
fn lines_that_syslogd_put_together_count_as_often_as_they_were_written() {
    let one = "2026-11-24T02:27:10Z mx postgrey[9]: action=pass, reason=client AWL, client_address=192.0.2.1, sender=a@b, recipient=c@d\n";
    for (line, times) in [
        ("2026-11-24T02:27:20Z mx last message repeated 3 times\n", 4),
        (
            "2026-11-24T02:27:20Z mx postgrey[9]: message repeated 2 times: [ action=pass, reason=client AWL, client_address=192.0.2.1, sender=a@b, recipient=c@d]\n",
            3,
        ),
        // That is not about the server's line.
        (
            "2026-11-24T02:27:11Z mx postfix/qmgr[9]: x\n2026-11-24T02:27:20Z mx last message repeated 3 times\n",
            1,
        ),
    ] {
        let text = format!("{one}{line}");
        let found = summary(&[], text.as_bytes());
        assert_eq!(found["total"]["requests"], times, "{line}");
        assert_eq!(found["total"]["triplets"], 1, "{line}");
    }
}

#[test]
fn what_the_log_lost_is_said() {
    for line in [
        "2026-11-24T02:27:20Z mx rsyslogd: imuxsock lost 123 messages from pid 9 due to rate-limiting\n",
        "2026-11-24T02:27:20Z mx systemd-journald[1]: Suppressed 123 messages from postgrey.service\n",
    ] {
        let found = summary(&[], line.as_bytes());
        assert_eq!(found["lines"]["lost"], 123);
        let text = report(&["--summary"], line.as_bytes()).quiet();
        assert!(
            text.contains("Note: incomplete: the log says that 123 of its lines were lost."),
            "{text}"
        );
    }
    let held = b"2026-11-24T02:27:20Z mx postgrey[9]: action=tarpit, reason=new, client_address=192.0.2.1\n";
    let notes = summary(&[], held)["notes"].to_string();
    assert!(
        notes.contains("nobody is told to have waited in the tarpit"),
        "{notes}"
    );
    let untimed = b"action=pass, reason=client AWL, client_address=192.0.2.1\n";
    assert_eq!(summary(&[], untimed)["lines"]["without_time"], 1);
}

#[test]
fn hostile_lines_are_no_requests() {
    let text = b"2026-11-24T02:27:10Z mx postfix/smtpd[9]: warning: postgrey[1]: action=pass, reason=x\n\
        2026-11-24T02:27:10Z mx evil: action=pass, reason=new, client_address=192.0.2.1\n\
        2026-11-24T02:27:10Z mx postgrey[9]: ignoring garbage: <action=pass, reason=x>\n\
        \xff\xfe\0\n2026-99-99T99:99:99Z x\n[ID \n<1\n<\n  \n2026-11-24T02:27:10Z mx postgrey[9]: action=greylist, reason=\x1b[31m, client_address=\xff, sender=\xff, recipient=\x1b\n";
    let found = summary(&[], text);
    assert_eq!(found["total"]["requests"], 1);
    let shown = report(&["--summary"], text).quiet();
    assert!(
        shown
            .bytes()
            .all(|octet| octet == b'\n' || (b' '..=b'~').contains(&octet)),
        "{shown}"
    );
    let long = [
        &b"2026-11-24T02:27:10Z mx postgrey[9]: "[..],
        &[b'x'; 1 << 20],
    ]
    .concat();
    assert_eq!(summary(&[], &long)["lines"]["postgrey_other"], 1);
}

#[test]
fn postfix_alone_is_enough_for_what_it_tells() {
    let reject = |time: &str, address: &str| {
        format!(
            "2026-11-24T{time}Z mx postfix/smtpd[9]: NOQUEUE: reject: RCPT from a.example[{address}]: \
             450 4.2.0 <r@here.example>: Recipient address rejected: Greylisted, see http://x/; \
             from=<a@b.example> to=<r@here.example> proto=ESMTP helo=<x>\n"
        )
    };
    let own = "2026-11-24T02:27:09Z mx postgrey[9]: action=greylist, reason=new, client_address=192.0.2.1, sender=a@b.example, recipient=r@here.example\n";
    let broken =
        "2026-11-24T02:30:00Z mx postfix/smtpd[9]: lost connection after RCPT from c[192.0.2.9]\n";
    // The server told of the first one; of the second only Postfix does.
    let text = [
        own,
        &reject("02:27:10", "192.0.2.1"),
        &reject("02:28:10", "192.0.2.77"),
        broken,
    ]
    .concat();
    let found = summary(&[], text.as_bytes());
    let greylist = json!({"new": 1, "told by Postfix": 1});
    assert_eq!(found["total"]["answers"]["greylist"], greylist);
    assert_eq!(found["total"]["put_off"], 1, "one triplet, of one network");
    let notes = found["notes"].to_string();
    assert!(
        notes.contains("of some requests only Postfix tells"),
        "{notes}"
    );
    assert!(
        notes.contains("1 clients broke off after RCPT or DATA"),
        "{notes}"
    );
    let other = text.replace("Greylisted", "Come again");
    let words = ["--greylist-text=Come again"];
    assert_eq!(summary(&words, other.as_bytes())["total"], found["total"]);
    assert_eq!(
        summary(&["--return_string", "Come again"], other.as_bytes())["total"],
        found["total"]
    );
    assert_eq!(summary(&[], other.as_bytes())["total"]["requests"], 1);
}

#[test]
fn mistakes_are_told() {
    for (words, message) in [
        (&["--bogus"][..], "Unknown option: bogus\n"),
        (&["--by"], "Option by requires an argument\n"),
        (
            &["--summary", "--by=year"],
            "Value \"year\" invalid for option by (hour, day or week expected)\n",
        ),
        (&["--json=1"], "Option json does not take an argument\n"),
    ] {
        assert_eq!(report(words, b"").failed(1), message);
    }
    assert_eq!(
        report(&["--summary", "/nonexistent/log"], b"").failed(2),
        "ERROR: /nonexistent/log: No such file or directory\n"
    );
    assert_eq!(
        report(&["--summary", "/"], b"").failed(2),
        "ERROR: /: Is a directory\n"
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("postgrey.options");
    for words in [
        &["--summary"][..],
        &[],
        &["--html=-"],
        &["--follow", "/dev/null"],
    ] {
        let words = [&["--dbdir=/nonexistent"], words].concat();
        assert_eq!(
            report(&words, b"").failed(2),
            "ERROR: /nonexistent: No such file or directory\n"
        );
    }
    // Left by a server of another time: the log is told all the same.
    fs::write(&file, "--bogus\n").unwrap();
    let ran = report(&["--summary", "--dbdir", dir.path().to_str().unwrap()], b"");
    assert_eq!(
        (ran.status, &ran.stderr[..]),
        (
            0,
            &format!(
                "WARNING: {}: Unknown option: bogus: the defaults of the server count\n",
                file.display()
            )[..]
        )
    );
    let bzip = report(&["--summary"], b"BZh91AY").failed(2);
    assert!(bzip.contains("bzcat"), "{bzip}");
    assert!(report(&["--help"], b"").quiet().contains("--summary"));
    assert_eq!(
        report(&["--version"], b"").quiet(),
        format!("postgreyreport {}\n", env!("CARGO_PKG_VERSION"))
    );
}
