//! Plain greylisting over inet, UNIX socket and spawn(8), and the whitelists
//! of the server.

use std::fs;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use postgrey::policy::record::Database;

use crate::instance::Service;
use crate::server::{self, PROGRAM, Server, free_port, make_dbdir};
use crate::smtp::Smtp;
use crate::{Scenario, Stage, check};

const DELAY: Duration = Duration::from_millis(3200);

pub fn scenarios(home: &Path) -> Vec<Scenario> {
    let inet = free_port();
    let lists = free_port();
    let socket = home.join("queue/postgrey/socket");
    vec![
        Scenario {
            name: "inet",
            service: Service::at_rcpt(
                free_port(),
                &format!("check_policy_service inet:127.0.0.1:{inet}"),
            ),
            play: Box::new(move |stage, port| {
                let at = format!("--inet=127.0.0.1:{inet}");
                let server = Server::start(&stage.folder("inet"), &[&at, "--delay=3"]);
                greylist(stage, port, "inet", &server.dbdir);
                check_log(&server);
            }),
        },
        Scenario {
            name: "unix",
            service: Service::at_rcpt(free_port(), "check_policy_service unix:postgrey/socket"),
            play: Box::new(move |stage, port| {
                fs::create_dir_all(socket.parent().unwrap()).unwrap();
                let at = format!("--unix={}", socket.display());
                let server = Server::start(&stage.folder("unix"), &[&at, "--delay=3"]);
                greylist(stage, port, "unix", &server.dbdir);
                check_log(&server);
            }),
        },
        Scenario {
            name: "spawn",
            service: Service::at_rcpt(free_port(), "check_policy_service unix:private/policy"),
            play: Box::new(|stage, port| {
                let dbdir = stage.home.join("servers/spawn/db");
                make_dbdir(&dbdir);
                greylist(stage, port, "spawn", &dbdir);
            }),
        },
        Scenario {
            name: "whitelists",
            service: Service::at_rcpt(
                free_port(),
                &format!("check_policy_service inet:127.0.0.1:{lists}"),
            ),
            play: Box::new(move |stage, port| whitelists(stage, port, lists)),
        },
    ]
}

/// The entry for spawn(8). The program is copied: where it was built another
/// user may not be able to go.
pub fn spawn_entry(home: &Path) -> String {
    let program = home.join("postgrey");
    fs::copy(PROGRAM, &program).unwrap();
    let dbdir = home.join("servers/spawn/db");
    let none = home.join("none.local");
    format!(
        "policy unix - n n - 0 spawn -o command_time_limit=3600s\n    user=nobody argv={} --spawn --dbdir={} --delay=3 \
         --whitelist-clients={none} --whitelist-recipients={none}\n",
        program.display(),
        dbdir.display(),
        none = none.display(),
    )
}

/// Everything that waits for the delay, in one go: offered, offered again too
/// early, offered again in time.
fn greylist(stage: &Stage, port: u16, how: &str, dbdir: &Path) {
    let first = Smtp::appear_as(port, "192.0.2.1", "client.example.net");
    let sixth = Smtp::appear_as(port, "IPV6:2001:db8:1:2::5", "six.example.net");
    let (mut smtp, mut six) = (first, sixth);
    let new = smtp.offer("a@sender.example", "new@example.org");
    let expected = "4.2.0 <new@example.org>: Recipient address rejected: Greylisted, \
                    see http://postgrey.schweikert.ch/help/example.org.html";
    check(
        new.code == 450 && new.text == expected,
        &format!("{how}: new triplet"),
        &new,
    );
    for (sender, recipients, what) in [
        ("", &["null@example.org"][..], "null sender"),
        (
            "list-4711-u=example.org@lists.example",
            &["verp@example.org"],
            "VERP",
        ),
        (
            "many@sender.example",
            &["one@example.org", "two@example.org", "three@example.org"],
            "three recipients",
        ),
    ] {
        smtp.begin(sender);
        for recipient in recipients {
            let reply = smtp.recipient(recipient);
            check(
                reply.code == 450,
                &format!("{how}: new, {what}: {recipient}"),
                &reply,
            );
        }
    }
    let reply = six.offer("six@sender.example", "six@example.org");
    check(reply.code == 450, &format!("{how}: new, IPv6"), &reply);
    std::thread::sleep(Duration::from_millis(1100));
    let early = smtp.offer("a@sender.example", "new@example.org");
    check(
        early.code == 450,
        &format!("{how}: retry after 1 s"),
        &early,
    );
    std::thread::sleep(DELAY);
    pass_after_delay(stage, &mut smtp, how);
    let mut six = Smtp::appear_as(port, "IPV6:2001:db8:1:2::6", "six.example.net");
    let reply = six.offer("six@sender.example", "six@example.org");
    check(
        reply.code == 250,
        &format!("{how}: IPv6 retry from the same /64"),
        &reply,
    );
    let records = server::records(dbdir, Database::Greylist);
    for key in [
        "192.0.2.0//null@example.org",
        "192.0.2.0/list-#-u=example.org@lists.example/verp@example.org",
        "2001:db8:1:2:0:0:0:0/six@sender.example/six@example.org",
    ] {
        check(
            records.contains_key(key.as_bytes()),
            &format!("{how}: record"),
            key,
        );
    }
}

fn pass_after_delay(stage: &Stage, smtp: &mut Smtp, how: &str) {
    let pass = smtp.offer("a@sender.example", "new@example.org");
    check(
        pass.code == 250,
        &format!("{how}: retry after the delay"),
        &pass,
    );
    let subject = format!("{how}-first");
    smtp.deliver(&subject);
    let mail = stage.postfix.wait_for_mail(&subject, 1).remove(0);
    let header = headers(&mail, "X-Greylist").join("|");
    let begins = header.starts_with("X-Greylist: delayed ");
    let waited: f64 = header
        .split(' ')
        .nth(2)
        .and_then(|number| number.parse().ok())
        .unwrap_or(0.0);
    check(
        begins && (3.0..60.0).contains(&waited) && header.contains(" seconds by postgrey-"),
        &format!("{how}: header of the delivered mail"),
        header,
    );
    let again = smtp.offer("a@sender.example", "new@example.org");
    check(again.code == 250, &format!("{how}: second mail"), &again);
    let subject = format!("{how}-second");
    smtp.deliver(&subject);
    let mail = stage.postfix.wait_for_mail(&subject, 1).remove(0);
    check(
        headers(&mail, "X-Greylist").is_empty(),
        &format!("{how}: second mail has no header"),
        "none",
    );
    smtp.begin("many@sender.example");
    for recipient in ["one@example.org", "two@example.org", "three@example.org"] {
        let reply = smtp.recipient(recipient);
        check(
            reply.code == 250,
            &format!("{how}: retry of {recipient}"),
            &reply,
        );
    }
    let subject = format!("{how}-many");
    smtp.deliver(&subject);
    let mails = stage.postfix.wait_for_mail(&subject, 3);
    let counts: Vec<usize> = mails
        .iter()
        .map(|mail| headers(mail, "X-Greylist").len())
        .collect();
    check(
        counts == [1, 1, 1],
        &format!("{how}: one header for three recipients"),
        format!("{counts:?}"),
    );
    let null = smtp.offer("", "null@example.org");
    check(
        null.code == 250,
        &format!("{how}: retry of the null sender"),
        &null,
    );
    let verp = smtp.offer("list-4712-u=example.org@lists.example", "verp@example.org");
    check(
        verp.code == 250,
        &format!("{how}: the next number of a VERP sender"),
        &verp,
    );
}

pub fn headers(mail: &str, name: &str) -> Vec<String> {
    let head = mail.split("\n\n").next().unwrap_or_default();
    head.lines()
        .filter(|line| line.starts_with(&format!("{name}:")))
        .map(str::to_string)
        .collect()
}

fn check_log(server: &Server) {
    let log = server.log_text();
    for part in [
        "action=greylist, reason=new, client_name=client.example.net, client_address=192.0.2.1, \
         sender=a@sender.example, recipient=new@example.org",
        "action=greylist, reason=early-retry (",
        "action=pass, reason=triplet found, delay=",
        "client_address=192.0.2.1, recipient=null@example.org",
    ] {
        check(log.contains(part), "log line", part);
    }
}

fn whitelists(stage: &Stage, port: u16, policy: u16) {
    let folder = stage.folder("whitelists");
    let (clients, recipients) = (folder.join("clients"), folder.join("recipients"));
    fs::write(
        &clients,
        "friend.example\n198.51.100.0/24\n/^mx[0-9]+\\.big\\.example$/\n2001:db8:7::/48\n",
    )
    .unwrap();
    fs::write(&recipients, "postmaster@\nopen@example.org\n").unwrap();
    let server = Server::start(
        &folder,
        &[
            &format!("--inet=127.0.0.1:{policy}"),
            "--delay=3",
            &format!("--whitelist-clients={}", clients.display()),
            &format!("--whitelist-recipients={}", recipients.display()),
        ],
    );
    for (address, name, recipient, expected) in [
        ("192.0.2.1", "mx.friend.example", "any@example.org", 250),
        ("192.0.2.1", "mx.friendly.example", "any@example.org", 450),
        ("198.51.100.9", "x.example", "any@example.org", 250),
        ("198.51.101.9", "x.example", "any@example.org", 450),
        ("192.0.2.1", "mx17.big.example", "any@example.org", 250),
        ("IPV6:2001:db8:7:1::1", "x.example", "any@example.org", 250),
        ("IPV6:2001:db8:8:1::1", "x.example", "any@example.org", 450),
        ("192.0.2.1", "x.example", "Postmaster@example.org", 250),
        ("192.0.2.1", "x.example", "open+box@example.org", 250),
        ("192.0.2.1", "x.example", "opened@example.org", 450),
    ] {
        let mut smtp = Smtp::appear_as(port, address, name);
        let reply = smtp.offer("a@sender.example", recipient);
        check(
            reply.code == expected,
            &format!("whitelists: {name}[{address}] to {recipient}"),
            &reply,
        );
    }
    hup_in_open_session(port, &server, &clients);
}

fn hup_in_open_session(port: u16, server: &Server, clients: &Path) {
    let mut smtp = Smtp::appear_as(port, "203.0.113.1", "later.example");
    let before = smtp.offer("a@sender.example", "hup@example.org");
    check(before.code == 450, "HUP: before", &before);
    fs::write(clients, "later.example\n").unwrap();
    server.signal(Signal::SIGHUP);
    server.wait_for_log("HUP received: reloading whitelists...", 1);
    std::thread::sleep(Duration::from_millis(300));
    let after = smtp.offer("a@sender.example", "hup@example.org");
    // A connection that the server had closed would cost Postfix 1 s.
    check(
        after.code == 250 && after.time < Duration::from_millis(900),
        "HUP: the same session, whitelisted now, on the same connection",
        &after,
    );
    fs::write(clients, "/(/\n").unwrap();
    server.signal(Signal::SIGHUP);
    server.wait_for_log("whitelists not reloaded", 1);
    let kept = smtp.offer("a@sender.example", "hup2@example.org");
    check(
        kept.code == 250,
        "HUP: a bad file leaves the old list in use",
        &kept,
    );
    let log = server.log_text();
    let complaint = log.lines().find(|line| line.contains("clients line 1"));
    check(
        complaint.is_some(),
        "HUP: the complaint names file and line",
        complaint.unwrap_or("none"),
    );
}
