//! Places that differ between systems, fixed when the program is built.
//!
//! Upstream, Debian and others keep whitelists and databases in different
//! directories. Packagers set these environment variables for the build; each
//! place can still be changed by an option.

use std::path::PathBuf;

const fn chosen(given: Option<&'static str>, otherwise: &'static str) -> &'static str {
    match given {
        Some(path) => path,
        None => otherwise,
    }
}

/// Directory of the default whitelists (`POSTGREY_SYSCONFDIR`).
pub const SYSCONFDIR: &str = chosen(option_env!("POSTGREY_SYSCONFDIR"), "/etc/postfix");

/// Default of `--dbdir` (`POSTGREY_DBDIR`).
pub const DBDIR: &str = chosen(option_env!("POSTGREY_DBDIR"), "/var/spool/postfix/postgrey");

/// Default of `--user` (`POSTGREY_USER`).
pub const USER: &str = chosen(option_env!("POSTGREY_USER"), "postgrey");

/// The group that is taken without `--group`, if there is one of this name
/// (`POSTGREY_GROUP`).
pub const GROUP: &str = chosen(option_env!("POSTGREY_GROUP"), "postgrey");

/// Default of `--whitelist-clients`: `POSTGREY_WHITELIST_CLIENTS`, or
/// `postgrey_whitelist_clients` in [`SYSCONFDIR`].
pub fn whitelist_clients() -> PathBuf {
    whole_or_beside(
        option_env!("POSTGREY_WHITELIST_CLIENTS"),
        "postgrey_whitelist_clients",
    )
}

/// Default of `--whitelist-recipients`: `POSTGREY_WHITELIST_RECIPIENTS`, or
/// `postgrey_whitelist_recipients` in [`SYSCONFDIR`].
pub fn whitelist_recipients() -> PathBuf {
    whole_or_beside(
        option_env!("POSTGREY_WHITELIST_RECIPIENTS"),
        "postgrey_whitelist_recipients",
    )
}

fn whole_or_beside(whole: Option<&str>, name: &str) -> PathBuf {
    whole.map_or_else(|| PathBuf::from(SYSCONFDIR).join(name), PathBuf::from)
}
