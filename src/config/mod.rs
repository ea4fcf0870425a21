//! Options as typed, settings as meant.

pub mod settings;
