//! The children of the master: their places, their sockets, and when another
//! takes the place of one that has ended.

use std::fmt;
use std::io;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::sys::process::Death;

/// A child that lives shorter than this had trouble of its own.
const QUICK_DEATH: Duration = Duration::from_secs(1);
/// The longest wait before a child is replaced.
const MOST_BACKOFF: Duration = Duration::from_secs(60);

/// What a child does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Serves connections, at its place among the workers.
    Worker(usize),
    /// Commits.
    Writer,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Role::Worker(place) => write!(f, "worker {place}"),
            Role::Writer => f.write_str("writer"),
        }
    }
}

/// A child, or the place for one.
pub struct Child {
    /// What it does.
    pub role: Role,
    /// The process and our end of its socket; `None` while it is missing.
    pub process: Option<(Pid, UnixStream)>,
    started: Instant,
    /// It has said that it serves.
    pub is_ready: bool,
    /// When it is started, if it is missing.
    pub due: Option<Instant>,
    backoff: Duration,
}

impl Child {
    /// A place for a child that is to be started now.
    pub fn new(role: Role, now: Instant) -> Self {
        Child {
            role,
            process: None,
            started: now,
            is_ready: false,
            due: Some(now),
            backoff: Duration::ZERO,
        }
    }

    /// Notes that it was started.
    pub fn begin(&mut self, pid: Pid, control: UnixStream, now: Instant) {
        self.process = Some((pid, control));
        (self.started, self.is_ready, self.due) = (now, false, None);
    }

    /// Notes that it has ended, and when another is due. Who was killed, or
    /// asked to end, is replaced at once; who had trouble of its own soon after
    /// its start waits longer each time.
    pub fn end(&mut self, death: &Death, now: Instant) {
        let was_quick = now.saturating_duration_since(self.started) < QUICK_DEATH;
        let is_own_fault = !death.was_killed && !death.was_orderly;
        self.backoff = match was_quick && (is_own_fault || !self.is_ready) {
            true => (self.backoff * 2).clamp(QUICK_DEATH, MOST_BACKOFF),
            false => Duration::ZERO,
        };
        (self.process, self.is_ready) = (None, false);
        self.due = Some(now + self.backoff);
    }
}

/// The sockets between workers and writer. The master keeps all ends, so what
/// is queued outlives a process that dies.
pub struct Links {
    /// Commands: the workers' end, the writer's end.
    pub to_writer: (UnixDatagram, UnixDatagram),
    /// Outcomes, for each worker: the writer's end, the worker's end.
    pub answers: Vec<(UnixDatagram, UnixDatagram)>,
}

impl Links {
    /// New sockets for so many workers.
    pub fn new(workers: usize) -> io::Result<Self> {
        let pair = || -> io::Result<_> {
            let (send, receive) = UnixDatagram::pair()?;
            for end in [&send, &receive] {
                end.set_nonblocking(true)?;
            }
            Ok((send, receive))
        };
        Ok(Links {
            to_writer: pair()?,
            answers: (0..workers).map(|_| pair()).collect::<io::Result<_>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn death(was_killed: bool, was_orderly: bool) -> Death {
        Death {
            pid: Pid::from_raw(1),
            how: String::new(),
            was_killed,
            was_orderly,
        }
    }

    /// The seconds after which a child is due that was started and, this much
    /// later, ended so.
    fn wait_after(child: &mut Child, life: Duration, is_ready: bool, death: &Death) -> u64 {
        let start = Instant::now();
        child.begin(Pid::from_raw(1), UnixStream::pair().unwrap().0, start);
        assert_eq!(child.due, None);
        child.is_ready = is_ready;
        child.end(death, start + life);
        (child.due.unwrap() - (start + life)).as_secs()
    }

    #[test]
    fn trouble_soon_after_the_start_makes_the_next_wait_longer() {
        let mut child = Child::new(Role::Writer, Instant::now());
        let crash = death(false, false);
        let waits: Vec<u64> = (0..8)
            .map(|_| wait_after(&mut child, SECOND / 2, true, &crash))
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(wait_after(&mut child, SECOND, true, &crash), 0);
        assert_eq!(wait_after(&mut child, SECOND / 2, true, &crash), 1);
    }

    #[test]
    fn who_was_killed_or_asked_to_end_is_replaced_at_once() {
        for death in [death(true, false), death(false, true)] {
            let mut child = Child::new(Role::Worker(0), Instant::now());
            assert_eq!(wait_after(&mut child, SECOND / 2, true, &death), 0);
            // But not one that never came to serve.
            assert_eq!(wait_after(&mut child, SECOND / 2, false, &death), 1);
        }
    }
}
