//! `--tarpit` alone, and a hundred sleepers.

use std::fs;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use postgrey::policy::record::Database;

use crate::greylisting::headers;
use crate::instance::Service;
use crate::server::{Server, free_port, is_alive};
use crate::smtp::{Reply, Smtp};
use crate::targrey::{has_slept, is_quick};
use crate::{Scenario, Stage, check};

const SLEEPERS: usize = 100;

pub fn scenarios() -> Vec<Scenario> {
    let (alone, many) = (free_port(), free_port());
    let policy = |port: u16| format!("check_policy_service inet:127.0.0.1:{port}");
    vec![
        Scenario {
            name: "tarpit-alone",
            service: Service::at_rcpt(free_port(), &policy(alone)),
            play: Box::new(move |stage, port| tarpit_alone(stage, port, alone)),
        },
        Scenario {
            name: "sleepers",
            service: Service::at_rcpt_and_data(free_port(), &policy(many)),
            play: Box::new(move |stage, port| sleepers(stage, port, many)),
        },
    ]
}

fn tarpit_alone(stage: &Stage, port: u16, policy: u16) {
    let server = Server::start(
        &stage.folder("tarpit-alone"),
        &[
            &format!("--inet=127.0.0.1:{policy}"),
            "--tarpit=2",
            "--delay=3",
        ],
    );
    let mut smtp = Smtp::appear_as(port, "192.0.2.1", "client.example.net");
    let reply = smtp.offer("a@s.example", "u@example.org");
    check(
        reply.code == 450 && has_slept(&reply) && reply.text.contains("defer_if_permit requested"),
        "--tarpit alone: sleeps, then is put off",
        &reply,
    );
    std::thread::sleep(Duration::from_millis(1500));
    let reply = smtp.offer("a@s.example", "u@example.org");
    check(
        reply.code == 250 && is_quick(&reply),
        "--tarpit alone: passes after the delay",
        &reply,
    );
    smtp.deliver("tarpit-alone");
    let mail = stage.postfix.wait_for_mail("tarpit-alone", 1).remove(0);
    let header = headers(&mail, "X-Greylist").join("|");
    check(
        header.starts_with("X-Greylist: delayed "),
        "--tarpit alone: header",
        header,
    );
    check(is_alive(server.pid()), "--tarpit alone: serves on", "alive");
}

/// A hundred clients asleep keep nobody else waiting.
fn sleepers(stage: &Stage, port: u16, policy: u16) {
    let folder = stage.folder("sleepers");
    let clients = folder.join("clients");
    fs::write(&clients, "friend.example\n").unwrap();
    let server = Server::start(
        &folder,
        &[
            &format!("--inet=127.0.0.1:{policy}"),
            "--tarpit=6",
            "--targrey",
            "--delay=3",
            &format!("--whitelist-clients={}", clients.display()),
        ],
    );
    // All have to be connected before the first is asleep, so that they really
    // sleep at the same time.
    let barrier = Barrier::new(SLEEPERS + 1);
    let replies: Vec<Reply> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..SLEEPERS)
            .map(|number| {
                let barrier = &barrier;
                scope.spawn(move || {
                    let address = format!("198.18.{number}.1");
                    let mut smtp = Smtp::appear_as(port, &address, "[UNAVAILABLE]");
                    smtp.begin("a@s.example");
                    barrier.wait();
                    let reply = smtp.recipient("u@example.org");
                    let end = smtp.command("DATA");
                    assert_eq!(end.code, 354, "{end}");
                    reply
                })
            })
            .collect();
        barrier.wait();
        std::thread::sleep(Duration::from_millis(1500));
        let asleep = server.records(Database::Tarpit).len();
        let start = Instant::now();
        let mut slowest = Duration::ZERO;
        for number in 0..5 {
            let mut smtp = Smtp::appear_as(port, "198.19.0.1", "mx.friend.example");
            let reply = smtp.offer("a@s.example", &format!("n{number}@example.org"));
            assert_eq!(reply.code, 250, "{reply}");
            slowest = slowest.max(reply.time);
        }
        check(
            asleep == SLEEPERS && slowest < Duration::from_secs(1),
            "sleepers: new sessions beside them",
            format!(
                "{asleep} asleep, 5 sessions in {:.1?}, slowest answer {slowest:.1?}",
                start.elapsed()
            ),
        );
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    let right = replies
        .iter()
        .filter(|reply| reply.code == 250 && reply.time >= Duration::from_secs(6))
        .count();
    let longest = replies.iter().map(|reply| reply.time).max().unwrap();
    check(
        right == SLEEPERS,
        "sleepers: all wake up and are accepted",
        format!("{right} of {SLEEPERS}, the last after {longest:.1?}"),
    );
    let left = server.records(Database::Tarpit).len();
    check(left == 0, "sleepers: the tarpit is empty after DATA", left);
}
