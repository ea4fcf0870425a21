//! `add`, `delete`, `forget` and `pass`, and that the server answers by them.

use postgrey::policy::record::Database;

use super::server::ask_now;
use super::{ctl, fill, keys_of, records, store};

const NOTHING: &[(Database, &[u8], &[u8])] = &[];

#[test]
fn an_added_client_passes() {
    for options in [
        &[][..],
        &["--compat=targrey-1.34"],
        &["--privacy"],
        &["--auto-whitelist-clients=2"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), NOTHING);
        assert!(ask_now(dir.path(), options, "2001:db8::7").starts_with("DEFER_IF_PERMIT"));
        let words = [&["add", "client", "2001:db8::7", "--"], options].concat();
        assert!(
            ctl(dir.path(), &words)
                .ok()
                .starts_with("added to clients: ")
        );
        assert_eq!(
            ask_now(dir.path(), options, "2001:db8::7"),
            "DUNNO",
            "{options:?}"
        );
        assert_ne!(ask_now(dir.path(), options, "2001:db8::8"), "DUNNO");
    }
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), &[(Database::Clients, b"192.0.2.1", b"77,100")]);
    ctl(dir.path(), &["add", "client", "192.0.2.1"]).ok();
    assert!(
        records(dir.path(), Database::Clients)[0]
            .1
            .starts_with(b"77,1")
    );
    let said = ctl(dir.path(), &["add", "client", "mail.example"]).failed(2);
    assert_eq!(said, NEEDS_OPTION);
    let older = [
        "add",
        "client",
        "mail.example",
        "--",
        "--compat=targrey-1.34",
    ];
    assert_eq!(ctl(dir.path(), &older).failed(2), NEEDS_OPTION);
}

const NEEDS_OPTION: &str =
    "ERROR: \"mail.example\" is no address, and a domain needs --lookup-by-domain\n";

#[test]
fn a_network_is_added_only_where_it_is_one_address() {
    for compat in ["targrey-1.37", "postgrey-1.37", "targrey-1.34"] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), NOTHING);
        let compat = format!("--compat={compat}");
        let add = |client| ctl(dir.path(), &["add", "client", client, "--", &compat]);
        for network in [
            "192.0.2.0/24",
            "2001:db8::/32",
            "2001:db8::/64",
            "192.0.2.7/33",
        ] {
            let said = add(network).failed(2);
            let start = format!("ERROR: \"{network}\" is a network, and each record");
            assert!(said.starts_with(&start), "{said}");
        }
        assert_eq!(records(dir.path(), Database::Clients), []);
        add("192.0.2.7/32").ok();
        assert_eq!(keys_of(dir.path(), Database::Clients), [b"192.0.2.7"]);
        assert_eq!(ask_now(dir.path(), &[&compat], "192.0.2.7"), "DUNNO");
        assert_ne!(ask_now(dir.path(), &[&compat], "192.0.2.8"), "DUNNO");
    }
}

#[test]
fn a_deleted_record_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    fill(
        dir.path(),
        &[
            (Database::Clients, b"2001:DB8:0:0:0:0:0:1", b"9,1"),
            (Database::Tarpit, b"2001:db8::1", b"1"),
            (Database::Greylist, b"192.0.2.0/list-#@b/c@d", b"1,2,3,4"),
            (Database::Greylist, b"192.0.2.0/\xfc/x", b"1,2,3,4"),
        ],
    );
    let said = ctl(dir.path(), &["delete", "client", "2001:db8::1"]).ok();
    assert_eq!(said, "deleted from clients: 2001:DB8:0:0:0:0:0:1 (9,1)\n");
    let again = ctl(dir.path(), &["delete", "client", "2001:db8::1"]).failed(1);
    assert_eq!(again, "there is no such record\n");
    ctl(dir.path(), &["delete", "tarpit", "2001:db8:0::1"]).ok();
    ctl(
        dir.path(),
        &["delete", "triplet", "192.0.2.9", "List-77@b", "C@d"],
    )
    .ok();
    ctl(
        dir.path(),
        &["delete", "--escape", "triplet", "192.0.2.0/\\fc/x"],
    )
    .ok();
    for database in Database::ALL {
        assert_eq!(records(dir.path(), database), []);
    }
    assert!(
        ctl(dir.path(), &["delete", "triplet", "a", "b"])
            .failed(1)
            .starts_with("Usage: ")
    );
}

#[test]
fn a_forgotten_client_leaves_its_neighbours_alone() {
    let dir = tempfile::tempdir().unwrap();
    fill(
        dir.path(),
        &[
            (Database::Clients, b"192.0.2.7", b"9,1"),
            (Database::Clients, b"192.0.2.70", b"9,1"),
            (Database::Tarpit, b"192.0.2.7", b"1"),
            (Database::Greylist, b"192.0.2.0/a/b", b"1,2,3,7"),
            (Database::Greylist, b"192.0.2.0/c/d", b"1,2,3,8"),
            (Database::Greylist, b"192.0.2.0/e/f", b"1,2,3"),
            (Database::Greylist, b"192.0.2.7/32/g/h", b"1,2,3"),
            (Database::Greylist, b"192.0.20.0/a/b", b"1,2,3,7"),
        ],
    );
    let said = ctl(dir.path(), &["forget", "192.0.2.7"]).ok();
    assert_eq!(said.lines().count(), 5, "{said}");
    let left = ["192.0.2.0/c/d", "192.0.20.0/a/b"].map(|key| key.as_bytes().to_vec());
    assert_eq!(keys_of(dir.path(), Database::Greylist), left);
    assert_eq!(keys_of(dir.path(), Database::Clients), [b"192.0.2.70"]);
    let again = ctl(dir.path(), &["forget", "192.0.2.7"]).failed(1);
    assert_eq!(again, "nothing is known about 192.0.2.7\n");
}

#[test]
fn a_triplet_passes_at_its_next_try() {
    for options in [
        &[][..],
        &["--retry-count=3", "--delay=3600"],
        &["--compat=postgrey-1.37"],
        &["--compat=targrey-1.34", "--targrey", "--retry-count=2"],
        &["--lookup-by-host"],
        &["--privacy"],
    ] {
        let dir = tempfile::tempdir().unwrap();
        fill(dir.path(), NOTHING);
        let unknown = ctl(dir.path(), &["pass", "a@b", "c@d"]).failed(1);
        assert!(unknown.starts_with("no client tried that yet"), "{unknown}");
        let words = [&["pass", "A@b", "c@d", "192.0.2.7", "--"], options].concat();
        ctl(dir.path(), &words).ok();
        assert_eq!(
            ask_now(dir.path(), options, "192.0.2.7"),
            "DUNNO",
            "{options:?}"
        );
        assert_ne!(
            ask_now(dir.path(), options, "198.51.100.7"),
            "DUNNO",
            "{options:?}"
        );
        let words = [&["pass", "a@b", "c@d", "--"], options].concat();
        if options == ["--privacy"] {
            assert!(ctl(dir.path(), &words).failed(2).contains("hashed"));
            continue;
        }
        ctl(dir.path(), &words).ok();
        assert_eq!(
            ask_now(dir.path(), options, "198.51.100.7"),
            "DUNNO",
            "{options:?}"
        );
    }
}

#[test]
fn an_edit_waits_for_a_commit_and_then_says_whose() {
    use postgrey::sys::lock::{Claim, LockFile};
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path(), NOTHING);
    let lock = LockFile::new(dir.path().join("postgrey.lock"), 0o600);
    assert!(lock.try_lock(Claim::Commit).unwrap());
    std::thread::scope(|scope| {
        let edit = scope.spawn(|| ctl(dir.path(), &["add", "client", "192.0.2.1"]));
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert!(!edit.is_finished());
        lock.unlock(Claim::Commit).unwrap();
        edit.join().unwrap().ok();
    });
    assert!(lock.try_lock(Claim::Commit).unwrap());
    let said = ctl(dir.path(), &["add", "client", "192.0.2.1"]).failed(2);
    let own = format!("process {} has been writing for 5 s\n", std::process::id());
    assert!(said.ends_with(&own), "{said}");
    drop(store(dir.path()));
}

#[test]
fn a_pool_is_added_listed_and_forgotten_by_its_domain() {
    let dir = tempfile::tempdir().unwrap();
    let triplet = b"example.com/a@b/c@d";
    fill(
        dir.path(),
        &[
            (Database::Greylist, triplet, b"1000,1000,0"),
            (Database::Greylist, b"192.0.2.0/a@b/c@d", b"1000,1000,0,7"),
        ],
    );
    let domain = ["--", "--lookup-by-domain", "--pool-domains=/dev/null"];
    let run = |words: &[&str]| ctl(dir.path(), &[words, &domain].concat());
    let said = run(&["add", "client", "Example.COM"]).ok();
    assert_eq!(said, "added to clients: example.com\n");
    let listed = run(&["list", "--json", "--client=example.com"]).ok();
    assert_eq!(listed.lines().count(), 2, "{listed}");
    // By its name a client is of the pool.
    let name = "--client-name=mx.example.com";
    let said = run(&["delete", name, "triplet", "192.0.2.7", "a@b", "c@d"]).ok();
    assert!(said.contains("example.com/a@b/c@d"), "{said}");
    run(&["pass", name, "a@b", "c@d", "192.0.2.7"]).ok();
    assert!(keys_of(dir.path(), Database::Greylist).contains(&triplet.to_vec()));
    let said = run(&["forget", "example.com"]).ok();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert_eq!(
        keys_of(dir.path(), Database::Greylist),
        [b"192.0.2.0/a@b/c@d"]
    );
    for more in [&["--privacy"][..], &[]] {
        let run = |words: &[&str]| ctl(dir.path(), &[words, &domain, more].concat());
        run(&["add", "client", "example.com"]).ok();
        run(&["delete", "client", "example.com"]).ok();
        assert!(keys_of(dir.path(), Database::Clients).is_empty());
    }
    for (name, why) in [
        (
            "mail.example.com",
            "\"mail.example.com\" is known as example.com: give that",
        ),
        ("co.uk", "\"co.uk\" is no domain below a public suffix"),
    ] {
        assert_eq!(
            run(&["add", "client", name]).failed(2),
            format!("ERROR: {why}\n")
        );
    }
    let pools = dir.path().join("pools");
    std::fs::write(&pools, "!example.com\n").unwrap();
    let option = format!("--pool-domains={}", pools.display());
    let words = [
        "add",
        "client",
        "example.com",
        "--",
        "--lookup-by-domain",
        &option,
    ];
    let said = ctl(dir.path(), &words).failed(2);
    assert!(said.contains("example.com is no pool: "), "{said}");
    let suspects = dir.path().join("suspects");
    std::fs::write(&suspects, "mx.example.org\nexample.com\n").unwrap();
    let option = format!("--suspect-clients={}", suspects.display());
    let run_suspect = |client: &str| {
        let more = [&domain[..], &[&option]].concat();
        ctl(
            dir.path(),
            &[&["add", "client", client], &more[..]].concat(),
        )
    };
    let said = run_suspect("example.org");
    assert_eq!(said.ok(), "added to clients: example.org\n");
    let said = run_suspect("example.com").failed(2);
    assert!(said.contains("example.com is suspect, and never"), "{said}");
    // Without the option a domain is no client.
    assert_eq!(ctl(dir.path(), &["add", "client", "example.com"]).status, 2);
}
