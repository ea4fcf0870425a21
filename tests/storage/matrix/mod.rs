//! kill -9 at every call by which a process changes the files of the database,
//! whatever the daemon does meanwhile.
//!
//! A daemon has answered; then it serves on, is killed, is stopped, or starts
//! again after a kill. An actor works on the database: a spawned session, which
//! was opened before that, is opened at the same time, or afterwards;
//! postgreyctl; or the daemon that starts. It is killed at one of its calls.
//! Whatever happens: each answered triplet, and what postgreyctl said is in, is
//! there after that and two more starts, the database is sound, and its files
//! belong together.

mod run;

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use self::run::run;
use crate::random::Random;
use crate::tools::Tools;

/// Cases that run at once; most of their time they wait.
const SIDE_BY_SIDE: usize = 4;
/// How long a sample of the kills runs.
const SAMPLE_TIME: Duration = Duration::from_secs(20);

/// What the daemon does while the actor works.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Daemon {
    Serves,
    /// Killed with all its children.
    Killed,
    Stopped,
    /// It was killed, and starts again.
    Starts,
}

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Actor {
    /// A session that had the database open before.
    EarlySession,
    /// One that opens it while the daemon comes into its state.
    Session,
    /// One that opens it when the daemon is in its state.
    LateSession,
    Add,
    Import,
    Compact,
    /// Takes a backup, and puts it in place.
    Restore,
    /// Each process of the daemon that is started next.
    NextDaemon,
}

#[derive(Clone, Copy, Debug)]
struct Case {
    sync: &'static str,
    daemon: Daemon,
    actor: Actor,
    /// Another session has the database open all the time.
    has_witness: bool,
    /// The call at which the actor is killed; 0: none.
    kill_at: u64,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Case {
            sync,
            daemon,
            actor,
            has_witness,
            kill_at,
        } = self;
        let beside = if *has_witness {
            " beside a session"
        } else {
            ""
        };
        write!(
            f,
            "{sync}, daemon {daemon:?}, {actor:?}{beside}, killed at {kill_at}"
        )
    }
}

/// All combinations without a kill.
fn combinations() -> Vec<Case> {
    let mut cases = Vec::new();
    for sync in ["--sync=commit", "--sync=none"] {
        for daemon in [
            Daemon::Serves,
            Daemon::Killed,
            Daemon::Stopped,
            Daemon::Starts,
        ] {
            for actor in [
                Actor::EarlySession,
                Actor::Session,
                Actor::LateSession,
                Actor::Add,
                Actor::Import,
                Actor::Compact,
                Actor::Restore,
                Actor::NextDaemon,
            ] {
                for has_witness in [false, true] {
                    let is_down = matches!(daemon, Daemon::Killed | Daemon::Stopped);
                    // There is one daemon at a time.
                    if actor != Actor::NextDaemon || is_down {
                        cases.push(Case {
                            sync,
                            daemon,
                            actor,
                            has_witness,
                            kill_at: 0,
                        });
                    }
                }
            }
        }
    }
    cases
}

/// What came of a case.
struct Done {
    /// The calls of the actor.
    calls: u64,
    was_killed: bool,
    promised: usize,
}

/// Runs cases side by side until the time is up; those that were run.
fn run_all(tools: &Tools, cases: Vec<Case>, end: Option<Instant>) -> Vec<(Case, Done)> {
    let done = Mutex::new(Vec::new());
    let next = Mutex::new(cases.into_iter());
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while end.is_none_or(|end| Instant::now() < end) {
                    let Some(case) = next.lock().unwrap().next() else {
                        return;
                    };
                    let result = run(tools, case);
                    done.lock().unwrap().push((case, result));
                }
            });
        }
    });
    done.into_inner().unwrap()
}

#[test]
fn whoever_is_killed_loses_nothing_and_mixes_nothing() {
    let Some(tools) = Tools::build() else { return };
    let begun = Instant::now();
    let without_kill = run_all(&tools, combinations(), None);
    let mut cases: Vec<Case> = without_kill
        .iter()
        .flat_map(|&(case, Done { calls, .. })| {
            (1..=calls).map(move |kill_at| Case { kill_at, ..case })
        })
        .collect();
    // The order of a sample is always the same.
    cases.sort_by_key(|case| case.to_string());
    let mut random = Random::new(1);
    for last in (1..cases.len()).rev() {
        cases.swap(last, random.below(last + 1));
    }
    let is_all = std::env::var_os("POSTGREY_MATRIX").is_some_and(|which| which == "all");
    let all = cases.len();
    let with_kill = run_all(&tools, cases, (!is_all).then(|| begun + SAMPLE_TIME));
    let killed = with_kill.iter().filter(|(_, done)| done.was_killed).count();
    let promised: usize = with_kill.iter().map(|(_, done)| done.promised).sum();
    println!(
        "check: {} combinations, {} of {all} kills at a call, {killed} of them met: none of \
         {promised} records lost, no mixed pair, in {:.0?}",
        without_kill.len(),
        with_kill.len(),
        begun.elapsed()
    );
    for (case, Done { calls, .. }) in &without_kill {
        println!("check:     {case}: {calls} calls");
    }
    assert!(killed * 2 > with_kill.len(), "the calls are not the same");
}
