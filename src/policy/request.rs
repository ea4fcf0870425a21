//! Policy requests: from the bytes of a connection to attributes.
//!
//! First step on the way of a request. The protocol is Postfix's
//! (SMTPD_POLICY_README): lines `name=value`, an empty line ends the request.
//! What counts as an attribute, what is garbage and what is cut follows the
//! original; the bounds on lines and requests are ours, so that a hostile peer
//! cannot make the server hold more than [`MAX_REQUEST`] octets.

pub use super::limits::{Limit, MAX_ATTRIBUTES, MAX_LINE, MAX_REQUEST};

/// Octets kept of a name and of a value, as in the original.
pub const MAX_ATTRIBUTE: usize = 512;
/// Octets of a garbage line that are logged, as in the original.
const GARBAGE_SHOWN: usize = 100;
/// The type of a request by which postgreyctl finds out whether the server
/// answers.
pub const PING: &[u8] = b"postgrey_ping";
/// Buffers that grew beyond this for one request are given back afterwards.
const KEPT_CAPACITY: usize = 4096;

/// The attributes the policy looks at; all others are read and dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are Postfix's
pub enum Attribute {
    Request,
    ProtocolState,
    ClientAddress,
    ClientName,
    Sender,
    Recipient,
    QueueId,
    Instance,
    EtrnDomain,
    PolicyTestTime,
}

impl Attribute {
    const COUNT: usize = 10;

    fn of_name(name: &[u8]) -> Option<Attribute> {
        Some(match name {
            b"request" => Attribute::Request,
            b"protocol_state" => Attribute::ProtocolState,
            b"client_address" => Attribute::ClientAddress,
            b"client_name" => Attribute::ClientName,
            b"sender" => Attribute::Sender,
            b"recipient" => Attribute::Recipient,
            b"queue_id" => Attribute::QueueId,
            b"instance" => Attribute::Instance,
            b"etrn_domain" => Attribute::EtrnDomain,
            b"policy_test_time" => Attribute::PolicyTestTime,
            _ => return None,
        })
    }

    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Attribute::Request => "request",
            Attribute::ProtocolState => "protocol_state",
            Attribute::ClientAddress => "client_address",
            Attribute::ClientName => "client_name",
            Attribute::Sender => "sender",
            Attribute::Recipient => "recipient",
            Attribute::QueueId => "queue_id",
            Attribute::Instance => "instance",
            Attribute::EtrnDomain => "etrn_domain",
            Attribute::PolicyTestTime => "policy_test_time",
        }
    }
}

/// The attributes of one request. The last of equal names counts.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Values one after the other; replaced values stay until the reset.
    values: Vec<u8>,
    /// Start and end of each attribute's value.
    spans: [Option<(usize, usize)>; Attribute::COUNT],
}

impl Request {
    /// The value, cut to [`MAX_ATTRIBUTE`] octets; `None` if it was not sent.
    pub fn get(&self, attribute: Attribute) -> Option<&[u8]> {
        let (start, end) = self.spans[attribute as usize]?;
        self.values.get(start..end)
    }

    /// The value, empty if it was not sent.
    pub fn text(&self, attribute: Attribute) -> &[u8] {
        self.get(attribute).unwrap_or_default()
    }

    /// Sets a value, cut to [`MAX_ATTRIBUTE`] octets.
    pub fn set(&mut self, attribute: Attribute, value: &[u8]) {
        let value = &value[..value.len().min(MAX_ATTRIBUTE)];
        let start = self.values.len();
        self.values.extend_from_slice(value);
        self.spans[attribute as usize] = Some((start, self.values.len()));
    }

    /// Takes all values out.
    pub fn reset(&mut self) {
        self.values.clear();
        self.values.shrink_to(KEPT_CAPACITY);
        self.spans = [None; Attribute::COUNT];
    }
}

/// What the reader found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole policy request: see [`RequestReader::request`].
    Request,
    /// The end of a request of the type [`PING`], from this machine.
    Ping,
    /// The end of a request of another type; it gets no answer.
    Unrecognized,
    /// The end of a request that broke a bound; it is answered without being
    /// looked at.
    TooLarge(Limit),
    /// A line that is no attribute, cut to 100 octets; the request goes on.
    Garbage(Vec<u8>),
}

/// Reads requests from the bytes of one connection, however they are cut.
#[derive(Debug, Default)]
pub struct RequestReader {
    /// The start of a line whose end has not come yet.
    line: Vec<u8>,
    /// Octets and attributes of the present request.
    size: usize,
    attributes: usize,
    limit: Option<Limit>,
    request: Request,
    /// The last event ended a request: the next byte starts a new one.
    ended: bool,
    is_remote: bool,
    /// A request had a time that was ignored, since this was last asked.
    has_ignored_time: bool,
}

impl RequestReader {
    /// A reader for a peer on another machine, which is not to choose the time of
    /// its requests, nor to ping: their `policy_test_time` is taken for absent.
    pub fn of_remote_peer() -> Self {
        RequestReader {
            is_remote: true,
            ..RequestReader::default()
        }
    }

    /// True once after a request that wanted to choose its time and may not.
    pub fn take_ignored_time(&mut self) -> bool {
        std::mem::take(&mut self.has_ignored_time)
    }

    /// True if the request of the last event is a ping.
    pub fn is_ping(&self) -> bool {
        self.request.text(Attribute::Request) == PING
    }

    /// The request of the last [`Event::Request`] or [`Event::Unrecognized`].
    pub fn request(&self) -> &Request {
        &self.request
    }

    /// Reads up to the next event and takes what it has read off `input`.
    /// `None`: the input is used up.
    pub fn next_event(&mut self, input: &mut &[u8]) -> Option<Event> {
        while !input.is_empty() {
            if self.ended {
                self.start_request();
            }
            let end = memchr::memchr(b'\n', input);
            let (piece, rest) = match end {
                Some(end) => (&input[..end], &input[end + 1..]),
                None => (*input, &input[input.len()..]),
            };
            self.count_size(piece.len() + usize::from(end.is_some()));
            *input = rest;
            if end.is_none() {
                self.keep_piece(piece);
                return None;
            }
            let event = if self.line.is_empty() && piece.len() <= MAX_LINE {
                self.read_line(piece)
            } else {
                self.keep_piece(piece);
                let line = std::mem::take(&mut self.line);
                let event = self.read_line(&line);
                self.line = line;
                self.line.clear();
                self.line.shrink_to(KEPT_CAPACITY);
                event
            };
            if event.is_some() {
                return event;
            }
        }
        None
    }

    fn start_request(&mut self) {
        self.request.reset();
        self.size = 0;
        self.attributes = 0;
        self.limit = None;
        self.ended = false;
    }

    fn count_size(&mut self, octets: usize) {
        self.size = self.size.saturating_add(octets);
        if self.size > MAX_REQUEST {
            self.limit.get_or_insert(Limit::Request);
        }
    }

    /// Keeps the start of a line; of a request that is refused anyway just
    /// enough to tell an empty line.
    fn keep_piece(&mut self, piece: &[u8]) {
        if self.line.len() + piece.len() > MAX_LINE {
            self.limit.get_or_insert(Limit::Line);
        }
        let most = if self.limit.is_some() { 2 } else { MAX_LINE };
        let room = most.saturating_sub(self.line.len()).min(piece.len());
        self.line.extend_from_slice(&piece[..room]);
    }

    fn read_line(&mut self, line: &[u8]) -> Option<Event> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            self.ended = true;
            return Some(match self.limit {
                Some(limit) => Event::TooLarge(limit),
                None => match self.request.text(Attribute::Request) {
                    b"smtpd_access_policy" => Event::Request,
                    PING if !self.is_remote => Event::Ping,
                    _ => Event::Unrecognized,
                },
            });
        }
        if self.limit.is_some() {
            return None;
        }
        let Some((name, value)) = split_attribute(line) else {
            return Some(Event::Garbage(
                line[..line.len().min(GARBAGE_SHOWN)].to_vec(),
            ));
        };
        self.attributes += 1;
        if self.attributes > MAX_ATTRIBUTES {
            self.limit = Some(Limit::Attributes);
        } else if let Some(attribute) = Attribute::of_name(name) {
            match attribute {
                Attribute::PolicyTestTime if self.is_remote => {
                    self.has_ignored_time = true;
                }
                _ => self.request.set(attribute, value),
            }
        }
        None
    }
}

/// Name and value of a line; the name starts after the last leading `=`.
/// `None` if there is no name or no `=` after it.
fn split_attribute(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = line.iter().position(|&b| b != b'=')?;
    let line = &line[start..];
    let end = memchr::memchr(b'=', line)?;
    Some((&line[..end], &line[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(input: &[u8]) -> (Vec<Event>, RequestReader) {
        let mut reader = RequestReader::default();
        let mut rest = input;
        let mut events = Vec::new();
        while let Some(event) = reader.next_event(&mut rest) {
            events.push(event);
        }
        assert!(rest.is_empty());
        (events, reader)
    }

    #[test]
    fn a_request_is_read_with_lf_and_crlf() {
        for text in [
            &b"request=smtpd_access_policy\nsender=a@b\n\n"[..],
            b"request=smtpd_access_policy\r\nsender=a@b\r\n\r\n",
        ] {
            let (found, reader) = events(text);
            assert_eq!(found, [Event::Request]);
            assert_eq!(reader.request().text(Attribute::Sender), b"a@b");
            assert_eq!(reader.request().get(Attribute::Recipient), None);
        }
    }

    #[test]
    fn the_last_of_equal_names_counts() {
        let (_, reader) = events(b"request=smtpd_access_policy\nsender=a\nsender=b\n\n");
        assert_eq!(reader.request().text(Attribute::Sender), b"b");
    }

    #[test]
    fn requests_do_not_share_attributes() {
        let mut reader = RequestReader::default();
        let mut input =
            &b"request=smtpd_access_policy\nsender=a\n\nrequest=smtpd_access_policy\n\n"[..];
        assert_eq!(reader.next_event(&mut input), Some(Event::Request));
        assert_eq!(reader.next_event(&mut input), Some(Event::Request));
        assert_eq!(reader.request().get(Attribute::Sender), None);
    }

    #[test]
    fn leading_equal_signs_are_no_part_of_the_name() {
        for (line, expected) in [
            (&b"a=b"[..], Some((&b"a"[..], &b"b"[..]))),
            (b"=foo=bar", Some((b"foo", b"bar"))),
            (b"a==b", Some((b"a", b"=b"))),
            (b"a=", Some((b"a", b""))),
            (b" sp ace =x", Some((b" sp ace ", b"x"))),
            (b"==x", None),
            (b"=x", None),
            (b"=", None),
            (b"noise", None),
        ] {
            assert_eq!(split_attribute(line), expected, "{line:?}");
        }
    }

    #[test]
    fn garbage_is_reported_and_the_request_goes_on() {
        let long = [b'x'; 150];
        let mut text = b"request=smtpd_access_policy\n".to_vec();
        text.extend_from_slice(&long);
        text.extend_from_slice(b"\n\n");
        let (found, _) = events(&text);
        assert_eq!(
            found,
            [Event::Garbage(long[..100].to_vec()), Event::Request]
        );
    }

    #[test]
    fn a_carriage_return_inside_a_line_belongs_to_it() {
        let (found, reader) = events(b"request=smtpd_access_policy\nsender=a\rb\r\r\n\n");
        assert_eq!(found, [Event::Request]);
        assert_eq!(reader.request().text(Attribute::Sender), b"a\rb\r");
    }

    #[test]
    fn surplus_empty_lines_are_requests_without_a_type() {
        let (found, reader) = events(b"\n\nrequest=other\n\n");
        assert_eq!(
            found,
            [
                Event::Unrecognized,
                Event::Unrecognized,
                Event::Unrecognized
            ]
        );
        assert_eq!(reader.request().text(Attribute::Request), b"other");
    }

    #[test]
    fn values_are_cut_at_512_octets_and_lines_may_be_longer() {
        let mut text = b"request=smtpd_access_policy\nsender=".to_vec();
        text.extend_from_slice(&[b'x'; 40000]);
        text.extend_from_slice(b"\n\n");
        let (found, reader) = events(&text);
        assert_eq!(found, [Event::Request]);
        assert_eq!(
            reader.request().text(Attribute::Sender).len(),
            MAX_ATTRIBUTE
        );
    }

    #[test]
    fn bounds_are_kept_and_the_next_request_is_read() {
        let line = [b"x=".to_vec(), vec![b'y'; MAX_LINE]].concat();
        let many = b"a=b\n".repeat(MAX_ATTRIBUTES + 1);
        let large = [b"x=".to_vec(), vec![b'y'; 60_000], b"\n".to_vec()]
            .concat()
            .repeat(5);
        for (body, limit) in [
            (line, Limit::Line),
            (many, Limit::Attributes),
            (large, Limit::Request),
        ] {
            for step in [1000, usize::MAX] {
                let text = [&body[..], b"\n\nrequest=smtpd_access_policy\n\n"].concat();
                let mut reader = RequestReader::default();
                let mut found = Vec::new();
                for mut piece in text.chunks(step.min(text.len())) {
                    while let Some(event) = reader.next_event(&mut piece) {
                        found.push(event);
                    }
                    assert!(reader.line.capacity() <= 2 * MAX_LINE);
                }
                // The body of the second and third ends with a line end of its own.
                let found: Vec<_> = found
                    .into_iter()
                    .filter(|e| *e != Event::Unrecognized)
                    .collect();
                assert_eq!(found, [Event::TooLarge(limit), Event::Request]);
            }
        }
    }

    #[test]
    fn the_end_of_the_line_is_the_bound_not_one_octet_less() {
        let text = [
            &b"request=smtpd_access_policy\nx="[..],
            &vec![b'y'; MAX_LINE - 2],
            b"\n\n",
        ]
        .concat();
        assert_eq!(events(&text).0, [Event::Request]);
    }

    #[test]
    fn who_is_not_to_choose_the_time_does_not() {
        let mut reader = RequestReader::of_remote_peer();
        let text = b"request=smtpd_access_policy\npolicy_test_time=1\n\n";
        assert_eq!(reader.next_event(&mut &text[..]), Some(Event::Request));
        assert_eq!(reader.request().get(Attribute::PolicyTestTime), None);
        assert!(reader.take_ignored_time() && !reader.take_ignored_time());
    }
}
