//! Debian's postgrey 1.37, started for a comparison, and ended with it.
#![allow(dead_code)] // each test binary uses a part of it

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where the package puts it.
pub const ORIGINAL: &str = "/usr/sbin/postgrey";
/// It is slow to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// A running original.
pub struct Original {
    child: Child,
    /// Where it listens.
    pub socket: PathBuf,
    /// What it says.
    pub log: PathBuf,
}

impl Original {
    /// Starts it as nobody in a directory that is nobody's.
    pub fn start(dbdir: &Path, options: &[String]) -> Original {
        let socket = dbdir.join("socket");
        let log = dbdir.join("said");
        // One that was killed has left it.
        let _ = std::fs::remove_file(&socket);
        let stderr = File::options().create(true).append(true).open(&log);
        let child = Command::new(ORIGINAL)
            .arg(format!("--unix={}", socket.display()))
            .arg(format!("--dbdir={}", dbdir.display()))
            .args(["--user=nobody", "--group=nogroup", "--quiet"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.unwrap())
            .spawn()
            .unwrap();
        let mut original = Original { child, socket, log };
        original.wait("start", |original| {
            UnixStream::connect(&original.socket).is_ok()
        });
        original
    }

    /// Ends it in order. It looks at a signal only when something comes in,
    /// where that came just before it began to wait.
    pub fn stop(mut self) {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGTERM).unwrap();
        self.wait("stop", |original| {
            let _ = UnixStream::connect(&original.socket);
            original.child.try_wait().unwrap().is_some()
        });
    }

    /// Kills it.
    pub fn kill(self) {}

    fn wait(&mut self, what: &str, mut is_so: impl FnMut(&mut Original) -> bool) {
        let start = Instant::now();
        while !is_so(self) {
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            assert!(start.elapsed() < PATIENCE, "it does not {what}: {said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Original {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
