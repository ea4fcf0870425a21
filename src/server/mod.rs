//! The server: how it starts, serves and ends.

mod acceptor;
mod background;
mod beats;
pub mod check;
mod children;
mod commit;
mod connection;
mod control;
pub mod counters;
pub mod engine;
mod gather;
mod group_commit;
mod listener;
mod lists;
mod master;
mod options_file;
mod pidfile;
mod ping;
pub mod shared;
mod spawn;
mod stages;
mod start;
mod start_error;
mod store;
mod verification;
mod worker;
mod writer;

#[cfg(test)]
mod buggy;

use crate::config::settings::Settings;
use crate::sys::process;
use background::Report;
use start_error::say;

pub use commit::{WRITER_PATIENCE, wire};
pub use connection::STALL_LIMIT;
pub use listener::MAX_LISTENERS;
pub use master::SIGNALS;
pub use spawn::report_mistakes;

/// Serves until a signal ends it; returns the exit status.
pub fn run(settings: &Settings) -> i32 {
    process::clean_environment();
    if settings.spawn {
        return spawn::run(settings);
    }
    if !settings.daemonize {
        return match start::serve(settings, &Report::default()) {
            Ok(()) => 0,
            Err(error) => {
                say(&error.message);
                error.exit_code
            }
        };
    }
    if let Some(ignored) = &settings.ignored_words {
        // Without -d the log goes there, too.
        say(&format!("WARNING: {ignored}"));
    }
    match background::go_to_background(settings, start::serve) {
        Ok(status) => status,
        Err(error) => {
            say(&format!("ERROR: cannot go to the background: {error}"));
            2
        }
    }
}
