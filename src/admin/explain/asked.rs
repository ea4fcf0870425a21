//! The request to explain: from options, from a policy request on standard
//! input, or from a line of a log.

use std::io::Read;

use crate::admin::failure::Failure;
use crate::admin::options::Id;
use crate::admin::words::Words;
use crate::policy::request::{Attribute, Event, MAX_REQUEST, Request, RequestReader};

/// What options set, and what stands there without them.
const OPTIONS: [(Id, Attribute); 5] = [
    (Id::ClientAddress, Attribute::ClientAddress),
    (Id::ClientName, Attribute::ClientName),
    (Id::Sender, Attribute::Sender),
    (Id::Recipient, Attribute::Recipient),
    (Id::State, Attribute::ProtocolState),
];

/// Makes the request; options go before what a log or a request says.
pub fn request(words: &Words) -> Result<Request, Failure> {
    let log = words.octets(Id::Log);
    let mut request = match (words.has(Id::Request), log) {
        (true, Some(_)) => {
            return Err(Failure::usage(
                "ERROR: --request and --log exclude each other",
            ));
        }
        (true, None) => read_request(&read_input()?)?,
        (false, Some(b"-")) => read_log_line(&read_input()?)?,
        (false, Some(line)) => read_log_line(line)?,
        (false, None) if words.has(Id::ClientAddress) => plain_request(),
        (false, None) => {
            return Err(Failure::usage(
                "ERROR: --client-address, --request or --log must be specified",
            ));
        }
    };
    for (id, attribute) in OPTIONS {
        if let Some(value) = words.octets(id) {
            request.set(attribute, without_brackets(value));
        }
    }
    Ok(request)
}

/// What Postfix sends of a client without a name and a mail without a sender.
fn plain_request() -> Request {
    let mut request = Request::default();
    request.set(Attribute::ProtocolState, b"RCPT");
    request.set(Attribute::ClientName, b"unknown");
    request.set(Attribute::Sender, b"");
    request.set(Attribute::Recipient, b"");
    request
}

fn without_brackets(value: &[u8]) -> &[u8] {
    let inside = value
        .strip_prefix(b"<")
        .and_then(|rest| rest.strip_suffix(b">"));
    inside.unwrap_or(value)
}

fn read_input() -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    let limit = MAX_REQUEST as u64 + 1;
    let read = std::io::stdin().take(limit).read_to_end(&mut input);
    read.map_err(|error| Failure::error(format!("standard input: {error}")))?;
    Ok(input)
}

/// The first policy request of the input; the empty line at its end may be
/// missing.
fn read_request(input: &[u8]) -> Result<Request, Failure> {
    let mut reader = RequestReader::default();
    let whole = [input, b"\n\n"].concat();
    let mut rest = &whole[..];
    while let Some(event) = reader.next_event(&mut rest) {
        match event {
            Event::Request => return Ok(reader.request().clone()),
            Event::Garbage(_) => {}
            Event::TooLarge(limit) => return Err(Failure::error(format!("the request: {limit}"))),
            Event::Ping | Event::Unrecognized => break,
        }
    }
    Err(Failure::error(
        "standard input is no policy request: request=smtpd_access_policy is missing",
    ))
}

/// The request that is told by a line of postgrey's or of Postfix.
fn read_log_line(line: &[u8]) -> Result<Request, Failure> {
    let line = line
        .split(|&octet| octet == b'\n')
        .next()
        .unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    own_line(line).or_else(|| postfix_line(line)).ok_or_else(|| {
        Failure::error(
            "the line has no client: neither client_address=... nor from NAME[ADDRESS]: ... from=<...> to=<...>",
        )
    })
}

/// `[QUEUE_ID: ]action=..., client_name=..., client_address=..., sender=...,
/// recipient=...`; what was empty was left out.
fn own_line(line: &[u8]) -> Option<Request> {
    let start = find(line, b"action=")?;
    let mut request = plain_request();
    let mut rest = &line[start..];
    let mut has_address = false;
    let fields = [
        (Attribute::ClientName, &b", client_name="[..]),
        (Attribute::ClientAddress, b", client_address="),
        (Attribute::Sender, b", sender="),
        (Attribute::Recipient, b", recipient="),
    ];
    for (index, (attribute, name)) in fields.iter().enumerate() {
        let first_of = |text: &[u8], names: &[(Attribute, &[u8])]| {
            names.iter().filter_map(|(_, name)| find(text, name)).min()
        };
        let later = &fields[index + 1..];
        // After the start of a later field it is part of that one's value.
        match find(rest, name) {
            Some(at) if first_of(rest, later).is_none_or(|later| at < later) => {
                rest = &rest[at + name.len()..];
            }
            _ => continue,
        }
        let end = first_of(rest, later).unwrap_or(rest.len());
        request.set(*attribute, &rest[..end]);
        has_address |= *attribute == Attribute::ClientAddress;
    }
    has_address.then_some(request)
}

/// `...: RCPT from NAME[ADDRESS]: ...; from=<SENDER> to=<RECIPIENT> ...`.
fn postfix_line(line: &[u8]) -> Option<Request> {
    let mut request = plain_request();
    let at = find(line, b" from ")? + b" from ".len();
    if line[..at].ends_with(b" DATA from ") {
        request.set(Attribute::ProtocolState, b"DATA");
    }
    let client = &line[at..];
    let open = client.iter().position(|&octet| octet == b'[')?;
    let close = open + client[open..].iter().position(|&octet| octet == b']')?;
    request.set(Attribute::ClientName, &client[..open]);
    request.set(Attribute::ClientAddress, &client[open + 1..close]);
    let envelope = &client[find(client, b" from=<").or_else(|| find(client, b" to=<"))?..];
    for (attribute, name) in [
        (Attribute::Sender, &b" from=<"[..]),
        (Attribute::Recipient, b" to=<"),
    ] {
        if let Some(at) = find(envelope, name) {
            let value = &envelope[at + name.len()..];
            let end = find(value, b"> ").unwrap_or_else(|| value.len().saturating_sub(1));
            request.set(attribute, &value[..end]);
        }
    }
    Some(request)
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_is(request: &Request, [state, address, name, sender, recipient]: [&str; 5]) {
        for (attribute, value) in [
            (Attribute::ProtocolState, state),
            (Attribute::ClientAddress, address),
            (Attribute::ClientName, name),
            (Attribute::Sender, sender),
            (Attribute::Recipient, recipient),
        ] {
            let own = String::from_utf8_lossy(request.text(attribute));
            assert_eq!(own, value, "{attribute:?}");
        }
    }

    #[test]
    fn lines_of_both_logs_are_read() {
        for (line, expected) in [
            (
                "Nov 24 02:27:10 mx postgrey[99]: 4A1B: action=greylist, reason=early-retry (20s missing), \
                 client_name=mail.example, client_address=192.0.2.1, sender=a@b, recipient=c@d\n",
                ["RCPT", "192.0.2.1", "mail.example", "a@b", "c@d"],
            ),
            (
                "action=pass, reason=client AWL, client_address=2001:db8::1, recipient=c, sender=x@d",
                ["RCPT", "2001:db8::1", "unknown", "", "c, sender=x@d"],
            ),
            (
                "Nov 24 02:27:10 mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from mail.example[192.0.2.1]: \
                 450 4.2.0 <c@d>: Recipient address rejected: Greylisted, see http://x/help/d.html; \
                 from=<a@b> to=<c@d> proto=ESMTP helo=<mail.example>",
                ["RCPT", "192.0.2.1", "mail.example", "a@b", "c@d"],
            ),
            (
                "NOQUEUE: reject: DATA from unknown[2001:db8::1]:4321: 450 4.2.0 <x>; from=<> proto=SMTP",
                ["DATA", "2001:db8::1", "unknown", "", ""],
            ),
            (
                "reject: RCPT from u[192.0.2.1]: 450 no; from=<a b@c> to=<d@e>",
                ["RCPT", "192.0.2.1", "u", "a b@c", "d@e"],
            ),
        ] {
            assert_is(&read_log_line(line.as_bytes()).unwrap(), expected);
        }
        for line in [
            "",
            "action=pass",
            "connect from u[192.0.2.1]",
            "x from [",
            "from=<a>",
        ] {
            assert!(read_log_line(line.as_bytes()).is_err(), "{line}");
        }
    }

    #[test]
    fn a_policy_request_is_read_with_or_without_its_end() {
        let text = "request=smtpd_access_policy\nclient_address=192.0.2.1\nclient_name=n\nsender=a@b\n\
                    recipient=c@d\nprotocol_state=DATA";
        for end in ["", "\n", "\n\n", "\n\nrequest=other\n\n"] {
            let request = read_request(format!("{text}{end}").as_bytes()).unwrap();
            assert_is(&request, ["DATA", "192.0.2.1", "n", "a@b", "c@d"]);
        }
        for text in ["", "\n\n", "client_address=192.0.2.1\n\n", "nonsense"] {
            assert!(read_request(text.as_bytes()).is_err(), "{text}");
        }
        assert!(read_request(&b"a=b\n".repeat(70_000)).is_err());
    }
}
