//! What a disk may hold after a power cut: images of the files at each flush, as
//! `preload.c` keeps them, and mixtures of them.
//!
//! What was written to a file since its last flush may be on the disk or not,
//! each page for itself, and so may new names since the last flush of the
//! directory.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use crate::random::Random;
use crate::server::{Server, give_to_server};

const PAGE: usize = 4096;

/// A page, shared by all images that have it.
type Page = Rc<[u8]>;

/// What was flushed when an image was kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Flushed {
    /// The file with this number.
    File(u64),
    Directory,
    Nothing,
}

/// The files of one moment.
pub struct Image {
    pub flushed: Flushed,
    /// Requests that were answered by then.
    pub answered: usize,
    /// The number of the file under each name.
    names: BTreeMap<String, u64>,
    /// The files by their numbers.
    files: BTreeMap<u64, Vec<Page>>,
}

impl Image {
    /// The directory before anything was in it.
    fn empty() -> Image {
        Image {
            flushed: Flushed::Directory,
            answered: 0,
            names: BTreeMap::new(),
            files: BTreeMap::new(),
        }
    }

    /// `None` if whoever wrote it was killed meanwhile.
    fn read(folder: &Path, known: &mut HashSet<Page>) -> Option<Image> {
        let index = fs::read_to_string(folder.join("index")).ok()?;
        let mut lines = index.lines().map(|line| line.split_once(' ').unwrap());
        let (flushed, answered) = lines.next().unwrap();
        let names: BTreeMap<String, u64> = lines
            .map(|(name, number)| (name.to_owned(), number.parse().unwrap()))
            .collect();
        let mut share = |octets: &[u8]| {
            if let Some(page) = known.get(octets) {
                return Rc::clone(page);
            }
            let page: Page = octets.into();
            known.insert(Rc::clone(&page));
            page
        };
        let mut content = |&number: &u64| {
            let octets = fs::read(folder.join(number.to_string())).ok()?;
            Some((number, octets.chunks(PAGE).map(&mut share).collect()))
        };
        Some(Image {
            flushed: match flushed {
                "dir" => Flushed::Directory,
                "nothing" => Flushed::Nothing,
                number => Flushed::File(number.parse().unwrap()),
            },
            answered: answered.trim().parse().unwrap(),
            files: names.values().filter_map(&mut content).collect(),
            names,
        })
    }

    /// True if this is one of the names.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }
}

/// Where the images of a server are kept.
pub struct Album {
    folder: PathBuf,
    dbdir: PathBuf,
}

impl Album {
    /// An empty one in this directory, for the server that lives there and is
    /// started by this command.
    pub fn new(dir: &Path, command: &mut Command) -> Album {
        let album = Album {
            folder: dir.join("images"),
            dbdir: dir.join("db"),
        };
        fs::create_dir(&album.folder).unwrap();
        give_to_server(&album.folder);
        fs::set_permissions(&album.folder, fs::Permissions::from_mode(0o777)).unwrap();
        command
            .env("POSTGREY_IMAGES", &album.folder)
            .env("POSTGREY_DBDIR", &album.dbdir);
        album
    }

    /// From now on so many requests are answered.
    pub fn note_answered(&self, count: usize) {
        // As a whole: the server may be reading it.
        let new = self.folder.join("answered.new");
        fs::write(&new, count.to_string()).unwrap();
        fs::rename(&new, self.folder.join("answered")).unwrap();
    }

    /// Keeps an image of a server that does nothing at the moment.
    pub fn keep(&self, server: &Server, answered: usize) {
        let number = self.folders().count();
        let image = self.folder.join(format!("image.{number:06}"));
        fs::create_dir(&image).unwrap();
        let mut index = format!("nothing {answered}\n");
        for entry in fs::read_dir(&server.dbdir).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let number = entry.metadata().unwrap().ino();
            if name.starts_with("data.mdb") {
                fs::copy(entry.path(), image.join(number.to_string())).unwrap();
            }
            index += &format!("{name} {number}\n");
        }
        fs::write(image.join("index"), index).unwrap();
    }

    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        (0..)
            .map(|number| self.folder.join(format!("image.{number:06}")))
            .take_while(|folder| folder.exists())
    }

    /// All images in their order, after that of an empty directory.
    pub fn images(&self) -> Vec<Image> {
        let mut known = HashSet::new();
        let read = self
            .folders()
            .filter_map(|folder| Image::read(&folder, &mut known));
        std::iter::once(Image::empty()).chain(read).collect()
    }
}

/// Lays files into `place`, as a cut between image number `last` and the next
/// may leave them. Of what was not flushed, every page is of the latest version
/// but so many percent, which are of any.
pub fn lay(place: &Path, random: &mut Random, images: &[Image], last: usize, percent: usize) {
    let _ = fs::remove_dir_all(place);
    fs::create_dir(place).unwrap();
    let last_flush = |flushed: Flushed| {
        let is_it = |image: &Image| image.flushed == flushed;
        images[..=last].iter().rposition(is_it)
    };
    let nothing = Vec::new();
    let named_since = last_flush(Flushed::Directory).unwrap_or(0);
    let names = &random.pick(&images[named_since..=last + 1]).names;
    for (name, number) in names {
        let flush = last_flush(Flushed::File(*number));
        let mut versions: Vec<&Vec<Page>> = Vec::new();
        if flush.is_none() {
            versions.push(&nothing);
        }
        let since = &images[flush.unwrap_or(0)..=last + 1];
        versions.extend(since.iter().filter_map(|image| image.files.get(number)));
        let pick = |random: &mut Random| match random.percent(percent) {
            true => *random.pick(&versions),
            false => versions[versions.len() - 1],
        };
        let mut octets = Vec::new();
        for page in 0..pick(random).len() {
            match pick(random).get(page) {
                Some(written) => octets.extend_from_slice(written),
                None => octets.resize(octets.len() + PAGE, 0),
            }
        }
        fs::write(place.join(name), octets).unwrap();
    }
    lay_locks(place, random);
}

/// The files with the locks, which are never flushed: of any age. In half of the
/// cases they say that the files belong together.
fn lay_locks(place: &Path, random: &mut Random) {
    let lock = place.join("lock.mdb");
    if lock.exists() {
        let length = *random.pick(&[0, PAGE, 40 * PAGE]);
        let octet = *random.pick(&[0, 0xa5]);
        fs::write(&lock, vec![octet; length]).unwrap();
    }
    let data = fs::metadata(place.join("data.mdb"));
    let lock = fs::metadata(lock);
    if let (Ok(data), Ok(lock)) = (data, lock)
        && random.percent(50)
    {
        let numbers = [data.dev(), data.ino(), lock.dev(), lock.ino()];
        let [a, b, c, d] = numbers.map(|number| format!("{number:016x}"));
        fs::write(place.join("postgrey.lock"), format!("{a} {b} {c} {d}\n")).unwrap();
    }
}
