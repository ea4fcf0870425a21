//! Entries that match nothing and what is said about them; and entries that are
//! right, about which nothing is said.

use super::{ClientList, MailAddressList};
use crate::policy::rules::Compat;

fn clients(compat: Compat, text: &[u8]) -> (ClientList, Vec<String>) {
    let mut list = ClientList::new(compat);
    let mut complaints = list.add_file("F", text);
    complaints.extend(list.finish());
    assert!(complaints.iter().all(|c| !c.fatal), "{complaints:?}");
    (list, complaints.iter().map(ToString::to_string).collect())
}

fn recipients(text: &[u8]) -> (MailAddressList, Vec<String>) {
    let mut list = MailAddressList::of_recipients();
    let mut complaints = list.add_file("F", text);
    complaints.extend(list.finish());
    assert!(complaints.iter().all(|c| !c.fatal), "{complaints:?}");
    (list, complaints.iter().map(ToString::to_string).collect())
}

/// Each entry with a part of what is said about it.
#[rustfmt::skip]
const CLIENTS: &[(&str, &str)] = &[
    ("user@example.com", "a client has no mail address"),
    ("@example.com", "a client has no mail address"),
    ("postmaster@", "a client has no mail address"),
    ("192.0.2.1-192.0.2.20", "no ranges"),
    ("192.0.2.1-20", "no ranges"),
    ("192.0.2.0-255", "no ranges"),
    ("192.0.2-192.0.3", "no ranges"),
    ("2001:db8::1-2001:db8::f", "no ranges"),
    ("192.0.2.0/255.255.255.0", "write 192.0.2.0/24"),
    ("192.0.2.0/0.0.0.255", "write 192.0.2.0/24"),
    ("0.0.0.0/0.0.0.0", "write 0.0.0.0/0"),
    ("192.0.2.0/255.0.255.0", "write the network with its length"),
    ("[192.0.2.7]", "write 192.0.2.7, without"),
    ("[192.0.2.0]/24", "write 192.0.2.0/24, without"),
    ("[2001:db8::7]", "write 2001:db8::7, without"),
    ("[mail.example.com]", "write mail.example.com, without"),
    ("192.0.2.", "write 192.0.2"),
    ("192.0.", "write 192.0.0.0/16"),
    ("10.", "write 10.0.0.0/8"),
    ("192.0.2.7.", "write 192.0.2.7"),
    ("example.com.", "write example.com, without"),
    ("192.0.2.1,192.0.2.2", "a line of its own"),
    ("example.com,", "a line of its own"),
    ("example.com;example.org", "a line of its own"),
    ("http://www.example.com/", "write www.example.com"),
    ("https://example.com:443", "write example.com"),
    ("example.com/", "without the slash"),
    ("192.0.2.0/", "write 192.0.2.0, without the slash"),
    ("192.0.2.0/24/", "write 192.0.2.0/24, without the slash"),
    ("2001:db8::/32/", "write 2001:db8::/32, without the slash"),
    ("192.0.2.*", "write 192.0.2"),
    ("192.0.*.*", "write 192.0.0.0/16"),
    ("10.*", "write 10.0.0.0/8"),
    ("*.example.com", "* is no wildcard"),
    (".example.com", "empty part"),
    ("example..com", "empty part"),
    ("-example.com", "hyphen"),
    ("192.0.2.1.5", "neither an address nor a name"),
    ("example.com/24", "only an address has a length"),
    ("192.0.2.1:25", "a colon"),
    ("mail.example.com:25", "a colon"),
    ("\"example.com\"", "has a \""),
    ("mail\\.example\\.com", "between slashes"),
    ("^mail", "between slashes"),
    ("(mail|mx).example.com", "between slashes"),
    ("example.com=OK", "has a ="),
    ("!example.com", "has a !"),
    ("b\u{fc}ro.example", "xn--"),
    ("example.com\u{a0}", "cannot be seen (U+00A0)"),
    ("\u{200b}example.com", "cannot be seen (U+200B)"),
    ("e\0x\0", "cannot be seen (U+0000)"),
    ("/user@example\\.com$/", "is no mail address"),
    ("/^192\\.0\\.2\\./", "without slashes"),
    ("/^192.168/", "without slashes"),
    ("/^192\\.0\\.2\\.\\d+$/", "without slashes"),
];

#[test]
fn clients_that_nobody_is_are_told_with_their_line() {
    for compat in [Compat::Targrey137, Compat::Targrey134] {
        for (entry, told) in CLIENTS {
            let text = format!("# clients\nok.example\n{entry}\n");
            let (_, said) = clients(compat, text.as_bytes());
            assert_eq!(said.len(), 1, "{compat:?} {entry} {said:?}");
            assert!(
                said[0].starts_with("F line 3: ") && said[0].contains(told),
                "{compat:?} {entry} {said:?}"
            );
            assert!(!said[0].contains(|c: char| c.is_control()), "{said:?}");
        }
    }
}

/// What is told as a mere name matches all the same, as in the original.
#[test]
fn what_is_told_matches_as_before() {
    for (entry, _) in CLIENTS.iter().filter(|(e, _)| !e.starts_with('/')) {
        let (list, _) = clients(Compat::Targrey137, entry.as_bytes());
        let colons = entry.matches(':').count();
        let is_name = colons < 2;
        assert_eq!(list.len(), usize::from(is_name), "{entry}");
        assert_eq!(
            list.match_name(entry.as_bytes()).is_some(),
            is_name,
            "{entry}"
        );
        let below = format!("x.{entry}");
        assert_eq!(
            list.match_name(below.as_bytes()).is_some(),
            is_name,
            "{entry}"
        );
    }
    for (entry, _) in RECIPIENTS {
        let (list, _) = recipients(entry.as_bytes());
        assert_eq!(list.len(), 1, "{entry}");
        let asked = match entry.find('@') {
            None => format!("x@{entry}"),
            Some(_) => (*entry).to_owned(),
        };
        assert!(list.match_address(asked.as_bytes()).is_some(), "{entry}");
    }
}

/// Forms of the original's own lists, and others that are right.
#[rustfmt::skip]
const GOOD_CLIENTS: &[&str] = &[
    "example.com", "EXAMPLE.com", "mail-out.example.com", "mx1.example.co.jp", "jp",
    "localhost", "xn--bro-hoa.example", "_spf.example.com", "1-2-3.example", "3com.example",
    "123.example", "192-0-2-1.example", "192.0.2", "192.0.2.7", "192.0.2.0/24",
    "198.51.100.99/28", "2001:db8::1", "2001:db8::/32", "fe80::/10", "unknown",
    "/^mail\\d+\\.example\\.com$/", "/^out-.*\\.example\\.com$/", "/^.*-out-.*\\.example\\.com$/",
    "/^ms-smtp.*\\.example\\.com$/", "/^[^.]*[0-9]{5}/", "/\\.example\\.(com|net)$/",
    "/^\\d+\\.\\d+\\.\\d+\\.\\d+\\.static\\.example$/", "/^1\\.2\\.3\\.4\\.example\\.com$/", "/[0-9]/",
    "/^[0-9]+\\./", "/^\\d+-\\d+/", "/^10/", "/(@|x)/", "/$/", "/./",
];

/// Likewise of recipients.
#[rustfmt::skip]
const GOOD_RECIPIENTS: &[&str] = &[
    "postmaster@", "abuse@", "user@example.org", "user+list@example.org", "user+list@",
    "example.org", "jp", "localhost", "info", "user@localhost", "o'neil@example.org",
    "a.b@example.org", "user@[192.0.2.1]", "user@[IPv6:2001:db8::1]", "\"a,b\"@example.org",
    "user%example.org@gateway.example", "a@b@example.org", "\u{fc}ber@b\u{fc}ro.example",
    "b\u{fc}ro.example", "x_y.example", "1.example", "/^user/", "/@example\\.org$/", "/192\\.0/",
    "user=example.org@bounce.example", "#comment", "prvs=123/user@example.org",
];

/// Each entry with a part of what is said about it.
#[rustfmt::skip]
const RECIPIENTS: &[(&str, &str)] = &[
    ("192.0.2.0/24", "a recipient has no network"),
    ("192.0.2.7", "a recipient has no network"),
    ("192.0.2", "a recipient has no network"),
    ("10", "a recipient has no network"),
    ("192.0.2.", "a recipient has no network"),
    ("192.0.2.0/255.255.255.0", "a recipient has no network"),
    ("192.0.2.1-192.0.2.9", "a recipient has no network"),
    ("2001:db8::/32", "a recipient has no network"),
    (".example.com", "without it the entry matches subdomains"),
    ("user@.example.com", "no domain begins with a dot"),
    ("example.com.", "no domain ends with a dot"),
    ("user@example..com", "empty part"),
    ("a@example.com,b@example.com", "a line of its own"),
    ("example.com,example.org", "a line of its own"),
    ("a,b@example.com", "a line of its own"),
    ("mailto:user@example.com", "a URL"),
    ("http://example.com", "a URL"),
    ("<user@example.com>", "without < and >"),
    ("example.com/", "a slash"),
    ("user@example.com/", "a slash"),
    ("postmaster", "write postmaster@"),
    ("Abuse", "write Abuse@"),
    ("*@example.com", "* is no wildcard"),
    ("@example.com", "empty user"),
    ("\"example.com\"", "has a \""),
    ("user\\@example\\.com", "between slashes"),
    ("example.com\u{a0}", "cannot be seen (U+00A0)"),
    ("user@example.com\u{200b}", "cannot be seen (U+200B)"),
];

#[test]
fn recipients_that_nobody_is_are_told_with_their_line() {
    for (entry, told) in RECIPIENTS {
        let text = format!("# recipients\npostmaster@\n{entry}\n");
        let (_, said) = recipients(text.as_bytes());
        assert_eq!(said.len(), 1, "{entry} {said:?}");
        assert!(
            said[0].starts_with("F line 3: ") && said[0].contains(told),
            "{entry} {said:?}"
        );
    }
}

#[test]
fn what_is_right_is_not_told() {
    for compat in [Compat::Targrey137, Compat::Targrey134] {
        let none: [String; 0] = [];
        let entries = GOOD_CLIENTS.iter().filter(|entry| {
            // 1.34 has no IPv6 networks.
            compat == Compat::Targrey137 || !entry.contains(":/")
        });
        for entry in entries {
            assert_eq!(clients(compat, entry.as_bytes()).1, none, "{entry}");
        }
    }
    for entry in GOOD_RECIPIENTS {
        assert_eq!(recipients(entry.as_bytes()).1, [""; 0], "{entry}");
    }
    let list = include_bytes!("../../../conf/postgrey_whitelist_clients");
    assert_eq!(clients(Compat::Targrey137, list).1, [""; 0]);
    assert_eq!(clients(Compat::Targrey134, list).1, [""; 0]);
    let list = include_bytes!("../../../conf/postgrey_whitelist_recipients");
    assert_eq!(recipients(list).1, [""; 0]);
}

#[test]
fn a_byte_order_mark_is_taken_off() {
    let told = "F line 1: the byte order mark in front is taken off";
    let (list, said) = clients(Compat::Targrey137, b"\xef\xbb\xbfexample.com\r\n");
    assert_eq!(said, [told]);
    assert!(list.match_name(b"mail.example.com").is_some());
    let (list, said) = recipients(b"\xef\xbb\xbfpostmaster@\n");
    assert_eq!(said, [told]);
    assert!(list.match_address(b"postmaster@example.org").is_some());
}
