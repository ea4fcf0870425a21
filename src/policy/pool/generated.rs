//! Names that were made from an address: those of lines, and of machines that are
//! let by the hour.
//!
//! Such a name says nothing about who sends. It is told by two or more parts of the
//! address in it: as numbers of their own, run together, or in hexadecimal.

use std::fmt::Write as _;
use std::net::IpAddr;

use memchr::memmem;

/// Parts of an address that have to be found.
const ENOUGH: usize = 2;
/// The smallest group of an IPv6 address that says something: smaller ones stand in
/// many names.
const LEAST_GROUP: u16 = 0x100;

/// True if the name, in lower case, was made from the address.
pub fn is_generated(name: &[u8], address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_made_of_octets(name, address.octets()),
        IpAddr::V6(address) => is_made_of_groups(name, address.segments()),
    }
}

fn is_made_of_octets(name: &[u8], octets: [u8; 4]) -> bool {
    let mut backwards = octets;
    backwards.reverse();
    let parts = octets.map(u16::from);
    count_words(name, u8::is_ascii_digit, parts, |word| read(word, 3, 10)) >= ENOUGH
        || count_words(name, u8::is_ascii_alphanumeric, parts, |word| match word {
            [_, _] => read(word, 2, 16),
            _ => None,
        }) >= ENOUGH
        // In the order of the address, and in that of the reverse zone.
        || [octets, backwards].into_iter().any(|octets| is_run_together(name, octets))
}

fn is_run_together(name: &[u8], octets: [u8; 4]) -> bool {
    let [a, b, c, d] = octets;
    let mut text = Text::default();
    text.has(name, format_args!("{a}{b}{c}{d}"))
        || octets.windows(ENOUGH).any(|pair| {
            // Fewer digits stand together in many names.
            (pair.iter().all(|&octet| octet >= 10)
                && pair.iter().any(|&octet| octet >= 100)
                && text.has(name, format_args!("{}{}", pair[0], pair[1])))
                || text.has(name, format_args!("{:03}{:03}", pair[0], pair[1]))
                || text.has(name, format_args!("{:02x}{:02x}", pair[0], pair[1]))
        })
}

fn is_made_of_groups(name: &[u8], groups: [u16; 8]) -> bool {
    let mut text = Text::default();
    count_words(name, u8::is_ascii_alphanumeric, groups, |word| {
        read(word, 4, 16).filter(|&group| group >= LEAST_GROUP)
    }) >= ENOUGH
        || groups.windows(ENOUGH).any(|pair| {
            pair.iter().any(|&group| group >= LEAST_GROUP)
                && text.has(name, format_args!("{:04x}{:04x}", pair[0], pair[1]))
        })
}

/// The number that a word of so many digits at most is.
fn read(word: &[u8], longest: usize, radix: u32) -> Option<u16> {
    let word = std::str::from_utf8(word)
        .ok()
        .filter(|word| word.len() <= longest)?;
    u16::from_str_radix(word, radix).ok()
}

/// How many of the parts stand in the name as words of such octets; each word counts
/// for one of them.
fn count_words<const N: usize>(
    name: &[u8],
    is_of_word: fn(&u8) -> bool,
    parts: [u16; N],
    read: impl Fn(&[u8]) -> Option<u16>,
) -> usize {
    let mut left = parts.map(Some);
    let words = name.split(|octet| !is_of_word(octet));
    let is_part = |number: &u16| {
        let found = left.iter_mut().find(|part| **part == Some(*number));
        found.is_some_and(|part| part.take().is_some())
    };
    words.filter_map(read).filter(is_part).count()
}

/// A short text to look for, made without allocating.
#[derive(Default)]
struct Text {
    octets: [u8; 12],
    length: usize,
}

impl Text {
    /// True if the name has this text in it.
    fn has(&mut self, name: &[u8], text: std::fmt::Arguments) -> bool {
        self.length = 0;
        // It has room for four octets of three digits each.
        self.write_fmt(text).is_ok() && memmem::find(name, &self.octets[..self.length]).is_some()
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        let room = self
            .octets
            .get_mut(self.length..end)
            .ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_made_from_addresses_are_told() {
        for (name, address, expected) in [
            ("p4fe2a1b7.dip0.t-ipconnect.example", "79.226.161.183", true),
            ("dsl-189-146-1-2-dyn.example.com.mx", "189.146.1.2", true),
            ("host86-1-2-3.range86-1.example.com", "86.1.2.3", true),
            ("c-024-001-002-003.example.net", "24.1.2.3", true),
            ("ec2-3-80-1-2.compute-1.example.com", "3.80.1.2", true),
            ("183.161.226.79.example.net", "79.226.161.183", true),
            ("a10-219.smtp-out.example.com", "54.240.10.219", true),
            ("m223-45.example.net", "159.135.223.45", true),
            ("line079226161183.example.net", "79.226.161.183", true),
            ("line183161226079.example.net", "79.226.161.183", true),
            ("line79226161183.example.net", "79.226.161.183", true),
            ("4f-e2-a1-b7.example.net", "79.226.161.183", true),
            ("mail.ip79226.example.net", "79.226.161.183", true),
            ("mail.ip22679.example.net", "79.226.161.183", true),
            ("mail1226.example.net", "12.26.161.183", false),
            ("mail1001.example.net", "100.1.161.183", false),
            ("pool-b7a1e24f.example.net", "79.226.161.183", true),
            ("mail-ed1-f53.example.com", "209.85.208.53", false),
            (
                "mail-eopbgr10051.outbound.example.com",
                "40.107.1.51",
                false,
            ),
            ("o1.sg.example.com", "167.89.93.77", false),
            ("blu004-omc4s32.example.com", "65.55.111.171", false),
            ("mx1.example.com", "1.1.1.1", false),
            ("mx1-1.example.com", "1.1.1.1", true),
            ("mail.example.com", "192.0.2.7", false),
            ("mx7.example.com", "192.0.2.7", false),
            ("2001-db8-1-2--7.example.net", "2001:db8:1:2::7", true),
            ("20010db800010002.example.net", "2001:db8:1:2::7", true),
            ("mx2001.example.net", "2001:db8:1:2::7", false),
            ("mail-7.example.net", "2001:db8:1:2::7", false),
            ("host86-1-2-3.example.com", "::ffff:86.1.2.3", true),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(is_generated(name.as_bytes(), address), expected, "{name}");
        }
    }
}
