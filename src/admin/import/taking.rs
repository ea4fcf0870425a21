//! The second half of an import: the records go from the spool into the
//! database, some thousands in a transaction.

use std::io;
use std::time::Instant;

use super::spool::{Section, SpoolReader, Spooled};
use super::{SectionKind, merge};
use crate::admin::complain;
use crate::admin::failure::Failure;
use crate::admin::progress::Progress;
use crate::admin::records::objection;
use crate::policy::record::is_expired;
use crate::policy::rules::Rules;
use crate::store::{Key, Store};
use crate::sys::clock;

/// Records of one transaction beside a running server: some 30 ms.
const SLICE: usize = 2000;
/// Without a server each flush counts, and only memory bounds a slice.
const LONE_SLICE: usize = 10_000;
/// Refused records told one by one.
const MOST_TOLD: u64 = 20;

/// What became of the records of a section.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// New ones.
    pub taken: u64,
    /// Changed one that was there.
    pub merged: u64,
    /// Changed nothing.
    pub kept: u64,
    /// None of ours.
    pub refused: u64,
    /// Have expired, and are not written where records expire by themselves.
    pub expired: u64,
}

/// Takes records in, and counts what becomes of them.
pub struct Taking<'a> {
    rules: &'a Rules,
    sections: &'a [Section],
    kinds: &'a [SectionKind],
    counts: Vec<Counts>,
    progress: Progress,
    done: u64,
}

impl<'a> Taking<'a> {
    /// Nothing is taken yet of these sections.
    pub fn new(rules: &'a Rules, sections: &'a [Section], kinds: &'a [SectionKind]) -> Self {
        let total = sections.iter().map(|section| section.looks.records).sum();
        Taking {
            rules,
            sections,
            kinds,
            counts: vec![Counts::default(); sections.len()],
            progress: Progress::new("importing", total),
            done: 0,
        }
    }

    /// What became of the records of each section.
    pub fn into_counts(self) -> Vec<Counts> {
        self.counts
    }

    /// Takes all records that the spool still has.
    pub fn take_all(
        &mut self,
        store: &mut dyn Store,
        has_server: bool,
        records: &mut SpoolReader,
        failed: impl Fn(io::Error) -> Failure + Copy,
    ) -> Result<(), Failure> {
        let most = if has_server { SLICE } else { LONE_SLICE };
        let mut slice: Vec<Spooled> = Vec::new();
        loop {
            slice.clear();
            let mut record = Spooled::default();
            while slice.len() < most && records.read(&mut record).map_err(failed)? {
                if self.is_wanted(&mut record) {
                    slice.push(std::mem::take(&mut record));
                }
            }
            if slice.is_empty() {
                return Ok(());
            }
            let start = Instant::now();
            self.take_slice(store, &slice)?;
            if has_server {
                // The server gets as much time as we took from it.
                std::thread::sleep(start.elapsed());
            }
        }
    }

    /// Brings a record into our form, or says that it is none.
    fn is_wanted(&mut self, record: &mut Spooled) -> bool {
        let Some(&kind) = self.kinds.get(record.section) else {
            return false;
        };
        let counts = &mut self.counts[record.section];
        if let Some(why) = objection(kind.database, &record.key, &record.value) {
            counts.refused += 1;
            if counts.refused <= MOST_TOLD {
                let source = &self.sections[record.section].source;
                complain(&format!("{source} line {}: refused: {why}", record.line));
            } else if counts.refused == MOST_TOLD + 1 {
                complain("more records are refused");
            }
            return false;
        }
        kind.convert(self.rules, record);
        true
    }

    fn take_slice(&mut self, store: &mut dyn Store, slice: &[Spooled]) -> Result<(), Failure> {
        let mut counts = self.counts.clone();
        let keys: Vec<Key> = slice
            .iter()
            .map(|record| (self.kinds[record.section].database, &record.key[..]))
            .collect();
        let now = store.expires_by_itself().then(clock::seconds);
        let has_expired = |database, value: &[u8]| {
            now.is_some_and(|now| is_expired(self.rules, database, value, now))
        };
        let edited = store.edit(&keys, &mut |records| {
            counts.clone_from(&self.counts);
            for record in slice {
                let database = self.kinds[record.section].database;
                let counts = &mut counts[record.section];
                match records.get(database, &record.key)? {
                    None if has_expired(database, &record.value) => counts.expired += 1,
                    None => {
                        records.put(database, &record.key, &record.value)?;
                        counts.taken += 1;
                    }
                    Some(old) => {
                        let value = merge::merged(self.rules, database, old, &record.value);
                        if value == old {
                            counts.kept += 1;
                        } else {
                            records.put(database, &record.key, &value)?;
                            counts.merged += 1;
                        }
                    }
                }
            }
            Ok(())
        });
        edited.map_err(|error| {
            Failure::error(format!(
                "{error}; {} records are in: the same import once more goes on",
                self.done
            ))
        })?;
        self.counts = counts;
        self.done += slice.len() as u64;
        self.progress.add(slice.len() as u64);
        Ok(())
    }
}
