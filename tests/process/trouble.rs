//! A worker that loops, and a system that starts no processes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::server::{
    Client, Server, common_options, free_port, give_to_server, preloaded, test_dir,
};

/// The server with `preload.c` in it; `None` without a C compiler.
fn troubled(folder: &Path, trouble: &Path) -> Option<Command> {
    let mut command = preloaded("tests/process/preload.c", folder)?;
    command.env("POSTGREY_TROUBLE", trouble);
    // Whoever loops removes the file.
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    Some(command)
}

fn begin(trouble: &Path, word: &str) {
    fs::write(trouble, word).unwrap();
    give_to_server(trouble);
}

#[test]
fn a_worker_that_loops_is_ended_and_replaced() {
    let dir = test_dir();
    let trouble = dir.path().join("trouble");
    let Some(command) = troubled(dir.path(), &trouble) else {
        return;
    };
    let server = Server::start_by(command, dir.path(), &["--workers=2"]);
    server.wait_for_children(3);
    begin(&trouble, "loop");
    let mut looping = server.connect();
    looping.send(&crate::server::request(&[]));
    server.wait_for_log("ended with signal SIGALRM: starting another", 1);
    assert_eq!(looping.reply(), None);
    server.wait_for_children(3);
    for _ in 0..8 {
        let answer = server.connect().ask(&[]);
        assert!(answer.starts_with("DEFER_IF_PERMIT"), "{answer}");
    }
    // An idle one is not taken for one that loops.
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(server.log_text().matches("SIGALRM").count(), 1);
}

#[test]
fn a_system_without_room_for_processes_does_not_end_the_master() {
    let dir = test_dir();
    let trouble = dir.path().join("trouble");
    let Some(command) = troubled(dir.path(), &trouble) else {
        return;
    };
    let server = Server::start_by(command, dir.path(), &["--workers=1"]);
    let worker = server.wait_for_children(2)[1];
    begin(&trouble, "fork");
    nix::sys::signal::kill(worker, nix::sys::signal::Signal::SIGKILL).unwrap();
    server.wait_for_log("cannot start worker 0: ", 1);
    fs::remove_file(&trouble).unwrap();
    server.wait_for_children(2);
    assert!(server.connect().ask(&[]).starts_with("DEFER_IF_PERMIT"));
}

#[test]
fn whoever_waits_for_a_start_is_told_that_it_fails() {
    let dir = test_dir();
    let trouble = dir.path().join("trouble");
    let Some(mut command) = troubled(dir.path(), &trouble) else {
        return;
    };
    let port = free_port();
    // The second fork is that of the first child: the first goes to the
    // background, and one more looks at the database.
    let socket = dir.path().join("run/s");
    let later = Command::new("sh")
        .args([
            "-c",
            "while ! test -S \"$0\"; do :; done; echo fork >\"$1\"",
        ])
        .arg(&socket)
        .arg(&trouble)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let output = command
        .arg("-d")
        .args(common_options(dir.path()))
        .arg(format!("--unix={}", socket.display()))
        .arg(format!("--inet=127.0.0.1:{port}"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    drop(later.wait_with_output());
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("the master ends: no process comes to serve"),
        "{said}"
    );
    assert!(Client::inet(port).is_err());
}

#[test]
fn who_has_been_idle_longest_makes_room_when_descriptors_run_out() {
    let dir = test_dir();
    let trouble = dir.path().join("trouble");
    let Some(command) = troubled(dir.path(), &trouble) else {
        return;
    };
    let mut limited = Command::new("sh");
    limited.args([
        "-c",
        "ulimit -n 64; exec \"$0\" \"$@\"",
        crate::server::PROGRAM,
    ]);
    for (name, value) in command.get_envs() {
        limited.env(name, value.unwrap_or_default());
    }
    let options = ["--workers=1", "--targrey", "--tarpit=5"];
    let server = Server::start_by(limited, dir.path(), &options);
    let mut sleeper = server.connect();
    assert_eq!(sleeper.ask(&[("sender", "sleeper@example.com")]), "SLEEP 5");
    let mut silent: Vec<Client> = (0..60).map(|_| server.connect()).collect();
    server.wait_for_log("no new connections: ", 1);
    // Ten seconds of the server's.
    std::thread::sleep(std::time::Duration::from_millis(600));
    for number in 0..3 {
        let mut client = server.connect();
        let sender = format!("s{number}@example.com");
        let answer = client.ask(&[("sender", &sender), ("client_address", "192.0.2.7")]);
        assert!(
            answer == "SLEEP 5" || answer.starts_with("DEFER_IF_PERMIT"),
            "{answer}"
        );
        silent.push(client);
    }
    server.wait_for_log("closing idle connections for new ones", 1);
    assert_eq!(silent[0].reply(), None);
    // Postfix is silent because it sleeps as it was told to.
    let answer = sleeper.ask(&[("sender", "sleeper@example.com")]);
    assert!(answer.starts_with("DEFER_IF_PERMIT"), "{answer}");
}
