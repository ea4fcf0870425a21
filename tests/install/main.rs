//! The files that make postgrey a service of the machine: the init script,
//! the systemd unit, the SMF manifest and its method, the Postfix tables and
//! the manual pages. Each test runs the real file with the tools that are
//! installed, and says on stderr which it has to do without.

#![allow(clippy::unwrap_used)]

mod conf;
mod freebsd;
mod lint;
#[path = "../common/machine.rs"]
mod machine;
mod makefile;
mod manifest;
mod method;
mod others;
mod properties;
mod rc;
mod refresh;
#[path = "../common/script.rs"]
mod script;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use machine::skip;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use script::write_script;

/// The shells under which the scripts must work: Debian's, Solaris', and what
/// this machine calls sh.
const SHELLS: [&str; 3] = ["dash", "ksh93", "sh"];

/// No command here takes long; one that hangs is ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// A file of the project.
fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The text of a file of the project.
fn text(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// A program in PATH or where administrators' programs are.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

/// Ends the stubs of the server that a failed test has left, by their numbers in this
/// file. One that is gone has taken its name with it.
fn end_stubs(pids: &Path) {
    for pid in fs::read_to_string(pids).unwrap_or_default().lines() {
        let comm = run(Command::new("ps").args(["-o", "comm=", "-p", pid])).stdout;
        if comm.trim().ends_with("postgrey")
            && let Ok(pid) = pid.parse()
        {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
    }
}

/// The program, or a line that says what is not tested without it. Written
/// past the test harness, which would keep the line of a test that passes.
fn find_or_skip(program: &str, what: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        skip(program, what);
    }
    found
}

/// The shells that are there, each once: sh is often one of the others. They
/// can trap HUP, even where the tests were started with it ignored, as by
/// nohup(1): what has a handler here is at its default after exec(2).
fn shells(what: &str) -> Vec<PathBuf> {
    signal_hook::flag::register(libc::SIGHUP, Arc::default()).unwrap();
    let mut seen = Vec::new();
    let mut found: Vec<PathBuf> = Vec::new();
    for name in SHELLS {
        let Some(shell) = find_or_skip(name, what) else {
            continue;
        };
        let target = fs::canonicalize(&shell).unwrap();
        if !seen.contains(&target) {
            seen.push(target);
            found.push(shell);
        }
    }
    found
}

/// What a command did.
#[derive(Debug)]
struct Done {
    status: i32,
    stdout: String,
    stderr: String,
}

/// Runs `command` to its end, for [`PATIENCE`] at most. Its output goes
/// through files, so that a process it leaves behind holds nothing up.
fn run(command: &mut Command) -> Done {
    let dir = tempfile::tempdir().unwrap();
    let (out, err) = (dir.path().join("out"), dir.path().join("err"));
    let mut child = command
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(&err).unwrap())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if start.elapsed() > PATIENCE {
            child.kill().ok();
            child.wait().ok();
            panic!("{command:?} does not end");
        }
        sleep(Duration::from_millis(5));
    };
    let read = |path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned();
    Done {
        status: status.code().unwrap_or(-1),
        stdout: read(&out),
        stderr: read(&err),
    }
}

/// Waits until `condition` holds, for [`PATIENCE`] at most.
fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(5));
    }
}
