//! Many new triplets at once.

use std::ops::ControlFlow;

use nix::sys::signal::{Signal, kill};
use postgrey::policy::command::{Addition, Allowance, Command, Now};
use postgrey::policy::newcomers::Newcomers;
use postgrey::policy::record::Database;
use postgrey::policy::rules::Rules;
use postgrey::store::Store;
use postgrey::store::memory::MemoryStore;

use super::lmdb;
use super::server::{self, Client, Server, spawn, test_dir, wait_until};

/// All in one transaction, some of them twice; of one client and of another.
#[test]
fn a_batch_is_counted_one_by_one_and_once() {
    // Long keys: the map of the second store is too small and grows on the way.
    let key = |number: usize| format!("192.0.2.0/{}/{number:0400}", number % 2).into_bytes();
    let keys: Vec<Vec<u8>> = (0..6000).map(|number| key(number / 2)).collect();
    let mut newcomers = Newcomers::new(2000);
    let mut commands: Vec<Command> = keys
        .iter()
        .enumerate()
        .map(|(number, triplet)| Command {
            now: Now::new(1e9, None),
            triplet,
            allowance: Allowance {
                network: if number % 6 == 0 { b"other" } else { b"flood" },
                ..Allowance::UNLIMITED
            },
            ..Command::PING
        })
        .collect();
    commands
        .iter_mut()
        .for_each(|command| newcomers.allow(command));
    let folder = tempfile::tempdir().unwrap();
    let mut small = lmdb(folder.path(), 1 << 20);
    let mut memory = MemoryStore::default();
    let stores: [&mut dyn Store; 2] = [&mut small, &mut memory];
    let rules = Rules::default();
    let [of_lmdb, of_memory] = stores.map(|store| {
        let mut outcomes = Vec::new();
        let report = store.apply_batch(&rules, &commands, &mut outcomes).unwrap();
        let mut records = 0;
        let mut count = |_: postgrey::store::Entry<'_>| {
            records += 1;
            ControlFlow::Continue(())
        };
        assert!(
            store
                .scan(Database::Greylist, b"", None, &mut count)
                .unwrap()
        );
        (outcomes, records, report.has_grown)
    });
    assert_eq!((of_lmdb.2, of_memory.2), (true, false));
    assert_eq!((&of_lmdb.0, of_lmdb.1), (&of_memory.0, of_memory.1));
    // 1000 are of the other, and of 2000 of the flood's all are recorded.
    let made = |network: &[u8]| {
        let own = commands.iter().zip(of_lmdb.0.iter().flatten());
        let own = own.filter(|(command, outcome)| {
            command.allowance.network == network && outcome.triplet == Addition::Made
        });
        own.count()
    };
    assert_eq!((made(b"other"), made(b"flood")), (1000, 2000));
    assert_eq!(of_lmdb.1, 3000);
    for (command, outcome) in commands.iter().zip(of_lmdb.0.iter().flatten()) {
        newcomers.note(command, outcome);
    }
    let left = |newcomers: &Newcomers, network: &'static [u8]| {
        let mut command = commands[0];
        command.allowance.network = network;
        newcomers.allow(&mut command);
        command.allowance.triplets
    };
    assert_eq!(
        (left(&newcomers, b"other"), left(&newcomers, b"flood")),
        (1000, 0)
    );
}

const FLOOD: usize = 200;

/// Many clients of one network at once; each asks once.
fn flood(round: usize, clients: &mut [Client]) {
    std::thread::scope(|scope| {
        for (number, client) in clients.iter_mut().enumerate() {
            scope.spawn(move || {
                let reply = client.ask(&[
                    ("client_address", &format!("192.0.2.{number}")),
                    ("sender", &format!("x{round}y{number}z@example.com")),
                ]);
                assert!(reply.starts_with("DEFER_IF_PERMIT "), "{reply}");
            });
        }
    });
}

fn connect(server: &Server) -> Vec<Client> {
    (0..FLOOD).map(|_| server.connect()).collect()
}

#[test]
fn many_at_once_are_counted_one_by_one_and_said_once_a_minute() {
    let dir = test_dir();
    let server = Server::start(dir.path(), &["--max-new=50", "--quiet"]);
    let mut clients = connect(&server);
    for round in 0..3 {
        flood(round, &mut clients);
    }
    assert_eq!(server.records(Database::Greylist).len(), 50);
    // Others go on as ever.
    let others = [("client_address", "198.51.100.7")];
    assert!(clients[0].ask(&others).starts_with("DEFER_IF_PERMIT "));
    assert_eq!(server.records(Database::Greylist).len(), 51);
    server.signal(Signal::SIGUSR1);
    server.wait_for_log(
        "greylist_new=601 greylist_early_retry=0 not_recorded=550 ",
        1,
    );
    let text = server.log_text();
    let lines: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("more were not made"))
        .collect();
    let expected = "the client 192.0.2.0 has had 50 new records in an hour: 1 more were not made";
    assert_eq!(lines, [expected]);
}

#[test]
fn a_new_writer_and_a_new_server_begin_anew() {
    let dir = test_dir();
    let mut server = Server::start(dir.path(), &["--max-new=20", "--sync=none"]);
    let mut records = 0;
    let mut expect = |server: &Server, more| {
        records += more;
        assert_eq!(server.records(Database::Greylist).len(), records);
    };
    let mut clients = connect(&server);
    flood(0, &mut clients);
    expect(&server, 20);
    let children = server.wait_for_children(3);
    kill(children[0], Signal::SIGKILL).unwrap();
    server.wait_for_log("starting another", 1);
    wait_until("a new writer", || server.children().len() == 3);
    flood(1, &mut clients);
    expect(&server, 20);
    drop(clients);
    assert!(server.stop().success());
    server.start_again();
    flood(2, &mut connect(&server));
    expect(&server, 20);
}

#[test]
fn each_session_of_spawn_counts_for_itself() {
    let dir = test_dir();
    let ask = |client: &mut Client, recipient: &str| {
        let reply = client.ask(&[("recipient", &format!("{recipient}@example.org"))]);
        assert!(reply.starts_with("DEFER_IF_PERMIT "), "{reply}");
    };
    let mut sessions = [0, 1].map(|_| spawn(dir.path(), &["--max-new=2"]));
    for (number, session) in sessions.iter_mut().enumerate() {
        for recipient in 0..4 {
            ask(&mut session.client, &format!("{number}.{recipient}"));
        }
    }
    for mut session in sessions {
        drop(session.client);
        assert!(session.child.wait().unwrap().success());
    }
    let keys: Vec<String> = server::records(&dir.path().join("db"), Database::Greylist)
        .into_keys()
        .map(|key| String::from_utf8(key).unwrap())
        .collect();
    let recipients: Vec<&str> = keys
        .iter()
        .map(|key| key.rsplit('/').next().unwrap())
        .collect();
    let expected = ["0.0", "0.1", "1.0", "1.1"].map(|user| format!("{user}@example.org"));
    assert_eq!(recipients, expected);
}
