//! A power cut between any two flushes.
//!
//! With `--sync=commit` whatever the disk makes of it is a database with every
//! answered request, but perhaps the last. With `--sync=none` it is what was
//! flushed last, or the mark is there: then an examination finds a sound database
//! in it, or sets it aside.

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use postgrey::policy::record::Database;
use postgrey::store::lmdb::LmdbStore;
use postgrey::store::lmdb::claim::lock_file;
use postgrey::store::lmdb::mark::is_marked;
use postgrey::store::verify::{Verdict, examine, verify_environment};
use postgrey::store::{ErrorKind, Store, StoreError};
use postgrey::sys::lock::{Claim, LockFile};
use postgrey::sys::process::{ChildResult, run_in_child};

use crate::images::{Album, Flushed, Image, lay};
use crate::random::{Random, number_from};
use crate::server::{Client, Server, open_store, records, test_dir, test_dir_in, wait_until};

/// Lives of a server: ended by a crash, in order, and by a crash again.
const LIVES: usize = 3;
/// Mixtures tried between two images.
const TRIES: usize = 8;

/// A sender, so long that not many records go on a page.
fn sender(count: usize) -> String {
    format!("n{count}x{}@s.example", "-".repeat(100))
}

fn key(count: usize) -> Vec<u8> {
    format!("192.0.2.0/{}/user@example.org", sender(count)).into()
}

/// One new triplet, after one that is known.
fn ask(client: &mut Client, count: usize) {
    for count in [count.div_ceil(2), count] {
        let answer = client.ask(&[("sender", &sender(count))]);
        assert!(answer.starts_with("DEFER_IF_PERMIT"), "{answer}");
    }
}

/// The images of a server that lives three times and is asked about so many
/// triplets; `None` without a C compiler.
fn live(sync: &str, number: usize) -> Option<Vec<Image>> {
    let folder = test_dir();
    let mut command = crate::preloaded(folder.path())?;
    let album = Album::new(folder.path(), &mut command);
    let mut server = Server::start_by(command, folder.path(), &["--quiet", sync]);
    for life in 0..LIVES {
        let mut client = server.connect();
        // What was not flushed is verified first.
        wait_until("greylisting", || {
            client.ask(&[("sender", "first@s.example")]) != "DUNNO"
        });
        for count in 1..=number / LIVES {
            let count = life * (number / LIVES) + count;
            ask(&mut client, count);
            album.note_answered(count);
            if sync == "--sync=none" {
                album.keep(&server, count);
            }
        }
        match life {
            1 => assert!(server.stop().success()),
            _ => server.kill_all(),
        }
        server.start_again();
        if life + 1 == LIVES {
            let mut client = server.connect();
            wait_until("greylisting", || {
                client.ask(&[("sender", "last@s.example")]) != "DUNNO"
            });
            assert!(server.stop().success());
        }
    }
    Some(album.images())
}

/// Does this in a process with one thread, as all that forks must be.
fn alone(work: impl FnOnce() -> String) -> String {
    let result = run_in_child(1200, || {
        catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            text.unwrap_or("a panic").to_owned()
        })
    });
    match result.unwrap() {
        ChildResult::Ok(said) => said,
        other => panic!("{other:?}"),
    }
}

/// Tries cuts between any two images; how often each was found that `judge`
/// names.
fn cut(images: &[Image], judge: impl Fn(&Path, usize, &str) -> &'static str) -> String {
    let seed = Random::choose_seed();
    let mut random = Random::new(seed);
    // Nothing here depends on a disk.
    let folder = test_dir_in(Path::new("/dev/shm"));
    let place = folder.path().join("image");
    let mut found = BTreeMap::new();
    for last in 0..images.len() - 1 {
        for _ in 0..TRIES {
            let percent = *random.pick(&[0, 3, 20, 100]);
            lay(&place, &mut random, images, last, percent);
            let what = format!("after image {last}, POSTGREY_SEED={seed}");
            // At most what was answered by then was promised.
            *found
                .entry(judge(&place, images[last + 1].answered, &what))
                .or_insert(0) += 1;
        }
    }
    let flushes = images.iter().filter(|i| i.flushed != Flushed::Nothing);
    format!(
        "{} flushes, power cuts {found:?} (POSTGREY_SEED={seed})",
        flushes.count()
    )
}

fn verify(place: &Path) -> Result<u64, StoreError> {
    verify_environment(&mut LmdbStore::new_reader(place))
}

/// Examines what lies there as a verifier does.
fn examine_claimed(place: &Path, has_failed_to_open: bool, what: &str) -> Verdict {
    let lock = LockFile::new(lock_file(place), 0o600);
    assert!(lock.try_lock(Claim::Commit).unwrap());
    examine(place, has_failed_to_open).unwrap_or_else(|error| panic!("{what}: {error}"))
}

/// The database verifies, the same twice, and takes a record; how many it had.
fn assert_usable(place: &Path, what: &str) -> u64 {
    let insert = |name: &[u8]| {
        let edited =
            open_store(place).edit(&[], &mut |all| all.put(Database::Clients, name, b"1,2"));
        edited.unwrap_or_else(|error| panic!("{what}: {error}"));
    };
    insert(b"first");
    let verified = verify(place);
    assert!(verified.is_ok(), "{what}: {verified:?}");
    assert_eq!(verify(place), verified, "{what}: the second time");
    insert(b"second");
    let both = verified.clone().unwrap() + 1;
    assert_eq!(verify(place), Ok(both), "{what}: with one more");
    both - 2
}

/// How many of the triplets that were answered are lost.
fn count_lost(place: &Path, answered: usize) -> usize {
    let held = records(place, Database::Greylist);
    (1..=answered)
        .filter(|&n| !held.contains_key(&key(n)))
        .count()
}

#[test]
fn a_power_cut_loses_at_most_the_last_answer() {
    let number = number_from("POSTGREY_POWER_CUTS", 60) as usize;
    let Some(images) = live("--sync=commit", number) else {
        return;
    };
    assert!(images.len() > 2 * number, "{} images", images.len());
    let said = alone(|| cut(&images, judge_flushed));
    println!("check: --sync=commit: {said}");
    assert!(
        said.contains("whole") && said.contains("the last answer lost"),
        "{said}"
    );
}

fn judge_flushed(place: &Path, answered: usize, what: &str) -> &'static str {
    assert!(!is_marked(place), "{what}");
    if !could_start(place, answered, what) {
        return "not made yet";
    }
    let lost = count_lost(place, answered);
    let has_lost_last = answered > 0 && count_lost(place, answered - 1) < lost;
    assert_eq!(lost, usize::from(has_lost_last), "{what}: of {answered}");
    match has_lost_last {
        true => "the last answer lost",
        false => "whole",
    }
}

/// Starts without a mark: false if there was no database before the first
/// answer.
fn could_start(place: &Path, answered: usize, what: &str) -> bool {
    let started = open_store(place).prepare();
    if let Err(error) = &started {
        assert_eq!(answered, 0, "{what}: {error}");
        assert_eq!(error.kind, ErrorKind::Damage, "{what}: {error}");
        examine_claimed(place, true, what);
    }
    assert_usable(place, what);
    started.is_ok()
}

#[test]
fn without_flushes_a_power_cut_leaves_a_sound_database_or_one_to_set_aside() {
    let number = number_from("POSTGREY_POWER_CUTS", 60) as usize;
    let Some(images) = live("--sync=none", number) else {
        return;
    };
    let verified = |image: &Image| image.has("data.mdb.next");
    assert!(images.iter().any(verified), "no verification was seen");
    let said = alone(|| cut(&images, judge_unflushed));
    println!("check: --sync=none: {said}");
    for verdict in ["flushed", "sound", "set aside"] {
        assert!(said.contains(verdict), "{said}");
    }
}

fn judge_unflushed(place: &Path, answered: usize, what: &str) -> &'static str {
    if !is_marked(place) {
        // Then no answer was given that the disk does not hold.
        let could_start = could_start(place, answered, what);
        assert_eq!(count_lost(place, answered), 0, "{what}: of {answered}");
        return match could_start {
            true => "flushed",
            false => "not made yet",
        };
    }
    let before = fs::read(place.join("data.mdb")).ok();
    let verdict = examine_claimed(place, false, what);
    assert!(!is_marked(place), "{what}");
    let number = assert_usable(place, what);
    match verdict {
        Verdict::Absent => "absent",
        Verdict::Sound(counted) => {
            assert_eq!(counted, number, "{what}");
            "sound"
        }
        Verdict::SetAside { kept, why } => {
            assert_eq!(number, 0, "{what}: {why}");
            assert!(fs::read(&kept).ok() == before, "{what}: {}", kept.display());
            "set aside"
        }
    }
}
