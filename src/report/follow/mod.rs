//! `--follow`: a line a minute while logs grow; on a terminal the present minute each
//! second, in place.

mod file;
mod minute;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use super::input::without_doubles;
use super::{terms, words::Words};
use crate::admin::failure::Failure;
use crate::sys::clock;
use crate::sys::poll::wait_for_input;
use crate::sys::signals::Signals;
use file::Followed;
use minute::{HEADING, Minute};

/// How often the logs are looked at.
const STEP: Duration = Duration::from_secs(1);
/// Lines on a terminal after which the heading comes again.
const PAGE: u32 = 20;

/// Follows the logs until a signal ends it.
pub fn run(words: &Words) -> Result<(), Failure> {
    if words.logs.is_empty() || words.logs.iter().any(|path| path == Path::new("-")) {
        return Err(Failure::usage("ERROR: --follow needs the name of a LOG"));
    }
    let mut follower = Follower::new(words, clock::seconds() as i64)?;
    let ends = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    let mut signals = Signals::install(&ends)
        .map_err(|error| Failure::error(format!("cannot react to signals: {error}")))?;
    let mut screen = Screen::new();
    loop {
        let now = clock::seconds() as i64;
        let lines = follower.step(now);
        screen.write(&lines, Some(&follower.present()))?;
        // A signal is no error, only earlier.
        let _ = wait_for_input(&signals, STEP);
        if !signals.take().is_empty() {
            follower.read(clock::seconds() as i64);
            let lines = follower.finish(i64::MAX);
            return screen.write(&lines, None);
        }
    }
}

/// Logs, and the minute that is being counted.
struct Follower {
    logs: Vec<Followed>,
    minute: Minute,
    /// When the minute began.
    began: i64,
}

impl Follower {
    fn new(words: &Words, now: i64) -> Result<Follower, Failure> {
        let terms = terms::read(words, &terms::settings(words)?)?;
        Follower::of(&without_doubles(&words.logs), Minute::new(terms), now)
    }

    fn of(logs: &[PathBuf], minute: Minute, now: i64) -> Result<Follower, Failure> {
        let logs: Result<Vec<Followed>, Failure> =
            logs.iter().map(|path| Followed::open(path, now)).collect();
        Ok(Follower {
            logs: logs?,
            minute,
            began: now - now.rem_euclid(60),
        })
    }

    /// Reads what has come; the lines of a minute that is over.
    fn step(&mut self, now: i64) -> Vec<String> {
        self.read(now);
        if (self.began..self.began + 60).contains(&now) {
            return Vec::new();
        }
        let lines = self.finish(now);
        self.minute.restart();
        self.began = now - now.rem_euclid(60);
        lines
    }

    fn read(&mut self, now: i64) {
        for (index, log) in self.logs.iter_mut().enumerate() {
            let minute = &mut self.minute;
            if let Some(missed) = log.poll(now, &mut |head| minute.add(head, index)) {
                minute.miss(missed);
            }
        }
    }

    fn present(&self) -> String {
        self.minute.line(self.began)
    }

    fn finish(&mut self, now: i64) -> Vec<String> {
        self.minute.settle(now);
        let mut lines = vec![self.present()];
        lines.extend(self.minute.incomplete(self.began));
        lines
    }
}

/// Standard output: lines one after the other, on a terminal with the present one below.
struct Screen {
    is_terminal: bool,
    /// Lines since the heading.
    lines: u32,
}

impl Screen {
    fn new() -> Screen {
        Screen {
            is_terminal: io::stdout().is_terminal(),
            lines: 0,
        }
    }

    fn write(&mut self, lines: &[String], present: Option<&str>) -> Result<(), Failure> {
        let mut text = String::new();
        let mut push = |own: &mut u32, line: &str| {
            if *own == 0 {
                push_line(&mut text, self.is_terminal, HEADING);
            }
            *own = if *own == PAGE && self.is_terminal {
                0
            } else {
                *own + 1
            };
            push_line(&mut text, self.is_terminal, line);
        };
        for line in lines {
            push(&mut self.lines, line);
        }
        if let Some(present) = present.filter(|_| self.is_terminal) {
            if self.lines == 0 {
                push_line(&mut text, true, HEADING);
                self.lines = 1;
            }
            // What is beyond the edge of a narrow terminal is left out, not wrapped.
            text.push_str(&format!("\x1b[?7l\r{present}\x1b[K\x1b[?7h"));
        }
        let mut output = io::stdout().lock();
        let written = output
            .write_all(text.as_bytes())
            .and_then(|()| output.flush());
        written.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::silent(),
            _ => Failure::usage(format!("can't write to standard output: {error}")),
        })
    }
}

/// A line that takes the place of the present one on a terminal.
fn push_line(text: &mut String, is_terminal: bool, line: &str) {
    match is_terminal {
        true => text.push_str(&format!("\r{line}\x1b[K\n")),
        false => text.push_str(&format!("{line}\n")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::decide::Whitelists;
    use crate::policy::pool::Pools;
    use crate::policy::rules::Rules;
    use crate::report::tally::Terms;
    use crate::report::tally::periods::By;
    use std::fs::{self, File};

    fn minute() -> Minute {
        Minute::new(Terms {
            by: By::Day,
            rules: Rules::default(),
            lists: Whitelists::new(Rules::default().compat),
            pools: Pools::default(),
            greylist_text: regex::bytes::Regex::new("Greylisted").unwrap(),
        })
    }

    fn append(path: &Path, text: &str) {
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    fn numbers(line: &str) -> Vec<u64> {
        line[11..]
            .split_whitespace()
            .map(|number| number.parse().unwrap())
            .collect()
    }

    const GREY: &str = "2026-11-24T02:27:10Z mx postgrey[9]: action=greylist, reason=new, client_address=192.0.2.1, sender=a@b, recipient=c@d\n";
    const PASS: &str = "2026-11-24T02:33:10Z mx postgrey[9]: action=pass, reason=triplet found, client_address=192.0.2.1, sender=a@b, recipient=c@d\n";

    #[test]
    fn lines_come_once_and_what_comes_back_is_counted_later() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, PASS);
        let mut follower = Follower::of(std::slice::from_ref(&path), minute(), 600).unwrap();
        assert!(follower.step(601).is_empty());
        append(&path, GREY);
        // The end of a line comes later.
        append(&path, &PASS[..50]);
        assert!(follower.step(630).is_empty());
        assert_eq!(numbers(&follower.present()), [1, 0, 1, 0, 0, 0, 1, 0]);
        append(&path, &PASS[50..]);
        append(
            &path,
            "2026-11-24T02:33:11Z mx rsyslogd: imuxsock lost 7 messages from pid 9\n",
        );
        let lines = follower.step(659);
        assert!(lines.is_empty());
        let lines = follower.step(660);
        assert_eq!(numbers(&lines[0]), [2, 1, 1, 0, 0, 1, 1, 0]);
        assert!(lines[1].ends_with("incomplete: 7 lines were lost by the system's log"));
        append(&path, GREY);
        let lines = follower.step(1000);
        assert_eq!(numbers(&lines[0]), [1, 0, 1, 0, 0, 0, 1, 0]);
        assert_eq!(lines.len(), 1);
        assert_eq!(follower.began, 960);
        assert_eq!(HEADING.len(), lines[0].len());
    }

    #[test]
    fn a_refusal_of_the_next_minute_is_no_other_request() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "");
        let mut follower = Follower::of(std::slice::from_ref(&path), minute(), 600).unwrap();
        append(&path, GREY);
        let lines = follower.step(660);
        assert_eq!(numbers(&lines[0])[..3], [1, 0, 1]);
        append(
            &path,
            "2026-11-24T02:27:11Z mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from unknown[192.0.2.1]: 450 4.2.0 <c@d>: Recipient address rejected: Greylisted; from=<a@b> to=<c@d> proto=ESMTP helo=<x>\n",
        );
        follower.step(661);
        assert_eq!(numbers(&follower.finish(i64::MAX)[0])[..3], [0, 0, 0]);
        // A client is counted in each minute.
        append(&path, GREY);
        let lines = follower.step(720);
        assert_eq!(numbers(&lines[0]), [1, 0, 1, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn what_is_missed_is_told_once_a_minute() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "");
        let mut follower = Follower::of(std::slice::from_ref(&path), minute(), 600).unwrap();
        // Somebody makes a folder of it, and then a file again.
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        for now in 601..650 {
            follower.step(now);
        }
        fs::remove_dir(&path).unwrap();
        follower.step(650);
        append(&path, GREY);
        let lines = follower.step(660);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].ends_with("log: not a regular file"), "{lines:?}");
        assert_eq!(numbers(&lines[0])[0], 1);
    }

    #[test]
    fn rotation_is_followed_and_a_file_that_was_cut_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, "");
        let mut follower = Follower::of(std::slice::from_ref(&path), minute(), 600).unwrap();
        append(&path, GREY);
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        assert!(follower.step(601).is_empty());
        // The writer still has the old one; the last line has no end.
        append(&dir.path().join("log.1"), &GREY[..GREY.len() - 1]);
        append(&path, PASS);
        follower.step(602);
        append(&path, PASS);
        follower.step(603);
        assert_eq!(numbers(&follower.present())[..3], [4, 2, 2]);
        assert_eq!(follower.finish(i64::MAX).len(), 1);
        // Copied and cut.
        File::options()
            .write(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        append(&path, GREY);
        follower.step(604);
        assert_eq!(numbers(&follower.present())[..3], [5, 2, 3]);
        assert!(
            follower.finish(i64::MAX)[1].contains("was cut"),
            "{:?}",
            follower.finish(i64::MAX)
        );
    }
}
