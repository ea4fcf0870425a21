//! Lists that options name: what postgreyctl says of them, and does by them.

use postgrey::policy::record::Database;

use super::common_server::{Server, test_dir, wait_until};
use super::{ctl, fill, keys_of};

/// Options that name lists, with lists that the mails here stand in, or not.
pub const LISTS: [(&str, &[&str]); 4] = [
    (
        "whitelist-clients",
        &["mx.example.com\n", "other.example\n"],
    ),
    (
        "whitelist-senders",
        &[
            "alice@example.net\n",
            "<>\n",
            "/^list-\\d+@/\n",
            "other.example\n",
        ],
    ),
    (
        "greylist-recipients",
        &[
            "bob@example.org\n",
            "example.org\n",
            "carol@\n",
            "other.example\n",
        ],
    ),
    (
        "suspect-clients",
        &[
            "192.0.2.7\n",
            "google.com\n192.0.2.0/24\n",
            "unknown\nmx.example.com\n",
            "2001:db8:1:2::7\n",
            "other.example\n",
        ],
    ),
];

#[test]
fn a_suspect_client_is_known_by_its_address_and_not_added() {
    let dir = tempfile::tempdir().unwrap();
    let own = b"192.0.2.7/32/a@b/c@d";
    fill(
        dir.path(),
        &[
            (Database::Greylist, own, b"1000,1000,0"),
            (Database::Greylist, b"192.0.2.0/a@b/c@d", b"1000,1000,0,9"),
        ],
    );
    let list = dir.path().join("suspects");
    std::fs::write(&list, "192.0.2.7\nbulk.example\n").unwrap();
    let option = format!("--suspect-clients={}", list.display());
    let more = [
        "--",
        &option,
        "--lookup-by-domain",
        "--pool-domains=/dev/null",
    ];
    let run = |words: &[&str]| ctl(dir.path(), &[words, &more].concat());
    let said = run(&["add", "client", "192.0.2.7"]).failed(2);
    let why = format!(
        "ERROR: 192.0.2.7 is suspect, and never on the auto-whitelist: {} line 1\n",
        list.display()
    );
    assert_eq!(said, why);
    assert!(keys_of(dir.path(), Database::Clients).is_empty());
    run(&["add", "client", "192.0.2.8"]).ok();
    let said = run(&["delete", "triplet", "192.0.2.7", "a@b", "c@d"]).ok();
    assert!(said.contains("192.0.2.7/32/a@b/c@d"), "{said}");
    // By its name, before its domain.
    let name = "--client-name=mx.bulk.example";
    let said = run(&["pass", name, "a@b", "c@d", "192.0.2.66"]).ok();
    assert_eq!(said, "passes at its next try: 192.0.2.66/32/a@b/c@d\n");
    // Of any client.
    let said = run(&["pass", "a@b", "c@d"]).ok();
    assert_eq!(said.lines().count(), 2, "{said}");
    let said = run(&["pass", name, "a@b", "c@d"]).ok();
    assert_eq!(said.lines().count(), 2, "{said}");
    let said = run(&["forget", "192.0.2.66"]).ok();
    assert!(said.contains("192.0.2.66/32/a@b/c@d"), "{said}");
    let left = [b"192.0.2.0/a@b/c@d"];
    assert_eq!(keys_of(dir.path(), Database::Greylist), left);
}

#[test]
fn the_lists_that_decide_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let awl = (Database::Clients, &b"192.0.2.7"[..], &b"9,1700000000"[..]);
    fill(dir.path(), &[awl]);
    let list = |option: &str, text: &str| {
        let path = dir.path().join(option);
        std::fs::write(&path, text).unwrap();
        (
            format!("--{option}={}", path.display()),
            path.display().to_string(),
        )
    };
    let (senders, senders_file) = list("whitelist-senders", "alice@b.example\n<> # reports\n");
    let (opted_in, opted_in_file) = list("greylist-recipients", "c.example\n");
    let (suspects, suspects_file) = list("suspect-clients", "# bulk\n/^mx[0-9]/\n192.0.2.9\n");
    let options = [
        "--",
        &senders,
        &opted_in,
        &suspects,
        "--s25r",
        "--lookup-by-domain",
    ];
    let options = [&options[..], &["--pool-domains=/dev/null"]].concat();
    let explain = |words: &[&str]| {
        let words = [&["explain", "--at=1700000100"], words, &options].concat();
        ctl(dir.path(), &words).ok()
    };
    let has = |text: &str, lines: &[String]| {
        for line in lines {
            assert!(text.lines().any(|own| own == line), "{line}\n{text}");
        }
    };
    let client = "--client-address=192.0.2.7";
    let text = explain(&[client, "--sender=<>", "--recipient=u@c.example"]);
    has(&text, &[
        format!("opted in     {opted_in_file} line 1: c.example"),
        format!("decision     passes: the sender is on a whitelist, {senders_file} line 2: <> # reports"),
        "log          action=pass, reason=sender whitelist, client_name=unknown, client_address=192.0.2.7, recipient=u@c.example".into(),
    ]);
    let text = explain(&[client, "--sender=x@b.example", "--recipient=u@d.example"]);
    has(&text, &[
        "decision     passes: the recipient is not among those that are greylisted (--greylist-recipients)".into(),
        "answer       action=DUNNO".into(),
    ]);
    assert!(!text.contains("opted in  "), "{text}");
    // On the auto-whitelist, of a pool, and passed by S25R: all that counts for others.
    let name = "--client-name=mx1.example.com";
    let text = explain(&[
        client,
        name,
        "--sender=x@b.example",
        "--recipient=u@c.example",
    ]);
    has(
        &text,
        &[
            format!("suspect      {suspects_file} line 2: /^mx[0-9]/"),
            "known by     its whole address, and not on the auto-whitelist".into(),
            "greylist     192.0.2.7/32/x@b.example/u@c.example: no record".into(),
            "decision     greylisted: first seen in this second".into(),
        ],
    );
    assert!(!text.contains("\nclients  "), "{text}");
    let name = "--client-name=mail.example.com";
    let text = explain(&[
        client,
        name,
        "--sender=x@b.example",
        "--recipient=u@c.example",
    ]);
    assert!(
        text.contains("\ndecision     passes: the client name does not look"),
        "{text}"
    );
    assert!(!text.contains("\nsuspect "), "{text}");
}

/// By what a client is known is told also where a list decides before it is looked for.
#[test]
fn the_domain_of_a_client_on_a_list_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("clients");
    std::fs::write(&list, "mx.example.com\n").unwrap();
    let option = format!("--whitelist-clients={}", list.display());
    let words = [
        "explain",
        "--client-address=192.0.2.7",
        "--client-name=mx.example.com",
        "--",
        "--lookup-by-domain",
        "--pool-domains=/dev/null",
        &option,
    ];
    let text = ctl(dir.path(), &words).ok();
    let told = "\nknown by     example.com: the name was given to a server\n";
    assert!(text.contains(told), "{text}");
}

/// One that has never been there was not changed; one that was removed was.
#[test]
fn a_list_that_is_missing_was_changed_if_it_was_there() {
    let dir = test_dir();
    let folder = dir.path().join("lists");
    std::fs::create_dir(&folder).unwrap();
    let (there, never) = (folder.join("there"), folder.join("never"));
    std::fs::write(&there, "a.example\n").unwrap();
    let words = [&there, &never].map(|path| format!("--whitelist-clients={}", path.display()));
    let server = Server::start(dir.path(), &[&words[0], &words[1]]);
    let explain = || ctl(&server.dbdir, &["explain", "--client-address=192.0.2.7"]).stderr;
    let missing = format!(
        "can't open {}: No such file or directory\n",
        never.display()
    );
    assert_eq!(explain(), missing);
    let told = format!(
        "{} was changed after the server has read it",
        there.display()
    );
    // Once the clock of the file system has gone on.
    wait_until("a removed list to be told", || {
        std::fs::write(&there, "").unwrap();
        std::fs::remove_file(&there).unwrap();
        explain().starts_with(&told)
    });
}

/// A list that was changed after the server has read it is named.
#[test]
fn a_changed_list_of_an_option_is_named() {
    let dir = test_dir();
    for option in [
        "whitelist-senders",
        "greylist-recipients",
        "suspect-clients",
    ] {
        let path = dir.path().join(option);
        std::fs::write(&path, "a.example\n").unwrap();
        let words = format!("--{option}={}", path.display());
        let server_dir = dir.path().join(format!("of-{option}"));
        std::fs::create_dir(&server_dir).unwrap();
        let server = Server::start(&server_dir, &[&words]);
        let explain = || ctl(&server.dbdir, &["explain", "--client-address=192.0.2.7"]);
        server.connect().ask(&[("recipient", "u@a.example")]);
        assert_eq!(explain().stderr, "", "{option}");
        let told = format!(
            "{} was changed after the server has read it",
            path.display()
        );
        wait_until("a changed list to be told", || {
            std::fs::write(&path, "b.example\n").unwrap();
            explain().stderr.starts_with(&told)
        });
    }
}
