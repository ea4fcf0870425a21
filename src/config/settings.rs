//! The settings as meant: what the options, once checked, tell the program to
//! do.

use std::path::PathBuf;

use crate::log::Level;
use crate::policy::rules::{Rules, Texts};

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `--inet`: a host (`None`: every address of the machine) and a port.
    Inet {
        /// Host name or address without brackets.
        host: Option<String>,
        /// Port, 0 to 65535; 0 lets the system choose.
        port: u16,
    },
    /// `--unix`: the path of a UNIX socket.
    Unix(PathBuf),
}

/// How safe a commit is (`--sync`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// Records are flushed before the reply is sent; a power cut may undo the
    /// last commit and never damages the file.
    Commit,
    /// The system flushes when it likes; a power cut may damage the file.
    None,
}

/// Everything the server needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Sockets to listen on, in the order given.
    pub listen: Vec<Listen>,
    /// Mode of UNIX sockets (`--socketmode`, 0666).
    pub socket_mode: u32,
    /// Length of the listen queue (`--listen-queue-size`).
    pub listen_queue_size: i32,
    /// Name or number of the user to become (`--user`, postgrey).
    pub user: String,
    /// Name or number of the group to become (`--group`); `None`: postgrey if
    /// there is one, else nogroup, else the user's own.
    pub group: Option<String>,
    /// Directory of the environment (`--dbdir`).
    pub dbdir: PathBuf,
    /// File for the master's process number (`--pidfile`).
    pub pidfile: Option<PathBuf>,
    /// Go to the background (`-d`).
    pub daemonize: bool,
    /// The least important level that is logged.
    pub verbosity: Level,
    /// Facility of syslog(3) (`--syslog-facility`, mail).
    pub syslog_facility: String,
    /// Whitelists of clients, in the order read.
    pub whitelist_clients: Vec<PathBuf>,
    /// Whitelists of recipients, in the order read.
    pub whitelist_recipients: Vec<PathBuf>,
    /// Decide, log and record, but always answer DUNNO (`--noaction`).
    pub noaction: bool,
    /// Close the connection behind every answer (`--exim`).
    pub exim: bool,
    /// Serve standard input and output (`--spawn`).
    pub spawn: bool,
    /// Number of worker processes (`--workers`).
    pub workers: usize,
    /// How safe a commit is (`--sync`).
    pub sync: Sync,
    /// Size of the memory map in octets (`--db-size`).
    pub db_size: usize,
    /// File for the statistics in Prometheus text format (`--stats-file`).
    pub stats_file: Option<PathBuf>,
    /// The numbers and switches that decide.
    pub rules: Rules,
    /// The texts of replies.
    pub texts: Texts,
}
