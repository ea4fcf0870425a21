//! Random options and requests: a server on Redis answers as one on files does, and
//! postgreyctl on Redis foretells it.

use std::fs;
use std::path::Path;

use postgrey::sys::clock;

use crate::random::{Random, number_from};
use crate::redis_server::{RedisServer, has};
use crate::server::{Client, spawn, test_dir};
use crate::tool::{all_at, all_in, ctl};
use crate::{beside_others, make_host};

const CLIENTS: [&str; 4] = ["192.0.2.7", "192.0.2.91", "198.51.100.7", "2001:db8:1:2::7"];
const SENDERS: [&str; 3] = ["alice@example.net", "list-1234@example.net", ""];
/// Of a pool by its list, of a line, of nobody.
const NAMES: [&str; 4] = [
    "unknown",
    "mx1.example.com",
    "mx2.example.com",
    "h-2-7.example.net",
];
const RECIPIENT: &str = "bob@example.org";
const DAY: usize = 86400;

fn choose(random: &mut Random) -> Vec<String> {
    let mut words = Vec::new();
    for (percent, word) in [
        (60, format!("--delay={}", 1 + random.below(7200))),
        (50, format!("--max-age={}", 1 + random.below(90))),
        (50, format!("--retry-window={}", 1 + random.below(40))),
        (30, format!("--retry-count={}", random.below(4))),
        (50, format!("--auto-whitelist-clients={}", random.below(4))),
        (
            30,
            format!("--auto-whitelist-delay={}", 1 + random.below(7200)),
        ),
        (30, format!("--ipv4cidr={}", 8 + random.below(25))),
        (30, format!("--ipv6cidr={}", 32 + random.below(97))),
        (30, format!("--max-new={}", random.below(4))),
        (30, "--lookup-by-host".into()),
        (30, "--privacy".into()),
        (30, "--lookup-by-domain".into()),
        (15, "--s25r".into()),
        (40, "--targrey".into()),
        (40, "--tarpit-per-message".into()),
        (20, "--greylist-action=DEFER".into()),
    ] {
        if random.percent(percent) {
            words.push(word);
        }
    }
    if random.percent(40) {
        let compats = ["targrey-1.37", "postgrey-1.37", "targrey-1.34"];
        words.push(format!("--compat={}", random.pick(&compats)));
    }
    words
}

#[derive(Debug)]
struct Mail {
    address: &'static str,
    name: &'static str,
    sender: &'static str,
    state: &'static str,
}

impl Mail {
    /// A client with one name or several: its record of the tarpit is beside those of its
    /// pool, so that one that is of a pool at times has two.
    fn choose(random: &mut Random, has_one_name: bool) -> Mail {
        let place = random.below(CLIENTS.len());
        let name = random.pick::<&str>(&NAMES);
        Mail {
            address: CLIENTS[place],
            name: if has_one_name { NAMES[place] } else { name },
            sender: random.pick::<&str>(&SENDERS),
            state: if random.percent(20) { "DATA" } else { "RCPT" },
        }
    }

    fn ask(&self, client: &mut Client, instance: u64, time: usize) -> String {
        let reply = client.ask(&[
            ("client_address", self.address),
            ("client_name", self.name),
            ("sender", self.sender),
            ("recipient", RECIPIENT),
            ("protocol_state", self.state),
            ("instance", &format!("1a2b.{instance:x}.0")),
            ("policy_test_time", &time.to_string()),
        ]);
        without_date(&reply)
    }

    fn explain(&self, db: &Path, time: usize) -> String {
        let words = [
            format!("--client-address={}", self.address),
            format!("--client-name={}", self.name),
            format!("--sender={}", self.sender),
            format!("--recipient={RECIPIENT}"),
            format!("--state={}", self.state),
            format!("--at={time}"),
        ];
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = ctl(db, &[&["explain"], &words[..]].concat()).ok();
        let answer = said
            .lines()
            .find_map(|line| line.strip_prefix("answer       action="));
        without_date(answer.unwrap_or_else(|| panic!("{said}")))
    }
}

/// A header ends in the date of the machine's clock.
fn without_date(reply: &str) -> String {
    reply.split("; ").next().unwrap_or_default().to_owned()
}

#[test]
fn servers_on_files_and_on_redis_and_the_tool_agree() {
    if !has("redis-server", "random options on Redis") {
        return;
    }
    let _beside = beside_others();
    let redis = RedisServer::start(&[]);
    let seed = Random::choose_seed();
    println!("POSTGREY_SEED={seed}");
    let mut random = Random::new(seed);
    // Those of the files are tried more often, elsewhere.
    let sets = number_from("POSTGREY_OPTION_SETS", 80).div_ceil(4);
    for _ in 0..sets {
        let () = redis.ask(&["FLUSHALL"]);
        try_set(&mut random, &redis.unix_url());
    }
}

fn try_set(random: &mut Random, url: &str) {
    let mut words = choose(random);
    println!("{words:?}");
    let folder = test_dir();
    if words.iter().any(|word| word == "--lookup-by-domain") {
        let pools = folder.path().join("pools");
        fs::write(&pools, "example.com\n").unwrap();
        words.push(format!("--pool-domains={}", pools.display()));
    }
    let has = |option: &str| words.iter().any(|word| word == option);
    let has_one_name = has("--lookup-by-domain") && has("--targrey");
    let mut options: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut of_files = spawn(folder.path(), &options);
    let host = make_host(folder.path(), 0);
    let store = format!("--store={url}");
    options.push(&store);
    let mut of_redis = spawn(&host, &options);
    let (files, db) = (folder.path().join("db"), host.join("db"));
    let now = clock::seconds() as usize;
    let (mut time, mut instance) = (now - 100 * DAY, 0);
    let mut both = |mail: &Mail, time: usize| {
        instance += 1;
        let reply = mail.ask(&mut of_redis.client, instance, time);
        let expected = mail.ask(&mut of_files.client, instance, time);
        assert_eq!(reply, expected, "{mail:?} at {time}");
        reply
    };
    for _ in 0..30 {
        let most = *random.pick(&[100, 2000, DAY, 20 * DAY]);
        time = (time + random.below(most)).min(now);
        both(&Mail::choose(random, has_one_name), time);
    }
    assert_eq!(all_at(url), all_in(&files));
    for _ in 0..3 {
        let mail = Mail::choose(random, has_one_name);
        let said = mail.explain(&db, now);
        assert_eq!(both(&mail, now), said, "{mail:?}");
    }
    // Changes by hand, where the place of the record can be told.
    let mail = Mail::choose(random, has_one_name);
    let name = format!("--client-name={}", mail.name);
    let sender = if mail.sender.is_empty() {
        "<>"
    } else {
        mail.sender
    };
    let mut commands = vec![vec![
        "delete",
        &name,
        "triplet",
        mail.address,
        sender,
        RECIPIENT,
    ]];
    if !has("--privacy") {
        commands.push(vec!["pass", &name, sender, RECIPIENT, mail.address]);
        commands.push(vec!["add", "client", mail.address]);
    }
    commands.push(vec!["forget", &name, mail.address]);
    for command in commands {
        let of_files = ctl(&files, &command);
        let of_redis = ctl(&db, &command);
        assert_eq!(
            of_redis.status, of_files.status,
            "{command:?} {of_redis:?} {of_files:?}"
        );
        assert_eq!(of_redis.complained, of_files.complained, "{command:?}");
        // The record may have the time of the clock, which goes on.
        let later = clock::seconds() as usize + 1;
        let said = mail.explain(&db, later);
        assert_eq!(both(&mail, later), said, "{command:?} {mail:?}");
    }
    for session in [of_files, of_redis] {
        drop(session.client);
        let mut child = session.child;
        assert!(child.wait().unwrap().success());
    }
}
