//! The processes of the server: start, stop, signals, deaths, limits, and
//! every trouble with its surroundings that has an end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod check;
mod check_store;
mod deaths;
mod disk;
mod end;
mod limits;
mod log;
mod options;
mod reload;
#[path = "../common/server.rs"]
mod server;
#[path = "../common/disk.rs"]
mod small_disk;
mod spawned;
mod start;
mod statistics;
mod syslog;
mod trouble;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use server::{PROGRAM, common_options, is_alive, nobody, program_for_all, wait_until};

/// Runs the program to its end.
fn run(options: &[std::ffi::OsString]) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM)
        .args(options)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// A server in the background, ended when it goes out of scope.
struct Daemon {
    pid: Pid,
}

impl Daemon {
    fn start(dir: &Path, more: &[String], become_nobody: bool) -> Daemon {
        let pid_file = dir.join("db/pid");
        let mut command = Command::new(program_for_all(dir));
        command.arg("-d").args(common_options(dir)).args(more);
        command.arg(format!("--pidfile={}", pid_file.display()));
        if become_nobody {
            command.uid(nobody().uid.as_raw());
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let pid = fs::read_to_string(pid_file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        Daemon {
            pid: Pid::from_raw(pid),
        }
    }

    fn stop(&self) {
        kill(self.pid, Signal::SIGTERM).unwrap();
        wait_until("the daemon to end", || !is_alive(self.pid));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if is_alive(self.pid) {
            let _ = kill(self.pid, Signal::SIGKILL);
        }
    }
}
