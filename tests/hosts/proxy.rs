//! Between a server and Redis: what happens there just before a commit, and answers that
//! are lost.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What becomes of the next commit.
pub enum Next {
    /// This is done before Redis gets it.
    Before(Box<dyn FnOnce() + Send>),
    /// Redis gets it; its answer does not come.
    LoseAnswer,
}

/// Passes on what comes; commands of one exchange come in one piece here.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    next: Arc<Mutex<Option<Next>>>,
    is_over: Arc<Mutex<bool>>,
}

impl Proxy {
    pub fn start(to: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy {
            port: listener.local_addr().unwrap().port(),
            next: Arc::default(),
            is_over: Arc::default(),
        };
        let (next, is_over) = (proxy.next.clone(), proxy.is_over.clone());
        thread::spawn(move || {
            for client in listener.incoming() {
                if *is_over.lock().unwrap() {
                    return;
                }
                let next = next.clone();
                thread::spawn(move || pass_on(client.unwrap(), to, &next));
            }
        });
        proxy
    }

    /// What becomes of the next commit.
    pub fn at_next_commit(&self, what: Next) {
        *self.next.lock().unwrap() = Some(what);
    }

    /// True if there was no commit since.
    pub fn still_waits(&self) -> bool {
        self.next.lock().unwrap().is_some()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        *self.is_over.lock().unwrap() = true;
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

/// A connection, until one of the two ends it.
fn pass_on(mut client: TcpStream, to: u16, next: &Mutex<Option<Next>>) {
    let Ok(mut redis) = TcpStream::connect(("127.0.0.1", to)) else {
        return;
    };
    let (mut from_redis, mut to_client) = (redis.try_clone().unwrap(), client.try_clone().unwrap());
    let loses = Arc::new(Mutex::new(false));
    let is_losing = loses.clone();
    let back = thread::spawn(move || {
        let mut octets = [0; 65536];
        while let Ok(count @ 1..) = from_redis.read(&mut octets) {
            if *is_losing.lock().unwrap() || to_client.write_all(&octets[..count]).is_err() {
                break;
            }
        }
        let _ = to_client.shutdown(Shutdown::Both);
        let _ = from_redis.shutdown(Shutdown::Both);
    });
    let mut octets = [0; 65536];
    while let Ok(count @ 1..) = client.read(&mut octets) {
        let is_commit = octets[..count].windows(7).any(|word| word == b"EVALSHA");
        match is_commit.then(|| next.lock().unwrap().take()).flatten() {
            Some(Next::Before(act)) => act(),
            Some(Next::LoseAnswer) => *loses.lock().unwrap() = true,
            None => {}
        }
        if redis.write_all(&octets[..count]).is_err() {
            break;
        }
    }
    let _ = redis.shutdown(Shutdown::Both);
    let _ = back.join();
}
