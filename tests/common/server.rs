//! A server started for a test, on a UNIX socket or port of its own, with
//! everything it needs in a directory. Everything is bounded and cleaned up.
#![allow(dead_code)] // each test binary uses a part of it

#[path = "client.rs"]
mod client;
#[path = "machine.rs"]
mod machine;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown};
use postgrey::policy::record::Database;
use postgrey::store::Store;
use postgrey::store::lmdb::{LmdbOptions, LmdbStore, Purpose};

pub use client::*;
pub use machine::*;

/// The server under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_postgrey");
/// No single step of a test takes longer, on a busy machine either.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A directory for a test that the server's user may enter, with one for the
/// database and one for sockets that are his.
pub fn test_dir() -> tempfile::TempDir {
    test_dir_in(&std::env::temp_dir())
}

/// The same inside a directory, if that exists.
pub fn test_dir_in(parent: &Path) -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("postgrey-test.");
    let dir = builder.tempdir_in(parent);
    let dir = dir.or_else(|_| builder.tempdir()).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    make_dbdir(&dir.path().join("db"));
    make_dbdir(&dir.path().join("run"));
    dir
}

/// Makes a directory that belongs to the user of the server.
pub fn make_dbdir(path: &Path) {
    fs::create_dir_all(path).unwrap();
    let mode = fs::Permissions::from_mode(if path.ends_with("run") { 0o755 } else { 0o700 });
    fs::set_permissions(path, mode).unwrap();
    give_to_server(path);
}

/// Gives a file or directory to the user of the server.
pub fn give_to_server(path: &Path) {
    if is_root() {
        chown(path, Some(nobody().uid), None).unwrap();
    }
}

pub fn nobody() -> User {
    User::from_name("nobody").unwrap().unwrap()
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

/// The program with a library made of this source in it; `None` without a C
/// compiler.
pub fn preloaded(source: &str, dir: &Path) -> Option<Command> {
    let library = dir.join("preload.so");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
        .arg(&library)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(source))
        .arg("-ldl")
        .status();
    let Ok(status) = status else {
        skip("cc", source);
        return None;
    };
    assert!(status.success());
    let mut command = Command::new(PROGRAM);
    command.env("LD_PRELOAD", library);
    Some(command)
}

/// A server process in the foreground.
pub struct Server {
    command: Command,
    child: Child,
    /// Children of a master that was killed.
    orphans: Vec<Pid>,
    pub dbdir: PathBuf,
    pub socket: PathBuf,
    /// Where it listens instead of on the socket.
    port: Option<u16>,
    pub log: PathBuf,
}

impl Server {
    /// Starts a server and waits until it serves. Without `--unix` or `--inet`
    /// its socket is `run/s` in this directory; its log is `log` there.
    pub fn start(dir: &Path, options: &[&str]) -> Server {
        Server::start_by(Command::new(PROGRAM), dir, options)
    }

    /// The same through another command, such as a shell that sets limits, or
    /// one with an environment.
    pub fn start_by(command: Command, dir: &Path, options: &[&str]) -> Server {
        let started = Server::try_start_by(command, dir, options);
        let said = || text_of(&dir.join("log"));
        started.unwrap_or_else(|status| panic!("it ended with {status}: {}", said()))
    }

    /// The same where it may refuse to start: its status then.
    pub fn try_start_by(
        mut command: Command,
        dir: &Path,
        options: &[&str],
    ) -> Result<Server, ExitStatus> {
        let dbdir = dir.join("db");
        for path in [&dbdir, &dir.join("run")] {
            if !path.exists() {
                make_dbdir(path);
            }
        }
        command.args(common_options(dir)).args(options);
        let value = |name| options.iter().find_map(|option| option.strip_prefix(name));
        let mut port = value("--inet=").map(|at| at.rsplit(':').next().unwrap().parse().unwrap());
        let mut socket = dir.join("run/s");
        if let Some(path) = value("--unix=") {
            (socket, port) = (path.into(), None);
        } else if port.is_none() {
            command.arg(format!("--unix={}", socket.display()));
        }
        let log = dir.join("log");
        let stderr = fs::File::options().create(true).append(true).open(&log);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.unwrap());
        let mut server = Server {
            child: command.spawn().unwrap(),
            command,
            orphans: Vec::new(),
            dbdir,
            socket,
            port,
            log,
        };
        server.wait_until_it_serves()?;
        Ok(server)
    }

    /// Starts the same server again after its end.
    pub fn start_again(&mut self) {
        let started = self.try_start_again();
        let said = || self.log_text();
        started.unwrap_or_else(|status| panic!("it ended with {status}: {}", said()));
    }

    /// The same where it may refuse to start: its status then.
    pub fn try_start_again(&mut self) -> Result<(), ExitStatus> {
        self.child = self.command.spawn().unwrap();
        self.wait_until_it_serves()
    }

    fn wait_until_it_serves(&mut self) -> Result<(), ExitStatus> {
        let log = self.log.clone();
        wait_for("the server to serve", &log, || {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(Err(status));
            }
            // A worker that closes after the end of our input is there.
            let mut client = self.try_connect().ok()?;
            client.finish().ok()?;
            let error = client.try_reply().err()?;
            (error.kind() == io::ErrorKind::UnexpectedEof).then_some(Ok(()))
        })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// The children of the master: the writer first, then the workers.
    pub fn children(&self) -> Vec<Pid> {
        children_of(self.pid())
    }

    /// Waits until the server has this many children, and returns them.
    pub fn wait_for_children(&self, number: usize) -> Vec<Pid> {
        wait_for(&format!("{number} children"), &self.log, || {
            Some(self.children()).filter(|children| children.len() == number)
        })
    }

    /// Sends the master a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub fn connect(&self) -> Client {
        self.try_connect().unwrap()
    }

    fn try_connect(&self) -> io::Result<Client> {
        match self.port {
            Some(port) => Client::inet(port),
            None => Client::unix(&self.socket),
        }
    }

    pub fn log_text(&self) -> String {
        text_of(&self.log)
    }

    /// Waits until the log holds a text that many times.
    pub fn wait_for_log(&self, text: &str, times: usize) {
        wait_for(&format!("{text:?}"), &self.log, || {
            (self.log_text().matches(text).count() >= times).then_some(())
        });
    }

    /// The records of a database, as text.
    pub fn records(&self, database: Database) -> BTreeMap<String, String> {
        let text = |octets: Vec<u8>| String::from_utf8_lossy(&octets).into_owned();
        records(&self.dbdir, database)
            .into_iter()
            .map(|(key, value)| (text(key), text(value)))
            .collect()
    }

    /// Ends it as an administrator does.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Kills the master and its children, so that none can do anything more.
    pub fn kill_all(&mut self) {
        // It does not replace them.
        self.signal(Signal::SIGSTOP);
        for pid in self.children() {
            kill(pid, Signal::SIGKILL).unwrap();
        }
        self.kill_master();
    }

    /// Kills the master alone.
    pub fn kill_master(&mut self) {
        self.orphans.extend(self.children());
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Waits for the end of the master.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the server to end", &self.log, || {
            self.child.try_wait().unwrap()
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut left = std::mem::take(&mut self.orphans);
        if let Ok(None) = self.child.try_wait() {
            left.extend(self.children());
            let _ = kill(self.pid(), Signal::SIGTERM);
        }
        let end = Instant::now() + Duration::from_secs(8);
        while Instant::now() < end {
            left.retain(|&pid| is_alive(pid));
            if left.is_empty() && !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            pause();
        }
        if let Ok(None) = self.child.try_wait() {
            // Some may have been started since.
            left.extend(self.children());
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        for pid in left {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// A short pause between two looks at something that changes.
pub fn pause() {
    std::thread::sleep(Duration::from_millis(5));
}

pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    wait_for(what, Path::new(""), || is_so().then_some(()));
}

/// What `look` finds, as soon as it does; otherwise the log may tell why not.
fn wait_for<T>(what: &str, log: &Path, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        let is_late = Instant::now() > end;
        assert!(!is_late, "waited in vain for {what} {}", text_of(log));
        pause();
    }
}

fn text_of(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

/// A store in a directory, beside that of a server.
pub fn open_store(dbdir: &Path) -> LmdbStore {
    LmdbStore::new(LmdbOptions {
        dir: dbdir.to_owned(),
        map_size: 1 << 30,
        purpose: Purpose::WriteFlushed,
        patience: PATIENCE,
    })
}

/// The records of a database in a directory.
pub fn records(dbdir: &Path, database: Database) -> BTreeMap<Vec<u8>, Vec<u8>> {
    // A process may have a database open once.
    static OPEN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = OPEN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut records = BTreeMap::new();
    open_store(dbdir)
        .scan(database, b"", None, &mut |entry| {
            records.insert(entry.key.to_vec(), entry.value.to_vec());
            ControlFlow::Continue(())
        })
        .unwrap();
    records
}

/// The program where any user may run it: the checkout may lie where only its
/// owner can go.
pub fn program_for_all(dir: &Path) -> PathBuf {
    let copy = dir.join("run/postgrey");
    if !copy.exists() {
        // Not by this process: a child that another thread forks meanwhile
        // would have the copy open for writing, and nobody could run it.
        let cp = Command::new("cp").arg(PROGRAM).arg(&copy).status();
        assert!(cp.unwrap().success());
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
    copy
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
        command.uid(nobody().uid.as_raw());
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
