//! Sessions that are killed one after another: whatever they leave behind, the
//! next one greylists.

use std::time::{Duration, Instant};

use postgrey::policy::record::Database;
use postgrey::store::lmdb::claim::MAX_READERS;

use crate::random::number_from;
use crate::server::{Client, Spawned, records};
use crate::tools::{Tools, memory_dir};

fn ask(client: &mut Client, sender: &str) {
    let answer = client.ask(&[("sender", sender)]);
    assert!(answer.starts_with("DEFER_IF_PERMIT"), "{sender}: {answer}");
}

/// Kills so many sessions, each of which has a slot for its reading.
fn kill_sessions(has_company: bool) {
    let Some(tools) = Tools::build() else { return };
    let number = number_from("POSTGREY_SESSIONS", 300);
    let folder = memory_dir();
    let open = || tools.session(folder.path(), &["--quiet"], &[]);
    // While another one has the database open its readers are not forgotten.
    let mut company = has_company.then(open);
    if let Some(session) = &mut company {
        ask(&mut session.client, "company@s.example");
    }
    let mut longest = Duration::ZERO;
    for count in 0..number {
        let start = Instant::now();
        let mut session = open();
        ask(&mut session.client, &format!("n{count}x@s.example"));
        longest = start.elapsed().max(longest);
        session.child.kill().unwrap();
        session.child.wait().unwrap();
    }
    let start = Instant::now();
    let mut last = open();
    ask(&mut last.client, "last@s.example");
    let took = start.elapsed();
    let mut answered = number as usize + 1;
    if let Some(session) = &mut company {
        ask(&mut session.client, "company-again@s.example");
        answered += 2;
    }
    for Spawned { client, mut child } in [Some(last), company].into_iter().flatten() {
        drop(client);
        assert!(child.wait().unwrap().success());
    }
    let held = records(&folder.path().join("db"), Database::Greylist).len();
    assert_eq!(held, answered);
    let beside = match has_company {
        true => "beside one that lives",
        false => "alone",
    };
    println!(
        "check: {number} sessions killed, {beside}, {MAX_READERS} slots: the longest took \
         {longest:.1?}, the next {took:.1?}; {held} records"
    );
}

#[test]
fn the_next_session_greylists() {
    kill_sessions(false);
}

#[test]
fn the_next_session_greylists_beside_one_that_lives() {
    kill_sessions(true);
}
