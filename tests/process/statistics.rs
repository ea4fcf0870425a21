//! USR1: the statistics, and what they say of group commit.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use crate::server::{Server, test_dir, wait_until};

#[test]
fn statistics_are_shown_once_and_written_to_a_file() {
    let dir = test_dir();
    let file = dir.path().join("db/stats");
    let option = format!("--stats-file={}", file.display());
    let server = Server::start(dir.path(), &["--workers=2", &option]);
    server.connect().ask(&[]);
    let children = server.wait_for_children(3);
    for &pid in children.iter().chain([&server.pid()]) {
        kill(pid, Signal::SIGUSR1).unwrap();
    }
    server.wait_for_log("statistics: requests=1 ", 1);
    wait_until("the file", || file.exists());
    // A collector is another user.
    assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o644);
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

/// The number after this name in the last line of statistics.
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
