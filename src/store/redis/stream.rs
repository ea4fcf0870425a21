//! A connection to one server that never blocks: TCP or a UNIX socket, with or
//! without TLS.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustls::{CertificateError, ClientConnection};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::sys::errors::describe;
use crate::sys::poll::Interest;

/// Octets that are read at once.
const PIECE: usize = 64 << 10;

/// The connection, and what is to be sent.
pub struct Stream {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
    output: Vec<u8>,
    sent: usize,
    /// Where what comes without TLS is read to: to make room anew for each piece would
    /// take longer than to read it.
    piece: Box<[u8]>,
}

impl Stream {
    /// Begins to connect by TCP.
    pub fn to_host(address: SocketAddr, tls: Option<ClientConnection>) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_tcp_nodelay(true)?;
        Stream::begin(socket, &address.into(), tls)
    }

    /// Begins to connect to a UNIX socket.
    pub fn to_path(path: &Path) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        Stream::begin(socket, &SockAddr::unix(path)?, None)
    }

    fn begin(socket: Socket, to: &SockAddr, tls: Option<ClientConnection>) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        match socket.connect(to) {
            Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
            _ => {}
        }
        let tls = tls.map(|mut tls| {
            // What is to be sent waits here while the handshake is under way.
            tls.set_buffer_limit(None);
            Box::new(tls)
        });
        Ok(Stream {
            socket,
            tls,
            output: Vec::new(),
            sent: 0,
            piece: vec![0; PIECE].into_boxed_slice(),
        })
    }

    /// Why there is no connection, when poll(2) has said that it is decided.
    pub fn check_connected(&self) -> io::Result<()> {
        self.socket.take_error()?.map_or(Ok(()), Err)
    }

    /// Adds octets to be sent.
    pub fn push(&mut self, octets: &[u8]) {
        match &mut self.tls {
            None => self.output.extend_from_slice(octets),
            // It has no limit, and cannot fail.
            Some(tls) => drop(tls.writer().write_all(octets)),
        }
    }

    /// What poll(2) is to wait for.
    pub fn interest(&self) -> Interest {
        let has_output = match &self.tls {
            None => self.sent < self.output.len(),
            Some(tls) => tls.wants_write(),
        };
        Interest {
            input: true,
            output: has_output,
        }
    }

    /// Sends what the system takes.
    pub fn flush(&mut self) -> Result<(), String> {
        let result = match &mut self.tls {
            None => loop {
                if self.sent == self.output.len() {
                    self.output.clear();
                    self.sent = 0;
                    break Ok(());
                }
                match self.socket.write(&self.output[self.sent..]) {
                    Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => self.sent += count,
                    Err(error) => break Err(error),
                }
            },
            Some(tls) => loop {
                if !tls.wants_write() {
                    break Ok(());
                }
                match tls.write_tls(&mut self.socket) {
                    Ok(0) => break Err(io::ErrorKind::WriteZero.into()),
                    Ok(_) => {}
                    Err(error) => break Err(error),
                }
            },
        };
        unless_blocked(result)
    }

    /// Appends what has come, one piece of it. True if the other side has ended.
    pub fn fill(&mut self, input: &mut Vec<u8>) -> Result<Came, String> {
        let Some(tls) = &mut self.tls else {
            let result = self.socket.read(&mut self.piece);
            let length = *result.as_ref().unwrap_or(&0);
            input.extend_from_slice(&self.piece[..length]);
            return came(result);
        };
        let result = tls.read_tls(&mut self.socket);
        if let Ok(1..) = result {
            let state = tls.process_new_packets().map_err(|error| {
                // What the server is told of it, should it listen.
                let _ = tls.write_tls(&mut self.socket);
                format!("TLS: {}", reason_of(&error))
            })?;
            let before = input.len();
            input.resize(before + state.plaintext_bytes_to_read(), 0);
            // All of it is there.
            if tls.reader().read_exact(&mut input[before..]).is_err() {
                input.truncate(before);
            }
            if state.peer_has_closed() {
                return Ok(Came::End);
            }
        }
        came(result)
    }
}

/// What [`Stream::fill`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// Octets; there may be more.
    Octets,
    /// Nothing yet.
    Nothing,
    /// The other side has ended.
    End,
}

fn came(result: io::Result<usize>) -> Result<Came, String> {
    match result {
        Ok(0) => Ok(Came::End),
        Ok(_) => Ok(Came::Octets),
        Err(error) => unless_blocked(Err(error)).map(|()| Came::Nothing),
    }
}

fn unless_blocked(result: io::Result<()>) -> Result<(), String> {
    match result {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Err(describe(&error))
        }
        _ => Ok(()),
    }
}

fn reason_of(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidMessage(_) => "the server does not speak TLS at this port".into(),
        rustls::Error::InvalidCertificate(why) => format!(
            "the certificate of the server is not accepted: {}",
            objection(why)
        ),
        error => error.to_string(),
    }
}

/// What is wrong with a certificate, in the same words each time: those of the crate
/// hold the time.
fn objection(why: &CertificateError) -> String {
    use CertificateError as Why;
    match why {
        Why::Expired | Why::ExpiredContext { .. } => "it has expired".into(),
        Why::NotValidYet | Why::NotValidYetContext { .. } => "it is not valid yet".into(),
        Why::NotValidForName | Why::NotValidForNameContext { .. } => {
            "its subjectAltName does not have this name or address".into()
        }
        Why::UnknownIssuer | Why::BadSignature => "nobody who is trusted has signed it".into(),
        other => match format!("{other:?}") {
            name if name.contains("CaUsedAsEndEntity") => {
                "it is made out to sign others (CA:TRUE), and not for a server".into()
            }
            // What openssl(1) makes of a request if no extension is asked for.
            name if name.contains("UnsupportedCertVersion") => {
                "it is of version 1, which has no subjectAltName".into()
            }
            // Figures stand in braces.
            name => name.split(" {").next().unwrap_or_default().to_owned(),
        },
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
