//! HUP: the whitelists are read again.

use std::fs;

use nix::sys::signal::{Signal, kill};

use crate::server::{Server, test_dir, wait_until};

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

/// What is doubtful is said by one process, at the start and at each HUP,
/// however soon and however many entries there are.
#[test]
fn each_doubtful_entry_is_told_once_a_reading() {
    const ENTRIES: usize = 100;
    let dir = test_dir();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let clients: String = (0..ENTRIES).map(|n| format!("192.0.2.{n}.\n")).collect();
    fs::write(path("clients"), &clients).unwrap();
    fs::write(path("recipients"), "\u{feff}192.0.2.0/24\n.example.com\n").unwrap();
    fs::write(
        path("table"),
        "192.0.2.7 ok\n!/(^unknown$)|([0-9][.-][0-9])/ OK\n",
    )
    .unwrap();
    let server = Server::start(
        dir.path(),
        &[
            "--workers=4",
            "--s25r",
            &format!("--whitelist-clients={}", path("clients")),
            &format!("--whitelist-recipients={}", path("recipients")),
            &format!("--s25r-except={}", path("table")),
        ],
    );
    let mut lines: Vec<String> = (1..=ENTRIES)
        .map(|n| {
            format!(
                "{} line {n}: matches nothing: write 192.0.2.",
                path("clients")
            )
        })
        .collect();
    let of = |file: &str, what: &str| format!("{} {what}", path(file));
    lines.extend([
        of(
            "recipients",
            "line 1: the byte order mark in front is taken off",
        ),
        of(
            "recipients",
            "line 1: matches nothing: a recipient has no network",
        ),
        of(
            "recipients",
            "line 2: matches nothing: no domain begins with a dot",
        ),
        of("table", "line 1: matches nothing: an address is no name"),
        of("table", "line 2: takes the place of the rules of s25r(7)"),
    ]);
    let told = |times: usize| {
        let log = server.log_text();
        for line in &lines {
            assert_eq!(log.matches(line.as_str()).count(), times, "{line}");
        }
    };
    server.wait_for_log(&lines[ENTRIES + 4], 1);
    told(1);
    let reads = |address: &str| {
        wait_until("the workers have read it", || {
            (0..16).all(|_| {
                server
                    .connect()
                    .ask(&[("client_address", address), ("client_name", "a1-2.example")])
                    == "DUNNO"
            })
        });
    };
    fs::write(path("clients"), clients.clone() + "198.51.100.8\n").unwrap();
    server.signal(Signal::SIGHUP);
    server.wait_for_log(&lines[ENTRIES + 4], 2);
    reads("198.51.100.8");
    told(2);
    // A list that is refused.
    fs::write(path("clients"), clients + "/[/\n").unwrap();
    server.signal(Signal::SIGHUP);
    server.wait_for_log("whitelists not reloaded: the old ones stay in use", 1);
    reads("198.51.100.8");
    told(3);
    assert_eq!(
        server.log_text().matches("whitelists not reloaded").count(),
        1
    );
}
