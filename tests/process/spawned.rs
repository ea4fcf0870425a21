//! Sessions of `--spawn`.

use std::fs;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use postgrey::sys::lock::{Claim, LockFile};

use crate::server::{Client, Server, spawn, test_dir, wait_until};

#[test]
fn spawned_sessions_and_a_daemon_share_one_database() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--workers=2"]);
    let mut sessions: Vec<_> = (0..32).map(|_| spawn(dir.path(), &[])).collect();
    let time = |seconds: u32| (1_700_000_000 + seconds).to_string();
    for round in 0..5_u32 {
        for (index, session) in sessions.iter_mut().enumerate() {
            let sender = format!("r{round}@example.com");
            let at = time(round * 1000 + index as u32);
            let reply = session
                .client
                .ask(&[("sender", &sender), ("policy_test_time", &at)]);
            assert!(reply.starts_with("DEFER_IF_PERMIT"), "{reply}");
        }
        let sender = format!("r{round}@example.com");
        let at = time(round * 1000 + 300);
        let asked = [("sender", &sender[..]), ("policy_test_time", &at)];
        assert!(
            server
                .connect()
                .ask(&asked)
                .starts_with("PREPEND X-Greylist: delayed 300 seconds")
        );
    }
    for session in &mut sessions {
        session.client = Client::of(UnixStream::pair().unwrap().0);
        wait_until("a session to end with its input", || {
            session.child.try_wait().unwrap().is_some()
        });
        assert!(session.child.wait().unwrap().success());
    }
}

#[test]
fn a_spawned_session_without_a_database_answers_dunno_and_nothing_else() {
    let dir = test_dir();
    fs::remove_dir_all(dir.path().join("db")).unwrap();
    let mut session = spawn(dir.path(), &[]);
    assert_eq!(session.client.ask(&[]), "DUNNO");
    assert_eq!(session.client.ask(&[]), "DUNNO");
}

#[test]
fn a_spawned_session_with_wrong_options_writes_nothing_to_its_client() {
    let dir = test_dir();
    for wrong in ["--delay=abc", "--no-such-option", "--compat=none"] {
        let mut session = spawn(dir.path(), &[wrong]);
        assert_eq!(session.client.reply(), None);
        assert!(!session.child.wait().unwrap().success());
    }
}

#[test]
fn a_session_waits_for_another_writer_shorter_than_its_client_does() {
    /// Half of the `timeout=10s` of the manual's example.
    const LIMIT: Duration = Duration::from_secs(5);
    let dir = test_dir();
    let mut opened = spawn(dir.path(), &[]);
    assert!(opened.client.ask(&[]).starts_with("DEFER_IF_PERMIT"));
    let lock = LockFile::new(dir.path().join("db/postgrey.lock"), 0o600);
    assert!(lock.try_lock(Claim::Commit).unwrap());
    let mut new = spawn(dir.path(), &[]);
    for (session, sender) in [(&mut opened, "one@s.example"), (&mut new, "two@s.example")] {
        let begun = Instant::now();
        assert_eq!(session.client.ask(&[("sender", sender)]), "DUNNO");
        let waited = begun.elapsed();
        assert!(waited < LIMIT, "{waited:?}");
    }
    lock.unlock(Claim::Commit).unwrap();
    for session in [&mut opened, &mut new] {
        let reply = session.client.ask(&[("sender", "three@s.example")]);
        assert!(reply.starts_with("DEFER_IF_PERMIT"), "{reply}");
    }
}
