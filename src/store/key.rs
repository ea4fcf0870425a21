//! Keys as LMDB takes them: 1 to 511 octets, whatever the policy made.
//!
//! A key of 511 octets or more keeps its first 470, then `#` and the SHA-1 of
//! the whole, 511 octets in all; the whole key stands in the record after a
//! line feed. No shorter key has 511 octets and no attribute holds a line feed,
//! so neither form can be mistaken. The empty key (a missing client address
//! under the rules of 1.34) is a line feed.

use std::borrow::Cow;

use crate::policy::triplet::sha1_hex;

/// The longest key of LMDB.
pub const MAX_KEY: usize = 511;
const HEAD: usize = MAX_KEY - 1 - 40;
const EMPTY_KEY: &[u8] = b"\n";

/// True if the whole key of a record stands in its value.
fn is_long(stored_key: &[u8]) -> bool {
    stored_key.len() == MAX_KEY
}

/// The key under which a record is stored.
pub fn stored_key<'a>(key: &'a [u8], buffer: &'a mut [u8; MAX_KEY]) -> &'a [u8] {
    if key.is_empty() {
        return EMPTY_KEY;
    }
    if key.len() < MAX_KEY {
        return key;
    }
    buffer[..HEAD].copy_from_slice(&key[..HEAD]);
    buffer[HEAD] = b'#';
    buffer[HEAD + 1..].copy_from_slice(&sha1_hex(key));
    buffer
}

/// The value as it is stored under that key.
pub fn stored_value<'a>(key: &[u8], value: &'a [u8]) -> Cow<'a, [u8]> {
    if key.len() < MAX_KEY {
        return Cow::Borrowed(value);
    }
    Cow::Owned([value, b"\n", key].concat())
}

/// The value as the policy knows it.
pub fn plain_value<'a>(stored_key: &[u8], stored_value: &'a [u8]) -> &'a [u8] {
    match stored_value.iter().position(|&b| b == b'\n') {
        Some(end) if is_long(stored_key) => &stored_value[..end],
        _ => stored_value,
    }
}

/// Key and value as the policy knows them.
pub fn split_stored<'a>(stored_key: &'a [u8], stored_value: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    let value = plain_value(stored_key, stored_value);
    let key = match stored_value.get(value.len() + 1..) {
        Some(whole_key) => whole_key,
        None if stored_key == EMPTY_KEY => b"",
        None => stored_key,
    };
    (key, value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_every_length_fit_and_come_back() {
        for length in [0, 1, 470, 510, 511, 512, 1600] {
            let key = vec![b'k'; length];
            let mut buffer = [0; MAX_KEY];
            let stored = stored_key(&key, &mut buffer).to_vec();
            assert!((1..=MAX_KEY).contains(&stored.len()));
            let value = stored_value(&key, b"1,2,3").into_owned();
            assert_eq!(split_stored(&stored, &value), (&key[..], &b"1,2,3"[..]));
        }
    }

    #[test]
    fn long_keys_with_one_head_differ() {
        let (mut a, mut b) = ([0; MAX_KEY], [0; MAX_KEY]);
        let (first, second) = (vec![b'k'; 600], vec![b'k'; 601]);
        assert_ne!(stored_key(&first, &mut a), stored_key(&second, &mut b));
    }
}
