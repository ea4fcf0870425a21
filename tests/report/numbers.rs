//! The shapes of the summary: columns, CSV, JSON.

use super::{report, summary};

/// A log of some hours with two periods of each kind.
fn log() -> String {
    let mut log = String::new();
    for (time, rest) in [
        (
            "2026-11-22T10:00:00Z",
            "action=greylist, reason=new, client_name=mail-a.google.com, client_address=192.0.2.1, sender=a@one.example, recipient=r@here.example",
        ),
        (
            "2026-11-22T10:06:40Z",
            "action=pass, reason=triplet found, delay=400, client_name=mail-a.google.com, client_address=192.0.2.1, sender=a@one.example, recipient=r@here.example",
        ),
        (
            "2026-11-23T11:00:00Z",
            "action=greylist, reason=new, client_name=x.example, client_address=198.51.100.1, recipient=r@here.example",
        ),
        (
            "2026-11-23T11:00:01Z",
            "action=pass, reason=a new one, client_name=x.example, client_address=198.51.100.2, sender=b@b.example, recipient=r@here.example",
        ),
    ] {
        log.push_str(&format!("{time} mx postgrey[9]: {rest}\n"));
    }
    log
}

#[test]
fn the_summary_in_columns() {
    let expected = "\
4 requests, 2026-11-22 10:00:00 to 2026-11-23 11:00:01

  REQUESTS       %  ACTION     REASON
         1    25.0  pass       a new one
         1    25.0  pass       triplet found
         2    50.0  greylist   new

DAY             PASS  GREYLIST    TARPIT    OTHER  CLIENTS  TRIPLETS
2026-11-22         1         1         0        0        1         1
2026-11-23         1         1         0        0        2         2
total              2         2         0        0        3         3

Triplets put off, how many came back and passed, and after how long;
clients held in the tarpit; clients put on the auto-whitelist:

DAY        PUT OFF    BACK     %    P50    P90    P99   HELD WAITED   AWL
2026-11-22       1       1 100.0  6m40s  6m40s  6m40s      0      0     0
2026-11-23       1       0   0.0      -      -      -      0      0     0
total            2       1  50.0  6m40s  6m40s  6m40s      0      0     0

DELAYED CLIENTS                           NEVER CLIENTS
      1 192.0.2.1                             1 198.51.100.1

DELAYED NETWORKS                          NEVER NETWORKS
      1 192.0.2.0                             1 198.51.100.0

DELAYED SENDER DOMAINS                    NEVER SENDER DOMAINS
      1 one.example                           1 <>

DELAYED RECIPIENT DOMAINS                 NEVER RECIPIENT DOMAINS
      1 here.example                          1 here.example

";
    let dir = tempfile::tempdir().unwrap();
    let text = report(
        &["--summary", "--dbdir", dir.path().to_str().unwrap()],
        log().as_bytes(),
    )
    .quiet();
    assert!(text.starts_with(expected), "{text}");
    assert!(
        text.lines()
            .all(|line| line.len() <= 80 || line.starts_with("Note"))
    );
}

#[test]
fn the_summary_as_csv() {
    let text = report(&["--summary", "--csv", "--by=hour"], log().as_bytes()).quiet();
    assert_eq!(
        text,
        "period,start,requests,clients,triplets,put_off,came_back,delay_p50,delay_p90,delay_p99,held,waited,gave_up,auto_whitelisted,broken_off,pass: a new one,pass: triplet found,greylist: new\n\
         2026-11-22 10h,1795341600,2,1,1,1,1,400,400,400,0,0,0,0,0,0,1,1\n\
         2026-11-23 11h,1795431600,2,2,2,1,0,,,,0,0,0,0,0,1,0,1\n"
    );
}

#[test]
fn weeks_begin_on_monday() {
    let found = summary(&["--by=week"], log().as_bytes());
    let periods = found["periods"].as_array().unwrap();
    let names: Vec<&str> = periods
        .iter()
        .map(|row| row["period"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["2026-11-16", "2026-11-23"]);
}

#[test]
fn large_senders_are_named_for_the_whitelist() {
    let dir = tempfile::tempdir().unwrap();
    let pools = dir.path().join("pools");
    std::fs::write(&pools, "google.com\n").unwrap();
    let options = format!("--pool-domains={}\n--inet=1\n", pools.display());
    std::fs::write(dir.path().join("postgrey.options"), options).unwrap();
    let words = ["--dbdir", dir.path().to_str().unwrap()];
    let found = summary(&words, log().as_bytes());
    assert_eq!(
        found["whitelist_candidates"],
        serde_json::json!([{"domain": "google.com", "triplets_delayed": 1, "clients": 1, "delay_median": 400}])
    );
    let text = report(&["--summary", words[0], words[1]], log().as_bytes()).quiet();
    let line =
        "google.com               # 1 triplets of 1 clients delayed, half of them 6m40s or more";
    assert!(text.contains(&format!("\n{line}\n")), "{text}");
    // The server takes the line.
    let list = dir.path().join("whitelist");
    std::fs::write(&list, format!("{line}\n")).unwrap();
    let mut clients =
        postgrey::policy::whitelist::ClientList::new(postgrey::policy::rules::Compat::Targrey137);
    let complaints = clients.add_file("list", &std::fs::read(&list).unwrap());
    assert!(complaints.is_empty(), "{complaints:?}");
    assert!(clients.finish().is_empty());
}
