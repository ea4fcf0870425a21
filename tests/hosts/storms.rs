//! Storms: Redis, its nodes and the servers' own processes are stopped, killed and cut off
//! at random under load, time and again. Whatever comes together: an answer in time, no
//! wrong pass, and all by itself again.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::random::{Random, number_from};
use crate::redis_server::{RedisCluster, RedisServer, has, wait_until};
use crate::server::{Client, Server, request, tell, test_dir};
use crate::{alone, start};

const START: u64 = 1_700_000_000;
/// The longest that any client waits.
const LONGEST: Duration = Duration::from_millis(1200);
const CLIENTS: usize = 4;
/// New triplets, of all parts of a cluster, that are greylisted when all is well.
const IN_A_ROW: usize = 20;

fn rounds(usual: u64) -> u64 {
    usual * number_from("POSTGREY_STORMS", 1)
}

/// What the clients were told.
#[derive(Default)]
struct Told {
    asked: AtomicUsize,
    ungreylisted: AtomicUsize,
    passed: AtomicUsize,
    longest: Mutex<Duration>,
    /// Triplets that were seen and retried in vain, and then were new again.
    lost: AtomicUsize,
}

fn is_grey(reply: &str) -> bool {
    reply.starts_with("DEFER_IF_PERMIT")
}

/// An address that nobody has asked about before, of a network of its own.
fn new_address() -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let [.., first, second, third] = number.to_be_bytes();
    format!("{}.{second}.{third}.1", 20 + u32::from(first))
}

impl Told {
    /// `None` if the worker was killed that had the connection, which is another one then.
    fn ask(&self, server: &Server, client: &mut Client, address: &str, now: u64) -> Option<String> {
        let begun = Instant::now();
        let asked = client.try_ask(&request(&[
            ("client_address", address),
            ("client_name", "unknown"),
            ("policy_test_time", &now.to_string()),
        ]));
        let took = begun.elapsed();
        let Ok(reply) = asked else {
            *client = server.connect();
            return None;
        };
        let mut longest = self.longest.lock().unwrap_or_else(PoisonError::into_inner);
        *longest = took.max(*longest);
        self.asked.fetch_add(1, Ordering::Relaxed);
        assert!(
            reply == "DUNNO" || is_grey(&reply) || reply.starts_with("PREPEND X-Greylist: delayed"),
            "{reply}"
        );
        Some(reply)
    }

    /// A triplet is new, retried, and retried again: two retries are what it takes.
    fn follow(&self, servers: &[Server], is_over: &AtomicBool, may_lose: bool) {
        let mut clients: Vec<Client> = servers.iter().map(Server::connect).collect();
        let mut turn = 0;
        while !is_over.load(Ordering::Relaxed) {
            let address = new_address();
            let mut ask = |now: u64| {
                turn += 1;
                let place = turn % servers.len();
                self.ask(&servers[place], &mut clients[place], &address, now)
            };
            let told = [START, START + 400, START + 401].map(&mut ask);
            for reply in told[..2].iter().flatten() {
                assert!(!reply.starts_with("PREPEND"), "{address}: {told:?}");
                self.ungreylisted
                    .fetch_add(usize::from(reply == "DUNNO"), Ordering::Relaxed);
            }
            let is = |is_it: fn(&str) -> bool| told.iter().flatten().all(|reply| is_it(reply));
            if told.iter().all(Option::is_some) && is(is_grey) {
                assert!(may_lose, "{address}: {told:?}");
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
            let has_passed = told[2].as_ref().is_some_and(|reply| !is_grey(reply));
            self.passed
                .fetch_add(usize::from(has_passed), Ordering::Relaxed);
        }
    }

    /// Waits until nobody passes ungreylisted.
    fn wait_until_well(&self, server: &Server) {
        let mut client = server.connect();
        wait_until("greylisting again", || {
            (0..IN_A_ROW).all(|_| {
                let reply = self.ask(server, &mut client, &new_address(), START);
                reply.is_some_and(|reply| is_grey(&reply))
            })
        });
    }
}

/// What happens in a round; returns its name.
type Event<'a> = dyn FnMut(&mut Random, &[Server]) -> &'static str + 'a;

/// Runs so many rounds.
fn storm(what: &str, url: &str, rounds: u64, may_lose: bool, event: &mut Event) {
    let _alone = alone();
    let seed = Random::choose_seed();
    println!("POSTGREY_SEED={seed}");
    let mut random = Random::new(seed);
    let folder = test_dir();
    let store = format!("--store={url}");
    let options = [&*store, "--retry-count=2", "--auto-whitelist-clients=0"];
    let mut servers = start(2, folder.path(), &options);
    // What this machine makes everybody wait for.
    let undisturbed = [Server::start(folder.path(), &options[1..])];
    let noise = Told::default();
    let began = Instant::now();
    let told = Told::default();
    let is_over = AtomicBool::new(false);
    let mut happened: BTreeMap<&str, usize> = BTreeMap::new();
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        let _ends = SetAtEnd(&is_over);
        for _ in 0..CLIENTS {
            scope.spawn(|| told.follow(&servers, &is_over, may_lose));
        }
        // Its maintenance, after a minute, takes times of long ago for what they are.
        scope.spawn(|| noise.follow(&undisturbed, &is_over, true));
        for round in 0..rounds {
            thread::sleep(Duration::from_millis(random.below(300) as u64));
            let name = event(&mut random, &servers);
            println!("{round}: {name}");
            *happened.entry(name).or_default() += 1;
            if random.percent(30) {
                continue;
            }
            let since = Instant::now();
            servers
                .iter()
                .for_each(|server| told.wait_until_well(server));
            slowest = slowest.max(since.elapsed());
        }
    });
    for server in &mut servers {
        assert!(server.stop().success(), "{}", server.log_text());
        let minutes = 1 + began.elapsed().as_secs() / 60;
        check_log(&server.log_text(), minutes as usize);
    }
    let longest = |told: Told| told.longest.into_inner().unwrap();
    let of = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
    let counts = [&told.asked, &told.passed, &told.ungreylisted, &told.lost].map(of);
    let (longest, noise) = (longest(told), longest(noise));
    let [asked, passed, ungreylisted, lost] = counts;
    tell(&format!(
        "a storm on {what}: {rounds} troubles {happened:?}, {asked} requests, {passed} triplets \
         passed in time, {ungreylisted} answers without greylisting, {lost} lost, longest answer {} ms (of a server \
         without Redis {} ms), back after {} ms at most",
        longest.as_millis(),
        noise.as_millis(),
        slowest.as_millis(),
    ));
    assert!(longest < LONGEST + 2 * noise, "{longest:?}");
}

/// Ends the clients, also if something else fails.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Each trouble is told once a minute, and nothing else is.
fn check_log(log: &str, minutes: usize) {
    let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
    for line in log.lines() {
        assert!(
            !line.contains("panicked") && !line.contains("bug"),
            "{line}"
        );
        if let Some((before, _)) = line.split_once(": requests pass ungreylisted") {
            // Behind the address of the node and the command.
            let at = before.find("127.0.0.1:").unwrap_or(0);
            let why = before[at..].splitn(3, ": ").last().unwrap();
            *lines.entry(why).or_default() += 1;
        }
    }
    assert!(lines.values().all(|&count| count <= minutes), "{log}");
}

fn pause(random: &mut Random, most: usize) {
    thread::sleep(Duration::from_millis(random.below(most) as u64));
}

fn kill_child(random: &mut Random, servers: &[Server], is_wanted: impl Fn(usize) -> bool) {
    let server = &servers[random.below(servers.len())];
    let children = server.children();
    let wanted: Vec<_> = (0..children.len())
        .filter(|&place| is_wanted(place))
        .collect();
    let _ = kill(children[*random.pick(&wanted)], Signal::SIGKILL);
}

#[test]
fn one_redis_in_a_storm() {
    if !has("redis-server", "a storm") {
        return;
    }
    // By the second it may answer before it writes, while the disk is busy.
    let lasting = ["--appendonly", "yes", "--appendfsync", "always"];
    let mut redis = RedisServer::start(&lasting);
    let url = redis.url();
    storm(
        "one Redis",
        &url,
        rounds(8),
        false,
        &mut |random, servers| {
            match random.below(8) {
                0 => {
                    redis.kill();
                    pause(random, 900);
                    redis.start_again();
                    wait_until("it has loaded its data", || {
                        redis.try_ask::<String>(&["PING"]).is_ok()
                    });
                    "killed"
                }
                1 => {
                    redis.signal(Signal::SIGSTOP);
                    pause(random, 1500);
                    redis.signal(Signal::SIGCONT);
                    "stopped"
                }
                2 => {
                    let _: i64 = redis.ask(&["CLIENT", "KILL", "TYPE", "normal"]);
                    "connections ended"
                }
                3 => {
                    let () = redis.ask(&["SCRIPT", "FLUSH"]);
                    "scripts lost"
                }
                4 => {
                    let () = redis.ask(&["CLIENT", "PAUSE", "300", "WRITE"]);
                    "changes wait"
                }
                5 => {
                    let url = redis.unix_url().replace("redis+unix", "unix");
                    let own = redis::Client::open(url).unwrap();
                    let mut own = own.get_connection().unwrap();
                    let mut set = |most: &str| {
                        let mut command = redis::cmd("CONFIG");
                        let () = command
                            .arg(&["SET", "maxclients", most])
                            .query(&mut own)
                            .unwrap();
                        let mut command = redis::cmd("CLIENT");
                        let _: i64 = command
                            .arg(&["KILL", "TYPE", "normal"])
                            .query(&mut own)
                            .unwrap();
                    };
                    set("1");
                    pause(random, 900);
                    set("1000");
                    "no room"
                }
                6 => {
                    let () = redis.ask(&["REPLICAOF", "127.0.0.1", "1"]);
                    pause(random, 900);
                    let () = redis.ask(&["REPLICAOF", "NO", "ONE"]);
                    "a replica"
                }
                _ => {
                    // The writer is the first.
                    kill_child(random, servers, |place| place > 0);
                    "a worker killed"
                }
            }
        },
    );
}

#[test]
fn a_cluster_in_a_storm() {
    if !has("redis-server", "a storm on a cluster") {
        return;
    }
    let mut cluster = RedisCluster::start(&[
        "--appendonly",
        "yes",
        "--cluster-require-full-coverage",
        "no",
    ]);
    let url = cluster.url();
    storm(
        "a cluster",
        &url,
        rounds(4),
        true,
        &mut |random, servers| {
            let node = random.below(6);
            match random.below(5) {
                0 => {
                    cluster.nodes[node].kill();
                    pause(random, 5000);
                    cluster.nodes[node].start_again();
                    "killed"
                }
                1 => {
                    cluster.nodes[node].signal(Signal::SIGSTOP);
                    pause(random, 4000);
                    cluster.nodes[node].signal(Signal::SIGCONT);
                    "stopped"
                }
                2 => {
                    let _: redis::RedisResult<i64> =
                        cluster.nodes[node].try_ask(&["CLIENT", "KILL", "TYPE", "normal"]);
                    "connections ended"
                }
                3 => {
                    if let Some(replica) = (0..6).find(|&node| !cluster.is_master(node)) {
                        let _: redis::RedisResult<()> =
                            cluster.nodes[replica].try_ask(&["CLUSTER", "FAILOVER"]);
                    }
                    "a replica takes over"
                }
                _ => {
                    kill_child(random, servers, |place| place > 0);
                    "a worker killed"
                }
            }
        },
    );
}
