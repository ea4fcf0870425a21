//! A small file system for tests of what a full or read-only disk does.
#![allow(dead_code)] // each test binary uses a part of it

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::server::{is_root, skip};

/// A small file system in memory, unmounted at the end; only root can make
/// one.
pub struct SmallDisk<'p>(&'p Path);

impl<'p> SmallDisk<'p> {
    /// One with these options of tmpfs; `None` where that is not allowed: then
    /// it is said that `what` is not tested.
    pub fn mount(at: &'p Path, options: &str, what: &str) -> Option<Self> {
        let mount = || {
            let status = Command::new("mount")
                .args(["-t", "tmpfs", "-o", options, "tmpfs"])
                .arg(at)
                .stderr(Stdio::null())
                .status();
            status.is_ok_and(|status| status.success())
        };
        if is_root() && mount() {
            return Some(SmallDisk(at));
        }
        skip("right to mount", what);
        None
    }

    /// Changes options of the mount.
    pub fn remount(&self, options: &str) {
        let status = Command::new("mount")
            .args(["-o", &format!("remount,{options}")])
            .arg(self.0)
            .stderr(Stdio::null())
            .status();
        assert!(status.unwrap().success());
    }

    /// Fills it to the last octet.
    pub fn fill(&self) {
        let mut octets = 1 << 20;
        let mut file = fs::File::create(self.0.join("filler")).unwrap();
        while octets > 0 {
            if file.write(&vec![0; octets]).unwrap_or(0) == 0 {
                octets /= 2;
            }
        }
    }

    /// Fills it but for so many pages.
    pub fn fill_but(&self, pages: u64) {
        self.fill();
        let filler = self.0.join("filler");
        let file = fs::File::options().write(true).open(filler).unwrap();
        let length = file.metadata().unwrap().len() / 4096;
        file.set_len(length.saturating_sub(pages) * 4096).unwrap();
    }

    /// Takes away what filled it.
    pub fn empty(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
