//! The first commands on a connection.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::options::RedisOptions;
use super::question::Access;
use super::wire::pack;
use crate::sys::errors::describe;

/// Which option names the file.
const OPTION: &str = "--store-password-file";
/// Octets of the longest file with a password.
const LONGEST_PASSWORD: usize = 4096;

/// Who we are, which database, and the scripts: the name of each command, and
/// its octets.
pub fn greeting(access: &Access) -> Result<Vec<(&'static str, Vec<u8>)>, String> {
    let address = &access.options.address;
    let mut greeting = Vec::new();
    let password = password_of(&access.options)?;
    if address.user.is_some() || password.is_some() {
        let password = password.unwrap_or_default();
        let words: &[&[u8]] = match &address.user {
            Some(user) => &[b"AUTH", user.as_bytes(), &password],
            None => &[b"AUTH", &password],
        };
        greeting.push(("AUTH", pack(words)));
    }
    if address.database != 0 {
        let number = address.database.to_string();
        greeting.push(("SELECT", pack(&[b"SELECT", number.as_bytes()])));
    }
    for script in access.scripts {
        let words: &[&[u8]] = &[b"SCRIPT", b"LOAD", script.as_bytes()];
        greeting.push(("SCRIPT LOAD", pack(words)));
    }
    Ok(greeting)
}

/// The password in its file, without the end of its line.
fn password_of(options: &RedisOptions) -> Result<Option<Vec<u8>>, String> {
    let Some(path) = &options.password_file else {
        return Ok(None);
    };
    let content = read(path)
        .map_err(|error| format!("{OPTION}: {}: {}", path.display(), describe(&error)))?;
    let password = content.strip_suffix(b"\n").unwrap_or(&content);
    let password = password.strip_suffix(b"\r").unwrap_or(password);
    if password.is_empty() || password.len() > LONGEST_PASSWORD || password.contains(&b'\n') {
        let path = path.display();
        return Err(format!("{OPTION}: {path}: not a password on one line"));
    }
    Ok(Some(password.to_vec()))
}

/// The file's content, or more than a password has of it. It is not waited for,
/// whatever it is.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    let mut content = Vec::new();
    file.take(LONGEST_PASSWORD as u64 + 3)
        .read_to_end(&mut content)?;
    Ok(content)
}
