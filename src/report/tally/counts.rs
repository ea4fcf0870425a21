//! What is counted by which terms, as plain numbers.

use regex::bytes::Regex;

use super::periods::By;
use crate::policy::client::ClientAddress;
use crate::policy::decide::Whitelists;
use crate::policy::pool::Pools;
use crate::policy::request::{Attribute, Request};
use crate::policy::rules::Rules;
use crate::policy::triplet::Keys;

/// What decides how lines are counted.
#[derive(Clone, Debug)]
pub struct Terms {
    /// The length of the periods.
    pub by: By,
    /// The server's rules: what a triplet is.
    pub rules: Rules,
    /// The server's lists that have a say in that.
    pub lists: Whitelists,
    /// The domains of large senders.
    pub pools: Pools,
    /// What is in Postfix' reply to a greylisted client.
    pub greylist_text: Regex,
}

impl Terms {
    /// Builds the keys of a request as the server does: name and address of its client,
    /// sender and recipient.
    pub fn build_keys(&self, parts: [&[u8]; 4], request: &mut Request, keys: &mut Keys) {
        let [name, text, sender, recipient] = parts;
        request.reset();
        request.set(Attribute::ClientName, name);
        request.set(Attribute::ClientAddress, text);
        request.set(Attribute::Sender, sender);
        request.set(Attribute::Recipient, recipient);
        let client = ClientAddress::new(&self.rules, text);
        let client = client.unwrap_or(ClientAddress { text, parsed: None });
        keys.is_by_address = self.lists.is_suspect(name, &client);
        self.lists.build_keys(&self.rules, &client, request, keys);
    }
}

/// Lines by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// All.
    pub read: u64,
    /// Requests of the server's lines, those that syslogd put together too.
    pub requests: u64,
    /// Other lines of the server.
    pub postgrey: u64,
    /// Lines of smtpd.
    pub postfix: u64,
    /// Of other programs.
    pub other: u64,
    /// Lines about requests that could not be understood.
    pub unknown: u64,
    /// Lines about requests without a time, counted nowhere else.
    pub untimed: u64,
    /// Lines that the system's log says it has lost.
    pub lost: u64,
    /// Lines that are hours earlier than one before them.
    pub disordered: u64,
}

/// What is counted for a period.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// By kind of answer, see [`Tally::kinds`].
    pub counts: Vec<u64>,
    /// Distinct clients, by address.
    pub clients: u64,
    /// Distinct triplets.
    pub triplets: u64,
    /// Clients sent to the tarpit.
    pub held: u64,
    /// Of these, those that waited.
    pub waited: u64,
    /// Clients put on the auto-whitelist, by retries or by waiting.
    pub whitelisted: u64,
    /// Clients that broke off after RCPT or DATA, by Postfix' lines.
    pub broken_off: u64,
}
