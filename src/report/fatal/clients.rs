//! Files of clients for `--skip_clients` and `--match_clients`.
//!
//! A line is a pattern between slashes, an address or the start of one, or the end of a
//! name, all without regard to case; one that begins with `#` is a comment.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use fancy_regex::{Regex, RegexBuilder};

use crate::admin::failure::Failure;

/// Steps of a pattern that looks back and forth, after which it does not match.
const STEPS: usize = 100_000;

/// Clients by address and name.
#[derive(Debug, Default)]
pub struct Clients {
    addresses: Vec<Vec<u8>>,
    ends: Vec<String>,
    patterns: Vec<Regex>,
}

impl Clients {
    /// Reads files; a line that cannot be used is told on standard error.
    pub fn read<'n>(files: impl Iterator<Item = &'n OsStr>) -> Result<Clients, Failure> {
        let mut clients = Clients::default();
        for name in files {
            let path = Path::new(name);
            let text = fs::read(path).map_err(|error| Failure::file(path, &error))?;
            for (index, line) in text.split(|&octet| octet == b'\n').enumerate() {
                if let Err(why) = clients.add(line.trim_ascii()) {
                    let file = path.display();
                    let number = index + 1;
                    crate::admin::complain(&format!("WARNING: {file} line {number}: {why}"));
                }
            }
        }
        Ok(clients)
    }

    fn add(&mut self, line: &[u8]) -> Result<(), String> {
        if line.is_empty() || line.starts_with(b"#") {
            return Ok(());
        }
        if line.iter().any(u8::is_ascii_whitespace) {
            return Err("doesn't look like a hostname".into());
        }
        let text = String::from_utf8_lossy(line);
        if let Some(pattern) = text
            .strip_prefix('/')
            .and_then(|rest| rest.strip_suffix('/'))
        {
            let regex = RegexBuilder::new(&format!("(?i){pattern}"))
                .backtrack_limit(STEPS)
                .build()
                .map_err(|error| error.to_string().replace('\n', " "))?;
            self.patterns.push(regex);
        } else if is_address(line) {
            self.addresses.push(line.to_ascii_lowercase());
        } else {
            self.ends.push(text.to_ascii_lowercase());
        }
        Ok(())
    }

    /// True if nothing is listed.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.ends.is_empty() && self.patterns.is_empty()
    }

    /// True if the client is listed, by its address or its name.
    pub fn contain(&self, name: &[u8], address: &[u8]) -> bool {
        let address = address.to_ascii_lowercase();
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        self.addresses
            .iter()
            .any(|start| address.starts_with(start))
            || self.ends.iter().any(|end| name.ends_with(end))
            || self
                .patterns
                .iter()
                .any(|regex| regex.is_match(&name).unwrap_or(false))
    }
}

/// An IPv4 address or its first numbers, or what has the colons of IPv6.
fn is_address(line: &[u8]) -> bool {
    let is_number =
        |part: &[u8]| (1..=3).contains(&part.len()) && part.iter().all(u8::is_ascii_digit);
    let parts: Vec<&[u8]> = line.split(|&octet| octet == b'.').collect();
    (parts.len() <= 4 && parts.into_iter().all(is_number)) || line.contains(&b':')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_found_by_name_and_address() {
        let mut clients = Clients::default();
        for line in [
            "# x",
            "",
            "192.0.2",
            "2001:db8:",
            "Example.org",
            "/^mail\\d+\\.(?!good)/",
        ] {
            clients.add(line.as_bytes()).unwrap();
        }
        for (name, address, is_there) in [
            ("unknown", "192.0.2.7", true),
            // As in the original: the start of a text.
            ("unknown", "192.0.200.7", true),
            ("unknown", "192.0.3.7", false),
            ("unknown", "2001:DB8::1", true),
            ("a.EXAMPLE.org", "198.51.100.1", true),
            ("example.org.net", "198.51.100.1", false),
            ("mail7.bad.example", "198.51.100.1", true),
            ("mail7.good.example", "198.51.100.1", false),
        ] {
            let found = clients.contain(name.as_bytes(), address.as_bytes());
            assert_eq!(found, is_there, "{name} {address}");
        }
        assert!(clients.add(b"two words").is_err());
        assert!(clients.add(b"/(/").is_err());
        assert!(!clients.is_empty() && Clients::default().is_empty());
    }
}
