//! postgreyctl on records in Redis: what each command says and does is what it says and
//! does on files.

use std::path::PathBuf;

use postgrey::sys::clock;

use crate::redis_server::{RedisCluster, RedisServer, has};
use crate::server::{Server, test_dir};
use crate::tool::{Everything, Ran, all_at, all_in, ctl, ctl_with_input};
use crate::{beside_others, start};

/// Lines in their order, without what two runs differ in: times of the clock, processes,
/// the order of a walk.
fn comparable(text: &str, is_ordered: bool) -> String {
    let mask = |line: &str| {
        let words = line.split_inclusive(|c: char| !c.is_ascii_digit());
        let masked = words.map(|word| {
            let digits = word.trim_end_matches(|c: char| !c.is_ascii_digit());
            match digits.len() >= 10 {
                true => word.replacen(digits, "TIME", 1),
                false => word.to_owned(),
            }
        });
        masked.collect::<String>()
    };
    let mut lines: Vec<String> = text.lines().map(mask).collect();
    if !is_ordered {
        lines.sort();
    }
    lines.join("\n")
}

/// Two servers with the same options and requests, on files and on Redis.
struct Twins {
    _folder: tempfile::TempDir,
    files: Server,
    redis: Server,
    now: u64,
}

impl Twins {
    fn start(url: &str, options: &[&str]) -> Self {
        let folder = test_dir();
        let option = format!("--store={url}");
        let files = Server::start(folder.path(), options);
        let redis = start(1, folder.path(), &[options, &[&*option]].concat()).remove(0);
        Twins {
            _folder: folder,
            files,
            redis,
            now: clock::seconds() as u64,
        }
    }

    /// Asks both so many seconds ago.
    fn ask(&self, ago: u64, address: &str, name: &str, sender: &str, recipient: &str) -> String {
        let time = (self.now - ago).to_string();
        let ask = |server: &Server| {
            let reply = server.connect().ask(&[
                ("client_address", address),
                ("client_name", name),
                ("sender", sender),
                ("recipient", recipient),
                ("policy_test_time", &time),
            ]);
            reply.split("; ").next().unwrap().to_owned()
        };
        let reply = ask(&self.redis);
        assert_eq!(reply, ask(&self.files));
        reply
    }

    /// Runs a command on both; what it says is the same.
    #[track_caller]
    fn run(&self, words: &[&str]) -> String {
        self.run_with(words, b"").said
    }

    #[track_caller]
    fn run_with(&self, words: &[&str], input: &[u8]) -> Ran {
        let of_files = ctl_with_input(&self.files.dbdir, words, input);
        let of_redis = ctl_with_input(&self.redis.dbdir, words, input);
        assert_eq!(of_redis.status, of_files.status, "{words:?} {of_redis:?}");
        let is_ordered = words.iter().any(|word| word.starts_with("--sort"));
        for (of_redis, of_files) in [
            (&of_redis.said, &of_files.said),
            (&of_redis.complained, &of_files.complained),
        ] {
            assert_eq!(
                comparable(of_redis, is_ordered),
                comparable(of_files, is_ordered),
                "{words:?}"
            );
        }
        of_redis
    }

    /// The records are the same, but for times of the clock.
    #[track_caller]
    fn compare(&self, url: &str) {
        let text = |all: Everything| {
            let line = |((database, key), value): ((&str, Vec<u8>), Vec<u8>)| {
                let [key, value] = [key, value].map(|octets| String::from_utf8(octets).unwrap());
                format!("{database} {key} {value}\n")
            };
            comparable(&all.into_iter().map(line).collect::<String>(), false)
        };
        assert_eq!(text(all_at(url)), text(all_in(&self.files.dbdir)));
    }

    /// Clients in every state: new, waiting, passed, whitelisted, in the tarpit.
    fn fill(&self) {
        for number in 0..6_u64 {
            let address = format!("192.0.{number}.7");
            for (index, sender) in ["alice@example.net", "bob@example.com", ""]
                .iter()
                .enumerate()
            {
                let recipient = format!("user{index}@example.org");
                let begun = 4000 + 100 * number + 10 * index as u64;
                self.ask(begun, &address, "mail.example.net", sender, &recipient);
                if number >= 2 {
                    let later = begun - 350 - number - index as u64;
                    self.ask(later, &address, "mail.example.net", sender, &recipient);
                }
            }
        }
        self.ask(
            5,
            "2001:db8:1:2::7",
            "unknown",
            "x/y+z@example.net",
            "user0@example.org",
        );
    }
}

#[test]
fn each_command_says_the_same_as_on_files() {
    if !has("redis-server", "postgreyctl on Redis") {
        return;
    }
    let _beside = beside_others();
    let redis = RedisServer::start(&[]);
    let cluster = RedisCluster::start(&[]);
    for url in [redis.url(), cluster.url()] {
        let twins = Twins::start(
            &url,
            &["--targrey", "--tarpit=2", "--auto-whitelist-clients=2"],
        );
        twins.fill();
        reading(&twins, &url);
        changing(&twins, &url);
        refused(&twins);
    }
}

fn reading(twins: &Twins, url: &str) {
    let at = format!("--at={}", twins.now);
    let since = format!("--since={}", twins.now - 4200);
    let mut lists: Vec<Vec<&str>> = ["greylist", "clients", "tarpit"]
        .map(|name| vec![name])
        .into();
    lists.extend([
        vec![],
        vec!["--json"],
        vec![&*since],
        vec!["--client=192.0.2.0/23"],
    ]);
    lists.extend([vec!["--client=2001:db8:1:2::7"], vec!["--sender=bob@*"]]);
    lists.extend([
        vec!["--recipient=user0@example.org"],
        vec!["--client=192.0.3.7", "--json"],
    ]);
    lists.extend(
        ["new", "waiting", "passed", "expired"].map(|state| match state {
            "new" => vec!["--state=new"],
            "waiting" => vec!["--state=waiting"],
            "passed" => vec!["--state=passed"],
            _ => vec!["--state=expired"],
        }),
    );
    let sorts = [
        "--sort=first",
        "--sort=last",
        "--sort=delay",
        "--sort=name",
        "--sort=-first",
        "--sort=-last",
        "--sort=-name",
    ];
    for sort in sorts {
        lists.push(vec!["greylist", sort]);
        lists.push(vec!["greylist", sort, "--limit=3"]);
    }
    lists.extend([
        vec!["clients", "--sort=count"],
        vec!["tarpit", "--sort=held"],
    ]);
    let counts = [
        "--count=client",
        "--count=network",
        "--count=domain",
        "--count=sender-domain",
        "--count=recipient",
    ];
    lists.extend(counts.map(|count| vec![count]));
    let mut lines = 0;
    for list in &lists {
        let said = twins.run(&[&["list", &at], &list[..]].concat());
        lines += said.lines().count();
    }
    assert!(lines > 200, "{lines}");
    // Which ones a limit leaves without an order is not said.
    for limit in [1, 5] {
        let limit = format!("--limit={limit}");
        let said = ctl(&twins.redis.dbdir, &["list", "greylist", &limit]).ok();
        let of_files = ctl(&twins.files.dbdir, &["list", "greylist", &limit]).ok();
        assert_eq!(said.lines().count(), of_files.lines().count());
    }
    for (number, sender) in [
        (0, "alice@example.net"),
        (3, "bob@example.com"),
        (5, "new@x.example"),
    ] {
        let client = format!("--client-address=192.0.{number}.7");
        let sender = format!("--sender={sender}");
        let words = [
            "explain",
            &at,
            &client,
            "--client-name=mail.example.net",
            &sender,
        ];
        let said = twins.run(&[&words[..], &["--recipient=user0@example.org"]].concat());
        assert!(said.contains("\nanswer "), "{said}");
    }
    for database in ["greylist", "clients", "tarpit"] {
        assert!(!twins.run(&["dump", database]).is_empty());
        twins.run(&["dump", "--escape", database]);
        twins.run(&["export", database]);
    }
    for format in ["db_dump", "tab", "json"] {
        let format = format!("--format={format}");
        assert!(twins.run(&["export", &format]).lines().count() > 20);
    }
    assert_eq!(twins.run(&["verify"]).matches(" records, 0 bad").count(), 3);
    twins.compare(url);
    // Statistics have no file to speak of.
    let stats =
        |server: &Server, words: &[&str]| ctl(&server.dbdir, &[&["stats"], words].concat()).ok();
    let of = |server: &Server| -> serde_json::Value {
        serde_json::from_str(&stats(server, &["--json"])).unwrap()
    };
    let (of_redis, of_files) = (of(&twins.redis), of(&twins.files));
    for database in ["greylist", "clients", "tarpit"] {
        assert_eq!(of_redis[database], of_files[database]);
    }
    assert!(of_redis.get("file_octets").is_none() && of_redis["server"].is_number());
    assert!(stats(&twins.redis, &[]).starts_with("             records"));
    let prometheus = stats(&twins.redis, &["--prometheus"]);
    assert!(prometheus.contains("postgrey_records{database=\"greylist\",state=\"waiting\"}"));
    assert!(!prometheus.contains("postgrey_db_"));
    assert!(
        ctl(&twins.redis.dbdir, &["ping"])
            .ok()
            .starts_with("POSTGREY OK")
    );
    let config = ctl(&twins.redis.dbdir, &["config"]).ok();
    assert!(config.contains(&format!("--store={url}")), "{config:?}");
    // From elsewhere, with nothing but the URL.
    let elsewhere = tempfile::tempdir().unwrap();
    let store = format!("--store={url}");
    let words = ["--defaults", &store, "export", "--format=tab"];
    let said = ctl(elsewhere.path(), &words).ok();
    let by_server = ctl(&twins.redis.dbdir, &["export", "--format=tab"]).ok();
    assert_eq!(comparable(&said, false), comparable(&by_server, false));
}

fn changing(twins: &Twins, url: &str) {
    for (words, status) in [
        (&["add", "client", "198.51.100.1"][..], 0),
        (&["add", "client", "198.51.100.0/24"], 2),
        (&["delete", "client", "198.51.100.1"], 0),
        (&["delete", "client", "198.51.100.1"], 1),
        (&["add", "client", "2001:db8::1"], 0),
        (&["delete", "tarpit", "192.0.0.7"], 0),
        (&["delete", "tarpit", "203.0.113.1"], 1),
        (
            &[
                "delete",
                "triplet",
                "192.0.1.7",
                "alice@example.net",
                "user0@example.org",
            ],
            0,
        ),
        (
            &[
                "delete",
                "triplet",
                "192.0.1.0/bob@example.com/user1@example.org",
            ],
            0,
        ),
        (
            &[
                "delete",
                "triplet",
                "192.0.1.0/nobody@example.com/user1@example.org",
            ],
            1,
        ),
        (
            &[
                "pass",
                "carol@example.net",
                "user9@example.org",
                "192.0.2.7",
            ],
            0,
        ),
        (&["pass", "alice@example.net", "user0@example.org"], 0),
        (&["pass", "nobody@example.net", "user0@example.org"], 1),
        (&["forget", "192.0.4.7"], 0),
        (&["forget", "192.0.4.7"], 1),
    ] {
        let ran = twins.run_with(words, b"");
        assert_eq!(ran.status, status, "{words:?} {ran:?}");
        twins.compare(url);
    }
    // What was changed is what the server goes by.
    let passes = twins.ask(
        0,
        "192.0.2.7",
        "mail.example.net",
        "carol@example.net",
        "user9@example.org",
    );
    assert_eq!(passes, "DUNNO");
    let text = format!(
        "greylist\t203.0.113.0/a@b/c@d\t{0},{0},0,9\nclients\t203.0.113.9\t7,{0}\n",
        twins.now - 50
    );
    twins.run_with(&["import", "-"], text.as_bytes());
    twins.run_with(&["import", "-"], b"greylist\tbroken\n");
    twins.compare(url);
}

fn refused(twins: &Twins) {
    let here = &twins.redis.dbdir;
    let folder = tempfile::tempdir().unwrap();
    let backup: PathBuf = folder.path().join("backup");
    let name = backup.to_str().unwrap();
    for (words, why) in [
        (&["expire"][..], "records expire there by themselves"),
        (&["compact"], "its own program has the space"),
        (
            &["backup", name],
            "its own programs make copies, and export writes all records as text",
        ),
        (
            &["backup", "-"],
            "its own programs make copies, and export writes all records as text",
        ),
        (&["restore", name], "its own programs put copies in place"),
    ] {
        let ran = ctl(here, words);
        assert_eq!(ran.said, "");
        let expected = format!("ERROR: the records are in Redis (--store): {why}\n");
        assert_eq!(ran.failed(2), expected, "{words:?}");
        assert!(!backup.exists());
    }
    // A file is a file, wherever the records are.
    ctl(&twins.files.dbdir, &["backup", name]).ok();
    let verified = ctl(here, &["verify", name]);
    assert!(
        verified.status == 0 && verified.said.contains(" records, 0 bad"),
        "{verified:?}"
    );
}
