//! Random requests: what a server answers is what was explained before.

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
use super::store;

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
