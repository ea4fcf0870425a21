//! Redis servers and clusters of them, started for a test on free ports of
//! 127.0.0.1, with all they need in a directory, and ended with it.
#![allow(dead_code)] // each test binary uses a part of it

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use redis::FromRedisValue;

/// No step takes longer, on a busy machine either.
const PATIENCE: Duration = Duration::from_secs(30);
/// After so many milliseconds the nodes of a cluster take one for dead.
pub const NODE_TIMEOUT: u64 = 2000;

/// True if this program is on the machine; says what is skipped if not.
pub fn has(program: &str, what: &str) -> bool {
    let is_there = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    if !is_there {
        println!("skipped: {what}: no {program} on this machine");
    }
    is_there
}

/// Waits until something holds.
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < end, "in vain: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A server of its own directory.
pub struct RedisServer {
    dir: tempfile::TempDir,
    options: Vec<String>,
    child: Child,
    /// Its TCP port.
    pub port: u16,
}

impl RedisServer {
    /// Starts a server with these options besides the usual ones, and waits until
    /// it answers.
    pub fn start(options: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("postgrey-redis.")
            .tempdir()
            .unwrap();
        RedisServer::start_in(dir, options)
    }

    /// The same in a directory that has what the options name.
    pub fn start_in(dir: tempfile::TempDir, options: &[&str]) -> Self {
        // Another user may be asked to use its socket.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let options: Vec<_> = options.iter().map(|&option| option.to_owned()).collect();
        let end = Instant::now() + PATIENCE;
        loop {
            let port = free_port();
            let mut child = spawn(dir.path(), port, &options);
            // Another process may have been faster with the port.
            loop {
                if answers(dir.path(), child.id()) {
                    return RedisServer {
                        dir,
                        options,
                        child,
                        port,
                    };
                }
                if child.try_wait().unwrap().is_some() {
                    break;
                }
                if Instant::now() > end {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
            let log = fs::read_to_string(dir.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < end, "redis-server does not start: {log}");
        }
    }

    /// The directory: the socket `sock`, its `log`, and what the options name.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What `--store` takes.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The same for its UNIX socket.
    pub fn unix_url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }

    /// Its UNIX socket, where it wants no password and no TLS.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("sock")
    }

    /// Gives it a command, by the UNIX socket.
    #[track_caller]
    pub fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        self.try_ask(words).unwrap()
    }

    /// The same where it may fail.
    pub fn try_ask<T: FromRedisValue>(&self, words: &[&str]) -> redis::RedisResult<T> {
        ask_at(self.dir.path(), words)
    }

    /// Its process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal: STOP, CONT, TERM, KILL.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again at the same port, after [`RedisServer::kill`]; what it
    /// did not keep is lost.
    pub fn start_again(&mut self) {
        wait_until("the server starts again", || {
            self.child = spawn(self.dir.path(), self.port, &self.options);
            loop {
                if answers(self.dir.path(), self.child.id()) {
                    return true;
                }
                if self.child.try_wait().unwrap().is_some() {
                    return false;
                }
                thread::sleep(Duration::from_millis(10));
            }
        });
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        // One that is stopped dies of it, too.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(dir: &Path, port: u16, options: &[String]) -> Child {
    let log = fs::File::create(dir.join("log")).unwrap();
    let mut command = Command::new("redis-server");
    command
        .current_dir(dir)
        .args(["--bind", "127.0.0.1", "--unixsocket", "./sock"])
        .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
        .args(["--unixsocketperm", "777"]);
    // With TLS the port is that of TLS.
    match options.iter().any(|option| option == "--tls-port") {
        true => command.args(["--port", "0"]),
        false => command.args(["--port", &port.to_string()]),
    };
    for option in options {
        command.arg(option.replace("PORT", &port.to_string()));
    }
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// True if it is this process that answers, or wants a password.
fn answers(dir: &Path, pid: u32) -> bool {
    match ask_at::<String>(dir, &["INFO", "server"]) {
        Ok(info) => info.contains(&format!("process_id:{pid}\r\n")),
        Err(error) => error.code() == Some("NOAUTH"),
    }
}

fn ask_at<T: FromRedisValue>(dir: &Path, words: &[&str]) -> redis::RedisResult<T> {
    let client = redis::Client::open(format!("unix://{}", dir.join("sock").display()))?;
    let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query(&mut connection)
}

/// A port that nobody uses, nor the one of the cluster's bus above it.
fn free_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// A cluster of three masters with one replica each: nodes 0 to 2 have a third
/// of the slots each; 3 to 5 are their replicas.
pub struct RedisCluster {
    /// Its nodes.
    pub nodes: Vec<RedisServer>,
    ids: Vec<String>,
    scheme: &'static str,
}

impl RedisCluster {
    /// Starts one with these options of each node, and waits until all is well.
    pub fn start(options: &[&str]) -> Self {
        let timeout = NODE_TIMEOUT.to_string();
        let mut all = vec![
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            &timeout,
        ];
        all.extend(["--repl-diskless-sync-delay", "0"]);
        all.extend(options);
        let nodes: Vec<_> = (0..6).map(|_| RedisServer::start(&all)).collect();
        let ids = nodes
            .iter()
            .map(|node| node.ask(&["CLUSTER", "MYID"]))
            .collect();
        let is_by_tls = options.contains(&"--tls-port");
        let cluster = RedisCluster {
            nodes,
            ids,
            scheme: if is_by_tls {
                "rediss-cluster"
            } else {
                "redis-cluster"
            },
        };
        cluster.join();
        cluster
    }

    /// Starts one whose nodes speak TLS, with each other as well, by what
    /// [`make_certificates`] has made in this directory.
    pub fn start_by_tls(dir: &Path, options: &[&str]) -> Self {
        let file = |name: &str| dir.join(name).display().to_string();
        let (certificate, key, ca) = (file("server.pem"), file("server.key"), file("ca.pem"));
        let mut all = vec!["--tls-port", "PORT", "--tls-auth-clients", "no"];
        all.extend(["--tls-cluster", "yes", "--tls-replication", "yes"]);
        all.extend(["--tls-cert-file", &certificate, "--tls-key-file", &key]);
        all.extend(["--tls-ca-cert-file", &ca]);
        all.extend(options);
        RedisCluster::start(&all)
    }

    fn join(&self) {
        for (number, (first, last)) in [(0, 5460), (5461, 10922), (10923, 16383)]
            .into_iter()
            .enumerate()
        {
            let (first, last): (i32, i32) = (first, last);
            let words = [
                "CLUSTER",
                "ADDSLOTSRANGE",
                &first.to_string(),
                &last.to_string(),
            ];
            let () = self.nodes[number].ask(&words);
        }
        for (number, node) in self.nodes.iter().enumerate() {
            let epoch = (number + 1).to_string();
            let () = node.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            let port = self.nodes[0].port.to_string();
            if number != 0 {
                let () = node.ask(&["CLUSTER", "MEET", "127.0.0.1", &port]);
            }
        }
        for number in 3..6 {
            let master = &self.ids[number - 3];
            wait_until("a replica knows its master", || {
                let words = ["CLUSTER", "REPLICATE", master];
                self.nodes[number].try_ask::<()>(&words).is_ok()
            });
        }
        self.wait_until_well();
    }

    /// Waits until all nodes that live say that all slots are served, and each
    /// master that lives has a replica, if that lives.
    pub fn wait_until_well(&self) {
        wait_until("the cluster is well", || {
            (0..6).all(|number| {
                let info = |words: &[&str]| -> String {
                    self.nodes[number].try_ask(words).unwrap_or_default()
                };
                info(&["CLUSTER", "INFO"]).contains("cluster_state:ok")
                    && info(&["CLUSTER", "INFO"]).contains("cluster_known_nodes:6")
                    && (number < 3
                        || info(&["INFO", "replication"]).contains("master_link_status:up"))
            })
        });
    }

    /// What `--store` takes.
    pub fn url(&self) -> String {
        let seeds: Vec<_> = self
            .nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port))
            .collect();
        format!("{}://{}", self.scheme, seeds.join(","))
    }

    /// Moves a slot with its keys between two masters, in steps, as redis-cli does.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let slot = slot.to_string();
        let setslot = |node: usize, how: &str, id: usize| {
            let words = ["CLUSTER", "SETSLOT", &slot, how, &self.ids[id]];
            let () = self.nodes[node].ask(&words);
        };
        setslot(to, "IMPORTING", from);
        setslot(from, "MIGRATING", to);
        let port = self.nodes[to].port.to_string();
        loop {
            let words = ["CLUSTER", "GETKEYSINSLOT", &slot, "10"];
            let keys: Vec<String> = self.nodes[from].ask(&words);
            if keys.is_empty() {
                break;
            }
            let mut words = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
            words.extend(keys.iter().map(String::as_str));
            let () = self.nodes[from].ask(&words);
        }
        for node in [to, from, 3 - from - to] {
            setslot(node, "NODE", to);
        }
    }

    /// True if a node takes changes.
    pub fn is_master(&self, number: usize) -> bool {
        let role: redis::RedisResult<Vec<redis::Value>> = self.nodes[number].try_ask(&["ROLE"]);
        role.is_ok_and(|role| role.first() == Some(&redis::Value::BulkString(b"master".into())))
    }
}

/// Makes an authority (`ca.pem`), the certificate and key of a server at
/// 127.0.0.1 (`server.pem`, `server.key`), and those of a client in one file
/// (`client.pem`).
pub fn make_certificates(dir: &Path) {
    openssl(
        dir,
        &[],
        &format!(
            "{NEW_CERTIFICATE} -subj /CN=authority -keyout ca.key -out ca.pem \
             -addext keyUsage=critical,keyCertSign"
        ),
    );
    sign(
        dir,
        "server",
        "-addext subjectAltName=IP:127.0.0.1,DNS:localhost",
        &[],
    );
    sign(dir, "client", "-addext extendedKeyUsage=clientAuth", &[]);
    let key = fs::read(dir.join("client.key")).unwrap();
    let mut both = fs::read(dir.join("client.pem")).unwrap();
    both.extend(key);
    fs::write(dir.join("client.pem"), both).unwrap();
}

const NEW_CERTIFICATE: &str =
    "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2";

/// A certificate and a key by the authority in this directory, made by openssl with these
/// words in front of it.
pub fn sign(dir: &Path, name: &str, more: &str, before: &[&str]) {
    let words = format!(
        "{NEW_CERTIFICATE} -subj /CN={name} -keyout {name}.key -out {name}.pem -CA ca.pem \
         -CAkey ca.key -addext basicConstraints=critical,CA:FALSE {more}"
    );
    openssl(dir, before, &words);
}

/// Calls openssl in this directory, with the words of one text.
pub fn openssl(dir: &Path, before: &[&str], words: &str) {
    let mut all: Vec<&str> = before.to_vec();
    all.push("openssl");
    all.extend(words.split_ascii_whitespace());
    let output = Command::new(all[0])
        .current_dir(dir)
        .args(&all[1..])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {words}: {said}");
}
