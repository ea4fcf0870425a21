//! A real Postfix asks the built server; the report on both their logs, and on that of
//! Postfix alone, tells what the SMTP client was told.

use std::fs;
use std::path::Path;

use serde_json::json;

use super::common_server::{Server, free_port, test_dir};
use super::instance::{Postfix, Service};
use super::machine::{is_root, skip};
use super::smtp::Smtp;
use super::{report, summary};

/// Clients: so many never come again, and so many do.
const CLIENTS: usize = 12;

#[test]
fn the_logs_of_a_real_postfix_and_the_server_agree() {
    if !Path::new("/usr/sbin/postfix").exists() || !is_root() {
        return skip("postfix, or root", "the report on its log");
    }
    let dir = test_dir();
    let home = dir.path().join("postfix");
    fs::create_dir(&home).unwrap();
    let mut server = Server::start(dir.path(), &["--delay=1", "--log-time"]);
    let policy = format!("check_policy_service unix:{}", server.socket.display());
    let port = free_port();
    let postfix = Postfix::start(&home, &[&Service::at_rcpt(port, &policy)], "");
    let mut codes = Vec::new();
    let mut ask = |client: usize, times: usize| {
        let address = format!("198.51.{client}.7");
        let mut smtp = Smtp::appear_as(port, &address, &format!("host{client}.example.net"));
        for _ in 0..times {
            smtp.command("RSET");
            smtp.command("MAIL FROM:<alice@example.net>");
            codes.push(smtp.command("RCPT TO:<bob@example.org>").code);
        }
        smtp.command("QUIT");
    };
    for client in 0..2 * CLIENTS {
        ask(client, 1);
    }
    std::thread::sleep(std::time::Duration::from_millis(1200));
    for client in CLIENTS..2 * CLIENTS {
        ask(client, 2);
    }
    drop(postfix);
    assert!(server.stop().success());
    let count = |code| codes.iter().filter(|own| **own == code).count();
    assert_eq!(
        (count(450), count(250)),
        (2 * CLIENTS, 2 * CLIENTS),
        "{codes:?}"
    );
    let maillog = home.join("maillog");
    let (own, theirs) = (server.log.to_str().unwrap(), maillog.to_str().unwrap());
    let db = server.dbdir.to_str().unwrap();
    let found = summary(&[own, theirs, "--dbdir", db], b"");
    let total = &found["total"];
    assert_eq!(
        total["answers"],
        json!({"greylist": {"new": count(450)}, "pass": {"triplet found": count(250)}})
    );
    assert_eq!(
        (&total["put_off"], &total["came_back"]),
        (&json!(2 * CLIENTS), &json!(CLIENTS))
    );
    assert!(found["lines"]["postfix"].as_u64().unwrap() > 4 * CLIENTS as u64);
    let alone = summary(&[theirs], b"");
    assert_eq!(
        alone["total"]["answers"],
        json!({"greylist": {"told by Postfix": count(450)}})
    );
    // Who never came back, by the live database and both logs, and by the logs alone.
    let fatal = report(&["--dbdir", db, "--delay=1", own, theirs], b"").ok();
    assert_eq!(fatal.lines().count(), CLIENTS, "{fatal}");
    assert!(
        fatal
            .lines()
            .all(|line| line.ends_with(" alice@example.net bob@example.org"))
    );
    let ran = report(&["--delay=1", own, theirs], b"");
    assert_eq!(ran.stdout, fatal);
}
