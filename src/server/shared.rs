//! What all processes of a server share: instances, held mails, counters, complaints,
//! whether the database may be used, and which writer is the present one.

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};

use super::beats::Beats;
use super::counters::{Counter, Counters};
use super::stages::Stages;
use crate::log::Complaints;
use crate::policy::held::Held;
use crate::policy::instances::Instances;
use crate::sys;

/// Views of the shared memory; copies see the same.
#[derive(Clone, Copy, Debug)]
pub struct Shared {
    /// The instances that already got a header.
    pub instances: Instances<'static>,
    /// The mails that were held in the tarpit.
    pub held: Held<'static>,
    /// What is counted.
    pub counters: Counters,
    /// Whether Postfix asks at DATA.
    pub stages: Stages,
    /// When each worker, and the writer, last went on.
    pub beats: Beats,
    /// Which complaints were made lately.
    pub complaints: Complaints,
    /// Even: the database may be used; odd: it is being verified.
    store_epoch: &'static AtomicU64,
    writer_generation: &'static AtomicU64,
}

/// How often the database was taken out of use, and put into use again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreEpoch(u64);

impl StoreEpoch {
    /// True if the database may be used.
    pub fn is_usable(self) -> bool {
        self.0.is_multiple_of(2)
    }
}

impl Shared {
    /// Shared memory for this process and the children it forks from now on.
    pub fn new(workers: usize) -> io::Result<Self> {
        const FIXED: usize =
            Instances::CELLS + Held::CELLS + Counter::COUNT + Complaints::CELLS + Stages::CELLS + 2;
        // Of each worker connections and beat; of the writer the beat.
        let count = NonZeroUsize::new(FIXED + 2 * workers + 1).unwrap_or(NonZeroUsize::MIN);
        let cells = sys::shared::share_cells(count)?;
        let split = || -> Option<Self> {
            let (instances, rest) = cells.split_first_chunk()?;
            let (held, rest) = rest.split_first_chunk()?;
            let (counts, rest) = rest.split_first_chunk()?;
            let (complaints, rest) = rest.split_first_chunk()?;
            let (stages, rest) = rest.split_first_chunk()?;
            let ([store_epoch, writer_generation], rest) = rest.split_first_chunk()?;
            let (workers, beats) = rest.split_at_checked(workers)?;
            Some(Shared {
                instances: Instances::new(instances),
                held: Held::new(held),
                counters: Counters::new(counts, workers),
                stages: Stages::new(stages),
                beats: Beats::new(beats),
                complaints: Complaints::new(complaints),
                store_epoch,
                writer_generation,
            })
        };
        split().ok_or_else(|| io::Error::other("too few cells"))
    }

    /// Whether the database may be used. When this has changed a process opens
    /// its environment anew.
    pub fn store_epoch(&self) -> StoreEpoch {
        StoreEpoch(self.store_epoch.load(Ordering::Relaxed))
    }

    /// Takes the database out of use, or puts it into use again.
    pub fn set_store_usable(&self, is_usable: bool) {
        // The parity says what holds: the second to say it changes nothing.
        let change = |epoch: u64| (StoreEpoch(epoch).is_usable() != is_usable).then_some(epoch + 1);
        let relaxed = Ordering::Relaxed;
        let _ = self.store_epoch.fetch_update(relaxed, relaxed, change);
    }

    /// Tells the present writer from those before it.
    pub fn writer_generation(&self) -> u32 {
        self.writer_generation.load(Ordering::Relaxed) as u32
    }

    /// The generation of a writer that is about to start.
    pub fn next_writer_generation(&self) -> u32 {
        (self.writer_generation.fetch_add(1, Ordering::Relaxed) + 1) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_taken_out_of_use_once() {
        let shared = Shared::new(1).unwrap();
        let first = shared.store_epoch();
        assert!(first.is_usable());
        shared.set_store_usable(true);
        assert_eq!(shared.store_epoch(), first);
        for _ in 0..2 {
            shared.set_store_usable(false);
            assert!(!shared.store_epoch().is_usable());
        }
        shared.set_store_usable(true);
        assert!(shared.store_epoch().is_usable());
        assert_ne!(shared.store_epoch(), first);
    }
}
