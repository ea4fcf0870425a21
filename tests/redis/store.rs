//! The store against servers that play given answers.

use std::net::TcpListener;
use std::time::Duration;

use postgrey::policy::command::{Allowance, Command, Counting, Now, Outcome};
use postgrey::policy::rules::Rules;
use postgrey::store::redis::RedisStore;
use postgrey::store::{Store, StoreError};

use crate::cluster::slot_of;
use crate::options;
use crate::scripted::*;

fn command<'a>(address: &'a str, client: &'a str, triplet: &'a str) -> Command<'a> {
    Command {
        now: Now::new(1_700_000_000.0, None),
        address: address.as_bytes(),
        client: client.as_bytes(),
        own_client: match client {
            _ if client == address => b"",
            _ => address.as_bytes(),
        },
        triplet: triplet.as_bytes(),
        octet: b"1",
        counting: Counting::Always,
        is_data: false,
        allowance: Allowance::UNLIMITED,
    }
}

fn apply(
    url: &str,
    rules: &Rules,
    commands: &[Command],
) -> (Vec<Option<Outcome>>, Vec<StoreError>) {
    let time = Duration::from_millis(900);
    let mut store = RedisStore::new(options(url), "p", rules, time);
    let mut outcomes = Vec::new();
    let report = store.apply_batch(rules, commands, &mut outcomes).unwrap();
    (outcomes, report.troubles)
}

/// The first of these texts that lies in the lower half of the slots, or in the upper one.
fn text_in(is_upper: bool, text: impl Fn(u32) -> String) -> String {
    let mut texts = (0..).map(text);
    texts
        .find(|text| (slot_of(text) > 8191) == is_upper)
        .unwrap()
}

/// Of a client of a pool the record by its address lies elsewhere. Who does not ask for
/// it must not leave a group behind that looks as if all of it had been read.
#[test]
fn what_was_not_read_is_not_taken_for_absent() {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [0, 1].map(|place| listeners[place].local_addr().unwrap());
    let map = move || slots(&[(0, 8191, addresses[0]), (8192, 16383, addresses[1])]);
    let [lower, upper] = listeners;
    let lower = Scripted::on(lower, move |asked| match asked.words[0].as_str() {
        "CLUSTER" => map(),
        "SCRIPT" => say("+OK"),
        "EVALSHA" => say(":1"),
        _ => Say(format!(
            "*{}\r\n{}",
            asked.words.len() - 1,
            "$-1\r\n".repeat(asked.words.len() - 1)
        )),
    });
    let upper = Scripted::on(upper, |asked| match asked.words[0].as_str() {
        "MGET" => Close,
        _ => say("+OK"),
    });
    let network = text_in(true, |number| format!("10.0.{number}.0"));
    let pool = text_in(false, |number| format!("p{number}.example"));
    let address = |last: &str| format!("{}{last}", network.trim_end_matches('0'));
    let (first, second) = (address("1"), address("2"));
    let (of_pool, of_network) = (format!("{pool}/a/b"), format!("{network}/a/b"));
    let commands = [
        command(&first, &pool, &of_pool),
        command(&second, &second, &of_network),
    ];
    let rules = Rules {
        by_domain: true,
        auto_whitelist: None,
        ..Rules::default()
    };
    let url = format!("redis-cluster://{}", lower.address);
    let (outcomes, troubles) = apply(&url, &rules, &commands);
    assert!(outcomes[0].is_some(), "{troubles:?}");
    assert_eq!(outcomes[1], None);
    assert_eq!(troubles.len(), 1, "{troubles:?}");
    assert_eq!((lower.count("EVALSHA"), upper.count("EVALSHA")), (1, 0));
}
