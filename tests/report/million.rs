//! Every number of the summary against a count of the requests that were sent and the
//! answers that came, through real servers.
//!
//! `POSTGREY_REPORT_REQUESTS` is how many; with a million, time and memory are told.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use super::common_server::{Server, test_dir, wait_until};
use super::count::check;
use super::machine::{skip, tell};
use super::random::{Random, number_from};
use super::traffic::{self, Event, START};
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
pub fn keep(logs: &[PathBuf]) {
    if let Some(folder) = std::env::var_os("POSTGREY_REPORT_KEEP") {
        for (index, log) in logs.iter().enumerate() {
            let name = format!("{index}.{}", log.file_name().unwrap().display());
            fs::copy(log, Path::new(&folder).join(name)).unwrap();
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
