//! `explain`, as the program says it.

use std::fs;

use postgrey::policy::record::Database;

use super::{ctl, ctl_with_input, fill, records};

#[test]
fn the_program_says_why_and_what_comes_next() {
    let dir = tempfile::tempdir().unwrap();
    fill(
        dir.path(),
        &[
            (
                Database::Greylist,
                b"192.0.2.0/a@b/c@d",
                b"1700000000,1700000000,0,91",
            ),
            (Database::Clients, b"192.0.2.7", b"5,1700000000"),
        ],
    );
    let before = records(dir.path(), Database::Greylist);
    let explain = |words: &[&str]| {
        ctl(
            dir.path(),
            &[&["explain", "--at=1700000100"], words].concat(),
        )
        .ok()
    };
    let text = explain(&[
        "--client-address=192.0.2.91",
        "--sender=a@b",
        "--recipient=c@d",
        "--",
        "--retry-count=2",
    ]);
    assert_eq!(
        text,
        "client       unknown[192.0.2.91]\n\
         sender       <a@b>\n\
         recipient    <c@d>\n\
         stage        RCPT\n\
         time         2023-11-14 22:15:00\n\
         greylist     192.0.2.0/a@b/c@d: 1700000000,1700000000,0,91 (new, first seen 2023-11-14 22:13:20, \
         last 2023-11-14 22:13:20, count 0, expires 2023-11-16 22:13:20)\n\
         clients      192.0.2.91: no record\n\
         tarpit       192.0.2.91: no record\n\
         decision     greylisted: 200 of 300 s of the delay are left\n\
         answer       action=DEFER_IF_PERMIT Greylisted, see http://postgrey.schweikert.ch/help/d.html\n\
         log          action=greylist, reason=early-retry (200s missing), client_name=unknown, \
         client_address=192.0.2.91, sender=a@b, recipient=c@d\n\
         next         2023-11-14 22:18:20: action=DEFER_IF_PERMIT Greylisted, see http://postgrey.schweikert.ch/help/d.html\n\
         next         2023-11-14 22:23:20: action=DUNNO\n"
    );
    let text = explain(&["--client-address=192.0.2.7", "--client-name=mail.example"]);
    assert!(
        text.contains(
            "\ndecision     passes: the client is on the auto-whitelist (5 passes or more)\n"
        ),
        "{text}"
    );
    let text = explain(&[
        "--client-address=192.0.2.8",
        "--recipient=c@d",
        "--",
        "--targrey",
    ]);
    assert!(text.contains("\nanswer       action=SLEEP 125\n"), "{text}");
    assert!(
        text.contains("\nnext         if it waits, at DATA: action=DUNNO\n"),
        "{text}"
    );
    let text = explain(&[
        "--client-address=192.0.2.8",
        "--recipient=c@d",
        "--",
        "--delay=7200",
        "--retry-window=1h",
    ]);
    assert!(text.lines().count() > 5, "{text}");
    let text = explain(&["--client-address=nobody"]);
    assert!(
        text.contains("decision     not looked at: client_address is no address\n"),
        "{text}"
    );
    assert_eq!(records(dir.path(), Database::Greylist), before);
    assert!(
        ctl(dir.path(), &["explain"])
            .failed(1)
            .starts_with("ERROR: --client-address, ")
    );
}

#[test]
fn a_rule_of_a_whitelist_is_named_and_needs_no_database() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("clients");
    fs::write(
        &file,
        "# ours\n\n  /^mail[0-9]/  # all of them\n192.0.2.0/24\n",
    )
    .unwrap();
    let option = format!("--whitelist-clients={}", file.display());
    for (name, address, line) in [
        (
            "mail7.example",
            "192.0.2.1",
            "the client's name is on a whitelist, F line 3: /^mail[0-9]/  # all of them",
        ),
        (
            "x.example",
            "192.0.2.1",
            "the client's address is on a whitelist, F line 4: 192.0.2.0/24",
        ),
    ] {
        let words = [
            "explain",
            "--client-name",
            name,
            "--client-address",
            address,
            "--",
            &option,
        ];
        let text = ctl(dir.path(), &words).ok();
        let line = line.replace('F', file.to_str().unwrap());
        assert!(
            text.contains(&format!("\ndecision     passes: {line}\n")),
            "{text}"
        );
        assert!(text.contains("\nanswer       action=DUNNO\n"), "{text}");
    }
    let words = ["explain", "--client-address=198.51.100.1", "--", &option];
    assert!(
        ctl(dir.path(), &words)
            .failed(2)
            .contains("there is no database")
    );
}

#[test]
fn requests_and_lines_of_logs_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    fill(
        dir.path(),
        &[(Database::Clients, b"192.0.2.7", b"5,1700000000")],
    );
    let input = b"request=smtpd_access_policy\nprotocol_state=RCPT\nclient_name=n\nclient_address=192.0.2.7\n\
                  sender=a@b\nrecipient=c@d\npolicy_test_time=1700000100\n\n";
    let by_request = ctl_with_input(dir.path(), &["explain", "--request"], input).ok();
    assert!(
        by_request.contains("\ntime         2023-11-14 22:15:00\n"),
        "{by_request}"
    );
    let line = "Nov 14 22:15:00 mx postgrey[7]: action=greylist, reason=new, client_name=n, \
                client_address=192.0.2.7, sender=a@b, recipient=c@d";
    let by_line = ctl(dir.path(), &["explain", "--at=1700000100", "--log", line]).ok();
    assert_eq!(by_line, by_request);
    let words = ["explain", "--at=1700000100", "--log=-"];
    assert_eq!(
        ctl_with_input(dir.path(), &words, line.as_bytes()).ok(),
        by_request
    );
    ctl(dir.path(), &["explain", "--log=nothing"]).failed(2);
    ctl_with_input(dir.path(), &["explain", "--request"], b"").failed(2);
}

#[test]
fn the_rule_of_s25r_or_the_exception_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fill(
        dir.path(),
        &[(Database::Clients, b"192.0.2.7", b"5,1700000000")],
    );
    let file = dir.path().join("exceptions");
    fs::write(&file, "# wrongly judged\ndsl-1-2-3-4.example  ok\n").unwrap();
    let exceptions = format!("--s25r-except={}", file.display());
    let table = dir.path().join("table");
    fs::write(&table, "/^mx/ WARN\n!/dsl/ OK\n").unwrap();
    let in_place = format!("--s25r-except={}", table.display());
    let words = [
        "explain",
        "--client-address=192.0.2.1",
        "--client-name=dsl.example.org",
        "--",
        "--s25r",
        &in_place,
    ];
    let text = ctl(dir.path(), &words).ok();
    let judgement = format!(
        "\ns25r         suspicious: not let in by {} line 2: !/dsl/ OK\n",
        table.display()
    );
    assert!(text.contains(&judgement), "{text}");
    let by_exception = format!(
        "not suspicious: {} line 2: dsl-1-2-3-4.example  ok",
        file.display()
    );
    for (name, judgement, decision) in [
        (
            "mail.example.org",
            "not suspicious: no rule of s25r(7) fits the name",
            "passes: ",
        ),
        (
            "unknown",
            "suspicious: rule 0 of s25r(7) fits the name",
            "greylisted: ",
        ),
        (
            "[192.0.2.1]",
            "suspicious: rule 0 of s25r(7) fits the name",
            "greylisted: ",
        ),
        ("dsl-1-2-3-4.example", &by_exception, "passes: "),
    ] {
        let words = [
            "explain",
            "--client-address=192.0.2.1",
            "--client-name",
            name,
            "--",
            "--s25r",
            &exceptions,
        ];
        let text = ctl(dir.path(), &words).ok();
        assert!(
            text.contains(&format!("\ns25r         {judgement}\n")),
            "{text}"
        );
        assert!(
            text.contains(&format!("\ndecision     {decision}")),
            "{text}"
        );
    }
}

#[test]
fn what_only_the_server_remembers_is_said() {
    let dir = tempfile::tempdir().unwrap();
    fill(
        dir.path(),
        &[(Database::Tarpit, b"192.0.2.7", b"1700000000")],
    );
    let explain = |address: &str, options: &[&str]| {
        let client = format!("--client-address={address}");
        let words = ["explain", "--at=1700000100", &client, "--", "--targrey"];
        ctl(dir.path(), &[&words[..], options].concat()).ok()
    };
    let held = "passes if its mail was held for another recipient (--tarpit-per-message)";
    let further = "next         if it waits, further recipients of its mail: action=DUNNO\n";
    let one = ["--tarpit-per-message"];
    for (address, options, is_said) in [
        ("192.0.2.7", &one[..], [true, false]),
        ("192.0.2.8", &one, [true, true]),
        ("192.0.2.7", &[], [false, false]),
        ("192.0.2.8", &[], [false, false]),
    ] {
        let text = explain(address, options);
        let own = [held, further].map(|part| text.contains(part));
        assert_eq!(own, is_said, "{address} {options:?}: {text}");
    }
    // What is counted for --max-new, too, where it is asked.
    let limit = "; recorded unless its client has had 7 new ones in this hour (--max-new)";
    fill(
        dir.path(),
        &[(
            Database::Greylist,
            b"192.0.2.0/a@example.com/b@example.org",
            b"1700000090,1700000090,0,7",
        )],
    );
    let known = ["--sender=a@example.com", "--recipient=b@example.org"];
    for (address, asked, option, is_said) in [
        // In the tarpit and new; in the tarpit and known; new there.
        ("192.0.2.7", &[][..], "--max-new=7", true),
        ("192.0.2.7", &known, "--max-new=7", false),
        ("192.0.2.8", &known, "--max-new=7", true),
        ("192.0.2.8", &[], "--max-new=0", false),
    ] {
        let client = format!("--client-address={address}");
        let words = ["explain", "--at=1700000100", &client];
        let words = [&words[..], asked, &["--", "--targrey", option]].concat();
        let text = ctl(dir.path(), &words).ok();
        assert_eq!(text.contains(limit), is_said, "{words:?}: {text}");
    }
    // Not without the tarpit of taRgrey.
    let words = [
        "explain",
        "--client-address=192.0.2.7",
        "--",
        "--tarpit-per-message",
    ];
    assert!(!ctl(dir.path(), &words).ok().contains(held));
}
