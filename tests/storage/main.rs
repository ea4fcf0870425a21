//! The files of the database under what may happen to them: a disk that hangs,
//! damage, kill -9 at any point, small buffers, many sessions.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod buffers;
mod damage;
#[path = "../common/dialogue.rs"]
mod dialogue;
mod hang;
mod matrix;
#[path = "../common/random.rs"]
mod random;
mod replaced;
#[path = "../common/server.rs"]
mod server;
mod sessions;
mod tools;
