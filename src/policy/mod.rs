//! The policy itself: what is answered to a request, and why.
//!
//! Pure code: no I/O, no clock, no unsafe. Time is a parameter, bytes are
//! bytes. The daemon, the dry run, `postgreyctl` and the tests of the recorded
//! dialogues all call these functions.
//!
//! The way of a request: [`request`] reads it, [`decide`] tries what needs no
//! store and builds a [`command`], a transaction [`apply`]s that, and
//! [`decide`] turns the outcome into reply and log lines.

pub mod apply;
pub mod client;
pub mod command;
pub mod decide;
pub mod held;
pub mod instances;
mod limits;
pub mod line;
pub mod newcomers;
pub mod number;
pub mod pool;
pub mod record;
pub mod request;
pub mod rules;
pub mod s25r;
pub mod text;
pub mod triplet;
pub mod whitelist;
