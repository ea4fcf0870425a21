//! Two records under one key become one, for the client's good: the earlier
//! first time, the later last time, the larger count. Merging the same record
//! once more changes nothing, so an import that was interrupted can be run
//! again.

use crate::policy::number::number_of_text;
use crate::policy::record::{ClientRecord, Database, TripletRecord};
use crate::policy::rules::Rules;

/// The record to keep. What is no record gives way to what is.
pub fn merged(rules: &Rules, database: Database, old: &[u8], new: &[u8]) -> Vec<u8> {
    match database {
        Database::Greylist => match (TripletRecord::parse(old), TripletRecord::parse(new)) {
            (Some(old), Some(new)) => merged_triplet(rules, &old, &new),
            (None, _) => new.to_vec(),
            (_, None) => old.to_vec(),
        },
        Database::Clients => match (ClientRecord::parse(old), ClientRecord::parse(new)) {
            (Some(old), Some(new)) => {
                [later(old.count, new.count), later(old.last, new.last)].join(&b',')
            }
            (None, _) => new.to_vec(),
            (_, None) => old.to_vec(),
        },
        Database::Tarpit => later(old, new).to_vec(),
    }
}

/// The first of the two that is not smaller than the other.
fn later<'a>(old: &'a [u8], new: &'a [u8]) -> &'a [u8] {
    if number_of_text(new) > number_of_text(old) {
        new
    } else {
        old
    }
}

fn merged_triplet(rules: &Rules, old: &TripletRecord, new: &TripletRecord) -> Vec<u8> {
    let is_newer = number_of_text(new.last) > number_of_text(old.last);
    let last = if is_newer { new.last } else { old.last };
    let is_earlier = number_of_text(new.first) < number_of_text(old.first);
    let first = if is_earlier { new.first } else { old.first };
    let octet = match (is_newer, old.octet, new.octet) {
        (true, octet, b"") | (false, b"", octet) | (true, _, octet) | (false, octet, _) => octet,
    };
    let has_passed = number_of_text(last) - number_of_text(first) >= rules.delay;
    let count = match (old.count, new.count) {
        (Some(old), Some(new)) => Some(later(old, new)),
        // Without a count a triplet that has waited has passed, whatever the
        // number of retries that the server wants.
        (None, None) => None,
        (Some(count), None) | (None, Some(count)) => (!has_passed).then_some(count),
    };
    let mut value = [first, last].join(&b',');
    if count.is_some() || !octet.is_empty() {
        value.push(b',');
        value.extend_from_slice(count.unwrap_or_default());
    }
    if !octet.is_empty() {
        value.push(b',');
        value.extend_from_slice(octet);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merge(database: Database, old: &str, new: &str) -> String {
        let value = merged(&Rules::default(), database, old.as_bytes(), new.as_bytes());
        String::from_utf8(value).unwrap()
    }

    #[test]
    fn the_client_gets_the_better_of_two_records() {
        for (old, new, both) in [
            ("100,200,1,5", "50,150,3,7", "50,200,3,5"),
            ("100,200,1,5", "150,300,0", "100,300,1,5"),
            ("100,200,1", "150,300,0,8", "100,300,1,8"),
            ("100,200", "100,200", "100,200"),
            ("100,200", "100,500,1,9", "100,500,,9"),
            ("100,200", "100,300,1,9", "100,300,1,9"),
            ("100,500,,9", "100,500,2", "100,500,,9"),
            ("nonsense", "1,2,3", "1,2,3"),
            ("1,2,3", "nonsense", "1,2,3"),
        ] {
            assert_eq!(merge(Database::Greylist, old, new), both, "{old} {new}");
        }
        assert_eq!(merge(Database::Clients, "5,100", "3,200"), "5,200");
        assert_eq!(merge(Database::Clients, "x", "3,200"), "3,200");
        assert_eq!(merge(Database::Tarpit, "100", "200"), "200");
    }

    #[test]
    fn merging_again_changes_nothing() {
        let values = [
            "1,2",
            "1,400,,7",
            "1,400,2,7",
            "300,400,0",
            "0,900",
            "5,6,1,200",
        ];
        for old in values {
            for new in values {
                let once = merge(Database::Greylist, old, new);
                assert_eq!(merge(Database::Greylist, &once, new), once, "{old} {new}");
                assert_eq!(merge(Database::Greylist, &once, old), once, "{old} {new}");
            }
        }
    }
}
