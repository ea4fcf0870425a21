//! The lines of Postfix' smtpd about its clients.

use std::borrow::Cow;

use memchr::memmem;

use super::find;

/// A client that Postfix refused for now, or let go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused<'l> {
    /// `RCPT` or `DATA`.
    pub stage: &'l [u8],
    /// `unknown` if it has none.
    pub client_name: &'l [u8],
    /// As Postfix writes it.
    pub client_address: &'l [u8],
    /// The reply, from its code on.
    pub reply: &'l [u8],
    /// With quotes where SMTP needs them, see [`without_quotes`]; empty for the null sender.
    pub sender: &'l [u8],
    /// The same; empty if there are several, at DATA.
    pub recipient: &'l [u8],
}

/// What a line of smtpd says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'l> {
    /// It refused a recipient or a mail.
    Reject(Refused<'l>),
    /// A client went away, or was silent too long, after it had named a recipient.
    BrokenOff,
    /// Something else.
    Other,
}

/// Reads a message of smtpd.
pub fn read(message: &[u8]) -> Said<'_> {
    let broken = [&b"lost connection after "[..], b"timeout after "];
    for start in broken {
        if let Some(rest) = message.strip_prefix(start) {
            return match rest.starts_with(b"RCPT ") || rest.starts_with(b"DATA ") {
                true => Said::BrokenOff,
                false => Said::Other,
            };
        }
    }
    match find(message, b": reject: ") {
        // What stands in front is NOQUEUE or the queue number.
        Some(at) if at <= 32 => reject(&message[at + b": reject: ".len()..]),
        _ => Said::Other,
    }
}

fn reject(text: &[u8]) -> Said<'_> {
    refused(text).map_or(Said::Other, Said::Reject)
}

/// Reads `RCPT from NAME[ADDRESS]: REPLY; from=<SENDER> to=<RECIPIENT> ...`.
pub fn refused(text: &[u8]) -> Option<Refused<'_>> {
    let at = find(text, b" from ")?;
    let client = &text[at + b" from ".len()..];
    let open = client.iter().position(|&octet| octet == b'[')?;
    let close = open + client[open..].iter().position(|&octet| octet == b']')?;
    // A port may follow.
    let reply = &client[close..];
    let reply = find(reply, b": ").map_or(&b""[..], |at| &reply[at + 2..]);
    // The recipient in the reply, and the name after HELO, may look like an envelope.
    let mut starts = memmem::find_iter(client, b" from=<");
    let (sender, recipient) = starts.find_map(|at| envelope(&client[at..]))?;
    Some(Refused {
        stage: text[..at]
            .rsplit(|&octet| octet == b' ')
            .next()
            .unwrap_or_default(),
        client_name: &client[..open],
        client_address: &client[open + 1..close],
        reply,
        sender,
        recipient,
    })
}

/// Sender and recipient of ` from=<SENDER> to=<RECIPIENT> proto=...`.
fn envelope(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let (sender, rest) = address(text.strip_prefix(b" from=<")?)?;
    let (recipient, rest) = match rest.strip_prefix(b" to=<") {
        Some(rest) => address(rest)?,
        None => (&b""[..], rest),
    };
    (rest.is_empty() || rest.starts_with(b" proto=")).then_some((sender, recipient))
}

/// An address, and what follows the bracket after it.
fn address(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let quoted = quoted_part(text).unwrap_or(0);
    let end = quoted + memchr::memchr(b'>', &text[quoted..])?;
    Some((&text[..end], &text[end + 1..]))
}

/// Octets of the quoted part with which an address begins.
fn quoted_part(text: &[u8]) -> Option<usize> {
    let mut octets = text.iter().enumerate();
    octets.next().filter(|(_, octet)| **octet == b'"')?;
    while let Some((at, octet)) = octets.next() {
        match octet {
            b'"' => return Some(at + 1),
            b'\\' => drop(octets.next()),
            _ => {}
        }
    }
    None
}

/// An address as Postfix tells it to policy servers: without the quotes of SMTP.
pub fn without_quotes(address: &[u8]) -> Cow<'_, [u8]> {
    let Some(end) = quoted_part(address) else {
        return Cow::Borrowed(address);
    };
    let mut plain = Vec::with_capacity(address.len());
    let mut octets = address[1..end - 1].iter();
    while let Some(octet) = octets.next() {
        let escaped = if *octet == b'\\' { octets.next() } else { None };
        plain.push(*escaped.unwrap_or(octet));
    }
    plain.extend_from_slice(&address[end..]);
    Cow::Owned(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_may_look_like_a_line() {
        let line = r#"NOQUEUE: reject: RCPT from u[192.0.2.1]: 450 4.2.0 <a> from=<b> to=<c>@d>: Greylisted; from=<"a> to=<\"b"@c> to=<"a> from=<b> to=<c>"@d> proto=ESMTP helo=<x; from=<e> to=<f> proto=g>"#;
        let Said::Reject(refused) = read(line.as_bytes()) else {
            panic!()
        };
        let shown = [refused.sender, refused.recipient].map(without_quotes);
        let shown = shown.map(|text| String::from_utf8_lossy(&text).into_owned());
        assert_eq!(shown, [r#"a> to=<"b@c"#, "a> from=<b> to=<c>@d"]);
        for (address, plain) in [
            ("", ""),
            ("a@b", "a@b"),
            (r#""a b"@c"#, "a b@c"),
            (r#""a\\b\""@c"#, r#"a\b"@c"#),
            (r#""a"#, r#""a"#),
            (r#""a\"#, r#""a\"#),
        ] {
            assert_eq!(without_quotes(address.as_bytes()), plain.as_bytes());
        }
    }

    #[test]
    fn rejects_are_read() {
        let line = "NOQUEUE: reject: RCPT from mail.example[192.0.2.1]:25: 450 4.2.0 <c@d>: \
             Recipient address rejected: Greylisted, see http://x/; from=<a@b> to=<c@d> proto=ESMTP helo=<x>";
        let Said::Reject(refused) = read(line.as_bytes()) else {
            panic!()
        };
        assert_eq!(refused.stage, b"RCPT");
        assert_eq!(refused.client_name, b"mail.example");
        assert_eq!(refused.client_address, b"192.0.2.1");
        assert_eq!(
            (refused.sender, refused.recipient),
            (&b"a@b"[..], &b"c@d"[..])
        );
        assert!(refused.reply.starts_with(b"450 4.2.0 "));
        for (line, expected) in [
            (
                "lost connection after RCPT from u[192.0.2.1]",
                Said::BrokenOff,
            ),
            (
                "timeout after DATA (0 bytes) from u[192.0.2.1]",
                Said::BrokenOff,
            ),
            ("lost connection after EHLO from u[192.0.2.1]", Said::Other),
            ("connect from u[192.0.2.1]", Said::Other),
            ("NOQUEUE: reject: RCPT from u", Said::Other),
        ] {
            assert_eq!(read(line.as_bytes()), expected, "{line}");
        }
    }
}
