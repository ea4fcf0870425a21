//! One case, from the first daemon to the last.

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgrey::policy::record::Database;
use postgrey::store::Store;
use postgrey::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use postgrey::store::verify::verify_environment;

use super::{Actor, Case, Daemon, Done};
use crate::server::{
    Client, PATIENCE, Server, Spawned, common_options, pause, request, wait_until,
};
use crate::tools::{Control, Tools, memory_dir};

/// Records of an import.
const IMPORTED: usize = 300;

/// What may be there after an orderly end. Three of them are what was made of it
/// when someone was killed; the next one who makes them removes them.
const EXPECTED: [&str; 7] = [
    "data.mdb",
    "lock.mdb",
    "postgrey.lock",
    "data.mdb.compact",
    "data.mdb.verified",
    "data.mdb.replaced",
    "data.mdb.restore",
];

/// Runs a case in a directory of its own.
pub fn run(tools: &Tools, case: Case) -> Done {
    let folder = memory_dir();
    let run = Run {
        tools,
        case,
        folder: folder.path(),
        control: Control::new(folder.path()),
        promised: Mutex::default(),
    };
    run.run()
}

/// A case under way.
struct Run<'t> {
    tools: &'t Tools,
    case: Case,
    folder: &'t Path,
    control: Control,
    /// Records that were answered, or reported as written.
    promised: Mutex<BTreeSet<(usize, String)>>,
}

impl Run<'_> {
    fn db(&self) -> PathBuf {
        self.folder.join("db")
    }

    fn promise(&self, database: Database, key: String) {
        let mut promised = self.promised.lock().unwrap();
        promised.insert((database as usize, key));
    }

    /// True if the triplet is greylisted; an error if the server is gone.
    fn ask(&self, client: &mut Client, sender: &str) -> std::io::Result<bool> {
        let request = request(&[("sender", sender)]);
        let answer = client.try_ask(&request)?;
        if answer == "DUNNO" {
            return Ok(false);
        }
        assert!(answer.starts_with("DEFER_IF_PERMIT"), "{answer}");
        let key = format!("192.0.2.0/{sender}/user@example.org");
        self.promise(Database::Greylist, key);
        Ok(true)
    }

    /// Asks until two triplets are greylisted; false if the server is gone.
    fn ask_two(&self, client: &mut Client, name: &str) -> bool {
        let begun = Instant::now();
        let (mut count, mut greylisted) = (0, 0);
        while greylisted < 2 {
            count += 1;
            match self.ask(client, &format!("{name}{count}x@s.example")) {
                Ok(true) => greylisted += 1,
                Ok(false) => std::thread::sleep(Duration::from_millis(5)),
                Err(_) => return false,
            }
            let is_late = begun.elapsed() > PATIENCE;
            assert!(!is_late, "{}: {name} does not greylist", self.case);
        }
        true
    }

    /// The daemon comes into its state.
    fn change(&self, server: &mut Server) {
        match self.case.daemon {
            Daemon::Serves => {}
            Daemon::Killed => return server.kill_all(),
            Daemon::Stopped => return assert!(server.stop().success()),
            Daemon::Starts => {
                // While the database is replaced none may start.
                while let Err(status) = server.try_start_again() {
                    let replaces = matches!(self.case.actor, Actor::Compact | Actor::Restore);
                    assert!(replaces, "{status}");
                    assert_eq!(status.code(), Some(11));
                    pause();
                }
            }
        }
        assert!(self.ask_two(&mut server.connect(), "meanwhile"));
    }

    fn environment(&self) -> Vec<(&'static str, PathBuf)> {
        vec![
            ("POSTGREY_CONTROL", self.control.path.clone()),
            ("POSTGREY_DBDIR", self.db()),
        ]
    }

    /// A session that is not killed has no `environment`.
    fn open_session(&self, environment: &[(&str, PathBuf)]) -> Spawned {
        let options = [self.case.sync, "--quiet"];
        self.tools.session(self.folder, &options, environment)
    }

    /// Asks a session that must live, and ends it.
    fn end_session(&self, mut session: Spawned, name: &str) {
        assert!(self.ask_two(&mut session.client, name), "{}", self.case);
        drop(session.client);
        assert!(session.child.wait().unwrap().success());
    }

    /// Works on the database, and may be killed at it. A session that lives is
    /// returned.
    fn act(&self, early: Option<Spawned>) -> Option<Spawned> {
        self.control.arm(self.case.kill_at);
        match self.case.actor {
            Actor::EarlySession | Actor::Session | Actor::LateSession => {
                let mut session = early.unwrap_or_else(|| self.open_session(&self.environment()));
                if self.ask_two(&mut session.client, "actor") {
                    return Some(session);
                }
                assert!(self.was_killed(), "{}: no session", self.case);
                session.child.wait().unwrap();
            }
            Actor::Add => {
                if self.ctl(&["add", "client", "203.0.113.7"]) {
                    self.promise(Database::Clients, "203.0.113.7".into());
                }
            }
            Actor::Import => {
                let keys: Vec<String> = (0..IMPORTED)
                    .map(|number| format!("203.0.113.0/i{number}x@s.example/u@r.example"))
                    .collect();
                let lines: Vec<String> = keys
                    .iter()
                    .map(|key| format!("{key}\t1700000000,1700000000,0,7\n"))
                    .collect();
                let text = self.folder.join("text");
                fs::write(&text, lines.concat()).unwrap();
                let text = text.to_str().unwrap();
                if self.ctl(&["--database=greylist", "import", text]) {
                    keys.into_iter()
                        .for_each(|key| self.promise(Database::Greylist, key));
                }
            }
            Actor::Compact => {
                self.ctl(&["compact"]);
            }
            Actor::Restore => {
                let backup = self.folder.join("backup");
                let backup = backup.to_str().unwrap();
                // Nothing is answered between the two but by a daemon, which lets
                // nothing be restored.
                let taken = self.tools.ctl(self.folder, &["backup", backup], &[]);
                assert!(taken.status.success(), "{}: {taken:?}", self.case);
                self.ctl(&["restore", backup]);
            }
            Actor::NextDaemon => self.run_daemon(),
        }
        None
    }

    /// True if postgreyctl says that it is done.
    fn ctl(&self, words: &[&str]) -> bool {
        let output = self.tools.ctl(self.folder, words, &self.environment());
        let is_fine = matches!(output.status.code(), Some(0 | 2)) || self.was_killed();
        assert!(is_fine, "{}: {output:?}", self.case);
        output.status.success()
    }

    /// Starts a daemon, each of whose processes may be killed, and ends it.
    fn run_daemon(&self) {
        let socket = self.folder.join("run/s");
        let mut daemon = self
            .tools
            .server()
            .args(common_options(self.folder))
            .arg(format!("--unix={}", socket.display()))
            .args([self.case.sync, "--quiet", "--workers=1"])
            .envs(self.environment())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && daemon.try_wait().unwrap().is_none() {
            let client = Client::unix(&socket);
            if client.is_ok_and(|mut client| self.ask_two(&mut client, "daemon")) {
                break;
            }
            pause();
        }
        // It may have been killed, and then it has been waited for.
        if daemon.try_wait().unwrap().is_none() {
            let pid = Pid::from_raw(daemon.id().try_into().unwrap());
            kill(pid, Signal::SIGTERM).unwrap();
            daemon.wait().unwrap();
        }
    }

    fn was_killed(&self) -> bool {
        self.case.kill_at > 0 && self.control.count() >= self.case.kill_at
    }

    /// Everything that was promised is there; the database is sound, and its
    /// files belong together. Nobody uses it.
    fn check(&self, when: &str) {
        let what = format!("{}, {when}", self.case);
        let mut store = LmdbStore::new(LmdbOptions {
            dir: self.db(),
            map_size: 0,
            purpose: Purpose::Verify,
            patience: Duration::ZERO,
        });
        let verified = verify_environment(&mut store);
        verified.unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut held = BTreeSet::new();
        for database in [Database::Greylist, Database::Clients] {
            let scanned = store.scan(database, b"", None, &mut |entry| {
                let key = String::from_utf8(entry.key.to_vec()).unwrap();
                held.insert((database as usize, key));
                ControlFlow::Continue(())
            });
            assert_eq!(scanned, Ok(true), "{what}");
        }
        let promised = self.promised.lock().unwrap();
        let lost: Vec<_> = promised.difference(&held).collect();
        assert!(lost.is_empty(), "{what}: lost {lost:?}");
        let left: Vec<String> = fs::read_dir(self.db())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !EXPECTED.contains(&&name[..]))
            // Of an import that was killed: it is still empty.
            .filter(|name| !name.starts_with(".postgreyctl."))
            .filter(|name| !name.starts_with("postgrey.options"))
            .collect();
        assert!(left.is_empty(), "{what}: {left:?} is left");
        let numbers = ["data.mdb", "lock.mdb"].map(|name| {
            let found = fs::metadata(self.db().join(name)).unwrap();
            format!("{:016x} {:016x}", found.dev(), found.ino())
        });
        let noted = fs::read_to_string(self.db().join("postgrey.lock")).unwrap();
        assert_eq!(noted, format!("{}\n", numbers.join(" ")), "{what}");
    }

    /// From the first daemon to the last.
    fn run(&self) -> Done {
        let options = [self.case.sync, "--quiet", "--workers=1"];
        let mut server = Server::start(self.folder, &options);
        assert!(self.ask_two(&mut server.connect(), "first"));
        let open = |environment: &[(&str, PathBuf)], name| {
            let mut session = self.open_session(environment);
            assert!(self.ask_two(&mut session.client, name));
            session
        };
        let is_early = self.case.actor == Actor::EarlySession;
        let early = is_early.then(|| open(&self.environment(), "early"));
        let mut witness = self.case.has_witness.then(|| open(&[], "witness"));
        if self.case.daemon == Daemon::Starts {
            server.kill_all();
        }
        let is_at_once = match self.case.actor {
            Actor::Session => true,
            Actor::LateSession => self.case.daemon == Daemon::Serves,
            _ => matches!(self.case.daemon, Daemon::Serves | Daemon::Starts),
        };
        let session = std::thread::scope(|scope| {
            let mut change = || self.change(&mut server);
            if !is_at_once {
                change();
                return self.act(early);
            }
            let changing = scope.spawn(change);
            let session = self.act(early);
            changing.join().unwrap();
            session
        });
        if let Some(witness) = &mut witness {
            assert!(self.ask_two(&mut witness.client, "witness-beside"));
        }
        let done = Done {
            calls: self.control.count(),
            was_killed: self.was_killed(),
            promised: self.promised.lock().unwrap().len(),
        };
        self.control.arm(0);
        if matches!(self.case.daemon, Daemon::Killed | Daemon::Stopped) {
            server.start_again();
        }
        assert!(self.ask_two(&mut server.connect(), "again"));
        if let Some(session) = session {
            self.end_session(session, "session-again");
        }
        if let Some(witness) = witness {
            self.end_session(witness, "witness-again");
        }
        for when in ["at the end", "after a start", "after another"] {
            assert!(server.stop().success(), "{}: {when}", self.case);
            wait_until("processes that were left alone", || {
                count_users(self.folder) == 0
            });
            self.check(when);
            server.start_again();
            assert!(self.ask_two(&mut server.connect(), when.split(' ').next_back().unwrap()));
        }
        let log = server.log_text();
        for word in ["damaged", "SIGSEGV", "SIGBUS", "SIGABRT"] {
            assert!(!log.contains(word), "{}: {log}", self.case);
        }
        done
    }
}

/// The processes that were started with a path below this one.
fn count_users(folder: &Path) -> usize {
    let folder = folder.as_os_str().as_encoded_bytes();
    let uses = |entry: &fs::DirEntry| {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        line.windows(folder.len()).any(|part| part == folder)
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.filter(uses).count()
}
