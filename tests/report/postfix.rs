//! Real Postfixes ask built servers; the report on all their logs, on that of Postfix
//! alone, and beside a database tells what the SMTP clients were told.
//!
//! `POSTGREY_REPORT_RCPTS` is how many recipients are named; with 620000 the logs have a
//! million lines.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;

use super::common_server::{PATIENCE, Server, free_port, test_dir};
use super::count;
use super::instance::{Postfix, Service, smtpd_entries};
use super::machine::{is_root, skip, tell};
use super::mails::{self, Client, DELAY, Server as Kind};
use super::million::keep;
use super::random::{Random, number_from};
use super::traffic::Event;
use super::{report, summary};

/// What goes on for long in one session is no mistake here, and each client may be
/// followed by another one.
const LIMITS: &str = "\
    smtpd_authorized_xclient_hosts = static:all\n\
    smtpd_soft_error_limit = 1000000000\n\
    smtpd_hard_error_limit = 1000000000\n\
    smtpd_junk_command_limit = 1000000000\n\
    virtual_mailbox_domains = one.test two.test three.test\n";

fn options(dir: &Path, kind: Kind) -> Vec<String> {
    let own: &[&str] = match kind {
        Kind::Listing => &["--auto-whitelist-clients=1"],
        Kind::Plain => &["--auto-whitelist-clients=0"],
        Kind::Tarpit => &["--targrey", "--tarpit=1", "--log-tarpit"],
    };
    let mut words: Vec<String> = own.iter().map(|&word| word.to_owned()).collect();
    words.push(format!("--delay={DELAY}"));
    words.extend(
        [
            "--log-time",
            "--sync=none",
            "--greylist-text=Greylisted for %s",
        ]
        .map(str::to_owned),
    );
    for (name, text) in [
        ("clients", "white.example\n"),
        ("recipients", "postmaster@\n"),
    ] {
        let list = dir.join(format!("white-{name}"));
        fs::write(&list, text).unwrap();
        words.push(format!("--whitelist-{name}={}", list.display()));
    }
    words
}

/// What all clients were told, and the logs of it.
struct Played {
    clients: Vec<Client>,
    events: Vec<Event>,
    /// Of the servers, and of Postfix.
    logs: Vec<PathBuf>,
    /// Of the first two servers.
    databases: Vec<PathBuf>,
}

fn play(home: &Path, random: &mut Random, count: usize) -> Played {
    let mut clients = mails::make(random, count);
    let kinds = [Kind::Listing, Kind::Plain, Kind::Tarpit];
    let mut servers = Vec::new();
    let mut services = Vec::new();
    for (index, kind) in kinds.into_iter().enumerate() {
        let dir = home.join(format!("server{index}"));
        fs::create_dir(&dir).unwrap();
        let words = options(&dir, kind);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let server = Server::start(&dir, &words);
        let policy = format!("check_policy_service unix:{}", server.socket.display());
        services.push(match kind {
            Kind::Tarpit => Service::at_rcpt_and_data(free_port(), &policy),
            _ => Service::at_rcpt(free_port(), &policy),
        });
        servers.push(server);
    }
    let services: Vec<&Service> = services.iter().collect();
    let folder = home.join("postfix");
    fs::create_dir(&folder).unwrap();
    let postfix = Postfix::set_up(&folder, LIMITS, &smtpd_entries(&services));
    postfix.begin();
    let port_of = |kind| services[kinds.iter().position(|own| *own == kind).unwrap()].port;
    let start = Instant::now();
    mails::send(&mut clients, 0, &port_of);
    std::thread::sleep(Duration::from_secs(DELAY + 1));
    mails::send(&mut clients, 1, &port_of);
    let time = start.elapsed();
    // Postfix notices later that a client has hung up.
    let broken_off: usize = clients.iter().map(|client| client.broken_off).sum();
    let maillog = folder.join("maillog");
    let start = Instant::now();
    let noticed = || {
        let text = fs::read(&maillog).unwrap_or_default();
        memchr::memmem::find_iter(&text, ": lost connection after ").count()
    };
    while noticed() < broken_off && start.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(200));
    }
    drop(postfix);
    let mut logs = Vec::new();
    let mut databases = Vec::new();
    for server in &mut servers {
        assert!(server.stop().success());
        logs.push(server.log.clone());
        databases.push(server.dbdir.clone());
    }
    logs.push(maillog);
    let events: Vec<Event> = clients
        .iter()
        .flat_map(|client| client.events.clone())
        .collect();
    let seconds = time.as_secs_f64();
    tell(&format!(
        "report: {} recipients through Postfix in {seconds:.1} s",
        events.len()
    ));
    Played {
        clients,
        events,
        logs,
        databases,
    }
}

fn is_greylisted(event: &Event) -> bool {
    event.kind().0 == "greylist"
}

/// Triplets that were greylisted, as lines of the report, but for those that have come
/// back by some request that passed.
fn fatal(clients: &[Client], has_come_back: impl Fn(&Client, &Event) -> bool) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for client in clients {
        for event in client.events.iter().filter(|event| is_greylisted(event)) {
            let own = client.events.iter();
            let own = own.filter(|other| other.triplet() == event.triplet());
            let (tries, passed): (Vec<&Event>, Vec<&Event>) =
                own.partition(|event| is_greylisted(event));
            let has_come_back = passed.iter().any(|event| has_come_back(client, event));
            if event.sender.is_empty() || has_come_back {
                continue;
            }
            let name = match event.name.as_str() {
                "[UNAVAILABLE]" => "unknown",
                name => name,
            };
            lines.insert(format!(
                "{}\t{}\t{name}\t{}\t{}",
                tries.len(),
                event.client,
                event.sender,
                event.recipient
            ));
        }
    }
    lines
}

#[test]
fn the_logs_of_real_postfixes_and_servers_agree() {
    if !Path::new("/usr/sbin/postfix").exists() || !is_root() {
        return skip("postfix, or root", "the report on its log");
    }
    let seed = Random::choose_seed();
    let count = number_from("POSTGREY_REPORT_RCPTS", 1500) as usize;
    tell(&format!("report: seed {seed}, {count} recipients"));
    let dir = test_dir();
    let played = play(dir.path(), &mut Random::new(seed), count);
    let Played {
        clients,
        events,
        logs,
        databases,
    } = &played;
    keep(logs);
    let logs: Vec<&str> = logs.iter().map(|log| log.to_str().unwrap()).collect();
    let broken_off = clients.iter().map(|client| client.broken_off).sum();
    let start = Instant::now();
    let found = summary(&logs, b"");
    let (time, lines) = (start.elapsed().as_secs_f64(), &found["lines"]["read"]);
    tell(&format!(
        "report: {lines} lines with those of Postfix in {time:.2} s"
    ));
    count::check_total(&found, events, broken_off);
    assert_eq!(found["notes"], json!([]));
    // Of Postfix alone: what it has refused, and no more.
    let alone = summary(&logs[3..], b"");
    let refused: Vec<&Event> = events.iter().filter(|event| is_greylisted(event)).collect();
    let clients_of: BTreeSet<&str> = refused.iter().map(|event| event.client.as_str()).collect();
    let triplets: BTreeSet<_> = refused.iter().map(|event| event.triplet()).collect();
    let total = &alone["total"];
    assert_eq!(
        total["answers"],
        json!({"greylist": {"told by Postfix": refused.len()}})
    );
    assert_eq!(
        [&total["clients"], &total["triplets"], &total["put_off"]],
        [clients_of.len(), triplets.len(), triplets.len()]
            .map(|number| json!(number))
            .each_ref()
    );
    // Who never came back, by the logs alone, and by each database and Postfix' log.
    let told = |words: &[&str], logs: &[&str]| -> BTreeSet<String> {
        let words = [&["--tab", "--show_tries"], words, logs].concat();
        let ran = report(&words, b"");
        assert_eq!(ran.status, 0, "{}", ran.stderr);
        ran.text().lines().map(str::to_owned).collect()
    };
    assert_eq!(told(&[], &logs), fatal(clients, |_, _| true));
    for (kind, database) in [Kind::Listing, Kind::Plain].into_iter().zip(databases) {
        let (db, delay) = (database.to_str().unwrap(), format!("--delay={DELAY}"));
        // What passed by the auto-whitelist has left no use in the record.
        let is_used = |event: &Event| event.kind().1 == "triplet found";
        let expected = fatal(clients, |client, event| {
            client.server == kind && is_used(event)
        });
        assert_eq!(told(&["--dbdir", db, &delay], &logs[3..]), expected);
    }
}
