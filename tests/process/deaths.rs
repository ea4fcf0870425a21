//! Children that die or are silent.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use postgrey::server::WRITER_PATIENCE;
use postgrey::sys::lock::{Claim, LockFile};

use crate::server::{Server, request, test_dir, wait_until};

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
fn a_silent_writer_costs_those_that_wait_a_second() {
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
        assert_eq!(client.reply().unwrap(), "DUNNO");
    }
    let took = start.elapsed();
    assert!(
        took > WRITER_PATIENCE / 2 && took < 3 * WRITER_PATIENCE,
        "{took:?}"
    );
    kill(writer, Signal::SIGCONT).unwrap();
    for client in &mut clients {
        assert!(client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
    }
}
