//! S25R: which client names look like a line that is no mail server.
//!
//! Decides, in front of everything that needs the store, whether a client may
//! pass because its reverse name looks like a server's (`--s25r`). The rules
//! are the published ones, numbered as published, so that a log line, the
//! Postfix table `permit_client_nots25r` and s25r(7) speak of the same thing.
//! Exceptions (`--s25r-except=FILE`) are asked first, in the order of the
//! file, as Postfix asks the lines of its table: one for Postfix can be given
//! as it is.

mod exceptions;
mod posix;
mod rules;
mod statement;
mod table;
#[cfg(test)]
mod tables;

pub use exceptions::{Exceptions, Reason, Verdict};
pub use rules::{RULES, suspicious_rule};
