//! What the server does when the store, the disk or a process fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod codes;
mod disk;
mod full_disk;
mod images;
mod mark;
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

/// The log without the line that a verification has begun.
pub fn results_in(server: &server::Server) -> String {
    let begun = "the database is being verified: requests pass ungreylisted until then\n";
    server.log_text().replace(begun, "")
}
