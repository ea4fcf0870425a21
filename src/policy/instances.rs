//! The remembered instances: which mails already carry a header.
//!
//! Postfix asks once for each recipient of a mail, under the same `instance`;
//! the header must be prepended once. The original remembers ten instances for
//! the whole server, so here all workers share one ring. It is made of atomic
//! cells, so that it can lie in shared memory and a process killed at any point
//! leaves it usable.

use std::sync::atomic::{AtomicU64, Ordering};

use sha1::{Digest, Sha1};

/// How many instances are remembered.
const REMEMBERED: usize = 10;

/// The ring of remembered instances: a counter, then each instance as 64 bits
/// of its SHA-1.
#[derive(Clone, Copy, Debug)]
pub struct Instances<'c> {
    cells: &'c [AtomicU64; Instances::CELLS],
}

impl<'c> Instances<'c> {
    /// The number of cells the ring takes.
    pub const CELLS: usize = 1 + REMEMBERED;

    /// A ring in these cells. It begins filled with the instance `0`, as in
    /// the original.
    pub fn new(cells: &'c [AtomicU64; Instances::CELLS]) -> Self {
        let zero = hash(b"0");
        for cell in &cells[1..] {
            cell.store(zero, Ordering::Relaxed);
        }
        Instances { cells }
    }

    /// True if the instance is not among the remembered ones; it is then. A
    /// request without an instance is always new.
    pub fn is_new(&self, instance: Option<&[u8]>) -> bool {
        let Some(instance) = instance else {
            return true;
        };
        let hash = hash(instance);
        let [next, seen @ ..] = self.cells;
        if seen.iter().any(|seen| seen.load(Ordering::Relaxed) == hash) {
            return false;
        }
        let slot = next.fetch_add(1, Ordering::Relaxed) % REMEMBERED as u64;
        seen[slot as usize].store(hash, Ordering::Relaxed);
        true
    }
}

fn hash(instance: &[u8]) -> u64 {
    let digest = Sha1::digest(instance);
    digest
        .iter()
        .take(8)
        .fold(0, |hash, &octet| hash << 8 | u64::from(octet))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_instances_are_remembered_in_the_order_they_came() {
        let cells = std::array::from_fn(|_| AtomicU64::new(0));
        let instances = Instances::new(&cells);
        assert!(!instances.is_new(Some(b"0")));
        for n in 1..=10 {
            let name = format!("i{n}");
            assert!(instances.is_new(Some(name.as_bytes())));
            assert!(!instances.is_new(Some(name.as_bytes())));
        }
        assert!(instances.is_new(Some(b"0")));
        assert!(instances.is_new(Some(b"i1")));
        assert!(!instances.is_new(Some(b"i3")));
    }

    #[test]
    fn no_instance_is_always_new_and_an_empty_one_is_one() {
        let cells = std::array::from_fn(|_| AtomicU64::new(0));
        let instances = Instances::new(&cells);
        assert!(instances.is_new(None) && instances.is_new(None));
        assert!(instances.is_new(Some(b"")));
        assert!(!instances.is_new(Some(b"")));
    }
}
