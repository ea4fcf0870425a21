//! The tarpit: the first user's own set-up, made from `conf/`, `--tarpit`
//! alone, and a hundred sleepers.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use postgrey::policy::record::Database;

use crate::daemon::{Daemon, free_port, is_alive};
use crate::greylisting::headers;
use crate::instance::Service;
use crate::smtp::{Reply, Smtp};
use crate::{Scenario, Stage, check};

const SLEEP: Duration = Duration::from_secs(2);
const AT_ONCE: Duration = Duration::from_millis(1500);
const SLEEPERS: usize = 100;

pub fn scenarios(home: &Path) -> Vec<Scenario> {
    let (own, alone, many) = (free_port(), free_port(), free_port());
    let policy = |port: u16| format!("check_policy_service inet:127.0.0.1:{port}");
    vec![
        Scenario {
            name: "own-set-up",
            service: own_service(home, own),
            play: Box::new(move |stage, port| own_set_up(stage, port, own)),
        },
        Scenario {
            name: "tarpit-alone",
            service: Service::at_rcpt(&policy(alone)),
            play: Box::new(move |stage, port| tarpit_alone(stage, port, alone)),
        },
        Scenario {
            name: "sleepers",
            service: Service::at_rcpt_and_data(&policy(many)),
            play: Box::new(move |stage, port| sleepers(stage, port, many)),
        },
    ]
}

/// The restrictions of `conf/main.cf.example`, word for word but for the
/// places of its files and the port of the server.
fn own_service(home: &Path, policy: u16) -> Service {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = fs::read_to_string(root.join("conf/main.cf.example")).unwrap();
    let etc = home.join("etc");
    fs::copy(
        root.join("conf/permit_client_nots25r"),
        etc.join("permit_client_nots25r"),
    )
    .unwrap();
    // postmap wants some main.cf; the real one is written over it.
    fs::write(etc.join("main.cf"), "compatibility_level = 3.6\n").unwrap();
    for (name, line) in [
        ("whitelist_recipient", "info@example.org OK\n"),
        ("whitelist_client", "203.0.113.77 OK\n"),
    ] {
        let path = etc.join(name);
        fs::write(&path, line).unwrap();
        let mut table = std::ffi::OsString::from("hash:");
        table.push(&path);
        let mut postmap = Command::new("postmap");
        let status = postmap.arg("-c").arg(&etc).arg(table).status().unwrap();
        assert!(status.success());
    }
    let setting = |name: &str| {
        let value: Vec<&str> = example
            .lines()
            .skip_while(|line| !line.starts_with(&format!("{name} =")))
            .skip(1)
            .take_while(|line| line.starts_with(char::is_whitespace))
            .map(str::trim)
            .filter(|line| !line.starts_with('#'))
            .collect();
        assert!(!value.is_empty(), "{name} is not in main.cf.example");
        let value = value
            .join(" ")
            .replace("/etc/postfix", &etc.display().to_string())
            .replace("127.0.0.1:60000", &format!("127.0.0.1:{policy}"));
        format!("{name}={value}")
    };
    Service {
        port: free_port(),
        settings: vec![
            setting("smtpd_recipient_restrictions"),
            setting("smtpd_data_restrictions"),
            "smtpd_helo_required=yes".into(),
        ],
    }
}

fn is_quick(reply: &Reply) -> bool {
    reply.time < AT_ONCE
}

fn has_slept(reply: &Reply) -> bool {
    (SLEEP..SLEEP + Duration::from_secs(8)).contains(&reply.time)
}

fn own_set_up(stage: &Stage, port: u16, policy: u16) {
    let daemon = Daemon::start(
        &stage.folder("own-set-up"),
        &[
            &format!("--inet=127.0.0.1:{policy}"),
            "--tarpit=2",
            "--targrey",
            "--retry-count=2",
            "--delay=3",
            "--max-age=7",
        ],
    );
    std::thread::scope(|scope| {
        scope.spawn(|| not_asked_about(port));
        scope.spawn(|| patient(stage, port, &daemon));
        scope.spawn(|| impatient(stage, port, &daemon));
    });
    let log = daemon.log_text();
    let has_lines = log.contains("action=greylist, reason=early-retry (")
        && log.contains("action=pass, reason=triplet found, client_name=unknown");
    check(
        has_lines,
        "own set-up: log of the impatient client",
        log.lines()
            .rfind(|line| line.contains("action="))
            .unwrap_or("none"),
    );
}

/// Clients that the tables of Postfix let in: the server is not asked.
fn not_asked_about(port: u16) {
    for (address, name, recipient, what) in [
        (
            "203.0.113.1",
            "mail.example.com",
            "u@example.org",
            "a mail server's name",
        ),
        (
            "203.0.113.77",
            "[UNAVAILABLE]",
            "u@example.org",
            "whitelist_client",
        ),
        (
            "203.0.113.2",
            "[UNAVAILABLE]",
            "info@example.org",
            "whitelist_recipient",
        ),
    ] {
        let mut smtp = Smtp::appear_as(port, address, name);
        let reply = smtp.offer("a@s.example", recipient);
        let end = smtp.deliver("not-asked");
        check(
            reply.code == 250 && end.code == 250 && is_quick(&reply),
            &format!("own set-up: {what} passes at once"),
            &reply,
        );
    }
}

/// A client that waits is let in, and leaves no trace in the tarpit.
fn patient(stage: &Stage, port: u16, daemon: &Daemon) {
    let address = "198.51.100.5";
    let mut smtp = Smtp::appear_as(port, address, "p5-adsl.tokyo.example.net");
    let reply = smtp.offer("a@s.example", "u@example.org");
    check(
        reply.code == 250 && has_slept(&reply),
        "patient: sleeps and is accepted",
        &reply,
    );
    let entry = daemon.records(Database::Tarpit).remove(address);
    check(
        entry.is_some(),
        "patient: in the tarpit before DATA",
        format!("{entry:?}"),
    );
    let second = smtp.recipient("v@example.org");
    check(
        second.code == 450 && is_quick(&second),
        "patient: a second recipient of the same mail is put off",
        &second,
    );
    let end = smtp.deliver("patient");
    check(
        end.code == 250 && is_quick(&end),
        "patient: DATA is accepted at once",
        &end,
    );
    let entry = daemon.records(Database::Tarpit).remove(address);
    check(
        entry.is_none(),
        "patient: out of the tarpit behind DATA",
        format!("{entry:?}"),
    );
    let mail = stage.postfix.wait_for_mail("patient", 1).remove(0);
    let header = headers(&mail, "X-Greylist");
    check(
        header.is_empty(),
        "patient: the mail has no header",
        format!("{header:?}"),
    );
    let count = daemon.records(Database::Clients).remove(address);
    check(
        count
            .as_deref()
            .is_some_and(|count| count.starts_with("1,")),
        "patient: counted for the auto-whitelist",
        format!("{count:?}"),
    );
}

/// A client that hangs up in the tarpit is greylisted from then on; the second
/// retry behind the delay passes.
fn impatient(stage: &Stage, port: u16, daemon: &Daemon) {
    let address = "198.51.100.66";
    let offer = || {
        let mut smtp = Smtp::appear_as(port, address, "[UNAVAILABLE]");
        let reply = smtp.offer("b@s.example", "w@example.org");
        (smtp, reply)
    };
    let (smtp, reply) = offer();
    check(has_slept(&reply), "impatient: sleeps", &reply);
    drop(smtp);
    let entry = daemon.records(Database::Tarpit).remove(address);
    check(
        entry.is_some(),
        "impatient: in the tarpit",
        format!("{entry:?}"),
    );
    let (_, reply) = offer();
    check(
        reply.code == 450 && is_quick(&reply) && reply.text.contains("Greylisted"),
        "impatient: greylisted at once",
        &reply,
    );
    std::thread::sleep(Duration::from_millis(3200));
    let (_, reply) = offer();
    check(
        reply.code == 450 && is_quick(&reply),
        "impatient: first retry behind the delay is put off (--retry-count=2)",
        &reply,
    );
    let (mut smtp, reply) = offer();
    check(
        reply.code == 250 && is_quick(&reply),
        "impatient: the second passes",
        &reply,
    );
    let end = smtp.deliver("impatient");
    check(end.code == 250, "impatient: DATA", &end);
    let record = daemon
        .records(Database::Greylist)
        .remove("198.51.100.0/b@s.example/w@example.org");
    let fields: Vec<String> = record
        .iter()
        .flat_map(|record| record.split(',').map(str::to_string))
        .collect();
    check(
        fields.len() == 4 && fields[2..] == ["2", "66"],
        "impatient: record first,last,count,octet",
        format!("{record:?}"),
    );
    let entry = daemon.records(Database::Tarpit).remove(address);
    check(
        entry.is_none(),
        "impatient: out of the tarpit behind DATA",
        format!("{entry:?}"),
    );
    let mail = stage.postfix.wait_for_mail("impatient", 1).remove(0);
    let header = headers(&mail, "X-Greylist");
    check(
        header.is_empty(),
        "impatient: no header, as with the original",
        format!("{header:?}"),
    );
}

fn tarpit_alone(stage: &Stage, port: u16, policy: u16) {
    let daemon = Daemon::start(
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
        "--tarpit alone: passes behind the delay",
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
    check(is_alive(daemon.pid()), "--tarpit alone: serves on", "alive");
}

/// A hundred clients asleep keep nobody else waiting.
fn sleepers(stage: &Stage, port: u16, policy: u16) {
    let folder = stage.folder("sleepers");
    let clients = folder.join("clients");
    fs::write(&clients, "friend.example\n").unwrap();
    let daemon = Daemon::start(
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
        let asleep = daemon.records(Database::Tarpit).len();
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
    let left = daemon.records(Database::Tarpit).len();
    check(left == 0, "sleepers: the tarpit is empty behind DATA", left);
}
