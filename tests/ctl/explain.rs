//! `explain`, and that it agrees with the server.

use std::collections::HashMap;
use std::fs;

use postgrey::admin::explain::case::{Answer, Case};
use postgrey::policy::command::Verdict;
use postgrey::policy::decide::Decision;
use postgrey::policy::held::Held;
use postgrey::policy::record::Database;
use postgrey::policy::request::{Attribute, Request};
use postgrey::store::Store;
use postgrey::store::memory::MemoryStore;

use super::server::{ask, ask_again, no_mails, policy, request};
use super::{ctl, ctl_with_input, fill, records, store};

/// Numbers without a pattern (xorshift), the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.below(all.len() as u64) as usize]
    }

    fn request(&mut self) -> Request {
        let address = match self.below(8) {
            0 => self
                .one_of(&["2001:db8::1", "::ffff:192.0.2.1", "unknown", ""])
                .to_owned(),
            _ => format!("192.0.{}.{}", self.below(3), self.below(4)),
        };
        let name = self.one_of(&[
            "mail.example",
            "dsl-2-3.example",
            "white.example",
            "unknown",
        ]);
        let sender = self.one_of(&["a@b", "list-17@b", "", "root", "x+y@b", "A@B"]);
        let recipient = self.one_of(&["c@d", "c@d", "postmaster@d", "e@f", ""]);
        let state = self.one_of(&["RCPT", "RCPT", "RCPT", "DATA"]);
        let mut request = request(&[
            (Attribute::ClientAddress, &address),
            (Attribute::ClientName, name),
            (Attribute::Sender, sender),
            (Attribute::ProtocolState, state),
        ]);
        if self.below(50) > 0 {
            request.set(Attribute::Recipient, recipient.as_bytes());
        }
        request
    }
}

fn read_all(store: &mut dyn Store) -> MemoryStore {
    let mut copy = MemoryStore::default();
    for database in Database::ALL {
        let mut all = Vec::new();
        store
            .scan(database, b"", None, &mut |entry| {
                all.push((entry.key.to_vec(), entry.value.to_vec()));
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        for (key, value) in all {
            copy.insert(database, &key, &value);
        }
    }
    copy
}

/// Whether what is forecast is what then happens.
fn agree(options: &[&str], store: &mut dyn Store, rounds: usize) {
    let policy = policy(options);
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ options.len() as u64);
    let mut now = 1.7e9;
    let (mut held_back, mut forecasts, mut let_go) = (0, 0, 0);
    // The mails that were held, which only the server remembers.
    let (cells, mut held) = (no_mails(), HashMap::new());
    let mut mail = (0, Vec::new());
    let holds_once = policy.rules.holds_mails_once();
    for round in 0..rounds {
        now += [0.0, 1.0, 60.0, 299.0, 300.0, 4000.0, 86400.0][random.below(7) as usize];
        let mut request = random.request();
        // Every other one is a further recipient of the last mail.
        if round > 0 && random.below(2) == 0 {
            request.set(Attribute::ClientAddress, &mail.1);
        } else {
            mail = (round, request.text(Attribute::ClientAddress).to_vec());
        }
        request.set(
            Attribute::Instance,
            format!("1a2b.{:x}.0", mail.0).as_bytes(),
        );
        // Every tenth time with a copy of everything, to look into the future.
        let copy = round.is_multiple_of(10).then(|| read_all(store));
        let case = Case::new(&policy, &request, now, |command| store.records_of(command)).unwrap();
        let mut memory = case.memory();
        let foretold = case.answer(&mut memory, now);
        if let Some(mut copy) = copy {
            let tries = case.next_tries(&mut memory, &foretold);
            assert_eq!(
                text(&foretold.reply),
                ask(&policy, &mut copy, &request, now)
            );
            for one in tries {
                assert_eq!(
                    text(&one.reply),
                    ask(&policy, &mut copy, &request, one.time)
                );
                forecasts += 1;
            }
        }
        let mut expected = text(&foretold.reply);
        if holds_once && is_held_back(&foretold) {
            let first = held.entry(mail.clone()).or_insert(f64::NEG_INFINITY);
            if now - *first <= 3600.0 {
                expected = "DUNNO".to_owned();
                let_go += 1;
            } else if expected.starts_with("SLEEP") {
                *first = now;
            }
        }
        let answer = ask_again(&policy, store, &request, now, Held::new(&cells));
        assert_eq!(expected, answer, "{options:?} round {round}");
        held_back += usize::from(answer != "DUNNO");
    }
    assert!(
        held_back > rounds / 50 && forecasts > 0,
        "{held_back} {forecasts}"
    );
    assert_eq!(holds_once, let_go > 0, "{let_go}");
}

fn is_held_back(answer: &Answer) -> bool {
    matches!(
        answer.decision,
        Decision::Stored(outcome)
            if matches!(outcome.verdict, Verdict::Tarpit | Verdict::Greylist { .. })
    )
}

fn text(reply: &[u8]) -> String {
    String::from_utf8(reply.to_vec()).unwrap()
}

#[test]
fn ten_thousand_requests_are_answered_as_explained() {
    let lists = tempfile::tempdir().unwrap();
    let file = lists.path().join("clients");
    fs::write(&file, "white.example\n192.0.1.3\n").unwrap();
    let clients = format!("--whitelist-clients={}", file.display());
    let file = lists.path().join("recipients");
    fs::write(&file, "postmaster@\n").unwrap();
    let recipients = format!("--whitelist-recipients={}", file.display());
    let list = |option: &str, text: &str| {
        let file = lists.path().join(option);
        fs::write(&file, text).unwrap();
        format!("--{option}={}", file.display())
    };
    let senders = list("whitelist-senders", "x@b\n<>\n");
    let opted_in = list("greylist-recipients", "c@d\n");
    let suspects = list("suspect-clients", "192.0.2.0/24\nmail.example\n");
    // No date: the clock may go on between forecast and answer.
    let header = "--x-greylist-header=X-Greylist: delayed %t seconds at %h";
    for options in [
        &[][..],
        &[
            "--targrey",
            "--retry-count=2",
            "--tarpit=125",
            "--max-age=7",
        ],
        &["--compat=targrey-1.34", "--targrey", "--retry-count=2"],
        &["--targrey", "--tarpit-per-message", "--max-age=7"],
        &[
            "--targrey",
            "--tarpit-per-message",
            "--compat=targrey-1.34",
            "--privacy",
        ],
        &[
            "--targrey",
            "--tarpit-per-message",
            "--compat=postgrey-1.37",
            "--auto-whitelist-clients=0",
        ],
        &["--tarpit-per-message", "--retry-count=2"],
        &["--compat=postgrey-1.37", "--auto-whitelist-clients=2"],
        &["--privacy", "--lookup-by-host"],
        &["--tarpit", "--delay=3600", "--retry-window=1h"],
        &["--s25r"],
        &[&senders, &opted_in, &suspects],
        &[
            &suspects,
            "--s25r",
            "--auto-whitelist-clients=1",
            "--lookup-by-domain",
            "--pool-domains=/dev/null",
        ],
        &[
            &senders,
            &opted_in,
            &suspects,
            "--targrey",
            "--tarpit-per-message",
            "--auto-whitelist-clients=1",
        ],
        &[
            &opted_in,
            "--targrey",
            "--compat=targrey-1.34",
            "--privacy",
            "--auto-whitelist-clients=2",
        ],
        &[&suspects, "--compat=targrey-1.34", "--s25r", "--targrey"],
    ] {
        let options = [options, &[&clients, &recipients, header]].concat();
        agree(&options, &mut MemoryStore::default(), 1500);
        let dir = tempfile::tempdir().unwrap();
        agree(&options, &mut store(dir.path()), 400);
    }
}

#[test]
fn the_program_says_why_and_what_comes_next() {
    let dir = tempfile::tempdir().unwrap();
    fill(
        dir.path(),
        &[
            (
                Database::Greylist,
                b"192.0.2.0/a@b/c@d",
                b"1700000000,1700000000,0,91",
            ),
            (Database::Clients, b"192.0.2.7", b"5,1700000000"),
        ],
    );
    let before = records(dir.path(), Database::Greylist);
    let explain = |words: &[&str]| {
        ctl(
            dir.path(),
            &[&["explain", "--at=1700000100"], words].concat(),
        )
        .ok()
    };
    let text = explain(&[
        "--client-address=192.0.2.91",
        "--sender=a@b",
        "--recipient=c@d",
        "--",
        "--retry-count=2",
    ]);
    assert_eq!(
        text,
        "client       unknown[192.0.2.91]\n\
         sender       <a@b>\n\
         recipient    <c@d>\n\
         stage        RCPT\n\
         time         2023-11-14 22:15:00\n\
         greylist     192.0.2.0/a@b/c@d: 1700000000,1700000000,0,91 (new, first seen 2023-11-14 22:13:20, \
         last 2023-11-14 22:13:20, count 0, expires 2023-11-16 22:13:20)\n\
         clients      192.0.2.91: no record\n\
         tarpit       192.0.2.91: no record\n\
         decision     greylisted: 200 of 300 s of the delay are left\n\
         answer       action=DEFER_IF_PERMIT Greylisted, see http://postgrey.schweikert.ch/help/d.html\n\
         log          action=greylist, reason=early-retry (200s missing), client_name=unknown, \
         client_address=192.0.2.91, sender=a@b, recipient=c@d\n\
         next         2023-11-14 22:18:20: action=DEFER_IF_PERMIT Greylisted, see http://postgrey.schweikert.ch/help/d.html\n\
         next         2023-11-14 22:23:20: action=DUNNO\n"
    );
    let text = explain(&["--client-address=192.0.2.7", "--client-name=mail.example"]);
    assert!(
        text.contains(
            "\ndecision     passes: the client is on the auto-whitelist (5 passes or more)\n"
        ),
        "{text}"
    );
    let text = explain(&[
        "--client-address=192.0.2.8",
        "--recipient=c@d",
        "--",
        "--targrey",
    ]);
    assert!(text.contains("\nanswer       action=SLEEP 125\n"), "{text}");
    assert!(
        text.contains("\nnext         if it waits, at DATA: action=DUNNO\n"),
        "{text}"
    );
    let text = explain(&[
        "--client-address=192.0.2.8",
        "--recipient=c@d",
        "--",
        "--delay=7200",
        "--retry-window=1h",
    ]);
    assert!(text.lines().count() > 5, "{text}");
    let text = explain(&["--client-address=nobody"]);
    assert!(
        text.contains("decision     not looked at: client_address is no address\n"),
        "{text}"
    );
    assert_eq!(records(dir.path(), Database::Greylist), before);
    assert!(
        ctl(dir.path(), &["explain"])
            .failed(1)
            .starts_with("ERROR: --client-address, ")
    );
}

#[test]
fn a_rule_of_a_whitelist_is_named_and_needs_no_database() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("clients");
    fs::write(
        &file,
        "# ours\n\n  /^mail[0-9]/  # all of them\n192.0.2.0/24\n",
    )
    .unwrap();
    let option = format!("--whitelist-clients={}", file.display());
    for (name, address, line) in [
        (
            "mail7.example",
            "192.0.2.1",
            "the client's name is on a whitelist, F line 3: /^mail[0-9]/  # all of them",
        ),
        (
            "x.example",
            "192.0.2.1",
            "the client's address is on a whitelist, F line 4: 192.0.2.0/24",
        ),
    ] {
        let words = [
            "explain",
            "--client-name",
            name,
            "--client-address",
            address,
            "--",
            &option,
        ];
        let text = ctl(dir.path(), &words).ok();
        let line = line.replace('F', file.to_str().unwrap());
        assert!(
            text.contains(&format!("\ndecision     passes: {line}\n")),
            "{text}"
        );
        assert!(text.contains("\nanswer       action=DUNNO\n"), "{text}");
    }
    let words = ["explain", "--client-address=198.51.100.1", "--", &option];
    assert!(
        ctl(dir.path(), &words)
            .failed(2)
            .contains("there is no database")
    );
}

#[test]
fn requests_and_lines_of_logs_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    fill(
        dir.path(),
        &[(Database::Clients, b"192.0.2.7", b"5,1700000000")],
    );
    let input = b"request=smtpd_access_policy\nprotocol_state=RCPT\nclient_name=n\nclient_address=192.0.2.7\n\
                  sender=a@b\nrecipient=c@d\npolicy_test_time=1700000100\n\n";
    let by_request = ctl_with_input(dir.path(), &["explain", "--request"], input).ok();
    assert!(
        by_request.contains("\ntime         2023-11-14 22:15:00\n"),
        "{by_request}"
    );
    let line = "Nov 14 22:15:00 mx postgrey[7]: action=greylist, reason=new, client_name=n, \
                client_address=192.0.2.7, sender=a@b, recipient=c@d";
    let by_line = ctl(dir.path(), &["explain", "--at=1700000100", "--log", line]).ok();
    assert_eq!(by_line, by_request);
    let words = ["explain", "--at=1700000100", "--log=-"];
    assert_eq!(
        ctl_with_input(dir.path(), &words, line.as_bytes()).ok(),
        by_request
    );
    ctl(dir.path(), &["explain", "--log=nothing"]).failed(2);
    ctl_with_input(dir.path(), &["explain", "--request"], b"").failed(2);
}

#[test]
fn the_rule_of_s25r_or_the_exception_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fill(
        dir.path(),
        &[(Database::Clients, b"192.0.2.7", b"5,1700000000")],
    );
    let file = dir.path().join("exceptions");
    fs::write(&file, "# wrongly judged\ndsl-1-2-3-4.example  ok\n").unwrap();
    let exceptions = format!("--s25r-except={}", file.display());
    let table = dir.path().join("table");
    fs::write(&table, "/^mx/ WARN\n!/dsl/ OK\n").unwrap();
    let in_place = format!("--s25r-except={}", table.display());
    let words = [
        "explain",
        "--client-address=192.0.2.1",
        "--client-name=dsl.example.org",
        "--",
        "--s25r",
        &in_place,
    ];
    let text = ctl(dir.path(), &words).ok();
    let judgement = format!(
        "\ns25r         suspicious: not let in by {} line 2: !/dsl/ OK\n",
        table.display()
    );
    assert!(text.contains(&judgement), "{text}");
    let by_exception = format!(
        "not suspicious: {} line 2: dsl-1-2-3-4.example  ok",
        file.display()
    );
    for (name, judgement, decision) in [
        (
            "mail.example.org",
            "not suspicious: no rule of s25r(7) fits the name",
            "passes: ",
        ),
        (
            "unknown",
            "suspicious: rule 0 of s25r(7) fits the name",
            "greylisted: ",
        ),
        (
            "[192.0.2.1]",
            "suspicious: rule 0 of s25r(7) fits the name",
            "greylisted: ",
        ),
        ("dsl-1-2-3-4.example", &by_exception, "passes: "),
    ] {
        let words = [
            "explain",
            "--client-address=192.0.2.1",
            "--client-name",
            name,
            "--",
            "--s25r",
            &exceptions,
        ];
        let text = ctl(dir.path(), &words).ok();
        assert!(
            text.contains(&format!("\ns25r         {judgement}\n")),
            "{text}"
        );
        assert!(
            text.contains(&format!("\ndecision     {decision}")),
            "{text}"
        );
    }
}

#[test]
fn what_only_the_server_remembers_is_said() {
    let dir = tempfile::tempdir().unwrap();
    fill(
        dir.path(),
        &[(Database::Tarpit, b"192.0.2.7", b"1700000000")],
    );
    let explain = |address: &str, options: &[&str]| {
        let client = format!("--client-address={address}");
        let words = ["explain", "--at=1700000100", &client, "--", "--targrey"];
        ctl(dir.path(), &[&words[..], options].concat()).ok()
    };
    let held = "passes if its mail was held for another recipient (--tarpit-per-message)";
    let further = "next         if it waits, further recipients of its mail: action=DUNNO\n";
    let one = ["--tarpit-per-message"];
    for (address, options, is_said) in [
        ("192.0.2.7", &one[..], [true, false]),
        ("192.0.2.8", &one, [true, true]),
        ("192.0.2.7", &[], [false, false]),
        ("192.0.2.8", &[], [false, false]),
    ] {
        let text = explain(address, options);
        let own = [held, further].map(|part| text.contains(part));
        assert_eq!(own, is_said, "{address} {options:?}: {text}");
    }
    // What is counted for --max-new, too, where it is asked.
    let limit = "; recorded unless its client has had 7 new ones in this hour (--max-new)";
    fill(
        dir.path(),
        &[(
            Database::Greylist,
            b"192.0.2.0/a@example.com/b@example.org",
            b"1700000090,1700000090,0,7",
        )],
    );
    let known = ["--sender=a@example.com", "--recipient=b@example.org"];
    for (address, asked, option, is_said) in [
        // In the tarpit and new; in the tarpit and known; new there.
        ("192.0.2.7", &[][..], "--max-new=7", true),
        ("192.0.2.7", &known, "--max-new=7", false),
        ("192.0.2.8", &known, "--max-new=7", true),
        ("192.0.2.8", &[], "--max-new=0", false),
    ] {
        let client = format!("--client-address={address}");
        let words = ["explain", "--at=1700000100", &client];
        let words = [&words[..], asked, &["--", "--targrey", option]].concat();
        let text = ctl(dir.path(), &words).ok();
        assert_eq!(text.contains(limit), is_said, "{words:?}: {text}");
    }
    // Not without the tarpit of taRgrey.
    let words = [
        "explain",
        "--client-address=192.0.2.7",
        "--",
        "--tarpit-per-message",
    ];
    assert!(!ctl(dir.path(), &words).ok().contains(held));
}
