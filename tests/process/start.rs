//! The starts: every way, what is refused, and what is there afterwards.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::server::{
    Client, PATIENCE, Server, children_of, common_options, free_port, is_alive, is_root, nobody,
    program_for_all, skip, test_dir, wait_until,
};
use crate::{Daemon, run};

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
        // Two workers and the writer.
        let mut children = Vec::new();
        wait_until("three children", || {
            children = children_of(daemon.pid);
            children.len() == 3
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
    let advice = format!(
        "ERROR: can't open lock file: {0}/postgrey.lock: No such file or directory: \
         mkdir -m 0700 {0} && chown ",
        missing.display()
    );
    assert!(message.starts_with(&advice), "{message}");
    if is_root() {
        let own = dir.path().join("own");
        fs::create_dir(&own).unwrap();
        let mut all = common_options(dir.path());
        all.extend([
            port.clone().into(),
            format!("--dbdir={}", own.display()).into(),
        ]);
        let (status, message) = run(&all);
        assert_eq!(status, Some(2));
        let advice = "Permission denied: chown nobody:";
        assert!(message.contains(advice), "{message}");
    }
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
    let mut processes = server.wait_for_children(3);
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
    let expected = format!(
        "ERROR: cannot listen on {}: in use by another program\n",
        server.socket.display()
    );
    assert_eq!(message, expected);
    assert!(server.connect().ask(&[]).starts_with("DEFER_IF_PERMIT"));
    let plain = dir.path().join("plain");
    fs::write(&plain, "a file").unwrap();
    options.pop();
    options.push(format!("--unix={}", plain.display()).into());
    let (status, message) = run(&options);
    assert_eq!(status, Some(2));
    let expected = format!(
        "ERROR: cannot listen on {}: it is no socket: remove it, or give another path\n",
        plain.display()
    );
    assert_eq!(message, expected);
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
fn what_unreleased_versions_have_left_is_named_and_stays() {
    let dir = test_dir();
    let journal = dir.path().join("db/data.mdb.journal");
    fs::write(&journal, "a journal").unwrap();
    fs::create_dir(dir.path().join("db/data.mdb.rebuilt")).unwrap();
    let mut server = Server::start(dir.path(), &[]);
    assert!(server.connect().ask(&[]).starts_with("DEFER_IF_PERMIT"));
    assert!(server.stop().success());
    let log = server.log_text();
    assert_eq!(
        log.matches(" are not used: data.mdb.journal, data.mdb.rebuilt\n")
            .count(),
        1
    );
    assert_eq!(fs::read_to_string(&journal).unwrap(), "a journal");
}

#[test]
fn a_start_that_fails_leaves_no_files() {
    let dir = test_dir();
    let [pid_file, socket] = ["db/pid", "db/s"].map(|name| dir.path().join(name));
    // A directory in its place is only met when sockets and pid file are there.
    fs::create_dir(dir.path().join("db/lock.mdb")).unwrap();
    for background in [false, true] {
        let mut options = common_options(dir.path());
        options.push(format!("--unix={}", socket.display()).into());
        options.push(format!("--pidfile={}", pid_file.display()).into());
        if background {
            options.push("-d".into());
        }
        let (status, message) = run(&options);
        assert_eq!(status, Some(2), "{message}");
        assert!(message.contains("lock.mdb"), "{message}");
        assert!(!pid_file.exists() && !socket.exists(), "{message}");
    }
}

#[test]
fn a_signal_during_the_start_ends_it_in_order() {
    let dir = test_dir();
    let [pid_file, socket] = ["db/pid", "db/s"].map(|name| dir.path().join(name));
    for _ in 0..20 {
        let mut child = Command::new(program_for_all(dir.path()))
            .args(common_options(dir.path()))
            .arg(format!("--unix={}", socket.display()))
            .arg(format!("--pidfile={}", pid_file.display()))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while !socket.exists() {
            assert!(begun.elapsed() < PATIENCE);
        }
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        let status = child.wait().unwrap();
        assert!(status.success(), "{status}");
        assert!(!pid_file.exists() && !socket.exists());
    }
}
