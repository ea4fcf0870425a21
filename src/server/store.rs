//! The store of a process of the server, as `--store` says.

use std::time::Duration;

use crate::config::settings::Settings;
use crate::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use crate::store::{Store, redis};
use crate::sys::lock::LockFile;

/// The store of one process: opened, or connected to, when it is first needed.
pub enum ServerStore {
    /// The environment in `--dbdir`.
    Lmdb(Box<LmdbStore>),
    /// Redis or Valkey, and the lock file of `--dbdir`.
    Redis(Box<dyn Store>, LockFile),
}

impl ServerStore {
    /// The store of these settings. `lock` is the lock file of `--dbdir`, and
    /// `patience` how long another process that commits there is waited for.
    pub fn new(settings: &Settings, purpose: Purpose, patience: Duration, lock: LockFile) -> Self {
        if let Some(store) = redis::open(settings, settings.store.timeout) {
            return ServerStore::Redis(store, lock);
        }
        let options = LmdbOptions {
            dir: settings.dbdir.clone(),
            map_size: settings.db_size,
            purpose,
            patience,
        };
        ServerStore::Lmdb(Box::new(LmdbStore::with_lock(options, lock)))
    }

    /// The lock file of `--dbdir`.
    pub fn lock(&self) -> &LockFile {
        match self {
            ServerStore::Lmdb(store) => store.lock(),
            ServerStore::Redis(_, lock) => lock,
        }
    }

    /// Where the records are.
    pub fn get(&mut self) -> &mut dyn Store {
        match self {
            ServerStore::Lmdb(store) => &mut **store,
            ServerStore::Redis(store, _) => &mut **store,
        }
    }
}
