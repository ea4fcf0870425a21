//! The way to the background: a process of its own serves, and the one that was
//! started ends with a true status when it does.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use super::start_error::{StartError, say};
use crate::config::settings::Settings;
use crate::log::{Level, Log};
use crate::sys::process::{self, Side};
use crate::sys::syslog;

/// What a process in the background does until its end; it reports how its start
/// went.
type Serve = fn(&Settings, &Report) -> Result<(), StartError>;

/// Starts the server as a process of its own and waits for its word: an octet
/// 0 when it serves, else the reason why it does not. The exit status.
pub fn go_to_background(settings: &Settings, serve: Serve) -> io::Result<i32> {
    // The directory changes on the way to the background; paths must not.
    let settings = settings.with_absolute_paths()?;
    let (mut ours, theirs) = UnixStream::pair()?;
    match process::fork()? {
        Side::Child => {
            drop(ours);
            let status = match process::leave_terminal() {
                Ok(()) => run_in_background(&settings, serve, theirs),
                Err(_) => 2,
            };
            std::process::exit(status);
        }
        Side::Parent(pid) => {
            drop(theirs);
            let mut word = Vec::new();
            let mut octet = [0];
            while ours.read(&mut octet)? == 1 {
                if octet == [0] {
                    return Ok(0);
                }
                word.push(octet[0]);
            }
            say(&String::from_utf8_lossy(&word));
            let status = nix::sys::wait::waitpid(pid, None)?;
            Ok(match status {
                nix::sys::wait::WaitStatus::Exited(_, status) if status != 0 => status,
                _ => 2,
            })
        }
    }
}

fn run_in_background(settings: &Settings, serve: Serve, report: UnixStream) -> i32 {
    let report = Report(Rc::new(RefCell::new(Some(report))));
    match serve(settings, &report) {
        Ok(()) => 0,
        Err(error) => {
            syslog::open(&settings.syslog_facility);
            Log::to_syslog().write(Level::Fatal, error.message.as_bytes());
            report.send(error.message.as_bytes());
            error.exit_code
        }
    }
}

/// Where a server in the background says, once, how its start went. Children
/// of the server take it out and drop it.
#[derive(Clone, Default)]
pub struct Report(Rc<RefCell<Option<UnixStream>>>);

impl Report {
    /// True if somebody waits for it.
    pub fn is_awaited(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Sends it.
    pub fn send(&self, word: &[u8]) {
        if let Some(mut socket) = self.0.take() {
            // Whoever started us may be gone; we serve all the same.
            let _ = socket.write_all(word);
        }
    }

    /// Makes this process one that does not send it.
    pub fn drop_unsent(&self) {
        self.0.take();
    }
}
