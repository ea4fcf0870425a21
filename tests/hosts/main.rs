//! Several MX hosts with one greylist: servers of different directories on one Redis, or
//! on a cluster, which the tests start.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/dialogue.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod dialogue;
#[path = "../common/random.rs"]
mod random;
#[path = "../common/redis.rs"]
mod redis_server;
#[path = "../common/server.rs"]
mod server;

mod agree;
mod between;
mod clocks;
mod cluster;
mod ctl;
mod dialogues;
mod faults;
mod moving;
mod proxy;
mod races;
mod storms;
mod tls;
mod tool;
mod trouble;
mod walks;

use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use postgrey::config::redis_address::RedisAddress;
use postgrey::policy::rules::Rules;
use postgrey::store::redis::RedisStore;
use postgrey::store::redis::options::RedisOptions;

use server::{Server, make_dbdir};

/// Records with names that begin so.
pub fn store(url: &str, prefix: &str) -> RedisStore {
    store_by_tls(url, None, prefix)
}

/// The same by TLS, where that of the file has signed the certificates.
pub fn store_by_tls(url: &str, ca: Option<&Path>, prefix: &str) -> RedisStore {
    let options = RedisOptions {
        ca_file: ca.map(Path::to_owned),
        ..RedisOptions::new(RedisAddress::parse(url).unwrap())
    };
    RedisStore::new(options, prefix, &Rules::default(), Duration::from_secs(5))
}

/// The directory of a host below one, with those that its server needs.
pub fn make_host(folder: &Path, number: usize) -> PathBuf {
    let own = folder.join(number.to_string());
    std::fs::create_dir(&own).unwrap();
    for name in ["db", "run"] {
        make_dbdir(&own.join(name));
    }
    own
}

/// Servers of different directories below one, with the same options.
pub fn start(count: usize, folder: &Path, options: &[&str]) -> Vec<Server> {
    (0..count)
        .map(|number| Server::start(&make_host(folder, number), options))
        .collect()
}

/// Held by whoever uses much of the machine.
static MACHINE: RwLock<()> = RwLock::new(());

/// Keeps other tests away while times are measured.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps those away that are to be alone.
pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}
