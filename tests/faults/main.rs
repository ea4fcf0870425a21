//! What the server does when the store, the disk or a process fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod codes;
#[path = "../common/daemon.rs"]
mod daemon;
mod disk;
mod kills;
mod power;
#[path = "../common/random.rs"]
mod random;
mod store;
mod unflushed;

use std::path::{Path, PathBuf};

/// Compiles `preload.c`; `None` without a C compiler.
pub fn build_preload(folder: &Path) -> Option<PathBuf> {
    daemon::build_library("tests/faults/preload.c", folder)
}
