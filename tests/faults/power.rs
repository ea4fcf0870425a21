//! A power cut: the files of the database as they were at each flush, and what
//! a disk may make of the time between two flushes.
//!
//! What was written to a file since its last flush may be on the disk or not,
//! each page for itself, and so may new names since the last flush of the
//! directory. Whatever the mixture, what a start makes of it holds every
//! answered request; but perhaps the last, where there was no journal yet.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use postgrey::policy::record::Database;
use postgrey::store::copies::{is_marked, remove_mark};
use postgrey::store::rebuild::{rebuild, rebuilt_of};

use crate::random::{Random, number_from};
use crate::server::{Server, give_to_server, records, test_dir, wait_until};

const PAGE: usize = 4096;

/// The files of one moment.
struct Image {
    /// The file that was flushed; `None`: the directory.
    flushed: Option<u64>,
    /// Requests that were answered when the flush ended.
    answered: usize,
    /// The number of the file under each name.
    names: BTreeMap<String, u64>,
    /// The files by their numbers.
    files: BTreeMap<u64, Vec<u8>>,
}

impl Image {
    /// `None` if whoever wrote it was killed meanwhile.
    fn read(folder: &Path) -> Option<Image> {
        let index = fs::read_to_string(folder.join("index")).ok()?;
        let mut lines = index.lines().map(|line| line.split_once(' ').unwrap());
        let (flushed, answered) = lines.next().unwrap();
        let names: BTreeMap<String, u64> = lines
            .map(|(name, number)| (name.to_string(), number.parse().unwrap()))
            .collect();
        let content = |&number: &u64| (number, fs::read(folder.join(number.to_string())).unwrap());
        Some(Image {
            flushed: flushed.parse().ok(),
            answered: answered.trim().parse().unwrap(),
            files: names.values().map(content).collect(),
            names,
        })
    }
}

#[test]
fn a_power_cut_loses_at_most_the_last_answer() {
    let folder = test_dir();
    let Some(mut command) = crate::preloaded(folder.path()) else {
        return;
    };
    let images_in = folder.path().join("images");
    fs::create_dir(&images_in).unwrap();
    give_to_server(&images_in);
    fs::set_permissions(&images_in, fs::Permissions::from_mode(0o777)).unwrap();
    command
        .env("POSTGREY_IMAGES", &images_in)
        .env("POSTGREY_DBDIR", folder.path().join("db"));
    let mut server = Server::start_by(command, folder.path(), &["--quiet"]);
    let number = number_from("POSTGREY_POWER_CUTS", 60) as usize;
    const LIVES: usize = 3;
    for life in 0..LIVES {
        let mut client = server.connect();
        for count in 1..=number / LIVES {
            let count = life * (number / LIVES) + count;
            let answer = client.ask(&[("sender", &sender(count))]);
            assert!(answer.starts_with("DEFER_IF_PERMIT"), "{answer}");
            // As a whole: the server may be reading it.
            let new = images_in.join("answered.new");
            fs::write(&new, count.to_string()).unwrap();
            fs::rename(&new, images_in.join("answered")).unwrap();
            // Half of them while the journal begins, half behind it.
            if count % (number / LIVES) == number / LIVES / 2 {
                wait_until("the journal to hold", || is_marked(&server.dbdir));
            }
        }
        if life == 0 {
            server.kill_all();
        } else {
            assert!(server.stop().success());
        }
        if life + 1 < LIVES {
            server.start_again();
        }
    }
    let images: Vec<Image> = (0..)
        .map(|number| images_in.join(format!("image.{number:06}")))
        .take_while(|folder| folder.exists())
        .filter_map(|folder| Image::read(&folder))
        .collect();
    assert!(images.len() >= number, "{} images", images.len());
    let seed = Random::choose_seed();
    let mut random = Random::new(seed);
    let mut tried = BTreeMap::new();
    let mut lost_last = 0;
    let place = folder.path().join("image");
    for last in 0..images.len() - 1 {
        for _ in 0..4 {
            let what = format!("behind image {last}, POSTGREY_SEED={seed}");
            lay(&place, &mut random, &images, last);
            // At most what was answered by then was promised.
            let answered = images[last + 1].answered;
            let (how, has_lost) = look_at(&place, answered, &what);
            assert!(!has_lost || how != "rebuilt", "{what}");
            lost_last += usize::from(has_lost);
            *tried.entry(how).or_insert(0) += 1;
        }
    }
    println!(
        "check: {} flushes, power cuts {tried:?}: all open, the last answer lost in {lost_last}",
        images.len()
    );
    assert!(
        tried["rebuilt"] > number && tried["as it was"] > LIVES,
        "{tried:?}"
    );
}

fn sender(count: usize) -> String {
    format!("n{count}x@s.example")
}

/// Lays files as a cut between this image and the next may leave them.
fn lay(place: &Path, random: &mut Random, images: &[Image], last: usize) {
    let _ = fs::remove_dir_all(place);
    fs::create_dir(place).unwrap();
    let last_flush = |flushed: Option<u64>| {
        let is_it = |image: &Image| image.flushed == flushed;
        images[..=last].iter().rposition(is_it)
    };
    let nothing = Vec::new();
    let named_since = last_flush(None).unwrap_or(0);
    let names = &random.pick(&images[named_since..=last + 1]).names;
    for (name, number) in names {
        let flush = last_flush(Some(*number));
        let mut versions: Vec<&Vec<u8>> = images[flush.unwrap_or(0)..=last + 1]
            .iter()
            .filter_map(|image| image.files.get(number))
            .collect();
        if flush.is_none() {
            versions.push(&nothing);
        }
        let length = random.pick(&versions).len();
        let mut octets = vec![0; length];
        for (page, to) in octets.chunks_mut(PAGE).enumerate() {
            let from = random.pick(&versions);
            let from = from.get(page * PAGE..).unwrap_or_default();
            let both = from.len().min(to.len());
            to[..both].copy_from_slice(&from[..both]);
        }
        fs::write(place.join(name), octets).unwrap();
    }
}

/// What a start makes of the files: how, and whether the last answer is lost.
fn look_at(place: &Path, answered: usize, what: &str) -> (&'static str, bool) {
    let how = match is_marked(place).then(|| rebuild(place).unwrap()) {
        Some(Some(_)) => {
            fs::rename(rebuilt_of(place), place.join("data.mdb")).unwrap();
            "rebuilt"
        }
        _ => "as it was",
    };
    remove_mark(place).unwrap();
    let held = records(place, Database::Greylist);
    for count in 1..answered {
        let key = format!("192.0.2.0/{}/user@example.org", sender(count));
        assert!(
            held.contains_key(key.as_bytes()),
            "{how}, {what}: {key} of {answered} is lost"
        );
    }
    let last = format!("192.0.2.0/{}/user@example.org", sender(answered));
    (how, answered > 0 && !held.contains_key(last.as_bytes()))
}
