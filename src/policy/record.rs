//! The formats of the records, as the original writes them.
//!
//! | database | key | value |
//! |---|---|---|
//! | `postgrey.db` | network/sender/recipient | first,last,count\[,octet\] |
//! | `postgrey_clients.db` | client | count,last |
//! | `tarpit_clients.db` | client address | last |
//!
//! Times are seconds since 1970, usually whole numbers. Fields are kept as
//! text, since a record that is not changed must come out as it was.

use super::number::number_of_text;
use super::rules::Rules;

/// The three databases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// `postgrey.db`: triplets.
    Greylist,
    /// `postgrey_clients.db`: the auto-whitelist.
    Clients,
    /// `tarpit_clients.db`: clients caught in the tarpit.
    Tarpit,
}

impl Database {
    /// All of them, in the order of maintenance.
    pub const ALL: [Database; 3] = [Database::Greylist, Database::Clients, Database::Tarpit];

    /// The name inside the environment, which is the original's file name.
    pub fn name(self) -> &'static str {
        match self {
            Database::Greylist => "postgrey.db",
            Database::Clients => "postgrey_clients.db",
            Database::Tarpit => "tarpit_clients.db",
        }
    }
}

/// The value of a triplet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TripletRecord<'a> {
    /// When the triplet was first seen.
    pub first: &'a [u8],
    /// When it was last seen.
    pub last: &'a [u8],
    /// Retries after the delay; `None` in a record of plain postgrey.
    pub count: Option<&'a [u8]>,
    /// The last octet of the latest client, empty if it is in the key.
    pub octet: &'a [u8],
}

impl<'a> TripletRecord<'a> {
    /// `None` if the value is no record.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let mut fields = split_fields(value)?;
        let (first, last) = (fields.next()?, fields.next()?);
        // Without a count, with an octet: a record of plain postgrey 1.34.
        let count = fields.next().filter(|count| !count.is_empty());
        Some(TripletRecord {
            first,
            last,
            count,
            octet: fields.next().unwrap_or_default(),
        })
    }

    /// Seconds between the first and the last time.
    pub fn age(&self) -> f64 {
        number_of_text(self.last) - number_of_text(self.first)
    }
}

/// The value of an auto-whitelisted client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRecord<'a> {
    /// Counted passes.
    pub count: &'a [u8],
    /// When the last one was counted.
    pub last: &'a [u8],
}

impl<'a> ClientRecord<'a> {
    /// `None` if the value is no record.
    pub fn parse(value: &'a [u8]) -> Option<Self> {
        let mut fields = split_fields(value)?;
        Some(ClientRecord {
            count: fields.next()?,
            last: fields.next()?,
        })
    }
}

/// The time in a tarpit record; `None` if the value is no record.
pub fn parse_tarpit_record(value: &[u8]) -> Option<f64> {
    has_only_text(value).then(|| number_of_text(value))
}

fn split_fields(value: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    has_only_text(value).then(|| value.split(|&b| b == b','))
}

fn has_only_text(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|&b| b >= b' ')
}

/// True if maintenance removes the record at this time; what is no record at
/// all goes too.
pub fn is_expired(rules: &Rules, database: Database, value: &[u8], now: f64) -> bool {
    seconds_left(rules, database, value, now).is_none_or(|left| left < 0.0)
}

/// Seconds from this time on until maintenance removes the record; `None` if the value
/// is no record.
pub fn seconds_left(rules: &Rules, database: Database, value: &[u8], now: f64) -> Option<f64> {
    let (last, lifetime) = match database {
        Database::Greylist => {
            let record = TripletRecord::parse(value)?;
            let lifetime = match record.age() < rules.delay {
                true => rules.max_age.min(rules.retry_window),
                false => rules.max_age,
            };
            (number_of_text(record.last), lifetime)
        }
        Database::Clients => {
            let record = ClientRecord::parse(value)?;
            (number_of_text(record.last), rules.max_age)
        }
        Database::Tarpit => (parse_tarpit_record(value)?, rules.retry_window),
    };
    Some(lifetime - (now - last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_every_version_are_read() {
        let record = TripletRecord::parse(b"1359620946,1359621979,2,91").unwrap();
        assert_eq!((record.count, record.octet), (Some(&b"2"[..]), &b"91"[..]));
        assert_eq!(record.age(), 1033.0);
        let plain = TripletRecord::parse(b"1,2").unwrap();
        assert_eq!((plain.count, plain.octet), (None, &b""[..]));
        let older = TripletRecord::parse(b"1,2,,91").unwrap();
        assert_eq!((older.count, older.octet), (None, &b"91"[..]));
        assert!(TripletRecord::parse(b",,0").is_some());
    }

    #[test]
    fn what_is_no_record_is_told() {
        for value in [&b""[..], b"1700000000", b"\0\x01,2", b"1,2\n3"] {
            assert_eq!(TripletRecord::parse(value), None, "{value:?}");
            assert_eq!(ClientRecord::parse(value), None, "{value:?}");
        }
        assert_eq!(parse_tarpit_record(b""), None);
        assert_eq!(parse_tarpit_record(b"\xff\x00"), None);
    }

    #[test]
    fn records_expire_by_the_rules_of_the_original() {
        let rules = Rules {
            max_age: 1000.0,
            retry_window: 500.0,
            ..Rules::default()
        };
        for (database, value, now, expired) in [
            (Database::Greylist, "0,300,1", 1300.0, false),
            (Database::Greylist, "0,300,1", 1301.0, true),
            (Database::Greylist, "0,299,0", 799.0, false),
            (Database::Greylist, "0,299,0", 800.0, true),
            (Database::Greylist, "nonsense", 0.0, true),
            (Database::Clients, "1,100", 1100.0, false),
            (Database::Clients, "1,100", 1101.0, true),
            (Database::Tarpit, "100", 600.0, false),
            (Database::Tarpit, "100", 601.0, true),
        ] {
            assert_eq!(
                is_expired(&rules, database, value.as_bytes(), now),
                expired,
                "{value} {now}"
            );
        }
        for (database, value, left) in [
            (Database::Greylist, "0,300,1", Some(900.0)),
            (Database::Greylist, "0,299,0", Some(399.0)),
            (Database::Greylist, "nonsense", None),
            (Database::Clients, "1,100", Some(700.0)),
            (Database::Tarpit, "100", Some(200.0)),
        ] {
            let found = seconds_left(&rules, database, value.as_bytes(), 400.0);
            assert_eq!(found, left, "{value}");
        }
    }
}
