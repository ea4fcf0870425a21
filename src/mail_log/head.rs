//! What stands between the time of a line and its message: host, program, process.

use super::time::Times;

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The policy server.
    Postgrey,
    /// Postfix' smtpd, of whatever instance.
    Smtpd,
    /// The system's log itself: what it lost.
    Syslog,
    /// Another one.
    Other,
}

/// A line, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head<'l> {
    /// Seconds since 1970; `None`: it has no time.
    pub time: Option<i64>,
    /// Who wrote it.
    pub program: Program,
    /// What is said.
    pub message: &'l [u8],
}

/// Takes a line apart, without its line end.
pub fn split<'l>(times: &mut Times, line: &'l [u8]) -> Head<'l> {
    let (is_structured, line) = without_priority(line);
    let (time, rest) = match times.take(line) {
        Some((time, rest)) => (Some(time), rest),
        None => (None, line),
    };
    let (program, message) = match is_structured.then(|| split_structured(rest)).flatten() {
        Some(found) => found,
        None => split_plain(rest),
    };
    Head {
        time,
        program,
        message: without_id(message),
    }
}

/// What a program calls itself, with what Postfix puts in front for an instance.
pub fn program(name: &[u8]) -> Program {
    let name = match name.iter().position(|&octet| octet == b'[') {
        Some(at) => &name[..at],
        None => name,
    };
    if name.starts_with(b"postgrey") {
        Program::Postgrey
    } else if name.ends_with(b"/smtpd") {
        Program::Smtpd
    } else if name.starts_with(b"rsyslogd")
        || name.starts_with(b"systemd-journal")
        || [&b"syslogd"[..], b"syslog"].contains(&name)
    {
        Program::Syslog
    } else {
        Program::Other
    }
}

/// `<22>` and, of RFC 5424, the version after it.
fn without_priority(line: &[u8]) -> (bool, &[u8]) {
    let Some(rest) = line.strip_prefix(b"<") else {
        return (false, line);
    };
    let digits = rest.iter().take_while(|d| d.is_ascii_digit()).count();
    match rest.get(digits) {
        Some(b'>') if (1..=3).contains(&digits) => match rest[digits + 1..].strip_prefix(b"1 ") {
            Some(rest) => (true, rest),
            None => (false, &rest[digits + 1..]),
        },
        _ => (false, line),
    }
}

/// `HOST PROGRAM PROCESS MESSAGE-ID DATA MESSAGE` of RFC 5424.
fn split_structured(text: &[u8]) -> Option<(Program, &[u8])> {
    let mut fields = text.splitn(5, |&octet| octet == b' ');
    let (_, name) = (fields.next()?, fields.next()?);
    let (_, _) = (fields.next()?, fields.next()?);
    let rest = fields.next()?;
    let message = match rest.first()? {
        b'[' => &rest[super::find(rest, b"] ")? + 2..],
        _ => rest.strip_prefix(b"- ")?,
    };
    // A byte order mark may say that the rest is UTF-8.
    let message = message.strip_prefix(b"\xef\xbb\xbf").unwrap_or(message);
    Some((program(name), message))
}

/// `[HOST ]PROGRAM[PROCESS]: MESSAGE`, or a message of the server as it stands on
/// standard error.
fn split_plain(text: &[u8]) -> (Program, &[u8]) {
    if is_bare(text) {
        return (Program::Postgrey, text);
    }
    let mut colons = memchr::memchr_iter(b':', text);
    let Some(colon) = colons.find(|&at| text.get(at + 1) == Some(&b' ')) else {
        // "last message repeated 3 times" has no program.
        let repeated = super::find(text, b"last message repeated ");
        return match repeated {
            Some(at) => (Program::Syslog, &text[at..]),
            None => (Program::Other, text),
        };
    };
    let name = text[..colon]
        .rsplit(|&octet| octet == b' ')
        .next()
        .unwrap_or_default();
    match program(name) {
        Program::Other if text.starts_with(b"last message repeated ") => (Program::Syslog, text),
        // There the queue number stands in the place of a program.
        Program::Other if is_bare(&text[colon + 2..]) && name.len() == colon => {
            (Program::Postgrey, text)
        }
        found => (found, &text[colon + 2..]),
    }
}

fn is_bare(text: &[u8]) -> bool {
    let starts = [&b"action="[..], b"whitelisted: ", b"tarpit whitelisted: "];
    starts.iter().any(|start| text.starts_with(start))
}

/// Solaris puts `[ID 197553 mail.notice] ` in front of a message.
fn without_id(message: &[u8]) -> &[u8] {
    if !message.starts_with(b"[ID ") {
        return message;
    }
    match super::find(message, b"] ") {
        Some(end) => &message[end + 2..],
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_log_are_taken_apart() {
        let action = "action=pass, reason=client AWL";
        let queued = "4A1B: action=pass, reason=client AWL";
        for (line, program, message) in [
            (
                "Nov 24 02:27:10 mx postgrey[99]: 4A1B: action=pass, reason=client AWL",
                Program::Postgrey,
                queued,
            ),
            (
                "Nov 24 02:27:10 mx postgrey: action=pass, reason=client AWL",
                Program::Postgrey,
                action,
            ),
            (
                "Nov 24 02:27:10 postgrey[99]: action=pass, reason=client AWL",
                Program::Postgrey,
                action,
            ),
            (
                "Nov 24 02:27:10 mx postgrey[99]: [ID 197553 mail.notice] action=pass, reason=client AWL",
                Program::Postgrey,
                action,
            ),
            (
                "<21>Nov 24 02:27:10 mx postgrey[99]: action=pass, reason=client AWL",
                Program::Postgrey,
                action,
            ),
            (
                "<21>1 2026-11-24T02:27:10.1+01:00 mx postgrey 99 - - action=pass, reason=client AWL",
                Program::Postgrey,
                action,
            ),
            (
                "<21>1 2026-11-24T02:27:10Z mx postgrey 99 - [x@1 a=\"b\"] \u{feff}action=pass, reason=client AWL",
                Program::Postgrey,
                action,
            ),
            (
                "2026-11-24T02:27:10+01:00 action=pass, reason=client AWL",
                Program::Postgrey,
                action,
            ),
            (
                "2026-11-24T02:27:10+01:00 4A1B: action=pass, reason=client AWL",
                Program::Postgrey,
                queued,
            ),
            (
                "2026-11-24T02:27:10+01:00 tarpit whitelisted: a[192.0.2.1]",
                Program::Postgrey,
                "tarpit whitelisted: a[192.0.2.1]",
            ),
            ("action=pass, reason=client AWL", Program::Postgrey, action),
            (
                "Nov 24 02:27:10 mx postfix/smtpd[9]: connect from u[::1]",
                Program::Smtpd,
                "connect from u[::1]",
            ),
            (
                "Nov 24 02:27:10 mx postfix-in/submission/smtpd[9]: x",
                Program::Smtpd,
                "x",
            ),
            (
                "Nov 24 02:27:10 mx postfix/qmgr[9]: x: action=pass",
                Program::Other,
                "x: action=pass",
            ),
            (
                "Nov 24 02:27:10 mx rsyslogd-2177: imjournal: 236 messages lost due to rate-limiting",
                Program::Syslog,
                "imjournal: 236 messages lost due to rate-limiting",
            ),
            (
                "Nov 24 02:27:10 mx last message repeated 3 times",
                Program::Syslog,
                "last message repeated 3 times",
            ),
            (
                "Nov 24 02:27:10 mx evil: action=pass, reason=client AWL",
                Program::Other,
                action,
            ),
            ("", Program::Other, ""),
        ] {
            let head = split(&mut Times::new(1_800_000_000), line.as_bytes());
            assert_eq!(head.program, program, "{line}");
            assert_eq!(String::from_utf8_lossy(head.message), message, "{line}");
        }
    }
}
