//! `ping`: does the server answer? One line and a status, as Nagios and its kin
//! take them.

use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::escape::escaped;
use super::failure::Failure;
use super::options::Id;
use super::output::Output;
use super::server_options;
use super::words::Words;
use crate::config::settings::Listen;
use crate::config::values;
use crate::policy::request::PING;
use crate::sys::errors::describe;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of the longest answer.
const MOST_OCTETS: usize = 512;

/// How it is: the status, and its name, of Nagios.
type Judgement = (i32, &'static str);
const OK: Judgement = (0, "OK");
const WARNING: Judgement = (1, "WARNING");
const CRITICAL: Judgement = (2, "CRITICAL");

/// Asks, and says how it went.
pub fn run(words: &Words) -> Result<(), Failure> {
    let place = place(words)?;
    let begun = Instant::now();
    let answer = ask(&place, begun);
    let seconds = begun.elapsed().as_secs_f64();
    let ((status, word), text) = match &answer {
        Ok(answer) => judge(answer, seconds),
        Err(error) => {
            let text = format!("no answer from {place}: {}", describe(error));
            (CRITICAL, text)
        }
    };
    let mut output = Output::new();
    let text = one_line(&text);
    output.line(format!("POSTGREY {word} - {text} | time={seconds:.6}s"))?;
    output.finish()?;
    match status {
        0 => Ok(()),
        status => Err(Failure::new("", status)),
    }
}

/// What a monitor is told of a mistake in the command, or of standard output that takes
/// nothing: never that all is well, and not what a status of 1 means.
pub fn report(failure: &Failure) -> i32 {
    if failure.message.is_empty() {
        return failure.exit_code;
    }
    let why = one_line(&failure.message);
    // It may be what cannot be written to.
    let _ = writeln!(io::stdout(), "POSTGREY CRITICAL - {why}");
    2
}

/// What others have written, in one line that has nothing of a monitor's own signs.
fn one_line(text: &str) -> String {
    escaped(text.as_bytes()).replace('|', "/")
}

fn judge(answer: &[u8], seconds: f64) -> (Judgement, String) {
    let answer = String::from_utf8_lossy(answer);
    let text = answer.strip_prefix("ping=").map(str::trim_end);
    match text.map(|text| text.split_once(": ").unwrap_or((text, ""))) {
        Some(("ok", _)) => (OK, format!("answered in {:.1} ms", seconds * 1000.0)),
        Some(("trouble", why)) => (WARNING, format!("mail passes ungreylisted: {why}")),
        Some(("silent", why)) => (CRITICAL, why.to_owned()),
        _ => {
            let text = "whoever answered is no postgrey that knows of ping";
            (CRITICAL, text.to_owned())
        }
    }
}

/// Where to ask: as the options say, or where the running server listens first.
fn place(words: &Words) -> Result<Listen, Failure> {
    let inet = words.value(Id::Inet).map(|value| value.to_string_lossy());
    match (words.value(Id::Unix), inet) {
        (Some(_), Some(_)) => Err(Failure::usage(
            "ERROR: --unix and --inet exclude each other",
        )),
        (Some(path), None) => Ok(Listen::Unix(PathBuf::from(path))),
        (None, Some(address)) => values::inet(&address).map_err(|why| Failure::new(why, 2)),
        (None, None) => {
            let listens = server_options::settings(words)?.listen;
            // Port 0 lets the system choose, and nobody knows what.
            let is_known = |listen: &Listen| !matches!(listen, Listen::Inet { port: 0, .. });
            listens.into_iter().find(is_known).ok_or_else(|| {
                Failure::error(
                    "no server has left an address: give --unix=PATH or --inet=[HOST:]PORT",
                )
            })
        }
    }
}

fn ask(place: &Listen, begun: Instant) -> io::Result<Vec<u8>> {
    let mut socket = connect(place)?;
    let request = [&b"request="[..], PING, b"\n\n"].concat();
    socket.write_all(&request)?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"\n\n") && answer.len() < MOST_OCTETS {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        if left.is_zero() {
            return Err(too_late());
        }
        socket.set_read_timeout(Some(left))?;
        let mut buffer = [0; MOST_OCTETS];
        match socket.read(&mut buffer) {
            Ok(0) => return Err(io::Error::other("the connection was closed")),
            Ok(length) => answer.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(too_late()),
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

fn too_late() -> io::Error {
    io::Error::other(format!("nothing within {} s", PATIENCE.as_secs()))
}

/// Connects to the first of its addresses that takes the connection.
fn connect(place: &Listen) -> io::Result<Socket> {
    let addresses: Vec<SockAddr> = match place {
        Listen::Unix(path) => vec![SockAddr::unix(path)?],
        Listen::Inet { host, port } => {
            // A server that listens everywhere does so here, too.
            let host = host.as_deref().unwrap_or("localhost");
            let found = (host, *port).to_socket_addrs()?;
            found.map(SockAddr::from).collect()
        }
    };
    let mut result = Err(io::Error::other("the name has no address"));
    for address in &addresses {
        let domain = Domain::from(i32::from(address.family()));
        let socket = Socket::new(domain, Type::STREAM, None)?;
        let connected = match place {
            Listen::Unix(_) => connect_unix(&socket, address),
            Listen::Inet { .. } => socket.connect_timeout(address, PATIENCE),
        };
        result = connected.map(|()| socket);
        if result.is_ok() {
            break;
        }
    }
    result
}

/// Connects to a UNIX socket, and waits for a place in its queue.
fn connect_unix(socket: &Socket, address: &SockAddr) -> io::Result<()> {
    let begun = Instant::now();
    socket.set_nonblocking(true)?;
    loop {
        match socket.connect(address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if begun.elapsed() >= PATIENCE {
                    return Err(too_late());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            connected => return connected.and_then(|()| socket.set_nonblocking(false)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_judged() {
        for (answer, status, part) in [
            ("ping=ok\n\n", 0, "answered in 1.5 ms"),
            (
                "ping=trouble: the writer does not answer\n\n",
                1,
                "ungreylisted: the writer",
            ),
            (
                "ping=silent: worker 1 does not answer\n\n",
                2,
                "worker 1 does not answer",
            ),
            ("action=DUNNO\n\n", 2, "no postgrey"),
            ("ping=what\n\n", 2, "no postgrey"),
        ] {
            let ((found, _), text) = judge(answer.as_bytes(), 0.0015);
            assert_eq!(found, status, "{answer}");
            assert!(text.contains(part), "{text}");
        }
    }
}
