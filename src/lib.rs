//! postgrey: a greylisting and tarpitting policy server for Postfix.
//!
//! The layers, from the top: the programs in `main.rs` and `bin/`, then
//! [`server`], [`admin`] and [`report`], then [`policy`], [`store`], [`log`], [`mail_log`],
//! [`config`] and [`sys`].
//! Dependencies point down only; `policy` does no I/O and knows no clock.
#![deny(unsafe_code)]

pub mod admin;
pub mod config;
pub mod log;
pub mod mail_log;
pub mod policy;
pub mod report;
pub mod server;
pub mod store;
pub mod sys;
