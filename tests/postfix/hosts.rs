//! Two MX hosts, each a Postfix with a server of its own, and one greylist in Redis.

use std::time::{Duration, Instant};

use crate::instance::{Postfix, Service};
use crate::redis_server::{RedisServer, has};
use crate::server::{Server, free_port};
use crate::smtp::Smtp;
use crate::{Scenario, Stage, check};

pub fn scenarios() -> Vec<Scenario> {
    let policy = free_port();
    vec![Scenario {
        name: "hosts",
        service: service(free_port(), policy),
        play: Box::new(move |stage, port| play(stage, port, policy)),
    }]
}

fn service(port: u16, policy: u16) -> Service {
    Service::at_rcpt(
        port,
        &format!("check_policy_service inet:127.0.0.1:{policy}"),
    )
}

/// A host: where its smtpd listens, and its Postfix.
struct Host<'a> {
    name: &'static str,
    port: u16,
    postfix: &'a Postfix,
}

impl Host<'_> {
    fn session(&self, client: &str) -> Smtp {
        Smtp::appear_as(self.port, client, "client.example.net")
    }
}

fn play(stage: &Stage, port: u16, policy: u16) {
    if !has("redis-server", "two Postfix with one greylist") {
        return;
    }
    let redis = RedisServer::start(&[]);
    let store = format!("--store={}", redis.url());
    let other_policy = free_port();
    let servers = [("hosts", policy), ("hosts.second", other_policy)].map(|(name, policy)| {
        let at = format!("--inet=127.0.0.1:{policy}");
        let folder = stage.folder(name);
        std::fs::create_dir_all(&folder).unwrap();
        Server::start(&folder, &[&at, &store, "--delay=3"])
    });
    let home = stage.folder("hosts.postfix");
    let other_service = service(free_port(), other_policy);
    let other = Postfix::start(&home, &[&other_service], "");
    let first = Host {
        name: "first",
        port,
        postfix: &stage.postfix,
    };
    let second = Host {
        name: "second",
        port: other_service.port,
        postfix: &other,
    };
    there_and_here(&first, &second, "192.0.2.1");
    there_and_here(&second, &first, "198.51.100.1");
    let log = servers.iter().map(Server::log_text).collect::<String>();
    let is_well = !log.contains("ungreylisted");
    check(
        is_well,
        "hosts: all was greylisted",
        "no trouble in the logs",
    );
}

/// A sender that is refused at one host, and comes to the other after the delay.
fn there_and_here(refuses: &Host, accepts: &Host, client: &str) {
    let (sender, recipient) = ("a@sender.example", "new@example.org");
    let how = format!("{} and {} host", refuses.name, accepts.name);
    let begun = Instant::now();
    let reply = refuses.session(client).offer(sender, recipient);
    let refused = Instant::now();
    check(reply.code == 450, &format!("{how}: new triplet"), &reply);
    let reply = accepts.session(client).offer(sender, recipient);
    let what = format!("{how}: too early at the other");
    check(reply.code == 450, &what, &reply);
    std::thread::sleep(Duration::from_millis(3200).saturating_sub(refused.elapsed()));
    let mut smtp = accepts.session(client);
    let (shortest, reply) = (refused.elapsed(), smtp.offer(sender, recipient));
    let longest = begun.elapsed();
    let what = format!("{how}: after the delay at the other");
    check(reply.code == 250, &what, &reply);
    let subject = format!("hosts-{}", accepts.name);
    smtp.deliver(&subject);
    let mail = accepts.postfix.wait_for_mail(&subject, 1).remove(0);
    let header = mail.lines().find(|line| line.starts_with("X-Greylist: "));
    let header = header.unwrap_or_default();
    let words = header
        .strip_prefix("X-Greylist: delayed ")
        .unwrap_or_default();
    let (seconds, rest) = words.split_once(' ').unwrap_or_default();
    let seconds: f64 = seconds.parse().unwrap_or_default();
    // Both times were whole seconds.
    let is_right = (shortest.as_secs_f64() - 1.0..=longest.as_secs_f64() + 1.0).contains(&seconds);
    check(
        is_right && rest.starts_with("seconds by postgrey-"),
        &format!("{how}: seconds in the header"),
        format!("{header} (it was {:.1} s)", longest.as_secs_f64()),
    );
    let again = refuses.session(client).offer(sender, recipient);
    check(
        again.code == 250,
        &format!("{how}: known at the one, too"),
        &again,
    );
}
