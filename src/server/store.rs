//! The store of a process of the server, as `--store` says.

use std::time::Duration;

use crate::config::settings::Settings;
use crate::store::Store;
use crate::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use crate::sys::lock::LockFile;

/// The store of one process: opened, or connected to, when it is first needed.
pub enum ServerStore {
    /// The environment in `--dbdir`.
    Lmdb(LmdbStore),
}

impl ServerStore {
    /// The store of these settings. `lock` is the lock file of `--dbdir`, and
    /// `patience` how long another process that commits there is waited for.
    pub fn new(settings: &Settings, purpose: Purpose, patience: Duration, lock: LockFile) -> Self {
        let options = LmdbOptions {
            dir: settings.dbdir.clone(),
            map_size: settings.db_size,
            purpose,
            patience,
        };
        ServerStore::Lmdb(LmdbStore::with_lock(options, lock))
    }

    /// The lock file of `--dbdir`.
    pub fn lock(&self) -> &LockFile {
        match self {
            ServerStore::Lmdb(store) => store.lock(),
        }
    }

    /// The store behind it.
    pub fn get(&mut self) -> &mut dyn Store {
        match self {
            ServerStore::Lmdb(store) => store,
        }
    }
}
