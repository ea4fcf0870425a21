//! Restarts and violence while mail comes in: what the client is told.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use crate::instance::Service;
use crate::server::{Server, free_port, is_alive};
use crate::smtp::Smtp;
use crate::{Scenario, Stage, check};

pub fn scenarios() -> Vec<Scenario> {
    let policy = free_port();
    vec![Scenario {
        name: "faults",
        service: Service::at_rcpt(
            free_port(),
            &format!("check_policy_service inet:127.0.0.1:{policy}"),
        ),
        play: Box::new(move |stage, port| violence(stage, port, policy)),
    }]
}

/// What sessions were told while something happened.
#[derive(Default)]
struct Traffic {
    greylisted: AtomicUsize,
    refused: AtomicUsize,
    /// Answers that took more than 0.9 s: Postfix had to connect again.
    slow: AtomicUsize,
    is_over: AtomicBool,
}

fn violence(stage: &Stage, port: u16, policy: u16) {
    let mut server = Server::start(
        &stage.folder("faults"),
        &[&format!("--inet=127.0.0.1:{policy}"), "--delay=3"],
    );
    server.wait_for_children(3);
    under_traffic(port, "restart", || {
        for _ in 0..2 {
            server.stop();
            server.start_again();
            std::thread::sleep(Duration::from_millis(1500));
        }
    });
    under_traffic(port, "kill -9 of each child", || {
        for pid in server.wait_for_children(3) {
            kill(pid, Signal::SIGKILL).unwrap();
            std::thread::sleep(Duration::from_millis(1500));
        }
    });
    let children = server.wait_for_children(3);
    check(
        children.len() == 3,
        "kill -9 of each child: replaced",
        format!("{children:?}"),
    );
    under_traffic(port, "kill -9 of the master and a new start", || {
        server.kill_master();
        server.start_again();
        std::thread::sleep(Duration::from_millis(1500));
    });
    let start = Instant::now();
    while children.iter().any(|&pid| is_alive(pid)) && start.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(10));
    }
    let left = children.iter().filter(|&&pid| is_alive(pid)).count();
    check(
        left == 0,
        "kill -9 of the master: its children have ended",
        format!("{left} left"),
    );
    let mut smtp = Smtp::appear_as(port, "192.0.2.200", "client.example.net");
    let reply = smtp.offer("a@s.example", "last@example.org");
    check(reply.code == 450, "after all that: served", &reply);
}

/// Four sessions offer mail without a pause while something is done.
pub fn under_traffic(port: u16, what: &str, act: impl FnOnce()) {
    let traffic = Traffic::default();
    std::thread::scope(|scope| {
        for number in 0..4 {
            let traffic = &traffic;
            scope.spawn(move || {
                let address = format!("192.0.2.{number}");
                let mut smtp = Smtp::appear_as(port, &address, "client.example.net");
                let mut count = 0;
                while !traffic.is_over.load(Ordering::Relaxed) {
                    count += 1;
                    let sender = format!("x{number}y{count}@{}.example", what.replace(' ', ""));
                    let reply = smtp.offer(&sender, "u@example.org");
                    match reply.code {
                        450 => traffic.greylisted.fetch_add(1, Ordering::Relaxed),
                        _ => traffic.refused.fetch_add(1, Ordering::Relaxed),
                    };
                    if reply.time > Duration::from_millis(900) {
                        traffic.slow.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        act();
        traffic.is_over.store(true, Ordering::Relaxed);
    });
    let [greylisted, refused, slow] =
        [&traffic.greylisted, &traffic.refused, &traffic.slow].map(|n| n.load(Ordering::Relaxed));
    check(
        refused == 0 && greylisted > 10,
        &format!("{what} under traffic: no 451"),
        format!("{greylisted} greylisted, {refused} refused, {slow} answered after a second try"),
    );
}
