//! What a process that crashes leaves behind.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// The signals by which a program ends that meets damage in a mapped file.
const CRASHES: [Signal; 3] = [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGABRT];

/// The path of the file to leave, or the line to write.
static LEFT: AtomicPtr<libc::c_char> = AtomicPtr::new(ptr::null_mut());

/// Makes an empty file when this process crashes, unless it is there; then the
/// process ends by its signal all the same.
pub fn leave_file(path: &Path) -> io::Result<()> {
    set_text(path.as_os_str().as_bytes())?;
    install(SigHandler::Handler(make_file))
}

/// Writes this line to standard error when this process crashes, and ends with
/// status 1: the user is told what is wrong with his file, and not of a signal.
pub fn say_and_fail(line: &str) -> io::Result<()> {
    set_text(format!("{line}\n").as_bytes())?;
    install(SigHandler::Handler(say))
}

/// Leaves nothing behind any more: in a child whose crash is expected.
pub fn leave_nothing() -> io::Result<()> {
    install(SigHandler::SigDfl)
}

fn set_text(text: &[u8]) -> io::Result<()> {
    let text = CString::new(text)?;
    // It is never freed: a handler may be about to read it.
    LEFT.store(text.into_raw(), Ordering::Relaxed);
    Ok(())
}

fn install(handler: SigHandler) -> io::Result<()> {
    // With RESETHAND the signal ends the process when the handler returns.
    let action = SigAction::new(handler, SaFlags::SA_RESETHAND, SigSet::empty());
    for signal in CRASHES {
        // SAFETY: the handlers call only functions that are safe in one (open,
        // close, write, _exit) and touch no memory but the text, which is never
        // freed.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

extern "C" fn make_file(_: libc::c_int) {
    let path = LEFT.load(Ordering::Relaxed);
    // SAFETY: the path ends in NUL and is never freed; open and close are safe
    // in a handler.
    unsafe {
        let file = libc::open(path, libc::O_WRONLY | libc::O_CREAT, 0o600);
        if file >= 0 {
            libc::close(file);
        }
    }
}

extern "C" fn say(_: libc::c_int) {
    let line = LEFT.load(Ordering::Relaxed);
    // SAFETY: the line ends in NUL and is never freed; strlen, write and _exit
    // are safe in a handler.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.cast(), libc::strlen(line));
        libc::_exit(1);
    }
}
