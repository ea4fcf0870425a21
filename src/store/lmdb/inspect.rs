//! What an administrator wants to know of an environment: space and readers;
//! and its copy.

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsRawFd;

use lmdb::Transaction;

use super::LmdbStore;
use crate::policy::record::Database;
use crate::store::StoreError;

/// The space of an environment, in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Octets of a page.
    pub page_size: u64,
    /// Octets to which the file may grow.
    pub map_size: u64,
    /// Pages of the file that were ever used.
    pub used_pages: u64,
    /// Of these, the pages that wait for new records.
    pub free_pages: u64,
    /// The number of the last transaction.
    pub last_transaction: u64,
    /// Places for readers.
    pub max_readers: u64,
    /// Records of each database, in the order of [`Database::ALL`].
    pub records: [u64; 3],
}

/// A process that reads or has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reader {
    /// Its number.
    pub pid: i32,
    /// The transaction whose records it is looking at.
    pub transaction: Option<u64>,
}

impl LmdbStore {
    /// How much space there is, and how many records.
    pub fn space(&mut self) -> Result<Space, StoreError> {
        self.view(|open| {
            let environment = &open.environment;
            let info = environment.info().map_err(open.failed("mdb_env_info"))?;
            let stat = environment.stat().map_err(open.failed("mdb_env_stat"))?;
            let free_pages = environment.freelist().map_err(open.failed("freelist"))?;
            let transaction = environment
                .begin_ro_txn()
                .map_err(open.failed("mdb_txn_begin"))?;
            let mut records = [0; 3];
            for database in Database::ALL {
                let handle = open.databases[database as usize].dbi();
                // SAFETY: a plain structure of integers, for which zeros are
                // valid; transaction and handle belong to the open environment.
                let (status, stat) = unsafe {
                    let mut stat: lmdb_sys::MDB_stat = std::mem::zeroed();
                    (
                        lmdb_sys::mdb_stat(transaction.txn(), handle, &raw mut stat),
                        stat,
                    )
                };
                open.result("mdb_stat", status)?;
                records[database as usize] = stat.ms_entries as u64;
            }
            Ok(Space {
                page_size: u64::from(stat.page_size()),
                map_size: info.map_size() as u64,
                used_pages: info.last_pgno() as u64 + 1,
                free_pages: free_pages as u64,
                last_transaction: info.last_txnid() as u64,
                max_readers: u64::from(info.max_readers()),
                records,
            })
        })
    }

    /// The processes that have a place for readers.
    pub fn readers(&mut self) -> Result<Vec<Reader>, StoreError> {
        self.view(|open| {
            let mut text = Vec::new();
            // SAFETY: the environment is open; LMDB calls the function with the
            // pointer it was given, while `text` lives.
            let status = unsafe {
                let context = (&raw mut text).cast();
                lmdb_sys::mdb_reader_list(open.environment.env(), Some(push_message), context)
            };
            open.result("mdb_reader_list", status.min(0))?;
            Ok(readers_in(&String::from_utf8_lossy(&text)))
        })
    }

    /// Copies the environment, as it is at this moment and as small as can be,
    /// into a file.
    pub fn copy_to(&mut self, file: &File) -> Result<(), StoreError> {
        self.view(|open| {
            // SAFETY: the environment and the file are open during the call.
            let status = unsafe {
                lmdb_sys::mdb_env_copyfd2(
                    open.environment.env(),
                    file.as_raw_fd(),
                    lmdb_sys::MDB_CP_COMPACT,
                )
            };
            open.result("mdb_env_copy", status)
        })
    }
}

/// Appends what LMDB says to the `Vec<u8>` at `context`.
///
/// # Safety
///
/// `message` is a string that ends in NUL, `context` points to a `Vec<u8>`.
unsafe extern "C" fn push_message(
    message: *const libc::c_char,
    context: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: by the contract of this function.
    let (text, message) = unsafe { (&mut *context.cast::<Vec<u8>>(), CStr::from_ptr(message)) };
    text.extend_from_slice(message.to_bytes());
    0
}

/// A line a reader: process, thread, transaction or `-`.
fn readers_in(text: &str) -> Vec<Reader> {
    let reader = |line: &str| {
        let mut words = line.split_whitespace();
        let pid = words.next()?.parse().ok()?;
        let transaction = words.nth(1)?.parse().ok();
        Some(Reader { pid, transaction })
    };
    text.lines().filter_map(reader).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{LmdbOptions, Purpose};
    use super::*;
    use crate::store::Store;
    use std::ops::ControlFlow;

    #[test]
    fn space_readers_and_copy_of_an_environment() {
        let dir = tempfile::tempdir().unwrap();
        let options = |dir: &std::path::Path| LmdbOptions {
            dir: dir.to_owned(),
            map_size: 1 << 22,
            purpose: Purpose::WriteUnflushed,
            patience: std::time::Duration::ZERO,
        };
        let mut store = LmdbStore::new(options(dir.path()));
        store
            .edit(&[], &mut |records| {
                records.put(Database::Clients, b"192.0.2.1", b"5,6")?;
                records.put(Database::Clients, b"192.0.2.2", b"5,6")
            })
            .unwrap();
        let space = store.space().unwrap();
        assert_eq!(space.records, [0, 2, 0]);
        assert_eq!(space.map_size, 1 << 22);
        assert!(space.used_pages > 2 && space.free_pages <= space.used_pages);
        store
            .scan(
                Database::Clients,
                b"",
                None,
                &mut |_| ControlFlow::Break(()),
            )
            .unwrap();
        let readers = store.readers().unwrap();
        let own = std::process::id() as i32;
        assert_eq!(
            readers,
            [Reader {
                pid: own,
                transaction: None
            }]
        );
        let other = tempfile::tempdir().unwrap();
        store
            .copy_to(&File::create(other.path().join("data.mdb")).unwrap())
            .unwrap();
        let mut copy = LmdbStore::new(options(other.path()));
        assert_eq!(copy.space().unwrap().records, [0, 2, 0]);
    }

    #[test]
    fn the_list_of_readers_is_understood() {
        let text = "    pid     thread     txnid\n      12 7f00aa 345\n      13 7f00ab -\n";
        let readers = [
            Reader {
                pid: 12,
                transaction: Some(345),
            },
            Reader {
                pid: 13,
                transaction: None,
            },
        ];
        assert_eq!(readers_in(text), readers);
        assert_eq!(readers_in("(no active readers)\n"), []);
    }
}
