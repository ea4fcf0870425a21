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
    assert_eq!(said, "ERROR: \"foo\" is no address and no network\n");
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
