//! A real Postfix asks the built server: SMTP sessions of any client, over
//! inet, UNIX socket and spawn(8).
//!
//! The scenarios run side by side, each with a server and an smtpd of its own,
//! since most of their time is waiting. Each check prints what it saw.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(missing_docs)]

mod faults;
mod greylisting;
#[cfg(feature = "redis")]
mod hosts;
mod instance;
mod lists;
mod per_message;
#[cfg(feature = "redis")]
#[path = "../common/redis.rs"]
mod redis_server;
mod script;
#[path = "../common/server.rs"]
mod server;
mod smtp;
mod tables;
mod targrey;
mod tarpit;
mod texts;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use instance::{Postfix, Service};

static CHECKS: AtomicUsize = AtomicUsize::new(0);
static FAILURES: AtomicUsize = AtomicUsize::new(0);

/// Notes whether something is as it should be, and what was seen.
pub fn check(is_right: bool, what: &str, saw: impl std::fmt::Display) {
    CHECKS.fetch_add(1, Ordering::Relaxed);
    if is_right {
        println!("check: {what}: {saw}");
    } else {
        FAILURES.fetch_add(1, Ordering::Relaxed);
        println!("FAILED: {what}: {saw}");
    }
}

/// What the scenarios share.
pub struct Stage {
    pub home: PathBuf,
    pub postfix: Postfix,
}

impl Stage {
    /// A directory for a scenario's server.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.home.join("servers").join(name)
    }
}

/// What happens in a scenario; the number is the port of its smtpd.
pub type Play = Box<dyn FnOnce(&Stage, u16) + Send>;

/// A scenario: how its smtpd asks, and what happens then.
pub struct Scenario {
    pub name: &'static str,
    pub service: Service,
    pub play: Play,
}

/// True if these tests were not asked for: `cargo test NAME` runs every binary
/// with that name, and `--list` wants a list.
fn is_filtered_out() -> bool {
    let mut args = std::env::args().skip(1).peekable();
    let is_listing = std::env::args().any(|arg| arg == "--list");
    is_listing
        || (args.peek().is_some()
            && args
                .find(|arg| !arg.starts_with('-'))
                .is_some_and(|name| !"postfix".contains(&name)))
}

fn main() {
    if is_filtered_out() {
        return;
    }
    let has_postfix = Path::new("/usr/sbin/postfix").exists();
    if !has_postfix || !server::is_root() {
        server::skip("postfix, or root,", "mail through a real Postfix");
        return;
    }
    let folder = server::test_dir();
    let home = folder.path().to_owned();
    fs::create_dir_all(home.join("etc")).unwrap();
    let mut scenarios = Vec::new();
    scenarios.extend(greylisting::scenarios(&home));
    scenarios.extend(texts::scenarios());
    scenarios.extend(targrey::scenarios(&home));
    scenarios.extend(tarpit::scenarios());
    scenarios.extend(per_message::scenarios());
    scenarios.extend(lists::scenarios());
    scenarios.extend(faults::scenarios());
    scenarios.extend(script::scenarios());
    scenarios.extend(tables::scenarios(&home));
    #[cfg(feature = "redis")]
    scenarios.extend(hosts::scenarios());
    let services: Vec<&Service> = scenarios.iter().map(|s| &s.service).collect();
    let postfix = Postfix::start(&home, &services, &greylisting::spawn_entry(&home));
    let stage = Stage { home, postfix };
    std::thread::scope(|scope| {
        for scenario in scenarios {
            let stage = &stage;
            let name = scenario.name;
            let port = scenario.service.port;
            fs::create_dir_all(stage.folder(name)).unwrap();
            let run = move || (scenario.play)(stage, port);
            std::thread::Builder::new()
                .name(name.into())
                .spawn_scoped(scope, move || {
                    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
                    if result.is_err() {
                        check(false, name, "the scenario did not come to its end");
                    }
                })
                .unwrap();
        }
    });
    let log = stage.postfix.log_text();
    drop(stage);
    let (checks, failures) = (
        CHECKS.load(Ordering::Relaxed),
        FAILURES.load(Ordering::Relaxed),
    );
    println!("postfix: {checks} checks, {failures} failed");
    if failures > 0 {
        println!("{log}");
        drop(folder);
        std::process::exit(1);
    }
}
