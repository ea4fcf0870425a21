//! Waiting for many descriptors at once, by poll(2).
//!
//! The set is kept between calls, so a wait over thousands of idle connections
//! costs the system call alone.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use nix::sys::select::{FD_SETSIZE, FdSet, pselect};
use nix::sys::time::TimeSpec;

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Input, or the end of it.
    pub input: bool,
    /// Room for output.
    pub output: bool,
}

impl Interest {
    /// Input only.
    pub const INPUT: Interest = Interest {
        input: true,
        output: false,
    };
    /// Room for output only.
    pub const OUTPUT: Interest = Interest {
        input: false,
        output: true,
    };
}

/// What has happened to a descriptor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// There is input or the end of it.
    pub input: bool,
    /// There is room for output.
    pub output: bool,
    /// The peer is gone for both directions, or the descriptor is broken.
    pub gone: bool,
}

/// A set of descriptors, each at a place of its own.
#[derive(Default)]
pub struct PollSet {
    places: Vec<libc::pollfd>,
}

const EMPTY: libc::pollfd = libc::pollfd {
    fd: -1,
    events: 0,
    revents: 0,
};

impl PollSet {
    /// Puts a descriptor at a place, replacing the one there. Whoever closes it
    /// clears the place first.
    pub fn set(&mut self, place: usize, descriptor: &impl AsFd, interest: Interest) {
        if self.places.len() <= place {
            self.places.resize(place + 1, EMPTY);
        }
        let mut events = 0;
        if interest.input {
            events |= libc::POLLIN;
        }
        if interest.output {
            events |= libc::POLLOUT;
        }
        let fd = descriptor.as_fd().as_raw_fd();
        // What has been seen of this descriptor stays until the next wait.
        let revents = self.places[place].revents;
        self.places[place] = libc::pollfd {
            fd,
            events,
            revents,
        };
    }

    /// Takes the descriptor off a place.
    pub fn clear(&mut self, place: usize) {
        if let Some(place) = self.places.get_mut(place) {
            *place = EMPTY;
        }
    }

    /// Takes the descriptors off all places.
    pub fn clear_all(&mut self) {
        self.places.clear();
    }

    /// Waits until a descriptor is ready; with `None` without end. The number of
    /// ready ones; 0 if the time is over or a signal came.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        poll(&mut self.places, timeout)
    }

    /// The same for the first places only: what was seen at the others before
    /// is out of date.
    pub fn wait_for_first(&mut self, count: usize, timeout: Option<Duration>) -> io::Result<usize> {
        let count = count.min(self.places.len());
        poll(&mut self.places[..count], timeout)
    }

    /// Appends the places from `first` on at which the last wait saw something.
    pub fn push_ready(&self, first: usize, ready: &mut Vec<usize>) {
        let places = self.places.iter().enumerate().skip(first);
        ready.extend(
            places
                .filter(|(_, at)| at.revents != 0)
                .map(|(place, _)| place),
        );
    }

    /// What the last wait saw at a place.
    pub fn readiness(&self, place: usize) -> Readiness {
        let Some(place) = self.places.get(place) else {
            return Readiness::default();
        };
        let has = |events: i16| place.revents & events != 0;
        Readiness {
            input: has(libc::POLLIN),
            output: has(libc::POLLOUT),
            gone: has(libc::POLLHUP | libc::POLLERR | libc::POLLNVAL),
        }
    }
}

/// Waits for input of one descriptor for a time that may be shorter than the
/// milliseconds of poll(2); true if it came. A descriptor too large for
/// pselect(2) is not waited for.
pub fn wait_for_input(descriptor: &impl AsFd, time: Duration) -> io::Result<bool> {
    let descriptor = descriptor.as_fd();
    if usize::try_from(descriptor.as_raw_fd()).is_ok_and(|number| number >= FD_SETSIZE) {
        return Ok(false);
    }
    let mut set = FdSet::new();
    set.insert(descriptor);
    let ready = pselect(None, &mut set, None, None, &TimeSpec::from(time), None)?;
    Ok(ready > 0)
}

fn poll(places: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<usize> {
    // Rounded up, so that a deadline has passed when the wait is over.
    let milliseconds = timeout.map_or(-1, |timeout| {
        timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32
    });
    let count = places.len() as libc::nfds_t;
    // SAFETY: the pointer and the number are those of the slice.
    let ready = unsafe { libc::poll(places.as_mut_ptr(), count, milliseconds) };
    if ready >= 0 {
        return Ok(ready as usize);
    }
    for place in places {
        place.revents = 0;
    }
    match io::Error::last_os_error() {
        error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn what_is_ready_is_found() {
        let (here, there): (Vec<_>, Vec<_>) = (0..3).map(|_| UnixStream::pair().unwrap()).unzip();
        let mut set = PollSet::default();
        for (place, stream) in there.iter().enumerate() {
            set.set(place, stream, Interest::INPUT);
        }
        let now = Some(Duration::ZERO);
        let ready = |set: &PollSet| {
            let mut ready = Vec::new();
            set.push_ready(1, &mut ready);
            ready
        };
        for place in [0, 2] {
            (&mut &here[place]).write_all(b"x").unwrap();
        }
        set.wait_for_first(1, now).unwrap();
        assert!(set.readiness(0).input);
        assert_eq!(ready(&set), Vec::<usize>::new());
        set.wait(now).unwrap();
        assert_eq!(ready(&set), [2]);
        assert!(set.readiness(0).input && !set.readiness(1).input);
    }

    #[test]
    fn a_short_wait_sees_input_and_ends_without() {
        let (mut here, there) = UnixStream::pair().unwrap();
        let time = Duration::from_micros(200);
        assert!(!wait_for_input(&there, time).unwrap());
        here.write_all(b"x").unwrap();
        assert!(wait_for_input(&there, Duration::from_secs(60)).unwrap());
    }
}
