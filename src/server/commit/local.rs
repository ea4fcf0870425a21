//! Commits of a process that has no writer: a spawned session.
//!
//! The store takes the claim and waits for it for a while; then the request is
//! answered without the store.

use std::rc::Rc;

use super::apply_counted;
use super::newcomers::NewcomerLimit;
use crate::log::Log;
use crate::policy::command::{Command, Outcome};
use crate::policy::rules::Rules;
use crate::server::shared::Shared;
use crate::server::store::ServerStore;
use crate::store::{ErrorKind, StoreError};

/// Commits one command at a time.
pub struct LocalCommit {
    /// The store, for reading as well.
    pub store: ServerStore,
    limit: Option<NewcomerLimit>,
    log: Rc<Log>,
    shared: Shared,
}

impl LocalCommit {
    /// Commits into this store.
    pub fn new(store: ServerStore, rules: &Rules, log: Rc<Log>, shared: Shared) -> Self {
        LocalCommit {
            store,
            limit: NewcomerLimit::new(rules, &log),
            log,
            shared,
        }
    }

    /// Commits an encoded command. An error has been logged.
    pub fn commit(&mut self, rules: &Rules, mut encoded: &[u8]) -> Result<Outcome, ErrorKind> {
        let Some(command) = Command::decode(&mut encoded) else {
            self.log.complain(&StoreError::of_bug().to_string());
            return Err(ErrorKind::Other);
        };
        let mut outcomes = Vec::with_capacity(1);
        let applied = apply_counted(
            self.store.get(),
            rules,
            self.limit.as_mut(),
            &self.shared.counters,
            &mut [command],
            &mut outcomes,
        );
        let error = match (applied, outcomes.pop()) {
            (Ok(_), Some(Some(outcome))) => return Ok(outcome),
            (Ok(report), _) => report.troubles.into_iter().next(),
            (Err(error), _) => Some(error),
        };
        let error = error.unwrap_or_else(StoreError::of_bug);
        let line = format!("{error}: requests pass ungreylisted");
        self.log.complain_about(error.cause(), &line);
        Err(error.kind)
    }
}
