//! Whether Postfix asks at DATA, without which `--targrey` never lets a client out of
//! the tarpit.

use std::sync::atomic::{AtomicU64, Ordering};

/// Requests before DATA after which one at DATA should have come.
const ENOUGH: u64 = 1000;
/// Seconds until the same is said again.
const DAY: u64 = 86400;

/// Counts in cells that all processes share.
#[derive(Clone, Copy, Debug)]
pub struct Stages(&'static [AtomicU64; Stages::CELLS]);

impl Stages {
    /// The cells it needs: requests before DATA, requests at DATA, when it was said.
    pub const CELLS: usize = 3;

    /// Stages in these cells.
    pub fn new(cells: &'static [AtomicU64; Stages::CELLS]) -> Self {
        Stages(cells)
    }

    /// Notes a request under `--targrey` at this time in seconds. True if there were
    /// many by now and none at DATA; then not again for a day.
    pub fn note(&self, is_data: bool, now: u64) -> bool {
        let [before, at_data, said] = self.0;
        if at_data.load(Ordering::Relaxed) > 0 {
            return false;
        }
        if is_data {
            at_data.store(1, Ordering::Relaxed);
            return false;
        }
        let count = before.fetch_add(1, Ordering::Relaxed) + 1;
        let last = said.load(Ordering::Relaxed);
        count >= ENOUGH
            && now >= last + DAY
            && said
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_a_day_until_a_request_at_data_comes() {
        let stages = Stages::new(Box::leak(Box::default()));
        let now = 1_700_000_000;
        let said = |requests: u64, now| (0..requests).filter(|_| stages.note(false, now)).count();
        assert_eq!(said(999, now), 0);
        assert_eq!(said(5000, now), 1);
        assert_eq!(said(5000, now + DAY - 1), 0);
        assert_eq!(said(5000, now + DAY), 1);
        assert!(!stages.note(true, now + 2 * DAY));
        assert_eq!(said(5000, now + 2 * DAY), 0);
    }
}
