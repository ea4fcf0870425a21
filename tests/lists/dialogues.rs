//! What is asked in each dialogue, and what comes of it.

pub const START: u64 = 1_700_000_000;
pub const HOUR: u64 = 3600;

const GREY: &str = "DEFER_IF_PERMIT later";
const SLEEP: &str = "SLEEP 125";
const HEADER: &str = "PREPEND X-Waited";
pub const DUNNO: &str = "DUNNO";

/// Files by name, and their content.
pub type Files = &'static [(&'static str, &'static str)];

/// A step: seconds since the start, the client's name and address, sender, recipient,
/// stage, reply and the line of the log as far as its reason; `""` for none.
#[rustfmt::skip]
pub type Step = (u64, &'static str, &'static str, &'static str, &'static str, &'static str, &'static str, &'static str);

/// A dialogue: options (a file by its name), files, steps, and the keys of the
/// auto-whitelist and the tarpit that are left.
pub struct Dialogue {
    pub name: &'static str,
    pub options: &'static [&'static str],
    pub files: Files,
    pub steps: &'static [Step],
    pub clients: &'static [&'static str],
    pub tarpit: &'static [&'static str],
}

const SENDERS: Files = &[
    (
        "--whitelist-senders",
        "alice@example.com\nfriend.example\nbounces@\n<>\n",
    ),
    ("--whitelist-recipients", "postmaster@\n"),
    ("--whitelist-clients", "white.example\n"),
];
const OPTED_IN: Files = &[
    (
        "--greylist-recipients",
        "a@example.org\nopted.example\nroot@\n",
    ),
    ("--whitelist-recipients", "root@\n"),
];
const SUSPECTS: Files = &[
    (
        "--suspect-clients",
        "bulk.example\n198.51.100.0/24\n2001:db8::7\n",
    ),
    ("--whitelist-clients", "good.bulk.example\n"),
    ("--whitelist-recipients", "root@\n"),
    ("--whitelist-senders", "friend@example.com\n"),
];

pub const SENDER: &str = "action=pass, reason=sender whitelist";
pub const NOT_IN: &str = "action=pass, reason=recipient not opted in";
const NEW: &str = "action=greylist, reason=new";
const FOUND: &str = "action=pass, reason=triplet found";
const AWL: &str = "action=pass, reason=client AWL";
const CLIENT: &str = "action=pass, reason=client whitelist";
const RECIPIENT: &str = "action=pass, reason=recipient whitelist";
const S25R: &str = "action=pass, reason=not S25R";

const A: &str = "192.0.2.7";
const B: &str = "203.0.113.5";
const S: &str = "198.51.100.9";
const T: &str = "198.51.100.10";

#[rustfmt::skip]
pub const DIALOGUES: &[Dialogue] = &[
    Dialogue {
        name: "senders", options: &[], files: SENDERS,
        steps: &[
            (0, "unknown", A, "alice@example.com", "u@x.example", "RCPT", DUNNO, SENDER),
            (0, "unknown", A, "Alice+list@EXAMPLE.com", "u@x.example", "RCPT", DUNNO, SENDER),
            (0, "unknown", A, "prvs=0123456789=alice@example.com", "u@x.example", "RCPT", DUNNO, SENDER),
            (0, "unknown", A, "x@mail.friend.example", "u@x.example", "RCPT", DUNNO, SENDER),
            (0, "unknown", A, "bounces+u=x.example@lists.example", "u@x.example", "RCPT", DUNNO, SENDER),
            (0, "unknown", A, "", "u@x.example", "RCPT", DUNNO, SENDER),
            (0, "unknown", A, "bob@example.com", "u@x.example", "RCPT", GREY, NEW),
            (0, "unknown", A, "x@notfriend.example", "u@x.example", "RCPT", GREY, NEW),
            // Whatever comes before it has its own reason.
            (0, "mx.white.example", A, "", "u@x.example", "RCPT", DUNNO, CLIENT),
            (0, "unknown", A, "", "postmaster@x.example", "RCPT", DUNNO, RECIPIENT),
            (300, "unknown", A, "bob@example.com", "u@x.example", "RCPT", HEADER, FOUND),
        ],
        clients: &[A], tarpit: &[],
    },
    Dialogue {
        name: "senders with the tarpit", options: &["--targrey"], files: SENDERS,
        steps: &[
            (0, "unknown", A, "", "u@x.example", "RCPT", DUNNO, SENDER),
            (0, "unknown", A, "", "v@x.example", "RCPT", DUNNO, SENDER),
            // Of several recipients: the sender is known all the same.
            (1, "unknown", A, "", "", "DATA", DUNNO, SENDER),
            (2, "unknown", B, "bob@example.com", "u@x.example", "RCPT", SLEEP, ""),
            // It does not take the client out of the tarpit, nor count.
            (3, "unknown", B, "alice@example.com", "", "DATA", DUNNO, SENDER),
        ],
        clients: &[], tarpit: &[B],
    },
    Dialogue {
        name: "opted in", options: &[], files: OPTED_IN,
        steps: &[
            (0, "unknown", A, "x@y.example", "a@example.org", "RCPT", GREY, NEW),
            (0, "unknown", A, "x@y.example", "A+z@example.org", "RCPT", GREY, NEW),
            (0, "unknown", A, "x@y.example", "b@example.org", "RCPT", DUNNO, NOT_IN),
            (0, "unknown", A, "x@y.example", "b@sub.opted.example", "RCPT", GREY, NEW),
            // A whitelist of recipients comes first.
            (0, "unknown", A, "x@y.example", "root@example.org", "RCPT", DUNNO, RECIPIENT),
            // No recipient: nobody asks the list.
            (0, "unknown", A, "x@y.example", "", "RCPT", GREY, NEW),
            (300, "unknown", A, "x@y.example", "a@example.org", "RCPT", HEADER, FOUND),
            (300, "unknown", A, "x@y.example", "b@example.org", "RCPT", DUNNO, NOT_IN),
        ],
        clients: &[A], tarpit: &[],
    },
    Dialogue {
        name: "opted in, with the tarpit", options: &["--targrey", "--auto-whitelist-clients=2"], files: OPTED_IN,
        steps: &[
            // None of two, three times: nothing comes of it.
            (0, "unknown", A, "x@y.example", "b@example.org", "RCPT", DUNNO, NOT_IN),
            (0, "unknown", A, "x@y.example", "c@example.org", "RCPT", DUNNO, NOT_IN),
            (0, "unknown", A, "x@y.example", "", "DATA", DUNNO, ""),
            (2 * HOUR, "unknown", A, "x@y.example", "", "DATA", DUNNO, ""),
            (4 * HOUR, "unknown", A, "x@y.example", "", "DATA", DUNNO, ""),
            // One that is not, and DATA names it.
            (4 * HOUR, "unknown", A, "x@y.example", "b@example.org", "DATA", DUNNO, NOT_IN),
            (5 * HOUR, "unknown", A, "x@y.example", "a@example.org", "RCPT", SLEEP, ""),
            // One of two: who has waited is out of the tarpit, and it counts.
            (0, "unknown", B, "x@y.example", "a@example.org", "RCPT", SLEEP, ""),
            (125, "unknown", B, "x@y.example", "b@example.org", "RCPT", DUNNO, NOT_IN),
            (125, "unknown", B, "x@y.example", "", "DATA", DUNNO, ""),
            // One that is: DATA names it.
            (2 * HOUR, "unknown", B, "z@y.example", "a@example.org", "RCPT", SLEEP, ""),
            (2 * HOUR + 125, "unknown", B, "z@y.example", "a@example.org", "DATA", DUNNO, "tarpit whitelisted: unknown[203.0.113.5]"),
            (3 * HOUR, "unknown", B, "w@y.example", "a@example.org", "RCPT", DUNNO, AWL),
            (3 * HOUR, "unknown", B, "w@y.example", "", "DATA", DUNNO, AWL),
        ],
        clients: &[B], tarpit: &[A],
    },
    Dialogue {
        name: "suspects", options: &["--auto-whitelist-clients=1", "--retry-count=1"], files: SUSPECTS,
        steps: &[
            // By address; another client comes to the auto-whitelist by the same.
            (0, "unknown", S, "a@y.example", "u@x.example", "RCPT", GREY, NEW),
            (300, "unknown", S, "a@y.example", "u@x.example", "RCPT", HEADER, FOUND),
            (2 * HOUR, "unknown", S, "b@y.example", "u@x.example", "RCPT", GREY, NEW),
            (2 * HOUR + 300, "unknown", S, "b@y.example", "u@x.example", "RCPT", HEADER, FOUND),
            (4 * HOUR, "unknown", S, "c@y.example", "u@x.example", "RCPT", GREY, NEW),
            (4 * HOUR, "unknown", S, "b@y.example", "u@x.example", "RCPT", DUNNO, FOUND),
            // A neighbour has his own triplets.
            (4 * HOUR, "unknown", T, "b@y.example", "u@x.example", "RCPT", GREY, NEW),
            (0, "unknown", A, "a@y.example", "u@x.example", "RCPT", GREY, NEW),
            (300, "unknown", A, "a@y.example", "u@x.example", "RCPT", HEADER, "whitelisted: unknown[192.0.2.7]"),
            (2 * HOUR, "unknown", A, "b@y.example", "u@x.example", "RCPT", DUNNO, AWL),
            // By name: what the auto-whitelist has of the address does not count.
            (2 * HOUR, "mx.BULK.example", A, "b@y.example", "u@x.example", "RCPT", GREY, NEW),
            // What is whitelisted passes.
            (2 * HOUR, "mx.good.bulk.example", S, "b@y.example", "u@x.example", "RCPT", DUNNO, CLIENT),
            (2 * HOUR, "mx.bulk.example", S, "b@y.example", "root@x.example", "RCPT", DUNNO, RECIPIENT),
            (2 * HOUR, "mx.bulk.example", S, "friend@example.com", "u@x.example", "RCPT", DUNNO, SENDER),
        ],
        clients: &[A], tarpit: &[],
    },
    Dialogue {
        name: "suspects, with everything", options: &[
            "--auto-whitelist-clients=1", "--targrey", "--s25r", "--lookup-by-domain", "--pool-domains=/dev/null",
        ],
        files: SUSPECTS,
        steps: &[
            // S25R lets a name such as this pass; not that of a suspect.
            (0, "mx.example.com", A, "a@y.example", "u@x.example", "RCPT", DUNNO, S25R),
            (0, "mx.bulk.example", A, "a@y.example", "u@x.example", "RCPT", SLEEP, ""),
            // Who waits passes, and nothing is counted.
            (125, "mx.bulk.example", A, "a@y.example", "u@x.example", "DATA", DUNNO, ""),
            (2 * HOUR, "mx.bulk.example", A, "b@y.example", "u@x.example", "RCPT", SLEEP, ""),
            (2 * HOUR, "mx.bulk.example", A, "c@y.example", "u@x.example", "RCPT", GREY, NEW),
            // Another server of the same domain is another client.
            (2 * HOUR, "mx.bulk.example", B, "b@y.example", "u@x.example", "RCPT", SLEEP, ""),
            (3 * HOUR, "mx.bulk.example", A, "c@y.example", "u@x.example", "RCPT", HEADER, FOUND),
            (3 * HOUR, "mx.bulk.example", B, "c@y.example", "u@x.example", "RCPT", GREY, NEW),
            (9 * HOUR, "mx.bulk.example", A, "d@y.example", "u@x.example", "RCPT", GREY, NEW),
        ],
        clients: &[], tarpit: &[A, B],
    },
];
