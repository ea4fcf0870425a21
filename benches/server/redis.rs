//! Several MX hosts on one Redis and on a cluster of three masters and three replicas,
//! beside the server on LMDB, and beside a bare loop that asks Redis for as much.

use std::cell::Cell;
use std::fs;
use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::unistd::{SysconfVar, sysconf};

use crate::load::{Address, Load, Measured};
use crate::measure::median;
use crate::redis_server::{RedisCluster, RedisServer, has};
use crate::requests::Subject;
use crate::servers::{Program, Server, Setup, make_folder, make_server_dir};
use crate::traffic::{Mix, Traffic};

/// How many hosts share the store.
const HOSTS: [usize; 3] = [1, 2, 4];
/// Connections of all hosts together.
const CONNECTIONS: [usize; 3] = [1, 16, 100];
/// What comes.
const MIXES: [&str; 2] = ["new", "awl"];
/// The names of the bare loop's records begin with it, and `:`.
const BARE: &str = "bare";
/// What it writes, as long as the value of a new triplet.
const VALUE: &str = "1796054400,1796054400,0,255";
/// For how many milliseconds: two days and a second.
const LIFE: &str = "172801000";
/// Clients that the bare loop takes for known.
const KNOWN: u64 = 100;

/// Who is measured, one after the other in each round.
enum Contestant {
    Hosts {
        label: String,
        servers: Vec<Server>,
        traffic: Traffic,
        /// Processes of the store.
        nodes: Vec<u32>,
    },
    Bare {
        /// What it writes: all the records that it has read, or those that a server
        /// would change.
        writes_all: bool,
        connection: redis::Connection,
        serial: Cell<u64>,
        nodes: Vec<u32>,
    },
}

/// What a run came to, and the seconds of the processor that it took the hosts and the
/// store.
struct Run {
    measured: Measured,
    hosts: f64,
    store: f64,
}

/// Measures all of it, and prints a table.
pub fn measure_redis(rounds: usize, time: Duration) -> io::Result<()> {
    if !has("redis-server", "several hosts on Redis") {
        return Ok(());
    }
    println!(
        "\n### Several hosts on one Redis and on a cluster (3 masters, 3 replicas), by TCP on the \
         loopback\n"
    );
    println!(
        "| mix | connections | hosts and store | requests/s | p50 ms | p99 ms | max ms | to LMDB \
         | to the bare loop | to the one of changes | hosts \u{b5}s | Redis \u{b5}s |"
    );
    println!("|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|");
    let one = RedisServer::start(&[]);
    let cluster = RedisCluster::start(&[]);
    let of_cluster: Vec<u32> = cluster.nodes.iter().map(RedisServer::process).collect();
    let mut contestants = vec![hosts("LMDB", 1, None, Vec::new())?];
    let client = redis::Client::open(one.url()).map_err(io::Error::other)?;
    for writes_all in [true, false] {
        contestants.push(Contestant::Bare {
            writes_all,
            connection: client.get_connection().map_err(io::Error::other)?,
            serial: Cell::new(0),
            nodes: vec![one.process()],
        });
    }
    for count in HOSTS {
        contestants.push(hosts(
            "Redis",
            count,
            Some(&one.url()),
            vec![one.process()],
        )?);
    }
    for count in HOSTS {
        let url = cluster.url();
        contestants.push(hosts("cluster", count, Some(&url), of_cluster.clone())?);
    }
    for mix in MIXES.map(|name| Mix::named(name).unwrap()) {
        for connections in CONNECTIONS {
            let mut results: Vec<Vec<Run>> = contestants.iter().map(|_| Vec::new()).collect();
            for round in 0..rounds {
                for turn in 0..contestants.len() {
                    let index = (round + turn) % contestants.len();
                    results[index].push(contestants[index].run(&mix, connections, time)?);
                    if crate::was_interrupted() {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                }
            }
            for (index, contestant) in contestants.iter().enumerate() {
                print_row(&mix, connections, &contestant.label(), &results, index);
            }
        }
    }
    Ok(())
}

fn print_row(mix: &Mix, connections: usize, label: &str, results: &[Vec<Run>], index: usize) {
    let own = &results[index];
    let of = |value: &dyn Fn(&Run) -> f64| median(own.iter().map(value));
    let worst = own.iter().map(|run| run.measured.milliseconds(1.0));
    let ratio_to = |other: usize| match other == index {
        true => "-".to_owned(),
        false => {
            let pairs = own.iter().zip(&results[other]);
            let ratios = pairs.map(|(own, other)| own.measured.rate() / other.measured.rate());
            format!("{:.2}", median(ratios))
        }
    };
    let each = |seconds: f64, run: &Run| seconds * 1e6 / run.measured.replies as f64;
    println!(
        "| {} | {connections} | {label} | {:.0} | {:.2} | {:.2} | {:.1} | {} | {} | {} | {:.0} | {:.1} |",
        mix.name,
        of(&|run| run.measured.rate()),
        of(&|run| run.measured.milliseconds(0.5)),
        of(&|run| run.measured.milliseconds(0.99)),
        worst.fold(0.0, f64::max),
        ratio_to(0),
        ratio_to(1),
        ratio_to(2),
        of(&|run| each(run.hosts, run)),
        of(&|run| each(run.store, run)),
    );
}

/// So many hosts, each with its directory; on Redis with names of their own.
fn hosts(store: &str, count: usize, url: Option<&str>, nodes: Vec<u32>) -> io::Result<Contestant> {
    let mut servers = Vec::new();
    for _ in 0..count {
        let folder = make_folder()?;
        make_server_dir(&folder.path().join("db"))?;
        let options: Vec<String> = match url {
            None => Vec::new(),
            Some(url) => vec![
                format!("--store={url}"),
                format!("--store-prefix=hosts{count}"),
            ],
        };
        let setup = Setup::of(Program::Postgrey);
        servers.push(Server::start_in(folder, &setup, &options, Stdio::null())?);
    }
    Ok(Contestant::Hosts {
        label: format!("{count} on {store}"),
        servers,
        traffic: Traffic::new(false),
        nodes,
    })
}

impl Contestant {
    fn label(&self) -> String {
        match self {
            Contestant::Hosts { label, .. } => label.clone(),
            Contestant::Bare { writes_all, .. } => match writes_all {
                true => "bare loop".to_owned(),
                false => "bare loop, changes only".to_owned(),
            },
        }
    }

    fn run(&mut self, mix: &Mix, connections: usize, time: Duration) -> io::Result<Run> {
        let warm_up = time / 10;
        match self {
            Contestant::Bare {
                writes_all,
                connection,
                serial,
                nodes,
            } => {
                let is_new = mix.name == "new";
                let written = match (*writes_all, is_new) {
                    (true, _) => 2,
                    (false, is_new) => usize::from(is_new),
                };
                let names = || names(is_new, serial);
                bare(connection, &names, written, connections, warm_up)?;
                let store = seconds_of(nodes)?;
                let measured = bare(connection, &names, written, connections, time)?;
                Ok(Run {
                    measured,
                    hosts: 0.0,
                    store: seconds_of(nodes)? - store,
                })
            }
            Contestant::Hosts {
                label,
                servers,
                traffic,
                nodes,
            } => {
                let name =
                    |error: io::Error| io::Error::new(error.kind(), format!("{label}: {error}"));
                traffic
                    .prepare(&servers[0].address, mix, time)
                    .map_err(name)?;
                let addresses: Vec<Address> = servers
                    .iter()
                    .map(|server| server.address.clone())
                    .collect();
                let mut load = Load::spread(&addresses, connections)?;
                load.run(warm_up, &mut || traffic.next(mix), &mut || false)
                    .map_err(name)?;
                let taken = || -> io::Result<(f64, f64)> {
                    let hosts = servers.iter().map(Server::processor_time);
                    Ok((hosts.sum::<io::Result<f64>>()?, seconds_of(nodes)?))
                };
                let before = taken()?;
                let measured = load
                    .run(time, &mut || traffic.next(mix), &mut || false)
                    .map_err(name)?;
                let after = taken()?;
                Ok(Run {
                    measured,
                    hosts: after.0 - before.0,
                    store: after.1 - before.1,
                })
            }
        }
    }
}

/// The bare loop: for so many requests one MGET of their records, then a plain SET for
/// each that is written, all sent together; and the next ones.
fn bare(
    connection: &mut redis::Connection,
    names: &dyn Fn() -> [String; 2],
    written: usize,
    requests: usize,
    time: Duration,
) -> io::Result<Measured> {
    let start = Instant::now();
    let mut measured = Measured::default();
    while start.elapsed() < time {
        let sent = Instant::now();
        let names: Vec<[String; 2]> = (0..requests).map(|_| names()).collect();
        ask(connection, &names, written).map_err(io::Error::other)?;
        let took = u32::try_from(sent.elapsed().as_nanos()).unwrap_or(u32::MAX);
        measured.latencies.extend((0..requests).map(|_| took));
        measured.replies += requests as u64;
    }
    measured.seconds = start.elapsed().as_secs_f64();
    measured.latencies.sort_unstable();
    Ok(measured)
}

fn ask(
    connection: &mut redis::Connection,
    names: &[[String; 2]],
    written: usize,
) -> redis::RedisResult<()> {
    let mut command = redis::cmd("MGET");
    command.arg(names.iter().flatten().collect::<Vec<_>>());
    let _: Vec<Option<Vec<u8>>> = command.query(connection)?;
    let mut pipe = redis::pipe();
    for name in names.iter().flat_map(|names| &names[..written]) {
        let set = pipe.cmd("SET").arg(name).arg(VALUE);
        set.arg("PX").arg(LIFE).ignore();
    }
    match pipe.is_empty() {
        true => Ok(()),
        false => pipe.query(connection),
    }
}

/// The names of the next triplet and its client, as the server makes them.
fn names(is_new: bool, serial: &Cell<u64>) -> [String; 2] {
    let number = serial.replace(serial.get() + 1);
    let subject = Subject {
        network: 10,
        client: if is_new { number } else { number % KNOWN },
        mail: number,
        is_whitelisted: false,
    };
    let [a, b, c, d] = subject.address();
    let mut key = format!("{BARE}:greylist:{{{a}.{b}.{c}.0}}:{a}.{b}.{c}.0/").into_bytes();
    subject.push_sender(&mut key);
    key.push(b'/');
    subject.push_recipient(&mut key);
    let client = format!("{BARE}:clients:{{{a}.{b}.{c}.0}}:{a}.{b}.{c}.{d}");
    [String::from_utf8_lossy(&key).into_owned(), client]
}

/// Seconds of the processor that these processes have taken.
fn seconds_of(processes: &[u32]) -> io::Result<f64> {
    let rate = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
    let mut ticks = 0;
    for process in processes {
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        let counts = fields.split_whitespace().skip(11).take(2);
        ticks += counts
            .filter_map(|count| count.parse::<u64>().ok())
            .sum::<u64>();
    }
    Ok(ticks as f64 / rate)
}
