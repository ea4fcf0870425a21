//! The end of the server: by signals, or with its master.

use std::fs;
use std::os::unix::fs::chown;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::server::{Server, is_alive, is_root, request, skip, test_dir, wait_until};

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

/// The original does not start over an empty one, but over that of a process
/// that is gone.
#[test]
fn a_pid_file_in_a_directory_of_root_keeps_its_number() {
    if !is_root() {
        skip("root", "a pid file in a directory of root");
        return;
    }
    let dir = test_dir();
    let run = dir.path().join("run-of-root");
    fs::create_dir(&run).unwrap();
    chown(&run, Some(0), Some(0)).unwrap();
    let pidfile = run.join("postgrey.pid");
    let mut server = Server::start(dir.path(), &[&format!("--pidfile={}", pidfile.display())]);
    for _ in 0..2 {
        let number = format!("{}\n", server.pid());
        assert_eq!(fs::read_to_string(&pidfile).unwrap(), number);
        assert!(server.stop().success());
        assert_eq!(fs::read_to_string(&pidfile).unwrap(), number);
        server.start_again();
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
