//! The lines the policy logs: their levels, and how each is put together.
//!
//! The exact octets are the interface of log analysers (logwatch, Monitorix,
//! munin and others), so they are made here, beside the decision.

use super::request::{Attribute, Request};

/// How important a line is: the four levels of the original (those of
/// Net::Server), and before them what is wrong with the server itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The server ends: `FATAL: ` and syslog `crit`; always shown.
    Fatal,
    /// The server's own trouble, with which it goes on: `WARNING: ` and syslog
    /// `warning`; always shown.
    Warning,
    /// Net::Server's 0: syslog `err`; always shown.
    Zero,
    /// Net::Server's 1: syslog `warning`; always shown.
    One,
    /// Net::Server's 2: syslog `notice`; not shown with `--quiet`.
    Two,
    /// Net::Server's 3: syslog `info`; shown with `--verbose` only.
    Three,
}

/// Why an action was taken, as it stands after `reason=`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// The client is on a whitelist of clients.
    ClientWhitelist,
    /// The recipient is on a whitelist of recipients.
    RecipientWhitelist,
    /// The sender is on a whitelist of senders.
    SenderWhitelist,
    /// The recipient is not among those that are greylisted (`--greylist-recipients`).
    NotOptedIn,
    /// The client's name does not look like a dial-up line (`--s25r`).
    NotSuspicious,
    /// The client is on the auto-whitelist.
    ClientAutoWhitelist,
    /// The triplet was first seen in this second.
    New,
    /// The triplet was seen before; the seconds that are missing.
    EarlyRetry(f64),
    /// The client is sent to the tarpit (`--log-tarpit`).
    Tarpit,
    /// It has waited in the tarpit (`--log-tarpit`).
    TarpitPassed,
    /// The mail was held in the tarpit before (`--tarpit-per-message`).
    HeldBefore,
    /// The database was needed and is in trouble.
    StoreFailed,
    /// The triplet has passed; with a header the seconds it waited.
    TripletFound(Option<f64>),
}

/// Appends the line of an action; attributes that are empty or `0` are left
/// out, as in the original.
pub fn push_action(line: &mut Vec<u8>, request: &Request, reason: Reason) {
    let queue_id = request.text(Attribute::QueueId);
    if is_shown(queue_id) {
        line.extend_from_slice(queue_id);
        line.extend_from_slice(b": ");
    }
    let action: &[u8] = match reason {
        Reason::New | Reason::EarlyRetry(_) => b"action=greylist, reason=",
        Reason::Tarpit => b"action=tarpit, reason=",
        _ => b"action=pass, reason=",
    };
    line.extend_from_slice(action);
    push_reason(line, reason);
    for attribute in [
        Attribute::ClientName,
        Attribute::ClientAddress,
        Attribute::Sender,
        Attribute::Recipient,
    ] {
        let value = request.text(attribute);
        if is_shown(value) {
            line.extend_from_slice(b", ");
            line.extend_from_slice(attribute.name().as_bytes());
            line.push(b'=');
            line.extend_from_slice(value);
        }
    }
}

fn push_reason(line: &mut Vec<u8>, reason: Reason) {
    match reason {
        Reason::ClientWhitelist => line.extend_from_slice(b"client whitelist"),
        Reason::RecipientWhitelist => line.extend_from_slice(b"recipient whitelist"),
        Reason::SenderWhitelist => line.extend_from_slice(b"sender whitelist"),
        Reason::NotOptedIn => line.extend_from_slice(b"recipient not opted in"),
        Reason::NotSuspicious => line.extend_from_slice(b"not S25R"),
        Reason::ClientAutoWhitelist => line.extend_from_slice(b"client AWL"),
        Reason::New | Reason::Tarpit => line.extend_from_slice(b"new"),
        Reason::TarpitPassed => line.extend_from_slice(b"tarpit passed"),
        Reason::HeldBefore => line.extend_from_slice(b"held before"),
        Reason::StoreFailed => line.extend_from_slice(b"database trouble"),
        Reason::EarlyRetry(missing) => {
            line.extend_from_slice(b"early-retry (");
            super::number::push_number(line, missing);
            line.extend_from_slice(b"s missing)");
        }
        Reason::TripletFound(waited) => {
            line.extend_from_slice(b"triplet found");
            if let Some(waited) = waited {
                line.extend_from_slice(b", delay=");
                super::number::push_number(line, waited);
            }
        }
    }
}

/// Appends `whitelisted: NAME[ADDRESS]`, the address alone without a name.
pub fn push_whitelisted(line: &mut Vec<u8>, client_name: &[u8], address: &[u8]) {
    line.extend_from_slice(b"whitelisted: ");
    if is_shown(client_name) {
        line.extend_from_slice(client_name);
        line.push(b'[');
        line.extend_from_slice(address);
        line.push(b']');
    } else {
        line.extend_from_slice(address);
    }
}

/// Appends `tarpit whitelisted: NAME[ADDRESS]`, with the brackets even without a
/// name, as in taRgrey.
pub fn push_tarpit_whitelisted(line: &mut Vec<u8>, client_name: &[u8], address: &[u8]) {
    for part in [b"tarpit whitelisted: ", client_name, b"[", address, b"]"] {
        line.extend_from_slice(part);
    }
}

/// What is false in the original's language is not shown.
fn is_shown(value: &[u8]) -> bool {
    !value.is_empty() && value != b"0"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_after_the_tarpit_has_brackets_with_and_without_a_name() {
        for (name, expected) in [
            ("", "tarpit whitelisted: [203.0.113.7]"),
            ("a.example", "tarpit whitelisted: a.example[203.0.113.7]"),
        ] {
            let mut line = Vec::new();
            push_tarpit_whitelisted(&mut line, name.as_bytes(), b"203.0.113.7");
            assert_eq!(String::from_utf8_lossy(&line), expected);
        }
    }
}
