//! Other files in the place of the database: what compact and restore have in common.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::claim::{self, follow_lock_file, take_claim};
use super::mark::remove_mark;
use super::{LmdbStore, Reader};
use crate::store::{ErrorKind, Store, StoreError};
use crate::sys::lock::Claim;

impl LmdbStore {
    /// Puts another file in the place of the database: the one `make` makes and
    /// flushes. Nobody may use the old one: no daemon, no other process that has
    /// it open, and none can open it meanwhile. What is read from this store
    /// afterwards is from the new file.
    pub fn replace<E: From<StoreError>>(
        &mut self,
        make: impl FnOnce(&mut Self) -> Result<PathBuf, E>,
    ) -> Result<(), E> {
        self.prepare()?;
        self.put_in_place(|store| {
            store.refuse_company()?;
            Ok((make(store)?, None))
        })
    }

    /// Puts a flushed file in the place of the database, whatever state that is
    /// in, and keeps it under another name, which is returned if there was one. No
    /// daemon may run. Sessions that have it open find the new one before they
    /// commit.
    pub fn restore(&mut self, part: &Path) -> Result<Option<PathBuf>, StoreError> {
        let mut kept = None;
        self.put_in_place(|store| -> Result<_, StoreError> {
            let dir = &store.options.dir;
            let failed = |error: io::Error| StoreError::of_io("replace", dir, &error);
            claim::end_replacement(dir).map_err(failed)?;
            let name = match fs::symlink_metadata(claim::data_file(dir)) {
                Ok(found) if found.is_file() => Some(dir.join("data.mdb.replaced")),
                // A link, or a directory.
                Ok(_) => {
                    kept = Some(claim::set_aside(dir).map_err(failed)?);
                    None
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(failed(error)),
            };
            kept = kept.take().or_else(|| name.clone());
            Ok((part.to_owned(), name))
        })?;
        Ok(kept)
    }

    /// Puts the file that `make` makes under the claim in the place of the database,
    /// and gives that the other name which it returns.
    fn put_in_place<E: From<StoreError>>(
        &mut self,
        make: impl FnOnce(&mut Self) -> Result<(PathBuf, Option<PathBuf>), E>,
    ) -> Result<(), E> {
        follow_lock_file(&mut self.lock)?;
        let _claim = take_claim(&self.lock, self.options.patience)?;
        let dir = self.options.dir.clone();
        let failed = |error: io::Error| StoreError::of_io("replace", &dir, &error);
        if !self.lock.try_lock(Claim::Daemon).map_err(failed)? {
            let pid = self.lock.holder(Claim::Daemon).map_err(failed)?;
            let pid = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
            let why = format!("a server runs{pid}: stop it first");
            return Err(StoreError::new(ErrorKind::Busy, "replace", &dir, why).into());
        }
        let made = make(self);
        self.close();
        let replaced = made.and_then(|(part, kept)| {
            let placed = claim::put_in_place_keeping(&part, &dir, kept.as_deref());
            // All of it is on the disk.
            let placed = placed.and_then(|()| remove_mark(&dir));
            placed.map_err(|error| E::from(failed(error)))
        });
        let unlocked = self.lock.unlock(Claim::Daemon).map_err(failed);
        replaced.and(unlocked.map_err(E::from))
    }

    /// Fails if another process has the environment open; under the claim.
    fn refuse_company(&mut self) -> Result<(), StoreError> {
        let refused = |why: &str, dir| Err(StoreError::new(ErrorKind::Busy, "replace", dir, why));
        self.close_if_replaced();
        if self.open.is_none() {
            return refused("it was just replaced", &self.options.dir);
        }
        self.view(|open| open.clear_stale_readers())?;
        let own = std::process::id();
        let readers = self.readers()?;
        match readers.iter().find(|r| u32::try_from(r.pid) != Ok(own)) {
            None => Ok(()),
            Some(Reader { pid, .. }) => {
                let why = format!("process {pid} uses the database: nobody else may meanwhile");
                refused(&why, &self.options.dir)
            }
        }
    }
}
