//! The measurements, and their tables in Markdown.

use std::fs::{self, File};
use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::load::{Load, Measured};
use crate::selection::Table;
use crate::servers::{
    Program, Server, Setup, Transport, fill, filler_keys, make_folder, make_server_dir,
};
use crate::traffic::{Mix, Traffic};

/// One of the servers of a table.
struct Contestant<'t> {
    setup: &'t Setup,
    server: Server,
    traffic: Traffic,
}

impl<'t> Contestant<'t> {
    fn new(setup: &'t Setup) -> io::Result<Self> {
        Ok(Contestant {
            setup,
            server: Server::start(setup)?,
            traffic: Traffic::new(setup.program == Program::Null),
        })
    }

    fn run(&mut self, mix: &Mix, connections: usize, time: Duration) -> io::Result<Measured> {
        let address = &self.server.address;
        self.traffic.prepare(address, mix, time)?;
        let mut load = Load::connect(address, connections)?;
        let traffic = &mut self.traffic;
        // The first requests find everything cold, also in the processor.
        let warm_up = time / 10;
        load.run(warm_up, &mut || traffic.next(mix), &mut || false)?;
        load.run(time, &mut || traffic.next(mix), &mut || false)
    }
}

/// Measures a table: in each round every server is run shortly, one after the
/// other, since the machine is another one in the next moment.
pub fn measure_table(table: &Table, rounds: usize, time: Duration) -> io::Result<()> {
    println!("\n### {}\n", table.title);
    println!(
        "| mix | connections | server | requests/s | p50 ms | p99 ms | max ms \
         | to the first | to null | to original |"
    );
    println!("|---|--:|---|--:|--:|--:|--:|--:|--:|--:|");
    let mut contestants = table
        .setups
        .iter()
        .map(Contestant::new)
        .collect::<io::Result<Vec<_>>>()?;
    for (mix, connections) in &table.rows {
        let mut results: Vec<Vec<Measured>> = vec![Vec::new(); contestants.len()];
        for round in 0..rounds {
            for turn in 0..contestants.len() {
                // Nobody is always behind the same one.
                let index = (round + turn) % contestants.len();
                let contestant = &mut contestants[index];
                let measured = contestant.run(mix, *connections, time).map_err(|error| {
                    let label = contestant.setup.label();
                    io::Error::new(error.kind(), format!("{label}, {}: {error}", mix.name))
                })?;
                results[index].push(measured);
                if crate::was_interrupted() {
                    return Err(io::ErrorKind::Interrupted.into());
                }
            }
        }
        for (index, setup) in table.setups.iter().enumerate() {
            print_row(mix, *connections, &table.setups, &results, setup, index);
        }
    }
    Ok(())
}

fn print_row(
    mix: &Mix,
    connections: usize,
    setups: &[Setup],
    results: &[Vec<Measured>],
    setup: &Setup,
    index: usize,
) {
    let own = &results[index];
    let of = |value: &dyn Fn(&Measured) -> f64| median(own.iter().map(value));
    let worst = own
        .iter()
        .map(|run| run.milliseconds(1.0))
        .fold(0.0, f64::max);
    let ratio_to = |other: Option<usize>| match other {
        Some(other) if other != index => {
            let pairs = own.iter().zip(&results[other]);
            format!(
                "{:.2}",
                median(pairs.map(|(own, other)| own.rate() / other.rate()))
            )
        }
        _ => "-".into(),
    };
    let find = |program: Program| {
        setups
            .iter()
            .position(|other| other.program == program && other.transport == setup.transport)
    };
    println!(
        "| {} | {connections} | {} | {:.0} | {:.2} | {:.2} | {worst:.1} | {} | {} | {} |",
        mix.name,
        setup.label(),
        of(&Measured::rate),
        of(&|run| run.milliseconds(0.5)),
        of(&|run| run.milliseconds(0.99)),
        ratio_to(Some(0)),
        ratio_to(find(Program::Null)),
        ratio_to(find(Program::Original)),
    );
}

/// The median; 0 of nothing.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[middle],
        _ => f64::midpoint(values[middle - 1], values[middle]),
    }
}

/// 200 connections at once with a request each: when is the last one answered?
pub fn measure_storm(rounds: usize) -> io::Result<()> {
    const CONNECTIONS: usize = 200;
    println!("\n### {CONNECTIONS} connections at once, a new triplet each\n");
    println!("| server | last answer ms, median | worst |");
    println!("|---|--:|--:|");
    for (_, program) in Program::ALL {
        if !program.is_there() {
            continue;
        }
        let setup = Setup::of(program);
        let mut contestant = Contestant::new(&setup)?;
        let mix = Mix::named("new").unwrap();
        let mut times = Vec::new();
        for _ in 0..rounds {
            let start = Instant::now();
            let mut load = Load::connect(&contestant.server.address, CONNECTIONS)?;
            let mut left = CONNECTIONS;
            let traffic = &mut contestant.traffic;
            let mut source = || {
                left = left.checked_sub(1)?;
                traffic.next(&mix)
            };
            load.run(Duration::MAX, &mut source, &mut || false)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let worst = times.iter().copied().fold(0.0, f64::max);
        println!(
            "| {} | {:.1} | {worst:.1} |",
            setup.label(),
            median(times.into_iter())
        );
    }
    Ok(())
}

/// New triplets while half of a million records expire. The map of the database
/// is made full, which starts the maintenance at once.
pub fn measure_expiry() -> io::Result<()> {
    const TRIPLETS: u64 = 1_000_000;
    const LIMIT: Duration = Duration::from_secs(60);
    println!("\n### New triplets, 16 connections, while half of {TRIPLETS} records expire\n");
    println!("| | seconds | requests/s | p50 ms | p99 ms | max ms |");
    println!("|---|--:|--:|--:|--:|--:|");
    let folder = make_folder()?;
    let dbdir = make_server_dir(&folder.path().join("db"))?;
    // In the order of the keys there are no pages left over.
    let mut triplets = filler_keys(TRIPLETS);
    triplets.sort_unstable();
    fill(&dbdir, triplets, 500)?;
    let log_path = folder.path().join("log");
    let log = Stdio::from(File::create(&log_path)?);
    let setup = Setup {
        transport: Transport::Tcp,
        ..Setup::of(Program::Postgrey)
    };
    let options = ["--quiet".to_string(), "--db-size=1M".to_string()];
    let server = Server::start_in(folder, &setup, &options, log)?;
    let mut traffic = Traffic::new(false);
    let mix = Mix::named("new").unwrap();
    let mut load = Load::connect(&server.address, 16)?;
    let mut looked = Instant::now();
    let mut has_logged = |text: &str| {
        // To read the log at each request would take longer than to serve it.
        if looked.elapsed() < Duration::from_millis(2) {
            return false;
        }
        looked = Instant::now();
        fs::read_to_string(&log_path).is_ok_and(|log| log.contains(text))
    };
    let mut run = |text: &str, limit| {
        let start = Instant::now();
        let measured = load.run(limit, &mut || traffic.next(&mix), &mut || has_logged(text))?;
        Ok::<_, io::Error>((measured, start.elapsed() < limit))
    };
    let before = run("cleaning up old entries", LIMIT)?;
    let during = run("cleaning main database finished", LIMIT)?;
    if !before.1 || !during.1 {
        return Err(io::Error::other(
            "the maintenance did not come or did not end",
        ));
    }
    let after = run("never", Duration::from_secs(2))?;
    for (name, (run, _)) in [("before", before), ("during", during), ("after", after)] {
        println!(
            "| {name} | {:.1} | {:.0} | {:.2} | {:.2} | {:.1} |",
            run.seconds,
            run.rate(),
            run.milliseconds(0.5),
            run.milliseconds(0.99),
            run.milliseconds(1.0),
        );
    }
    drop(load);
    let log = fs::read_to_string(server.folder().join("log"))?;
    for line in log.lines().filter(|line| line.starts_with("cleaning ")) {
        println!("\n    {line}");
    }
    Ok(())
}
