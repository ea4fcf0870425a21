//! The store that the commands see and change: that of the server.

use super::environment::{exists, open_or_create, open_reader, open_writer};
use super::failure::Failure;
use crate::config::settings::Settings;
use crate::store::Store;
use crate::store::lmdb::LmdbStore;

/// A store, opened as the user of the server.
pub enum Opened {
    /// The environment in `--dbdir`.
    Lmdb(LmdbStore),
}

impl Opened {
    /// The store of these settings, for reading.
    pub fn for_reading(settings: &Settings) -> Result<Self, Failure> {
        Ok(Opened::Lmdb(open_reader(&settings.dbdir)?))
    }

    /// The same for changes.
    pub fn for_writing(settings: &Settings) -> Result<Self, Failure> {
        Ok(Opened::Lmdb(open_writer(&settings.dbdir)?))
    }

    /// The same for an import: an environment is made if there is none, with a map of
    /// this size.
    pub fn for_import(settings: &Settings, map_size: usize) -> Result<Self, Failure> {
        let dbdir = &settings.dbdir;
        let map_size = if exists(dbdir) { 0 } else { map_size };
        Ok(Opened::Lmdb(open_or_create(dbdir, map_size)?))
    }

    /// How many records there are; 0 if that is known only when all were seen.
    pub fn records(&mut self) -> Result<u64, Failure> {
        match self {
            Opened::Lmdb(store) => Ok(store.space()?.records.iter().sum()),
        }
    }

    /// Its records.
    pub fn get(&mut self) -> &mut dyn Store {
        match self {
            Opened::Lmdb(store) => store,
        }
    }

    /// The environment, for what another store does not have; else `why` it has not.
    pub fn lmdb_for(&mut self, why: &str) -> Result<&mut LmdbStore, Failure> {
        match self {
            Opened::Lmdb(store) => Ok(store),
        }
    }
}
