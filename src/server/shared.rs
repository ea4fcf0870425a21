//! What all processes of a server share: instances, counters, complaints, and
//! the wish for maintenance.

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use super::counters::{Counter, Counters};
use crate::log::Complaints;
use crate::policy::instances::Instances;
use crate::sys;

/// Views of the shared memory; copies see the same.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// The instances that already got a header.
    pub instances: Instances<'static>,
    /// What is counted.
    pub counters: Counters,
    /// Which complaints were made lately.
    pub complaints: Complaints,
    expiry_wanted: &'static AtomicU64,
}

impl Shared {
    /// Shared memory for this process and the children it forks from now on.
    pub fn new(workers: usize) -> io::Result<Self> {
        const FIXED: usize = Instances::CELLS + Counter::COUNT + Complaints::CELLS + 1;
        let count = NonZeroUsize::new(FIXED + workers).unwrap_or(NonZeroUsize::MIN);
        let cells = sys::shared::share_cells(count)?;
        let split = || -> Option<Self> {
            let (instances, rest) = cells.split_first_chunk()?;
            let (counts, rest) = rest.split_first_chunk()?;
            let (complaints, rest) = rest.split_first_chunk()?;
            let ([expiry_wanted], workers) = rest.split_first_chunk()?;
            Some(Shared {
                instances: Instances::new(instances),
                counters: Counters::new(counts, workers),
                complaints: Complaints::new(complaints),
                expiry_wanted,
            })
        };
        split().ok_or_else(|| io::Error::other("too few cells"))
    }

    /// Asks the writer for maintenance now.
    pub fn want_expiry(&self) {
        self.expiry_wanted.store(1, Ordering::Relaxed);
    }

    /// True once after [`Shared::want_expiry`].
    pub fn take_expiry_wanted(&self) -> bool {
        self.expiry_wanted.swap(0, Ordering::Relaxed) != 0
    }
}
