//! A server started for a test, on a UNIX socket or port of its own, and a
//! client that talks to it. Everything is bounded and cleaned up.
#![allow(dead_code)] // each test binary uses a part of it

#[path = "machine.rs"]
mod machine;

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown};

#[allow(unused_imports)] // each test binary uses a part of it
pub use machine::{free_port, is_root, skip, tell};

/// No single step of a test takes longer.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A directory for a test that the server's user may enter and write.
pub fn test_dir() -> tempfile::TempDir {
    let dir = tempfile::Builder::new()
        .prefix("postgrey-test.")
        .tempdir()
        .unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    make_db_dir(&dir.path().join("db"));
    make_db_dir(&dir.path().join("run"));
    dir
}

pub fn make_db_dir(path: &Path) {
    fs::create_dir_all(path).unwrap();
    if is_root() {
        let nobody = User::from_name("nobody").unwrap().unwrap();
        chown(path, Some(nobody.uid), None).unwrap();
    }
}

/// Options that every server of a test gets.
pub fn common_options(dir: &Path) -> Vec<OsString> {
    let mut options = vec![
        OsString::from(format!("--dbdir={}", dir.join("db").display())),
        OsString::from("--whitelist-clients=/dev/null"),
        OsString::from("--whitelist-recipients=/dev/null"),
        OsString::from("--hostname=mx.example.org"),
    ];
    if is_root() {
        options.push("--user=nobody".into());
    }
    options
}

/// A server process in the foreground.
pub struct Server {
    pub child: Child,
    pub dir: PathBuf,
    pub socket: PathBuf,
    pub log: PathBuf,
}

impl Server {
    /// Starts a server on the UNIX socket `run/s` in this directory and waits until
    /// it answers.
    pub fn start(dir: &Path, options: &[&str]) -> Server {
        Server::start_by(Command::new(env!("CARGO_BIN_EXE_postgrey")), dir, options)
    }

    /// The same through another command, such as a shell that sets limits.
    pub fn start_by(mut command: Command, dir: &Path, options: &[&str]) -> Server {
        let socket = dir.join("run/s");
        let log = dir.join("log");
        let stderr = fs::File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = command
            .args(common_options(dir))
            .arg(format!("--unix={}", socket.display()))
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut server = Server {
            child,
            dir: dir.to_owned(),
            socket,
            log,
        };
        server.wait_until_it_listens();
        server
    }

    fn wait_until_it_listens(&mut self) {
        let end = Instant::now() + LIMIT;
        loop {
            // A worker that closes behind the end of our input is there.
            if let Ok(mut stream) = UnixStream::connect(&self.socket) {
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                if let Ok(0) = stream.read(&mut [0]) {
                    return;
                }
            }
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the server ended with {status}: {}", self.log_text());
            }
            assert!(
                Instant::now() < end,
                "the server does not answer: {}",
                self.log_text()
            );
            pause();
        }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// The children of the master: the writer first, then the workers.
    pub fn children(&self) -> Vec<Pid> {
        children_of(self.pid())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub fn connect(&self) -> Client {
        Client::of(UnixStream::connect(&self.socket).unwrap())
    }

    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until the log holds a text that many times.
    pub fn wait_for_log(&self, text: &str, times: usize) {
        wait_until(&format!("{text:?} in the log"), || {
            self.log_text().matches(text).count() >= times
        });
    }

    /// Ends it with TERM; the time it took.
    pub fn stop(&mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        self.signal(Signal::SIGTERM);
        (self.wait(), start.elapsed())
    }

    pub fn wait(&mut self) -> ExitStatus {
        let end = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < end,
                "the server does not end: {}",
                self.log_text()
            );
            pause();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // Children end by themselves when the master is gone.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A short pause between two looks at something that changes.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < end, "waited in vain for {what}");
        pause();
    }
}

pub fn children_of(parent: Pid) -> Vec<Pid> {
    let children = machine::children_of(parent.as_raw());
    children.into_iter().map(Pid::from_raw).collect()
}

pub fn is_alive(pid: Pid) -> bool {
    machine::is_alive(pid.as_raw())
}

/// The program where any user may run it: the checkout may lie where only its
/// owner can go.
pub fn program_for_all(dir: &Path) -> PathBuf {
    let copy = dir.join("run/postgrey");
    if !copy.exists() {
        fs::copy(env!("CARGO_BIN_EXE_postgrey"), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
    copy
}

/// A request as Postfix sends it, with some attributes replaced.
pub fn request(attributes: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![
        ("request", "smtpd_access_policy"),
        ("protocol_state", "RCPT"),
        ("client_address", "192.0.2.91"),
        ("client_name", "mail.example.com"),
        ("sender", "alice@example.com"),
        ("recipient", "user@example.org"),
    ];
    for (name, value) in attributes {
        match all.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value,
            None => all.push((name, value)),
        }
    }
    let mut text: String = all
        .iter()
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    text.push('\n');
    text.into_bytes()
}

pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection to a server.
pub struct Client {
    pub stream: BufReader<Box<dyn Stream>>,
}

impl Client {
    pub fn of(stream: UnixStream) -> Client {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Client {
            stream: BufReader::new(Box::new(stream)),
        }
    }

    pub fn of_tcp(stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Client {
            stream: BufReader::new(Box::new(stream)),
        }
    }

    pub fn send(&mut self, octets: &[u8]) {
        self.stream.get_mut().write_all(octets).unwrap();
    }

    /// The next reply without `action=` and line ends; `None` at the end.
    pub fn reply(&mut self) -> Option<String> {
        let mut line = Vec::new();
        if self.stream.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        let mut empty = Vec::new();
        self.stream.read_until(b'\n', &mut empty).ok()?;
        assert_eq!(empty, b"\n", "behind {:?}", String::from_utf8_lossy(&line));
        let line = String::from_utf8(line).unwrap();
        Some(
            line.strip_prefix("action=")
                .unwrap()
                .trim_end_matches('\n')
                .to_string(),
        )
    }

    pub fn ask(&mut self, attributes: &[(&str, &str)]) -> String {
        self.send(&request(attributes));
        self.reply().expect("the server closed the connection")
    }

    /// `None` if the connection breaks.
    pub fn try_ask(&mut self, attributes: &[(&str, &str)]) -> Option<String> {
        self.stream.get_mut().write_all(&request(attributes)).ok()?;
        self.reply()
    }
}

/// A session as spawn(8) starts it, standard error included.
pub struct Spawned {
    pub client: Client,
    pub child: Child,
}

pub fn spawn(dir: &Path, options: &[&str]) -> Spawned {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new(program_for_all(dir));
    command
        .arg("--spawn")
        .args(common_options(dir))
        .args(options);
    if is_root() {
        command.uid(User::from_name("nobody").unwrap().unwrap().uid.as_raw());
    }
    let end = || Stdio::from(std::os::fd::OwnedFd::from(theirs.try_clone().unwrap()));
    let child = command
        .stdin(end())
        .stdout(end())
        .stderr(end())
        .spawn()
        .unwrap();
    Spawned {
        client: Client::of(ours),
        child,
    }
}
