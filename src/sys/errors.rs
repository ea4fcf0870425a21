//! The system's own words for its errors.

use std::io;

use nix::errno::Errno;

/// What the system says, without the number that std puts after it.
pub fn describe(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(
        || error.to_string(),
        |number| Errno::from_raw(number).desc().to_owned(),
    )
}
