//! The tarpit: the first user's own set-up, made from `conf/`, the same with
//! `--s25r` in the place of its table.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use postgrey::policy::record::Database;

use crate::greylisting::headers;
use crate::instance::Service;
use crate::server::{Server, free_port};
use crate::smtp::{Reply, Smtp};
use crate::{Scenario, Stage, check};

const SLEEP: Duration = Duration::from_secs(2);
/// Of `--delay`, counted from before the sleep in whole seconds: well over the
/// sleep and a second, so that on a busy machine a retry right after the
/// sleep is early, and below the sleep and [`LATER`], so that the next is not.
const DELAY: &str = "--delay=5";
const LATER: Duration = Duration::from_millis(3200);
const AT_ONCE: Duration = Duration::from_millis(1500);
/// A name that the S25R rules miss: the table has a WARN line for it.
const MISSED: &str = "p5-adsl.tokyo.example.net";
/// One that they do not.
const CAUGHT: &str = "adsl-198-51-100-5.tokyo.example.net";

pub fn scenarios(home: &Path) -> Vec<Scenario> {
    let (own, built_in) = (free_port(), free_port());
    let policy = |port: u16| format!("check_policy_service inet:127.0.0.1:{port}");
    vec![
        Scenario {
            name: "own-set-up",
            service: own_service(home, own),
            play: Box::new(move |stage, port| own_set_up(stage, port, own)),
        },
        Scenario {
            name: "s25r",
            service: Service::at_rcpt_and_data(free_port(), &policy(built_in)),
            play: Box::new(move |stage, port| built_in_rules(stage, port, built_in)),
        },
    ]
}

/// The restrictions of `conf/main.cf.example`, word for word but for the
/// places of its files and the port of the server, and without what asks a
/// name server: `tests/examples` has all of it, cut off from the net.
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
            .filter(|line| !line.starts_with('#') && !line.starts_with("permit_dnswl_client "))
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

pub fn is_quick(reply: &Reply) -> bool {
    reply.time < AT_ONCE
}

pub fn has_slept(reply: &Reply) -> bool {
    (SLEEP..SLEEP + Duration::from_secs(8)).contains(&reply.time)
}

fn own_set_up(stage: &Stage, port: u16, policy: u16) {
    let server = Server::start(
        &stage.folder("own-set-up"),
        &[
            &format!("--inet=127.0.0.1:{policy}"),
            "--tarpit=2",
            "--targrey",
            "--retry-count=2",
            DELAY,
            "--max-age=7",
        ],
    );
    std::thread::scope(|scope| {
        scope.spawn(|| not_asked_about(port));
        scope.spawn(|| patient(stage, port, &server, ("own set-up", MISSED)));
        scope.spawn(|| impatient(stage, port, &server, "own set-up"));
    });
    check_log(&server, "own set-up");
    // Each request at RCPT has its line, so those without one were not asked.
    let log = server.log_text();
    for (address, _, _, what) in LET_IN {
        let lines = log.matches(&format!("client_address={address},")).count();
        check(
            lines == 0 && !server.records(Database::Clients).contains_key(address),
            &format!("own set-up: {what} never reaches the server"),
            format!("{lines} lines of {}", log.matches("action=").count()),
        );
    }
}

/// What the server logs of the impatient client.
fn check_log(server: &Server, how: &str) {
    let log = server.log_text();
    let has_lines = log.contains("action=greylist, reason=early-retry (")
        && log.contains("action=pass, reason=triplet found, client_name=unknown");
    check(
        has_lines,
        &format!("{how}: log of the impatient client"),
        log.lines()
            .rfind(|line| line.contains("action=") && line.contains("client_name=unknown"))
            .unwrap_or("none"),
    );
}

/// `--s25r`, and no table in Postfix: the server itself lets those in whose
/// names are like a mail server's, and does to the others the same.
fn built_in_rules(stage: &Stage, port: u16, policy: u16) {
    let server = Server::start(
        &stage.folder("s25r"),
        &[
            &format!("--inet=127.0.0.1:{policy}"),
            "--s25r",
            "--targrey",
            "--tarpit=2",
            "--retry-count=2",
            DELAY,
        ],
    );
    std::thread::scope(|scope| {
        scope.spawn(|| mail_server(stage, port, &server));
        scope.spawn(|| patient(stage, port, &server, ("--s25r", CAUGHT)));
        scope.spawn(|| impatient(stage, port, &server, "--s25r"));
    });
    check_log(&server, "--s25r");
}

/// A client with the name of a mail server: let in at once, and no record.
fn mail_server(stage: &Stage, port: u16, server: &Server) {
    let address = "203.0.113.1";
    let mut smtp = Smtp::appear_as(port, address, "mail.example.com");
    let reply = smtp.offer("a@s.example", "u@example.org");
    check(
        reply.code == 250 && is_quick(&reply),
        "--s25r: a mail server's name passes at once",
        &reply,
    );
    let second = smtp.recipient("v@example.org");
    check(
        second.code == 250 && is_quick(&second),
        "--s25r: and so does its second recipient",
        &second,
    );
    let end = smtp.deliver("mail-server");
    check(
        end.code == 250 && is_quick(&end),
        "--s25r: and its DATA",
        &end,
    );
    let mail = stage.postfix.wait_for_mail("mail-server", 2).remove(0);
    let header = headers(&mail, "X-Greylist");
    check(
        header.is_empty(),
        "--s25r: and its mail has no header",
        format!("{header:?}"),
    );
    let log = server.log_text();
    let wanted = format!(
        "action=pass, reason=not S25R, client_name=mail.example.com, client_address={address}, "
    );
    check(
        log.contains(&wanted),
        "--s25r: log of the mail server",
        log.lines()
            .rfind(|line| line.contains(address))
            .unwrap_or("none"),
    );
    let is_known = server.records(Database::Tarpit).contains_key(address)
        || server
            .records(Database::Greylist)
            .keys()
            .any(|key| key.starts_with("203.0.113."));
    check(
        !is_known,
        "--s25r: the mail server leaves no record",
        format!("{:?}", server.records(Database::Greylist)),
    );
}

/// Clients that the tables of Postfix let in: address, name, recipient, why.
const LET_IN: [(&str, &str, &str, &str); 3] = [
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
];

/// The server is not asked about these.
fn not_asked_about(port: u16) {
    for (address, name, recipient, what) in LET_IN {
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
fn patient(stage: &Stage, port: u16, server: &Server, (how, name): (&str, &str)) {
    let address = "198.51.100.5";
    let subject = format!("{how} patient");
    let mut smtp = Smtp::appear_as(port, address, name);
    let reply = smtp.offer("a@s.example", "u@example.org");
    check(
        reply.code == 250 && has_slept(&reply),
        &format!("{how}, patient: sleeps and is accepted"),
        &reply,
    );
    let entry = server.records(Database::Tarpit).remove(address);
    check(
        entry.is_some(),
        &format!("{how}, patient: in the tarpit before DATA"),
        format!("{entry:?}"),
    );
    let second = smtp.recipient("v@example.org");
    check(
        second.code == 450 && is_quick(&second),
        &format!("{how}, patient: a second recipient of the same mail is put off"),
        &second,
    );
    let end = smtp.deliver(&subject);
    check(
        end.code == 250 && is_quick(&end),
        &format!("{how}, patient: DATA is accepted at once"),
        &end,
    );
    let entry = server.records(Database::Tarpit).remove(address);
    check(
        entry.is_none(),
        &format!("{how}, patient: out of the tarpit after DATA"),
        format!("{entry:?}"),
    );
    let mail = stage.postfix.wait_for_mail(&subject, 1).remove(0);
    let header = headers(&mail, "X-Greylist");
    check(
        header.is_empty(),
        &format!("{how}, patient: the mail has no header"),
        format!("{header:?}"),
    );
    let count = server.records(Database::Clients).remove(address);
    check(
        count
            .as_deref()
            .is_some_and(|count| count.starts_with("1,")),
        &format!("{how}, patient: counted for the auto-whitelist"),
        format!("{count:?}"),
    );
}

/// A client that hangs up in the tarpit is greylisted from then on; the second
/// retry after the delay passes.
fn impatient(stage: &Stage, port: u16, server: &Server, how: &str) {
    let address = "198.51.100.66";
    let subject = format!("{how} impatient");
    let offer = || {
        let mut smtp = Smtp::appear_as(port, address, "[UNAVAILABLE]");
        let reply = smtp.offer("b@s.example", "w@example.org");
        (smtp, reply)
    };
    let (smtp, reply) = offer();
    check(
        has_slept(&reply),
        &format!("{how}, impatient: sleeps"),
        &reply,
    );
    drop(smtp);
    let entry = server.records(Database::Tarpit).remove(address);
    check(
        entry.is_some(),
        &format!("{how}, impatient: in the tarpit"),
        format!("{entry:?}"),
    );
    let (_, reply) = offer();
    check(
        reply.code == 450 && is_quick(&reply) && reply.text.contains("Greylisted"),
        &format!("{how}, impatient: greylisted at once"),
        &reply,
    );
    std::thread::sleep(LATER);
    let (_, reply) = offer();
    check(
        reply.code == 450 && is_quick(&reply),
        &format!("{how}, impatient: first retry after the delay is put off (--retry-count=2)"),
        &reply,
    );
    let (mut smtp, reply) = offer();
    check(
        reply.code == 250 && is_quick(&reply),
        &format!("{how}, impatient: the second passes"),
        &reply,
    );
    let end = smtp.deliver(&subject);
    check(end.code == 250, &format!("{how}, impatient: DATA"), &end);
    let record = server
        .records(Database::Greylist)
        .remove("198.51.100.0/b@s.example/w@example.org");
    let fields: Vec<String> = record
        .iter()
        .flat_map(|record| record.split(',').map(str::to_string))
        .collect();
    check(
        fields.len() == 4 && fields[2..] == ["2", "66"],
        &format!("{how}, impatient: record first,last,count,octet"),
        format!("{record:?}"),
    );
    let entry = server.records(Database::Tarpit).remove(address);
    check(
        entry.is_none(),
        &format!("{how}, impatient: out of the tarpit after DATA"),
        format!("{entry:?}"),
    );
    let mail = stage.postfix.wait_for_mail(&subject, 1).remove(0);
    let header = headers(&mail, "X-Greylist");
    check(
        header.is_empty(),
        &format!("{how}, impatient: no header, as with the original"),
        format!("{header:?}"),
    );
}
