//! A server that answers as it is told.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// What it does about a command.
pub enum Do {
    /// Sends this.
    Say(String),
    /// Sends this after some time.
    Later(Duration, String),
    /// Sends this octet by octet, with so much time between.
    Trickle(Duration, String),
    /// Sends these octets without end.
    Pour(String),
    /// Sends this and closes the connection.
    SayAndClose(String),
    /// Nothing; it goes on reading.
    Nothing,
    /// Closes the connection.
    Close,
}

pub use Do::*;

pub fn say(line: &str) -> Do {
    Say(format!("{line}\r\n"))
}

pub fn bulk(text: &str) -> Do {
    Say(format!("${}\r\n{text}\r\n", text.len()))
}

/// A command, as it came.
pub struct Asked {
    /// The number of the connection, from 0.
    pub connection: usize,
    /// Its words.
    pub words: Vec<String>,
}

impl Asked {
    pub fn is(&self, command: &str) -> bool {
        self.words.join(" ").starts_with(command)
    }
}

pub struct Scripted {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    ends: Arc<AtomicUsize>,
    is_over: Arc<AtomicBool>,
}

impl Scripted {
    pub fn start(answer: impl Fn(&Asked) -> Do + Send + Sync + 'static) -> Self {
        Scripted::on(TcpListener::bind("127.0.0.1:0").unwrap(), answer)
    }

    pub fn on(
        listener: TcpListener,
        answer: impl Fn(&Asked) -> Do + Send + Sync + 'static,
    ) -> Self {
        let server = Scripted {
            address: listener.local_addr().unwrap(),
            asked: Arc::default(),
            connections: Arc::default(),
            ends: Arc::default(),
            is_over: Arc::default(),
        };
        let answer = Arc::new(answer);
        let (asked, connections) = (server.asked.clone(), server.connections.clone());
        let (is_over, ends) = (server.is_over.clone(), server.ends.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let connection = connections.fetch_add(1, Ordering::SeqCst);
                let (asked, answer, ends) = (asked.clone(), answer.clone(), ends.clone());
                thread::spawn(move || {
                    serve(stream.unwrap(), connection, &asked, &*answer);
                    ends.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    /// Always this.
    pub fn saying(text: &'static str) -> Self {
        Scripted::start(move |_| Say(text.into()))
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// The commands so far, each as one line.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub fn count(&self, command: &str) -> usize {
        let asked = self.asked();
        asked
            .iter()
            .filter(|line| line.starts_with(command))
            .count()
    }

    /// Waits until so many connections have ended.
    pub fn wait_for_ends(&self, count: usize) {
        let end = Instant::now() + Duration::from_secs(10);
        while self.ends.load(Ordering::SeqCst) < count {
            assert!(Instant::now() < end);
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(
    mut stream: TcpStream,
    connection: usize,
    log: &Mutex<Vec<String>>,
    answer: &dyn Fn(&Asked) -> Do,
) {
    let mut input = BufReader::new(stream.try_clone().unwrap());
    while let Some(words) = command(&mut input) {
        log.lock().unwrap().push(words.join(" "));
        // The client may have gone: then the next read says so.
        let _ = match answer(&Asked { connection, words }) {
            Say(text) => stream.write_all(text.as_bytes()),
            Later(time, text) => {
                thread::sleep(time);
                stream.write_all(text.as_bytes())
            }
            Trickle(time, text) => text.bytes().try_for_each(|octet| {
                thread::sleep(time);
                stream.write_all(&[octet])
            }),
            Pour(text) => {
                let piece = text.repeat(65536 / text.len());
                while stream.write_all(piece.as_bytes()).is_ok() {}
                Ok(())
            }
            Nothing => Ok(()),
            SayAndClose(text) => stream
                .write_all(text.as_bytes())
                .and_then(|()| stream.shutdown(Shutdown::Both)),
            Close => stream.shutdown(Shutdown::Both),
        };
    }
}

fn command(input: &mut impl BufRead) -> Option<Vec<String>> {
    let number = |kind: char, input: &mut dyn BufRead| -> Option<usize> {
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        line.strip_prefix(kind)?.trim_end().parse().ok()
    };
    let count = number('*', input)?;
    let mut words = Vec::new();
    for _ in 0..count {
        let mut word = vec![0; number('$', input)? + 2];
        input.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(words)
}

/// The answer to CLUSTER SLOTS: ranges, and the server of each.
pub fn slots(ranges: &[(u16, u16, SocketAddr)]) -> Do {
    let mut text = format!("*{}\r\n", ranges.len());
    for (first, last, at) in ranges {
        let host = at.ip().to_string();
        text.push_str(&format!("*3\r\n:{first}\r\n:{last}\r\n*3\r\n"));
        text.push_str(&format!(
            "${}\r\n{host}\r\n:{}\r\n$2\r\nid\r\n",
            host.len(),
            at.port()
        ));
    }
    Say(text)
}
