//! A policy client as Postfix is one: a request, its reply, the next.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use socket2::Socket;

use super::PATIENCE;

/// A connection to a server.
pub struct Client {
    stream: BufReader<Socket>,
}

impl Client {
    /// Talks over a stream that is there already.
    pub fn of(stream: impl Into<Socket>) -> Client {
        let socket = stream.into();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        Client {
            stream: BufReader::new(socket),
        }
    }

    /// Connects to a UNIX socket.
    pub fn unix(path: &Path) -> io::Result<Client> {
        Ok(Client::of(UnixStream::connect(path)?))
    }

    /// Connects to a port of 127.0.0.1.
    pub fn inet(port: u16) -> io::Result<Client> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Client::of(stream))
    }

    pub fn send(&mut self, octets: &[u8]) {
        self.stream.get_mut().write_all(octets).unwrap();
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) -> io::Result<()> {
        self.stream.get_ref().shutdown(Shutdown::Write)
    }

    /// The next line, as it is.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line
    }

    /// The next reply without `action=` and line ends; an error if the
    /// connection ends before it.
    pub fn try_reply(&mut self) -> io::Result<String> {
        let (mut line, mut empty) = (Vec::new(), Vec::new());
        if self.stream.read_until(b'\n', &mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if self.stream.read_until(b'\n', &mut empty)? == 0 {
            // Not the same: `reply` takes no half of a reply for the end.
            return Err(ErrorKind::InvalidData.into());
        }
        let line = String::from_utf8(line).unwrap();
        assert_eq!(empty, b"\n", "after {line:?}");
        let reply = line.strip_prefix("action=").unwrap();
        Ok(reply.trim_end_matches('\n').to_string())
    }

    /// The same; `None` at the end of the connection.
    pub fn reply(&mut self) -> Option<String> {
        match self.try_reply() {
            Ok(reply) => Some(reply),
            Err(error) => {
                let is_end = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                assert!(is_end.contains(&error.kind()), "no reply: {error}");
                None
            }
        }
    }

    /// Sends a request and waits for its reply; an error if the connection
    /// breaks.
    pub fn try_ask(&mut self, request: &[u8]) -> io::Result<String> {
        self.stream.get_mut().write_all(request)?;
        self.try_reply()
    }

    /// The reply to a request with these attributes.
    pub fn ask(&mut self, attributes: &[(&str, &str)]) -> String {
        self.try_ask(&request(attributes)).unwrap()
    }
}

/// A request as Postfix sends it, with some attributes replaced.
pub fn request(attributes: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        ("request", "smtpd_access_policy"),
        ("protocol_state", "RCPT"),
        ("client_address", "192.0.2.91"),
        ("client_name", "mail.example.com"),
        ("sender", "alice@example.com"),
        ("recipient", "user@example.org"),
    ];
    for (name, value) in attributes {
        match all.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => all.push((name, value)),
        }
    }
    let mut text: String = all
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    text.push('\n');
    text.into_bytes()
}
