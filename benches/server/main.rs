//! How fast the server is, beside a server that does nothing and, where Debian's
//! package is installed, beside the original.
//!
//! ```text
//! cargo bench --bench server                            the default, 5 minutes
//! cargo bench --bench server -- new,awl 1,16,100        these mixes and connections
//! cargo bench --bench server -- postgrey workers=1,2,4,8 100,200
//! cargo bench --bench server -- postgrey triplets=0,1000000 new,known
//! cargo bench --bench server -- postgrey 4 idle=0,2000
//! cargo bench --bench server -- postgrey,null new sync=commit,none tcp,unix
//! cargo bench --bench server -- all rounds=3            every mix; takes long
//! cargo bench --bench server -- storm                   200 connections at once
//! cargo bench --bench server -- expiry                  while records expire
//! cargo bench --bench server -- flood=1000000           of one network, and the others
//! cargo bench --bench server -- redis                 several hosts on Redis, on a cluster
//! cargo bench --bench server -- sessions=10,50 tcp,unix behind a real Postfix
//! ```
//!
//! `rounds=5 seconds=0.5` are the rounds, and the length of each run.
//! `POSTGREY_BENCH_DIR` is where the databases lie: on a tmpfs the disk has no
//! part in the figures. More in `benches/README.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod flood;
#[path = "../../tests/postfix/instance.rs"]
mod instance;
mod load;
mod measure;
mod null;
mod postfix;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
#[path = "../../tests/common/redis.rs"]
mod redis_server;
#[path = "../common/requests.rs"]
mod requests;
mod selection;
mod servers;
#[path = "../../tests/postfix/smtp.rs"]
mod smtp;
mod traffic;

use std::fs::File;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Set by INT and TERM: what was started is ended in order then.
static INTERRUPTED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// True if the user wants it to end.
pub fn was_interrupted() -> bool {
    INTERRUPTED
        .get()
        .is_some_and(|flag| flag.load(Ordering::Relaxed))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [word, transport, address] = &arguments[..]
        && word == "null-server"
    {
        null::serve(transport, address);
        return ExitCode::SUCCESS;
    }
    // "cargo test --all-targets" runs it without.
    let Some(at) = arguments.iter().position(|argument| argument == "--bench") else {
        return ExitCode::SUCCESS;
    };
    let mut chosen = arguments;
    chosen.remove(at);
    match run(&chosen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> io::Result<()> {
    let selection = selection::select(arguments).map_err(io::Error::other)?;
    let flag = INTERRUPTED.get_or_init(Arc::default);
    for signal in [libc::SIGINT, libc::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(flag))?;
    }
    allow_many_descriptors()?;
    print_conditions(selection.rounds, selection.seconds)?;
    let time = Duration::from_secs_f64(selection.seconds);
    for table in &selection.tables {
        measure::measure_table(table, selection.rounds, time)?;
    }
    if selection.has_storm {
        measure::measure_storm(selection.rounds)?;
    }
    if selection.has_expiry {
        measure::measure_expiry()?;
    }
    if let Some(triplets) = selection.flood {
        flood::measure_flood(triplets)?;
    }
    #[cfg(feature = "redis")]
    if selection.has_redis {
        redis::measure_redis(selection.rounds, time)?;
    }
    if !selection.sessions.is_empty() {
        let transports = &selection.session_transports;
        postfix::measure_postfix(&selection.sessions, transports, selection.rounds, time)?;
    }
    print_load();
    Ok(())
}

fn allow_many_descriptors() -> io::Result<()> {
    postgrey::sys::process::raise_descriptor_limit().map(|_| ())
}

fn print_conditions(rounds: usize, seconds: f64) -> io::Result<()> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    println!("## postgrey {}\n", env!("CARGO_PKG_VERSION"));
    println!(
        "{processors} processors; databases in {}, where a flush takes {:.2} ms; medians of {rounds} \
         rounds of {seconds} s, ratios within a round, max of all.",
        servers::place().display(),
        flush_time()?.as_secs_f64() * 1e3
    );
    print_load();
    Ok(())
}

/// Other work on the machine is part of the conditions.
fn print_load() {
    if let Ok(text) = std::fs::read_to_string("/proc/loadavg") {
        println!(
            "\nLoad of the machine: {}",
            text.split(' ').next().unwrap_or("")
        );
    }
}

/// What the disk takes to write a page for good, the median of 50.
fn flush_time() -> io::Result<Duration> {
    let folder = servers::make_folder()?;
    let mut file = File::create(folder.path().join("page"))?;
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort();
    Ok(times[25])
}
