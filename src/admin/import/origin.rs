//! Who wrote the records: what the third field of a triplet means, and which
//! database a text without a name is.

use super::addresses::has_length;
use crate::admin::records::plain_number;
use crate::policy::number::number_of_text;
use crate::policy::record::Database;

/// The version that wrote a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Plain postgrey up to 1.34: `first,last[,octet]`.
    Postgrey134,
    /// The same, but keys have prefix lengths: plain postgrey 1.36 and what
    /// distributions made of it.
    Postgrey136,
    /// Plain postgrey 1.35 and 1.37: `first,last`.
    Postgrey137,
    /// With taRgrey, and our own: `first,last,count[,octet]`.
    Targrey,
}

impl Origin {
    /// The one with this name; those of `--compat` and plain older ones.
    pub fn with_name(name: &[u8]) -> Option<Origin> {
        Some(match name {
            b"postgrey-1.34" => Origin::Postgrey134,
            b"postgrey-1.36" => Origin::Postgrey136,
            b"postgrey-1.37" => Origin::Postgrey137,
            b"targrey-1.34" | b"targrey-1.37" => Origin::Targrey,
            _ => return None,
        })
    }

    /// The value as our server reads it: an octet where this version has it,
    /// no count where it had none.
    pub fn convert(self, database: Database, value: &[u8]) -> Vec<u8> {
        let mut fields = value.split(|&octet| octet == b',');
        let (first, last, third) = (fields.next(), fields.next(), fields.next());
        let (Database::Greylist, Some(first), Some(last)) = (database, first, last) else {
            return value.to_vec();
        };
        match (self, third) {
            (Origin::Postgrey134, Some(octet)) => [first, last, b"", octet].join(&b','),
            (Origin::Postgrey136 | Origin::Postgrey137, Some(_)) => [first, last].join(&b','),
            _ => value.to_vec(),
        }
    }
}

/// What the records of a database look like, counted while they are read.
#[derive(Clone, Debug, Default)]
pub struct Looks {
    /// Records in all.
    pub records: u64,
    triplets: u64,
    clients: u64,
    times: u64,
    four_fields: u64,
    three_fields: u64,
    large_thirds: u64,
    /// A third field that cannot be an octet cut off the key.
    no_octets: u64,
    /// Keys with the length of their network, or of an address.
    pub lengths: u64,
}

/// Counts of clients are smaller than this, times since 1973 larger.
const LEAST_TIME: f64 = 1e8;

impl Looks {
    /// Looks at a record.
    pub fn add(&mut self, key: &[u8], value: &[u8]) {
        self.records += 1;
        self.lengths += u64::from(has_length(key));
        let fields: Vec<&[u8]> = value.split(|&octet| octet == b',').collect();
        let has_slashes = key.iter().filter(|&&octet| octet == b'/').count() >= 2;
        match fields.len() {
            1 => self.times += 1,
            2 if !has_slashes && number_of_text(fields[0]) < LEAST_TIME => self.clients += 1,
            _ => self.triplets += 1,
        }
        match fields[..] {
            [_, _, third] => {
                self.three_fields += 1;
                let number = plain_number(third);
                self.large_thirds += u64::from(number.is_some_and(|number| number > 9.0));
                let is_octet = number.is_some_and(|number| (0.0..256.0).contains(&number));
                let is_cut = network_of(key).is_none_or(|network| network.ends_with(b".0"));
                self.no_octets += u64::from(!is_octet || !is_cut);
            }
            [_, _, _, _] => self.four_fields += 1,
            _ => {}
        }
    }

    /// The database that most of the records look like.
    pub fn database(&self) -> Database {
        if self.times > self.clients && self.times > self.triplets {
            Database::Tarpit
        } else if self.clients > self.triplets {
            Database::Clients
        } else {
            Database::Greylist
        }
    }

    /// The version that wrote such triplets. A fourth field is taRgrey's, and
    /// so is a third one that is no octet of a network; otherwise the third
    /// fields are octets if more than half of them are above 9, as octets are
    /// and counts are not.
    pub fn origin(&self) -> Origin {
        if self.three_fields + self.four_fields == 0 {
            match self.lengths {
                0 => Origin::Postgrey137,
                _ => Origin::Postgrey136,
            }
        } else if self.four_fields == 0
            && self.no_octets == 0
            && 2 * self.large_thirds > self.three_fields
        {
            Origin::Postgrey134
        } else {
            Origin::Targrey
        }
    }
}

/// The client part of a triplet's key; `None` for a hash.
fn network_of(key: &[u8]) -> Option<&[u8]> {
    let end = key.iter().position(|&octet| octet == b'/')?;
    key.get(..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(records: &[(&str, &str)]) -> Looks {
        let mut looks = Looks::default();
        for (key, value) in records {
            looks.add(key.as_bytes(), value.as_bytes());
        }
        looks
    }

    #[test]
    fn the_version_is_guessed_from_the_third_field() {
        let net = "192.0.2.0/a/b";
        for (records, origin) in [
            (&[(net, "1,2")][..], Origin::Postgrey137),
            (
                &[(net, "1,2,91"), (net, "1,2,8"), (net, "1,2,200")],
                Origin::Postgrey134,
            ),
            (
                &[(net, "1,2,91"), ("2001:db8::1/a/b", "1,2")],
                Origin::Postgrey134,
            ),
            (
                &[(net, "1,2,1"), (net, "1,2,0"), (net, "1,2,40")],
                Origin::Targrey,
            ),
            (
                &[(net, "1,2,91"), ("2001:db8::1/a/b", "1,2,77")],
                Origin::Targrey,
            ),
            (&[(net, "1,2,300")], Origin::Targrey),
            (&[(net, "1,2,,91")], Origin::Targrey),
            (&[(net, "1,2,1,91"), (net, "1,2,91")], Origin::Targrey),
            (
                &[(net, "1,2"), ("192.0.2.0/24/a/b", "1,2")],
                Origin::Postgrey136,
            ),
            (&[("192.0.2.7/32/a/b", "1,2")], Origin::Postgrey137),
        ] {
            assert_eq!(looks(records).origin(), origin, "{records:?}");
        }
    }

    #[test]
    fn the_database_is_guessed_from_most_records() {
        let hash = "014facc31a19f3693c0f7501d8d9251c3382c9ea";
        for (records, database) in [
            (&[("192.0.2.0/a/b", "1,2")][..], Database::Greylist),
            (&[(hash, "1700000000,1700000000")], Database::Greylist),
            (&[(hash, "1,1700000000")], Database::Clients),
            (
                &[("192.0.2.1", "12,1700000000"), ("::1", "1700000000")],
                Database::Greylist,
            ),
            (&[("192.0.2.1", "1700000000")], Database::Tarpit),
        ] {
            let guess = looks(records).database();
            if records.len() == 1 {
                assert_eq!(guess, database, "{records:?}");
            }
        }
    }

    #[test]
    fn values_are_converted_to_ours() {
        let convert = |origin: Origin, value: &str| {
            let value = origin.convert(Database::Greylist, value.as_bytes());
            String::from_utf8(value).unwrap()
        };
        assert_eq!(convert(Origin::Postgrey134, "1,2,91"), "1,2,,91");
        assert_eq!(convert(Origin::Postgrey134, "1,2"), "1,2");
        assert_eq!(convert(Origin::Postgrey137, "1,2,91"), "1,2");
        assert_eq!(convert(Origin::Targrey, "1,2,3,91"), "1,2,3,91");
        assert_eq!(
            Origin::Postgrey134.convert(Database::Clients, b"1,2"),
            b"1,2"
        );
    }
}
