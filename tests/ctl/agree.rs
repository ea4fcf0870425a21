//! postgreyctl and the server go by the same options: whatever the server was
//! started with, what the one says is what the other does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use postgrey::policy::record::Database;
use postgrey::sys::clock;

use super::common_server::{Client, Server, spawn, test_dir};
use super::lists::LISTS;
use super::random::{Random, number_from};
use super::{ctl, records};

const CLIENTS: [&str; 4] = ["192.0.2.7", "192.0.2.91", "198.51.100.7", "2001:db8:1:2::7"];
const SENDERS: [&str; 3] = ["alice@example.net", "list-1234@example.net", ""];
/// Of a pool by its list, of a pool by its name, of a line.
const NAMES: [&str; 4] = [
    "unknown",
    "mail-ed1-f53.google.com",
    "mx.example.com",
    "h-2-7.example.com",
];
const RECIPIENT: &str = "bob@example.org";
const DAY: f64 = 86400.0;

/// Options that decide, and what they mean for the age of records.
struct Chosen {
    words: Vec<String>,
    delay: f64,
    max_age: f64,
    retry_window: f64,
}

impl Chosen {
    fn has(&self, word: &str) -> bool {
        self.words.iter().any(|own| own == word)
    }
}

fn choose(random: &mut Random) -> Chosen {
    let mut words = Vec::new();
    let (mut delay, mut max_age, mut retry_window) = (300.0, 35.0 * DAY, 2.0 * DAY);
    let number = |random: &mut Random, most| 1 + random.below(most);
    if random.percent(60) {
        let seconds = number(random, 7200);
        words.push(format!("--delay={seconds}"));
        delay = seconds as f64;
    }
    if random.percent(60) {
        let days = number(random, 90);
        words.push(format!("--max-age={days}"));
        max_age = days as f64 * DAY;
    }
    if random.percent(60) {
        let (count, is_hours) = (number(random, 40), random.percent(50));
        words.push(format!(
            "--retry-window={count}{}",
            if is_hours { "h" } else { "" }
        ));
        retry_window = count as f64 * if is_hours { 3600.0 } else { DAY };
    }
    for (percent, word) in [
        (30, format!("--retry-count={}", random.below(4))),
        (50, format!("--auto-whitelist-clients={}", random.below(4))),
        (
            30,
            format!("--auto-whitelist-delay={}", number(random, 7200)),
        ),
        (30, format!("--ipv4cidr={}", 8 + random.below(25))),
        (30, format!("--ipv6cidr={}", 32 + random.below(97))),
        (30, format!("--max-new={}", random.below(4))),
        (30, "--lookup-by-host".into()),
        (30, "--privacy".into()),
        (30, "--lookup-by-domain".into()),
        (15, "--s25r".into()),
        (40, "--targrey".into()),
        (50, "--tarpit-per-message".into()),
        (20, format!("--tarpit={}", number(random, 100))),
        (20, "--greylist-action=DEFER".into()),
        (20, "--greylist-text=Try again later --privacy, %s s".into()),
        (20, "--x-greylist-header=X-Waited: %t".into()),
    ] {
        if random.percent(percent) {
            words.push(word);
        }
    }
    if random.percent(40) {
        let compats = ["targrey-1.37", "postgrey-1.37", "targrey-1.34"];
        words.push(format!("--compat={}", random.pick(&compats)));
    }
    Chosen {
        words,
        delay,
        max_age,
        retry_window,
    }
}

/// A mail that is asked about.
#[derive(Clone, Copy, Debug)]
struct Mail {
    address: &'static str,
    name: &'static str,
    sender: &'static str,
    recipient: &'static str,
    state: &'static str,
}

/// An instance that no other mail has, as Postfix makes them.
fn new_instance() -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    format!("1a2b.{:x}.0", NUMBER.fetch_add(1, Ordering::Relaxed))
}

impl Mail {
    fn choose(random: &mut Random) -> Mail {
        Mail {
            address: random.pick::<&str>(&CLIENTS),
            name: random.pick::<&str>(&NAMES),
            sender: random.pick::<&str>(&SENDERS),
            recipient: RECIPIENT,
            state: if random.percent(20) { "DATA" } else { "RCPT" },
        }
    }

    fn ask(&self, client: &mut Client, time: f64) -> String {
        self.ask_of(&new_instance(), client, time)
    }

    fn ask_of(&self, instance: &str, client: &mut Client, time: f64) -> String {
        let time = format!("{time}");
        let reply = client.ask(&[
            ("client_address", self.address),
            ("client_name", self.name),
            ("sender", self.sender),
            ("recipient", self.recipient),
            ("instance", instance),
            ("protocol_state", self.state),
            ("policy_test_time", &time),
        ]);
        without_date(&reply)
    }

    /// What `explain` says.
    fn explain(&self, db: &Path, time: f64) -> Explained {
        let words = [
            format!("--client-address={}", self.address),
            format!("--client-name={}", self.name),
            format!("--sender={}", self.sender),
            format!("--recipient={}", self.recipient),
            format!("--state={}", self.state),
            format!("--at={time}"),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = ctl(db, &[&["explain"], &words[..]].concat());
        let is_told = |line: &str| line.ends_with(" whitelists it, and wins");
        assert!(ran.stderr.lines().all(is_told), "{}", ran.stderr);
        let text = ran.ok();
        let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
        Explained {
            reply: without_date(line("answer       action=").expect("an answer")),
            decision: line("decision     ").expect("a decision").to_owned(),
            triplet: line("greylist     ").unwrap_or_default().to_owned(),
            is_suspect: line("suspect      ").is_some(),
        }
    }
}

struct Explained {
    reply: String,
    decision: String,
    triplet: String,
    is_suspect: bool,
}

/// A header ends in the date of the machine's clock.
fn without_date(reply: &str) -> String {
    reply.split("; ").next().unwrap_or_default().to_owned()
}

fn is_held_back(reply: &str) -> bool {
    ["DEFER", "SLEEP", "451"]
        .iter()
        .any(|word| reply.starts_with(word))
}

/// What maintenance removes by these options.
fn expired(db: &Path, chosen: &Chosen, now: f64) -> BTreeSet<Vec<u8>> {
    let mut all = BTreeSet::new();
    for database in Database::ALL {
        for (key, value) in records(db, database) {
            let text = String::from_utf8(value).unwrap();
            let numbers: Vec<f64> = text
                .split(',')
                .filter_map(|part| part.parse().ok())
                .collect();
            let (last, limit) = match database {
                Database::Greylist if numbers[1] - numbers[0] < chosen.delay => {
                    (numbers[1], chosen.max_age.min(chosen.retry_window))
                }
                Database::Greylist => (numbers[1], chosen.max_age),
                Database::Clients => (numbers[1], chosen.max_age),
                Database::Tarpit => (numbers[0], chosen.retry_window),
            };
            if now - last > limit {
                all.insert([database.name().as_bytes(), &key].concat());
            }
        }
    }
    all
}

fn everything(db: &Path) -> BTreeSet<Vec<u8>> {
    let of = |database: Database| {
        let found = records(db, database).into_iter();
        found.map(move |(key, _)| [database.name().as_bytes(), &key].concat())
    };
    Database::ALL.into_iter().flat_map(of).collect()
}

#[test]
fn what_the_tool_says_the_server_does() {
    let seed = Random::choose_seed();
    let sets = number_from("POSTGREY_OPTION_SETS", 40);
    println!("POSTGREY_SEED={seed}");
    let mut random = Random::new(seed);
    for set in 0..sets {
        let mut chosen = choose(&mut random);
        println!("set {set}: {:?}", chosen.words);
        let dir = test_dir();
        if chosen.has("--lookup-by-domain") {
            let pools = dir.path().join("pools");
            fs::write(&pools, "google.com\n").unwrap();
            chosen
                .words
                .push(format!("--pool-domains={}", pools.display()));
        }
        for (option, texts) in LISTS {
            if random.percent(25) {
                let (file, text) = (dir.path().join(option), random.pick::<&str>(texts));
                fs::write(&file, text).unwrap();
                println!("--{option}: {text:?}");
                chosen.words.push(format!("--{option}={}", file.display()));
            }
        }
        let db = dir.path().join("db");
        let options: Vec<&str> = chosen.words.iter().map(String::as_str).collect();
        if set % 20 == 0 {
            let server = Server::start(dir.path(), &options);
            try_options(&mut random, &chosen, &db, &mut server.connect());
        } else {
            let mut spawned = spawn(dir.path(), &options);
            try_options(&mut random, &chosen, &db, &mut spawned.client);
            drop(spawned.client);
            spawned.child.wait().unwrap();
        }
    }
}

fn try_options(random: &mut Random, chosen: &Chosen, db: &Path, client: &mut Client) {
    let now = clock::seconds().floor();
    let mut time = now - 100.0 * DAY;
    // One that no list lets pass: there is a database then.
    let first = Mail {
        address: "203.0.113.77",
        name: "unknown",
        sender: "dave@example.net",
        recipient: "",
        state: "RCPT",
    };
    first.ask(client, time);
    for _ in 0..12 {
        let most = *random.pick(&[100, 2000, 86400, 40 * 86400]);
        time = (time + random.below(most) as f64).min(now);
        Mail::choose(random).ask(client, time);
    }
    let agree = |random: &mut Random, client: &mut Client| {
        let mail = Mail::choose(random);
        let said = mail.explain(db, now);
        let instance = new_instance();
        let reply = mail.ask_of(&instance, client, now);
        assert_eq!(reply, said.reply, "{mail:?}");
        further_recipient(chosen, db, &mail, &reply, &instance, client, now);
    };
    agree(random, client);

    // list and expire.
    let listed = ctl(
        db,
        &["list", "--json", "--state=expired", &format!("--at={now}")],
    )
    .ok();
    let gone = expired(db, chosen, now);
    assert_eq!(listed.lines().count(), gone.len(), "{listed}");
    let before = everything(db);
    ctl(db, &["expire"]).ok();
    let kept: BTreeSet<_> = before.difference(&gone).cloned().collect();
    // A record at its very end may have passed it meanwhile.
    let by_now = expired(db, chosen, clock::seconds());
    let left: BTreeSet<_> = everything(db).union(&by_now).cloned().collect();
    assert_eq!(left, kept);
    agree(random, client);

    // pass.
    let mail = Mail {
        state: "RCPT",
        ..Mail::choose(random)
    };
    let name = format!("--client-name={}", mail.name);
    let words = ["pass", &name, mail.sender_word(), RECIPIENT, mail.address];
    ctl(db, &words).ok();
    // The record has the time of the clock, which may be another second by now.
    let now = clock::seconds().floor() + 1.0;
    let said = mail.explain(db, now);
    let reply = mail.ask(client, now);
    assert_eq!(reply, said.reply);
    assert!(!is_held_back(&reply), "{reply}");

    // delete.
    let words = [
        "delete",
        &name,
        "triplet",
        mail.address,
        mail.sender_word(),
        RECIPIENT,
    ];
    ctl(db, &words).ok();
    let said = mail.explain(db, now);
    assert!(
        said.triplet.is_empty() || said.triplet.ends_with("no record"),
        "{}",
        said.triplet
    );
    assert_eq!(mail.ask(client, now), said.reply);

    // add.
    let added = ctl(db, &["add", "client", mail.address]);
    match chosen.has("--auto-whitelist-clients=0") {
        true => assert!(added.failed(2).contains("auto-whitelist is off")),
        false => {
            let other = Mail {
                sender: "never@seen.example",
                ..mail
            };
            // A name that is suspect is not known to `add`, which goes by addresses.
            let without_name = Mail {
                name: "x.example",
                ..other
            };
            match without_name.explain(db, now).is_suspect {
                true => assert!(added.failed(2).contains("never on the auto-whitelist")),
                false => drop(added.ok()),
            }
            let said = other.explain(db, now);
            assert_eq!(other.ask(client, now), said.reply);
            assert!(said.is_suspect || said.reply == "DUNNO", "{}", said.reply);
        }
    }
    agree(random, client);

    // forget.
    let is_hashed = chosen.has("--privacy");
    let is_shared = has_neighbour(&mail) || chosen.has("--lookup-by-domain");
    // With --max-new what was deleted may not have been recorded again.
    let is_limited = chosen
        .words
        .iter()
        .any(|word| word.starts_with("--max-new="));
    let is_unrecorded = is_limited && mail.explain(db, now).triplet.ends_with("no record");
    let forgot = ctl(db, &["forget", &name, mail.address]);
    let said = mail.explain(db, now);
    // What a list lets pass leaves no record.
    let is_shared = is_shared || said.triplet.is_empty();
    // Of a hashed triplet it cannot be told whose it is.
    let may_fail = is_hashed || is_shared || is_unrecorded;
    assert!(forgot.status == 0 || may_fail, "{forgot:?}");
    let is_gone = said.triplet.is_empty() || said.triplet.ends_with("no record");
    assert!(is_hashed || is_gone || is_shared, "{}", said.triplet);
    let reply = mail.ask(client, now);
    assert_eq!(reply, said.reply);
    assert!(is_hashed || is_shared || is_held_back(&reply), "{reply}");
}

/// A further recipient of a mail whose first one got this reply: what is said of it by
/// itself, unless the server has held the mail, which is said, too.
fn further_recipient(
    chosen: &Chosen,
    db: &Path,
    mail: &Mail,
    first: &str,
    instance: &str,
    client: &mut Client,
    now: f64,
) {
    let other = Mail {
        recipient: "carol@example.org",
        state: "RCPT",
        ..*mail
    };
    let has = |word: &str| chosen.words.iter().any(|own| own == word);
    let holds_once = has("--targrey") && has("--tarpit-per-message");
    let said = other.explain(db, now);
    let is_put_off = ["greylisted: ", "has to wait in the tarpit: "]
        .iter()
        .any(|start| said.decision.starts_with(start));
    let is_told = said.decision.contains("passes if its mail was held");
    assert_eq!(is_told, holds_once && is_put_off, "{}", said.decision);
    let is_limited = (1..4).any(|limit| has(&format!("--max-new={limit}")));
    let is_new = is_put_off && said.triplet.ends_with(": no record");
    let is_told = said.decision.contains("(--max-new)");
    assert!(is_limited || !is_told, "{}", said.decision);
    assert!(is_told || !(is_limited && is_new), "{}", said.decision);
    let expected = match holds_once && first.starts_with("SLEEP") && is_held_back(&said.reply) {
        true => "DUNNO",
        // A mail gets one header.
        false if first.starts_with("PREPEND") && said.reply.starts_with("PREPEND") => "DUNNO",
        false => &said.reply,
    };
    assert_eq!(other.ask_of(instance, client, now), expected, "{other:?}");
}

/// In its network another client may have used the triplet last.
fn has_neighbour(mail: &Mail) -> bool {
    mail.address.starts_with("192.0.2.")
}

impl Mail {
    fn sender_word(&self) -> &'static str {
        match self.sender {
            "" => "<>",
            sender => sender,
        }
    }
}
