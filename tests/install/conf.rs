//! `conf/`: what Postfix itself says to the examples and to the S25R table,
//! and the form of the whitelists.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use postgrey::policy::s25r::{RULES, suspicious_rule};

use super::{file, find_or_skip, run, text};

/// Names, and what the table says to each: "" leaves it to the server.
const NAMES: [(&str, &str); 38] = [
    // One and more for each rule, as in s25r(7).
    ("unknown", ""),
    ("220-139-165-188.dynamic.example.net", "WARN"),
    ("a12b34.example.com", ""),
    ("evrtwa1-ar3-4-65.example.net", ""),
    ("host12345", ""),
    ("host98765.example.net", ""),
    ("123.pool.example.net", "WARN"),
    ("123.line.example.net", ""),
    ("host.3abc.isp.example.net", ""),
    ("wbar9.chi1-4-11.example.net", ""),
    ("d1.host2.isp.example.net", ""),
    ("dhcpa7.example.com", ""),
    ("XDSL-a9.Example.com", "WARN"),
    ("XDSLa9.Example.com", ""),
    // One for each line in front of the rules: no rule knows them.
    ("user.192-0-2-1.example.net", "WARN"),
    ("user.192.0.2.1.example.net", "WARN"),
    ("cbaddeaf.example.net", "WARN"),
    ("abc.dynamic.example.net", "WARN"),
    ("dhcp-abc.example.net", "WARN"),
    ("abc.pool7.example.net", "WARN"),
    ("abc.adsl.example.net", "WARN"),
    ("ftth.abc.example.net", "WARN"),
    ("pppoe-abc.example.net", "WARN"),
    ("ppp-abc.example.net", "WARN"),
    ("abc.cust.example.net", "WARN"),
    // Servers.
    ("mail.example.com", "OK"),
    ("MX1.Example.COM", "OK"),
    ("mail-12.example.com", "OK"),
    ("out-1234.smtp.example.com", "OK"),
    ("smtp2.example.co.jp", "OK"),
    ("mx1.dc2.example", "OK"),
    ("dynamic.example", "OK"),
    ("mail.dsl.example", "OK"),
    ("cust.example.com", "OK"),
    // Addresses, for which Postfix asks when a name is not found.
    ("192.0.2.1", ""),
    ("203.0.113.254", ""),
    ("2001:db8::1", ""),
    ("::ffff:192.0.2.1", ""),
];

#[test]
fn the_table_says_what_the_rules_say() {
    let table = text("conf/permit_client_nots25r");
    let rules: Vec<String> = RULES.iter().map(|rule| format!("({rule})")).collect();
    let last = format!("!/{}|(^[0-9.]+$)|(:)/\tOK", rules.join("|"));
    assert_eq!(table.lines().last().unwrap(), last);
    for (name, verdict) in NAMES {
        let is_address = name.contains(':') || name.starts_with(|c: char| c.is_ascii_digit());
        if verdict == "OK" {
            assert_eq!(suspicious_rule(name.as_bytes()), None, "{name}");
        } else if verdict.is_empty() && !is_address {
            assert!(suspicious_rule(name.as_bytes()).is_some(), "{name}");
        }
    }
    let lines = table
        .lines()
        .filter(|line| line.ends_with("\tWARN"))
        .count();
    let missed = NAMES
        .iter()
        .filter(|(name, said)| *said == "WARN" && suspicious_rule(name.as_bytes()).is_none())
        .count();
    assert!(
        missed >= lines,
        "a line for names that a rule knows is of no use"
    );
}

#[test]
fn postfix_reads_the_table() {
    let Some(postmap) = find_or_skip("postmap", "conf/permit_client_nots25r") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("main.cf"), "").unwrap();
    let table = format!("regexp:{}", file("conf/permit_client_nots25r").display());
    for (name, verdict) in NAMES {
        let done = run(Command::new(&postmap)
            .arg("-c")
            .arg(dir.path())
            .args(["-q", name, &table]));
        assert_eq!(done.stdout.trim_end(), verdict, "{name}");
        assert_eq!(done.stderr, "", "{name}");
    }
}

#[test]
fn postfix_accepts_the_examples() {
    let Some(postconf) = find_or_skip("postconf", "conf/main.cf.example") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    fs::copy(file("conf/main.cf.example"), dir.path().join("main.cf")).unwrap();
    fs::copy(file("conf/master.cf.example"), dir.path().join("master.cf")).unwrap();
    let say = |flag: &str| {
        let done = run(Command::new(&postconf).arg(flag).arg("-c").arg(dir.path()));
        assert_eq!((done.status, done.stderr.as_str()), (0, ""), "{flag}");
        done.stdout
    };
    let main = say("-n");
    let server = "check_policy_service { inet:127.0.0.1:60000, timeout=10s, default_action=DUNNO }";
    for list in ["smtpd_recipient_restrictions", "smtpd_data_restrictions"] {
        let line = main.lines().find(|l| l.starts_with(list)).unwrap();
        let order = [
            "permit_sasl_authenticated",
            "permit_mynetworks",
            "check_recipient_access hash:/etc/postfix/whitelist_recipient",
            "check_client_access hash:/etc/postfix/whitelist_client",
            "check_client_access regexp:/etc/postfix/permit_client_nots25r",
            "permit_dnswl_client list.dnswl.org=127.0.[0..255].[1..3]",
            server,
        ];
        let places: Vec<_> = order.iter().map(|part| line.find(part).unwrap()).collect();
        assert!(places.is_sorted(), "{line}");
        assert!(line.ends_with(", permit"), "{line}");
    }
    let master = say("-M");
    for service in ["smtp ", "submission ", "postgrey ", "127.0.0.1:60001 "] {
        assert!(master.lines().any(|l| l.starts_with(service)), "{service}");
    }
    let spawned = master.matches(" spawn -o command_time_limit=3600s user=postgrey argv=");
    assert_eq!(spawned.count(), 2);
}

/// Every entry stands below a comment of its section, and once in the file.
fn check_whitelist(path: &str, is_entry: impl Fn(&str) -> bool, is_reason: impl Fn(&str) -> bool) {
    let list = text(path);
    let head = list.lines().nth(1).unwrap();
    assert!(head.ends_with("; 2026-11"), "{head}");
    let mut seen = BTreeSet::new();
    let mut has_reason = false;
    for line in list.lines().skip_while(|line| !line.is_empty()) {
        if line.starts_with("# ---") {
            has_reason = false;
        } else if line.starts_with('#') {
            has_reason |= is_reason(line);
        } else if !line.is_empty() {
            assert!(has_reason, "{path}: {line} has no reason");
            assert!(is_entry(line), "{path}: {line}");
            assert!(seen.insert(line.to_owned()), "{path}: {line} twice");
        }
    }
    assert!(seen.len() >= 5, "{path}");
}

#[test]
fn each_entry_of_the_whitelists_has_its_reason() {
    let is_domain = |line: &str| {
        line.contains('.')
            && line.split('.').all(|label| {
                !label.is_empty()
                    && label
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b == b'-')
            })
            && line == line.to_ascii_lowercase()
    };
    check_whitelist("conf/postgrey_whitelist_clients", is_domain, |line| {
        ["# pool: ", "# once: "].iter().any(|r| line.starts_with(r))
    });
    let mut pools = postgrey::policy::pool::Pools::default();
    assert_eq!(
        pools.add_file("pools", text("conf/postgrey_pools").as_bytes()),
        []
    );
    assert!(pools.len() > 40);
    check_whitelist(
        "conf/postgrey_whitelist_recipients",
        |line| line.ends_with('@') && line.bytes().filter(|b| *b == b'@').count() == 1,
        |_| true,
    );
}
