//! Texts that occur often, each kept once and known by a number.

use std::collections::HashMap;
use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState};

/// What is a hash already is not hashed again.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, octets: &[u8]) {
        for &octet in octets {
            self.0 = self.0 << 8 | u64::from(octet);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// A hash of 64 bits in two halves: a table of it and a number has no gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Halves([u32; 2]);

impl Hash for Halves {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let [high, low] = self.0.map(u64::from);
        hasher.write_u64(high << 32 | low);
    }
}

/// Numbers by hash. That two of a million texts have the same hash of 64 bits, which
/// nobody outside can foresee, is as likely as one in thirty millions: the hash
/// stands for the text.
#[derive(Debug, Default)]
pub struct ByHash {
    keys: RandomState,
    numbers: HashMap<Halves, u32, BuildHasherDefault<Plain>>,
}

impl ByHash {
    /// The number of a text, or the place for it.
    pub fn find(&self, text: &[u8]) -> Result<u32, Place> {
        let hash = self.keys.hash_one(text);
        let place = Halves([(hash >> 32) as u32, hash as u32]);
        self.numbers.get(&place).copied().ok_or(Place(place))
    }

    /// Puts a number into its place.
    pub fn insert(&mut self, place: Place, number: u32) {
        self.numbers.insert(place.0, number);
    }
}

/// Where the number of a text is to be put.
#[derive(Clone, Copy, Debug)]
pub struct Place(Halves);

/// Texts by number.
#[derive(Debug, Default)]
pub struct Names {
    ids: ByHash,
    ends: Vec<u32>,
    text: Vec<u8>,
}

impl Names {
    /// The number of a text; `true` if it is new.
    pub fn id(&mut self, text: &[u8]) -> (u32, bool) {
        let place = match self.ids.find(text) {
            Ok(id) => return (id, false),
            Err(place) => place,
        };
        let end = self.text.len() + text.len();
        let (Ok(end), Ok(id)) = (u32::try_from(end), u32::try_from(self.ends.len())) else {
            // Beyond 4 GiB of names all are one.
            return (0, false);
        };
        self.text.extend_from_slice(text);
        self.ends.push(end);
        self.ids.insert(place, id);
        (id, true)
    }

    /// Gives back the memory that is needed only to find numbers.
    pub fn close(&mut self) {
        self.ids = ByHash::default();
    }

    /// The text of a number.
    pub fn text(&self, id: u32) -> &[u8] {
        let id = id as usize;
        let start = match id.checked_sub(1) {
            Some(before) => self.ends[before] as usize,
            None => 0,
        };
        &self.text[start..self.ends[id] as usize]
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.ends.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_one_number() {
        let mut names = Names::default();
        for (text, expected) in [
            ("a", (0, true)),
            ("", (1, true)),
            ("a", (0, false)),
            ("bc", (2, true)),
        ] {
            assert_eq!(names.id(text.as_bytes()), expected);
        }
        assert_eq!(names.text(0), b"a");
        assert_eq!(names.text(1), b"");
        assert_eq!(names.text(2), b"bc");
        assert_eq!(names.count(), 3);
    }
}
