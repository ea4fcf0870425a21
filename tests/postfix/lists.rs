//! `--whitelist-senders`, `--greylist-recipients` and `--suspect-clients`: mails from and
//! to those who are listed and those who are not, with and without the tarpit.

use std::fs;
use std::time::Duration;

use postgrey::policy::record::Database;

use crate::instance::Service;
use crate::server::{Server, free_port};
use crate::smtp::{Reply, Smtp};
use crate::{Scenario, Stage, check};

const SLEEP: Duration = Duration::from_secs(2);
const AT_ONCE: Duration = Duration::from_millis(1500);
/// A little more than the `--delay` of these servers.
const DELAY: Duration = Duration::from_millis(2200);
const SENDER: &str = "a@s.example";
const IN: &str = "in@example.org";
const OUT: &str = "out@example.org";

pub fn scenarios() -> Vec<Scenario> {
    let (plain, tarpit) = (free_port(), free_port());
    let policy = |port: u16| format!("check_policy_service inet:127.0.0.1:{port}");
    vec![
        Scenario {
            name: "lists",
            service: Service::at_rcpt(free_port(), &policy(plain)),
            play: Box::new(move |stage, port| {
                let options = ["--auto-whitelist-clients=2", "--auto-whitelist-delay=1"];
                let server = start(stage, "lists", plain, &options);
                senders(port);
                recipients(stage, port, &server);
                suspects(port, &server);
            }),
        },
        Scenario {
            name: "lists-tarpit",
            service: Service::at_rcpt_and_data(free_port(), &policy(tarpit)),
            play: Box::new(move |stage, port| {
                let options = ["--targrey", "--tarpit=2", "--auto-whitelist-clients=1"];
                let server = start(stage, "lists-tarpit", tarpit, &options);
                std::thread::scope(|scope| {
                    scope.spawn(|| one_of_two_opted_in(stage, port, &server));
                    scope.spawn(|| nobody_opted_in(stage, port, &server));
                    scope.spawn(|| null_sender_of_two(stage, port, &server));
                    scope.spawn(|| suspect_in_the_tarpit(port, &server));
                });
            }),
        },
    ]
}

fn start(stage: &Stage, name: &str, policy: u16, more: &[&str]) -> Server {
    let folder = stage.folder(name);
    let list = |option: &str, text: &str| {
        let file = folder.join(option);
        fs::write(&file, text).unwrap();
        format!("--{option}={}", file.display())
    };
    let options = [
        format!("--inet=127.0.0.1:{policy}"),
        "--delay=2".into(),
        list("whitelist-senders", "friend.example\nbob@b.example\n<>\n"),
        list("greylist-recipients", "in@\n"),
        list("suspect-clients", "198.51.100.0/24\nbulk.example\n"),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Server::start(&folder, &[&options[..], more].concat())
}

fn is_quick(reply: &Reply) -> bool {
    reply.code == 250 && reply.time < AT_ONCE
}

fn senders(port: u16) {
    let mut smtp = Smtp::appear_as(port, "192.0.2.1", "x.example");
    for (sender, expected) in [
        ("alice@mail.friend.example", 250),
        ("Bob@B.example", 250),
        ("bob+list@b.example", 250),
        ("prvs=0123456789=bob@b.example", 250),
        ("", 250),
        ("carol@b.example", 450),
        ("alice@notfriend.example", 450),
    ] {
        let reply = smtp.offer(sender, IN);
        check(
            reply.code == expected,
            &format!("lists: from <{sender}>"),
            &reply,
        );
    }
}

fn recipients(stage: &Stage, port: u16, server: &Server) {
    let mut smtp = Smtp::appear_as(port, "192.0.2.2", "x.example");
    for (recipient, expected) in [
        (IN, 450),
        ("In+box@example.org", 450),
        (OUT, 250),
        ("inner@example.org", 250),
    ] {
        let reply = smtp.offer(SENDER, recipient);
        check(
            reply.code == expected,
            &format!("lists: to <{recipient}>"),
            &reply,
        );
    }
    smtp.begin(SENDER);
    let replies = [OUT, IN].map(|recipient| smtp.recipient(recipient));
    let codes = replies.each_ref().map(|reply| reply.code);
    check(
        codes == [250, 450],
        "lists: a mail to two, of whom one is greylisted",
        format!("{codes:?}"),
    );
    smtp.deliver("lists one of two");
    let mails = stage.postfix.wait_for_mail("lists one of two", 1);
    check(
        mails.len() == 1,
        "lists: it comes to the other",
        mails.len(),
    );
    let keys = server.records(Database::Greylist);
    check(
        !keys.keys().any(|key| key.contains("out@")),
        "lists: nothing is kept of who is not greylisted",
        format!("{} triplets", keys.len()),
    );
}

/// Passes with a triplet of its own, after it was greylisted.
fn pass(port: u16, address: &str, name: &str, sender: &str) -> [Reply; 2] {
    let mut smtp = Smtp::appear_as(port, address, name);
    let first = smtp.offer(sender, IN);
    std::thread::sleep(DELAY);
    [first, smtp.offer(sender, IN)]
}

/// What has passed often is greylisted with the next triplet, unlike another.
fn suspects(port: u16, server: &Server) {
    let clients = [
        ("198.51.100.7", "x.example", true),
        ("192.0.2.7", "mx.bulk.example", true),
        ("192.0.2.8", "x.example", false),
    ];
    std::thread::scope(|scope| {
        for (address, name, is_suspect) in clients {
            scope.spawn(move || {
                for number in 1..=3 {
                    let sender = format!("s{number}@s.example");
                    let codes = pass(port, address, name, &sender).map(|reply| reply.code);
                    // Two passes, more than a second apart, are enough.
                    let expected = match is_suspect || number < 3 {
                        true => [450, 250],
                        false => [250, 250],
                    };
                    check(
                        codes == expected,
                        &format!("lists: {name}[{address}], triplet {number}"),
                        format!("{codes:?}"),
                    );
                }
            });
        }
    });
    let mut neighbour = Smtp::appear_as(port, "198.51.100.8", "x.example");
    let reply = neighbour.offer("s1@s.example", IN);
    check(
        reply.code == 450,
        "lists: a neighbour of a suspect client has waited for nothing",
        &reply,
    );
    let clients: Vec<String> = server.records(Database::Clients).into_keys().collect();
    check(
        clients == ["192.0.2.8"],
        "lists: no suspect client is counted",
        format!("{clients:?}"),
    );
}

/// What is left of a client: its entry in the tarpit, its passes.
fn traces(server: &Server, address: &str) -> [bool; 2] {
    [Database::Tarpit, Database::Clients]
        .map(|database| server.records(database).contains_key(address))
}

fn one_of_two_opted_in(stage: &Stage, port: u16, server: &Server) {
    let who = "lists, tarpit, one of two opted in";
    let mut smtp = Smtp::appear_as(port, "203.0.113.1", "x.example");
    smtp.begin(SENDER);
    let (other, own) = (smtp.recipient(OUT), smtp.recipient(IN));
    check(
        is_quick(&other) && own.code == 250 && own.time >= SLEEP,
        &format!("{who}: held for that one"),
        format!("{other}, {own}"),
    );
    let end = smtp.deliver(who);
    let mails = stage.postfix.wait_for_mail(who, 2).len();
    check(
        is_quick(&end) && mails == 2,
        &format!("{who}: delivered to both"),
        format!("{end}, {mails}"),
    );
    let left = traces(server, "203.0.113.1");
    check(
        left == [false, true],
        &format!("{who}: out of the tarpit, and a pass"),
        format!("{left:?}"),
    );
}

fn nobody_opted_in(stage: &Stage, port: u16, server: &Server) {
    let who = "lists, tarpit, none of two opted in";
    let mut smtp = Smtp::appear_as(port, "203.0.113.2", "x.example");
    smtp.begin(SENDER);
    let replies = [OUT, "other@example.org"].map(|recipient| smtp.recipient(recipient));
    let end = smtp.deliver(who);
    let mails = stage.postfix.wait_for_mail(who, 2).len();
    check(
        replies.iter().all(is_quick) && is_quick(&end) && mails == 2,
        &format!("{who}: delivered at once"),
        format!("{end}, {mails}"),
    );
    // One mail in an hour would be enough for the auto-whitelist.
    let left = traces(server, "203.0.113.2");
    let held = smtp.offer(SENDER, IN);
    check(
        left == [false, false] && held.code == 250 && held.time >= SLEEP,
        &format!("{who}: gains nothing for who has"),
        format!("{left:?}, {held}"),
    );
}

fn null_sender_of_two(stage: &Stage, port: u16, server: &Server) {
    let who = "lists, tarpit, null sender";
    let mut smtp = Smtp::appear_as(port, "203.0.113.3", "x.example");
    smtp.begin("");
    let replies = [IN, "in+two@example.org"].map(|recipient| smtp.recipient(recipient));
    let end = smtp.deliver(who);
    let mails = stage.postfix.wait_for_mail(who, 2).len();
    check(
        replies.iter().all(is_quick) && is_quick(&end) && mails == 2,
        &format!("{who}: delivered to two at once"),
        format!("{end}, {mails}"),
    );
    let left = traces(server, "203.0.113.3");
    check(
        left == [false, false],
        &format!("{who}: nothing is left of it"),
        format!("{left:?}"),
    );
}

fn suspect_in_the_tarpit(port: u16, server: &Server) {
    let address = "198.51.100.66";
    let mut smtp = Smtp::appear_as(port, address, "x.example");
    for number in 1..=3 {
        let who = format!("lists, tarpit, suspect, mail {number}");
        let held = smtp.offer(&format!("t{number}@s.example"), IN);
        let end = smtp.deliver(&who);
        check(
            held.code == 250 && held.time >= SLEEP && is_quick(&end),
            &format!("{who}: held, and delivered when it has waited"),
            format!("{held}, {end}"),
        );
    }
    let left = traces(server, address);
    check(
        left == [false, false],
        "lists, tarpit, suspect: out of the tarpit, and not counted",
        format!("{left:?}"),
    );
}
