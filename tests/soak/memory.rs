//! What a process has of memory and descriptors, and whether that grows.

use std::fs;

use nix::unistd::Pid;

/// Seconds in which a process may grow: in its first minutes it meets everything for the
/// first time, and the writer's first maintenance comes after one.
const SETTLED: f64 = 120.0;

/// KiB of memory of its own, and number of descriptors, of a process.
pub fn measure(pid: Pid) -> Option<(f64, usize)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
    let memory = line.split_whitespace().nth(1)?.parse().ok()?;
    Some((
        memory,
        fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count(),
    ))
}

/// The samples of a process that has settled.
pub fn settled(samples: &[(f64, f64)]) -> &[(f64, f64)] {
    let first = samples.first().map_or(0.0, |sample| sample.0);
    let is_young = |sample: &(f64, f64)| sample.0 < first + SETTLED;
    &samples[samples.partition_point(is_young)..]
}

/// How much it grows a minute: the lesser of both halves, since a leak goes on, and what is
/// allocated once, at a largest batch of commands, say, is a step in one of them.
pub fn growth(samples: &[(f64, f64)]) -> f64 {
    let (early, late) = samples.split_at(samples.len() / 2);
    slope(early).min(slope(late))
}

/// The least-squares slope, per minute.
fn slope(samples: &[(f64, f64)]) -> f64 {
    let count = samples.len() as f64;
    let (x, y) = samples
        .iter()
        .fold((0.0, 0.0), |sum, s| (sum.0 + s.0, sum.1 + s.1));
    let (x, y) = (x / count, y / count);
    let above: f64 = samples.iter().map(|s| (s.0 - x) * (s.1 - y)).sum();
    let below: f64 = samples.iter().map(|s| (s.0 - x).powi(2)).sum();
    if below == 0.0 {
        0.0
    } else {
        60.0 * above / below
    }
}
