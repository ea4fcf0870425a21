//! What is unsafe or belongs to the operating system, behind typed functions.
//!
//! POSIX only: what runs on Solaris is what is tested elsewhere.
#![allow(unsafe_code)]

pub mod clock;
pub mod errors;
pub mod lock;
pub mod poll;
pub mod process;
pub mod shared;
pub mod signals;
pub mod socket;
pub mod syslog;
