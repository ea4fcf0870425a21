//! Refusals by Postfix, held back until it is known whether the server tells of them: the
//! lines of both may come in any order, since they are of one second, or of two logs.

use std::collections::VecDeque;

use crate::mail_log::postfix::{Refused, without_quotes};
use crate::mail_log::request::Logged;

/// Postfix refuses a client within so many seconds of the server's answer, by the clocks
/// of both.
pub const SAME: i64 = 5;
/// What the reason of a refusal is called of which only Postfix tells.
pub const TOLD_BY_POSTFIX: &str = "told by Postfix";
/// More are not held back.
const MOST: usize = 10_000;

/// A refusal.
#[derive(Clone, Debug)]
pub struct Held {
    /// When, in seconds since 1970.
    pub time: i64,
    /// How often, since rsyslogd puts equal lines together.
    pub times: u64,
    /// Client name and address, sender, recipient.
    parts: [Vec<u8>; 4],
}

/// Refusals in the order of their lines.
#[derive(Clone, Debug, Default)]
pub struct Refusals(VecDeque<Held>);

impl Refusals {
    /// Holds one back.
    pub fn push(&mut self, refused: &Refused, time: i64, times: u64) {
        let parts = [
            refused.client_name,
            refused.client_address,
            &without_quotes(refused.sender),
            &without_quotes(refused.recipient),
        ];
        self.0.push_back(Held {
            time,
            times,
            parts: parts.map(<[u8]>::to_vec),
        });
    }

    /// The next one about which nothing more can come at this time.
    pub fn pop(&mut self, now: i64) -> Option<Held> {
        let is_due = self.0.len() > MOST || self.0.front()?.time.saturating_add(SAME) < now;
        is_due.then(|| self.0.pop_front()).flatten()
    }
}

impl Held {
    /// The request, as the server would have told it.
    pub fn logged(&self) -> Logged<'_> {
        let [client_name, client_address, sender, recipient] = &self.parts;
        Logged {
            action: b"greylist",
            reason: TOLD_BY_POSTFIX.as_bytes(),
            delay: None,
            client_name,
            client_address,
            sender,
            recipient,
        }
    }
}
