//! `conf/redis.conf.example` in a real Redis, and the examples of the manual for several
//! MX hosts, each as it stands: one server, and a node of a cluster.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use redis::FromRedisValue;

use crate::ours::{PROGRAM, Server, common_options, give_to_server, test_dir};
use crate::server::{RedisServer, has, make_certificates, wait_until};

const ADMIN_WORD: &str = "word of the administrator";
const WORD: &str = "word of the servers";

fn text(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The hash of a word, by the command that the file names.
fn hash(word: &str) -> String {
    let output = Command::new("sh")
        .args([
            "-c",
            "printf %s \"$1\" | openssl dgst -sha256 -r",
            "sh",
            word,
        ])
        .output()
        .unwrap();
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    printed.split(' ').next().unwrap().to_owned()
}

/// The line of the file for the servers' user, from its name on.
fn rules() -> String {
    let file = text("conf/redis.conf.example");
    let line = file.lines().find(|line| line.starts_with("user postgrey "));
    line.unwrap().strip_prefix("user ").unwrap().to_owned()
}

/// Redis with the file, and what it names in a directory.
struct Example {
    redis: RedisServer,
    home: tempfile::TempDir,
    is_cluster: bool,
}

impl Example {
    /// Starts it, with the lines of a cluster as well if that is what it is to be.
    fn start(is_cluster: bool) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("postgrey-redis.")
            .tempdir()
            .unwrap();
        make_certificates(dir.path());
        let here = |name: &str| dir.path().join(name).display().to_string();
        let mut file = text("conf/redis.conf.example");
        for (from, to) in [
            ("bind 127.0.0.1 192.0.2.10", "bind 127.0.0.1".to_owned()),
            ("/etc/redis/tls/server.pem", here("server.pem")),
            ("/etc/redis/tls/server.key", here("server.key")),
            ("/etc/redis/tls/ca.pem", here("ca.pem")),
            ("#ADMINHASH", format!("#{}", hash(ADMIN_WORD))),
            ("#HASH", format!("#{}", hash(WORD))),
            (
                "masterauth ADMINWORD",
                format!("masterauth \"{ADMIN_WORD}\""),
            ),
        ] {
            assert_eq!(file.matches(from).count(), 1, "{from}");
            file = file.replace(from, &to);
        }
        let mut commented = 0;
        let lines: Vec<&str> = file
            .lines()
            .map(|line| match line.strip_prefix('#') {
                Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => {
                    commented += 1;
                    if is_cluster { setting } else { line }
                }
                _ => line,
            })
            .collect();
        assert_eq!(commented, 7);
        let path = here("postgrey.conf");
        fs::write(&path, lines.join("\n")).unwrap();
        // The port is that of the test.
        let options = ["--include", &path, "--tls-port", "PORT"];
        let example = Example {
            redis: RedisServer::start_in(dir, &options),
            home: test_dir(),
            is_cluster,
        };
        let word = example.home.path().join("word");
        fs::write(&word, format!("{WORD}\n")).unwrap();
        fs::set_permissions(&word, fs::Permissions::from_mode(0o400)).unwrap();
        give_to_server(&word);
        if is_cluster {
            let () = example.ask(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
            wait_until("the cluster is well", || {
                let info: String = example.ask(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok")
            });
        }
        example
    }

    /// Asks as the administrator.
    fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let word = ADMIN_WORD.replace(' ', "%20");
        let socket = self.redis.socket();
        let url = format!("redis+unix://{}?pass={word}", socket.display());
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query(&mut connection).unwrap()
    }

    /// The options of the servers, as the manual shows them.
    fn options(&self) -> Vec<String> {
        let page = text("man/postgrey.8").replace("\\-", "-");
        let (first, hosts) = match self.is_cluster {
            false => ("--store=rediss://", "mx1.example.org:6379"),
            true => (
                "--store=rediss-cluster://",
                "mx1.example.org,mx2.example.org,mx3.example.org",
            ),
        };
        let lines: Vec<&str> = page
            .lines()
            .skip_while(|line| !line.trim_start().starts_with(first))
            .take_while(|line| !line.starts_with('.'))
            .collect();
        let shown = lines.join(" ").replace("\\e", "");
        let here = |name: &str| self.redis.dir().join(name).display().to_string();
        let word = self.home.path().join("word").display().to_string();
        let mut options: Vec<String> = shown.split_whitespace().map(str::to_owned).collect();
        assert_eq!(options.len(), 3, "{options:?}");
        for (from, to) in [
            (hosts, format!("127.0.0.1:{}", self.redis.port)),
            ("/etc/postgrey/redis-password", word),
            ("/etc/postgrey/redis-ca.pem", here("ca.pem")),
        ] {
            let place = options.iter_mut().find(|option| option.contains(from));
            let option = place.unwrap_or_else(|| panic!("{from}: {shown}"));
            *option = option.replace(from, &to);
        }
        options
    }

    /// The exit status of `--check` with these options, and what it prints.
    fn check(&self) -> (i32, String) {
        let output = Command::new(PROGRAM)
            .args(common_options(self.home.path()))
            .args(["--check", "--inet=127.0.0.1:1"])
            .args(self.options())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8(printed).unwrap();
        (output.status.code().unwrap(), printed)
    }

    /// A server of ours works with it.
    fn serve(&self) {
        let options = self.options();
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let server = Server::start(self.home.path(), &options);
        let told = server.connect().ask(&[
            ("client_address", "192.0.2.7"),
            ("client_name", "unknown"),
            ("sender", "a@example.com"),
            ("recipient", "b@example.org"),
        ]);
        assert!(told.starts_with("DEFER_IF_PERMIT"), "{told}");
        let mut names: Vec<String> = self.ask(&["KEYS", "*"]);
        names.sort();
        let triplet = "postgrey:greylist:{192.0.2.0}:192.0.2.0/a@example.com/b@example.org";
        assert_eq!(names, [triplet]);
        assert_eq!(server.log_text().matches("ungreylisted").count(), 0);
        let exported = Command::new(env!("CARGO_BIN_EXE_postgreyctl"))
            .arg(format!("--dbdir={}", server.dbdir.display()))
            .args([
                options[0], "export", "greylist", "--", options[1], options[2],
            ])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let printed = String::from_utf8(exported.stdout).unwrap();
        assert!(
            exported.status.success() && printed.contains("a@example.com"),
            "{printed}{}",
            String::from_utf8_lossy(&exported.stderr)
        );
    }

    /// Without one of its rules the user cannot be used, or is told less.
    fn leave_out_each_rule(&self) {
        let line = rules().replace("#HASH", &format!("#{}", hash(WORD)));
        let words: Vec<&str> = line.split(' ').collect();
        let give = |words: &[&str]| {
            let mut all = vec!["ACL", "SETUSER", "postgrey", "reset"];
            all.extend(&words[1..]);
            let () = self.ask(&all);
        };
        let mut needed = 0;
        for (place, rule) in words.iter().enumerate() {
            let is_of_clusters = ["+cluster|slots", "+asking"].contains(rule);
            let is_needed = rule.starts_with(['+', '~', '#']) || *rule == "on";
            if !is_needed || (is_of_clusters && !self.is_cluster) {
                continue;
            }
            let mut others = words.clone();
            others.remove(place);
            give(&others);
            let (status, printed) = self.check();
            if *rule == "+info" {
                assert_eq!(status, 0, "{printed}");
                assert!(printed.contains("may not see (INFO)"), "{printed}");
            } else {
                assert_eq!(status, 1, "without {rule}: {printed}");
                needed += 1;
            }
        }
        assert_eq!(needed, if self.is_cluster { 12 } else { 10 });
        give(&words);
        assert_eq!(self.check().0, 0);
    }
}

fn try_example(is_cluster: bool) {
    if !has("redis-server", "conf/redis.conf.example") || !has("openssl", "conf/redis.conf.example")
    {
        return;
    }
    let example = Example::start(is_cluster);
    let (status, printed) = example.check();
    assert_eq!((status, &*printed), (0, ""));
    example.serve();
    example.leave_out_each_rule();
}

#[test]
fn one_server_with_the_example() {
    try_example(false);
}

#[test]
fn a_node_of_a_cluster_with_the_example() {
    try_example(true);
}

#[test]
fn the_manual_has_the_rules_of_the_example() {
    let page = text("man/postgrey.8").replace("\\-", "-");
    let shown: String = page
        .lines()
        .skip_while(|line| !line.starts_with("user postgrey on "))
        .take_while(|line| !line.starts_with('.'))
        .map(|line| format!("{} ", line.trim().trim_end_matches("\\e").trim_end()))
        .collect();
    assert_eq!(shown.trim_end(), format!("user {}", rules()));
}

/// A request of this time, to a server.
fn ask_at(server: &Server, sender: &str, time: u64) -> String {
    server.connect().ask(&[
        ("client_address", "192.0.2.7"),
        ("client_name", "unknown"),
        ("sender", sender),
        ("recipient", "b@example.org"),
        ("policy_test_time", &time.to_string()),
    ])
}

#[test]
fn hosts_whose_options_differ_do_not_find_the_records_of_each_other() {
    if !has("redis-server", "hosts whose options differ") {
        return;
    }
    const TIME: u64 = 1_800_000_000;
    let redis = RedisServer::start(&[]);
    let store = format!("--store={}", redis.url());
    let homes: Vec<_> = (0..9).map(|_| test_dir()).collect();
    let first = Server::start(homes[0].path(), &[&store]);
    let (grey, passed) = ("DEFER_IF_PERMIT", "PREPEND");
    for (place, (option, expected)) in [
        ("--max-age=35", passed),
        ("--store-prefix=other", grey),
        ("--privacy", grey),
        ("--lookup-by-host", grey),
        ("--ipv4cidr=20", grey),
        // The mildest host decides.
        ("--delay=600", grey),
        ("--delay=60", passed),
    ]
    .into_iter()
    .enumerate()
    {
        let other = Server::start(homes[place + 1].path(), &[&store, option]);
        let sender = format!("a{place}@example.com");
        assert!(ask_at(&first, &sender, TIME).starts_with(grey));
        let told = ask_at(&other, &sender, TIME + 400);
        assert!(told.starts_with(expected), "{option}: {told}");
        // It has not lost its own.
        let told = ask_at(&first, &sender, TIME + 401);
        assert!(!told.starts_with(grey), "{option}: {told}");
    }
}

#[test]
fn a_full_memory_costs_triplets_that_nobody_retries() {
    if !has("redis-server", "a full memory of Redis") {
        return;
    }
    let file = text("conf/redis.conf.example");
    let policy = file
        .lines()
        .find_map(|line| line.strip_prefix("maxmemory-policy "));
    let policy = policy.unwrap();
    let redis = RedisServer::start(&["--maxmemory", "4mb", "--maxmemory-policy", policy]);
    let known = |number: u32| format!("postgrey:clients:{{192.0.{number}.0}}:192.0.{number}.7");
    let url = redis.unix_url().replace("redis+unix", "unix");
    let client = redis::Client::open(url).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut set = |names: Vec<String>, seconds: u32| {
        let mut pipe = redis::pipe();
        for name in names {
            let command = pipe.cmd("SET").arg(name).arg("1800000000,1800000000,0,7");
            command.arg("EX").arg(seconds).ignore();
        }
        let () = pipe.query(&mut connection).unwrap();
    };
    set((0..100).map(known).collect(), 35 * 86_400);
    for round in 0..50 {
        let names = (0..1000).map(|number| {
            let network = format!("10.{round}.{}.0", number % 250);
            format!("postgrey:greylist:{{{network}}}:{network}/a{number}@example.com/b@example.org")
        });
        set(names.collect(), 2 * 86_400);
    }
    let left: i64 = redis.ask(&["DBSIZE"]);
    assert!((1000..50_000).contains(&left), "{left}");
    for number in 0..100 {
        let is_there: i64 = redis.ask(&["EXISTS", &known(number)]);
        assert_eq!(is_there, 1, "client {number}, of {left} records");
    }
}
