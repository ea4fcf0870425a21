//! The store that the commands see and change: that of the server.

use std::time::Duration;

use super::environment::{become_owner, exists, open_or_create, open_reader, open_writer};
use super::failure::Failure;
use crate::config::settings::Settings;
use crate::store::lmdb::LmdbStore;
use crate::store::{Store, redis};

/// How long a step of a command may take, where the records are in Redis.
const PATIENCE: Duration = Duration::from_secs(5);

/// Fails where the records are not in files of this host, and says `why` that keeps a
/// command from its work.
pub fn refuse_elsewhere(settings: &Settings, why: &str) -> Result<(), Failure> {
    match settings.store.is_lmdb() {
        true => Ok(()),
        false => Err(refused(why)),
    }
}

fn refused(why: &str) -> Failure {
    Failure::error(format!("the records are in Redis (--store): {why}"))
}

/// A store, opened as the user of the server.
pub enum Opened {
    /// The environment in `--dbdir`.
    Lmdb(Box<LmdbStore>),
    /// Redis or Valkey.
    Redis(Box<dyn Store>),
}

impl Opened {
    /// The store of these settings, for reading.
    pub fn for_reading(settings: &Settings) -> Result<Self, Failure> {
        if let Some(opened) = Opened::elsewhere(settings)? {
            return Ok(opened);
        }
        Ok(Opened::Lmdb(Box::new(open_reader(&settings.dbdir)?)))
    }

    /// The same for changes.
    pub fn for_writing(settings: &Settings) -> Result<Self, Failure> {
        if let Some(opened) = Opened::elsewhere(settings)? {
            return Ok(opened);
        }
        Ok(Opened::Lmdb(Box::new(open_writer(&settings.dbdir)?)))
    }

    /// The same for an import: an environment is made if there is none, with a map of
    /// this size.
    pub fn for_import(settings: &Settings, map_size: usize) -> Result<Self, Failure> {
        if let Some(opened) = Opened::elsewhere(settings)? {
            return Ok(opened);
        }
        let dbdir = &settings.dbdir;
        let map_size = if exists(dbdir) { 0 } else { map_size };
        Ok(Opened::Lmdb(Box::new(open_or_create(dbdir, map_size)?)))
    }

    fn elsewhere(settings: &Settings) -> Result<Option<Self>, Failure> {
        let Some(store) = redis::open(settings, PATIENCE) else {
            return Ok(None);
        };
        // Who reads the password.
        if settings.dbdir.is_dir() {
            become_owner(&settings.dbdir)?;
        }
        Ok(Some(Opened::Redis(store)))
    }

    /// How many records there are; 0 if that is known only when all were seen.
    pub fn records(&mut self) -> Result<u64, Failure> {
        match self {
            Opened::Lmdb(store) => Ok(store.space()?.records.iter().sum()),
            Opened::Redis(_) => Ok(0),
        }
    }

    /// Its records.
    pub fn get(&mut self) -> &mut dyn Store {
        match self {
            Opened::Lmdb(store) => &mut **store,
            Opened::Redis(store) => &mut **store,
        }
    }

    /// The environment, for what another store does not have; else `why` it has not.
    pub fn lmdb_for(&mut self, why: &str) -> Result<&mut LmdbStore, Failure> {
        match self {
            Opened::Lmdb(store) => Ok(store),
            Opened::Redis(_) => Err(refused(why)),
        }
    }
}
