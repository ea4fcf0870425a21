//! A table that is looked up by Postfix itself, by name and then by address,
//! and by `--s25r-except`: both let in the same clients. But for the line
//! `!/(rules)/ OK`, with which Postfix lets everybody in.

use std::fs;
use std::path::Path;

use postgrey::policy::s25r::{Exceptions, Reason, Verdict};

use crate::instance::Service;
use crate::server::free_port;
use crate::smtp::Smtp;
use crate::{Scenario, check};

const TABLE: &str = "\
    /^192\\.0\\.2\\.7$/ OK\n\
    /^192\\.0\\.2\\.8$/ WARN\n\
    /^2001:db8::7$/ OK\n\
    /^198\\.51\\.100\\./ 450 be\n\
    \tpatient\n\
    /^ask/ DUNNO\n\
    /^warned/ WARN\n\
    /^host1-2/ OK they have digits\n\
    if /example\\.net$/\n\
    /^mx1-2/ OK\n\
    if !/^p/\n\
    /^[a-z]1-2/ OK\n\
    endif\n\
    endif\n\
    if /^192\\.0/\n\
    /9$/ OK\n\
    endif\n\
    /^Upper1-2/i OK\n\
    /^unknown$/ DEFER try again\n";

const RULES: &str = "/^mx1-2/ WARN\n!/(^unknown$)|(^[^.]*[0-9][^0-9.]+[0-9].*\\.)/ OK\n";

/// Names that the rules take for suspicious, so that whoever passes was let in
/// by the table.
const NAMES: [&str; 12] = [
    "unknown",
    "a1-2.example.com",
    "ask1-2.example.com",
    "warned1-2.example.com",
    "host1-2.example.com",
    "mx1-2.example.com",
    "mx1-2.example.net",
    "q1-2.example.net",
    "p1-2.example.net",
    "Upper1-2.example.com",
    "upper1-2.example.com",
    "Host1-2.Example.COM",
];

const ADDRESSES: [&str; 6] = [
    "192.0.2.7",
    "192.0.2.8",
    "192.0.2.9",
    "192.0.3.7",
    "198.51.100.1",
    "2001:db8::7",
];

pub fn scenarios(home: &Path) -> Vec<Scenario> {
    let scenario = |name: &'static str, table: &'static str| {
        let file = home.join("etc").join(name);
        fs::write(&file, table).unwrap();
        let restrictions = format!("check_client_access regexp:{},reject", file.display());
        Scenario {
            name,
            service: Service::at_rcpt(free_port(), &restrictions),
            play: Box::new(move |_, port| {
                if table == TABLE {
                    the_same_clients(port);
                } else {
                    everybody(port);
                }
            }),
        }
    };
    vec![scenario("table", TABLE), scenario("rules-table", RULES)]
}

/// Whether Postfix lets the client in.
fn is_let_in(port: u16, name: &str, address: &str) -> bool {
    let address = match address.contains(':') {
        true => format!("IPV6:{address}"),
        false => address.to_owned(),
    };
    let name = if name == "unknown" {
        "[UNAVAILABLE]"
    } else {
        name
    };
    let mut smtp = Smtp::appear_as(port, &address, name);
    smtp.offer("a@s.example", "u@example.org").code == 250
}

fn the_same_clients(port: u16) {
    let mut exceptions = Exceptions::default();
    assert_eq!(exceptions.add_file("table", TABLE.as_bytes()), []);
    let (mut differ, mut let_in) = (Vec::new(), 0);
    for name in NAMES {
        for address in ADDRESSES {
            let (verdict, reason) = exceptions.judge(name.as_bytes(), address.as_bytes());
            assert_ne!(reason, Reason::NoRule, "{name}");
            let postfix = is_let_in(port, name, address);
            let_in += usize::from(postfix);
            if postfix != (verdict == Verdict::Ok) {
                differ.push(format!("{name}[{address}]: {reason:?}"));
            }
        }
    }
    let saw = format!("{let_in} of {}, {differ:?}", NAMES.len() * ADDRESSES.len());
    let is_right = differ.is_empty() && (20..60).contains(&let_in);
    check(is_right, "a table lets in whom Postfix lets in", saw);
}

fn everybody(port: u16) {
    let mut exceptions = Exceptions::default();
    exceptions.add_file("table", RULES.as_bytes());
    for (name, wanted) in [
        ("mail.example.com", true),
        ("a1-2.example.com", false),
        ("unknown", false),
        ("mx1-2.example.com", false),
    ] {
        let ours = !exceptions.is_suspicious(name.as_bytes(), b"192.0.2.7");
        let postfix = is_let_in(port, name, "192.0.2.7");
        // WARN for the name keeps Postfix from asking for the address.
        let is_right = ours == wanted && postfix == (name != "mx1-2.example.com");
        let saw = format!("{name}: Postfix {postfix}, we {ours}");
        check(is_right, "a table of all rules in one line", saw);
    }
}
