//! The client of Redis: against a server that plays given answers, and against
//! real servers and a cluster of them, which the tests start.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod answers;
mod cluster;
mod example;
mod faults;
#[path = "../common/server.rs"]
mod ours;
mod real;
mod routing;
mod scripted;
#[path = "../common/redis.rs"]
mod server;
mod store;
mod tls;

use std::time::{Duration, Instant};

use postgrey::config::redis_address::RedisAddress;
use postgrey::store::StoreError;
use postgrey::store::redis::client::{Client, Request};
use postgrey::store::redis::options::RedisOptions;
use redis::Value;

/// The time that an exchange of these tests gets, where it matters.
pub(crate) const TIME: Duration = Duration::from_millis(300);
/// More than that is later than the deadline, on a busy machine too.
pub(crate) const LATEST: Duration = Duration::from_millis(500);
/// Enough for anything.
pub(crate) const AMPLE: Duration = Duration::from_secs(10);

pub(crate) const SCRIPTS: &[&str] = &["return ARGV[1]", "return redis.call('get', KEYS[1])"];

pub(crate) fn options(address: &str) -> RedisOptions {
    RedisOptions::new(RedisAddress::parse(address).unwrap())
}

pub(crate) fn client(address: &str) -> Client {
    Client::new(options(address), &[])
}

pub(crate) fn get(key: &str) -> Request {
    Request::new(key.as_bytes(), &[b"GET", key.as_bytes()])
}

pub(crate) fn set(key: &str, value: &str) -> Request {
    Request::new(
        key.as_bytes(),
        &[b"SET", key.as_bytes(), value.as_bytes(), b"PX", b"60000"],
    )
}

pub(crate) fn text(value: &str) -> Value {
    Value::BulkString(value.into())
}

pub(crate) fn ask_all(client: &mut Client, requests: &[Request], time: Duration) -> Vec<Answer> {
    let results = client.exchange(requests, Instant::now() + time);
    assert_eq!(results.len(), requests.len());
    results
}

pub(crate) type Answer = Result<Value, StoreError>;

pub(crate) fn ask(client: &mut Client, request: Request, time: Duration) -> Answer {
    ask_all(client, &[request], time).remove(0)
}

/// The answer, and how long it took.
pub(crate) fn timed(client: &mut Client, request: Request, time: Duration) -> (Answer, Duration) {
    let start = Instant::now();
    let answer = ask(client, request, time);
    (answer, start.elapsed())
}

/// The reason of an error.
#[track_caller]
pub(crate) fn reason(answer: Answer) -> String {
    answer.expect_err("an error is expected").reason
}

/// Asks until it is answered, which has to be soon.
#[track_caller]
pub(crate) fn ask_until_well(client: &mut Client, request: &Request) -> Value {
    let end = Instant::now() + AMPLE;
    loop {
        match ask(client, request.clone(), TIME) {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
