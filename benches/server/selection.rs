//! What is measured: the default, or what the arguments choose.

use crate::servers::{Program, Setup, Transport};
use crate::traffic::{MIXES, Mix};

/// One table: each server under each load.
#[derive(Clone, Debug)]
pub struct Table {
    pub title: &'static str,
    /// Mix and number of connections.
    pub rows: Vec<(Mix, usize)>,
    /// The first is what the others are compared with.
    pub setups: Vec<Setup>,
}

/// Everything that is to be done.
#[derive(Clone, Debug)]
pub struct Selection {
    pub tables: Vec<Table>,
    pub has_storm: bool,
    pub has_expiry: bool,
    /// Several hosts on Redis.
    pub has_redis: bool,
    /// How many triplets a flood has.
    pub flood: Option<u64>,
    /// Numbers of SMTP sessions behind a real Postfix.
    pub sessions: Vec<usize>,
    /// How its smtpds come to the server.
    pub session_transports: Vec<Transport>,
    pub rounds: usize,
    pub seconds: f64,
}

/// How the arguments are read, for whoever gets them wrong.
pub const USAGE: &str = "arguments, each a list with commas:
  new,early,pass,known,awl,whitelist,real   mixes (real: 70/10/5/5/5/5 %)
  1,16,100,200                              connections
  tcp,unix                                  transports
  postgrey,null,original                    servers
  workers=1,2,4,8   sync=commit,none   triplets=0,1000000   idle=0,2000
  storm   expiry   redis   flood=1000000   sessions=10,50 (behind Postfix)   all
  rounds=5   seconds=0.5";

/// The selection of these arguments; none: the default one.
pub fn select(arguments: &[String]) -> Result<Selection, String> {
    let mut selection = Selection {
        tables: Vec::new(),
        has_storm: false,
        has_expiry: false,
        has_redis: false,
        flood: None,
        sessions: Vec::new(),
        session_transports: vec![Transport::Tcp],
        rounds: 5,
        seconds: 0.5,
    };
    let mut axes = Axes::default();
    for argument in arguments {
        let (name, values) = argument.split_once('=').unwrap_or(("", argument));
        for value in values.split(',') {
            let is_known = match (name, value) {
                ("", "storm") => set(&mut selection.has_storm),
                ("", "expiry") => set(&mut selection.has_expiry),
                #[cfg(feature = "redis")]
                ("", "redis") => set(&mut selection.has_redis),
                ("", "all") => axes.take_all(),
                ("flood", _) => value
                    .parse()
                    .is_ok_and(|n| put(&mut selection.flood, Some(n))),
                ("sessions", _) => add_sessions(&mut selection.sessions, value),
                ("rounds", _) => value.parse().is_ok_and(|n| put(&mut selection.rounds, n)),
                ("seconds", _) => value.parse().is_ok_and(|n| put(&mut selection.seconds, n)),
                _ => axes.take(name, value),
            };
            if !is_known {
                return Err(format!("{argument}: what is {value}?\n{USAGE}"));
            }
        }
    }
    selection.rounds = selection.rounds.max(1);
    if !selection.sessions.is_empty() && axes.has_transports_alone() {
        selection.session_transports = std::mem::take(&mut axes.transports);
    }
    if axes != Axes::default() {
        selection.tables.push(axes.table());
    } else if !selection.has_storm
        && !selection.has_expiry
        && !selection.has_redis
        && selection.flood.is_none()
        && selection.sessions.is_empty()
    {
        selection.tables = default_tables();
        (selection.has_storm, selection.has_expiry) = (true, true);
        selection.sessions = vec![50];
    }
    for table in &mut selection.tables {
        table.setups.retain(|setup| setup.program.is_there());
    }
    Ok(selection)
}

fn set(switch: &mut bool) -> bool {
    *switch = true;
    true
}

/// As many as Postfix has processes for, and addresses are made for.
fn add_sessions(list: &mut Vec<usize>, value: &str) -> bool {
    let sessions = value
        .parse::<usize>()
        .ok()
        .filter(|n| (1..=200).contains(n));
    list.extend(sessions);
    sessions.is_some()
}

fn put<T>(place: &mut T, value: T) -> bool {
    *place = value;
    true
}

/// Lists whose product is measured; an empty one stands for its default.
#[derive(Clone, Debug, Default, PartialEq)]
struct Axes {
    mixes: Vec<Mix>,
    connections: Vec<usize>,
    transports: Vec<Transport>,
    programs: Vec<Program>,
    workers: Vec<usize>,
    is_unsafe: Vec<bool>,
    triplets: Vec<u64>,
    idle: Vec<usize>,
}

impl Axes {
    /// False if there is no such thing.
    fn take(&mut self, name: &str, value: &str) -> bool {
        fn add<T>(list: &mut Vec<T>, value: Option<T>) -> bool {
            let is_known = value.is_some();
            list.extend(value);
            is_known
        }
        match name {
            "" => {
                let program = Program::ALL.iter().find(|(name, _)| *name == value);
                let transport = match value {
                    "tcp" => Some(Transport::Tcp),
                    "unix" => Some(Transport::Unix),
                    _ => None,
                };
                let connections = value.parse().ok().filter(|&n| (1..=10_000).contains(&n));
                add(&mut self.mixes, Mix::named(value))
                    || add(&mut self.programs, program.map(|(_, program)| *program))
                    || add(&mut self.transports, transport)
                    || add(&mut self.connections, connections)
            }
            "workers" => add(&mut self.workers, value.parse().ok()),
            "triplets" => add(&mut self.triplets, value.parse().ok()),
            "idle" => add(&mut self.idle, value.parse().ok()),
            "sync" => {
                let is_unsafe = match value {
                    "commit" => Some(false),
                    "none" => Some(true),
                    _ => None,
                };
                add(&mut self.is_unsafe, is_unsafe)
            }
            _ => false,
        }
    }

    /// True if nothing was chosen but how clients come to a server.
    fn has_transports_alone(&self) -> bool {
        let transports = self.transports.clone();
        let alone = Axes {
            transports,
            ..Axes::default()
        };
        !self.transports.is_empty() && *self == alone
    }

    fn take_all(&mut self) -> bool {
        self.mixes = MIXES.to_vec();
        self.connections = vec![1, 16, 100, 200];
        self.transports = vec![Transport::Tcp, Transport::Unix];
        true
    }

    fn table(self) -> Table {
        fn or<T>(list: Vec<T>, default: impl IntoIterator<Item = T>) -> Vec<T> {
            match list.is_empty() {
                true => default.into_iter().collect(),
                false => list,
            }
        }
        let mixes = or(self.mixes, Mix::named("new"));
        let connections = or(self.connections, [16]);
        let transports = or(self.transports, [Transport::Tcp]);
        let programs = or(self.programs, Program::ALL.map(|(_, program)| program));
        let workers: Vec<Option<usize>> = or(self.workers.into_iter().map(Some).collect(), [None]);
        let is_unsafe = or(self.is_unsafe, [false]);
        let triplets = or(self.triplets, [0]);
        let idle = or(self.idle, [0]);
        let mut setups = Vec::new();
        for program in programs {
            for &transport in &transports {
                let plain = Setup {
                    transport,
                    ..Setup::of(program)
                };
                if program != Program::Postgrey {
                    setups.push(plain);
                    continue;
                }
                for &workers in &workers {
                    for &is_unsafe in &is_unsafe {
                        for &triplets in &triplets {
                            setups.extend(idle.iter().map(|&idle| Setup {
                                workers,
                                is_unsafe,
                                triplets,
                                idle,
                                ..plain.clone()
                            }));
                        }
                    }
                }
            }
        }
        let rows = mixes
            .iter()
            .flat_map(|&mix| connections.iter().map(move |&number| (mix, number)))
            .collect();
        Table {
            title: "The chosen ones",
            rows,
            setups,
        }
    }
}

/// What tells most in five minutes.
fn default_tables() -> Vec<Table> {
    let rows = |list: &[(&str, usize)]| {
        list.iter()
            .filter_map(|&(name, connections)| Some((Mix::named(name)?, connections)))
            .collect()
    };
    let postgrey = Setup::of(Program::Postgrey);
    let kinds = Table {
        title: "Kinds of mail and numbers of connections",
        rows: rows(&[
            ("new", 1),
            ("new", 16),
            ("new", 100),
            ("known", 16),
            ("awl", 16),
            ("whitelist", 16),
            ("real", 16),
            ("real", 200),
        ]),
        setups: Program::ALL.map(|(_, program)| Setup::of(program)).into(),
    };
    let variants = Table {
        title: "Our server under other conditions",
        rows: rows(&[("new", 16), ("awl", 16)]),
        setups: vec![
            postgrey.clone(),
            Setup {
                transport: Transport::Unix,
                ..postgrey.clone()
            },
            Setup {
                workers: Some(1),
                ..postgrey.clone()
            },
            Setup {
                workers: Some(2),
                ..postgrey.clone()
            },
            Setup {
                is_unsafe: true,
                ..postgrey.clone()
            },
            Setup {
                triplets: 1_000_000,
                ..postgrey.clone()
            },
            Setup {
                idle: 2000,
                ..postgrey
            },
        ],
    };
    vec![kinds, variants]
}
