//! The lines of the server: `[QUEUE_ID: ]action=..., reason=..., client_name=...`.
//!
//! [`crate::policy::line`] writes them. What was empty was left out.

use memchr::memmem;

use super::find;

/// A request, as its line tells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Logged<'l> {
    /// `pass`, `greylist`, `tarpit`, or what another version says.
    pub action: &'l [u8],
    /// Without what is different each time: `early-retry`.
    pub reason: &'l [u8],
    /// Seconds that the triplet waited, where the line tells.
    pub delay: Option<u32>,
    /// Empty if it has none.
    pub client_name: &'l [u8],
    /// Without a length, which the original 1.36 of some distributions adds.
    pub client_address: &'l [u8],
    /// Empty for the null sender.
    pub sender: &'l [u8],
    /// Empty if there are several, at DATA.
    pub recipient: &'l [u8],
}

/// What a line of the server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'l> {
    /// A request was answered; how often, since syslogd puts equal lines together.
    Request(Logged<'l>, u64),
    /// A client was put on the auto-whitelist; true if by waiting in the tarpit.
    Whitelisted(bool),
    /// A line about a request that is none that is known.
    Unknown,
    /// Start, end, maintenance, trouble.
    Other,
}

/// Reads a message of the server.
pub fn read(message: &[u8]) -> Said<'_> {
    let (message, times) = without_repetition(without_time(message));
    let action = without_queue_id(message);
    match action.starts_with(b"action=") {
        true => read_action(action).map_or(Said::Unknown, |found| Said::Request(found, times)),
        _ if message.starts_with(b"whitelisted: ") => Said::Whitelisted(false),
        _ if message.starts_with(b"tarpit whitelisted: ") => Said::Whitelisted(true),
        _ => Said::Other,
    }
}

/// What `--log-time` puts in front, where the journal or a container engine takes standard
/// error and has a time of its own: `2026-11-24T02:27:10+01:00 `.
fn without_time(message: &[u8]) -> &[u8] {
    match message.get(..26) {
        Some([b'2', _, _, _, b'-', .., b' ']) if message[10] == b'T' => &message[26..],
        _ => message,
    }
}

/// `message repeated 3 times: [ ...]`, of rsyslog.
pub fn without_repetition(message: &[u8]) -> (&[u8], u64) {
    let read = || {
        let rest = message.strip_prefix(b"message repeated ")?;
        let (times, rest) = take_number(rest)?;
        let inner = rest.strip_prefix(b" times: [")?.strip_suffix(b"]")?;
        Some((inner.trim_ascii_start(), u64::from(times)))
    };
    read().unwrap_or((message, 1))
}

/// `last message repeated 3 times`, of syslogd: how often.
pub fn repetitions(message: &[u8]) -> Option<u64> {
    let (times, rest) = take_number(message.strip_prefix(b"last message repeated ")?)?;
    rest.starts_with(b" time").then_some(u64::from(times))
}

fn take_number(text: &[u8]) -> Option<(u32, &[u8])> {
    let digits = text.iter().take_while(|d| d.is_ascii_digit()).count();
    let number = std::str::from_utf8(&text[..digits]).ok()?.parse().ok()?;
    Some((number, &text[digits..]))
}

/// `QUEUE_ID: ` may stand in front.
fn without_queue_id(message: &[u8]) -> &[u8] {
    let id = message.iter().take_while(|o| o.is_ascii_alphanumeric());
    match message[id.count()..].strip_prefix(b": ") {
        Some(rest) => rest,
        None => message,
    }
}

const FIELDS: [&[u8]; 4] = [
    b", client_name=",
    b", client_address=",
    b", sender=",
    b", recipient=",
];
/// Places in [`FIELDS`].
const SENDER: usize = 2;
const RECIPIENT: usize = 3;

/// Reads from `action=` on; `None` without a reason.
fn read_action(text: &[u8]) -> Option<Logged<'_>> {
    let rest = text.strip_prefix(b"action=")?;
    let comma = memchr::memchr(b',', rest)?;
    let said = rest[comma..].strip_prefix(b", reason=")?;
    let mut logged = Logged {
        action: &rest[..comma],
        ..Logged::default()
    };
    let rest = said;
    let start = memchr::memchr_iter(b',', rest)
        .find(|&at| field_at(&rest[at..], 0).is_some())
        .unwrap_or(rest.len());
    (logged.reason, logged.delay) = split_reason(&rest[..start]);
    let is_word =
        |text: &[u8]| !text.is_empty() && text.iter().all(|octet| octet.is_ascii_graphic());
    if !is_word(logged.action) || logged.reason.is_empty() {
        return None;
    }
    [
        logged.client_name,
        logged.client_address,
        logged.sender,
        logged.recipient,
    ] = fields(&rest[start..]);
    logged.client_address = without_length(logged.client_address);
    Some(logged)
}

/// Name, address, sender and recipient of a client, empty where they are left out.
/// They stand in this order: after the start of a later field all is part of its value. A
/// sender may hold what looks like a recipient, since strangers choose it: of several the
/// last one is it.
pub fn fields(text: &[u8]) -> [&[u8]; 4] {
    let mut values = [&b""[..]; 4];
    let (mut next, mut open) = (0, None);
    for at in memchr::memchr_iter(b',', text) {
        let Some(index) = field_at(&text[at..], next) else {
            continue;
        };
        if let Some((index, start)) = open {
            values[index] = &text[start..at];
        }
        open = Some((index, at + FIELDS[index].len()));
        next = index + 1;
        if index == SENDER {
            break;
        }
    }
    if let Some((SENDER, start)) = open
        && let Some(end) = memmem::rfind(&text[start..], FIELDS[RECIPIENT])
    {
        values[SENDER] = &text[start..start + end];
        open = Some((RECIPIENT, start + end + FIELDS[RECIPIENT].len()));
    }
    if let Some((index, start)) = open {
        values[index] = &text[start..];
    }
    values
}

/// Which field begins here, of this one and those after it.
fn field_at(text: &[u8], first: usize) -> Option<usize> {
    (first..FIELDS.len()).find(|&index| text.starts_with(FIELDS[index]))
}

/// The reason without its numbers, and the delay after it.
fn split_reason(text: &[u8]) -> (&[u8], Option<u32>) {
    let (text, delay) = match find(text, b", delay=") {
        Some(at) => (
            &text[..at],
            take_number(&text[at + b", delay=".len()..]).map(|(delay, _)| delay),
        ),
        None => (text, None),
    };
    match find(text, b" (") {
        Some(at) if text.ends_with(b")") => (&text[..at], delay),
        _ => (text, delay),
    }
}

/// A client's address without the length that makes it a whole one.
pub fn without_length(text: &[u8]) -> &[u8] {
    let is_ipv6 = text.contains(&b':');
    let length: &[u8] = if is_ipv6 { b"/128" } else { b"/32" };
    text.strip_suffix(length).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(line: &str) -> [String; 7] {
        let Said::Request(logged, _) = read(line.as_bytes()) else {
            panic!("{line}")
        };
        let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
        [
            text(logged.action),
            text(logged.reason),
            logged
                .delay
                .map_or(String::new(), |delay| delay.to_string()),
            text(logged.client_name),
            text(logged.client_address),
            text(logged.sender),
            text(logged.recipient),
        ]
    }

    #[test]
    fn lines_of_all_versions_are_read() {
        for (line, expected) in [
            (
                "4A1B: action=greylist, reason=early-retry (20s missing), client_name=mail.example, \
                 client_address=192.0.2.1, sender=a@b, recipient=c@d",
                [
                    "greylist",
                    "early-retry",
                    "",
                    "mail.example",
                    "192.0.2.1",
                    "a@b",
                    "c@d",
                ],
            ),
            (
                "action=pass, reason=triplet found, delay=312, client_name=u, client_address=192.0.2.1, recipient=c@d",
                ["pass", "triplet found", "312", "u", "192.0.2.1", "", "c@d"],
            ),
            (
                "action=pass, reason=client AWL, client_address=2001:db8::1, recipient=c, sender=x@d",
                [
                    "pass",
                    "client AWL",
                    "",
                    "",
                    "2001:db8::1",
                    "",
                    "c, sender=x@d",
                ],
            ),
            (
                "action=greylist, reason=new, client_address=192.0.2.7, sender=a, recipient=b@c, recipient=c@d",
                [
                    "greylist",
                    "new",
                    "",
                    "",
                    "192.0.2.7",
                    "a, recipient=b@c",
                    "c@d",
                ],
            ),
            (
                "action=greylist, reason=new, client_name=n, client_address=192.0.2.7/32, sender=a, b@c, recipient=c@d",
                ["greylist", "new", "", "n", "192.0.2.7", "a, b@c", "c@d"],
            ),
            (
                "action=greylist, reason=new, client_name=n, client_address=2001:DB8:0:0:0:0:0:7/128",
                ["greylist", "new", "", "n", "2001:DB8:0:0:0:0:0:7", "", ""],
            ),
            (
                "action=pass, reason=something of tomorrow",
                ["pass", "something of tomorrow", "", "", "", "", ""],
            ),
        ] {
            assert_eq!(logged(line), expected, "{line}");
        }
    }

    #[test]
    fn other_lines_are_told_apart() {
        for (line, expected) in [
            (
                "whitelisted: a.example[192.0.2.1]",
                Said::Whitelisted(false),
            ),
            ("tarpit whitelisted: [192.0.2.1]", Said::Whitelisted(true)),
            ("cleaning up old entries...", Said::Other),
            ("ignoring garbage: <action=pass, reason=x>", Said::Other),
            (
                "2026-11-24T02:27:10+01:00 whitelisted: [192.0.2.1]",
                Said::Whitelisted(false),
            ),
            ("action=pass", Said::Unknown),
            ("action=, reason=x", Said::Unknown),
            ("", Said::Other),
        ] {
            assert_eq!(read(line.as_bytes()), expected, "{line}");
        }
        let Said::Request(logged, 3) =
            read(b"message repeated 3 times: [ action=pass, reason=client AWL, sender=a@b]")
        else {
            panic!()
        };
        assert_eq!(logged.sender, b"a@b");
        assert_eq!(repetitions(b"last message repeated 12 times"), Some(12));
        assert_eq!(repetitions(b"last message repeated 1 time"), Some(1));
        assert_eq!(repetitions(b"last message repeated"), None);
    }
}
