//! The server.
pub mod counters;
pub mod engine;
pub mod shared;
/// stub
pub fn run(_: &crate::config::settings::Settings) -> i32 { 1 }
