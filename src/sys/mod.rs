//! What is unsafe or belongs to the operating system, behind typed functions.
//!
//! POSIX only: what runs on Solaris is what is tested elsewhere.
#![allow(unsafe_code)]

pub mod clock;
pub(crate) mod crash;
pub(crate) mod errors;
pub(crate) mod files;
pub mod lock;
pub mod poll;
pub mod process;
pub(crate) mod shared;
pub(crate) mod signals;
pub(crate) mod socket;
pub(crate) mod syslog;
