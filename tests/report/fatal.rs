//! The original's report: from the log alone, from a live database, and beside the
//! original.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Command, Stdio};

use postgrey::policy::record::Database;
use postgrey::store::Store;
use postgrey::store::lmdb::{LmdbOptions, LmdbStore, Purpose};

use super::machine::skip;
use super::{command, report};

/// The program of Debian's package.
const ORIGINAL: &str = "/usr/bin/postgreyreport";

/// Refusals by Postfix: time of day, client, sender, recipient.
const REJECTS: &[(&str, &str, &str, &str, &str)] = &[
    (
        "02:00:00",
        "mail.one.example",
        "192.0.2.10",
        "Alice@One.example",
        "bob@here.example",
    ),
    (
        "02:00:05",
        "mail.one.example",
        "192.0.2.10",
        "carol+tag@one.example",
        "bob@here.example",
    ),
    (
        "02:00:10",
        "mx.one.example",
        "192.0.2.9",
        "dave@one.example",
        "bob@here.example",
    ),
    (
        "02:00:15",
        "host-203-0-113-7.dsl.example",
        "203.0.113.7",
        "spam42@two.example",
        "eve@here.example",
    ),
    (
        "02:00:20",
        "unknown",
        "198.51.100.5",
        "x@three.example",
        "bob@here.example",
    ),
    (
        "02:01:00",
        "mail.one.example",
        "192.0.2.10",
        "alice@one.example",
        "bob@here.example",
    ),
    (
        "02:01:05",
        "later.example",
        "198.51.100.77",
        "list-12-b@later.example",
        "bob@here.example",
    ),
    (
        "02:01:10",
        "passed.example",
        "198.51.100.99",
        "fine@passed.example",
        "bob@here.example",
    ),
    (
        "02:06:30",
        "passed.example",
        "198.51.100.99",
        "fine@passed.example",
        "bob@here.example",
    ),
];

/// First and last use of what the server remembers.
const RECORDS: &[(&str, u64, u64)] = &[
    (
        "192.0.2.0/alice@one.example/bob@here.example",
        1_795_000_000,
        1_795_000_060,
    ),
    (
        "192.0.2.0/dave@one.example/bob@here.example",
        1_795_000_000,
        1_795_000_000,
    ),
    (
        "203.0.113.7/spam42@two.example/eve@here.example",
        1_795_000_000,
        1_795_000_000,
    ),
    (
        "198.51.100.0/list-#-b@later.example/bob@here.example",
        1_795_000_000,
        1_795_000_290,
    ),
    (
        "198.51.100.0/fine@passed.example/bob@here.example",
        1_795_000_000,
        1_795_000_300,
    ),
];

fn log() -> String {
    let mut log = String::new();
    for (time, name, address, sender, recipient) in REJECTS {
        log.push_str(&format!(
            "Nov  4 {time} mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from {name}[{address}]: 450 4.2.0 \
             <{recipient}>: Recipient address rejected: Greylisted, see http://x/help/here.html; \
             from=<{sender}> to=<{recipient}> proto=ESMTP helo=<{name}>\n"
        ));
    }
    log.push_str("Nov  4 03:00:00 mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from a[192.0.2.1]: 550 5.1.1 <x@here.example>: no; from=<a@b> to=<x@here.example>\n");
    log.push_str("Nov  4 03:00:00 mx postfix/smtpd[7]: NOQUEUE: reject: RCPT from a[192.0.2.1]: 450 4.2.0 <x@here.example>: Greylisted; from=<> to=<x@here.example>\n");
    log
}

/// An environment with these records.
pub fn fill(dir: &Path) {
    let mut store = LmdbStore::new(LmdbOptions {
        dir: dir.to_owned(),
        map_size: 1 << 24,
        purpose: Purpose::WriteFlushed,
        patience: std::time::Duration::from_secs(5),
    });
    let mut edit =
        |records: &mut dyn postgrey::policy::apply::Records<Error = postgrey::store::StoreError>| {
            for (key, first, last) in RECORDS {
                let value = format!("{first},{last},0");
                records.put(Database::Greylist, key.as_bytes(), value.as_bytes())?;
            }
            Ok(())
        };
    store.edit(&[], &mut edit).unwrap();
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn triplets_that_never_came_back_are_told() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let db = dir.path().to_str().unwrap();
    let all = report(&["--dbdir", db], log().as_bytes()).quiet();
    assert_eq!(
        lines(&all),
        [
            "      192.0.2.9 mx.one.example dave@one.example bob@here.example",
            "     192.0.2.10 mail.one.example alice@one.example bob@here.example",
            "     192.0.2.10 mail.one.example carol@one.example bob@here.example",
            "   198.51.100.5 unknown x@three.example bob@here.example",
            "  198.51.100.77 later.example list-#-b@later.example bob@here.example",
            "    203.0.113.7 host-203-0-113-7.dsl.example spam42@two.example eve@here.example",
        ]
    );
    let less = report(&["--dbdir", db, "--delay=290"], log().as_bytes()).quiet();
    assert_eq!(lines(&less).len(), 5, "{less}");
    let more = report(&["--dbdir", db, "--delay", "301"], log().as_bytes()).quiet();
    assert_eq!(lines(&more).len(), 7, "{more}");
    let tab = report(
        &["--dbdir", db, "--tab", "--show_tries", "--show_time"],
        log().as_bytes(),
    )
    .quiet();
    assert_eq!(
        lines(&tab)[1],
        "Nov  4 02:01:00\t2\t192.0.2.10\tmail.one.example\talice@one.example\tbob@here.example"
    );
    let none = tempfile::tempdir().unwrap();
    let refused = report(&["--dbdir", none.path().to_str().unwrap()], b"").failed(2);
    assert!(refused.contains("there is no database"), "{refused}");
}

#[test]
fn clients_may_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path());
    let db = dir.path().to_str().unwrap();
    let file = dir.path().join("clients");
    fs::write(
        &file,
        "# ours\none.example\n198.51.100\n/^host-.*dsl/\nnot a name\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    for (word, count) in [("--skip_clients", 0), ("--match_clients", 6)] {
        let ran = report(&["--dbdir", db, word, file], log().as_bytes());
        assert_eq!(lines(&ran.text()).len(), count, "{word} {ran:?}");
        assert!(
            ran.stderr.contains("line 5: doesn't look like a hostname"),
            "{ran:?}"
        );
    }
    let pools = report(&["--dbdir", db, "--skip_pool"], log().as_bytes()).quiet();
    assert!(
        !pools.contains("203.0.113.7") && lines(&pools).len() == 5,
        "{pools}"
    );
    report(&["--dbdir", db, "--skip_clients=/nonexistent"], b"").failed(2);
}

#[test]
fn ipv6_and_the_servers_own_lines_are_told_without_a_database() {
    let own = "\
2026-11-24T02:00:00Z mx postgrey[9]: action=greylist, reason=new, client_name=a.example, client_address=2001:db8::1, sender=a@b, recipient=c@d
2026-11-24T02:00:01Z mx postgrey[9]: action=greylist, reason=new, client_name=b.example, client_address=192.0.2.7, sender=a@b, recipient=c@d
2026-11-24T02:00:01Z mx postgrey[9]: action=greylist, reason=new, client_name=c.example, client_address=198.51.100.7, sender=a@b, recipient=c@d
2026-11-24T02:06:01Z mx postgrey[9]: action=pass, reason=triplet found, client_name=c.example, client_address=198.51.100.8, sender=a@b, recipient=c@d
";
    let ran = report(&["--show_tries"], own.as_bytes());
    assert_eq!(
        ran.text(),
        "1       192.0.2.7 b.example a@b c@d\n1     2001:db8::1 a.example a@b c@d\n"
    );
    assert!(
        ran.stderr
            .contains("there is no database: what came back is told from the log alone")
    );
    assert_eq!(ran.status, 0);
}

#[test]
fn the_last_option_counts_and_no_text_moves_the_cursor() {
    let own = "2026-11-24T02:00:00Z mx postgrey[9]: action=greylist, reason=new, client_name=a.example, client_address=192.0.2.7, sender=a\u{202e}\u{9b}31m\x1b[2J\u{e9}@b, recipient=c\u{2066}@d\n";
    let told = |words: &[&str]| report(words, own.as_bytes()).ok();
    let line = "      192.0.2.7 a.example a??31m?[2j\u{e9}@b c?@d\n";
    assert_eq!(told(&["--nosingle_line", "--single_line"]), line);
    let grouped = told(&["--single_line", "--no-single_line"]);
    assert_eq!(grouped.lines().count(), 2, "{grouped}");
    assert_eq!(
        told(&["-nosingle_line", "-single_line", "-u", "nobody"]),
        line
    );
    assert_eq!(told(&["-delay", "0", "--delay=1"]), line);
    assert!(told(&["-tab"]).starts_with("192.0.2.7\ta.example\t"));
    assert_eq!(told(&["--delay=1", "--delay=0"]), "");
    for words in [
        ["--greylist-text=x", "--return_string=Greylisted"],
        ["--return_string=x", "--greylist-text=Greylisted"],
    ] {
        let all = report(&words, log().as_bytes()).ok();
        assert!(lines(&all).len() > 3, "{words:?} {all}");
    }
}

#[test]
fn what_asks_name_servers_is_refused() {
    for name in ["check_sender", "skip_dnsbl"] {
        let said = report(&[&format!("--{name}=mx")], b"").failed(1);
        assert_eq!(
            said,
            format!("ERROR: --{name} is not done: this program asks no name server\n")
        );
    }
    let said = report(&["--summary", "--tab"], b"").failed(1);
    assert_eq!(
        said,
        "ERROR: --tab and --summary or --html exclude each other\n"
    );
    assert_eq!(
        report(&["--csv"], b"").failed(1),
        "ERROR: --csv needs --summary\n"
    );
    assert_eq!(
        report(&["--html=x", "--json"], b"").failed(1),
        "ERROR: --json needs --summary\n"
    );
    assert_eq!(
        report(&["--by=day"], b"").failed(1),
        "ERROR: --by needs --summary or --html\n"
    );
    assert_eq!(
        report(&["--summary", "--json", "--csv"], b"").failed(1),
        "ERROR: --json and --csv exclude each other\n"
    );
    assert!(
        report(&["--delay=x"], b"")
            .failed(1)
            .starts_with("Value \"x\" invalid")
    );
    assert!(
        report(&["--greylist-text=("], b"")
            .failed(1)
            .contains("pattern expected")
    );
}

/// The original's output for these options.
fn original(dir: &Path, words: &[&str]) -> String {
    let input = fs::File::open(dir.join("log")).unwrap();
    let output = Command::new(ORIGINAL)
        .arg(format!("--dbdir={}", dir.display()))
        .arg("--user=nobody")
        .args(words)
        .stdin(Stdio::from(input))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_output_is_that_of_the_original() {
    let has_tool = Command::new("db_load").arg("-V").output().is_ok();
    if !Path::new(ORIGINAL).exists() || !has_tool || !super::machine::is_root() {
        return skip(
            "postgreyreport of the original, db_load or root",
            "its output",
        );
    }
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    for path in [&old, &new] {
        fs::create_dir(path).unwrap();
    }
    fill(&new);
    let mut dump = String::from("VERSION=3\nformat=print\ntype=btree\nHEADER=END\n");
    for (key, first, last) in RECORDS {
        dump.push_str(&format!(" {key}\n {first},{last}\n"));
    }
    dump.push_str("DATA=END\n");
    fs::write(old.join("dump"), dump).unwrap();
    let loaded = Command::new("db_load")
        .arg("-f")
        .arg(old.join("dump"))
        .arg(old.join("postgrey.db"))
        .output()
        .unwrap();
    assert!(loaded.status.success(), "{loaded:?}");
    fs::write(old.join("log"), log()).unwrap();
    fs::write(dir.path().join("skip"), "one.example\n198.51.100.7\n").unwrap();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    for path in [&old, &old.join("postgrey.db"), &dir.path().to_owned()] {
        chown(path, Some(nobody.uid.as_raw()), None).unwrap();
    }
    let skip_file = format!("--skip_clients={}", dir.path().join("skip").display());
    let match_file = format!("--match_clients={}", dir.path().join("skip").display());
    let find = regex::Regex::new(r"\d+\.\d+\.\d+\.\d+").unwrap();
    let mut compared = 0;
    for words in [
        &[][..],
        &["--delay=290"],
        &["--delay=1"],
        &["--show_tries"],
        &["--show_time"],
        &["--tab"],
        &["--tab", "--show_time", "--show_tries"],
        &["--nosingle_line"],
        &[
            "--nosingle_line",
            "--show_tries",
            "--separate_by_subnet=:====\\n",
        ],
        &["--separate_by_ip=\\n"],
        &["--separate_by_ip=--\\n", "--separate_by_subnet=====\\n"],
        &["--skip_pool"],
        &[&skip_file],
        &[&match_file],
        &["--return_string=Greylisted, see"],
        &["--greylist-text=nothing"],
        &["--single_line"],
    ] {
        let theirs = original(&old, words);
        let db = new.to_str().unwrap();
        let output = command(&[&["--dbdir", db], words].concat())
            .arg(old.join("log"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let ours = String::from_utf8(output.stdout).unwrap();
        // Within a client the original's order is that of chance.
        let sorted = |text: &str| {
            let mut all: Vec<String> = text.lines().map(str::to_owned).collect();
            all.sort();
            all
        };
        assert_eq!(
            sorted(&ours),
            sorted(&theirs),
            "{words:?}\n{ours}\n{theirs}"
        );
        let addresses = |text: &str| -> Vec<String> {
            find.find_iter(text)
                .map(|found| found.as_str().to_owned())
                .collect()
        };
        assert_eq!(addresses(&ours), addresses(&theirs), "{words:?}");
        compared += ours.lines().count();
    }
    assert!(compared > 60, "{compared}");
}
