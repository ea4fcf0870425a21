//! Hosts whose clocks differ.

use postgrey::policy::command::{Command, Now, Outcome, Verdict};
use postgrey::policy::rules::Rules;
use postgrey::store::Store;
use postgrey::store::memory::MemoryStore;

fn ask(store: &mut MemoryStore, rules: &Rules, triplet: &str, now: f64) -> Outcome {
    let command = Command {
        now: Now::new(now, None),
        address: b"192.0.2.7",
        client: b"192.0.2.7",
        triplet: triplet.as_bytes(),
        octet: b"7",
        ..Command::PING
    };
    let mut outcomes = Vec::new();
    store.apply_batch(rules, &[command], &mut outcomes).unwrap();
    outcomes[0].unwrap()
}

#[test]
fn a_first_time_a_little_in_the_future_is_kept() {
    let rules = Rules {
        clock_difference: 10.0,
        ..Rules::default()
    };
    let mut store = MemoryStore::default();
    ask(&mut store, &rules, "a", 1000.0);
    let outcome = ask(&mut store, &rules, "a", 990.0);
    assert!(!outcome.clock_corrected);
    assert_eq!(
        outcome.verdict,
        Verdict::Greylist {
            is_new: true,
            missing: 300.0
        }
    );
    // What the host that is ahead has begun is over when its delay is.
    let outcome = ask(&mut store, &rules, "a", 1300.0);
    assert!(matches!(
        outcome.verdict,
        Verdict::Pass { waited: 300.0, .. }
    ));
    // More than that was a mistake.
    ask(&mut store, &rules, "b", 1000.0);
    let outcome = ask(&mut store, &rules, "b", 989.0);
    assert!(outcome.clock_corrected);
}

#[test]
fn one_host_alone_corrects_each_time_in_the_future() {
    let mut store = MemoryStore::default();
    ask(&mut store, &Rules::default(), "a", 1000.0);
    assert!(ask(&mut store, &Rules::default(), "a", 999.0).clock_corrected);
}

#[test]
fn a_client_is_not_renewed_at_each_request_of_the_host_that_is_behind() {
    let rules = Rules {
        clock_difference: 10.0,
        auto_whitelist: Some(1.0),
        ..Rules::default()
    };
    let mut store = MemoryStore::default();
    let counts = |store: &mut MemoryStore| {
        let mut value = Vec::new();
        let database = postgrey::policy::record::Database::Clients;
        let mut look = |entry: postgrey::store::Entry| {
            value = entry.value.to_vec();
            std::ops::ControlFlow::Continue(())
        };
        store.scan(database, b"", None, &mut look).unwrap();
        String::from_utf8(value).unwrap()
    };
    ask(&mut store, &rules, "a", 1000.0);
    ask(&mut store, &rules, "a", 1300.0);
    assert_eq!(counts(&mut store), "1,1300");
    for _ in 0..3 {
        let outcome = ask(&mut store, &rules, "b", 1290.0);
        assert_eq!(outcome.verdict, Verdict::ClientAutoWhitelisted);
    }
    assert_eq!(counts(&mut store), "1,1300");
    ask(&mut store, &rules, "b", 1289.0);
    assert_eq!(counts(&mut store), "2,1289");
}
