//! The addresses of a host, without waiting for a name server.
//!
//! getaddrinfo(3) takes as long as it likes, and POSIX has no other way to ask.
//! So a thread asks, and writes what it heard into a socket, for which poll(2)
//! waits like for any other. At most one thread is under way for each host.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::thread;

use super::options::HostPort;
use crate::sys::errors::describe;
use crate::sys::signals;
use crate::sys::socket::addresses_of;

/// The addresses of a host as last heard, and a question that is under way.
#[derive(Default)]
pub struct Lookup {
    known: Vec<SocketAddr>,
    asked: Option<(UnixStream, Vec<u8>)>,
}

impl Lookup {
    /// The addresses as last heard; none if they are not known yet. Each call
    /// asks for the next one, so that a change is found without waiting.
    pub fn addresses(&mut self, host: &HostPort) -> Result<&[SocketAddr], String> {
        let heard = self.hear();
        if self.known.is_empty() {
            heard?;
        }
        self.ask(host)?;
        Ok(&self.known)
    }

    /// Asks for the addresses, unless they are plain from the host's name or a
    /// question is under way.
    fn ask(&mut self, host: &HostPort) -> Result<(), String> {
        if let Ok(address) = host.host.parse::<IpAddr>() {
            self.known = vec![SocketAddr::new(address, host.port)];
            return Ok(());
        }
        if self.asked.is_some() {
            return Ok(());
        }
        let io = |error: io::Error| describe(&error);
        let (here, there) = UnixStream::pair().map_err(io)?;
        here.set_nonblocking(true).map_err(io)?;
        let host = host.clone();
        // Signals are for the thread that waits for them.
        let blocked = signals::block_all().map_err(io)?;
        let started = thread::Builder::new().spawn(move || answer(&host, there));
        drop(blocked);
        started.map_err(io)?;
        self.asked = Some((here, Vec::new()));
        Ok(())
    }

    /// The addresses as last heard.
    pub fn known(&self) -> &[SocketAddr] {
        &self.known
    }

    /// These addresses, as if they had been heard.
    #[cfg(test)]
    pub fn of(known: &[SocketAddr]) -> Self {
        Lookup {
            known: known.to_vec(),
            asked: None,
        }
    }

    /// What to wait for while a question is under way.
    pub fn descriptor(&self) -> Option<&UnixStream> {
        self.asked.as_ref().map(|(stream, _)| stream)
    }

    /// Takes the answer if it has come: true then, an error if there is none.
    pub fn hear(&mut self) -> Result<bool, String> {
        let Some((stream, heard)) = &mut self.asked else {
            return Ok(true);
        };
        match stream.read_to_end(heard) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(_) => heard.clear(),
        }
        let text = String::from_utf8_lossy(heard).into_owned();
        self.asked = None;
        if let Some(reason) = text.strip_prefix('!') {
            return Err(format!("its address is not known ({reason})"));
        }
        let found: Vec<_> = text.lines().filter_map(|line| line.parse().ok()).collect();
        if found.is_empty() {
            return Err("its address is not known".into());
        }
        self.known = found;
        Ok(true)
    }
}

/// Writes an address a line, or `!` and why there is none.
fn answer(host: &HostPort, mut to: UnixStream) {
    let text = match addresses_of(&host.host, host.port) {
        Ok(addresses) => addresses
            .iter()
            .map(|address| format!("{address}\n"))
            .collect(),
        Err(error) => format!("!{error}"),
    };
    // Whoever asked may have gone.
    let _ = to.write_all(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::wait_for_input;
    use std::time::Duration;

    fn heard(host: &str) -> (Lookup, Result<bool, String>) {
        let mut lookup = Lookup::default();
        let host = host.to_owned();
        lookup.ask(&HostPort { host, port: 7 }).unwrap();
        if let Some(descriptor) = lookup.descriptor() {
            wait_for_input(descriptor, Duration::from_secs(20)).unwrap();
        }
        let mut result = lookup.hear();
        while result == Ok(false) {
            wait_for_input(lookup.descriptor().unwrap(), Duration::from_secs(20)).unwrap();
            result = lookup.hear();
        }
        (lookup, result)
    }

    #[test]
    fn addresses_are_heard() {
        for (host, address) in [
            ("localhost", "127.0.0.1:7"),
            ("127.0.0.2", "127.0.0.2:7"),
            ("::1", "[::1]:7"),
        ] {
            let (lookup, result) = heard(host);
            assert_eq!(result, Ok(true), "{host}");
            assert!(lookup.known().contains(&address.parse().unwrap()), "{host}");
        }
    }

    #[test]
    fn addresses_that_have_changed_are_found() {
        let old = "192.0.2.1:7".parse().unwrap();
        let mut lookup = Lookup::of(&[old]);
        let host = HostPort {
            host: "localhost".into(),
            port: 7,
        };
        // Nobody waits for the answer: it serves the next time.
        assert_eq!(lookup.addresses(&host), Ok(&[old][..]));
        wait_for_input(lookup.descriptor().unwrap(), Duration::from_secs(20)).unwrap();
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while lookup.addresses(&host) == Ok(&[old][..]) {
            assert!(std::time::Instant::now() < end);
            thread::sleep(Duration::from_millis(5));
        }
        assert!(lookup.known().contains(&"127.0.0.1:7".parse().unwrap()));
        // A name server that fails takes nothing away.
        let nobody = HostPort {
            host: "no host has blanks".into(),
            port: 7,
        };
        let known = lookup.known().to_vec();
        for _ in 0..2 {
            assert_eq!(lookup.addresses(&nobody), Ok(&known[..]));
            if let Some(descriptor) = lookup.descriptor() {
                wait_for_input(descriptor, Duration::from_secs(20)).unwrap();
            }
        }
    }

    #[test]
    fn a_name_that_nobody_knows_is_an_error() {
        let (lookup, result) = heard("no host has blanks");
        assert!(result.unwrap_err().starts_with("its address is not known"));
        assert!(lookup.known().is_empty() && lookup.descriptor().is_none());
    }
}
