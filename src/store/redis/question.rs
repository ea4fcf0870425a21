//! What nodes are asked, and what becomes of it.

use std::path::PathBuf;

use super::options::{HostPort, RedisOptions};

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// By TCP.
    Host(HostPort),
    /// At a UNIX socket.
    Path(PathBuf),
}

/// What every node has to know.
pub struct Access {
    /// The options.
    pub options: RedisOptions,
    /// The scripts, which are loaded at each connect.
    pub scripts: &'static [&'static str],
    /// True in a cluster.
    pub is_cluster: bool,
}

/// To what the next reply of a node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// A command of the greeting.
    Greeting(&'static str),
    /// ASKING, or a script that is loaded again: an error shows at the command
    /// that follows.
    Aside,
    /// CLUSTER SLOTS.
    Map,
    /// The request of this number.
    Request(usize),
}

impl Question {
    /// True for a request.
    pub fn is_request(&self) -> bool {
        matches!(self, Question::Request(_))
    }
}

/// The reason of what is not answered by the deadline.
pub const TOO_LATE: &str = "no answer in time";

/// Why a node is left alone, and whether longer each time.
pub struct Failure {
    /// In plain words.
    pub reason: String,
    /// True if it may be in trouble for long.
    pub grows: bool,
    /// True if it has not said anything: it may be well, and far away.
    pub is_late: bool,
}

impl Failure {
    /// What is not answered by the deadline.
    pub fn late() -> Self {
        Failure {
            is_late: true,
            ..Failure::from(TOO_LATE.to_owned())
        }
    }
}

impl From<String> for Failure {
    fn from(reason: String) -> Self {
        Failure {
            reason,
            grows: true,
            is_late: false,
        }
    }
}

/// What a node was asked when it failed.
pub struct Lost {
    /// What was sent, at least in part: nobody knows whether it was done.
    pub sent: Vec<Question>,
    /// What was not.
    pub unsent: Vec<Question>,
}
