//! What tests need to know of the machine they run on, and how one says what
//! it did and what it could not test.
#![allow(dead_code)] // each test binary uses a part of it

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::sync::Mutex;

use nix::unistd::{Pid, Uid};

/// Says something in a line that the test harness does not hold back, for
/// `tests/check.sh` to collect.
pub fn tell(line: &str) {
    std::io::stderr()
        .write_all(format!("{line}\n").as_bytes())
        .ok();
}

/// Says that `what` is not tested because `missing` is not there.
pub fn skip(missing: &str, what: &str) {
    tell(&format!("skipped: {what}: no {missing} on this machine"));
}

pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// A port of 127.0.0.1 nobody listens on, and that no other call in this
/// process got: those may not be listened on yet.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<Vec<u16>> = Mutex::new(Vec::new());
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut given = GIVEN.lock().unwrap();
        if !given.contains(&port) {
            given.push(port);
            return port;
        }
    }
}

/// The processes whose parent is this one.
pub fn children_of(parent: Pid) -> Vec<Pid> {
    let mut children: Vec<Pid> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
        .filter(|&pid| parent_of(pid) == Some(parent))
        .collect();
    children.sort_unstable();
    children
}

fn parent_of(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    // A zombie is no process any more.
    if fields.next()? == "Z" {
        return None;
    }
    fields.next()?.parse().ok().map(Pid::from_raw)
}

/// True if the process exists and is no zombie.
pub fn is_alive(pid: Pid) -> bool {
    parent_of(pid).is_some()
}
