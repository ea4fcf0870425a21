//! The servers that are compared: ours, the null server, the original.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, Uid, User, chown, sysconf};
use postgrey::policy::command::{Allowance, Command as StoreCommand, Counting, Now};
use postgrey::policy::rules::Rules;
use postgrey::store::Store;
use postgrey::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use socket2::Socket;

use crate::load::Address;
use crate::traffic::filler;

/// Where Debian has the original.
const ORIGINAL: &str = "/usr/sbin/postgrey";
/// How long a server may take to start, and to end.
const PATIENCE: Duration = Duration::from_secs(15);

/// Which program serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    Postgrey,
    Null,
    Original,
}

impl Program {
    /// All, with their names.
    pub const ALL: [(&'static str, Program); 3] = [
        ("postgrey", Program::Postgrey),
        ("null", Program::Null),
        ("original", Program::Original),
    ];

    /// False for the original where it is not installed: what we install
    /// ourselves may have the same place, and is no script.
    pub fn is_there(self) -> bool {
        let is_script = || fs::read(ORIGINAL).is_ok_and(|text| text.starts_with(b"#!"));
        self != Program::Original || is_script()
    }
}

/// How clients come to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Unix,
}

/// A server to be measured, and what is around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    pub program: Program,
    pub transport: Transport,
    /// `--workers`; `None` for the default.
    pub workers: Option<usize>,
    /// `--sync=none`.
    pub is_unsafe: bool,
    /// Triplets in the database before the start.
    pub triplets: u64,
    /// Connections that are open and never used.
    pub idle: usize,
}

impl Setup {
    /// A program as it comes.
    pub const fn of(program: Program) -> Setup {
        Setup {
            program,
            transport: Transport::Tcp,
            workers: None,
            is_unsafe: false,
            triplets: 0,
            idle: 0,
        }
    }

    /// What it is called in a table: the program, and what is not the default.
    pub fn label(&self) -> String {
        let name = Program::ALL
            .iter()
            .find(|(_, program)| *program == self.program);
        let mut label = name.map_or("", |(name, _)| name).to_owned();
        if self.transport == Transport::Unix {
            label.push_str(" unix");
        }
        if let Some(workers) = self.workers {
            label.push_str(&format!(" workers={workers}"));
        }
        if self.is_unsafe {
            label.push_str(" sync=none");
        }
        if self.triplets > 0 {
            label.push_str(&format!(" triplets={}", self.triplets));
        }
        if self.idle > 0 {
            label.push_str(&format!(" idle={}", self.idle));
        }
        label
    }
}

/// A running server. It ends with the value.
pub struct Server {
    child: Child,
    program: Program,
    pub address: Address,
    _idle: Vec<Socket>,
    folder: tempfile::TempDir,
}

impl Server {
    /// Starts a server and waits until it serves.
    pub fn start(setup: &Setup) -> io::Result<Server> {
        let folder = make_folder()?;
        let dbdir = make_server_dir(&folder.path().join("db"))?;
        if setup.triplets > 0 {
            fill(&dbdir, filler_keys(setup.triplets), 0)?;
        }
        let mut options = Vec::new();
        if let Some(workers) = setup.workers {
            options.push(format!("--workers={workers}"));
        }
        if setup.is_unsafe {
            options.push("--sync=none".into());
        }
        let mut server = Server::start_in(folder, setup, &options, Stdio::null())?;
        for _ in 0..setup.idle {
            let socket = server.address.connect()?;
            server._idle.push(socket);
        }
        Ok(server)
    }

    /// Starts a server in a folder that has a database; its log goes to `log`.
    pub fn start_in(
        folder: tempfile::TempDir,
        setup: &Setup,
        options: &[String],
        log: Stdio,
    ) -> io::Result<Server> {
        let path = folder.path();
        let address = match setup.transport {
            Transport::Tcp => Address::Tcp(free_address()?),
            Transport::Unix => Address::Unix(make_server_dir(&path.join("run"))?.join("socket")),
        };
        let mut command = match setup.program {
            Program::Null => Command::new(std::env::current_exe()?),
            Program::Original => Command::new(ORIGINAL),
            Program::Postgrey => Command::new(env!("CARGO_BIN_EXE_postgrey")),
        };
        if setup.program == Program::Null {
            match &address {
                Address::Tcp(at) => command.args(["null-server", "tcp", &at.to_string()]),
                Address::Unix(at) => command.args(["null-server", "unix"]).arg(at),
            };
            // Its end ends the server.
            command.stdin(Stdio::piped());
        } else {
            let dbdir = make_server_dir(&path.join("db"))?;
            command.arg(format!("--dbdir={}", dbdir.display()));
            match &address {
                Address::Tcp(at) => command.arg(format!("--inet={at}")),
                Address::Unix(at) => command.arg(format!("--unix={}", at.display())),
            };
            command.args(whitelists(path)?).args(options);
            if Uid::effective().is_root() {
                command.args(["--user=nobody", "--group=nogroup"]);
            }
            command.stdin(Stdio::null());
        }
        let child = command.stdout(Stdio::null()).stderr(log).spawn()?;
        let mut server = Server {
            child,
            program: setup.program,
            address,
            _idle: Vec::new(),
            folder,
        };
        server.wait_until_it_serves()?;
        Ok(server)
    }

    /// The folder of the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Seconds of the processor that its processes have taken.
    pub fn processor_time(&self) -> io::Result<f64> {
        let own = self.child.id().to_string();
        let mut ticks = 0;
        for entry in fs::read_dir("/proc")? {
            let Ok(stat) = fs::read_to_string(entry?.path().join("stat")) else {
                continue;
            };
            // The name of the program may hold anything.
            let Some((start, fields)) = stat.rsplit_once(')') else {
                continue;
            };
            let fields: Vec<&str> = fields.split_whitespace().collect();
            let is_own = start.split(' ').next() == Some(&own);
            if is_own || fields.get(1) == Some(&own.as_str()) {
                let counts = fields.iter().skip(11).take(2);
                ticks += counts
                    .filter_map(|count| count.parse::<u64>().ok())
                    .sum::<u64>();
            }
        }
        let rate = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100);
        Ok(ticks as f64 / rate as f64)
    }

    fn wait_until_it_serves(&mut self) -> io::Result<()> {
        let start = Instant::now();
        while self.address.connect().is_err() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || start.elapsed() > PATIENCE {
                return Err(io::Error::other(format!(
                    "{:?} does not start",
                    self.program
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let pid = Pid::from_raw(self.child.id() as i32);
        if self.program == Program::Postgrey {
            let _ = kill(pid, Signal::SIGTERM);
        } else if self.program == Program::Original {
            // It may look at TERM late, and nothing of it is needed any more.
            let _ = kill(pid, Signal::SIGKILL);
        }
        let start = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if start.elapsed() > PATIENCE {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Where the databases are: `POSTGREY_BENCH_DIR`, or where temporary files are.
pub fn place() -> PathBuf {
    std::env::var_os("POSTGREY_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// A folder that the user of the server may enter.
pub fn make_folder() -> io::Result<tempfile::TempDir> {
    let folder = tempfile::Builder::new()
        .prefix("postgrey-bench-")
        .tempdir_in(place())?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    Ok(folder)
}

/// A directory that belongs to the user of the server.
pub fn make_server_dir(path: &Path) -> io::Result<PathBuf> {
    fs::create_dir_all(path)?;
    if Uid::effective().is_root()
        && let Some(nobody) = User::from_name("nobody")?
    {
        chown(path, Some(nobody.uid), Some(nobody.gid))?;
        for entry in fs::read_dir(path)? {
            chown(&entry?.path(), Some(nobody.uid), Some(nobody.gid))?;
        }
    }
    Ok(path.to_owned())
}

/// The whitelists that come with the program, and one domain more.
fn whitelists(folder: &Path) -> io::Result<[String; 2]> {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut clients = fs::read_to_string(conf.join("postgrey_whitelist_clients"))?;
    clients.push_str("\nwhite.example\n");
    let path = folder.join("whitelist_clients");
    fs::write(&path, clients)?;
    let recipients = folder.join("whitelist_recipients");
    fs::copy(conf.join("postgrey_whitelist_recipients"), &recipients)?;
    Ok([
        format!("--whitelist-clients={}", path.display()),
        format!("--whitelist-recipients={}", recipients.display()),
    ])
}

/// An address nobody listens on.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// So many triplets, in the order in which they come: anywhere among the keys.
pub fn filler_keys(triplets: u64) -> Vec<(Vec<u8>, u64)> {
    (0..triplets)
        .map(|number| (filler_key(number), number))
        .collect()
}

/// Fills a database with triplets that were seen within the last day; the
/// first `expired` of each thousand were last seen 100 days ago.
pub fn fill(dbdir: &Path, triplets: Vec<(Vec<u8>, u64)>, expired: u64) -> io::Result<()> {
    const BATCH: usize = 20_000;
    let mut store = LmdbStore::new(LmdbOptions {
        dir: dbdir.to_owned(),
        map_size: 4 << 30,
        purpose: Purpose::WriteUnflushed,
        patience: Duration::ZERO,
    });
    let rules = Rules::default();
    let now = std::time::UNIX_EPOCH
        .elapsed()
        .map_or(0, |since| since.as_secs());
    let mut outcomes = Vec::new();
    for batch in triplets.chunks(BATCH) {
        let commands: Vec<StoreCommand> = batch
            .iter()
            .map(|(key, number)| {
                let is_expired = number % 1000 < expired;
                let age = if is_expired {
                    100 * 86_400
                } else {
                    number % 80_000
                };
                StoreCommand {
                    now: Now::new((now - age) as f64, None),
                    address: b"192.0.2.1",
                    client: b"192.0.2.1",
                    own_client: b"",
                    triplet: key,
                    octet: b"1",
                    counting: Counting::Always,
                    is_data: false,
                    allowance: Allowance::UNLIMITED,
                }
            })
            .collect();
        outcomes.clear();
        store
            .apply_batch(&rules, &commands, &mut outcomes)
            .map_err(io::Error::other)?;
    }
    store.end().map_err(io::Error::other)
}

fn filler_key(number: u64) -> Vec<u8> {
    let subject = filler(number);
    let [a, b, c, _] = subject.address();
    let mut key = format!("{a}.{b}.{c}.0/").into_bytes();
    subject.push_sender(&mut key);
    key.push(b'/');
    subject.push_recipient(&mut key);
    key
}
