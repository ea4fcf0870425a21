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
