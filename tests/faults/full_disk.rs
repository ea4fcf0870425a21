//! A disk that is full: at any point of start, commits, stop and verification.
//! There is no mail it costs, and when there is room again nothing that was
//! answered is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use postgrey::policy::record::Database;
use postgrey::store::lmdb::LmdbStore;
use postgrey::store::verify::verify_environment;

use crate::random::{Random, number_from};
use crate::server::{Client, PATIENCE, PROGRAM, Server, give_to_server, test_dir, wait_until};
use crate::small_disk::SmallDisk;

/// What no answer takes, on a busy machine either.
const AT_ONCE: Duration = Duration::from_secs(3);

/// A small disk in the place of the database; `None` where that is not allowed.
fn small_disk(db: &Path) -> Option<SmallDisk<'_>> {
    let disk = SmallDisk::mount(db, "size=1m,mode=755", "disks that fill up")?;
    give_to_server(db);
    Some(disk)
}

/// What happens to a server on a small disk.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// It is asked about so many new triplets.
    Ask(usize),
    /// All is full but for so many pages.
    Fill(u64),
    Empty,
    Start,
    /// A verification comes to its end, good or bad, if there is one.
    Verify,
    Stop,
    Kill,
}

use Step::{Ask, Empty, Fill, Kill, Start, Stop, Verify};

/// A server, its disk, and what it was asked.
struct Life<'p> {
    server: Server,
    disk: SmallDisk<'p>,
    is_running: bool,
    is_full: bool,
    /// Octets of the log before a start with a mark.
    marked_at: Option<usize>,
    asked: usize,
    /// The senders it greylisted.
    answered: Vec<String>,
    /// Requests that passed without the store.
    passed: usize,
    /// Starts that were refused, and verifications that failed.
    refused: usize,
    failed: usize,
}

impl Life<'_> {
    fn take(&mut self, step: Step, what: &str) {
        match step {
            Ask(number) if self.is_running => self.ask(number, what),
            Fill(pages) if !self.is_full => {
                self.disk.fill_but(pages);
                self.is_full = true;
            }
            Empty if self.is_full => {
                self.disk.empty();
                self.is_full = false;
            }
            Start if !self.is_running => self.start(what),
            Verify if self.is_running => self.wait_for_verifier(),
            Stop if self.is_running => {
                let status = self.server.stop();
                assert!(
                    status.success(),
                    "{what}: {status}: {}",
                    self.server.log_text()
                );
                self.is_running = false;
            }
            Kill if self.is_running => {
                self.server.kill_all();
                self.is_running = false;
            }
            _ => {}
        }
    }

    fn ask(&mut self, number: usize, what: &str) {
        let mut client = self.server.connect();
        for _ in 0..number {
            self.asked += 1;
            let sender = format!("n{}x{}@s.example", self.asked, "-".repeat(200));
            match ask_at_once(&mut client, &sender, what) {
                true => self.answered.push(sender),
                false => self.passed += 1,
            }
        }
    }

    fn start(&mut self, what: &str) {
        let said = self.server.log_text().len();
        self.marked_at = self.mark().exists().then_some(said);
        match self.server.try_start_again() {
            Ok(()) => self.is_running = true,
            Err(status) => {
                let log = self.server.log_text().split_off(said);
                assert!(self.is_full, "{what}: {status}: {log}");
                assert_refused(status, &log);
                self.refused += 1;
            }
        }
    }

    fn mark(&self) -> PathBuf {
        self.server.dbdir.join("data.mdb.unflushed")
    }

    fn wait_for_verifier(&mut self) {
        let Some(said) = self.marked_at else { return };
        wait_until("a verification", || {
            let log = self.server.log_text().split_off(said);
            self.failed += usize::from(log.contains("cannot verify"));
            log.contains("cannot verify") || log.contains("verified\n")
        });
    }

    /// There is room, and the server starts as often as one likes.
    fn end(mut self, what: &str) -> Self {
        for step in [Empty, Start] {
            self.take(step, what);
        }
        let mut client = self.server.connect();
        let begun = Instant::now();
        while !ask_at_once(&mut client, "end@s.example", what) {
            let log = self.server.log_text();
            assert!(begun.elapsed() < PATIENCE, "{what}: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        for _ in 0..3 {
            for step in [Stop, Start, Ask(1), Stop] {
                self.take(step, what);
            }
            self.assert_nothing_lost(what);
        }
        self
    }

    fn assert_nothing_lost(&self, what: &str) {
        let log = self.server.log_text();
        assert!(!log.contains("is damaged"), "{what}: {log}");
        assert!(!self.mark().exists(), "{what}: {log}");
        let verified = verify_environment(&mut LmdbStore::new_reader(&self.server.dbdir));
        assert!(verified.is_ok(), "{what}: {verified:?}");
        let records = self.server.records(Database::Greylist);
        for sender in &self.answered {
            let key = format!("192.0.2.0/{sender}/user@example.org");
            assert!(records.contains_key(&key), "{what}: {key} is lost: {log}");
        }
    }
}

/// True if it is greylisted; otherwise it passes.
fn ask_at_once(client: &mut Client, sender: &str, what: &str) -> bool {
    let start = Instant::now();
    let answer = client.ask(&[("sender", sender)]);
    assert!(start.elapsed() < AT_ONCE, "{what}: {:?}", start.elapsed());
    assert!(answer == "DUNNO" || answer.starts_with("DEFER_IF_PERMIT"));
    answer != "DUNNO"
}

fn assert_refused(status: ExitStatus, said: &str) {
    assert!(status.code().is_some_and(|code| code != 0), "{status}");
    assert!(said.contains("No space left on device"), "{said}");
}

/// A server goes these steps and is well afterwards; `None` without small disks.
fn live(sync: &str, steps: &[Step], what: &str) -> Option<[usize; 4]> {
    let folder = test_dir();
    let db = folder.path().join("db");
    let disk = small_disk(&db)?;
    let server = Server::start(folder.path(), &["--quiet", sync, "--workers=1"]);
    let mut life = Life {
        server,
        disk,
        is_running: true,
        is_full: false,
        marked_at: None,
        asked: 0,
        answered: Vec::new(),
        passed: 0,
        refused: 0,
        failed: 0,
    };
    for &step in steps {
        life.take(step, what);
    }
    let life = life.end(what);
    Some([life.answered.len(), life.passed, life.refused, life.failed])
}

/// The disk is full at one point, with so many pages left.
fn points(room: u64) -> [Vec<Step>; 7] {
    let full = Fill(room);
    [
        // Before a start, in order or not.
        vec![Ask(9), Stop, full, Start, Ask(30), Stop],
        vec![Ask(9), Kill, full, Start, Ask(30), Kill, Start, Ask(2)],
        // In the middle of commits; then a stop, or none.
        vec![Ask(20), full, Ask(60), Stop, Start, Ask(9)],
        vec![Ask(20), full, Ask(60), Empty, Ask(9), Kill, Start, Ask(9)],
        // Before a stop.
        vec![
            Ask(20),
            full,
            Stop,
            Start,
            Ask(3),
            Kill,
            Start,
            Ask(3),
            Stop,
        ],
        // While a verification writes the database anew.
        vec![Ask(200), Kill, full, Start, Ask(5), Verify, Ask(5), Kill],
        vec![Ask(200), Kill, full, Start, Verify, Stop, Start, Verify],
    ]
}

/// Steps in any order.
fn any_steps(random: &mut Random) -> Vec<Step> {
    let mut steps = Vec::new();
    for _ in 0..12 {
        let room = *random.pick(&[0, 1, 2, 5, 10, 33, 40]);
        let number = random.below(60);
        steps.push(*random.pick(&[Ask(number), Fill(room), Empty, Verify, Stop, Kill]));
        // A server that does not run does nothing of interest.
        if random.percent(70) {
            steps.push(Start);
        }
        steps.push(Ask(random.below(9)));
    }
    steps
}

fn add(all: &mut [usize; 4], more: [usize; 4]) {
    all.iter_mut()
        .zip(more)
        .for_each(|(all, more)| *all += more);
}

#[test]
fn a_full_disk_at_any_point_loses_nothing() {
    let seed = Random::choose_seed();
    let mut random = Random::new(seed);
    let mut lives = Vec::new();
    for sync in ["--sync=commit", "--sync=none"] {
        let room = *random.pick(&[1, 2, 3, 5, 12, 33, 36]);
        for steps in points(0).into_iter().chain(points(room)) {
            lives.push((sync, steps));
        }
        for _ in 0..number_from("POSTGREY_POWER_CUTS", 60) / 20 {
            lives.push((sync, any_steps(&mut random)));
        }
    }
    let number = lives.len();
    let next = std::sync::Mutex::new(lives.into_iter());
    let lived = std::thread::scope(|scope| {
        // They wait more than they work.
        let threads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut all = [0; 4];
                    loop {
                        let life = next.lock().unwrap().next();
                        let Some((sync, steps)) = life else {
                            return Some(all);
                        };
                        let what = format!("{sync}, {steps:?}, POSTGREY_SEED={seed}");
                        add(&mut all, live(sync, &steps, &what)?);
                    }
                })
            })
            .collect();
        let mut all = [0; 4];
        for thread in threads {
            add(&mut all, thread.join().unwrap()?);
        }
        Some(all)
    });
    let Some([answered, passed, refused, failed]) = lived else {
        return;
    };
    println!(
        "check: {number} lives on full disks (POSTGREY_SEED={seed}): {answered} greylisted, 0 lost, \
         {passed} DUNNO, {refused} starts refused, {failed} verifications failed"
    );
    assert!(answered > 0 && passed > 0 && failed > 0);
}

#[test]
fn a_first_start_on_a_full_disk_says_so() {
    let folder = test_dir();
    let db = folder.path().join("db");
    let Some(disk) = small_disk(&db) else {
        return;
    };
    let options = ["--quiet", "--workers=1"];
    let log = folder.path().join("log");
    // From nothing to room for all the files.
    let mut refused = 0;
    for room in [0, 1, 20, 33, 34, 35, 36, 38, 42, 60] {
        disk.fill_but(room);
        let started = Server::try_start_by(Command::new(PROGRAM), folder.path(), &options);
        match started {
            Ok(mut server) => {
                ask_at_once(&mut server.connect(), "first@s.example", "first");
                println!(
                    "check: a first start with {room} pages of room: {:?}",
                    server.log_text()
                );
                assert!(server.stop().success());
            }
            Err(status) => {
                let said = fs::read_to_string(&log).unwrap();
                println!("check: a first start with {room} pages of room: {status}, {said:?}");
                assert_refused(status, &said);
                refused += 1;
            }
        }
        disk.empty();
        fs::remove_file(&log).unwrap();
        let mut server = Server::start(folder.path(), &options);
        let answer = server.connect().ask(&[]);
        let said = server.log_text();
        assert!(
            answer.starts_with("DEFER_IF_PERMIT"),
            "{room}: {answer}, {said}"
        );
        assert!(server.stop().success());
        assert!(!server.records(Database::Greylist).is_empty());
        assert_eq!(server.log_text(), "");
        for entry in fs::read_dir(&db).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
    }
    assert!(refused >= 4, "{refused} were refused");
}
