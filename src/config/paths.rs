//! Paths and names that differ between systems, fixed when the program is
//! built, and which files are read with a whitelist.
//!
//! Upstream, Debian and others keep whitelists and databases in different
//! directories. Packagers set these environment variables for the build; each
//! path can still be changed by an option.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
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

/// Default of `--pool-domains`: `POSTGREY_POOL_DOMAINS`, or `postgrey_pools` in
/// [`SYSCONFDIR`].
pub fn pool_domains() -> PathBuf {
    whole_or_beside(option_env!("POSTGREY_POOL_DOMAINS"), "postgrey_pools")
}

fn whole_or_beside(whole: Option<&str>, name: &str) -> PathBuf {
    whole.map_or_else(|| PathBuf::from(SYSCONFDIR).join(name), PathBuf::from)
}

/// Each file followed by its `.local` file, each path once.
pub fn with_local_files(files: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut add = |path: PathBuf| {
        if !all.contains(&path) {
            all.push(path);
        }
    };
    for file in files {
        let is_local = is_local_file(file.as_os_str());
        let mut local = file.clone().into_os_string();
        local.push(".local");
        add(file);
        if !is_local {
            add(local.into());
        }
    }
    all
}

/// True for a whitelist that may be missing without a word.
pub fn is_local_file(path: &OsStr) -> bool {
    path.as_bytes().ends_with(b".local")
}
