//! Several MX hosts with one greylist: servers of different directories on one Redis, or
//! on a cluster, which the tests start.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/dialogue.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod dialogue;
#[path = "../common/redis.rs"]
mod redis_server;
#[path = "../common/server.rs"]
mod server;

mod clocks;
mod cluster;
mod ctl;
mod dialogues;
mod faults;
mod moving;
mod races;
mod trouble;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use postgrey::config::redis_address::RedisAddress;
use postgrey::policy::rules::Rules;
use postgrey::store::redis::RedisStore;
use postgrey::store::redis::options::RedisOptions;

use server::{Server, make_dbdir};

/// Records with names that begin so.
pub fn store(url: &str, prefix: &str) -> RedisStore {
    RedisStore::new(
        RedisOptions::new(RedisAddress::parse(url).unwrap()),
        prefix,
        &Rules::default(),
        Duration::from_secs(5),
    )
}

/// Servers of different directories below one, with the same options.
pub fn start(count: usize, folder: &Path, options: &[&str]) -> Vec<Server> {
    (0..count)
        .map(|number| {
            let own = folder.join(number.to_string());
            std::fs::create_dir(&own).unwrap();
            make_dbdir(&own.join("db"));
            Server::start(&own, options)
        })
        .collect()
}

/// Keeps other tests away while times are measured.
pub fn alone() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}
