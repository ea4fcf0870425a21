//! Memory that a process shares with its children: atomic cells only, so that
//! any process may use them at any time and one that is killed leaves none
//! half changed.

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU64;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

/// Cells, all 0, which this process and all it forks from now on see as the
/// same memory. They stay until the last of these processes ends.
pub fn share_cells(count: NonZeroUsize) -> io::Result<&'static [AtomicU64]> {
    let octets = count.saturating_mul(NonZeroUsize::new(size_of::<AtomicU64>()).unwrap_or(count));
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: an anonymous mapping at an address the system chooses touches no
    // memory in use.
    let address = unsafe { mmap_anonymous(None, octets, protection, MapFlags::MAP_SHARED)? };
    // SAFETY: the mapping holds `count` cells, is aligned to a page, begins as
    // zeros, which are valid cells, and is never unmapped.
    Ok(unsafe { std::slice::from_raw_parts(address.cast().as_ptr(), count.get()) })
}
