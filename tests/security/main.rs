//! What a hostile sender, a compromised worker, and whoever may write beside
//! the database cannot do.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/server.rs"]
mod server;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid};
use server::{Client, PROGRAM, Server, common_options, free_port, is_root, test_dir, wait_until};

const NOBODY: u32 = 65534;

fn needs_root() -> bool {
    if !is_root() {
        server::skip("root", "tests/security");
    }
    !is_root()
}

#[test]
fn modes_and_owners_are_no_wider_than_needed() {
    if needs_root() {
        return;
    }
    for (option, mode) in [("--socketmode=0660", 0o660), ("--quiet", 0o666)] {
        let folder = test_dir();
        let socket = folder.path().join("socket");
        let pidfile = folder.path().join("pid");
        let server = Server::start(
            folder.path(),
            &[
                &format!("--unix={}", socket.display()),
                &format!("--pidfile={}", pidfile.display()),
                "--group=nogroup",
                option,
            ],
        );
        server.connect().ask(&[]);
        let children = server.wait_for_children(3);
        let metadata = fs::metadata(&socket).unwrap();
        assert!(metadata.file_type().is_socket());
        assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (mode, NOBODY));
        let metadata = fs::metadata(&pidfile).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o644, NOBODY));
        for entry in fs::read_dir(&server.dbdir).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::metadata(&path).unwrap();
            let seen = (metadata.mode() & 0o7777, metadata.uid());
            assert_eq!(seen, (0o600, NOBODY), "{}", path.display());
        }
        for pid in children.into_iter().chain([server.pid()]) {
            assert_eq!(status(pid)["Umask"], "0077");
        }
    }
}

/// The fields of `/proc/PID/status`.
fn status(pid: Pid) -> BTreeMap<String, String> {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .unwrap()
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_string(), value.trim().to_string()))
        .collect()
}

#[test]
fn no_process_can_become_root_again() {
    if needs_root() {
        return;
    }
    let folder = test_dir();
    let mut command = Command::new(PROGRAM);
    let groups = [0, 4242].map(Gid::from_raw);
    // SAFETY: between fork and exec there is only this system call, with an
    // array that the closure owns.
    unsafe { command.pre_exec(move || Ok(nix::unistd::setgroups(&groups)?)) };
    let server = Server::start_by(command, folder.path(), &["--group=nogroup"]);
    for pid in server
        .wait_for_children(3)
        .into_iter()
        .chain([server.pid()])
    {
        let status = status(pid);
        let ids = |name: &str| -> Vec<u32> {
            status[name]
                .split_whitespace()
                .map(|id| id.parse().unwrap())
                .collect()
        };
        // Real, effective, saved and file system user: with one of them 0, or
        // a capability, there would be a way back.
        assert_eq!(ids("Uid"), [NOBODY; 4]);
        assert!(!ids("Gid").contains(&0));
        // Nor may it keep a group of whoever started it.
        assert!(!ids("Groups").iter().any(|id| [0, 4242].contains(id)));
        for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(status[set].trim_start_matches('0'), "", "{set}");
        }
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core"))
            .unwrap();
        let words: Vec<&str> = core.split_whitespace().collect();
        assert_eq!(words[4..6], ["0", "0"], "{core}");
    }
}

/// What the descriptors of a process are.
fn descriptors(pid: Pid) -> Vec<String> {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn children_hold_the_descriptors_they_need_and_no_more() {
    let folder = test_dir();
    let socket = folder.path().join("socket");
    let server = Server::start(
        folder.path(),
        &[
            &format!("--unix={}", socket.display()),
            &format!("--pidfile={}", folder.path().join("pid").display()),
            "--workers=3",
        ],
    );
    let mut client = server.connect();
    client.ask(&[]);
    drop(client);
    let before = server.wait_for_children(4);
    let table = fs::read_to_string("/proc/net/unix").unwrap();
    // Connections that were accepted have the path as well, but not this flag.
    let words = table
        .lines()
        .filter(|line| line.ends_with(socket.to_str().unwrap()))
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|words| words[3] == "00010000")
        .unwrap();
    let listener = format!("socket:[{}]", words[6]);
    let listening = |pid: Pid| descriptors(pid).contains(&listener);
    let workers = before.iter().filter(|&&pid| listening(pid)).count();
    assert_eq!(workers, 3, "workers listen, the writer does not");
    let journal = "/data.mdb.journal";
    let allowed = [
        "/dev/null",
        "data.mdb",
        journal,
        "lock.mdb",
        "postgrey.lock",
        "log",
    ];
    // What this process left open is none of the server's doing.
    let own = descriptors(Pid::this());
    for &pid in &before {
        for target in descriptors(pid) {
            let is_known = target.starts_with("socket:")
                || own.contains(&target)
                || allowed.iter().any(|name| target.ends_with(name));
            assert!(is_known, "{pid} holds {target}");
        }
    }
    // Each replacement holds as much as the one before it: nothing of its
    // predecessors or sisters lives on.
    let sorted = |pids: &[Pid]| {
        // Whoever has committed has the journal open.
        let held = |pid| {
            let held = descriptors(pid);
            let journals = held.iter().filter(|target| target.ends_with(journal));
            let journals = journals.count();
            assert!(journals <= 1, "{held:?}");
            held.len() - journals
        };
        let mut all: Vec<_> = pids
            .iter()
            .map(|&pid| (!listening(pid), held(pid)))
            .collect();
        all.sort();
        all
    };
    std::thread::sleep(std::time::Duration::from_millis(200));
    let at_first = sorted(&before);
    for round in 0..3 {
        for pid in server.wait_for_children(4) {
            kill(pid, Signal::SIGKILL).unwrap();
            server.wait_for_log(&format!("{pid}"), 1);
        }
        let now = server.wait_for_children(4);
        let mut client = server.connect();
        client.ask(&[("sender", &format!("r{round}@s"))]);
        drop(client);
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(sorted(&now), at_first, "round {round}");
    }
}

#[test]
fn nothing_of_the_starter_s_environment_is_kept_but_the_time_zone() {
    let folder = test_dir();
    let Some(mut command) = server::preloaded("tests/security/environ.c", folder.path()) else {
        return;
    };
    let seen = folder.path().join("environ");
    fs::write(&seen, "nothing yet").unwrap();
    fs::set_permissions(&seen, fs::Permissions::from_mode(0o666)).unwrap();
    command
        .env("POSTGREY_ENVIRON", &seen)
        .env("AWS_SECRET", "of the administrator")
        .env("LC_ALL", "de_DE.UTF-8")
        .env("TZ", "ABC-5");
    let server = Server::start_by(command, folder.path(), &["--quiet"]);
    let mut client = server.connect();
    let mut ask_at = |time| client.ask(&[("policy_test_time", time)]);
    assert!(ask_at("1700000000").starts_with("DEFER_IF_PERMIT"));
    assert_eq!(fs::read_to_string(&seen).unwrap(), "TZ=ABC-5\n");
    // The date is local still, and in English as mail has it.
    let header = ask_at("1700000400");
    let date = header.rsplit("; ").next().unwrap();
    let shape = r"^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d ABC$";
    assert!(regex::Regex::new(shape).unwrap().is_match(date), "{header}");
}

#[test]
fn what_a_sender_writes_stays_in_its_line_of_the_log() {
    let folder = test_dir();
    let Some(mut command) = server::preloaded("tests/security/syslog.c", folder.path()) else {
        return;
    };
    let log = folder.path().join("syslog");
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
    let port = free_port();
    let pidfile = folder.path().join("pid");
    command
        .arg("-d")
        .args(common_options(folder.path()))
        .arg(format!("--pidfile={}", pidfile.display()))
        .arg(format!("--inet=127.0.0.1:{port}"))
        .env("POSTGREY_SYSLOG", &log)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    let pid = fs::read_to_string(&pidfile).unwrap();
    let pid = Pid::from_raw(pid.trim().parse().unwrap());
    let mut client = Client::inet(port).unwrap();
    let hostile = "\x1b[2J\raction=pass %s%n%999999d \u{85}\u{9b}31m@s.example";
    client.ask(&[("sender", hostile)]);
    client.send(b"gar\x1bbage\nrequest=\x07\n\n");
    client.ask(&[("sender", "b@s.example")]);
    kill(pid, Signal::SIGTERM).unwrap();
    wait_until("the end of the server", || !server::is_alive(pid));
    let text = fs::read(&log).unwrap();
    for line in text.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
        let line = String::from_utf8_lossy(line);
        assert!(line[1..].starts_with(" %s: "), "{line}");
        assert!(!line.contains(|c: char| c.is_ascii_control()), "{line:?}");
    }
    let text = String::from_utf8_lossy(&text);
    for part in [
        "sender=\\x1b[2J\\x0daction=pass %s%n%999999d ",
        "ignoring garbage: <gar\\x1bbage>",
        "unrecognized request type: '\\x07'",
    ] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert!(
        !text.contains("\u{9b}"),
        "a terminal may take U+009B for ESC ["
    );
}

fn start_in(folder: &Path, extra: &[String]) -> Output {
    Command::new(PROGRAM)
        .args(common_options(folder))
        .arg(format!("--unix={}", folder.join("socket").display()))
        .arg("--quiet")
        .args(extra)
        .output()
        .unwrap()
}

#[test]
fn links_in_the_way_are_refused_and_their_targets_untouched() {
    type Link = fn(&Path, &Path) -> std::io::Result<()>;
    let links: [(&str, Link); 2] = [
        ("symbolic", |target, name| symlink(target, name)),
        ("hard", |target, name| fs::hard_link(target, name)),
    ];
    for (kind, link) in links {
        for place in ["db/postgrey.lock", "pid"] {
            let folder = test_dir();
            let target = folder.path().join("precious");
            fs::write(&target, "precious\n").unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).unwrap();
            link(&target, &folder.path().join(place)).unwrap();
            let pidfile = format!("--pidfile={}", folder.path().join("pid").display());
            let output = start_in(folder.path(), &[pidfile]);
            let text = String::from_utf8_lossy(&output.stderr);
            println!("check: {kind} link {place}: {}, {text}", output.status);
            assert!(output.status.code().is_some_and(|code| code != 0));
            assert!(text.contains(place), "{text}");
            let metadata = fs::metadata(&target).unwrap();
            let owner = nix::unistd::Uid::effective().as_raw();
            assert_eq!((metadata.mode() & 0o777, metadata.uid()), (0o600, owner));
            assert_eq!(fs::read_to_string(&target).unwrap(), "precious\n");
        }
    }
}

#[test]
fn only_a_socket_is_ever_replaced_by_the_socket() {
    for make in [
        |path: &Path| fs::write(path, "precious\n").unwrap(),
        |path: &Path| symlink("/etc/hostname", path).unwrap(),
        |path: &Path| fs::create_dir(path).unwrap(),
    ] {
        let folder = test_dir();
        let path = folder.path().join("socket");
        make(&path);
        let before = fs::symlink_metadata(&path).unwrap();
        let output = start_in(folder.path(), &[]);
        assert!(output.status.code().is_some_and(|code| code != 0));
        let after = fs::symlink_metadata(&path).unwrap();
        assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
    }
}
