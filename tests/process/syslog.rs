//! Lines for syslog(3).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::Daemon;
use crate::server::{Client, PATIENCE, free_port, is_root, skip, spawn, test_dir};

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
    // A session says what it cannot use, not what is doubtful.
    let list = dir.path().join("list");
    fs::write(&list, "192.0.2.\n/[/\n").unwrap();
    let option = format!("--whitelist-clients={}", list.display());
    let mut session = spawn(dir.path(), &[&option, "--syslog-facility=local3"]);
    session.client.ask(&[("sender", "session@example.com")]);
    let said = syslogd.line("list line ");
    assert!(said.contains("list line 2: bad pattern"), "{said}");
    daemon.stop();
    syslogd.line(" Server closing!");
}
