//! The policy and its whitelists, read from files.

use crate::config::settings::Settings;
use crate::config::whitelists;
use crate::log::Log;
use crate::policy::decide::Policy;

/// The policy with its whitelists; what is wrong with these is logged.
pub fn load_policy(settings: &Settings, log: &Log) -> Policy {
    let loaded = whitelists::load(settings);
    for problem in &loaded.problems {
        log.complain(&problem.text);
    }
    Policy {
        rules: settings.rules.clone(),
        texts: settings.texts.clone(),
        whitelists: loaded.whitelists,
        is_dry_run: settings.noaction,
    }
}

/// Reads the whitelists again; keeps the old ones if one of the files is unreadable
/// or bad.
pub fn reload(settings: &Settings, policy: &mut Policy, log: &Log) {
    let loaded = whitelists::load(settings);
    for problem in &loaded.problems {
        log.complain(&problem.text);
    }
    if loaded.problems.iter().any(|problem| problem.is_fatal) {
        log.complain("whitelists not reloaded: the old ones stay in use");
    } else {
        policy.whitelists = loaded.whitelists;
    }
}
