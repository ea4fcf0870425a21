//! Reading of mail logs: when a line was written, by which program, and what it says
//! about requests.
//!
//! Lines are octets, and most of what is in them was chosen by clients: a line is
//! taken for one of the server only by the program that stands in front of it.

pub mod head;
pub mod postfix;
pub mod request;
pub mod time;

use memchr::memmem;

/// Where a part of a text begins.
pub fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    memmem::find(text, part)
}
