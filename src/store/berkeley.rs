//! Files of Berkeley DB, which the original keeps its records in: how to tell
//! them. Reading them is left to Berkeley DB's own programs.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::policy::record::Database;

/// Octets at the start of a file that tell whether it is one.
pub const HEAD: usize = 16;

/// The numbers at octet 12 of a btree and of a hash.
const MAGIC: [u32; 2] = [0x0005_3162, 0x0006_1561];

/// The number there of a log file.
const LOG_MAGIC: [u32; 1] = [0x0004_0988];

/// True for the first octets of a Berkeley DB file of either byte order.
pub fn is_berkeley(head: &[u8]) -> bool {
    has_magic(head, &MAGIC)
}

/// True for those of a log file.
pub fn is_log(head: &[u8]) -> bool {
    has_magic(head, &LOG_MAGIC)
}

fn has_magic(head: &[u8], known: &[u32]) -> bool {
    let Some(magic) = head.get(12..HEAD).and_then(|octets| octets.try_into().ok()) else {
        return false;
    };
    known.contains(&u32::from_le_bytes(magic)) || known.contains(&u32::from_be_bytes(magic))
}

/// The databases of the original in this directory.
pub fn old_berkeley_files(dbdir: &Path) -> Vec<PathBuf> {
    let files = Database::ALL
        .iter()
        .map(|database| dbdir.join(database.name()));
    files.filter(|file| is_berkeley_file(file)).collect()
}

fn is_berkeley_file(path: &Path) -> bool {
    // Opening a FIFO would wait for its writer.
    if !path.is_file() {
        return false;
    }
    let mut head = [0; HEAD];
    File::open(path)
        .and_then(|mut file| file.read_exact(&mut head))
        .is_ok_and(|()| is_berkeley(&head))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_berkeley_db_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let mut head = vec![0; 12];
        head.extend_from_slice(&[0x62, 0x31, 0x05, 0]);
        assert!(is_berkeley(&head));
        assert!(is_berkeley(b"\0\0\0\0\0\0\0\0\0\0\0\0\0\x06\x15\x61more"));
        assert!(!is_berkeley(b"VERSION=3\nformat=print\n") && !is_berkeley(b""));
        std::fs::write(dir.path().join("postgrey.db"), &head).unwrap();
        std::fs::write(dir.path().join("other.db"), &head).unwrap();
        std::fs::write(dir.path().join("tarpit_clients.db"), b"short").unwrap();
        assert_eq!(
            old_berkeley_files(dir.path()),
            [dir.path().join("postgrey.db")]
        );
        assert!(old_berkeley_files(Path::new("/nonexistent")).is_empty());
    }
}
