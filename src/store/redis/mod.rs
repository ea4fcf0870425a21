//! Records in Redis or Valkey, on one server or in a cluster.
//!
//! [`client`] sends requests and takes replies; what it needs lies below it:
//! a [`node`] for each server, its [`stream`], the replies on the wire
//! ([`wire`]), the map of slots ([`slots`]), and what errors mean ([`words`]).

pub mod client;
mod exchange;
mod greeting;
mod lookup;
mod node;
pub mod options;
mod probe;
mod question;
mod routing;
mod slots;
mod stream;
mod task;
mod tls;
mod wire;
mod words;
