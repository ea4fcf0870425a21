//! The processes of the server: start, stop, signals, deaths, limits, and
//! every trouble with its surroundings that has an end.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/server.rs"]
mod server;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgrey::server::commit::WRITER_PATIENCE;
use postgrey::sys::lock::{Claim, LockFile};
use server::{
    Client, PATIENCE, PROGRAM, Server, children_of, common_options, free_port, is_alive, is_root,
    make_dbdir, nobody, program_for_all, request, skip, spawn, test_dir, wait_until,
};

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

#[test]
fn every_way_to_start_serves_and_stops() {
    for in_background in [false, true] {
        for over_inet in [false, true] {
            for as_user in [false, true] {
                if as_user && !is_root() {
                    continue;
                }
                start_and_stop(in_background, over_inet, as_user);
            }
        }
    }
}

fn start_and_stop(in_background: bool, over_inet: bool, as_user: bool) {
    let dir = test_dir();
    let (port, socket) = (free_port(), dir.path().join("db/s"));
    let listen = match over_inet {
        true => format!("--inet=127.0.0.1:{port}"),
        false => format!("--unix={}", socket.display()),
    };
    let ask = || {
        let mut client = match over_inet {
            true => Client::inet(port),
            false => Client::unix(&socket),
        }
        .unwrap();
        assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
    };
    if in_background {
        let daemon = Daemon::start(dir.path(), &[listen], as_user);
        ask();
        // A worker and the writer; the one that copies the database has ended.
        let mut children = Vec::new();
        wait_until("two children", || {
            children = children_of(daemon.pid);
            children.len() == 2
        });
        daemon.stop();
        assert!(!dir.path().join("db/pid").exists());
        assert!(children.iter().all(|&pid| !is_alive(pid)));
    } else {
        let mut command = Command::new(program_for_all(dir.path()));
        if as_user {
            command.uid(nobody().uid.as_raw());
            // The socket of the helper goes where that user may make it.
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        }
        let mut server = Server::start_by(command, dir.path(), &[&listen]);
        ask();
        assert!(server.stop().success());
        assert!(!socket.exists());
    }
}

#[test]
fn a_second_start_on_the_same_directory_is_refused() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &[]);
    for background in [false, true] {
        let mut options = common_options(dir.path());
        options.push(format!("--inet=127.0.0.1:{}", free_port()).into());
        if background {
            options.push("-d".into());
        }
        let (status, message) = run(&options);
        assert_eq!(status, Some(11));
        let lock = dir.path().join("db/postgrey.lock");
        let holder = server.pid();
        assert_eq!(
            message,
            format!("ERROR: locked: {} (by process {holder})\n", lock.display())
        );
    }
    assert!(server.connect().ask(&[]).starts_with("DEFER_IF_PERMIT"));
}

#[test]
fn what_keeps_it_from_starting_is_said_with_a_status() {
    let dir = test_dir();
    let start = |options: &[String]| {
        let mut all = common_options(dir.path());
        all.extend(options.iter().map(Into::into));
        let foreground = run(&all);
        all.push("-d".into());
        assert_eq!(run(&all), foreground);
        foreground
    };
    let missing = dir.path().join("missing");
    let port = format!("--inet=127.0.0.1:{}", free_port());
    let (status, message) = start(&[port.clone(), format!("--dbdir={}", missing.display())]);
    assert_eq!(status, Some(2));
    assert!(
        message.starts_with(&format!(
            "ERROR: can't open lock file: {}/postgrey.lock",
            missing.display()
        )),
        "{message}"
    );
    let (status, message) = start(&[format!("--unix={}/s", missing.display())]);
    assert_eq!(status, Some(2));
    assert_eq!(
        message,
        format!(
            "ERROR: Can't connect to UNIX socket at file {}/s [No such file or directory]\n",
            missing.display()
        )
    );
    let (status, message) = start(&[port.clone(), "--user=nosuchuser".into()]);
    assert_eq!(
        (status, &message[..]),
        (Some(255), "ERROR: No such user \"nosuchuser\"\n")
    );
    let (status, message) = start(&[port, "--user=nobody".into(), "--group=nosuchgroup".into()]);
    assert_eq!(
        (status, &message[..]),
        (Some(255), "ERROR: No such group \"nosuchgroup\"\n")
    );
}

#[test]
fn no_process_can_become_root_again() {
    if !is_root() || !Path::new("/proc/self/status").exists() {
        skip("root with /proc", "that no process can become root again");
        return;
    }
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=2"]);
    let mut processes = server.wait_for_journal(3);
    processes.push(server.pid());
    let nobody = nobody();
    for pid in processes {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..]
                .split_whitespace()
                .map(str::to_string)
                .collect::<Vec<_>>()
        };
        // Real, effective, saved and file system user, and no capability left.
        assert_eq!(field("Uid:"), vec![nobody.uid.to_string(); 4]);
        assert!(field("Gid:").iter().all(|gid| gid != "0"));
        assert!(field("Groups:").iter().all(|gid| gid != "0"));
        assert_eq!(field("CapPrm:"), ["0000000000000000"]);
        assert_eq!(field("Umask:"), ["0077"]);
    }
}

#[test]
fn the_whole_server_ends_when_told_however_often_and_by_whomever() {
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT] {
        let dir = test_dir();
        let mut server = Server::start(dir.path(), &[]);
        let idle = server.connect();
        let children = server.children();
        // As SMF does it: to all processes at once, and once more.
        for _ in 0..2 {
            for &pid in children.iter().chain([&server.pid()]) {
                let _ = kill(pid, signal);
            }
        }
        let start = Instant::now();
        assert!(server.wait().success());
        assert!(start.elapsed() < Duration::from_secs(3));
        assert!(children.iter().all(|&pid| !is_alive(pid)));
        assert!(!server.socket.exists());
        assert!(server.log_text().contains(" Server closing!\n"));
        assert!(
            !server.log_text().contains("WARNING"),
            "{}",
            server.log_text()
        );
        drop(idle);
    }
}

#[test]
fn what_was_received_is_answered_before_the_end() {
    let dir = test_dir();
    let mut server = Server::start(dir.path(), &[]);
    let mut clients: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        client.ask(&[]);
        client.send(&request(&[("sender", &format!("last{index}@example.com"))]));
    }
    server.signal(Signal::SIGTERM);
    for client in &mut clients {
        assert!(client.reply().unwrap().starts_with("DEFER_IF_PERMIT"));
        assert_eq!(client.reply(), None);
    }
    assert!(server.wait().success());
}

#[test]
fn orphans_end_and_a_new_start_works_at_once() {
    let dir = test_dir();
    let mut server = Server::start(dir.path(), &[]);
    let mut client = server.connect();
    client.ask(&[]);
    let children = server.children();
    server.kill_master();
    let second = Server::start(dir.path(), &[]);
    assert!(second.connect().ask(&[]).starts_with("DEFER_IF_PERMIT"));
    wait_until("the orphans to end", || {
        children.iter().all(|&pid| !is_alive(pid))
    });
}

#[test]
fn children_that_die_are_replaced() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=2"]);
    for round in 1..=10 {
        let before = server.wait_for_children(3);
        let victim = before[round % 3];
        kill(victim, Signal::SIGKILL).unwrap();
        wait_until("a new child", || {
            let now = server.children();
            now.len() == 3 && !now.contains(&victim)
        });
        assert!(server.connect().ask(&[]).starts_with("DEFER_IF_PERMIT"));
    }
    server.wait_for_log("ended with signal SIGKILL: starting another", 10);
}

/// The worker does not wait until its patience is over.
#[test]
fn what_a_dead_writer_took_along_is_sent_to_the_next_at_once() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=1"]);
    let worker = server.wait_for_children(2)[1];
    let writer = || {
        let children = server.children();
        children.into_iter().find(|&pid| pid != worker)
    };
    let mut client = server.connect();
    let lock = LockFile::new(server.dbdir.join("postgrey.lock"), 0o600);
    // On a busy machine one try may be late.
    let is_at_once = (0..5).any(|number| {
        wait_until("the lock", || lock.try_lock(Claim::Commit).unwrap());
        let victim = writer().unwrap();
        let start = Instant::now();
        client.send(&request(&[("sender", &format!("s{number}x@s.example"))]));
        // The writer waits for the lock with the command in its hands.
        std::thread::sleep(Duration::from_millis(100));
        kill(victim, Signal::SIGKILL).unwrap();
        wait_until("another writer", || {
            writer().is_some_and(|pid| pid != victim)
        });
        lock.unlock(Claim::Commit).unwrap();
        assert!(client.reply().unwrap().starts_with("DEFER_IF_PERMIT"));
        start.elapsed() < WRITER_PATIENCE
    });
    assert!(is_at_once, "{}", server.log_text());
}

#[test]
fn a_silent_writer_costs_a_second_and_nothing_is_lost() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=2"]);
    let mut clients: Vec<_> = (0..16).map(|_| server.connect()).collect();
    let writer = server.children()[0];
    kill(writer, Signal::SIGSTOP).unwrap();
    for (index, client) in clients.iter_mut().enumerate() {
        client.send(&request(&[("sender", &format!("s{index}@example.com"))]));
    }
    let start = Instant::now();
    for client in &mut clients {
        // The store was not needed by anybody else: the workers commit alone.
        assert!(client.reply().unwrap().starts_with("DEFER_IF_PERMIT"));
    }
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
    kill(writer, Signal::SIGCONT).unwrap();
    for client in &mut clients {
        assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
    }
}

#[test]
fn whitelists_are_reloaded_without_closing_a_connection() {
    let dir = test_dir();
    let list = dir.path().join("list");
    fs::write(&list, "192.0.2.7\n").unwrap();
    let option = format!("--whitelist-clients={}", list.display());
    let server = Server::start(dir.path(), &["--workers=2", &option]);
    let mut clients: Vec<_> = (0..8).map(|_| server.connect()).collect();
    let mut expect = |address: &str, reply: &str| {
        wait_until("the new lists", || {
            clients.iter_mut().all(|client| {
                client
                    .ask(&[("client_address", address)])
                    .starts_with(reply)
            })
        });
    };
    expect("192.0.2.7", "DUNNO");
    expect("192.0.2.8", "DEFER_IF_PERMIT");
    fs::write(&list, "192.0.2.8\n").unwrap();
    server.signal(Signal::SIGHUP);
    expect("192.0.2.8", "DUNNO");
    expect("192.0.2.7", "DEFER_IF_PERMIT");
    fs::write(&list, "192.0.2.7\n/[/\n").unwrap();
    // To a worker: it tells the master, and all reload.
    kill(server.children()[1], Signal::SIGHUP).unwrap();
    server.wait_for_log("whitelists not reloaded: the old ones stay in use", 1);
    server.wait_for_log(&format!("{} line 2: ", list.display()), 1);
    expect("192.0.2.8", "DUNNO");
    fs::remove_file(&list).unwrap();
    server.signal(Signal::SIGHUP);
    server.wait_for_log(
        &format!("can't open {}: No such file or directory", list.display()),
        1,
    );
    expect("192.0.2.8", "DUNNO");
    server.wait_for_log("HUP received: reloading whitelists...", 3);
}

#[test]
fn a_worker_that_is_replaced_uses_the_lists_of_the_others() {
    let dir = test_dir();
    let list = dir.path().join("list");
    fs::write(&list, "192.0.2.7\n").unwrap();
    let option = format!("--whitelist-clients={}", list.display());
    let server = Server::start(dir.path(), &["--workers=1", &option]);
    for (text, word) in [
        ("192.0.2.8\n", "HUP received: reloading whitelists..."),
        (
            "192.0.2.7\n/[/\n",
            "whitelists not reloaded: the old ones stay in use",
        ),
    ] {
        fs::write(&list, text).unwrap();
        server.signal(Signal::SIGHUP);
        server.wait_for_log(word, 1);
        wait_until("the new list", || {
            let mut client = server.connect();
            client.ask(&[("client_address", "192.0.2.8")]) == "DUNNO"
        });
        let worker = server.wait_for_children(2)[1];
        kill(worker, Signal::SIGKILL).unwrap();
        wait_until("another worker", || {
            let now = server.children();
            now.len() == 2 && !now.contains(&worker)
        });
        let mut client = server.connect();
        assert_eq!(client.ask(&[("client_address", "192.0.2.8")]), "DUNNO");
        let asked = client.ask(&[("client_address", "192.0.2.7")]);
        assert!(asked.starts_with("DEFER_IF_PERMIT"), "{asked}");
    }
}

#[test]
fn statistics_are_shown_once_and_written_to_a_file() {
    let dir = test_dir();
    let file = dir.path().join("db/stats");
    let option = format!("--stats-file={}", file.display());
    let server = Server::start(dir.path(), &["--workers=2", &option]);
    server.connect().ask(&[]);
    let children = server.wait_for_journal(3);
    for &pid in children.iter().chain([&server.pid()]) {
        kill(pid, Signal::SIGUSR1).unwrap();
    }
    server.wait_for_log("statistics: requests=1 ", 1);
    wait_until("the file", || file.exists());
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("# TYPE postgrey_requests_total counter\n"),
        "{text}"
    );
    // A second line would come from a second request: all came at once.
    server.connect().ask(&[]);
    assert!(
        server.log_text().matches("statistics: ").count() <= 2,
        "{}",
        server.log_text()
    );
}

#[test]
fn thousands_of_idle_connections_cost_descriptors_only() {
    const IDLE: usize = 2000;
    let limit = postgrey::sys::process::raise_descriptor_limit().unwrap();
    if limit < 2 * IDLE as u64 {
        skip("limit of 4000 descriptors", "thousands of idle connections");
        return;
    }
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=4"]);
    let idle: Vec<_> = (0..IDLE)
        .map(|_| UnixStream::connect(&server.socket).unwrap())
        .collect();
    let mut clients: Vec<_> = (0..50).map(|_| server.connect()).collect();
    for _ in 0..3 {
        for client in &mut clients {
            assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
        }
    }
    drop(idle);
}

/// The number behind this name in the last line of statistics.
fn counted(log: &str, name: &str) -> u64 {
    let line = log
        .lines()
        .rfind(|line| line.contains("statistics: "))
        .unwrap();
    let mut words = line.split_whitespace();
    let value = words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap()
}

#[test]
fn requests_of_many_clients_that_take_their_time_are_committed_together() {
    const REQUESTS: usize = 60;
    let dir = test_dir();
    let server = Server::start(dir.path(), &[]);
    let clients: Vec<_> = (0..30).map(|_| server.connect()).collect();
    std::thread::scope(|scope| {
        for (number, mut client) in clients.into_iter().enumerate() {
            scope.spawn(move || {
                for count in 0..REQUESTS {
                    let sender = format!("a{number}x{count}@s.example");
                    let answer = client.ask(&[("sender", &sender)]);
                    assert!(answer.starts_with("DEFER_IF_PERMIT"), "{answer}");
                    std::thread::sleep(Duration::from_millis(15));
                }
            });
        }
    });
    server.signal(Signal::SIGUSR1);
    server.wait_for_log("statistics: ", 1);
    let log = server.log_text();
    let (batches, commands) = (counted(&log, "batches"), counted(&log, "batched_commands"));
    println!("check: {commands} commands in {batches} batches");
    assert_eq!(commands, 30 * REQUESTS as u64);
    // A fraction of what a quiet machine brings together.
    assert!(commands >= 3 * batches, "{batches} batches");
}

#[test]
fn when_descriptors_run_out_those_that_fit_are_served() {
    let dir = test_dir();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", PROGRAM]);
    let server = Server::start_by(command, dir.path(), &["--workers=1"]);
    let mut clients = Vec::new();
    for index in 0..30 {
        let mut client = server.connect();
        client.ask(&[("sender", &format!("s{index}@example.com"))]);
        clients.push(client);
    }
    // More than fit: they wait in the queue of the listener.
    let waiting: Vec<_> = (0..40)
        .map(|_| UnixStream::connect(&server.socket).unwrap())
        .collect();
    server.wait_for_log("no new connections beside ", 1);
    for client in &mut clients {
        assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
    }
    drop(clients);
    drop(waiting);
    assert!(server.connect().ask(&[]).starts_with("DEFER_IF_PERMIT"));
    assert_eq!(
        server
            .log_text()
            .matches("no new connections beside ")
            .count(),
        1
    );
}

#[test]
fn spawned_sessions_and_a_daemon_share_one_database() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=2"]);
    let mut sessions: Vec<_> = (0..32).map(|_| spawn(dir.path(), &[])).collect();
    let time = |seconds: u32| (1_700_000_000 + seconds).to_string();
    for round in 0..5_u32 {
        for (index, session) in sessions.iter_mut().enumerate() {
            let sender = format!("r{round}@example.com");
            let at = time(round * 1000 + index as u32);
            let reply = session
                .client
                .ask(&[("sender", &sender), ("policy_test_time", &at)]);
            assert!(reply.starts_with("DEFER_IF_PERMIT"), "{reply}");
        }
        let sender = format!("r{round}@example.com");
        let at = time(round * 1000 + 300);
        let asked = [("sender", &sender[..]), ("policy_test_time", &at)];
        assert!(
            server
                .connect()
                .ask(&asked)
                .starts_with("PREPEND X-Greylist: delayed 300 seconds")
        );
    }
    for session in &mut sessions {
        session.client = Client::of(UnixStream::pair().unwrap().0);
        wait_until("a session to end with its input", || {
            session.child.try_wait().unwrap().is_some()
        });
        assert!(session.child.wait().unwrap().success());
    }
}

#[test]
fn a_spawned_session_without_a_database_answers_dunno_and_nothing_else() {
    let dir = test_dir();
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    let mut session = spawn(dir.path(), &[]);
    assert_eq!(session.client.ask(&[]), "DUNNO");
    assert_eq!(session.client.ask(&[]), "DUNNO");
}

#[test]
fn a_spawned_session_with_wrong_options_writes_nothing_to_its_client() {
    let dir = test_dir();
    for wrong in ["--delay=abc", "--no-such-option", "--compat=none"] {
        let mut session = spawn(dir.path(), &[wrong]);
        assert_eq!(session.client.reply(), None);
        assert!(!session.child.wait().unwrap().success());
    }
}

#[test]
fn a_full_map_grows_and_starts_the_maintenance() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=2", "--db-size=1M"]);
    let mut client = server.connect();
    let long = "x".repeat(200);
    // Records of long ago, so that the maintenance has something to remove.
    let batch = |from: usize, time: &str| -> Vec<u8> {
        (from..from + 50)
            .flat_map(|n| {
                request(&[
                    ("sender", &format!("{long}{n}@example.com")),
                    ("policy_test_time", time),
                ])
            })
            .collect()
    };
    for from in (0..6000).step_by(50) {
        client.send(&batch(from, "1000000000"));
        for _ in 0..50 {
            assert!(client.reply().unwrap().starts_with("DEFER_IF_PERMIT"));
        }
    }
    server.wait_for_log("cleaning up old entries...", 1);
    server.wait_for_log("cleaning main database finished. before: ", 1);
    assert!(
        !server.log_text().contains("WARNING"),
        "{}",
        server.log_text()
    );
}

#[test]
fn a_database_directory_that_vanishes_and_comes_back_is_followed() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=2"]);
    let mut client = server.connect();
    assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    wait_until("DUNNO", || client.ask(&[]) == "DUNNO");
    for _ in 0..50 {
        client.ask(&[]);
    }
    make_dbdir(&dir.path().join("db"));
    wait_until("greylisting", || {
        client.ask(&[]).starts_with("DEFER_IF_PERMIT")
    });
    assert!(dir.path().join("db/data.mdb").exists());
    let complaints = server
        .log_text()
        .matches("No such file or directory")
        .count();
    assert!((1..=6).contains(&complaints), "{}", server.log_text());
    assert!(server.connect().ask(&[]).starts_with("DEFER_IF_PERMIT"));
}

/// A small file system of a test's own; only root can make one.
struct SmallDisk<'a>(&'a Path);

impl<'a> SmallDisk<'a> {
    fn mount(path: &'a Path) -> Option<Self> {
        let mount = |options: &str| {
            let status = Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                .arg(path)
                .stderr(Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        };
        (is_root() && mount("size=512k,mode=0777")).then_some(SmallDisk(path))
    }

    fn remount(&self, options: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.0)
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_is_survived() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let Some(_disk) = SmallDisk::mount(&db) else {
        skip("right to mount", "a full and a read-only disk");
        return;
    };
    let server = Server::start(dir.path(), &["--workers=2"]);
    let mut client = server.connect();
    assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
    let filler = db.join("filler");
    let mut file = fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}
    let mut number = 0;
    let mut ask = |client: &mut Client| {
        number += 1;
        client.ask(&[("sender", &format!("s{number}@example.com"))])
    };
    wait_until("DUNNO", || ask(&mut client) == "DUNNO");
    for _ in 0..50 {
        ask(&mut client);
    }
    assert!(
        server.log_text().contains("No space left on device"),
        "{}",
        server.log_text()
    );
    assert!(server.log_text().matches("No space left on device").count() <= 3);
    drop(file);
    fs::remove_file(&filler).unwrap();
    wait_until("greylisting", || {
        ask(&mut client).starts_with("DEFER_IF_PERMIT")
    });
}

#[test]
fn a_read_only_file_system_is_survived() {
    let dir = test_dir();
    let db = dir.path().join("db");
    let Some(disk) = SmallDisk::mount(&db) else {
        skip("right to mount", "a full and a read-only disk");
        return;
    };
    {
        let mut server = Server::start(dir.path(), &["--workers=2"]);
        server.connect().ask(&[]);
        server.stop();
    }
    disk.remount("ro");
    // A start says so; a spawned session has to answer all the same.
    let mut options = common_options(dir.path());
    options.push(format!("--inet=127.0.0.1:{}", free_port()).into());
    let (status, message) = run(&options);
    assert_eq!(status, Some(2));
    assert!(message.contains("Read-only file system"), "{message}");
    let mut session = spawn(dir.path(), &[]);
    assert_eq!(
        session.client.ask(&[("sender", "new@example.com")]),
        "DUNNO"
    );
    disk.remount("rw");
    wait_until("greylisting", || {
        session.client.ask(&[]).starts_with("DEFER_IF_PERMIT")
    });
}

/// A syslogd on /dev/log. It takes every line as it comes, since a full queue
/// would hold up whoever logs on this machine, the servers of other tests too.
struct Syslogd {
    lines: mpsc::Receiver<String>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Syslogd {
    const PATH: &str = "/dev/log";

    /// `None` if there is another one, or this is not root.
    fn start() -> Option<Self> {
        if !is_root() || Path::new(Self::PATH).symlink_metadata().is_ok() {
            return None;
        }
        let socket = UnixDatagram::bind(Self::PATH).ok()?;
        fs::set_permissions(Self::PATH, fs::Permissions::from_mode(0o666)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let is_over = Arc::new(AtomicBool::new(false));
        let is_told = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !is_told.load(Ordering::Relaxed) {
                if let Ok(length) = socket.recv(&mut buffer) {
                    let line = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    // Facility local3, 152 to 159: other tests use mail.
                    // Nobody may be waiting for the line.
                    if line.starts_with("<15") {
                        let _ = sender.send(line);
                    }
                }
            }
        });
        Some(Syslogd {
            lines,
            is_over,
            thread: Some(thread),
        })
    }

    /// The next line with this text.
    fn line(&self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).expect(text);
            if line.contains(text) {
                return line;
            }
        }
    }
}

impl Drop for Syslogd {
    fn drop(&mut self) {
        let _ = fs::remove_file(Self::PATH);
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[test]
fn syslog_lines_survive_the_end_of_syslogd() {
    let Some(syslogd) = Syslogd::start() else {
        skip("free /dev/log", "syslog");
        return;
    };
    let dir = test_dir();
    let port = free_port();
    let options = [
        format!("--inet=127.0.0.1:{port}"),
        "--workers=1".to_string(),
        "--syslog-facility=local3".to_string(),
    ];
    let daemon = Daemon::start(dir.path(), &options, false);
    let mut client = Client::inet(port).unwrap();
    let started = syslogd.line("starting! pid(");
    // Facility local3 (19), level notice (5), ident and pid.
    assert!(
        started.starts_with(&format!("<{}>", 19 * 8 + 5)),
        "{started}"
    );
    assert!(
        started.contains(&format!("postgrey[{}]: ", daemon.pid)),
        "{started}"
    );
    syslogd.line("Process Backgrounded");
    client.ask(&[("sender", "percent%s\x01@example.com")]);
    let line = syslogd.line("sender=percent");
    assert!(
        line.contains("sender=percent%s\\x01@example.com, "),
        "{line}"
    );
    let missing = b"request=smtpd_access_policy\nclient_address=192.0.2.1\n\n";
    client.send(missing);
    assert_eq!(client.reply().unwrap(), "DUNNO");
    let line = syslogd.line("WARNING: attribute missing: client_name");
    assert!(line.starts_with(&format!("<{}>", 19 * 8 + 4)), "{line}");
    // syslogd ends: nothing but lines is lost.
    drop(syslogd);
    assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
    // It comes back.
    let syslogd = Syslogd::start().unwrap();
    client.ask(&[("sender", "again@example.com")]);
    client.ask(&[("sender", "again@example.com")]);
    syslogd.line("sender=again@example.com");
    daemon.stop();
    syslogd.line(" Server closing!");
}

#[test]
fn a_pid_file_in_use_is_respected_and_a_stale_one_is_not() {
    let dir = test_dir();
    let other = test_dir();
    fs::write(dir.path().join("db/pid"), "1\n").unwrap();
    let option = format!("--unix={}", dir.path().join("db/s").display());
    let daemon = Daemon::start(dir.path(), &[option], false);
    let mut options = common_options(other.path());
    options.push(format!("--inet=127.0.0.1:{}", free_port()).into());
    options.push(format!("--pidfile={}", dir.path().join("db/pid").display()).into());
    let (status, message) = run(&options);
    assert_eq!(status, Some(25));
    let pid = daemon.pid;
    assert_eq!(
        message,
        format!("FATAL: Pid_file already exists for running process ({pid})... aborting\n")
    );
    daemon.stop();
}

#[test]
fn a_live_unix_socket_is_not_taken_from_another_server() {
    let dir = test_dir();
    let other = test_dir();
    let server = Server::start(dir.path(), &[]);
    let mut options = common_options(other.path());
    options.push(format!("--unix={}", server.socket.display()).into());
    let (status, message) = run(&options);
    assert_eq!(status, Some(2));
    assert!(message.contains("[Address already in use]"), "{message}");
    assert!(server.connect().ask(&[]).starts_with("DEFER_IF_PERMIT"));
    let plain = dir.path().join("plain");
    fs::write(&plain, "a file").unwrap();
    options.pop();
    options.push(format!("--unix={}", plain.display()).into());
    assert_eq!(run(&options).0, Some(2));
    assert_eq!(fs::read_to_string(&plain).unwrap(), "a file");
}

#[test]
fn old_databases_are_told_of_while_there_is_no_new_one() {
    let dir = test_dir();
    let mut head = vec![0; 4096];
    head[12..16].copy_from_slice(&0x0005_3162_u32.to_le_bytes());
    fs::write(dir.path().join("db/postgrey.db"), head).unwrap();
    for told in [1, 1] {
        let mut server = Server::start(dir.path(), &[]);
        server.connect().ask(&[]);
        assert_eq!(
            server
                .log_text()
                .matches("old Berkeley DB files in ")
                .count(),
            told
        );
        server.stop();
    }
}

#[test]
fn socket_and_database_files_have_their_modes() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--socketmode=0660"]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&server.socket), 0o660);
    for file in ["data.mdb", "lock.mdb", "postgrey.lock"] {
        assert_eq!(mode(&dir.path().join("db").join(file)), 0o600, "{file}");
    }
}

#[test]
fn a_slow_client_is_served_when_its_request_is_whole() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=1"]);
    let mut stream = UnixStream::connect(&server.socket).unwrap();
    let text = request(&[]);
    for octet in &text[..text.len() - 1] {
        stream.write_all(&[*octet]).unwrap();
    }
    // Half a request keeps nobody waiting.
    assert!(
        server
            .connect()
            .ask(&[("sender", "b@example.com")])
            .starts_with("DEFER_IF_PERMIT")
    );
    stream.write_all(b"\n").unwrap();
    let mut reply = [0; 16];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(&reply, b"action=DEFER_IF_");
}
