//! Signals as something poll(2) can wait for.
//!
//! A handler sets a flag and writes an octet into a socket, so a signal is
//! acted on at once, also when it comes just before poll(2) sleeps.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use signal_hook::SigId;
use signal_hook::low_level::{pipe, unregister};

/// The signals a process reacts to.
pub struct Signals {
    wake: UnixStream,
    flags: Vec<(Signal, Arc<AtomicBool>)>,
    registered: Vec<SigId>,
}

impl Signals {
    /// Reacts to these signals until dropped.
    pub fn install(signals: &[Signal]) -> io::Result<Self> {
        let (wake, write_end) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        write_end.set_nonblocking(true)?;
        let mut own = Signals {
            wake,
            flags: Vec::new(),
            registered: Vec::new(),
        };
        for &signal in signals {
            let flag = Arc::new(AtomicBool::new(false));
            // The flag first: it must be set when the octet arrives.
            let id = signal_hook::flag::register(signal as i32, Arc::clone(&flag))?;
            own.registered.push(id);
            own.registered
                .push(pipe::register(signal as i32, write_end.try_clone()?)?);
            own.flags.push((signal, flag));
        }
        Ok(own)
    }

    /// Reacts to nothing any more: in a child whose parent has installed them.
    pub fn uninstall(&mut self) {
        for id in self.registered.drain(..) {
            unregister(id);
        }
        self.flags.clear();
    }

    /// The signals that have come since the last call.
    pub fn take(&mut self) -> Vec<Signal> {
        let mut octets = [0; 64];
        while matches!((&self.wake).read(&mut octets), Ok(n) if n > 0) {}
        let came = |(_, flag): &&(Signal, Arc<AtomicBool>)| flag.swap(false, Ordering::Relaxed);
        self.flags
            .iter()
            .filter(came)
            .map(|&(signal, _)| signal)
            .collect()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.uninstall();
    }
}

/// Holds back all signals while it lives: between a fork and the child's own
/// [`Signals::install`] none must reach the handlers of the parent.
pub struct Blocked(SigSet);

/// Holds back all signals of this process.
pub fn block_all() -> io::Result<Blocked> {
    let mut before = SigSet::empty();
    sigprocmask(
        SigmaskHow::SIG_BLOCK,
        Some(&SigSet::all()),
        Some(&mut before),
    )?;
    Ok(Blocked(before))
}

impl Blocked {
    /// Holds back no more than before.
    pub fn lift(&self) {
        // It cannot fail: the mask is one the system gave us.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.0), None);
    }

    /// True if a signal waits that would end this process.
    pub fn is_ended(&self) -> bool {
        let mut pending = SigSet::empty();
        // SAFETY: the call fills a set, and SigSet is nothing but one (repr(transparent)).
        let filled = unsafe { libc::sigpending(&raw mut pending as *mut libc::sigset_t) } == 0;
        let ends = [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGQUIT,
        ];
        filled && ends.into_iter().any(|signal| pending.contains(signal))
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        self.lift();
    }
}
