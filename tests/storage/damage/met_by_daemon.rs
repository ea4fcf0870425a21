//! What a daemon does about damage: at its start, at a request, in its
//! maintenance.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use super::{
    Damage, PAGE, SOON, assert_set_aside, is_set_aside, print, sender, sound_dir, start, used_dir,
    watch,
};
use crate::server::PATIENCE;

#[test]
fn a_start_meets_damage() {
    for damage in Damage::ALL {
        let folder = used_dir();
        let db = folder.path().join("db");
        damage.befall(&db);
        let begun = Instant::now();
        let server = start(folder.path(), &[]);
        let served = begun.elapsed();
        let what = format!("{damage}, at a start, which takes {served:.2?}");
        let seen = watch(&mut || server.connect(), &|| is_set_aside(&db));
        print(&what, &seen, &server.log_text(), folder.path());
        assert_set_aside(&what, &server.log_text(), &db);
        assert!(served < SOON, "{what}");
    }
}

/// How the file comes to be damaged under a server.
#[derive(Clone, Copy, PartialEq)]
enum How {
    Changed,
    Replaced,
}

/// An empty file in its place is a database without records; and what LMDB has
/// read when it opened the file it does not read again.
fn is_noticed(damage: Damage, how: How) -> bool {
    match damage {
        Damage::Empty => how == How::Changed,
        Damage::OldFormat => how == How::Replaced,
        _ => true,
    }
}

#[test]
fn requests_meet_damage() {
    for damage in Damage::ALL {
        for how in [How::Changed, How::Replaced] {
            if damage == Damage::Directory && how == How::Changed {
                continue;
            }
            let folder = sound_dir();
            let db = folder.path().join("db");
            let mut server = start(folder.path(), &[]);
            watch(&mut || server.connect(), &|| true);
            let what = match how {
                How::Changed => format!("{damage}, changed while a server runs"),
                How::Replaced => format!("{damage}, put in its place while a server runs"),
            };
            match how {
                How::Changed => damage.change_in_place(&db),
                How::Replaced => damage.replace(&db),
            }
            let is_noticed = is_noticed(damage, how);
            let is_settled = || !is_noticed || is_set_aside(&db);
            let seen = watch(&mut || server.connect(), &is_settled);
            print(&what, &seen, &server.log_text(), folder.path());
            // A worker that had not opened it before notices the old format.
            if is_noticed || (damage == Damage::OldFormat && is_set_aside(&db)) {
                assert_set_aside(&what, &server.log_text(), &db);
                continue;
            }
            assert!(!is_set_aside(&db), "{what}");
            assert!(server.stop().success());
            server.start_again();
            let is_damaged = damage == Damage::OldFormat;
            let is_settled = || !is_damaged || is_set_aside(&db);
            let seen = watch(&mut || server.connect(), &is_settled);
            let what = format!("{what}, at the next start");
            print(&what, &seen, &server.log_text(), folder.path());
            assert_eq!(is_set_aside(&db), is_damaged, "{what}");
        }
    }
}

/// Puts zeros in the place of every page with one of the records in the middle:
/// requests for others do not come there.
fn zero_leaves(db: &Path) {
    let path = db.join("data.mdb");
    let file = fs::File::options().write(true).open(&path).unwrap();
    let octets = fs::read(&path).unwrap();
    for (number, page) in octets.chunks(PAGE).enumerate() {
        let has = |text: &[u8]| page.windows(text.len()).any(|window| window == text);
        if (0..10).any(|tens| has(format!("/n020{tens}").as_bytes())) {
            let offset = (number * PAGE) as u64;
            file.write_all_at(&[0; PAGE], offset).unwrap();
        }
    }
}

#[test]
fn the_maintenance_meets_damage() {
    let folder = sound_dir();
    let db = folder.path().join("db");
    let server = start(folder.path(), &["--db-size=1M"]);
    let mut client = server.connect();
    zero_leaves(&db);
    // A full map makes it begin.
    let begun = Instant::now();
    for number in 0.. {
        let sender = format!("{}{}", "x".repeat(300), sender(number));
        let answer = client.ask(&[("client_address", "203.0.113.9"), ("sender", &sender)]);
        let is_one_of_both = answer == "DUNNO" || answer.starts_with("DEFER_IF_PERMIT");
        assert!(is_one_of_both, "{answer}");
        if is_set_aside(&db) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{}", server.log_text());
    }
    let seen = watch(&mut || server.connect(), &|| true);
    let what = "zeroed leaves, met by the maintenance";
    let log = server.log_text();
    print(what, &seen, &log, folder.path());
    assert_set_aside(what, &log, &db);
    assert!(
        log.contains("cleaning up old entries...\ndamaged: "),
        "{log}"
    );
}
