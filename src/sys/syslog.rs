//! syslog(3), which on every system knows how to reach its daemon.

use std::ffi::CStr;

/// Severities, as in syslog(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names are syslog's
pub enum Severity {
    Critical,
    Error,
    Warning,
    Notice,
    Info,
}

const IDENT: &CStr = c"postgrey";

/// The number of a facility; `None` if there is none of this name.
pub fn facility_number(name: &str) -> Option<i32> {
    Some(match name.to_ascii_lowercase().as_str() {
        "auth" | "security" => libc::LOG_AUTH,
        "authpriv" => AUTHPRIV,
        "cron" => libc::LOG_CRON,
        "daemon" => libc::LOG_DAEMON,
        "ftp" => FTP,
        "kern" => libc::LOG_KERN,
        "lpr" => libc::LOG_LPR,
        "mail" => libc::LOG_MAIL,
        "news" => libc::LOG_NEWS,
        "syslog" => libc::LOG_SYSLOG,
        "user" => libc::LOG_USER,
        "uucp" => libc::LOG_UUCP,
        "local0" => libc::LOG_LOCAL0,
        "local1" => libc::LOG_LOCAL1,
        "local2" => libc::LOG_LOCAL2,
        "local3" => libc::LOG_LOCAL3,
        "local4" => libc::LOG_LOCAL4,
        "local5" => libc::LOG_LOCAL5,
        "local6" => libc::LOG_LOCAL6,
        "local7" => libc::LOG_LOCAL7,
        _ => return None,
    })
}

/// Facilities that not every libc names; the numbers are those of RFC 5424.
const AUTHPRIV: i32 = 10 << 3;
const FTP: i32 = 11 << 3;

/// Opens the log of the facility with this name (mail, if there is none), with
/// the process number in each line.
pub fn open(facility: &str) {
    let facility = facility_number(facility).unwrap_or(libc::LOG_MAIL);
    // SAFETY: the ident is a static string, which openlog keeps a pointer to.
    unsafe { libc::openlog(IDENT.as_ptr(), libc::LOG_PID | libc::LOG_NDELAY, facility) }
}

/// Logs a line; without a syslog daemon it is lost.
pub fn write(severity: Severity, line: &CStr) {
    let priority = match severity {
        Severity::Critical => libc::LOG_CRIT,
        Severity::Error => libc::LOG_ERR,
        Severity::Warning => libc::LOG_WARNING,
        Severity::Notice => libc::LOG_NOTICE,
        Severity::Info => libc::LOG_INFO,
    };
    // SAFETY: the format is constant and takes one string, which ends in NUL.
    unsafe { libc::syslog(priority, c"%s".as_ptr(), line.as_ptr()) }
}
