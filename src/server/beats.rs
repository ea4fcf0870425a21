//! Whether workers and writer go on: each notes when it last did, for whoever is
//! asked by a ping.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys::clock;

/// A worker goes on once a second at least, and notes it once a second at most.
pub const WORKER_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);
/// Microseconds after which a worker that has not is called silent.
const WORKER_PATIENCE: u64 = 4_000_000;

/// Microseconds after which the writer has not gone on since it was sent something that
/// was given up: half of the second after which that happens.
const WRITER_PATIENCE: u64 = 500_000;

/// Times of the monotonic clock in cells that all processes share: one for each
/// worker, and the last one for the writer.
#[derive(Clone, Copy, Debug)]
pub struct Beats(&'static [AtomicU64]);

impl Beats {
    /// Beats in these cells.
    pub fn new(cells: &'static [AtomicU64]) -> Self {
        Beats(cells)
    }

    /// A worker goes on.
    pub fn note_worker(&self, place: usize) {
        if let Some(cell) = self.0.get(place) {
            cell.store(clock::monotonic(), Ordering::Relaxed);
        }
    }

    /// The writer goes on.
    pub fn note_writer(&self) {
        if let Some(cell) = self.0.last() {
            cell.store(clock::monotonic(), Ordering::Relaxed);
        }
    }

    /// A worker that has not gone on for long: its connections wait.
    pub fn silent_worker(&self) -> Option<usize> {
        let (_, workers) = self.0.split_last()?;
        // One that is just being started has not gone on yet.
        let is_silent =
            |cell: &AtomicU64| cell.load(Ordering::Relaxed) > 0 && age(cell) > WORKER_PATIENCE;
        workers.iter().position(is_silent)
    }

    /// True if the writer has not gone on since a command was sent to it that it
    /// did not answer in time.
    pub fn is_writer_silent(&self) -> bool {
        // A session has none, and commits for itself.
        let writer = self.0.last().filter(|_| self.0.len() > 1);
        writer.is_some_and(|cell| age(cell) >= WRITER_PATIENCE)
    }
}

/// Microseconds since the time in a cell.
fn age(cell: &AtomicU64) -> u64 {
    clock::monotonic().saturating_sub(cell.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_go_on_is_told() {
        let cells = Box::leak(Box::new([const { AtomicU64::new(0) }; 3]));
        let beats = Beats::new(cells);
        assert_eq!(beats.silent_worker(), None);
        cells[0].store(1, Ordering::Relaxed);
        cells[1].store(1, Ordering::Relaxed);
        assert_eq!(beats.silent_worker(), Some(0));
        assert!(!Beats::new(&cells[..1]).is_writer_silent());
        assert!(beats.is_writer_silent());
        beats.note_worker(0);
        beats.note_writer();
        assert_eq!(beats.silent_worker(), Some(1));
        assert!(!beats.is_writer_silent());
        beats.note_worker(1);
        assert_eq!(beats.silent_worker(), None);
    }
}
