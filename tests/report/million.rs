//! Every number of the summary against a count of the requests that were sent and the
//! answers that came, through real servers.
//!
//! `POSTGREY_REPORT_REQUESTS` is how many; with a million, time and memory are told.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::common_server::{Server, test_dir, wait_until};
use super::machine::{skip, tell};
use super::random::{Random, number_from};
use super::traffic::{self, Event, Kind, START};
use super::{command, summary};

/// Connections at once, and requests that are sent before their answers are read.
const MANY: (usize, usize) = (8, 64);
/// The original takes attributes of one request for those of the next.
const ONE: (usize, usize) = (1, 1);

/// Sends the requests of many clients, those of each in their order; all of them with
/// their answers, in the order of time within a connection.
fn ask(
    socket: &Path,
    clients: Vec<Vec<Event>>,
    (connections, batch): (usize, usize),
) -> Vec<Event> {
    let mut shares: Vec<Vec<Event>> = vec![Vec::new(); connections];
    for (index, own) in clients.into_iter().enumerate() {
        shares[index % connections].extend(own);
    }
    let mut first = 0;
    let mut firsts = Vec::new();
    for share in &mut shares {
        share.sort_by_key(|event| event.time);
        firsts.push(first);
        first += share.len();
    }
    std::thread::scope(|scope| {
        for (share, first) in shares.iter_mut().zip(&firsts) {
            scope.spawn(move || {
                let mut stream = BufReader::new(UnixStream::connect(socket).unwrap());
                let mut line = String::new();
                let mut number = *first;
                for batch in share.chunks_mut(batch) {
                    let mut text = String::new();
                    for event in batch.iter() {
                        text.push_str(&event.request(number));
                        number += 1;
                    }
                    stream.get_mut().write_all(text.as_bytes()).unwrap();
                    for event in batch {
                        line.clear();
                        stream.read_line(&mut line).unwrap();
                        event.reply = line.trim_end().strip_prefix("action=").unwrap().into();
                        line.clear();
                        stream.read_line(&mut line).unwrap();
                    }
                }
            });
        }
    });
    shares.concat()
}

/// Lists in a folder that is made, as options.
fn lists(dir: &Path) -> Vec<String> {
    fs::create_dir(dir).unwrap();
    let lists = [
        ("whitelist-clients", "white.example\n"),
        ("whitelist-recipients", "postmaster@\n"),
    ];
    let mut words = Vec::new();
    for (name, text) in lists {
        fs::write(dir.join(name), text).unwrap();
        words.push(format!("--{name}={}", dir.join(name).display()));
    }
    words.extend(
        [
            "--greylist-text=Greylisted for %s",
            "--auto-whitelist-clients=2",
        ]
        .map(str::to_owned),
    );
    words
}

/// Starts a server, has it answer, and writes its log.
pub fn play(dir: &Path, options: &[&str], clients: Vec<Vec<Event>>, log: &Path) -> Vec<Event> {
    let words = lists(dir);
    let pools = dir.join("pools");
    fs::write(&pools, "google.com\n").unwrap();
    let pools = format!("--pool-domains={}", pools.display());
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words.extend([pools.as_str(), "--sync=none", "--workers=2"]);
    words.extend(options);
    let mut server = Server::start(dir, &words);
    let events = ask(&server.socket, clients, MANY);
    assert!(server.stop().success());
    fs::write(log, traffic::log(&server.log_text(), &events)).unwrap();
    events
}

#[test]
fn the_log_of_the_original_gives_the_same_numbers() {
    const ORIGINAL: &str = "/usr/sbin/postgrey";
    if !Path::new(ORIGINAL).exists() || !super::machine::is_root() {
        return skip("postgrey of the original, or root", "its log");
    }
    let seed = Random::choose_seed();
    tell(&format!("report: seed {seed}, the original"));
    let dir = test_dir();
    let (socket, log) = (dir.path().join("run/s"), dir.path().join("log"));
    let said = dir.path().join("said");
    let mut child = Command::new(ORIGINAL)
        .arg(format!("--unix={}", socket.display()))
        .arg(format!("--dbdir={}", dir.path().join("db").display()))
        .args(["--user=nobody", "--group=nogroup"])
        .args(lists(&dir.path().join("lists")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    wait_until("the original to serve", || {
        UnixStream::connect(&socket).is_ok()
    });
    let clients = traffic::make(&mut Random::new(seed), 1500, 0, false);
    let events = ask(&socket, clients, ONE);
    child.kill().unwrap();
    child.wait().unwrap();
    fs::write(
        &log,
        traffic::log(&fs::read_to_string(&said).unwrap(), &events),
    )
    .unwrap();
    let options = dir.path().join("db/postgrey.options");
    let pools = dir.path().join("lists/pools");
    fs::write(&pools, "google.com\n").unwrap();
    fs::write(
        options,
        format!("--pool-domains={}\n--inet=1\n", pools.display()),
    )
    .unwrap();
    let db = dir.path().join("db");
    let found = summary(
        &[log.to_str().unwrap(), "--dbdir", db.to_str().unwrap()],
        b"",
    );
    check(&found, &events, 6);
}

/// What became of a triplet, by its requests.
#[derive(Default)]
struct Fate {
    began: u64,
    put_off: bool,
    delay: Option<u64>,
    client: String,
    name: String,
}

/// The fates of all triplets that were put off.
fn fates(events: &[Event]) -> Vec<((String, String, String), Fate)> {
    let mut by_triplet: HashMap<_, Vec<&Event>> = HashMap::new();
    let mut waits: HashMap<&str, Vec<u64>> = HashMap::new();
    for event in events {
        match event.is_data {
            true => waits.entry(&event.client).or_default().push(event.time),
            false => by_triplet.entry(event.triplet()).or_default().push(event),
        }
    }
    let mut fates = Vec::new();
    for (triplet, mut own) in by_triplet {
        own.sort_by_key(|event| event.time);
        let is_kind = |event: &Event, kind: &str| event.kind().0 == kind;
        let Some(begin) = own.iter().find(|event| !is_kind(event, "pass")) else {
            continue;
        };
        // A client waits right after it was told to.
        let has_waited = own.iter().any(|event| {
            let waits = waits.get(event.client.as_str()).into_iter().flatten();
            is_kind(event, "tarpit") && waits.into_iter().any(|wait| *wait == event.time + 125)
        });
        let was_greylisted = own.iter().any(|event| is_kind(event, "greylist"));
        let mut fate = Fate {
            began: begin.time,
            put_off: was_greylisted || !has_waited,
            client: own[0].client.clone(),
            name: own[0].name.clone(),
            ..Fate::default()
        };
        let pass = own
            .iter()
            .find(|event| event.time > fate.began && is_kind(event, "pass"));
        if let Some(pass) = pass.filter(|_| fate.put_off) {
            let new = own
                .iter()
                .filter(|event| event.kind() == ("greylist", "new") && event.time < pass.time);
            let since = new
                .map(|event| event.time)
                .max()
                .unwrap_or(0)
                .max(fate.began);
            fate.delay = Some(pass.time - since);
        }
        if fate.put_off {
            fates.push((triplet, fate));
        }
    }
    fates
}

fn percentile(delays: &[u64], percent: usize) -> Value {
    match delays.len() {
        0 => Value::Null,
        count => json!(delays[(count * percent).div_ceil(100).max(1) - 1]),
    }
}

/// The numbers of the events of a day, or of all.
fn numbers(
    day: Option<u64>,
    events: &[Event],
    fates: &[((String, String, String), Fate)],
    all_kinds: &BTreeSet<Kind>,
) -> Value {
    let day_of = |time: u64| (time - START) / 86_400;
    let is_own = |time: u64| day.is_none_or(|day| day_of(time) == day);
    let own: Vec<&Event> = events.iter().filter(|event| is_own(event.time)).collect();
    let mut answers: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for (action, reason) in all_kinds {
        answers.entry(action).or_default().insert(reason, 0);
    }
    for event in &own {
        let (action, reason) = event.kind();
        *answers.get_mut(action).unwrap().get_mut(reason).unwrap() += 1;
    }
    let clients: BTreeSet<&str> = own.iter().map(|event| event.client.as_str()).collect();
    let triplets: BTreeSet<_> = own
        .iter()
        .filter(|event| !event.is_data)
        .map(|event| event.triplet())
        .collect();
    let put_off: Vec<&Fate> = fates
        .iter()
        .map(|(_, fate)| fate)
        .filter(|fate| is_own(fate.began))
        .collect();
    let mut delays: Vec<u64> = put_off.iter().filter_map(|fate| fate.delay).collect();
    delays.sort_unstable();
    let held: Vec<&&Event> = own
        .iter()
        .filter(|event| event.kind().0 == "tarpit")
        .collect();
    let waits: BTreeSet<(&str, u64)> = events
        .iter()
        .filter(|event| event.is_data)
        .map(|event| (event.client.as_str(), event.time))
        .collect();
    let waited = held
        .iter()
        .filter(|event| waits.contains(&(event.client.as_str(), event.time + 125)))
        .count();
    // Who is on the auto-whitelist later was put there by the second pass: 400 or 125
    // seconds after its second triplet, at 5000.
    let mut whitelisted = BTreeMap::new();
    for event in events
        .iter()
        .filter(|event| event.passes_by != "client AWL")
    {
        let time = whitelisted.entry(event.client.as_str()).or_insert(0);
        *time = event.time.max(*time);
    }
    let listed: BTreeSet<&str> = events
        .iter()
        .filter(|event| event.passes_by == "client AWL")
        .map(|event| event.client.as_str())
        .collect();
    let whitelisted = listed
        .iter()
        .filter(|client| is_own(whitelisted[*client]))
        .count();
    let share = (!put_off.is_empty())
        .then(|| (delays.len() as f64 * 1000.0 / put_off.len() as f64).round() / 10.0);
    let label = day.map(|day| format!("2026-11-{:02}", 2 + day));
    json!({
        "period": label,
        "start": day.map(|day| START + day * 86_400),
        "requests": own.len(),
        "answers": answers,
        "clients": clients.len(),
        "triplets": triplets.len(),
        "put_off": put_off.len(),
        "came_back": delays.len(),
        "came_back_percent": share,
        "delay_p50": percentile(&delays, 50),
        "delay_p90": percentile(&delays, 90),
        "delay_p99": percentile(&delays, 99),
        "held": held.len(),
        "waited": waited,
        "gave_up": held.len() - waited,
        "auto_whitelisted": whitelisted,
        "broken_off": 0,
    })
}

/// The first ten of these names.
fn first<'n>(names: impl Iterator<Item = &'n str>) -> Value {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    let mut all: Vec<(&str, u64)> = counts.into_iter().collect();
    // Those of equal numbers stay in the order of their names.
    all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let told = all.into_iter().take(10);
    told.map(|(name, count)| json!({"name": name, "triplets": count}))
        .collect()
}

fn top(fates: &[((String, String, String), Fate)]) -> Value {
    let domain = |address: &str| address.rsplit('@').next().unwrap().to_owned();
    let named: Vec<(bool, [String; 4])> = fates
        .iter()
        .map(|((network, sender, recipient), fate)| {
            let names = [
                fate.client.clone(),
                network.clone(),
                domain(sender),
                domain(recipient),
            ];
            (fate.delay.is_some(), names)
        })
        .collect();
    let list = |which: usize, is_back: bool| {
        let own = named.iter().filter(|(back, _)| *back == is_back);
        first(own.map(|(_, names)| names[which].as_str()))
    };
    let both = |which| json!({"delayed": list(which, true), "never_came_back": list(which, false)});
    json!({"clients": both(0), "networks": both(1), "sender_domains": both(2), "recipient_domains": both(3)})
}

fn check(found: &Value, events: &[Event], kinds: usize) {
    let all_kinds: BTreeSet<Kind> = events.iter().map(Event::kind).collect();
    assert_eq!(all_kinds.len(), kinds, "{all_kinds:?}");
    let fates = fates(events);
    let days: BTreeSet<u64> = events
        .iter()
        .map(|event| (event.time - START) / 86_400)
        .collect();
    let periods = found["periods"].as_array().unwrap();
    assert_eq!(periods.len(), days.len());
    for (period, day) in periods.iter().zip(days) {
        assert_eq!(
            *period,
            numbers(Some(day), events, &fates, &all_kinds),
            "day {day}"
        );
    }
    assert_eq!(found["total"], numbers(None, events, &fates, &all_kinds));
    assert_eq!(found["top"], top(&fates));
    let large: Vec<&Fate> = fates
        .iter()
        .map(|(_, fate)| fate)
        .filter(|fate| fate.name.ends_with(".google.com") && fate.delay.is_some())
        .collect();
    let mut delays: Vec<u64> = large.iter().filter_map(|fate| fate.delay).collect();
    delays.sort_unstable();
    let clients: BTreeSet<&str> = large.iter().map(|fate| fate.client.as_str()).collect();
    assert_eq!(
        found["whitelist_candidates"],
        json!([{"domain": "google.com", "triplets_delayed": delays.len(), "clients": clients.len(), "delay_median": delays[(delays.len() - 1) / 2]}])
    );
    assert_eq!(found["lines"]["requests"], events.len());
    let times = events.iter().map(|event| event.time);
    assert_eq!(
        (&found["first"], &found["last"]),
        (&json!(times.clone().min()), &json!(times.max()))
    );
    // What has no tarpit says that it has none.
    let has_held = all_kinds.contains(&("tarpit", "new"));
    assert_eq!(
        found["notes"].as_array().unwrap().len(),
        usize::from(!has_held)
    );
}

#[test]
fn every_number_is_that_of_the_requests() {
    let seed = Random::choose_seed();
    let count = number_from("POSTGREY_REPORT_REQUESTS", 20_000) as usize;
    tell(&format!("report: seed {seed}, {count} requests"));
    let mut random = Random::new(seed);
    let dir = test_dir();
    let logs: Vec<PathBuf> = ["b", "a"].map(|name| dir.path().join(name)).to_vec();
    let plain = traffic::make(&mut random, count * 7 / 10, 0, false);
    let targrey = traffic::make(&mut random, count * 3 / 10, plain.len(), true);
    let mut events = play(&dir.path().join("plain"), &[], plain, &logs[0]);
    let options = ["--targrey", "--tarpit=125", "--log-tarpit"];
    events.extend(play(
        &dir.path().join("targrey"),
        &options,
        targrey,
        &logs[1],
    ));
    let db = dir.path().join("plain/db");
    let words = [
        logs[0].to_str().unwrap(),
        logs[1].to_str().unwrap(),
        "--dbdir",
        db.to_str().unwrap(),
    ];
    let start = Instant::now();
    let found = summary(&words, b"");
    let time = start.elapsed();
    check(&found, &events, 8);
    let lines = &found["lines"]["read"];
    let triplets = &found["total"]["triplets"];
    tell(&format!(
        "report: {lines} lines, {triplets} triplets in {:.2} s",
        time.as_secs_f64()
    ));
    if count >= 1_000_000 {
        keep(&logs);
    }
}

/// For measurements by hand.
fn keep(logs: &[PathBuf]) {
    if let Some(folder) = std::env::var_os("POSTGREY_REPORT_KEEP") {
        for log in logs {
            fs::copy(log, Path::new(&folder).join(log.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn memory_grows_with_triplets_and_not_with_lines() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let mut file = std::io::BufWriter::new(fs::File::create(&log).unwrap());
    let lines = 400_000_u64;
    for index in 0..lines {
        let own = index % 1000;
        writeln!(
            file,
            "{} mx postgrey[99]: action=pass, reason=triplet found, client_name=unknown, client_address=192.0.{}.{}, sender=someone@example.net, recipient=somebody@example.com",
            traffic::date(START + index),
            own / 250,
            own % 250
        )
        .unwrap();
    }
    drop(file);
    // Address space, in KiB: the program, its buffers, and room for a thousand triplets.
    let mut limited = Command::new("sh");
    limited
        .args(["-c", "ulimit -v 32768 && exec \"$@\"", "sh"])
        .arg(command(&[]).get_program())
        .args(["--summary", "--json", "--by=hour"])
        .arg(&log)
        .env("TZ", "UTC")
        .stdin(Stdio::null());
    let output = limited.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["total"]["requests"], lines);
    assert_eq!(found["total"]["triplets"], 4);
}
