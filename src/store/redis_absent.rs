//! In a program that is built without Redis: a store that there never is, for the options
//! cannot name one.

use std::time::Duration;

use super::{Store, StoreError};
use crate::config::settings::Settings;

/// None.
pub fn open(_: &Settings, _: Duration) -> Option<Box<dyn Store>> {
    None
}

/// Nothing is to be tried.
pub fn probe(_: &Settings, _: Duration) -> Option<Result<Vec<String>, StoreError>> {
    None
}
