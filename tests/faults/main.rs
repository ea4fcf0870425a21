//! What the server does when the store, the disk or a process fails.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../common/daemon.rs"]
mod daemon;
mod disk;
mod kills;
mod power;
#[path = "../common/random.rs"]
mod random;
mod store;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles `preload.c`; `None` without a C compiler.
pub fn build_preload(folder: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults/preload.c");
    let library = folder.join("preload.so");
    let status = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status();
    let Ok(status) = status else {
        println!("skipped: this test needs a C compiler (Debian's package gcc)");
        return None;
    };
    assert!(status.success());
    Some(library)
}
