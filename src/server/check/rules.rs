//! Options that do not go together, or do not do what they seem to.

use super::Findings;
use crate::config::settings::Settings;

/// Seconds for which a mail server waits for an answer at least (RFC 5321, section
/// 4.5.3.2).
const CLIENT_PATIENCE: f64 = 300.0;

/// Looks at the options that decide.
pub fn check(settings: &Settings, findings: &mut Findings) {
    let rules = &settings.rules;
    if rules.delay >= rules.retry_window {
        findings.note(format!(
            "--delay: no triplet has the time to pass: the --retry-window of {} s is not longer \
             than the delay of {} s",
            rules.retry_window, rules.delay
        ));
    }
    if settings.spawn && !settings.listen.is_empty() {
        findings.note("--unix and --inet: of no use with --spawn");
    }
    if !settings.s25r && !settings.s25r_except.is_empty() {
        findings.note("--s25r-except: of no use without --s25r");
    }
    if rules.tarpit_per_message && !rules.targrey {
        findings.note("--tarpit-per-message: of no use without --targrey");
    }
    if settings.spawn && rules.max_new.is_some() {
        findings.note("--max-new: each session of --spawn counts for itself");
    }
    let defaults = Settings::default();
    if !rules.by_domain && settings.pool_domains != defaults.pool_domains {
        findings.note("--pool-domains: of no use without --lookup-by-domain");
    }
    check_sleep(settings, findings);
}

/// Postfix wants digits after SLEEP, and after the comma, where the action
/// goes without --targrey, the name of a restriction; it answers 451 to all
/// else.
fn check_sleep(settings: &Settings, findings: &mut Findings) {
    let Some(seconds) = &settings.rules.tarpit else {
        return;
    };
    if !seconds.bytes().all(|byte| byte.is_ascii_digit()) {
        findings.problem(format!(
            "--tarpit: Postfix refuses SLEEP {seconds}: give digits only"
        ));
    } else if seconds
        .parse::<f64>()
        .is_ok_and(|time| time > CLIENT_PATIENCE)
    {
        findings.note(format!(
            "--tarpit: {seconds} s are more than the 300 s for which mail servers wait: all \
             of them give up"
        ));
    }
    let action = &settings.texts.greylist_action;
    if !settings.rules.targrey && !is_restriction(action) {
        findings.problem(format!(
            "--greylist-action: with --tarpit and without --targrey Postfix refuses \"{action}\": \
             give a restriction such as DEFER_IF_PERMIT"
        ));
    }
}

/// True for a restriction of smtpd that takes no argument.
fn is_restriction(action: &str) -> bool {
    let action = action.to_ascii_lowercase();
    let is_word = action
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let names = [
        "permit",
        "reject",
        "defer",
        "defer_if_permit",
        "defer_if_reject",
        "defer_unauth_destination",
    ];
    names.contains(&action.as_str())
        || (is_word && (action.starts_with("permit_") || action.starts_with("reject_")))
}
