//! Walking over all records of a database while others write.
//!
//! A read transaction keeps pages of the past alive, so records are copied out
//! in slices, each in a transaction of its own, and looked at between them.
//! Memory is that of one slice, whatever the size of the database. What is
//! written meanwhile may or may not be seen.

use std::ops::ControlFlow;

use super::failure::Failure;
use crate::policy::record::Database;
use crate::store::Store;

/// Octets of records copied out in one slice; reading them takes a few
/// milliseconds.
const SLICE: usize = 512 * 1024;

/// A record, and the key under which the store has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// As the store has it.
    pub stored_key: Vec<u8>,
    /// As the policy made it.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// Shows every record whose stored key begins with `prefix`, in order.
pub fn each_record(
    store: &mut dyn Store,
    database: Database,
    prefix: &[u8],
    visit: &mut dyn FnMut(&Copied) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut after = (!prefix.is_empty()).then(|| prefix.to_vec());
    loop {
        let mut slice: Vec<Copied> = Vec::new();
        let mut size = 0;
        let mut is_past = false;
        let at_end = store.scan(database, after.as_deref(), &mut |entry| {
            if !entry.stored_key.starts_with(prefix) {
                is_past = true;
                return ControlFlow::Break(());
            }
            size += entry.stored_key.len() + entry.key.len() + entry.value.len();
            slice.push(Copied {
                stored_key: entry.stored_key.to_vec(),
                key: entry.key.to_vec(),
                value: entry.value.to_vec(),
            });
            if size < SLICE {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        for record in &slice {
            visit(record)?;
        }
        match slice.pop() {
            Some(last) if !at_end && !is_past => after = Some(last.stored_key),
            _ => return Ok(()),
        }
    }
}

/// The short name of a database, as the commands take it.
pub fn short_name(database: Database) -> &'static str {
    match database {
        Database::Greylist => "greylist",
        Database::Clients => "clients",
        Database::Tarpit => "tarpit",
    }
}

/// The database with this name: short, or as the original's file is called,
/// with or without its ending.
pub fn database_with_name(name: &[u8]) -> Result<Database, Failure> {
    let name = String::from_utf8_lossy(name);
    let is_it = |database: &Database| {
        let file = database.name();
        *name == *short_name(*database) || *name == *file || file.strip_suffix(".db") == Some(&name)
    };
    Database::ALL.into_iter().find(is_it).ok_or_else(|| {
        Failure::error(format!(
            "there is no database \"{name}\": give greylist (postgrey), clients (postgrey_clients) \
             or tarpit (tarpit_clients)"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::MemoryStore;

    #[test]
    fn all_records_are_seen_once_and_in_order() {
        let mut store = MemoryStore::default();
        for n in 0..20_000 {
            let key = format!("{}/{n:06}", n % 2);
            store.insert(Database::Greylist, key.as_bytes(), &[b'1'; 50]);
        }
        let mut walk = |prefix: &[u8]| {
            let mut keys = Vec::new();
            each_record(&mut store, Database::Greylist, prefix, &mut |record| {
                keys.push(record.key.clone());
                Ok(())
            })
            .unwrap();
            assert!(keys.is_sorted());
            keys.len()
        };
        assert_eq!(
            [walk(b""), walk(b"0/"), walk(b"1/"), walk(b"2")],
            [20_000, 10_000, 10_000, 0]
        );
    }

    #[test]
    fn databases_have_three_names() {
        for name in ["greylist", "postgrey", "postgrey.db"] {
            assert_eq!(database_with_name(name.as_bytes()), Ok(Database::Greylist));
        }
        assert!(database_with_name(b"x").is_err());
    }
}
