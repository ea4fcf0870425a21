//! Records and log lines of the original 1.36 and of what distributions made of
//! it, which write addresses with a length.

use std::collections::BTreeMap;
use std::path::Path;

use postgrey::policy::record::Database;
use postgrey::sys::clock;

use super::server::ask_now;
use super::{ctl, ctl_with_input, fill, records};

/// Imports a text and returns what the program said and the records.
fn imported(dir: &Path, words: &[&str], text: &str) -> (String, [BTreeMap<String, String>; 3]) {
    let (own, server) = match words.iter().position(|word| *word == "--") {
        Some(at) => words.split_at(at),
        None => (words, &[][..]),
    };
    let all = [&["import"], own, &["-"], server].concat();
    let said = ctl_with_input(dir, &all, text.as_bytes()).ok();
    let text = |octets| String::from_utf8(octets).unwrap();
    let records = Database::ALL.map(|database| {
        let all = records(dir, database).into_iter();
        all.map(|(key, value)| (text(key), text(value))).collect()
    });
    (said, records)
}

fn keys(records: &BTreeMap<String, String>) -> Vec<&str> {
    records.keys().map(String::as_str).collect()
}

/// A triplet that has passed.
fn passed() -> String {
    let now = clock::seconds() as u64;
    format!("{},{}", now - 5000, now - 4000)
}

#[test]
fn keys_of_1_36_are_found_by_the_server() {
    let passed = passed();
    let known = format!("5,{}", clock::seconds() as u64 - 100);
    let text = format!(
        "greylist\t192.0.2.0/24/a@b/c@d\t{passed}\n\
         greylist\t2001:db8:0:0:0:0:0:0/64/a@b/c@d\t{passed}\n\
         clients\t198.51.100.7/32\t{known}\n\
         clients\t2001:DB8:0:1:0:0:0:7/128\t{known}\n\
         clients\t2001:db8:0:2::7\t{known}\n\
         tarpit\t203.0.113.7/32\t1700000000\n"
    );
    for from in [
        &[][..],
        &["--from=postgrey-1.36"],
        &["--from=postgrey-1.37"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (said, [triplets, clients, tarpit]) = imported(dir.path(), from, &text);
        assert_eq!(
            keys(&triplets),
            ["192.0.2.0/a@b/c@d", "2001:db8:0:0:0:0:0:0/a@b/c@d"]
        );
        assert_eq!(
            keys(&clients),
            [
                "198.51.100.7",
                "2001:DB8:0:1:0:0:0:7",
                "2001:DB8:0:2:0:0:0:7"
            ]
        );
        assert_eq!(keys(&tarpit), ["203.0.113.7"]);
        let version = if from == ["--from=postgrey-1.37"] {
            "1.37"
        } else {
            "1.36"
        };
        let first = format!(
            "standard input: greylist (postgrey.db) of plain postgrey {version}: 2 taken, "
        );
        assert!(said.starts_with(&first), "{said}");
        for address in [
            "192.0.2.99",
            "2001:db8::99",
            "198.51.100.7",
            "2001:db8:0:1::7",
            "2001:db8:0:2::7",
        ] {
            assert_eq!(ask_now(dir.path(), &[], address), "DUNNO", "{address}");
        }
        let other = ask_now(dir.path(), &[], "198.51.100.8");
        assert!(other.starts_with("DEFER_IF_PERMIT "), "{other}");
    }
}

#[test]
fn both_forms_of_a_key_become_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let text = "192.0.2.0/24/a@b/c@d\t100,200\n192.0.2.0/a@b/c@d\t150,900\n";
    let (said, [triplets, ..]) = imported(dir.path(), &["--database=greylist"], text);
    assert!(
        said.ends_with(": 1 taken, 1 merged, 0 kept, 0 refused\n"),
        "{said}"
    );
    assert_eq!(triplets["192.0.2.0/a@b/c@d"], "100,900");
    let (said, _) = imported(dir.path(), &["--database=greylist"], text);
    assert!(
        said.ends_with(": 0 taken, 0 merged, 2 kept, 0 refused\n"),
        "{said}"
    );
}

#[test]
fn clients_alone_are_of_1_36_if_that_is_said() {
    let text = "2001:db8::7\t5,1700000000\n";
    for (words, key) in [
        (&["--database=clients"][..], "2001:db8::7"),
        (&["--from=postgrey-1.36"], "2001:DB8:0:0:0:0:0:7"),
        (
            &["--from=postgrey-1.36", "--", "--compat=targrey-1.34"],
            "2001:db8::7",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (_, [_, clients, _]) = imported(dir.path(), words, text);
        assert_eq!(keys(&clients), [key], "{words:?}");
    }
}

#[test]
fn whole_addresses_of_lookup_by_host_stay() {
    let passed = passed();
    let (four, six) = ("192.0.2.7/32/a@b/c@d", "2001:db8:0:0:0:0:0:7/128/a@b/c@d");
    let text = format!("{four}\t{passed}\n{six}\t{passed}\n");
    for words in [
        &["--", "--lookup-by-host"][..],
        &["--from=postgrey-1.36", "--", "--lookup-by-host"],
        // Nobody has told us of the option.
        &[],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (_, [triplets, ..]) = imported(dir.path(), words, &text);
        assert_eq!(keys(&triplets), [four, six], "{words:?}");
        for address in ["192.0.2.7", "2001:db8::7"] {
            let answer = ask_now(dir.path(), &["--lookup-by-host"], address);
            assert_eq!(answer, "DUNNO");
        }
    }
    let older = format!("{text}192.0.2.0/24/a@b/c@d\t{passed}\n");
    for (words, most) in [
        (&[][..], four),
        (&["--from=postgrey-1.36"], "192.0.2.7/a@b/c@d"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let (_, [triplets, ..]) = imported(dir.path(), words, &older);
        assert_eq!(keys(&triplets)[..2], ["192.0.2.0/a@b/c@d", most]);
    }
    let dir = tempfile::tempdir().unwrap();
    let options = ["--ipv4cidr=32", "--ipv6cidr=128"];
    let words = [&["--"], &options[..]].concat();
    imported(dir.path(), &words, &text);
    assert_eq!(ask_now(dir.path(), &options, "192.0.2.7"), "DUNNO");
    assert_eq!(ask_now(dir.path(), &options, "2001:db8::7"), "DUNNO");
}

#[test]
fn under_privacy_nothing_is_kept_in_plain() {
    let dir = tempfile::tempdir().unwrap();
    let passed = passed();
    let text = format!("greylist\t192.0.2.0/24/a@b/c@d\t{passed}\nclients\t192.0.2.7\t1,2\n");
    let (_, [triplets, clients, _]) = imported(dir.path(), &["--", "--privacy"], &text);
    for key in [keys(&triplets), keys(&clients)].concat() {
        assert!(key.len() == 40 && !key.contains('.'), "{key}");
    }
    assert_eq!(ask_now(dir.path(), &["--privacy"], "192.0.2.9"), "DUNNO");
}

#[test]
fn a_line_of_1_36_is_explained_at_its_time() {
    let dir = tempfile::tempdir().unwrap();
    fill(
        dir.path(),
        &[
            (Database::Clients, b"192.0.2.7", b"5,1700000000"),
            (Database::Clients, b"2001:DB8:0:0:0:0:0:7", b"5,1700000000"),
            (
                Database::Greylist,
                b"198.51.100.0/a@b/c@d",
                b"1700000000,1700000000,0,7",
            ),
        ],
    );
    let explained = |date: &str, address: &str, more: &[&str]| {
        let line = format!(
            "{date} mx postgrey[7]: action=greylist, reason=new, client_name=n, \
             client_address={address}, sender=a@b, recipient=c@d \t\r\n"
        );
        let words = [&["explain", "--log=-"], more].concat();
        ctl_with_input(dir.path(), &words, line.as_bytes()).ok()
    };
    let date = "2023-11-14T22:15:00+00:00";
    for (address, shown) in [
        ("192.0.2.7/32", "192.0.2.7"),
        ("2001:DB8:0:0:0:0:0:7/128", "2001:db8::7"),
    ] {
        let text = explained(date, address, &[]);
        assert!(
            text.starts_with(&format!("client       n[{shown}]\n")),
            "{text}"
        );
        assert!(text.contains("\nrecipient    <c@d>\n"), "{text}");
        assert!(
            text.contains("\ntime         2023-11-14 22:15:00\n"),
            "{text}"
        );
        assert!(
            text.contains("\ndecision     passes: the client is on the auto-w"),
            "{text}"
        );
    }
    let waiting = "\ndecision     greylisted: 200 of 300 s of the delay are left\n";
    for date in [
        date,
        "2023-11-14 22:15:00",
        "2023/11/14-22:15:00",
        "Nov 14 2023 22:15:00",
    ] {
        let text = explained(date, "198.51.100.9", &[]);
        assert!(text.contains(waiting), "{text}");
    }
    let later = explained(date, "198.51.100.9", &["--at=1700000400"]);
    assert!(
        later.contains("\ndecision     passes: first seen 400 s ago\n"),
        "{later}"
    );
    // Without a year: the last such day.
    let text = explained("Nov 14 22:15:00", "198.51.100.9", &[]);
    let year = text.split("\ntime         ").nth(1).unwrap();
    let (year, rest) = year.split_once('-').unwrap();
    assert!(rest.starts_with("11-14 22:15:00\n"), "{text}");
    let at = clock::seconds_of_date([year.parse().unwrap(), 11, 14, 22, 15, 0]).unwrap();
    let age = clock::seconds() - at;
    assert!((-86_500.0..367.0 * 86_400.0).contains(&age), "{text}");
    // A line without a date: now.
    let line = "action=greylist, client_address=192.0.2.7, sender=a@b, recipient=c@d";
    let text = ctl(dir.path(), &["explain", "--log", line]).ok();
    assert!(!text.contains("\ntime         2023-"), "{text}");
}
