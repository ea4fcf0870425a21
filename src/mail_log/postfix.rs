//! The lines of Postfix' smtpd about its clients.

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
    /// Empty for the null sender.
    pub sender: &'l [u8],
    /// Empty if there are several, at DATA.
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
    let envelope = &client[find(client, b" from=<").or_else(|| find(client, b" to=<"))?..];
    let value = |name: &[u8]| {
        let Some(at) = find(envelope, name) else {
            return &b""[..];
        };
        let value = &envelope[at + name.len()..];
        let end = find(value, b"> ").unwrap_or_else(|| value.len().saturating_sub(1));
        &value[..end]
    };
    Some(Refused {
        stage: text[..at]
            .rsplit(|&octet| octet == b' ')
            .next()
            .unwrap_or_default(),
        client_name: &client[..open],
        client_address: &client[open + 1..close],
        reply,
        sender: value(b" from=<"),
        recipient: value(b" to=<"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
