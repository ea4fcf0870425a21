//! The servers behind a real Postfix: SMTP sessions that offer mail as fast as
//! they get replies, and the processor time that the policy server takes of it.

use std::io;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use nix::unistd::Uid;

use crate::instance::{Postfix, Service};
use crate::load::Address;
use crate::measure::median;
use crate::servers::{Program, Server, Setup, Transport, make_folder};
use crate::smtp::Smtp;

/// Runs are that many times longer than others: the system counts the time of
/// processes in hundredths of a second.
const LENGTH: u32 = 4;

/// Which mail is offered.
#[derive(Clone, Copy, PartialEq)]
enum Mail {
    New,
    /// The same greylisted triplets again and again.
    Early,
    Whitelisted,
}

const MAILS: [(&str, Mail); 3] = [
    ("new", Mail::New),
    ("early", Mail::Early),
    ("whitelisted", Mail::Whitelisted),
];

/// A server, and the smtpd that asks it.
struct Contestant {
    setup: Setup,
    server: Server,
    service: Service,
}

/// What one run has shown.
#[derive(Clone, Copy)]
struct Run {
    /// Requests a second.
    rate: f64,
    /// Seconds of the processor for each.
    cost: f64,
}

/// Measures with these numbers of sessions, over each transport.
pub fn measure_postfix(
    sessions: &[usize],
    transports: &[Transport],
    rounds: usize,
    time: Duration,
) -> io::Result<()> {
    println!("\n### Processor time behind Postfix\n");
    if !Path::new("/usr/sbin/postfix").exists() || !Uid::effective().is_root() {
        println!("Not measured: it takes Postfix, and root to start it.");
        return Ok(());
    }
    println!(
        "| mail | sessions | server | requests/s | µs a request | least | most | original's |"
    );
    println!("|---|--:|---|--:|--:|--:|--:|--:|");
    let programs = || Program::ALL.map(|(_, program)| program).into_iter();
    let contestants = transports
        .iter()
        .flat_map(|&transport| programs().map(move |program| (program, transport)))
        .filter(|(program, _)| program.is_there())
        .map(|(program, transport)| start(program, transport))
        .collect::<io::Result<Vec<_>>>()?;
    let services: Vec<&Service> = contestants.iter().map(|c| &c.service).collect();
    let folder = make_folder()?;
    let _postfix = Postfix::start(folder.path(), &services, "");
    let mut serial = 0;
    for &sessions in sessions {
        for (name, mail) in MAILS {
            let mut runs: Vec<Vec<Run>> = vec![Vec::new(); contestants.len()];
            for round in 0..rounds {
                for turn in 0..contestants.len() {
                    let index = (round + turn) % contestants.len();
                    serial += 1;
                    let run = offer(&contestants[index], mail, sessions, serial, time * LENGTH)?;
                    runs[index].push(run);
                    if crate::was_interrupted() {
                        return Err(io::ErrorKind::Interrupted.into());
                    }
                }
            }
            for (contestant, own) in contestants.iter().zip(&runs) {
                let original = contestants.iter().position(|other| {
                    other.setup.program == Program::Original
                        && other.setup.transport == contestant.setup.transport
                });
                print_row(
                    &format!("{name} | {sessions} | {}", contestant.setup.label()),
                    own,
                    original.map(|index| &runs[index][..]),
                );
            }
        }
    }
    Ok(())
}

fn start(program: Program, transport: Transport) -> io::Result<Contestant> {
    let setup = Setup {
        transport,
        ..Setup::of(program)
    };
    let server = Server::start(&setup)?;
    let address = match &server.address {
        Address::Tcp(address) => format!("inet:{address}"),
        Address::Unix(path) => format!("unix:{}", path.display()),
    };
    let port = crate::servers::free_address()?.port();
    Ok(Contestant {
        setup,
        server,
        service: Service::at_rcpt(port, &format!("check_policy_service {address}")),
    })
}

/// Offers mail in so many sessions for some time.
fn offer(
    contestant: &Contestant,
    mail: Mail,
    sessions: usize,
    serial: u64,
    time: Duration,
) -> io::Result<Run> {
    let spent = || contestant.server.processor_time();
    let barrier = Barrier::new(sessions + 1);
    let expected = match mail {
        Mail::New | Mail::Early if contestant.setup.program != Program::Null => 450,
        _ => 250,
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..sessions)
            .map(|session| {
                let (barrier, port) = (&barrier, contestant.service.port);
                scope.spawn(move || {
                    let name = match mail {
                        Mail::Whitelisted => "mail.white.example",
                        Mail::New | Mail::Early => "mail.grey.example",
                    };
                    let mut smtp = Smtp::appear_as(port, &format!("198.18.{session}.7"), name);
                    let mut number = 0;
                    let mut next = || -> io::Result<()> {
                        let sender = match mail {
                            Mail::New => format!("n{serial}x{number}@s.example"),
                            _ => format!("e{}@s.example", number % 50),
                        };
                        number += 1;
                        let reply = smtp.offer(&sender, "user@example.org");
                        match reply.code == expected {
                            true => Ok(()),
                            false => Err(io::Error::other(format!("not {expected}: {reply}"))),
                        }
                    };
                    // Postfix starts the processes for it.
                    let first = next();
                    // The others wait here, whatever the reply was.
                    barrier.wait();
                    barrier.wait();
                    first?;
                    let start = Instant::now();
                    let mut count = 0;
                    while start.elapsed() < time {
                        next()?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        barrier.wait();
        let (before, start) = (spent(), Instant::now());
        barrier.wait();
        let counts = threads.into_iter().map(|thread| thread.join().unwrap());
        let count = counts.sum::<io::Result<u32>>()?;
        let seconds = start.elapsed().as_secs_f64();
        Ok(Run {
            rate: f64::from(count) / seconds,
            cost: (spent()? - before?) / f64::from(count),
        })
    })
}

fn print_row(what: &str, own: &[Run], original: Option<&[Run]>) {
    let microseconds = || own.iter().map(|run| run.cost * 1e6);
    // The other way round than elsewhere: how often it goes into the original's.
    let ratio = original.map_or("-".into(), |original| {
        let ratios = original.iter().zip(own);
        format!(
            "1/{:.1}",
            median(ratios.map(|(original, own)| original.cost / own.cost))
        )
    });
    println!(
        "| {what} | {:.0} | {:.0} | {:.0} | {:.0} | {ratio} |",
        median(own.iter().map(|run| run.rate)),
        median(microseconds()),
        microseconds().fold(f64::INFINITY, f64::min),
        microseconds().fold(0.0, f64::max),
    );
}
