//! Log lines: the sinks they go to, and how often a complaint is repeated.
//!
//! The text of the lines is the interface of log analysers, so it is made
//! where the decision is made ([`crate::policy::line`]). On stderr a line is
//! kept to the octet; to syslog and to a terminal control characters go as
//! `\xHH`, and to syslog at most [`SYSLOG_LINE`] octets, since some daemons
//! cut or drop longer ones.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::CStr;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};

pub use crate::policy::line::Level;
use crate::sys::syslog::{self, Severity};

/// Octets of a line in syslog: Solaris cuts at 1024 with its own prefix.
pub const SYSLOG_LINE: usize = 960;
/// Seconds in which a complaint of the same cause is made once.
const COMPLAINT_INTERVAL: u64 = 60;

/// Where lines go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sinks {
    /// Standard error.
    pub stderr: bool,
    /// syslog(3), opened before.
    pub syslog: bool,
    /// Lines on standard error begin with the time.
    pub times: bool,
}

/// The log of a process.
pub struct Log {
    verbosity: Level,
    sinks: Sinks,
    stderr_is_terminal: bool,
    complaints: Complaints,
    buffer: RefCell<Vec<u8>>,
}

impl Log {
    /// A log of lines up to this level.
    pub fn new(verbosity: Level, sinks: Sinks, complaints: Complaints) -> Self {
        let stderr_is_terminal = std::io::stderr().is_terminal();
        Log {
            verbosity,
            sinks,
            stderr_is_terminal,
            complaints,
            buffer: RefCell::default(),
        }
    }

    /// A log to syslog alone, for the last words of a process.
    pub fn to_syslog() -> Log {
        static CELLS: [AtomicU64; Complaints::CELLS] =
            [const { AtomicU64::new(0) }; Complaints::CELLS];
        let sinks = Sinks {
            syslog: true,
            ..Sinks::default()
        };
        Log::new(Level::Two, sinks, Complaints::new(&CELLS))
    }

    /// True if lines go to standard error.
    pub fn uses_stderr(&self) -> bool {
        self.sinks.stderr
    }

    /// True if lines of this level are logged: others need not be made.
    pub fn shows(&self, level: Level) -> bool {
        level <= self.verbosity
    }

    /// Logs a line.
    pub fn write(&self, level: Level, line: &[u8]) {
        if !self.shows(level) {
            return;
        }
        // A panic while a line was being written must not end in another one.
        let Ok(mut buffer) = self.buffer.try_borrow_mut() else {
            return;
        };
        if self.sinks.stderr {
            buffer.clear();
            if self.sinks.times {
                crate::sys::clock::push_rfc3339(&mut buffer);
                buffer.push(b' ');
            }
            if self.stderr_is_terminal {
                push_escaped(&mut buffer, line);
            } else {
                buffer.extend_from_slice(line);
            }
            buffer.push(b'\n');
            // Nobody is left to be told that stderr is closed.
            let _ = std::io::stderr().write_all(&buffer);
        }
        if self.sinks.syslog {
            buffer.clear();
            let severity = push_syslog_line(&mut buffer, level, line);
            buffer.push(0);
            if let Ok(line) = CStr::from_bytes_with_nul(&buffer) {
                syslog::write(severity, line);
            }
        }
    }

    /// Logs a line with the local time in front, as Net::Server has it in those
    /// of start, stop and connections.
    pub fn write_timestamped(&self, level: Level, text: &[u8]) {
        let mut line = Vec::new();
        crate::sys::clock::push_timestamp(&mut line);
        line.push(b' ');
        line.extend_from_slice(text);
        self.write(level, &line);
    }

    /// Logs what is wrong with the server, the same text at most once a
    /// minute, with the number of times it was held back.
    pub fn complain(&self, text: &str) {
        self.complain_about(text, text);
    }

    /// Logs what is wrong with the server, the same `cause` at most once a
    /// minute; `text` is what is shown. For texts that hold what changes each
    /// time (a number, a name), which would escape the limit otherwise.
    pub fn complain_about(&self, cause: &str, text: &str) {
        let now = crate::sys::clock::seconds() as u64;
        if let Some(line) = self.complaints.line(cause, text, now) {
            self.write(Level::Warning, line.as_bytes());
        }
    }
}

/// Where standard error is closed, or a client's socket, a panic goes to
/// syslog.
pub fn report_panics_to_syslog() {
    std::panic::set_hook(Box::new(|panic| {
        Log::to_syslog().write(Level::Fatal, panic.to_string().as_bytes());
    }));
}

fn push_syslog_line(out: &mut Vec<u8>, level: Level, line: &[u8]) -> Severity {
    let (severity, prefix): (_, &[u8]) = match level {
        Level::Fatal => (Severity::Critical, b"FATAL: "),
        Level::Warning => (Severity::Warning, b"WARNING: "),
        Level::Zero => (Severity::Error, b""),
        Level::One => (Severity::Warning, b""),
        Level::Two => (Severity::Notice, b""),
        Level::Three => (Severity::Info, b""),
    };
    out.extend_from_slice(prefix);
    push_escaped(out, line);
    if out.len() > SYSLOG_LINE {
        let mut end = SYSLOG_LINE;
        // A character of several octets is not cut in the middle.
        while end > SYSLOG_LINE - 4 && out[end] & 0xc0 == 0x80 {
            end -= 1;
        }
        out.truncate(end);
    }
    severity
}

/// Control characters become `\xHH`, those beyond ASCII too, which begin
/// escape sequences on many terminals. Other octets stay, valid UTF-8 or not.
fn push_escaped(out: &mut Vec<u8>, line: &[u8]) {
    if line.iter().all(|octet| (b' '..=b'~').contains(octet)) {
        return out.extend_from_slice(line);
    }
    for chunk in line.utf8_chunks() {
        for character in chunk.valid().chars() {
            let mut buffer = [0; 4];
            let octets = character.encode_utf8(&mut buffer).as_bytes();
            push_octets(out, octets, |_| character.is_control());
        }
        push_octets(out, chunk.invalid(), |octet| (0x80..0xa0).contains(&octet));
    }
}

fn push_octets(out: &mut Vec<u8>, octets: &[u8], is_escaped: impl Fn(u8) -> bool) {
    for &octet in octets {
        if is_escaped(octet) {
            // Writing to a Vec cannot fail.
            let _ = write!(out, "\\x{octet:02x}");
        } else {
            out.push(octet);
        }
    }
}

/// Which complaints were made lately, in cells that all processes share. Each
/// cause has a slot; a new one takes that of the oldest.
#[derive(Clone, Copy, Debug)]
pub struct Complaints {
    cells: &'static [AtomicU64; Complaints::CELLS],
}

const SLOTS: usize = 64;

impl Complaints {
    /// The number of cells it takes: cause, time and times held back.
    pub const CELLS: usize = 3 * SLOTS;

    /// Remembers complaints in these cells.
    pub fn new(cells: &'static [AtomicU64; Complaints::CELLS]) -> Self {
        Complaints { cells }
    }

    /// The line for a complaint at `now` (seconds); `None` if one of the same
    /// cause was made less than a minute before.
    fn line<'t>(&self, cause: &str, text: &'t str, now: u64) -> Option<Cow<'t, str>> {
        Some(match self.admit(cause.as_bytes(), now)? {
            0 => text.into(),
            held => format!("{text} ({held} more times in the last {COMPLAINT_INTERVAL} s)").into(),
        })
    }

    /// `None` if the cause was admitted less than a minute before `now`
    /// (seconds), else how many times it was held back since.
    fn admit(&self, cause: &[u8], now: u64) -> Option<u64> {
        let hash = fnv1a(cause);
        let slots = &self.cells.as_chunks::<3>().0;
        let own = slots
            .iter()
            .find(|[name, ..]| name.load(Ordering::Relaxed) == hash);
        let oldest = || {
            slots
                .iter()
                .min_by_key(|[_, time, _]| time.load(Ordering::Relaxed))
        };
        let [name, time, held] = own.or_else(oldest)?;
        let is_same = name.swap(hash, Ordering::Relaxed) == hash;
        let last = time.load(Ordering::Relaxed);
        if is_same && (last..last.saturating_add(COMPLAINT_INTERVAL)).contains(&now) {
            held.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        time.store(now, Ordering::Relaxed);
        let held = held.swap(0, Ordering::Relaxed);
        Some(if is_same { held } else { 0 })
    }
}

/// FNV-1a: only to find a slot, so it need not be strong.
fn fnv1a(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints() -> Complaints {
        Complaints::new(Box::leak(Box::new(std::array::from_fn(|_| {
            AtomicU64::new(0)
        }))))
    }

    #[test]
    fn a_complaint_is_made_once_a_minute_with_a_count() {
        let complaints = complaints();
        assert_eq!(complaints.admit(b"disk full", 1000), Some(0));
        assert_eq!(complaints.admit(b"disk full", 1000), None);
        assert_eq!(complaints.admit(b"something else", 1001), Some(0));
        assert_eq!(complaints.admit(b"disk full", 1059), None);
        assert_eq!(complaints.admit(b"disk full", 1060), Some(2));
        assert_eq!(
            complaints.admit(b"disk full", 999),
            Some(0),
            "the clock went back"
        );
    }

    #[test]
    fn a_text_that_changes_is_held_back_by_its_cause() {
        let complaints = complaints();
        let line = |text, now| complaints.line("child dies", text, now);
        assert_eq!(
            line("child 17 dies", 1000).as_deref(),
            Some("child 17 dies")
        );
        assert_eq!(line("child 18 dies", 1001), None);
        assert_eq!(
            complaints.line("disk full", "disk full", 1002).as_deref(),
            Some("disk full")
        );
        assert_eq!(
            line("child 19 dies", 1060).as_deref(),
            Some("child 19 dies (1 more times in the last 60 s)")
        );
    }

    #[test]
    fn complaints_do_not_take_each_others_slots() {
        let complaints = complaints();
        let texts: Vec<String> = (0..SLOTS).map(|n| format!("cause {n}")).collect();
        for expected in [Some(0), None, None] {
            for text in &texts {
                assert_eq!(complaints.admit(text.as_bytes(), 1000), expected, "{text}");
            }
        }
        assert_eq!(complaints.admit(b"one more", 1001), Some(0));
        assert_eq!(complaints.admit(b"one more", 1001), None);
    }

    #[test]
    fn syslog_lines_are_escaped_and_cut() {
        let mut out = Vec::new();
        let severity = push_syslog_line(&mut out, Level::Warning, b"a\x01\x7f%s\xff");
        assert_eq!(severity, Severity::Warning);
        assert_eq!(out, b"WARNING: a\\x01\\x7f%s\xff");
        let mut out = Vec::new();
        push_syslog_line(&mut out, Level::Two, b"\xc4\x9b\xc2\x9b31m\x9b\xc3");
        assert_eq!(out, b"\xc4\x9b\\xc2\\x9b31m\\x9b\xc3");
        let long = ["x".repeat(SYSLOG_LINE - 1), "é".into(), "y".into()].concat();
        let mut out = Vec::new();
        push_syslog_line(&mut out, Level::Two, long.as_bytes());
        assert_eq!(out.len(), SYSLOG_LINE - 1);
    }
}
