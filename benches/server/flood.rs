//! A flood: new triplets without end from all addresses of one /24, and what it leaves to
//! the others, without `--max-new` and with it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::load::{Expected, Load, Measured, Ticket};
use crate::requests::Subject;
use crate::servers::{Program, Server, Setup, make_folder, make_server_dir};
use crate::traffic::{Mix, Traffic};

/// The limits: none, and the one that the manual calls sensible.
const LIMITS: [Option<u32>; 2] = [None, Some(1000)];
/// Connections of the flood, as many as Postfix has processes by default, and of others.
const FLOOD: usize = 100;
const OTHERS: usize = 16;
/// How long the others are measured each time.
const TIME: Duration = Duration::from_secs(2);
/// What all those sleep who wait for the other thread.
const PAUSE: Duration = Duration::from_millis(1);

/// Floods with this many triplets, once for each limit.
pub fn measure_flood(triplets: u64) -> io::Result<()> {
    println!(
        "\n### {triplets} new triplets from one /24, {FLOOD} connections; new triplets of others, \
         {OTHERS} connections, for {} s each\n",
        TIME.as_secs()
    );
    println!("| | others | requests/s | p50 ms | p99 ms | max ms |");
    println!("|---|---|--:|--:|--:|--:|");
    let addresses = of_one_network();
    let mut lines = Vec::new();
    for limit in LIMITS {
        let (name, options) = match limit {
            None => ("no limit".to_owned(), vec![]),
            Some(limit) => {
                let option = format!("--max-new={limit}");
                (option.clone(), vec![option])
            }
        };
        let folder = make_folder()?;
        make_server_dir(&folder.path().join("db"))?;
        let setup = Setup::of(Program::Postgrey);
        let server = Server::start_in(folder, &setup, &options, Stdio::null())?;
        let flood = flood_one(&server, triplets, &addresses, &name)?;
        let file = fs::metadata(server.folder().join("db/data.mdb"))?;
        lines.push(format!(
            "{name}: {:.0} requests/s of the flood, p50 {:.2} ms, p99 {:.2} ms; data.mdb has \
             {:.1} MiB on the disk",
            flood.rate(),
            flood.milliseconds(0.5),
            flood.milliseconds(0.99),
            (file.blocks() * 512) as f64 / f64::from(1 << 20),
        ));
    }
    println!();
    for line in lines {
        println!("* {line}");
    }
    Ok(())
}

/// The clients of 198.51.100.0/24, or one like it.
fn of_one_network() -> Vec<Subject> {
    let of = |client| Subject {
        network: 198,
        client,
        mail: 0,
        is_whitelisted: false,
    };
    let is_there = |subject: &Subject| subject.address()[1..3] == [51, 100];
    (0..1 << 24).map(of).filter(is_there).collect()
}

/// One flood; the others before it, when a tenth and when seven tenths of it have come, and
/// after it.
fn flood_one(
    server: &Server,
    triplets: u64,
    addresses: &[Subject],
    name: &str,
) -> io::Result<Measured> {
    let mut traffic = Traffic::new(false);
    let mix = Mix::named("new").ok_or_else(|| io::Error::other("no mix"))?;
    let mut load = Load::connect(&server.address, OTHERS)?;
    let mut others = |when: &str| {
        let run = load.run(TIME, &mut || traffic.next(&mix), &mut || false)?;
        println!(
            "| {name} | {when} | {:.0} | {:.2} | {:.2} | {:.1} |",
            run.rate(),
            run.milliseconds(0.5),
            run.milliseconds(0.99),
            run.milliseconds(1.0),
        );
        Ok::<_, io::Error>(())
    };
    others("before the flood")?;
    let sent = AtomicU64::new(0);
    let flood = std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let mut load = Load::connect(&server.address, FLOOD)?;
            let mut source = || {
                let number = sent.load(Ordering::Relaxed);
                sent.store(number + 1, Ordering::Relaxed);
                (number < triplets).then(|| Ticket {
                    subject: Subject {
                        mail: number,
                        ..addresses[number as usize % addresses.len()]
                    },
                    time: None,
                    expected: Expected::Defer,
                })
            };
            load.run(Duration::MAX, &mut source, &mut || false)
        });
        for (tenths, when) in [(1, "after a tenth of it"), (7, "after seven tenths of it")] {
            while sent.load(Ordering::Relaxed) < triplets * tenths / 10 && !flood.is_finished() {
                std::thread::sleep(PAUSE);
            }
            others(when)?;
            if flood.is_finished() {
                break;
            }
        }
        let is_over = sent.load(Ordering::Relaxed) >= triplets;
        let flood = flood.join().map_err(|_| io::Error::other("a panic"))??;
        match is_over {
            true => Err(io::Error::other(
                "the flood was over first: take more triplets",
            )),
            false => Ok(flood),
        }
    })?;
    others("after the flood")?;
    Ok(flood)
}
