//! `stats`: how much there is of everything.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::json;

use super::environment::server_of;
use super::failure::Failure;
use super::opened::Opened;
use super::options::Id;
use super::output::Output;
use super::progress::Progress;
use super::records::{each_record, short_name};
use super::server_options;
use super::state::{State, judge};
use super::words::Words;
use crate::config::settings::Settings;
use crate::policy::record::Database;
use crate::store::lmdb::{Reader, Space};
use crate::sys::clock;

/// Ages since the last use, in seconds, and what they are called.
const AGES: [(f64, &str); 5] = [
    (3600.0, "1h"),
    (86400.0, "1d"),
    (7.0 * 86400.0, "7d"),
    (35.0 * 86400.0, "35d"),
    (f64::INFINITY, "older"),
];

/// What was counted in one database.
#[derive(Clone, Copy, Default)]
struct Counts {
    states: [u64; 4],
    ages: [u64; AGES.len()],
    bad: u64,
}

impl Counts {
    fn records(&self) -> u64 {
        self.states.iter().sum::<u64>() + self.bad
    }
}

struct Stats {
    counts: [Counts; 3],
    /// `None` if the records are elsewhere.
    environment: Option<Environment>,
    server: Option<i32>,
    /// The options are those of sessions of spawn(8).
    is_spawned: bool,
}

/// A number: its name in JSON and for Prometheus, what it means, and itself.
type Number = (&'static str, &'static str, u64);

/// What there is to say of an environment.
struct Environment {
    space: Space,
    readers: Vec<Reader>,
    file_size: u64,
}

/// Counts and prints.
pub fn run(words: &Words) -> Result<(), Failure> {
    let settings = server_options::settings(words)?;
    let mut opened = Opened::for_reading(&settings)?;
    let stats = count(&mut opened, &settings)?;
    let mut output = Output::new();
    output.write(
        match (words.has(Id::Json), words.has(Id::Prometheus)) {
            (true, false) => json_line(&stats),
            (false, true) => prometheus(&stats),
            (false, false) => text(&stats),
            (true, true) => {
                return Err(Failure::usage(
                    "ERROR: --json and --prometheus exclude each other",
                ));
            }
        }
        .as_bytes(),
    )?;
    output.finish()
}

fn count(opened: &mut Opened, settings: &Settings) -> Result<Stats, Failure> {
    let now = clock::seconds();
    // First, since our own transactions are none of the server's.
    let environment = match opened {
        Opened::Lmdb(store) => Some(Environment {
            readers: store.readers()?,
            space: store.space()?,
            file_size: size_of(&settings.dbdir.join("data.mdb"))?,
        }),
        Opened::Redis(_) => None,
    };
    let mut progress = Progress::new("counting", opened.records()?);
    let store = opened.get();
    let mut counts = [Counts::default(); 3];
    for database in Database::ALL {
        let counts = &mut counts[database as usize];
        each_record(store, database, b"", &mut |record| {
            progress.add(1);
            let Some(judged) = judge(&settings.rules, database, &record.value, now) else {
                counts.bad += 1;
                return Ok(());
            };
            counts.states[judged.state as usize] += 1;
            let age = now - judged.last;
            let bucket = AGES.iter().position(|(limit, _)| age < *limit);
            counts.ages[bucket.unwrap_or(AGES.len() - 1)] += 1;
            Ok(())
        })?;
    }
    Ok(Stats {
        counts,
        environment,
        // Not to be known where the file system is read-only.
        server: server_of(&settings.dbdir).ok().flatten(),
        is_spawned: settings.spawn,
    })
}

fn size_of(file: &Path) -> Result<u64, Failure> {
    let found = std::fs::metadata(file).map_err(|error| Failure::file(file, &error))?;
    Ok(found.len())
}

impl Environment {
    fn reading(&self) -> impl Iterator<Item = u64> {
        let last = self.space.last_transaction;
        let behind = move |reader: &Reader| Some(last.saturating_sub(reader.transaction?));
        self.readers.iter().filter_map(behind)
    }

    /// How many commits the oldest read transaction has outlived.
    fn oldest(&self) -> u64 {
        self.reading().max().unwrap_or(0)
    }

    fn numbers(&self) -> [Number; 9] {
        let space = &self.space;
        [
            ("file_octets", "Size of data.mdb", self.file_size),
            ("map_octets", "Size to which it may grow", space.map_size),
            ("page_octets", "Size of a page", space.page_size),
            (
                "used_pages",
                "Pages of the file that were ever used",
                space.used_pages,
            ),
            (
                "free_pages",
                "Of these, pages that wait for new records",
                space.free_pages,
            ),
            (
                "transactions",
                "Number of the last transaction",
                space.last_transaction,
            ),
            (
                "readers",
                "Processes that have a slot for readers",
                self.readers.len() as u64,
            ),
            ("max_readers", "Slots for readers", space.max_readers),
            (
                "oldest_reader_transactions",
                "Commits that the oldest open read transaction has outlived",
                self.oldest(),
            ),
        ]
    }
}

impl Stats {
    fn numbers(&self) -> impl Iterator<Item = Number> {
        self.environment.iter().flat_map(Environment::numbers)
    }
}

fn text(stats: &Stats) -> String {
    let mut text = format!("{:10}{:>10}", "", "records");
    // Writing to a String cannot fail.
    for state in State::ALL {
        let _ = write!(text, "{:>10}", state.name());
    }
    let _ = write!(text, "{:>10}  last used:", "bad");
    for (_, age) in AGES {
        let _ = write!(text, "{age:>10}");
    }
    text.push('\n');
    for database in Database::ALL {
        let counts = &stats.counts[database as usize];
        let _ = write!(text, "{:10}{:>10}", short_name(database), counts.records());
        for count in counts.states.iter().chain([&counts.bad]) {
            let _ = write!(text, "{count:>10}");
        }
        text.push_str("            ");
        for count in counts.ages {
            let _ = write!(text, "{count:>10}");
        }
        text.push('\n');
    }
    text.push('\n');
    for (_, meaning, number) in stats.numbers() {
        let _ = writeln!(text, "{meaning}: {number}");
    }
    let server = match (stats.server, stats.is_spawned) {
        (Some(pid), _) => format!("process {pid}"),
        (None, true) => "sessions of spawn(8), as Postfix starts them".into(),
        (None, false) => "none".into(),
    };
    let _ = writeln!(text, "Server: {server}");
    text
}

fn json_line(stats: &Stats) -> String {
    let mut object = serde_json::Map::new();
    for database in Database::ALL {
        let counts = &stats.counts[database as usize];
        let states: serde_json::Map<_, _> = State::ALL
            .iter()
            .map(|state| {
                (
                    state.name().to_owned(),
                    json!(counts.states[*state as usize]),
                )
            })
            .collect();
        let ages: serde_json::Map<_, _> = AGES
            .iter()
            .zip(counts.ages)
            .map(|((_, age), count)| ((*age).to_owned(), json!(count)))
            .collect();
        object.insert(
            short_name(database).into(),
            json!({"records": counts.records(), "states": states, "bad": counts.bad, "last_used": ages}),
        );
    }
    for (name, _, number) in stats.numbers() {
        object.insert(name.into(), json!(number));
    }
    object.insert("server".into(), json!(stats.server));
    object.insert("spawn".into(), json!(stats.is_spawned));
    format!("{}\n", serde_json::Value::Object(object))
}

fn prometheus(stats: &Stats) -> String {
    let mut text = String::from(
        "# HELP postgrey_records Records by database and state.\n# TYPE postgrey_records gauge\n",
    );
    for database in Database::ALL {
        let counts = &stats.counts[database as usize];
        let states = State::ALL
            .iter()
            .map(|state| (state.name(), counts.states[*state as usize]));
        for (state, count) in states.chain([("bad", counts.bad)]) {
            let name = short_name(database);
            let _ = writeln!(
                text,
                "postgrey_records{{database=\"{name}\",state=\"{state}\"}} {count}"
            );
        }
    }
    text.push_str(
        "# HELP postgrey_records_last_used Records by the time since their last use.\n\
         # TYPE postgrey_records_last_used gauge\n",
    );
    for database in Database::ALL {
        for ((_, age), count) in AGES.iter().zip(stats.counts[database as usize].ages) {
            let name = short_name(database);
            let _ = writeln!(
                text,
                "postgrey_records_last_used{{database=\"{name}\",within=\"{age}\"}} {count}"
            );
        }
    }
    for (name, meaning, number) in stats.numbers() {
        let _ = writeln!(
            text,
            "# HELP postgrey_db_{name} {meaning}.\n# TYPE postgrey_db_{name} gauge\npostgrey_db_{name} {number}"
        );
    }
    text
}
