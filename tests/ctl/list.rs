//! `list`.

use postgrey::policy::record::Database;

use super::{ctl, fill};

const DAY: u64 = 86400;
/// 2023-11-14 22:13:20 UTC.
const NOW: u64 = 1_700_000_000;

fn environment() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let triplet = |first: u64, last: u64, rest: &str| format!("{first},{last},{rest}").into_bytes();
    fill(
        dir.path(),
        &[
            (
                Database::Greylist,
                b"192.0.2.0/alice@b/bob@d",
                &triplet(NOW - 100, NOW - 100, "0,91"),
            ),
            (
                Database::Greylist,
                b"192.0.2.0/carol@b/bob@d",
                &triplet(NOW - 400, NOW - 100, "0,91"),
            ),
            (
                Database::Greylist,
                b"198.51.100.0//bob@d",
                &triplet(NOW - DAY, NOW - 50, "4,7"),
            ),
            (
                Database::Greylist,
                b"2001:db8:0:0:0:0:0:0/x/y@b/\xfc@d",
                &triplet(NOW - 9 * DAY, NOW - 9 * DAY, "0"),
            ),
            (
                Database::Clients,
                b"192.0.2.91",
                format!("5,{}", NOW - DAY).as_bytes(),
            ),
            (
                Database::Clients,
                b"2001:DB8:0:0:0:0:0:1",
                format!("2,{}", NOW - DAY).as_bytes(),
            ),
            (
                Database::Tarpit,
                b"192.0.2.91",
                format!("{}", NOW - 100).as_bytes(),
            ),
            (Database::Tarpit, b"bad", b"\x01"),
        ],
    );
    dir
}

fn list(dir: &tempfile::TempDir, words: &[&str]) -> String {
    let at = format!("--at={NOW}");
    ctl(dir.path(), &[&["list", &at], words].concat()).ok()
}

#[test]
fn columns_show_times_states_and_what_comes_next() {
    let dir = environment();
    let text = list(&dir, &["greylist"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[..4],
        [
            "STATE    FIRST SEEN           LAST SEEN            RETRIES  NEXT                         CLIENT SENDER RECIPIENT",
            "new      2023-11-14 22:11:40  2023-11-14 22:11:40        0  waits 2023-11-14 22:16:40    192.0.2.0(91)        <alice@b> <bob@d>",
            "waiting  2023-11-14 22:06:40  2023-11-14 22:11:40        0  counts at its next try       192.0.2.0(91)        <carol@b> <bob@d>",
            "passed   2023-11-13 22:13:20  2023-11-14 22:12:30        4  expires 2023-12-19 22:12:30  198.51.100.0(7)      <> <bob@d>",
        ]
    );
    assert!(
        lines[4].starts_with("expired ") && lines[4].ends_with("<x/y@b> <\\fc@d>"),
        "{text}"
    );
    let all = list(&dir, &[]);
    assert_eq!(all.lines().count(), 8 + 3 + 2, "{all}");
    assert!(
        all.lines()
            .any(|line| line.starts_with("bad ") && line.ends_with(" bad \\01")),
        "{all}"
    );
}

#[test]
fn filters_choose() {
    let dir = environment();
    let count = |words: &[&str]| list(&dir, &[&["--json"], words].concat()).lines().count();
    assert_eq!(count(&[]), 8);
    for (words, expected) in [
        (&["--client=192.0.2.91"][..], 4),
        (&["--client=192.0.2.92"], 2),
        (&["--client=192.0.0.0/16"], 4),
        (&["--client=192.0.2.90/31"], 4),
        (&["--client=2001:db8::/32"], 2),
        (&["--client=2001:db8::1"], 2),
        (&["--client=BAD", "--", "--compat=targrey-1.34"], 1),
        (&["--sender=*@b"], 3),
        (&["--sender=<>"], 1),
        (&["--sender", ""], 1),
        (&["--sender=ALICE@?", "--recipient=bob*"], 1),
        (&["--state=new"], 1),
        (&["--state=waiting"], 3),
        (&["--state=passed"], 2),
        (&["--state=expired"], 1),
        (&["--since=2h"], 4),
        (&["--since=2023-11-14", "clients"], 0),
        (&["--since=2023-11-13", "clients"], 2),
        (&["tarpit"], 2),
    ] {
        assert_eq!(count(words), expected, "{words:?}");
    }
    for words in [
        &["list", "--state=old"][..],
        &["list", "--since=then"],
        &["list", "mail"],
    ] {
        ctl(dir.path(), words).failed(2);
    }
}

#[test]
fn json_is_one_object_a_line() {
    let dir = environment();
    let text = list(&dir, &["--json", "--state=new"]);
    let object: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        object,
        serde_json::json!({
            "database": "greylist", "client": "192.0.2.0", "sender": "alice@b", "recipient": "bob@d",
            "state": "new", "first": NOW - 100, "last": NOW - 100, "count": 0, "ready": NOW + 200,
            "expires": NOW - 100 + 2 * DAY,
            "key": "192.0.2.0/alice@b/bob@d", "value": "1699999900,1699999900,0,91",
        })
    );
}

#[test]
fn what_is_no_client_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), &[]);
    for client in ["foo", "192.0.2", "192.0.2.0/33", ""] {
        let option = format!("--client={client}");
        let ran = ctl(dir.path(), &["list", &option]);
        assert!(ran.status != 0, "{client}: {ran:?}");
    }
    let said = ctl(dir.path(), &["list", "--client=foo"]).failed(2);
    assert_eq!(
        said,
        "ERROR: \"foo\" is no address, no network and no domain\n"
    );
    for client in [
        "192.0.2.0/24",
        "2001:db8::1",
        "014facc31a19f3693c0f7501d8d9251c3382c9ea",
    ] {
        ctl(dir.path(), &["list", &format!("--client={client}")]).ok();
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let keys: Vec<Vec<u8>> = (0..5000)
        .map(|n| format!("n/a/{n:0100}").into_bytes())
        .collect();
    let all: Vec<(Database, &[u8], &[u8])> = keys
        .iter()
        .map(|key| (Database::Greylist, &key[..], &b"1,2,3"[..]))
        .collect();
    fill(dir.path(), &all);
    let command = format!(
        "{} --dbdir={} --defaults list | head -n 1; exit ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_postgreyctl"),
        dir.path().display()
    );
    let output = std::process::Command::new("bash")
        .args(["-c", &command])
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

/// A field of each line of JSON.
fn column(text: &str, name: &str) -> Vec<String> {
    let object = |line| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let shown = |value: &serde_json::Value| match value.as_str() {
        Some(text) => text.to_owned(),
        None => value.to_string(),
    };
    text.lines()
        .map(|line| shown(&object(line)[name]))
        .collect()
}

#[test]
fn records_are_sorted_and_cut() {
    let dir = environment();
    let keys = |words: &[&str]| {
        let text = list(&dir, &[&["--json"], words].concat());
        column(&text, "key")
    };
    let (alice, carol) = ("192.0.2.0/alice@b/bob@d", "192.0.2.0/carol@b/bob@d");
    let (null, y) = ("198.51.100.0//bob@d", "2001:db8:0:0:0:0:0:0/x/y@b/\\fc@d");
    for (sort, expected) in [
        ("first", [alice, carol, null, y]),
        ("-first", [y, null, carol, alice]),
        ("last", [null, alice, carol, y]),
        ("-last", [y, alice, carol, null]),
        ("count", [null, alice, carol, y]),
        // What is let through or expired has no delay.
        ("delay", [carol, alice, null, y]),
        ("-delay", [alice, carol, y, null]),
        ("name", [alice, carol, null, y]),
        ("-name", [y, null, carol, alice]),
    ] {
        let sort = format!("--sort={sort}");
        assert_eq!(keys(&["greylist", &sort]), expected, "{sort}");
        for limit in [1, 3, 4, 5, 3000] {
            let limited = keys(&["greylist", &sort, &format!("--limit={limit}")]);
            assert_eq!(limited, expected[..limit.min(4)], "{sort} {limit}");
        }
    }
    // Without an order, and of each database.
    assert_eq!(keys(&["--limit=1"]), [alice, "192.0.2.91", "192.0.2.91"]);
    assert_eq!(keys(&["--limit=1", "--state=passed"]), [null, "192.0.2.91"]);
    let text = list(&dir, &["greylist", "--sort=last", "--limit=1"]);
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2);
    assert!(lines[0].starts_with("STATE ") && lines[1].starts_with("passed "));
    // A record that is none comes last.
    assert_eq!(keys(&["tarpit", "--sort=last"]), ["192.0.2.91", "bad"]);
    assert_eq!(keys(&["tarpit", "--sort=-last"]), ["192.0.2.91", "bad"]);
}

#[test]
fn the_first_of_many_are_the_first_of_all() {
    let dir = tempfile::tempdir().unwrap();
    // More than are kept at a time, in another order than that of their keys.
    let all: Vec<(Vec<u8>, Vec<u8>)> = (0..5000u64)
        .map(|n| {
            let last = NOW - DAY + n * 7919 % 5000;
            let key = format!("192.0.2.0/a{n}@b/c@d").into_bytes();
            (key, format!("{last},{last},0,1").into_bytes())
        })
        .collect();
    let records: Vec<(Database, &[u8], &[u8])> = all
        .iter()
        .map(|(key, value)| (Database::Greylist, &key[..], &value[..]))
        .collect();
    fill(dir.path(), &records);
    let text = list(&dir, &["greylist", "--json", "--sort=last", "--limit=3"]);
    let newest = NOW - DAY + 4999;
    let expected = [newest, newest - 1, newest - 2].map(|last| last.to_string());
    assert_eq!(column(&text, "last"), expected);
}

#[test]
fn it_counts_who_is_delayed_most() {
    let dir = environment();
    let text = list(&dir, &["--count=recipient"]);
    assert_eq!(
        text.lines().collect::<Vec<_>>(),
        [
            " RECORDS      NEW  WAITING   PASSED  EXPIRED    DELAY  LAST SEEN            RECIPIENT",
            "       3        1        1        1        0      300  2023-11-14 22:12:30  bob@d",
            "       1        0        0        0        1        -  2023-11-05 22:13:20  \\fc@d",
        ]
    );
    let names = |words: &[&str]| column(&list(&dir, &[&["--json"], words].concat()), "name");
    for (words, expected) in [
        (
            &["--count=client"][..],
            &["192.0.2.91", "198.51.100.7", "2001:db8:0:0:0:0:0:0"][..],
        ),
        (
            &["--count=network"],
            &["192.0.2.0", "198.51.100.0", "2001:db8:0:0:0:0:0:0"],
        ),
        // A client that needs more passes is held.
        (
            &["--count=network", "clients"],
            &["2001:db8:0:0:0:0:0:0", "192.0.2.0"],
        ),
        (
            &["--count=network", "clients", "--", "--ipv4cidr=16"],
            &["2001:db8:0:0:0:0:0:0", "192.0.0.0"],
        ),
        (
            &["--count=client", "--", "--ipv4cidr=16"],
            &["192.0.2.0(91)", "198.51.100.0(7)", "2001:db8:0:0:0:0:0:0"],
        ),
        (&["--count=client", "tarpit"], &["192.0.2.91", "bad"]),
        (&["--count=sender-domain"], &["b", ""]),
        (&["--count=sender-domain", "--sort=-name"], &["b", ""]),
        (&["--count=sender-domain", "--sort=-count"], &["", "b"]),
        (&["--count=sender-domain", "--sort=last"], &["", "b"]),
        (
            &["--count=recipient", "--sort=delay", "--limit=1"],
            &["bob@d"],
        ),
        (&["--count=recipient", "--state=expired"], &["\\fc@d"]),
        (&["--count=domain"], &[]),
    ] {
        assert_eq!(names(words), expected, "{words:?}");
    }
    let one = list(&dir, &["--json", "--count=sender-domain", "--limit=1"]);
    let object: serde_json::Value = serde_json::from_str(&one).unwrap();
    assert_eq!(
        object,
        serde_json::json!({
            "database": "greylist", "by": "sender-domain", "name": "b", "records": 3, "new": 1,
            "waiting": 1, "passed": 0, "expired": 1, "delay": 300, "last": NOW - 100,
        })
    );
    assert!(list(&dir, &["--count=sender-domain"]).contains("  <>\n"));
}

#[test]
fn hosts_domains_and_hashes_are_counted_for_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let now = format!("{NOW},{NOW},0");
    let hash = "014facc31a19f3693c0f7501d8d9251c3382c9ea";
    let keys = [
        "192.0.2.7/32/a@b/c@d",
        "192.0.2.7/32/e@b/c@d",
        "192.0.2.8/32/a@b/c@d",
        "pool.example/a@b/c@d",
        hash,
    ];
    let all: Vec<(Database, &[u8], &[u8])> = keys
        .iter()
        .map(|key| (Database::Greylist, key.as_bytes(), now.as_bytes()))
        .collect();
    fill(dir.path(), &all);
    let counts = |by: &str| {
        let text = list(&dir, &["--json", &format!("--count={by}")]);
        let (names, records) = (column(&text, "name"), column(&text, "records"));
        let pairs = names.into_iter().zip(records);
        pairs
            .map(|(name, n)| format!("{n} {name}"))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        counts("client"),
        ["2 192.0.2.7", "1 null", "1 192.0.2.8", "1 pool.example"]
    );
    assert_eq!(
        counts("network"),
        ["3 192.0.2.0", "1 null", "1 pool.example"]
    );
    assert_eq!(counts("domain"), ["1 null", "1 pool.example"]);
    assert_eq!(counts("recipient"), ["4 c@d", "1 null"]);
    assert!(list(&dir, &["--count=recipient"]).contains("  (hashed)\n"));
}

#[test]
fn what_cannot_be_sorted_or_counted_is_refused() {
    let dir = environment();
    for (words, message) in [
        (
            &["--sort=size"][..],
            "ERROR: --sort must be one of first, last, count, delay, held, name\n",
        ),
        (&["--sort=held"], "ERROR: --sort=held needs --count\n"),
        (
            &["--sort=first", "--count=client"],
            "ERROR: --sort=first and --count exclude each other\n",
        ),
        (
            &["--count=sender"],
            "ERROR: --count must be one of client, network, domain, sender-domain, recipient\n",
        ),
        (
            &["--count=recipient", "clients"],
            "ERROR: only triplets have a sender and a recipient: count them in greylist\n",
        ),
        (
            &["--limit=0"],
            "ERROR: --limit must be a number, 1 or more\n",
        ),
        (
            &["--limit=-1"],
            "ERROR: --limit must be a number, 1 or more\n",
        ),
        (
            &["--limit=1k"],
            "ERROR: --limit must be a number, 1 or more\n",
        ),
    ] {
        let said = ctl(dir.path(), &[&["list"], words].concat()).failed(2);
        assert_eq!(said, message, "{words:?}");
    }
}
