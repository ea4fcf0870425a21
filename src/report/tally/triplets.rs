//! Triplets and clients, as few octets each as will do.

use std::ops::{Index, IndexMut};

use super::names::ByHash;
use super::periods::Seen;

/// Items of one piece of memory: a list that grows as a whole is there twice while it
/// does.
const PIECE: usize = 8192;

/// What became of a triplet. Times are seconds since 1970, 0 if there is none.
#[derive(Clone, Copy, Debug, Default)]
pub struct Triplet {
    /// The numbers of names: its first client, the domains of sender and recipient.
    pub client: u32,
    /// See [`Triplet::client`].
    pub sender_domain: u32,
    /// See [`Triplet::client`].
    pub recipient_domain: u32,
    /// When it was first greylisted or held.
    pub began: u32,
    /// Since when it was waited for: a new begin that the server made counts.
    pub since: u32,
    /// When the server last told that it was greylisted.
    pub told_at: u32,
    /// Seconds from `since` until it passed.
    pub delay: u32,
    /// In which periods it was asked for.
    pub seen: Seen,
    /// It was greylisted.
    pub is_greylisted: bool,
    /// It was held in the tarpit.
    pub is_held: bool,
    /// Its client has waited in the tarpit.
    pub has_waited: bool,
    /// It passed after it was put off.
    pub has_passed: bool,
}

impl Triplet {
    /// True if it was greylisted, or held and its client gave up.
    pub fn is_put_off(&self) -> bool {
        self.is_greylisted || (self.is_held && !self.has_waited)
    }

    /// True if it was put off and passed later.
    pub fn has_come_back(&self) -> bool {
        self.is_put_off() && self.has_passed
    }
}

/// A list that grows in pieces.
#[derive(Debug)]
pub struct Pieces<T>(Vec<Vec<T>>);

impl<T> Default for Pieces<T> {
    fn default() -> Self {
        Pieces(Vec::new())
    }
}

impl<T> Pieces<T> {
    /// Appends an item; returns its number.
    pub fn push(&mut self, item: T) -> u32 {
        match self.0.last_mut().filter(|piece| piece.len() < PIECE) {
            Some(piece) => piece.push(item),
            None => {
                let mut piece = Vec::with_capacity(PIECE);
                piece.push(item);
                self.0.push(piece);
            }
        }
        u32::try_from(self.count() - 1).unwrap_or(u32::MAX)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        let full = self.0.len().saturating_sub(1) * PIECE;
        full + self.0.last().map_or(0, Vec::len)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().flatten()
    }
}

impl<T> Index<u32> for Pieces<T> {
    type Output = T;

    fn index(&self, number: u32) -> &T {
        &self.0[number as usize / PIECE][number as usize % PIECE]
    }
}

impl<T> IndexMut<u32> for Pieces<T> {
    fn index_mut(&mut self, number: u32) -> &mut T {
        &mut self.0[number as usize / PIECE][number as usize % PIECE]
    }
}

/// All triplets, by the hash of their keys.
#[derive(Debug, Default)]
pub struct Triplets {
    ids: ByHash,
    /// By number.
    pub all: Pieces<Triplet>,
}

impl Triplets {
    /// The number of a key; `make` is asked for one that is new.
    pub fn id(&mut self, key: &[u8], make: impl FnOnce() -> Triplet) -> u32 {
        match self.ids.find(key) {
            Ok(id) => id,
            Err(place) => {
                let id = self.all.push(make());
                self.ids.insert(place, id);
                id
            }
        }
    }

    /// The number of a key that is there.
    pub fn known(&self, key: &[u8]) -> Option<u32> {
        self.ids.find(key).ok()
    }

    /// Gives back the memory that is needed only to find numbers.
    pub fn close(&mut self) {
        self.ids = ByHash::default();
    }
}

/// Whose client it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pool {
    /// It has had no name yet.
    #[default]
    Unknown,
    /// Not one of a large sender.
    No,
    /// One of the large sender whose domain has this number.
    Of(u32),
}

/// What became of a client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client {
    /// Whether the domain of its name is one of a large sender.
    pub pool: Pool,
    /// In which periods it asked.
    pub seen: Seen,
    /// When it was sent to the tarpit, and is not known to have waited; 0: it is not
    /// there.
    pub held_at: u32,
    /// The triplet for which it was.
    pub held_for: u32,
}
