//! Opening the database of a server that may be running.
//!
//! Readers disturb nobody. Whoever writes commits under the claim, as every
//! process of the server does: the store takes it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{Gid, Uid, User};

use super::failure::Failure;
use crate::store::lmdb::claim::{data_file, lock_file};
use crate::store::lmdb::mark::is_marked;
use crate::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use crate::store::verify::is_refusal;
use crate::store::{ErrorKind, StoreError};
use crate::sys::crash;
use crate::sys::lock::{Claim, LockFile};
use crate::sys::process::{Identity, become_user, is_root, set_umask};

/// How long a commit of the server is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Takes the identity of the directory's owner if this is root, so that no
/// file of root's is left where the server needs its own.
pub fn become_owner(dbdir: &Path) -> Result<(), Failure> {
    let found = fs::metadata(dbdir).map_err(|error| Failure::file(dbdir, &error))?;
    if !found.is_dir() {
        return Err(Failure::error(format!(
            "{}: Not a directory",
            dbdir.display()
        )));
    }
    set_umask(0o077);
    let uid = Uid::from_raw(found.uid());
    if !is_root() || uid.is_root() {
        return Ok(());
    }
    // Its own group, since the directory may have come to root's.
    let (name, gid) = match User::from_uid(uid) {
        Ok(Some(user)) => (user.name, user.gid),
        _ => (uid.to_string(), Gid::from_raw(found.gid())),
    };
    become_user(&Identity { name, uid, gid }).map_err(Failure::error)
}

/// True if there is an environment.
pub fn exists(dbdir: &Path) -> bool {
    fs::symlink_metadata(data_file(dbdir)).is_ok()
}

fn check_exists(dbdir: &Path) -> Result<(), Failure> {
    let data = data_file(dbdir);
    match fs::symlink_metadata(&data) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Failure::error(format!(
            "{}: there is no database (data.mdb)",
            dbdir.display()
        ))),
        Err(error) => Err(Failure::file(&data, &error)),
    }
}

/// A damaged file may end this process by a signal; then the user is told of
/// the file.
fn expect_damage(path: &Path) -> Result<(), Failure> {
    crash::say_and_fail(&format!(
        "ERROR: damaged: {}: reading it has failed",
        path.display()
    ))
    .map_err(|error| Failure::file(path, &error))
}

/// Opens a file that nobody uses: a backup. With the caller's rights.
pub fn open_file(path: &Path) -> Result<LmdbStore, Failure> {
    fs::metadata(path).map_err(|error| Failure::file(path, &error))?;
    expect_damage(path)?;
    let mut store = LmdbStore::new(LmdbOptions {
        dir: path.to_owned(),
        map_size: 0,
        purpose: Purpose::VerifyFile,
        patience: PATIENCE,
    });
    store.prepare()?;
    Ok(store)
}

/// Opens an environment that exists for reading.
pub fn open_reader(dbdir: &Path) -> Result<LmdbStore, Failure> {
    become_owner(dbdir)?;
    check_exists(dbdir)?;
    expect_damage(&data_file(dbdir))?;
    let mut store = LmdbStore::new_reader(dbdir);
    store.prepare().map_err(|error| match is_refusal(&error) {
        true => error,
        // Whatever else keeps a reader out is in the file.
        false => StoreError {
            kind: ErrorKind::Damage,
            ..error
        },
    })?;
    Ok(store)
}

/// Opens an environment that exists for writing.
pub fn open_writer(dbdir: &Path) -> Result<LmdbStore, Failure> {
    become_owner(dbdir)?;
    check_exists(dbdir)?;
    open_or_create(dbdir, 0)
}

/// Opens an environment for writing, or makes one whose map has this size in
/// octets; 0: the size it has.
pub fn open_or_create(dbdir: &Path, map_size: usize) -> Result<LmdbStore, Failure> {
    expect_damage(&data_file(dbdir))?;
    let mut store = LmdbStore::new(LmdbOptions {
        dir: dbdir.to_owned(),
        map_size,
        purpose: Purpose::WriteFlushed,
        patience: PATIENCE,
    });
    if is_marked(dbdir) && server_of(dbdir)?.is_none() {
        return Err(Failure::error(format!(
            "{}: the server has not ended in order: start it first, it verifies the database",
            dbdir.display()
        )));
    }
    store.prepare()?;
    Ok(store)
}

/// The process of the server that runs with this directory. Whoever asks holds no claim
/// there: it would be lost.
pub fn server_of(dbdir: &Path) -> Result<Option<i32>, Failure> {
    let lock = LockFile::new(lock_file(dbdir), 0o600);
    lock.holder(Claim::Daemon)
        .map_err(|error| Failure::file(lock.path(), &error))
}
