//! Log lines: their levels, and the sinks they go to.
//!
//! The text of the lines is the interface of log analysers (logwatch,
//! Monitorix, munin and others), so it is made where the decision is made and
//! handed to a sink unchanged.

/// The levels of the original (Net::Server), and what each becomes in syslog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// 0: syslog `err`; always shown.
    Error = 0,
    /// 1: syslog `warning`; always shown.
    Warning = 1,
    /// 2: syslog `notice`; not shown with `--quiet`.
    Notice = 2,
    /// 3: syslog `info`; shown with `--verbose` only.
    Info = 3,
}
