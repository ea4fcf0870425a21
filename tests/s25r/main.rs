//! `--s25r` in the running server: who passes, in which order the whitelists
//! are asked, and what a reload does with a bad exceptions file.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/machine.rs"]
mod machine;
mod postmap;
#[path = "../common/random.rs"]
mod random;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Nothing here takes long; what hangs fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server with its files in a directory of its own, ended when dropped.
struct Server {
    dir: tempfile::TempDir,
    child: Child,
}

impl Server {
    fn start(exceptions: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("clients"), "listed-1-2.example.net\n").unwrap();
        fs::write(dir.path().join("recipients"), "postmaster@\n").unwrap();
        fs::write(dir.path().join("except"), exceptions).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_postgrey"));
        command
            .current_dir(dir.path())
            .args(["--unix=socket", "--dbdir=.", "--workers=1", "--s25r", "-v"])
            .arg("--sync=none")
            .args(["--whitelist-clients=clients", "--s25r-except=except"])
            .arg("--whitelist-recipients=recipients")
            .stdout(Stdio::null())
            .stderr(fs::File::create(dir.path().join("log")).unwrap());
        if nix::unistd::geteuid().is_root() {
            command.args(["--user=nobody", "--group=nogroup"]);
            let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
            nix::unistd::chown(dir.path(), Some(nobody.uid), None).unwrap();
        }
        let server = Server {
            child: command.spawn().unwrap(),
            dir,
        };
        wait_until("the server answers", || {
            UnixStream::connect(server.path("socket")).is_ok()
        });
        server
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    /// The action for a client of this name.
    fn ask(&self, client_name: &str, recipient: &str) -> String {
        ask(&self.path("socket"), client_name, recipient)
    }

    fn reload(&self, exceptions: &str, said: &str) {
        fs::write(self.path("except"), exceptions).unwrap();
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGHUP).unwrap();
        wait_until(said, || self.log().contains(said));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        self.child.wait().ok();
    }
}

fn ask(socket: &Path, client_name: &str, recipient: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.1\n\
         client_name={client_name}\nsender=a@example.com\nrecipient={recipient}\n\n"
    )
    .unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        sleep(Duration::from_millis(5));
    }
}

#[test]
fn names_of_servers_pass_and_all_others_are_greylisted() {
    let server = Server::start("odd.example.com suspicious\nmx-1-2.example.com ok\n");
    for (name, recipient, passes) in [
        ("mail.example.com", "u@example.org", true),
        ("odd.example.com", "u@example.org", false),
        ("mx-1-2.example.com", "u@example.org", true),
        ("host-1-2.example.net", "u@example.org", false),
        ("unknown", "u@example.org", false),
        ("192.0.2.1", "u@example.org", false),
        ("[192.0.2.1]", "u@example.org", false),
        ("2001:db8::7", "u@example.org", false),
        ("unknown", "postmaster@example.org", true),
        ("listed-1-2.example.net", "u@example.org", true),
    ] {
        let action = server.ask(name, recipient);
        assert_eq!(action == "action=DUNNO", passes, "{name}: {action}");
    }
    let log = server.log();
    for line in [
        "action=pass, reason=not S25R, client_name=mail.example.com, client_address=192.0.2.1, \
         sender=a@example.com, recipient=u@example.org\n",
        "action=pass, reason=not S25R, client_name=mx-1-2.example.com, ",
        "action=pass, reason=recipient whitelist, client_name=unknown, ",
        "action=pass, reason=client whitelist, client_name=listed-1-2.example.net, ",
        "action=greylist, reason=new, client_name=odd.example.com, ",
    ] {
        assert!(log.contains(line), "{line}\n--\n{log}");
    }
    assert!(!log.contains("reason=not S25R, client_name=unknown"));
    // --verbose: a line for each connection.
    let connections = log.matches(" CONNECT UNIX Socket\n").count();
    assert!(connections >= 7, "{log}");
}

#[test]
fn an_address_is_looked_up_where_the_name_gives_nothing() {
    let server = Server::start("/^192\\.0\\.2\\.1$/ OK\n/^waits/ 450 be patient\n/^asks/ DUNNO\n");
    for (name, passes) in [
        ("unknown", true),
        ("[192.0.2.1]", true),
        ("a1b2.example.com", true),
        ("waits.example.com", false),
        ("asks1-2.example.com", false),
        ("asks.example.com", true),
    ] {
        let action = server.ask(name, "u@example.org");
        assert_eq!(action == "action=DUNNO", passes, "{name}: {action}");
    }
}

#[test]
fn a_bad_exceptions_file_keeps_the_old_exceptions() {
    let server = Server::start("example.net ok\n");
    let asked = || server.ask("host-1-2.example.net", "u@example.org");
    assert_eq!(asked(), "action=DUNNO");
    server.reload("# no\nexample.net perhaps\n", "the old ones stay in use");
    let log = server.log();
    let said = "except line 2: 'perhaps' is neither 'suspicious' nor 'ok'";
    assert!(log.contains(said), "{log}");
    assert_eq!(asked(), "action=DUNNO");
    // The master asks the workers to reload at most once in 200 ms.
    server.reload("", "HUP received");
    wait_until("the exception is gone", || asked() != "action=DUNNO");
}
