//! The request to explain, and its time: from options, from a policy request
//! on standard input, or from a line of a log.

use std::io::Read;

use super::log_line::{self, plain_request};
use crate::admin::failure::Failure;
use crate::admin::options::Id;
use crate::admin::words::Words;
use crate::policy::number::number_of_text;
use crate::policy::request::{Attribute, Event, MAX_REQUEST, Request, RequestReader};

/// What options set, and what stands there without them.
const OPTIONS: [(Id, Attribute); 5] = [
    (Id::ClientAddress, Attribute::ClientAddress),
    (Id::ClientName, Attribute::ClientName),
    (Id::Sender, Attribute::Sender),
    (Id::Recipient, Attribute::Recipient),
    (Id::State, Attribute::ProtocolState),
];

/// A request, and when it was made if that is said.
pub struct Asked {
    /// The request.
    pub request: Request,
    /// In seconds since 1970.
    pub time: Option<f64>,
}

fn of_line(line: &[u8], now: f64) -> Result<Asked, Failure> {
    let (request, time) = log_line::read(line, now)?;
    Ok(Asked { request, time })
}

/// Makes the request; options go before what a log or a request says. `now` is
/// for lines that do not name the year.
pub fn request(words: &Words, now: f64) -> Result<Asked, Failure> {
    let log = words.octets(Id::Log);
    let mut asked = match (words.has(Id::Request), log) {
        (true, Some(_)) => {
            return Err(Failure::usage(
                "ERROR: --request and --log exclude each other",
            ));
        }
        (true, None) => read_request(&read_input()?)?,
        (false, Some(b"-")) => of_line(&read_input()?, now)?,
        (false, Some(line)) => of_line(line, now)?,
        (false, None) if words.has(Id::ClientAddress) => Asked {
            request: plain_request(),
            time: None,
        },
        (false, None) => {
            return Err(Failure::usage(
                "ERROR: --client-address, --request or --log must be specified",
            ));
        }
    };
    for (id, attribute) in OPTIONS {
        if let Some(value) = words.octets(id) {
            asked.request.set(attribute, without_brackets(value));
        }
    }
    Ok(asked)
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
fn read_request(input: &[u8]) -> Result<Asked, Failure> {
    let mut reader = RequestReader::default();
    let whole = [input, b"\n\n"].concat();
    let mut rest = &whole[..];
    while let Some(event) = reader.next_event(&mut rest) {
        match event {
            Event::Request => {
                let request = reader.request().clone();
                let time = request.get(Attribute::PolicyTestTime);
                let time = time.map(number_of_text);
                return Ok(Asked { request, time });
            }
            Event::Garbage(_) => {}
            Event::TooLarge(limit) => return Err(Failure::error(format!("the request: {limit}"))),
            Event::Ping | Event::Unrecognized => break,
        }
    }
    Err(Failure::error(
        "standard input is no policy request: request=smtpd_access_policy is missing",
    ))
}

#[cfg(test)]
mod tests {
    use super::log_line::tests::assert_is;
    use super::*;

    #[test]
    fn a_policy_request_is_read_with_or_without_its_end() {
        let text = "request=smtpd_access_policy\nclient_address=192.0.2.1\nclient_name=n\nsender=a@b\n\
                    recipient=c@d\nprotocol_state=DATA";
        for end in ["", "\n", "\n\n", "\n\nrequest=other\n\n"] {
            let asked = read_request(format!("{text}{end}").as_bytes()).unwrap();
            assert_is(&asked.request, ["DATA", "192.0.2.1", "n", "a@b", "c@d"]);
        }
        for text in ["", "\n\n", "client_address=192.0.2.1\n\n", "nonsense"] {
            assert!(read_request(text.as_bytes()).is_err(), "{text}");
        }
        assert!(read_request(&b"a=b\n".repeat(70_000)).is_err());
    }
}
