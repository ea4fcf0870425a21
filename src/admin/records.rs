//! Walking over all records of a database while others write.
//!
//! A read transaction keeps pages of the past alive, so records are copied out
//! in slices, each in a transaction of its own, and looked at between them.
//! Memory is that of one slice, whatever the size of the database. What is
//! written meanwhile may or may not be seen.

use std::ops::ControlFlow;

use serde_json::{Value, json};

use super::escape::escaped;
use super::failure::Failure;
use crate::policy::record::{ClientRecord, Database, TripletRecord, parse_tarpit_record};
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

/// Shows every record whose stored key begins with `prefix`, in the order of the store.
pub fn each_record(
    store: &mut dyn Store,
    database: Database,
    prefix: &[u8],
    visit: &mut dyn FnMut(&Copied) -> Result<(), Failure>,
) -> Result<(), Failure> {
    each_record_until(store, database, prefix, &mut |record| {
        visit(record).map(ControlFlow::Continue)
    })
}

/// The same, until `visit` has seen enough.
pub fn each_record_until(
    store: &mut dyn Store,
    database: Database,
    prefix: &[u8],
    visit: &mut dyn FnMut(&Copied) -> Result<ControlFlow<()>, Failure>,
) -> Result<(), Failure> {
    let mut after: Option<Vec<u8>> = None;
    loop {
        let mut slice: Vec<Copied> = Vec::new();
        let mut size = 0;
        let at_end = store.scan(database, prefix, after.as_deref(), &mut |entry| {
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
            if visit(record)?.is_break() {
                return Ok(());
            }
        }
        match slice.pop() {
            Some(last) if !at_end => after = Some(last.stored_key),
            _ => return Ok(()),
        }
    }
}

/// A whole number without a point.
pub fn number(value: f64) -> Value {
    if value.trunc() == value && value.abs() < 1e15 {
        json!(value as i64)
    } else {
        json!(value)
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
    // The message shows it, and an imported text may bring any octets.
    let name = escaped(name);
    let is_it = |database: &Database| {
        let file = database.name();
        name == short_name(*database) || name == file || file.strip_suffix(".db") == Some(&name)
    };
    Database::ALL.into_iter().find(is_it).ok_or_else(|| {
        Failure::error(format!(
            "there is no database \"{name}\": give greylist (postgrey), clients (postgrey_clients) \
             or tarpit (tarpit_clients)"
        ))
    })
}

/// The value of a text that is a number and nothing else.
pub fn plain_number(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?.trim_ascii();
    let is_plain = |octet: u8| octet.is_ascii_digit() || b"+-.eE".contains(&octet);
    let number: f64 = text.bytes().all(is_plain).then(|| text.parse().ok())??;
    number.is_finite().then_some(number)
}

/// Octets of the longest key: three attributes of 512 and what joins them,
/// with room.
const MAX_KEY: usize = 2048;

/// Why a record cannot be taken; `None`: it can.
pub fn objection(database: Database, key: &[u8], value: &[u8]) -> Option<&'static str> {
    if key.len() > MAX_KEY {
        return Some("the key is too long");
    }
    if key.contains(&b'\n') {
        return Some("the key holds a line feed");
    }
    let is_number = |text: &[u8]| plain_number(text).is_some();
    match database {
        Database::Greylist => {
            let slashes = key.iter().filter(|&&octet| octet == b'/').count();
            let is_hash = key.len() == 40 && key.iter().all(u8::is_ascii_hexdigit);
            if slashes < 2 && !is_hash {
                return Some("the key is no triplet");
            }
            let Some(record) = TripletRecord::parse(value) else {
                return Some("the value is no record of a triplet");
            };
            let fields = value.iter().filter(|&&octet| octet == b',').count() + 1;
            if !is_number(record.first)
                || !is_number(record.last)
                || !record.count.is_none_or(is_number)
                || fields > 4
            {
                return Some("the value is not first,last,count,octet");
            }
        }
        Database::Clients => {
            let Some(record) = ClientRecord::parse(value) else {
                return Some("the value is no record of a client");
            };
            let has_more = value.iter().filter(|&&octet| octet == b',').count() > 1;
            if !is_number(record.count) || !is_number(record.last) || has_more {
                return Some("the value is not count,last");
            }
        }
        Database::Tarpit => {
            if parse_tarpit_record(value).is_none() || !is_number(value) {
                return Some("the value is not a time");
            }
        }
    }
    None
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

    #[test]
    fn what_is_no_record_is_refused() {
        for (database, key, value, is_taken) in [
            (Database::Greylist, "n/s/r", "1,2,3,4", true),
            (Database::Greylist, "n/s/r", " 1 ,1.5e9,,a", true),
            (Database::Greylist, "n/s", "1,2", false),
            (Database::Greylist, "n/s/\nr", "1,2", false),
            (Database::Greylist, "n/s/r", "1,2,3,4,5", false),
            (Database::Greylist, "n/s/r", "inf,2", false),
            (Database::Greylist, "n/s/r", "1,nan,1", false),
            (Database::Greylist, "n/s/r", "1,2,x", false),
            (Database::Clients, "", "1,2", true),
            (Database::Clients, "c", "1", false),
            (Database::Clients, "c", "root\0,1", false),
            (Database::Tarpit, "c", "1700000000", true),
            (Database::Tarpit, "c", "abc", false),
            (Database::Tarpit, "c", "", false),
        ] {
            let objection = objection(database, key.as_bytes(), value.as_bytes());
            assert_eq!(
                objection.is_none(),
                is_taken,
                "{key} {value}: {objection:?}"
            );
        }
        assert!(objection(Database::Tarpit, &[b'k'; 3000], b"1").is_some());
    }
}
