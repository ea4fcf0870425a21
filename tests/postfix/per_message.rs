//! `--tarpit-per-message`: mails to one, two and ten people by clients that wait, hang
//! up, or send everything at once.

use std::time::{Duration, Instant};

use postgrey::policy::record::Database;

use crate::instance::Service;
use crate::server::{Server, free_port};
use crate::smtp::{Reply, Smtp};
use crate::{Scenario, Stage, check};

const SLEEP: Duration = Duration::from_secs(2);
const AT_ONCE: Duration = Duration::from_millis(1500);
/// How long Postfix may take to notice that a client is gone.
const PATIENCE: Duration = Duration::from_secs(20);
const NO_NAME: &str = "[UNAVAILABLE]";

pub fn scenarios() -> Vec<Scenario> {
    let (plain, strict) = (free_port(), free_port());
    let policy = |port: u16| format!("check_policy_service inet:127.0.0.1:{port}");
    let mut strict_service = Service::at_rcpt(free_port(), &policy(strict));
    strict_service.settings.push(format!(
        "smtpd_data_restrictions=reject_unauth_pipelining,{},permit",
        policy(strict)
    ));
    vec![
        Scenario {
            name: "per-message",
            service: Service::at_rcpt_and_data(free_port(), &policy(plain)),
            play: Box::new(move |stage, port| per_message(stage, port, plain)),
        },
        Scenario {
            name: "per-message-strict",
            service: strict_service,
            play: Box::new(move |stage, port| strictly(stage, port, strict)),
        },
    ]
}

fn start(stage: &Stage, name: &str, policy: u16) -> Server {
    Server::start(
        &stage.folder(name),
        &[
            &format!("--inet=127.0.0.1:{policy}"),
            "--tarpit=2",
            "--targrey",
            "--tarpit-per-message",
            "--retry-count=2",
        ],
    )
}

fn per_message(stage: &Stage, port: u16, policy: u16) {
    let server = start(stage, "per-message", policy);
    std::thread::scope(|scope| {
        for number in [1, 2, 10] {
            let server = &server;
            scope.spawn(move || patient(stage, port, server, number));
            scope.spawn(move || pipelining(stage, port, server, number));
        }
        scope.spawn(|| impatient(stage, port, &server));
        scope.spawn(|| gone_at_once(stage, port, &server));
    });
    let log = server.log_text();
    let lines = log.matches("action=pass, reason=held before, ").count();
    check(
        lines == 29,
        "per message: a line for each further recipient",
        format!("{lines} of 2 * (0 + 1 + 9) and 9 of who sent all and left"),
    );
}

fn recipient(number: usize) -> String {
    format!("u{number}@example.org")
}

fn is_quick(reply: &Reply) -> bool {
    reply.code == 250 && reply.time < AT_ONCE
}

/// What is left of a client that has come to DATA with this many recipients.
fn check_records(server: &Server, who: &str, address: &str, number: usize) {
    let network = format!("{}.0/", address.rsplit_once('.').unwrap().0);
    let triplets = server.records(Database::Greylist);
    let triplets = triplets.keys().filter(|key| key.starts_with(&network));
    let triplets = triplets.count();
    let entry = server.records(Database::Tarpit).remove(address);
    let passes = server.records(Database::Clients).remove(address);
    check(
        triplets == number
            && entry.is_none()
            && passes
                .as_deref()
                .is_some_and(|passes| passes.starts_with("1,")),
        &format!("{who}: triplets as ever, out of the tarpit, a pass"),
        format!("{triplets} {entry:?} {passes:?}"),
    );
}

/// Waits for each reply.
fn patient(stage: &Stage, port: u16, server: &Server, number: usize) {
    let who = format!("per message, patient, {number} recipients");
    let address = format!("198.18.{number}.1");
    let mut smtp = Smtp::appear_as(port, &address, NO_NAME);
    let first = smtp.offer("a@s.example", &recipient(1));
    check(
        first.code == 250 && first.time >= SLEEP,
        &format!("{who}: held once"),
        &first,
    );
    let further: Vec<Reply> = (2..=number)
        .map(|n| smtp.recipient(&recipient(n)))
        .collect();
    let end = smtp.deliver(&who);
    check(
        further.iter().all(is_quick) && is_quick(&end),
        &format!("{who}: all others at once, and DATA"),
        format!("{} others, {end}", further.len()),
    );
    let mails = stage.postfix.wait_for_mail(&who, number).len();
    check(mails == number, &format!("{who}: delivered to all"), mails);
    check_records(server, &who, &address, number);
    let next = smtp.offer("b@s.example", &recipient(1));
    check(
        next.code == 250 && next.time >= SLEEP,
        &format!("{who}: the next mail of the session is held, too"),
        &next,
    );
}

/// What a client sends that has learnt that it need not wait.
fn all_lines(number: usize) -> Vec<String> {
    let mut lines = vec!["MAIL FROM:<a@s.example>".to_owned()];
    lines.extend((1..=number).map(|n| format!("RCPT TO:<{}>", recipient(n))));
    lines.push("DATA".into());
    lines
}

fn text_lines(subject: &str) -> Vec<String> {
    let lines = [&format!("Subject: {subject}"), "", "text", "."];
    lines.map(str::to_owned).into()
}

/// Sends everything up to DATA in one go (RFC 2920), and waits.
fn pipelining(stage: &Stage, port: u16, server: &Server, number: usize) {
    let who = format!("per message, pipelining, {number} recipients");
    let address = format!("198.18.{}.1", 100 + number);
    let mut smtp = Smtp::appear_as(port, &address, NO_NAME);
    let start = Instant::now();
    smtp.send(&all_lines(number));
    let replies: Vec<Reply> = (0..number + 2).map(|_| smtp.reply()).collect();
    let time = start.elapsed();
    let codes: Vec<u16> = replies.iter().map(|reply| reply.code).collect();
    let mut expected = vec![250; number + 1];
    expected.push(354);
    check(
        codes == expected && time >= SLEEP && time < SLEEP + PATIENCE,
        &format!("{who}: held once, all accepted"),
        format!("{codes:?} in {time:.1?}"),
    );
    smtp.send(&text_lines(&who));
    let end = smtp.reply();
    let mails = stage.postfix.wait_for_mail(&who, number).len();
    check(
        end.code == 250 && mails == number,
        &format!("{who}: delivered to all"),
        format!("{end}, {mails}"),
    );
    check_records(server, &who, &address, number);
}

/// The line of Postfix about the end of a client's session, with what came of its
/// commands.
fn wait_for_end(stage: &Stage, address: &str) -> String {
    let wanted = format!("disconnect from unknown[{address}]");
    let start = Instant::now();
    loop {
        let log = stage.postfix.log_text();
        if let Some(line) = log.lines().find(|line| line.contains(&wanted)) {
            return line[line.find(&wanted).unwrap()..].to_owned();
        }
        assert!(start.elapsed() < PATIENCE, "no {wanted}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Hangs up in the tarpit, and comes again: greylisted with all its recipients.
fn impatient(stage: &Stage, port: u16, server: &Server) {
    let who = "per message, impatient";
    let address = "198.51.100.66";
    let mut smtp = Smtp::appear_as(port, address, NO_NAME);
    smtp.begin("b@s.example");
    smtp.send(&[format!("RCPT TO:<{}>", recipient(1))]);
    drop(smtp);
    let end = wait_for_end(stage, address);
    check(
        !end.contains("data="),
        &format!("{who}: is gone in the tarpit"),
        end,
    );
    let mut smtp = Smtp::appear_as(port, address, NO_NAME);
    smtp.begin("b@s.example");
    let replies: Vec<Reply> = (1..=10).map(|n| smtp.recipient(&recipient(n))).collect();
    let put_off = replies
        .iter()
        .filter(|reply| reply.code == 450 && reply.time < AT_ONCE)
        .count();
    check(
        put_off == 10,
        &format!("{who}: gains nothing for any recipient"),
        format!("{put_off} of 10 put off, the last: {}", replies[9]),
    );
    let entry = server.records(Database::Tarpit).contains_key(address);
    let passes = server.records(Database::Clients).contains_key(address);
    check(
        entry && !passes,
        &format!("{who}: stays in the tarpit, no pass"),
        format!("{entry} {passes}"),
    );
}

/// Sends all up to DATA and leaves: no mail, and held again the next time.
fn gone_at_once(stage: &Stage, port: u16, server: &Server) {
    let who = "per message, gone at once";
    let address = "203.0.113.99";
    let mut smtp = Smtp::appear_as(port, address, NO_NAME);
    smtp.send(&all_lines(10));
    drop(smtp);
    let end = wait_for_end(stage, address);
    check(
        !end.contains("data=1"),
        &format!("{who}: no mail came of it"),
        end,
    );
    let before = server.log_text().matches(address).count();
    let mut smtp = Smtp::appear_as(port, address, NO_NAME);
    let reply = smtp.offer("c@s.example", &recipient(1));
    check(
        reply.code == 250 && reply.time >= SLEEP && before == 9,
        &format!("{who}: is held the next time, too"),
        format!("{reply}, {before} let go before"),
    );
}

/// With `reject_unauth_pipelining` in front who sends the mail along is refused, and who
/// waits is not.
fn strictly(stage: &Stage, port: u16, policy: u16) {
    let server = start(stage, "per-message-strict", policy);
    let who = "per message, all at once, reject_unauth_pipelining";
    let address = "203.0.113.98";
    let mut smtp = Smtp::appear_as(port, address, NO_NAME);
    smtp.send(&[all_lines(3), text_lines(who)].concat());
    drop(smtp);
    let end = wait_for_end(stage, address);
    check(
        end.contains(" data=0/1 "),
        &format!("{who}: DATA is refused"),
        end,
    );
    pipelining(stage, port, &server, 3);
}
