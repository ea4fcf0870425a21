//! The policy and its whitelists, read from files.

use crate::config::settings::Settings;
use crate::config::whitelists;
use crate::log::{Level, Log};
use crate::policy::decide::Policy;

/// The policy with its whitelists; what is wrong with these is logged.
pub fn load_policy(settings: &Settings, log: &Log) -> Policy {
    let loaded = whitelists::load(settings);
    for problem in &loaded.problems {
        // There is a session for each smtpd, and each would say all that is
        // merely doubtful.
        if problem.is_fatal || !settings.spawn {
            log.complain(&problem.text);
        }
    }
    if !settings.spawn {
        for complaint in loaded.whitelists.contradictions() {
            log.complain(&complaint.to_string());
        }
    }
    Policy {
        rules: settings.rules.clone(),
        texts: settings.texts.clone(),
        whitelists: loaded.whitelists,
        is_dry_run: settings.noaction,
    }
}

/// Reads the whitelists again for the master, and says all that is wrong with them, each
/// time, however lately it was said: whoever sends HUP wants to know whether the lists
/// are right now. False if the old ones stay in use.
pub fn reload_first(settings: &Settings, policy: &mut Policy, log: &Log) -> bool {
    let loaded = whitelists::load(settings);
    for problem in &loaded.problems {
        log.write(Level::Warning, problem.text.as_bytes());
    }
    for complaint in loaded.whitelists.contradictions() {
        log.write(Level::Warning, complaint.to_string().as_bytes());
    }
    if loaded.problems.iter().any(|problem| problem.is_fatal) {
        let line = b"whitelists not reloaded: the old ones stay in use";
        log.write(Level::Warning, line);
        return false;
    }
    let line = format!("HUP received: now {}", loaded.whitelists.size());
    log.write(Level::One, line.as_bytes());
    policy.whitelists = loaded.whitelists;
    true
}

/// Reads the whitelists again, which the master found to be usable and said what is
/// doubtful about them; keeps the old ones if one of the files has become unreadable
/// or bad since.
pub fn reload(settings: &Settings, policy: &mut Policy, log: &Log) {
    let loaded = whitelists::load(settings);
    let fatal = loaded.problems.iter().filter(|problem| problem.is_fatal);
    if fatal.clone().next().is_none() {
        policy.whitelists = loaded.whitelists;
        return;
    }
    for problem in fatal {
        log.complain(&problem.text);
    }
    log.complain("whitelists not reloaded: the old ones stay in use");
}
