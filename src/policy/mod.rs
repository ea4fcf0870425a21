//! The policy itself: what is answered to a request, and why.
//!
//! Pure code: no I/O, no clock, no unsafe. Time is a parameter, bytes are
//! bytes. The daemon, the dry run, `postgreyctl` and the tests of the recorded
//! dialogues all call these functions.

pub mod rules;
pub mod s25r;
pub mod whitelist;
