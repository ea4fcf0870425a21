//! How long a first mail is delayed that a pool of servers tries again from a random
//! member each time, by look-up; and what a botnet gets through.
//!
//! cargo bench --bench pools
//!
//! A simulation: the policy of the server with a store in memory, in the time of the
//! model, from a fixed seed; the figures are the same at each run. The model: a mail is
//! tried at the times of a schedule, each time from a member of the pool chosen at
//! random, until it is let in. The members are spread evenly over networks of 256
//! addresses. The database knows nothing before. All else is the default: a delay of
//! 300 s, one retry after it.

#![allow(
    clippy::expect_used,
    reason = "a benchmark that cannot go on should stop"
)]

use std::net::Ipv4Addr;

use postgrey::policy::command::{Outcome, Verdict};
use postgrey::policy::decide::{Examined, Policy, Whitelists};
use postgrey::policy::pool::Pools;
use postgrey::policy::request::{Attribute, Request};
use postgrey::policy::rules::{Lookup, Rules, Texts};
use postgrey::policy::triplet::Keys;
use postgrey::store::Store;
use postgrey::store::memory::MemoryStore;

#[path = "../tests/common/random.rs"]
mod random;
use random::Random;

const SEED: u64 = 20_261_130;
/// Mails of a case.
const MAILS: usize = 1000;
const HOUR: f64 = 3600.0;
/// Nobody tries for longer here.
const END: f64 = 24.0 * HOUR;
const BEGIN: f64 = 1_800_000_000.0;
/// Lines of a botnet, and the time in which all of them have tried.
const LINES: usize = 1000;
const ATTACK: f64 = HOUR;

/// How a client is known.
const LOOKUPS: [&str; 3] = ["host", "network", "domain"];

fn policy(lookup: &str) -> Policy {
    let rules = Rules {
        lookup: match lookup {
            "host" => Lookup::Host,
            _ => Lookup::Subnet,
        },
        by_domain: lookup == "domain",
        ..Rules::default()
    };
    let mut pools = Pools::default();
    pools.add_file("pools", b"example.com\n");
    Policy {
        whitelists: Whitelists {
            pools: rules.by_domain.then_some(pools),
            ..Whitelists::new(rules.compat)
        },
        rules,
        texts: Texts::default(),
        is_dry_run: false,
    }
}

/// True if the mail of this number is let in.
fn passes(
    policy: &Policy,
    store: &mut MemoryStore,
    (name, address): (&str, Ipv4Addr),
    mail: usize,
    time: f64,
) -> bool {
    let mut request = Request::default();
    for (attribute, value) in [
        (Attribute::ClientName, name.to_owned()),
        (Attribute::ClientAddress, address.to_string()),
        (Attribute::Sender, format!("s{mail}x@sender.example")),
        (Attribute::Recipient, "user@example.org".into()),
    ] {
        request.set(attribute, value.as_bytes());
    }
    let mut keys = Keys::default();
    let Examined::NeedsStore(command) = policy.examine(&request, BEGIN + time, &mut keys) else {
        return true;
    };
    let mut outcomes: Vec<Option<Outcome>> = Vec::new();
    let applied = store.apply_batch(&policy.rules, &[command], &mut outcomes);
    assert!(applied.is_ok());
    let is_greylisted = |outcome: Outcome| matches!(outcome.verdict, Verdict::Greylist { .. });
    outcomes[0].is_some_and(|outcome| !is_greylisted(outcome))
}

/// The times of tries in seconds.
fn schedule(name: &str) -> Vec<f64> {
    let minutes: Vec<f64> = match name {
        // minimal_backoff_time 300 s, doubled with the age up to 4000 s.
        "Postfix" => {
            let (mut times, mut time) = (Vec::new(), 0.0);
            while time < END {
                times.push(time / 60.0);
                time += f64::clamp(time, 300.0, 4000.0);
            }
            times
        }
        // F,2h,15m; G,16h,1h,1.5; F,4d,6h.
        "Exim" => {
            let mut times: Vec<f64> = (0..=8).map(|n| f64::from(n) * 15.0).collect();
            let (mut time, mut step) = (120.0, 60.0);
            while time < 16.0 * 60.0 {
                time += step;
                step *= 1.5;
                times.push(time);
            }
            times.push(time + 360.0);
            times
        }
        // A queue runner every half hour.
        "sendmail" => (0..48).map(|n| f64::from(n) * 30.0).collect(),
        // Short at first, for hours only.
        "provider" => vec![0.0, 1.0, 5.0, 15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 960.0],
        _ => Vec::new(),
    };
    let seconds = minutes.into_iter().map(|minutes| minutes * 60.0);
    seconds.filter(|&seconds| seconds <= END).collect()
}

/// Member `index` of a pool over so many networks.
fn member(index: usize, networks: usize) -> (String, Ipv4Addr) {
    let (network, host) = (index % networks, index / networks);
    let address = Ipv4Addr::new(198, 18, network as u8, host as u8 + 1);
    (format!("out{index}x.mail.example.com"), address)
}

/// Seconds of delay of each mail, sorted; infinite for one that was not let in.
fn delays(lookup: &str, tries: &[f64], members: usize, networks: usize) -> Vec<f64> {
    let mut random = Random::new(SEED);
    let policy = policy(lookup);
    let one = |mail: usize| {
        // Each mail meets a database that knows nothing of the pool.
        let mut store = MemoryStore::default();
        let passed = tries.iter().copied().find(|&time| {
            let (name, address) = member(random.below(members), networks);
            passes(&policy, &mut store, (&name, address), mail, time)
        });
        passed.unwrap_or(f64::INFINITY)
    };
    let mut delays: Vec<f64> = (0..MAILS).map(one).collect();
    delays.sort_by(f64::total_cmp);
    delays
}

/// How many of a botnet's tries are let in.
fn botnet(lookup: &str, name_of: fn(Ipv4Addr) -> String) -> usize {
    let mut random = Random::new(SEED);
    let policy = policy(lookup);
    let mut store = MemoryStore::default();
    let mut tries: Vec<(f64, Ipv4Addr)> = (0..LINES)
        .map(|line| {
            let address = Ipv4Addr::new(198, 19, (line % 250) as u8, (line / 250) as u8 * 60 + 7);
            (random.below(ATTACK as usize) as f64, address)
        })
        .collect();
    tries.sort_by(|a, b| a.0.total_cmp(&b.0));
    let let_in = |&&(time, address): &&(f64, Ipv4Addr)| {
        passes(&policy, &mut store, (&name_of(address), address), 0, time)
    };
    tries.iter().filter(let_in).count()
}

fn shown(seconds: f64) -> String {
    match seconds {
        seconds if seconds.is_infinite() => "never".into(),
        seconds if seconds < 2.0 * HOUR => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / HOUR),
    }
}

fn main() {
    println!("| schedule | members | networks | by host | by network | by domain |");
    println!("|---|---|---|---|---|---|");
    for name in ["Postfix", "Exim", "sendmail", "provider"] {
        let tries = schedule(name);
        for (members, networks) in [(1, 1), (10, 1), (10, 4), (100, 1), (100, 4), (100, 50)]
            .into_iter()
            // 1000 do not fit into one network.
            .chain([(1000, 4), (1000, 50)])
        {
            let cells: Vec<String> = LOOKUPS
                .iter()
                .map(|lookup| {
                    let delays = delays(lookup, &tries, members, networks);
                    let at = |percent: usize| shown(delays[MAILS * percent / 100]);
                    let lost = |limit: f64| {
                        let count = delays.iter().filter(|&&delay| delay > limit).count();
                        count as f64 * 100.0 / MAILS as f64
                    };
                    format!(
                        "{} / {} / {}, {:.1} % / {:.1} %",
                        at(50),
                        at(90),
                        at(99),
                        lost(4.0 * HOUR),
                        lost(END)
                    )
                })
                .collect();
            println!(
                "| {name} | {members} | {networks} | {} |",
                cells.join(" | ")
            );
        }
    }
    println!("\n(delay p50 / p90 / p99, not let in after 4 h / 24 h)\n");
    println!(
        "| {LINES} lines of a provider, one triplet, one try each | by host | by network | by domain |"
    );
    println!("|---|---|---|---|");
    let hidden: fn(Ipv4Addr) -> String = |address| {
        let number = u32::from(address) % 100_000;
        format!("dsl{number}.lines.example")
    };
    let plain: fn(Ipv4Addr) -> String =
        |address| format!("h-{}.lines.example", address.to_string().replace('.', "-"));
    for (what, name_of) in [("names hold the address", plain), ("names hide it", hidden)] {
        let counts: Vec<String> = LOOKUPS
            .iter()
            .map(|lookup| botnet(lookup, name_of).to_string())
            .collect();
        println!("| let in, {what} | {} |", counts.join(" | "));
    }
}
