//! What the server does when the store, the disk or a process fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod codes;
mod disk;
mod journal;
mod kills;
mod power;
#[path = "../common/random.rs"]
mod random;
#[path = "../common/server.rs"]
mod server;
#[path = "../common/disk.rs"]
mod small_disk;
mod store;
mod unflushed;

use std::path::Path;
use std::process::Command;

/// The server with `preload.c` in it; `None` without a C compiler.
pub fn preloaded(folder: &Path) -> Option<Command> {
    server::preloaded("tests/faults/preload.c", folder)
}
