//! How often the way of a request allocates memory: not at all in a process
//! that has answered some before.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../benches/common/requests.rs"]
mod requests;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write;
use std::rc::Rc;
use std::time::Duration;

use postgrey::config::settings::Settings;
use postgrey::config::whitelists;
use postgrey::log::{Level, Log, Sinks};
use postgrey::policy::command::Command;
use postgrey::policy::decide::Policy;
use postgrey::policy::request::RequestReader;
use postgrey::server::engine::{Advance, Commands, Engine, Replies};
use postgrey::server::shared::Shared;
use postgrey::store::Store;
use postgrey::store::lmdb::{LmdbOptions, LmdbStore, Purpose};
use requests::{Subject, push_request};

/// The system's allocator, counting.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // Not while the thread ends.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What answers requests in a worker, without its sockets.
struct Process {
    engine: Engine,
    store: LmdbStore,
    reader: RequestReader,
    text: Vec<u8>,
    replies: Replies,
    commands: Commands,
    serial: u64,
}

impl Process {
    fn new(folder: &std::path::Path, settings: &Settings) -> Process {
        let mut whitelists = whitelists::empty(settings);
        let text = include_bytes!("../conf/postgrey_whitelist_clients");
        whitelists.clients.add_file("clients", text);
        whitelists.clients.add_file("more", b"white.example\n");
        whitelists.clients.finish();
        let text = include_bytes!("../conf/postgrey_whitelist_recipients");
        whitelists.recipients.add_file("recipients", text);
        whitelists.recipients.finish();
        if let Some(exceptions) = &mut whitelists.s25r {
            let text = b"odd.example suspicious\n/^mx-[0-9]+-/ ok\n";
            exceptions.add_file("exceptions", text);
        }
        let policy = Policy {
            rules: settings.rules.clone(),
            texts: settings.texts.clone(),
            whitelists,
            is_dry_run: false,
        };
        let shared = Shared::new(1).unwrap();
        let log = Rc::new(Log::new(Level::Two, Sinks::default(), shared.complaints));
        Process {
            engine: Engine::new(settings, policy, log, shared),
            store: LmdbStore::new(LmdbOptions {
                dir: folder.to_owned(),
                map_size: 1 << 26,
                purpose: Purpose::WriteUnflushed,
                patience: Duration::ZERO,
            }),
            reader: RequestReader::default(),
            text: Vec::new(),
            replies: Replies::default(),
            commands: Commands::default(),
            serial: 0,
        }
    }

    /// Asks; the reply, and the allocations beside those of the transaction.
    fn ask(&mut self, subject: &Subject, time: Option<u64>) -> (String, usize) {
        self.serial += 1;
        self.text.clear();
        push_request(&mut self.text, subject, self.serial, time);
        self.ask_text()
    }

    /// Asks for a client of this name.
    fn ask_for(&mut self, client_name: &str) -> (String, usize) {
        self.text.clear();
        write!(
            self.text,
            "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.1\n\
             client_name={client_name}\nsender=a@example.com\nrecipient=b@example.org\n\n"
        )
        .unwrap();
        self.ask_text()
    }

    /// Asks what is in `text`.
    fn ask_text(&mut self) -> (String, usize) {
        self.replies.octets.clear();
        let mut input = &self.text[..];
        let before = ALLOCATIONS.get();
        let next = self.engine.advance(
            Some(&mut self.store),
            &mut self.reader,
            &mut input,
            &mut self.replies,
            &mut self.commands,
        );
        let mut allocations = ALLOCATIONS.get() - before;
        if next == Advance::NeedCommit {
            let command = Command::decode(&mut &self.commands.needed[..]).unwrap();
            let rules = &self.engine.policy().rules;
            let mut outcomes = Vec::new();
            self.store
                .apply_batch(rules, &[command], &mut outcomes)
                .unwrap();
            let before = ALLOCATIONS.get();
            let _ = self
                .engine
                .finish(&self.reader, outcomes[0], &mut self.replies);
            allocations += ALLOCATIONS.get() - before;
        }
        // Not on the way of a request: once an hour and client.
        for renewal in std::mem::take(&mut self.commands.renewals) {
            let command = Command::decode(&mut &renewal[..]).unwrap();
            let rules = &self.engine.policy().rules;
            let applied = self.store.apply_batch(rules, &[command], &mut Vec::new());
            applied.unwrap();
        }
        assert!(input.is_empty());
        let reply = String::from_utf8_lossy(&self.replies.octets).into_owned();
        (reply, allocations)
    }
}

fn subject(client: u64, is_whitelisted: bool) -> Subject {
    Subject {
        network: 10,
        client,
        mail: client,
        is_whitelisted,
    }
}

#[test]
fn no_request_allocates_on_its_way() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::new(folder.path(), &Settings::default());
    let time = 1_800_000_000;
    // A client for the auto-whitelist: five passes, more than an hour apart.
    for pass in 0..5 {
        let mail = Subject {
            mail: 1000 + pass,
            ..subject(1000, false)
        };
        for at in [0, 300] {
            process.ask(&mail, Some(time - 20_000 + pass * 4000 + at));
        }
    }
    for round in 0..2 {
        let whitelisted = subject(1, true);
        let new = subject(2 + round, false);
        let auto_whitelisted = subject(1000, false);
        let cases = [
            ("whitelisted", whitelisted, time, "action=DUNNO"),
            ("new", new, time, "action=DEFER_IF_PERMIT "),
            ("early", new, time + 10, "action=DEFER_IF_PERMIT "),
            ("pass", new, time + 300, "action=PREPEND X-Greylist"),
            ("known", new, time + 400, "action=DUNNO"),
            ("awl", auto_whitelisted, time, "action=DUNNO"),
        ];
        for (name, subject, at, expected) in cases {
            let (reply, allocations) = process.ask(&subject, Some(at));
            assert!(reply.starts_with(expected), "{name}: {reply}");
            // The first round makes the buffers.
            assert!(round == 0 || allocations == 0, "{name}: {allocations}");
        }
    }
}

#[test]
fn no_mail_that_is_held_allocates() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.rules.targrey = true;
    settings.rules.tarpit = Some("125".into());
    settings.rules.tarpit_per_message = true;
    let mut process = Process::new(folder.path(), &settings);
    let time = 1_800_000_000;
    for round in 0..2 {
        let first = subject(2 + round, false);
        let further = Subject {
            mail: 5000 + round,
            ..first
        };
        let of_another_mail = Subject {
            mail: 6000 + round,
            ..first
        };
        for (name, subject, is_next_mail, expected) in [
            ("first", first, true, "action=SLEEP 125\n"),
            ("further", further, false, "action=DUNNO\n"),
            ("once more", further, false, "action=DUNNO\n"),
            ("other", of_another_mail, true, "action=DEFER_IF_PERMIT "),
        ] {
            // `ask` makes the next one, and the serial is the instance.
            process.serial -= u64::from(!is_next_mail);
            let (reply, allocations) = process.ask(&subject, Some(time));
            assert!(reply.starts_with(expected), "{name}: {reply}");
            // The first round makes the buffers.
            assert!(round == 0 || allocations == 0, "{name}: {allocations}");
        }
    }
}

#[test]
fn no_list_that_an_option_names_allocates() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    for (name, text, files) in [
        (
            "senders",
            "friend.example\n<>\n/^news-\\d+@/\n",
            &mut settings.whitelist_senders,
        ),
        (
            "opted-in",
            "b@example.org\n/^in-/\n",
            &mut settings.greylist_recipients,
        ),
        (
            "suspects",
            "bulk.example\n198.51.100.0/24\n/^mx\\d/\n",
            &mut settings.suspect_clients,
        ),
    ] {
        let file = folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        files.push(file);
    }
    settings.whitelist_clients.clear();
    settings.whitelist_recipients.clear();
    let mut process = Process::new(folder.path(), &settings);
    process.engine.reload();
    for round in 0..2 {
        for (name, sender, recipient, expected) in [
            (
                "unknown",
                "x@mail.friend.example",
                "b@example.org",
                "action=DUNNO",
            ),
            (
                "unknown",
                "NEWS-12@example.net",
                "b@example.org",
                "action=DUNNO",
            ),
            ("unknown", "", "b@example.org", "action=DUNNO"),
            ("unknown", "x@y.example", "out@example.org", "action=DUNNO"),
            (
                "unknown",
                "x@y.example",
                "b@example.org",
                "action=DEFER_IF_PERMIT ",
            ),
            (
                "unknown",
                "prvs=0123456789=x@y.example",
                "in-7@example.org",
                "action=DEFER_IF_PERMIT ",
            ),
            (
                "MX.Bulk.example",
                "x@y.example",
                "b@example.org",
                "action=DEFER_IF_PERMIT ",
            ),
            (
                "mx7.example",
                "x@y.example",
                "b@example.org",
                "action=DEFER_IF_PERMIT ",
            ),
        ] {
            process.text.clear();
            write!(
                process.text,
                "request=smtpd_access_policy\nprotocol_state=RCPT\nclient_address=192.0.2.1\n\
                 client_name={name}\nsender={sender}\nrecipient={recipient}\n\n"
            )
            .unwrap();
            let (reply, allocations) = process.ask_text();
            assert!(
                reply.starts_with(expected),
                "{name} {sender} {recipient}: {reply}"
            );
            // The first round makes the buffers, and those of the expressions.
            assert!(
                round == 0 || allocations == 0,
                "{name} {sender} {recipient}: {allocations}"
            );
        }
    }
}

#[test]
fn no_client_of_a_pool_allocates() {
    let folder = tempfile::tempdir().unwrap();
    let mut settings = Settings::default();
    settings.rules.by_domain = true;
    settings.rules.max_new = Some(1000);
    let mut process = Process::new(folder.path(), &settings);
    for round in 0..2 {
        for name in [
            "Mail-ed1-f53.Example.org",
            "mx.example.co.uk",
            "host-192-0-2-1.example.net",
            "dhcp7.example.net",
            "unknown",
        ] {
            let (reply, allocations) = process.ask_for(name);
            assert!(
                reply.starts_with("action=DEFER_IF_PERMIT "),
                "{name}: {reply}"
            );
            // The first round makes the buffers, and those of the expressions.
            assert!(round == 0 || allocations == 0, "{name}: {allocations}");
        }
    }
}

#[test]
fn no_name_allocates_when_it_is_judged() {
    let folder = tempfile::tempdir().unwrap();
    let settings = Settings {
        s25r: true,
        ..Settings::default()
    };
    let mut process = Process::new(folder.path(), &settings);
    // As long as an attribute may be.
    let long = |end: &str| "Mail.".repeat(110)[..512 - end.len()].to_owned() + end;
    for (round, digit) in ["3", "7"].into_iter().enumerate() {
        let cases = [
            ("mail.example.com".to_owned(), true),
            (format!("SMTP{digit}.Example.COM"), true),
            (long(&format!("x{digit}.example")), true),
            (format!("mx-1{digit}-2.example.com"), true),
            ("a.odd.example".to_owned(), false),
            ("unknown".to_owned(), false),
            (format!("host-1-{digit}.example.net"), false),
            (format!("host1234{digit}.example.net"), false),
            (format!("host.{digit}abc.isp.example.net"), false),
            (format!("wbar9.chi1-{digit}-11.example.net"), false),
            (format!("d1.host{digit}.isp.example.net"), false),
            (format!("ADSL{digit}.example.com"), false),
        ];
        for (name, passes) in cases {
            let (reply, allocations) = process.ask_for(&name);
            assert_eq!(reply == "action=DUNNO\n\n", passes, "{name}: {reply}");
            // The first round makes the buffers, and those of the expressions.
            assert!(round == 0 || allocations == 0, "{name}: {allocations}");
        }
    }
}
