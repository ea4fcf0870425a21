//! The same random requests to Debian's postgrey 1.37 and to the built server
//! under its rules: the answers are equal.
//!
//! Inputs that end the original, and those whose answer depends on the machine,
//! are left out. Times go by `policy_test_time`, beginning now and never much
//! before, so that the maintenance of neither server finds anything to remove.
//! `POSTGREY_SEED` repeats a run, `POSTGREY_DIFFERENTIAL` makes it longer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/original.rs"]
mod original;
#[path = "common/random.rs"]
mod random;
#[path = "common/server.rs"]
mod server;

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use original::{ORIGINAL, Original};
use random::{Random, number_from};
use server::{Client, Server};

const ADDRESSES: [&str; 14] = [
    "192.0.2.1",
    "192.0.2.2",
    "192.0.2.200",
    "192.0.3.1",
    "198.51.100.7",
    "198.51.100.77",
    "203.0.113.9",
    "10.1.2.3",
    "2001:db8::1",
    "2001:DB8:0:0::2",
    "2001:db8:0:1::1",
    "::ffff:192.0.2.1",
    "::1",
    "fe80::1:2:3",
];
const NAMES: [&str; 10] = [
    "unknown",
    "mail.example.com",
    "MX.Friend.Example",
    "friend.example",
    "x.friendly.example",
    "mx12.big.example",
    "p1234-ipad.tokyo.example.net",
    "",
    "0",
    "a_b.example",
];
const SENDERS: [&str; 20] = [
    "a@s.example",
    "A@S.Example",
    "",
    "<>",
    "root",
    "prvs=0123456789=carol@d.example",
    "prvs=carol=abcdefghij@d.example",
    "prvs=ABCDEFGHIJ=carol@d.example",
    "prvs=a=b=c@d.example",
    "list-1234-u=example.org@lists.example",
    "list-1235-u=example.org@lists.example",
    "list+77@lists.example",
    "12@x12.example",
    "b_1_2.b1-3@d.example",
    "x y@d.example",
    "a=b@d.example",
    "a@b@c.example",
    "\u{fc}ber12\u{fc}@d.example",
    "+@d.example",
    "%s%d@d.example",
];
const RECIPIENTS: [&str; 15] = [
    "u@example.org",
    "U@Example.ORG",
    "u+box@example.org",
    "v@example.org",
    "postmaster@example.org",
    "Abuse+x@example.org",
    "open@example.org",
    "opened@example.org",
    "w@sub.free.example",
    "w@free.example.org",
    "nodomain",
    "u@12.example",
    "a@b@%s.example",
    "%r@%%.example",
    "\u{5f8c}@example.org",
];

const WHITELIST_CLIENTS: &str = "# clients\n\
    friend.example\n\
    /^mx[0-9]+\\.big\\.example$/\n\
    203.0.113.0/28\n\
    10.1\n\
    fe80::/10\n";
const WHITELIST_RECIPIENTS: &str = "postmaster@\nabuse@\nopen@example.org\nfree.example\n";

struct Stream {
    random: Random,
    time: f64,
    clients: usize,
    /// Triplets that were asked about lately, to be asked about again.
    lately: Vec<[String; 4]>,
}

impl Stream {
    fn new(seed: u64) -> Stream {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Stream {
            random: Random::new(seed),
            time: now.as_secs() as f64,
            clients: 0,
            lately: Vec::new(),
        }
    }

    fn sender(&mut self) -> String {
        match self.random.below(100) {
            0..20 => format!("n{}@many.example", self.random.below(40)),
            20..22 => format!("{}@long.example", "l".repeat(480 + self.random.below(60))),
            _ => (*self.random.pick(&SENDERS)).to_string(),
        }
    }

    fn recipient(&mut self) -> String {
        match self.random.below(100) {
            0..10 => format!("r{}@example.org", self.random.below(20)),
            10..12 => format!("r@{}.example", "d".repeat(480 + self.random.below(60))),
            _ => (*self.random.pick(&RECIPIENTS)).to_string(),
        }
    }

    fn who(&mut self) -> [String; 4] {
        if !self.lately.is_empty() && self.random.percent(70) {
            return self.random.pick(&self.lately).clone();
        }
        // Clients come and go: those that stay are all auto-whitelisted soon.
        self.clients += 1;
        let era = self.clients / 60;
        let address = match self.random.below(10) {
            0..5 => format!(
                "172.{}.{}.{}",
                16 + era / 256,
                era % 256,
                self.random.below(4)
            ),
            5..7 => format!("2001:db8:{era:x}:{:x}::1", self.random.below(2)),
            _ => (*self.random.pick(&ADDRESSES)).to_string(),
        };
        let name = (*self.random.pick(&NAMES)).to_string();
        let who = [address, name, self.sender(), self.recipient()];
        if self.lately.len() < 30 {
            self.lately.push(who.clone());
        } else {
            let place = self.random.below(30);
            self.lately[place] = who.clone();
        }
        who
    }

    fn pass_time(&mut self) {
        let random = &mut self.random;
        self.time += match random.below(100) {
            0..30 => 0.0,
            30..60 => random.below(20) as f64,
            60..75 => random.below(299) as f64,
            75..80 => 300.0,
            80..88 => 300.0 + random.below(600) as f64,
            88..93 => 3600.0 + random.below(2) as f64,
            93..95 => 172_800.0 + random.below(3) as f64,
            95..96 => 40.0 * 86_400.0,
            96..98 => -(random.below(10) as f64),
            98..99 => -(random.below(1000) as f64),
            _ => 0.5,
        };
    }

    fn request(&mut self) -> Vec<u8> {
        self.pass_time();
        let [address, name, sender, recipient] = self.who();
        let random = &mut self.random;
        let mut lines = vec!["request=smtpd_access_policy".to_string()];
        let state = *random.pick(&["RCPT", "RCPT", "RCPT", "DATA", "END-OF-MESSAGE", "data"]);
        lines.push(format!("protocol_state={state}"));
        let missing = if random.percent(1) {
            random.below(4)
        } else {
            4
        };
        let needed = [
            ("client_address", &address),
            ("client_name", &name),
            ("sender", &sender),
            ("recipient", &recipient),
        ];
        for (index, (attribute, value)) in needed.into_iter().enumerate() {
            if index != missing {
                lines.push(format!("{attribute}={value}"));
            }
        }
        if random.percent(90) {
            let instance = match random.below(20) {
                0 => String::new(),
                1 => "0".into(),
                _ => format!("3f.{}", random.below(15)),
            };
            lines.push(format!("instance={instance}"));
        }
        if random.percent(20) {
            lines.push(format!("queue_id=8045F{:X}", random.below(256)));
        }
        if random.percent(30) {
            lines.push("etrn_domain=".into());
        }
        if random.percent(3) {
            let garbage = random.pick(&["noise", "=", "==x", "a==b", "=foo=bar", "  "]);
            lines.push((*garbage).to_string());
        }
        lines.push(format!("policy_test_time={}", self.time));
        let end = if self.random.percent(5) { "\r\n" } else { "\n" };
        lines.push(String::new());
        lines.push(String::new());
        lines.join(end).into_bytes()
    }
}

/// A reply without version, host and date in its header.
fn comparable(reply: &str) -> String {
    match reply.split_once(" by postgrey-") {
        Some((start, _)) if start.starts_with("PREPEND X-Greylist: delayed ") => start.to_string(),
        _ => reply.to_string(),
    }
}

/// Asks both servers, and counts the kinds of answers.
fn compare(options: &[&str], number: u64, seed: u64) {
    // In memory where that can be had: the original flushes each update.
    let folder = server::test_dir_in(Path::new("/dev/shm"));
    let (clients, recipients) = (
        folder.path().join("clients"),
        folder.path().join("recipients"),
    );
    fs::write(&clients, WHITELIST_CLIENTS).unwrap();
    fs::write(&recipients, WHITELIST_RECIPIENTS).unwrap();
    let mut both: Vec<String> = options.iter().map(|option| (*option).to_string()).collect();
    both.push(format!("--whitelist-clients={}", clients.display()));
    both.push(format!("--whitelist-recipients={}", recipients.display()));
    let dbdir = folder.path().join("original");
    server::make_dbdir(&dbdir);
    let original = Original::start(&dbdir, &both);
    let mut ours: Vec<&str> = vec!["--compat=postgrey-1.37", "--quiet", "--sync=none"];
    ours.extend(both.iter().map(String::as_str));
    let server = Server::start(folder.path(), &ours);
    let mut theirs = Client::unix(&original.socket).unwrap();
    let mut ours = server.connect();
    let mut stream = Stream::new(seed);
    let mut kinds = std::collections::BTreeMap::<String, u64>::new();
    for index in 0..number {
        let request = stream.request();
        let expected = theirs.try_ask(&request).unwrap_or_else(|error| {
            panic!(
                "the original ended ({error}) at {}",
                String::from_utf8_lossy(&request)
            )
        });
        let answer = ours.try_ask(&request).unwrap();
        let (answer, expected) = (comparable(&answer), comparable(&expected));
        assert_eq!(
            answer,
            expected,
            "POSTGREY_SEED={seed}, {options:?}, request {index}:\n{}",
            String::from_utf8_lossy(&request)
        );
        let kind = answer.split(' ').next().unwrap_or_default();
        *kinds.entry(kind.to_string()).or_default() += 1;
    }
    println!("POSTGREY_SEED={seed} {options:?}: {number} answers are equal: {kinds:?}");
    assert!(kinds.len() >= 2, "the stream is too uniform: {kinds:?}");
}

#[test]
fn answers_are_those_of_the_original() {
    if !Path::new(ORIGINAL).exists() || !server::is_root() {
        server::skip("postgrey, or root,", "answers compared with the original's");
        return;
    }
    let number = number_from("POSTGREY_DIFFERENTIAL", 20_000);
    let seed = Random::choose_seed();
    std::thread::scope(|scope| {
        scope.spawn(|| compare(&[], number, seed));
        scope.spawn(|| {
            for (index, options) in [
                &["--lookup-by-host", "--auto-whitelist-clients=2"][..],
                &["--ipv4cidr=16", "--ipv6cidr=32", "--delay=60"],
                &["--retry-window=1h", "--greylist-text=%s left, %r: %s"],
                &["--greylist-text=%r", "--auto-whitelist-clients"],
                &["--auto-whitelist-clients=0", "--greylist-action=REJECT"],
                &["--privacy", "--delay=-1"],
            ]
            .into_iter()
            .enumerate()
            {
                compare(options, number / 20, seed.wrapping_add(index as u64 + 1));
            }
        });
    });
}
