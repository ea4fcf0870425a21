//! The options that choose the words a client and a reader of mail sees.

use std::time::Duration;

use crate::greylisting::headers;
use crate::instance::Service;
use crate::server::{Server, free_port};
use crate::smtp::Smtp;
use crate::{Scenario, Stage, check};

fn scenario(
    name: &'static str,
    options: &'static [&'static str],
    play: fn(&Stage, u16, &Server),
) -> Scenario {
    let policy = free_port();
    Scenario {
        name,
        service: Service::at_rcpt(
            free_port(),
            &format!("check_policy_service inet:127.0.0.1:{policy}"),
        ),
        play: Box::new(move |stage, port| {
            let at = format!("--inet=127.0.0.1:{policy}");
            let args: Vec<&str> = [at.as_str(), "--delay=3"]
                .into_iter()
                .chain(options.iter().copied())
                .collect();
            let server = Server::start(&stage.folder(name), &args);
            play(stage, port, &server);
        }),
    }
}

pub fn scenarios() -> Vec<Scenario> {
    vec![
        scenario(
            "text",
            &[
                "--greylist-text=Wait %s seconds, says %r",
                "--x-greylist-header=X-Held: %t s at %h, 100%",
                "--hostname=mx.test",
            ],
            |stage, port, _| {
                let mut smtp = Smtp::appear_as(port, "192.0.2.1", "client.example.net");
                let reply = smtp.offer("a@s.example", "u@example.org");
                let expected = "4.2.0 <u@example.org>: Recipient address rejected: Wait 3 seconds, says example.org";
                check(
                    (reply.code, reply.text.as_str()) == (450, expected),
                    "--greylist-text",
                    &reply,
                );
                std::thread::sleep(Duration::from_millis(3200));
                let reply = smtp.offer("a@s.example", "u@example.org");
                check(reply.code == 250, "--greylist-text: retry", &reply);
                smtp.deliver("text-header");
                let mail = stage.postfix.wait_for_mail("text-header", 1).remove(0);
                let held = headers(&mail, "X-Held").join("|");
                check(
                    held.starts_with("X-Held: ") && held.ends_with(" s at mx.test, 100%"),
                    "--x-greylist-header, --hostname",
                    held,
                );
            },
        ),
        scenario(
            "text-digit",
            &[
                "--greylist-text=4.3.2 later, %s",
                "--greylist-action=DEFER_IF_PERMIT",
            ],
            |_, port, _| {
                let mut smtp = Smtp::appear_as(port, "192.0.2.1", "client.example.net");
                let reply = smtp.offer("a@s.example", "u@example.org");
                check(
                    reply.code == 450
                        && reply.text.starts_with("4.3.2 <")
                        && reply.text.ends_with(": later, 3"),
                    "--greylist-text with a status code of its own",
                    &reply,
                );
            },
        ),
        scenario(
            "action",
            &["--greylist-action=421", "--greylist-text=4.7.0 gone for %r"],
            |_, port, _| {
                let mut smtp = Smtp::appear_as(port, "192.0.2.1", "client.example.net");
                let reply = smtp.offer("a@s.example", "u@example.org");
                check(
                    reply.code == 421 && reply.text.ends_with("gone for example.org"),
                    "--greylist-action=421",
                    &reply,
                );
            },
        ),
        scenario(
            "utf8",
            &["--greylist-text=später, 後で"],
            |_, port, _| {
                let mut smtp = Smtp::appear_as(port, "192.0.2.1", "client.example.net");
                let reply = smtp.offer("a@s.example", "u@example.org");
                // What Postfix makes of letters beyond ASCII is its own affair.
                check(
                    reply.code == 450 && reply.text.contains("Recipient address rejected: sp"),
                    "--greylist-text in UTF-8 is not refused",
                    &reply,
                );
            },
        ),
        scenario("noaction", &["--noaction"], |_, port, server| {
            let mut smtp = Smtp::appear_as(port, "192.0.2.1", "client.example.net");
            let reply = smtp.offer("a@s.example", "u@example.org");
            let has_line = server.log_text().contains("action=greylist, reason=new");
            check(
                reply.code == 250 && has_line,
                "--noaction: passes, logged as greylisted",
                &reply,
            );
        }),
    ]
}
