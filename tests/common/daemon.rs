//! The built server as a process of its own: starting it, asking it, and
//! ending it with everything it started.
#![allow(dead_code)] // each test binary uses its part

#[path = "machine.rs"]
mod machine;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgrey::policy::record::Database;
use postgrey::store::Store;
use postgrey::store::lmdb::{LmdbOptions, LmdbStore};

#[allow(unused_imports)] // each test binary uses a part of it
pub use machine::{children_of, free_port, is_alive, is_root, skip};

/// The server under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_postgrey");
/// How long anything that should be quick may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A directory that the user of the server may enter, removed at the end.
pub fn make_folder() -> tempfile::TempDir {
    make_folder_in(&std::env::temp_dir())
}

/// The same inside a directory, if that exists.
pub fn make_folder_in(parent: &Path) -> tempfile::TempDir {
    let mut builder = tempfile::Builder::new();
    builder.prefix("postgrey-test-");
    let folder = match builder.tempdir_in(parent) {
        Ok(folder) => folder,
        Err(_) => builder.tempdir().unwrap(),
    };
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Makes a directory that belongs to the user of the server.
pub fn make_dbdir(path: &Path) {
    fs::create_dir_all(path).unwrap();
    give_to_server(path);
}

/// Gives a file or directory to the user of the server.
pub fn give_to_server(path: &Path) {
    if !is_root() {
        return;
    }
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    let group = nix::unistd::Group::from_name("nogroup").unwrap();
    let gid = group.map_or(nobody.gid, |group| group.gid);
    nix::unistd::chown(path, Some(nobody.uid), Some(gid)).unwrap();
}

/// Compiles a library to be preloaded into the server; `None` without a C
/// compiler.
pub fn build_library(source: &str, folder: &Path) -> Option<PathBuf> {
    let library = folder.join("preload.so");
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
    Some(library)
}

/// A running server.
pub struct Daemon {
    child: Option<Child>,
    pid: i32,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    pub dbdir: PathBuf,
    log: PathBuf,
    inet: Option<u16>,
    unix: Option<PathBuf>,
}

impl Daemon {
    /// Starts a server in the foreground, its log in a file of the folder.
    pub fn start(folder: &Path, args: &[&str]) -> Daemon {
        Daemon::start_with(folder, args, &[])
    }

    /// The same with variables in its environment.
    pub fn start_with(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Daemon {
        let dbdir = folder.join("db");
        make_dbdir(&dbdir);
        let has_workers = args.iter().any(|arg| arg.starts_with("--workers"));
        let mut command = vec![format!("--dbdir={}", dbdir.display())];
        if !has_workers {
            command.push("--workers=2".into());
        }
        let has_lists = args.iter().any(|arg| arg.starts_with("--whitelist-"));
        if !has_lists {
            let none = folder.join("no-whitelist.local");
            command.push(format!("--whitelist-clients={}", none.display()));
            command.push(format!("--whitelist-recipients={}", none.display()));
        }
        if is_root() {
            command.extend(["--user=nobody".into(), "--group=nogroup".into()]);
        }
        command.extend(args.iter().map(|arg| (*arg).to_string()));
        let value = |name: &str| args.iter().find_map(|arg| arg.strip_prefix(name));
        let inet = value("--inet=").map(|at| at.rsplit(':').next().unwrap().parse().unwrap());
        let mut daemon = Daemon {
            child: None,
            pid: 0,
            command,
            environment: environment
                .iter()
                .map(|(name, value)| ((*name).to_string(), (*value).to_string()))
                .collect(),
            dbdir,
            log: folder.join("log"),
            inet,
            unix: value("--unix=").map(PathBuf::from),
        };
        daemon.start_again();
        daemon
    }

    /// Starts the same server again after its end.
    pub fn start_again(&mut self) {
        self.launch();
        let start = Instant::now();
        while !self.is_listening() {
            if let Some(status) = self.child.as_mut().unwrap().try_wait().unwrap() {
                panic!("the server ended with {status}: {}", self.log_text());
            }
            assert!(start.elapsed() < PATIENCE, "{}", self.log_text());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Starts the process without waiting for it.
    pub fn launch(&mut self) {
        let log = File::options()
            .append(true)
            .create(true)
            .open(&self.log)
            .unwrap();
        let child = Command::new(PROGRAM)
            .args(&self.command)
            .envs(self.environment.iter().map(|(a, b)| (a, b)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.pid = child.id() as i32;
        self.child = Some(child);
    }

    fn is_listening(&self) -> bool {
        match (&self.unix, self.inet) {
            (Some(path), _) => UnixStream::connect(path).is_ok(),
            (None, Some(port)) => TcpStream::connect(("127.0.0.1", port)).is_ok(),
            (None, None) => true,
        }
    }

    /// The number of the master.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The numbers of the children.
    pub fn children(&self) -> Vec<i32> {
        children_of(self.pid)
    }

    /// Waits until the server has this many children, and returns them.
    pub fn wait_for_children(&self, number: usize) -> Vec<i32> {
        let start = Instant::now();
        loop {
            let children = self.children();
            if children.len() == number {
                return children;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{children:?} {}",
                self.log_text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the server has logged.
    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until the log holds some text this many times.
    pub fn wait_for_log(&self, text: &str, times: usize) {
        let start = Instant::now();
        while self.log_text().matches(text).count() < times {
            assert!(
                start.elapsed() < PATIENCE,
                "no {text:?} in {}",
                self.log_text()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends the master a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid), signal).unwrap();
    }

    /// Ends the server as an administrator does; returns its exit status.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Kills the master alone.
    pub fn kill_master(&mut self) {
        self.signal(Signal::SIGKILL);
        self.wait();
    }

    /// Waits for the end of the master.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let start = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if start.elapsed() > PATIENCE {
                self.child = Some(child);
                panic!("the server does not end: {}", self.log_text());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A connection to the server.
    pub fn connect(&self) -> PolicyClient {
        match (&self.unix, self.inet) {
            (Some(path), _) => PolicyClient::unix(path),
            (None, Some(port)) => PolicyClient::inet(port),
            (None, None) => panic!("the server has no socket"),
        }
    }

    /// The records of a database.
    pub fn records(&self, database: Database) -> BTreeMap<String, String> {
        records(&self.dbdir, database)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        let children = self.children();
        let _ = kill(Pid::from_raw(self.pid), Signal::SIGTERM);
        let start = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if start.elapsed() > Duration::from_secs(8) {
                for pid in children.into_iter().chain([self.pid]) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                let _ = child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A store on the same environment as a server.
pub fn open_store(dbdir: &Path) -> LmdbStore {
    LmdbStore::new(LmdbOptions {
        dir: dbdir.to_owned(),
        map_size: 1 << 30,
        sync: true,
    })
}

/// The records of a database, as text.
pub fn records(dbdir: &Path, database: Database) -> BTreeMap<String, String> {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    let mut records = BTreeMap::new();
    open_store(dbdir)
        .scan(database, None, &mut |entry| {
            records.insert(text(entry.key), text(entry.value));
            ControlFlow::Continue(())
        })
        .unwrap();
    records
}

/// A policy client as Postfix is one: a request, its answer, the next.
pub struct PolicyClient {
    stream: Box<dyn Stream>,
    pending: Vec<u8>,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl PolicyClient {
    /// Connects to a port of 127.0.0.1.
    pub fn inet(port: u16) -> PolicyClient {
        PolicyClient::try_inet(port).unwrap()
    }

    /// The same; fails if nobody listens.
    pub fn try_inet(port: u16) -> std::io::Result<PolicyClient> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(PolicyClient::new(stream))
    }

    /// Connects to a UNIX socket.
    pub fn unix(path: &Path) -> PolicyClient {
        let stream = UnixStream::connect(path).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        PolicyClient::new(stream)
    }

    fn new(stream: impl Read + Write + Send + 'static) -> PolicyClient {
        PolicyClient {
            stream: Box::new(stream),
            pending: Vec::new(),
        }
    }

    /// Sends octets.
    pub fn send(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(octets)
    }

    /// The next answer without `action=`; an error if the connection ends.
    pub fn try_answer(&mut self) -> std::io::Result<String> {
        let mut buffer = [0; 4096];
        loop {
            if let Some(end) = self.pending.windows(2).position(|pair| pair == b"\n\n") {
                let answer = String::from_utf8_lossy(&self.pending[..end]).into_owned();
                self.pending.drain(..end + 2);
                let action = answer.strip_prefix("action=");
                return Ok(action.expect("an answer begins with action=").to_string());
            }
            match self.stream.read(&mut buffer)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                length => self.pending.extend_from_slice(&buffer[..length]),
            }
        }
    }

    /// Asks and waits for the answer.
    pub fn try_ask(&mut self, request: &[u8]) -> std::io::Result<String> {
        self.send(request)?;
        self.try_answer()
    }

    /// The same; the connection must not end.
    pub fn ask(&mut self, request: &[u8]) -> String {
        self.try_ask(request).unwrap()
    }
}

/// A request at RCPT with what decides about it.
pub fn request(address: &str, sender: &str, recipient: &str, extra: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!(
        "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=SMTP\n\
         client_address={address}\nclient_name=client.example.net\n\
         sender={sender}\nrecipient={recipient}\n"
    );
    for (name, value) in extra {
        text.push_str(&format!("{name}={value}\n"));
    }
    text.push('\n');
    text.into_bytes()
}
