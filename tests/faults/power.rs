//! A power cut: the data file as it was on disk at each flush, and what a disk
//! may make of the time between two flushes.
//!
//! Pages written since the last flush may be on the disk or not, each for
//! itself. Whatever the mixture, the file opens and holds every answered
//! request but perhaps the last.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use postgrey::policy::record::Database;

use crate::random::{Random, number_from};
use crate::server::{Server, give_to_server, records, test_dir};

const PAGE: usize = 4096;

struct Image {
    octets: Vec<u8>,
    /// Requests that were answered when the flush ended.
    answered: usize,
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
    command.env("POSTGREY_IMAGES", &images_in);
    let mut server = Server::start_by(command, folder.path(), &["--quiet"]);
    let number = number_from("POSTGREY_POWER_CUTS", 60) as usize;
    let mut client = server.connect();
    for count in 1..=number {
        let answer = client.ask(&[("sender", &sender(count))]);
        assert!(answer.starts_with("DEFER_IF_PERMIT"), "{answer}");
        fs::write(images_in.join("answered"), count.to_string()).unwrap();
    }
    server.stop();
    let images = read_images(&images_in);
    assert!(images.len() >= number, "{} images", images.len());
    let seed = Random::choose_seed();
    let mut random = Random::new(seed);
    let mut tried = 0;
    let mut lost_last = 0;
    let place = folder.path().join("image");
    for (index, image) in images.iter().enumerate() {
        lost_last += usize::from(look_at(&place, &image.octets, image.answered, "image"));
        tried += 1;
        let Some(next) = images.get(index + 1) else {
            continue;
        };
        for _ in 0..4 {
            let mixture = mix(&mut random, &image.octets, &next.octets);
            // At most what was answered by then was promised.
            let what = format!("mixture behind image {index}, POSTGREY_SEED={seed}");
            lost_last += usize::from(look_at(&place, &mixture, next.answered, &what));
            tried += 1;
        }
    }
    println!(
        "check: {} flushes, {tried} power cuts: all open, the last answer lost in {lost_last}",
        images.len()
    );
}

fn sender(count: usize) -> String {
    format!("n{count}x@s.example")
}

fn read_images(folder: &Path) -> Vec<Image> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("image.") && !name.ends_with(".answered") {
            let answered = fs::read_to_string(path.with_file_name(format!("{name}.answered")));
            let image = Image {
                octets: fs::read(&path).unwrap(),
                answered: answered.unwrap_or_default().parse().unwrap_or(0),
            };
            found.insert(name.to_string(), image);
        }
    }
    found.into_values().collect()
}

/// Some pages of the earlier file, some of the later.
fn mix(random: &mut Random, earlier: &[u8], later: &[u8]) -> Vec<u8> {
    let mut mixture = later.to_vec();
    for (page, old) in mixture.chunks_mut(PAGE).zip(earlier.chunks(PAGE)) {
        if random.percent(50) {
            page[..old.len()].copy_from_slice(old);
        }
    }
    // A file that had not grown yet.
    if random.percent(30) {
        mixture.truncate(earlier.len().max(2 * PAGE));
    }
    mixture
}

/// Opens an image; true if the last answer is lost.
fn look_at(place: &Path, octets: &[u8], answered: usize, what: &str) -> bool {
    let _ = fs::remove_dir_all(place);
    fs::create_dir(place).unwrap();
    fs::write(place.join("data.mdb"), octets).unwrap();
    let held = records(place, Database::Greylist);
    for count in 1..answered {
        let key = format!("192.0.2.0/{}/user@example.org", sender(count));
        assert!(
            held.contains_key(key.as_bytes()),
            "{what}: {key} of {answered} is lost"
        );
    }
    let last = format!("192.0.2.0/{}/user@example.org", sender(answered));
    answered > 0 && !held.contains_key(last.as_bytes())
}
