//! The lists of the recorded dialogues o19 (1.34) and o20 (1.37), and what the
//! original answered to the clients and recipients asked there.

use super::{ClientList, MailAddressList};
use crate::policy::rules::Compat;

const CLIENTS: &[u8] = br"# every syntax
# domains
example.edu
provider.example   # comment after
   spaced.example
.leading-dot.example
UPPERCASE.example
with-dash.example
two words
*.star.example

# addresses
203.0.113.7
203.0.113.8/32
198.18.0.0/15
198.51.100.99/28
10.0.0
10.1.2
192.0
172.16
10
300.1.1
203.0.114.0/33
# IPv6
2001:db8::1
2001:db8:1::/48
fe80::/10
2001:DB8:77::9
# regex
/^mx\d+\.example\.com$/
/POOL/
/^dsl(?:-\d+)+\./
/(?<!not)lookbehind\.example$/
/^(a)\1\.backref\.example$/
/[[:digit:]]{4}\.posix\.example/
/white space/
/cut#comment/
/a{2,3}\x2equant\.example$/
";

const RECIPIENTS: &[u8] = br"# recipients
postmaster@
abuse@
user2@example.org
other.example
@atonly.example
sub.example.org  # and its subdomains
noat
two words
/^regex-?user\d*@/
/\+skip@/
/cut#comment@/
PLUS+ed@example.org
a.b@example.org
";

/// Clients, name and address, whitelisted by 1.34 and by 1.37.
#[rustfmt::skip]
const IN_BOTH: &[(&str, &str)] = &[
    ("", "203.0.113.7"),
    ("*.star.example", "198.200.1.13"),
    (".leading-dot.example", "198.200.1.9"),
    ("/cut", "192.168.1.10"),
    ("MX55.example.com", "192.168.1.2"),
    ("a.uppercase.EXAMPLE", "198.200.1.10"),
    ("a.with-dash.example", "198.200.1.11"),
    ("aa.backref.example", "192.168.1.7"),
    ("aaa.quant.example", "192.168.1.11"),
    ("carpool.example", "192.168.1.4"),
    ("dsl-1-2.example", "192.168.1.5"),
    ("dsl-100-23.provider.example", "198.51.100.23"),
    ("h1234.posix.example", "192.168.1.8"),
    ("host0.example", "10.0.0.0"),
    ("ip23.100.pool.example", "198.51.100.23"),
    ("lookbehind.example", "192.168.1.6"),
    ("mail.example.edu", "198.200.1.5"),
    ("mx2.example.com", "192.0.2.77"),
    ("mx5.example.com", "192.168.1.1"),
    ("n1.example", "203.0.113.7"),
    ("n1.example", "203.0.113.8"),
    ("n10.example", "2001:DB8:77::9"),
    ("n2.example", "198.18.0.1"),
    ("n2.example", "198.19.255.255"),
    ("n3.example", "198.51.100.111"),
    ("n3.example", "198.51.100.96"),
    ("n4.example", "10.0.0.5"),
    ("n4.example", "10.1.2.3"),
    ("n5.example", "192.0.0.7"),
    ("n6.example", "172.16.0.9"),
    ("n8.example", "2001:db8::1"),
    ("out.example.edu", "192.0.99.5"),
    ("smtp.provider.example", "198.51.100.99"),
    ("unknown", "203.0.113.8"),
    ("v6.example.com", "2001:db8::1"),
];

/// Clients whitelisted by neither.
#[rustfmt::skip]
const IN_NONE: &[(&str, &str)] = &[
    ("UPPER.Example.COM", "203.0.113.9"),
    ("a.quant.example", "192.168.1.11"),
    ("a.star.example", "198.200.1.13"),
    ("a.withXdash.example", "198.200.1.11"),
    ("ab.backref.example", "192.168.1.7"),
    ("dsl.example", "192.168.1.5"),
    ("example.edu.evil.example", "198.200.1.7"),
    ("h123.posix.example", "192.168.1.8"),
    ("leading-dot.example", "198.200.1.9"),
    ("loop6.example", "::1"),
    ("m.example", "::ffff:198.18.0.1"),
    ("m.example", "::ffff:203.0.113.7"),
    ("mail2.example.net", "203.0.2.2"),
    ("mapped.example.com", "::ffff:192.0.2.10"),
    ("mapped2.example.com", "::FFFF:192.0.2.11"),
    ("mxx.example.com", "192.168.1.3"),
    ("n1.example", "203.0.113.70"),
    ("n10.example", "2001:DB8:77::9a"),
    ("n2.example", "198.17.255.255"),
    ("n2.example", "198.20.0.0"),
    ("n3.example", "198.51.100.112"),
    ("n3.example", "198.51.100.95"),
    ("n5.example", "192.1.0.0"),
    ("n6.example", "172.0.0.16"),
    ("n6.example", "172.160.0.1"),
    ("n6.example", "172.17.0.1"),
    ("n7.example", "0.0.0.10"),
    ("n7.example", "100.0.0.1"),
    ("n7.example", "110.0.0.1"),
    ("n8.example", "2001:db8:2::1"),
    ("n8.example", "2001:db8::12"),
    ("n9.example", "fec0::1"),
    ("notexample.edu", "198.200.1.6"),
    ("notlookbehind.example", "192.168.1.6"),
    ("two words", "198.200.1.12"),
    ("v6b.example.com", "2001:db8:0:0:ffff::2"),
    ("v6c.example.com", "2001:db8:0:1::2"),
    ("white space", "192.168.1.9"),
    ("x.cut.example", "192.168.1.10"),
    ("x.leading-dot.example", "198.200.1.9"),
];

/// Clients whitelisted by 1.34 alone.
#[rustfmt::skip]
const IN_1_34: &[(&str, &str)] = &[
    ("host255.example", "10.255.255.255"),
    ("mail.example.com", "192.0.2.10"),
    ("n4.example", "10.0.1.5"),
    ("n4.example", "10.1.0.2"),
    ("n4.example", "10.1.0.77"),
    ("n5.example", "192.0.2.10"),
    ("n5.example", "192.0.200.7"),
    ("n6.example", "172.16.9.9"),
    ("n7.example", "10.200.1.1"),
];

/// Clients whitelisted by 1.37 alone.
#[rustfmt::skip]
const IN_1_37: &[(&str, &str)] = &[
    ("m.example", "::203.0.113.7"),
    ("n10.example", "2001:db8:77::9"),
    ("n8.example", "2001:DB8::1"),
    ("n8.example", "2001:db8:0:0:0:0:0:1"),
    ("n8.example", "2001:db8:1::"),
    ("n8.example", "2001:db8:1:ffff::1"),
    ("n9.example", "fe80::1"),
    ("n9.example", "febf::1"),
    ("unknown", "fe80::1"),
    ("v6.example.com", "2001:DB8:0:0:0:0:0:1"),
    ("v6d.example.com", "2001:db8:1::abcd"),
    ("v6e.example.com", "2001:0DB8:0001:0000:0000:0000:0000:ABCE"),
];

/// Recipients whitelisted.
#[rustfmt::skip]
const WANTED: &[&str] = &[
    "+e@atonly.example", "@atonly.example", "A.B+c@example.org", "PLUS+ed@example.org",
    "POSTMASTER@x.example", "a.b@example.org", "a@y.other.example", "abuse+a+b@x.example",
    "abuse@other.example", "joe+skip@q.example", "list@lists.other.example",
    "plus+ED+more@example.org", "postmaster+ext@x.example", "postmaster@anything.example",
    "regex-user77@q.example", "regexuser@q.example", "sales+x@other.example",
    "sales@other.example", "user2+ext@example.org", "user2@EXAMPLE.ORG", "user2@example.org",
    "user2@sub.example.org", "x@a.noat", "x@noat",
];

/// Recipients not whitelisted.
#[rustfmt::skip]
const UNWANTED: &[&str] = &[
    "", "USER@Example.ORG", "a@b@example.org", "a@xother.example", "aXb@example.org",
    "joe+skip2@q.example", "last@example.org", "noat", "nodomain", "plus@example.org",
    "postmaster+@x.example", "postmasterx@x.example", "two words", "user+ext@example.org",
    "user2@example.orgx", "x/cut@q", "x@[192.0.2.1]", "x@atonly.example", "xnoat",
    "xpostmaster@x.example", "xregexuser@q.example",
];

fn check_clients(compat: Compat, tables: &[(&[(&str, &str)], bool)]) {
    let mut list = ClientList::new(compat);
    let complaints = list.add_file("clients", CLIENTS);
    assert!(
        complaints.iter().all(|complaint| !complaint.fatal),
        "{complaints:?}"
    );
    assert_eq!(list.finish(), []);
    for (table, wanted) in tables {
        for (name, address) in *table {
            let by_name = list.match_name(name.as_bytes());
            let parsed = address.parse().ok();
            let found = by_name.or_else(|| list.match_address(address.as_bytes(), parsed));
            assert_eq!(found.is_some(), *wanted, "{name} [{address}]: {found:?}");
        }
    }
}

#[test]
fn clients_as_1_34_answered() {
    let tables = [
        (IN_BOTH, true),
        (IN_1_34, true),
        (IN_NONE, false),
        (IN_1_37, false),
    ];
    check_clients(Compat::Targrey134, &tables);
}

#[test]
fn clients_as_1_37_answered() {
    let tables = [
        (IN_BOTH, true),
        (IN_1_37, true),
        (IN_NONE, false),
        (IN_1_34, false),
    ];
    check_clients(Compat::Targrey137, &tables);
    check_clients(Compat::Postgrey137, &tables);
}

#[test]
fn recipients_as_the_original_answered() {
    let mut list = MailAddressList::of_recipients();
    let complaints = list.add_file("recipients", RECIPIENTS);
    assert!(
        complaints.iter().all(|complaint| !complaint.fatal),
        "{complaints:?}"
    );
    assert_eq!(list.finish(), []);
    for (table, wanted) in [(WANTED, true), (UNWANTED, false)] {
        for recipient in table {
            let found = list.match_address(recipient.as_bytes());
            assert_eq!(found.is_some(), wanted, "{recipient}: {found:?}");
        }
    }
}
