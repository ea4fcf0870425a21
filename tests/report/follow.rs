//! `--follow`: the built program on logs that grow, on a pipe and on a terminal.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::machine::skip;
use super::{command, report};

const GREY: &str = "2026-11-24T02:27:10Z mx postgrey[9]: action=greylist, reason=new, client_address=192.0.2.1, sender=a@b, recipient=c@d\n";
const PASS: &str = "2026-11-24T02:33:10Z mx postgrey[9]: action=pass, reason=triplet found, client_address=192.0.2.1, sender=a@b, recipient=c@d\n";

fn append(path: &Path, text: &str) {
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn lines_come_until_a_signal() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    append(&path, GREY);
    // A log that is named twice counts once.
    let name = path.to_str().unwrap();
    let mut child = command(&["--follow", name, name])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // It reads from the end of the log on, which it has to find first: a second log that
    // is there tells that it has.
    let deadline = Instant::now() + Duration::from_secs(20);
    let fds = format!("/proc/{}/fd", child.id());
    let has_opened = || {
        let found = fs::read_dir(&fds).into_iter().flatten().flatten();
        found
            .into_iter()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target == path))
    };
    while !has_opened() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(200));
    append(&path, GREY);
    fs::rename(&path, dir.path().join("log.1")).unwrap();
    append(&path, PASS);
    std::thread::sleep(Duration::from_millis(1500));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let mut text = String::new();
    child
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert!(child.wait().unwrap().success());
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].starts_with("TIME "), "{text}");
    // A minute may have ended meanwhile.
    let mut sums = [0_u64; 8];
    for line in &lines[1..] {
        let numbers = line[11..]
            .split_whitespace()
            .map(|number| number.parse::<u64>().unwrap());
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum += number;
        }
    }
    assert_eq!(sums[..6], [2, 1, 1, 0, 0, 1], "{text}");
}

/// A server of tmux with this socket, which ends with the test.
struct Tmux(PathBuf);

impl Tmux {
    fn run(&self, words: &[&str]) -> String {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.0).args(["-f", "/dev/null"]);
        let output = command.args(words).env("TERM", "xterm").output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        self.run(&["kill-server"]);
    }
}

#[test]
fn a_terminal_shows_the_present_minute_in_place() {
    if Command::new("tmux").arg("-V").output().is_err() {
        return skip("tmux", "--follow on a terminal");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    append(&path, GREY);
    let server = Tmux(dir.path().join("tmux"));
    let tmux = |words: &[&str]| server.run(words);
    let program = format!(
        "{} --follow {}; echo status $?; sleep 60",
        env!("CARGO_BIN_EXE_postgreyreport"),
        path.display()
    );
    tmux(&["new-session", "-d", "-x", "80", "-y", "24", &program]);
    let wait = |part: &str| -> String {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let screen = tmux(&["capture-pane", "-p"]);
            if screen.contains(part) || Instant::now() > deadline {
                return screen;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    let screen = wait("       0       0       0");
    assert!(
        screen.starts_with("TIME            REQ    PASS"),
        "{screen}"
    );
    append(&path, GREY);
    let screen = wait("       1       0       1       0       0       0       1       0");
    fs::rename(&path, dir.path().join("log.1")).unwrap();
    append(&path, PASS);
    let second = wait("       1       0       0       1 ");
    // A narrow terminal shows what fits, in one row: those above are the heading, that of
    // before, and perhaps that of a minute, each cut in two.
    tmux(&["resize-window", "-x", "50", "-y", "24"]);
    std::thread::sleep(Duration::from_secs(4));
    let narrow = tmux(&["capture-pane", "-p"]);
    let rows = narrow.lines().filter(|line| !line.trim().is_empty());
    assert!((1..=6).contains(&rows.count()), "{narrow}");
    tmux(&["resize-window", "-x", "80", "-y", "24"]);
    tmux(&["send-keys", "C-c"]);
    let last = wait("status 0");
    for screen in [&screen, &second, &last] {
        // In place: a line a minute, and the heading.
        let count = screen
            .lines()
            .filter(|line| !line.trim().is_empty())
            .count();
        assert!(count <= 5, "{screen}");
        assert!(screen.lines().all(|line| line.len() <= 79), "{screen}");
    }
    assert!(last.contains("status 0"), "{last}");
}

#[test]
fn what_cannot_be_followed_is_told() {
    for words in [&["--follow"][..], &["--follow", "-"]] {
        assert_eq!(
            report(words, b"").failed(1),
            "ERROR: --follow needs the name of a LOG\n"
        );
    }
    let both = report(&["--follow", "--json", "x"], b"").failed(1);
    assert_eq!(both, "ERROR: --json and --follow exclude each other\n");
    report(&["--follow", "/nonexistent/log"], b"").failed(2);
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let said = report(&["--follow", fifo.to_str().unwrap()], b"").failed(2);
    assert!(said.ends_with("fifo: not a regular file\n"), "{said}");
    let folder = report(&["--follow", "/"], b"").failed(2);
    assert_eq!(folder, "ERROR: /: not a regular file\n");
}
