//! When the database is verified, by a process of its own, while requests that
//! need it pass.
//!
//! That is so after a server that did not flush has not come to its end (the
//! mark), when the database cannot be opened or read as it is, and when processes
//! that use it crash again and again. What comes of it is one line in the log.
//!
//! The daemon's master starts the verifier. Where no daemon runs, a spawned
//! session does.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::config::settings::StoreSettings;
use crate::log::{Level, Log};
use crate::store::lmdb::mark::is_marked;
use crate::store::verify::{Verdict, examine};
use crate::sys::lock::{Claim, LockFile};
use crate::sys::process::Death;

/// How long the verifier waits for a commit of somebody else to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Crashes within this time are taken for those of a damaged database. It is
/// much more than the minute after which a new writer begins its maintenance:
/// where that meets the damage, and nothing else does, it crashes each time.
const CRASH_TIME: Duration = Duration::from_secs(3600);
/// For so long after a sound verdict it is not asked again: whatever the trouble
/// is, it is not the file.
const TRUST: Duration = Duration::from_secs(600);
/// The longest wait before a verification that failed is tried again.
const MOST_BACKOFF: Duration = Duration::from_secs(60);

/// Why a verification is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not all may be on the disk.
    Mark,
    /// It cannot be opened, or reading has met damage.
    Damage,
    /// Processes that use it have crashed.
    Crashes,
}

/// What the verifier's exit status says.
const STATUS_SOUND: i32 = 0;
const STATUS_SET_ASIDE: i32 = 3;
const STATUS_FAILED: i32 = 1;
/// A session's verifier leaves it to the daemon that has started meanwhile.
const STATUS_LEFT: i32 = 4;

/// What a master knows of verifications.
#[derive(Debug, Default)]
pub struct Verification {
    /// There are no files to verify.
    is_needless: bool,
    /// Why one is wanted, and when; the database is out of use meanwhile.
    wanted: Option<(Reason, Instant)>,
    running: Option<Pid>,
    backoff: Duration,
    /// The last sound verdict.
    trusted: Option<Instant>,
    last_crash: Option<Instant>,
}

impl Verification {
    /// None is wanted yet; and never will be of a store without files.
    pub fn new(store: &StoreSettings) -> Self {
        Verification {
            is_needless: !store.is_lmdb(),
            ..Verification::default()
        }
    }

    /// True while the database is out of use.
    pub fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Asks for a verification; false if there was a sound verdict lately, or there is
    /// nothing to verify.
    pub fn request(&mut self, reason: Reason, now: Instant) -> bool {
        let is_trusted = self
            .trusted
            .is_some_and(|at| now.saturating_duration_since(at) < TRUST);
        if self.is_needless || (is_trusted && reason != Reason::Mark) {
            return false;
        }
        self.wanted.get_or_insert((reason, now));
        true
    }

    /// Notes that a process which uses the database has crashed; true if that is
    /// the second time, and a verification was asked for.
    pub fn note_crash(&mut self, now: Instant) -> bool {
        let last = self.last_crash.replace(now);
        last.is_some_and(|at| now.saturating_duration_since(at) < CRASH_TIME)
            && self.request(Reason::Crashes, now)
    }

    /// When a verifier is to be started; `None`: none is, or one runs.
    pub fn due(&self) -> Option<Instant> {
        let (_, at) = self.wanted?;
        self.running.is_none().then_some(at)
    }

    /// The reason for the verifier that is to be started now.
    pub fn take_due(&self, now: Instant) -> Option<Reason> {
        let (reason, at) = self.wanted?;
        (self.running.is_none() && at <= now).then_some(reason)
    }

    /// Notes that a verifier was started.
    pub fn begin(&mut self, pid: Pid) {
        self.running = Some(pid);
    }

    /// The verifier that runs.
    pub fn running(&self) -> Option<Pid> {
        self.running
    }

    /// Notes the end of a child; false if it was not the verifier.
    pub fn note_end(&mut self, death: &Death, now: Instant) -> bool {
        if self.running != Some(death.pid) {
            return false;
        }
        self.running = None;
        match death.status {
            Some(STATUS_SOUND | STATUS_SET_ASIDE | STATUS_LEFT) => {
                let is_sound = death.status == Some(STATUS_SOUND);
                *self = Verification {
                    is_needless: self.is_needless,
                    trusted: is_sound.then_some(now),
                    ..Verification::default()
                };
            }
            _ => self.postpone(now),
        }
        true
    }

    /// Notes that the database could not be verified, or not even that begun.
    pub fn postpone(&mut self, now: Instant) {
        self.backoff = (self.backoff * 2).clamp(Duration::from_secs(1), MOST_BACKOFF);
        if let Some((_, at)) = &mut self.wanted {
            *at = now + self.backoff;
        }
    }
}

/// What the verifier does from its fork to its end; its exit status. `daemon` is
/// the master that answers for the database, if there is one. Whoever forked has
/// no environment open.
pub fn run_verifier(
    dir: &Path,
    lock: &LockFile,
    reason: Reason,
    daemon: Option<i32>,
    log: &Log,
) -> i32 {
    verify(dir, lock, reason, daemon, log).unwrap_or_else(|error| {
        log.complain(&format!("cannot verify the database: {error}"));
        STATUS_FAILED
    })
}

/// The work of the verifier, under the claim.
fn verify(
    dir: &Path,
    lock: &LockFile,
    reason: Reason,
    daemon: Option<i32>,
    log: &Log,
) -> io::Result<i32> {
    let start = Instant::now();
    let is_anothers = || io::Result::Ok(lock.holder(Claim::Daemon)? != daemon);
    let left = match daemon {
        None => STATUS_LEFT,
        Some(_) => STATUS_FAILED,
    };
    if is_anothers()? {
        return Ok(left);
    }
    while !lock.try_lock(Claim::Commit)? {
        if daemon.is_none() {
            // A session leaves it to whoever has the claim: another session's
            // verifier, perhaps.
            return Ok(STATUS_FAILED);
        }
        if start.elapsed() > PATIENCE {
            return Err(io::Error::other("another process keeps it locked"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    if is_anothers()? {
        return Ok(left);
    }
    if reason == Reason::Mark && !is_marked(dir) {
        // Somebody was quicker.
        return Ok(STATUS_SOUND);
    }
    let was_marked = is_marked(dir);
    match examine(dir, reason == Reason::Damage).map_err(io::Error::other)? {
        Verdict::Absent => Ok(STATUS_SOUND),
        Verdict::Sound(records) => {
            let line = match was_marked {
                true => format!("the server had not ended in order: {records} records verified"),
                false => format!("the database is sound: {records} records verified"),
            };
            log.write(Level::One, line.as_bytes());
            Ok(STATUS_SOUND)
        }
        Verdict::SetAside { why, kept } => {
            let (dir, kept) = (dir.display(), kept.display());
            let line = format!(
                "the database is damaged ({why}): it is kept as {kept}, and an empty one is \
                 begun without what was learnt so far; to use a backup instead, stop the \
                 server, call postgreyctl --dbdir={dir} restore BACKUP, and start it"
            );
            log.write(Level::Warning, line.as_bytes());
            Ok(STATUS_SET_ASIDE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn ended(pid: Pid, status: Option<i32>) -> Death {
        Death {
            pid,
            how: String::new(),
            status,
            was_killed: false,
            has_crashed: status.is_none(),
        }
    }

    #[test]
    fn crashes_in_quick_succession_ask_for_a_verification() {
        let now = Instant::now();
        let mut verification = Verification::default();
        assert!(!verification.note_crash(now));
        assert!(!verification.note_crash(now + CRASH_TIME));
        assert!(verification.note_crash(now + CRASH_TIME * 3 / 2));
        assert!(verification.is_wanted());
    }

    #[test]
    fn a_writer_that_crashes_at_each_maintenance_asks_for_one() {
        let now = Instant::now();
        let mut verification = Verification::default();
        assert!(!verification.note_crash(now));
        assert!(verification.note_crash(now + 61 * SECOND));
    }

    #[test]
    fn a_sound_verdict_holds_for_a_while() {
        let now = Instant::now();
        let pid = Pid::from_raw(1);
        let mut verification = Verification::default();
        assert!(verification.request(Reason::Damage, now));
        assert_eq!(verification.take_due(now), Some(Reason::Damage));
        verification.begin(pid);
        assert_eq!(verification.take_due(now), None);
        assert!(!verification.note_end(&ended(Pid::from_raw(2), Some(0)), now));
        assert!(verification.note_end(&ended(pid, Some(STATUS_SOUND)), now));
        assert!(!verification.is_wanted());
        assert!(!verification.request(Reason::Damage, now + TRUST - SECOND));
        assert!(!verification.is_wanted());
        assert!(verification.request(Reason::Damage, now + TRUST));
        verification.begin(pid);
        verification.note_end(&ended(pid, Some(STATUS_SET_ASIDE)), now);
        // A new file has not earned any trust.
        assert!(verification.request(Reason::Damage, now));
        verification.begin(pid);
        verification.note_end(&ended(pid, Some(STATUS_LEFT)), now);
        // What a daemon will find is not known.
        assert!(!verification.is_wanted());
        assert!(verification.request(Reason::Damage, now));
    }

    #[test]
    fn one_that_failed_is_tried_again() {
        let mut now = Instant::now();
        let pid = Pid::from_raw(1);
        let mut verification = Verification::default();
        verification.request(Reason::Mark, now);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(verification.take_due(now), Some(Reason::Mark));
            verification.begin(pid);
            verification.note_end(&ended(pid, None), now);
            assert!(verification.is_wanted());
            assert_eq!(verification.due(), Some(now + seconds * SECOND));
            now += seconds * SECOND;
        }
    }
}
