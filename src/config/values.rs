//! From the text of an option to its meaning, one function per kind of value.
//!
//! Errors are the lines the user reads. Where the original has such a line, it
//! is the same.

use std::ffi::OsStr;
use std::net::Ipv6Addr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

use super::redis_address::RedisAddress;
use super::settings::Listen;

/// The largest number taken; larger ones count as this. As seconds these are
/// three centuries, and all sums and products of such numbers are exact.
const LARGEST_NUMBER: f64 = 1e10;

/// The facilities of syslog(3) that every system we run on knows, and
/// `authpriv` and `ftp`, which some do not.
pub const SYSLOG_FACILITIES: [&str; 20] = [
    "auth", "authpriv", "cron", "daemon", "ftp", "kern", "local0", "local1", "local2", "local3",
    "local4", "local5", "local6", "local7", "lpr", "mail", "news", "syslog", "user", "uucp",
];

/// A value that becomes part of a reply, a header or a line of the log. One
/// that is not UTF-8 or holds a control character would make Postfix refuse
/// the reply, or end it early.
pub fn text(name: &str, value: &OsStr) -> Result<String, String> {
    let text = value
        .to_str()
        .ok_or_else(|| format!("ERROR: --{name} must be valid UTF-8"))?;
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err(format!(
            "ERROR: --{name} must not contain control characters"
        ));
    }
    Ok(text.to_owned())
}

/// A path: any bytes but line breaks, which no list of settings could show.
pub fn path(name: &str, value: &OsStr) -> Result<std::path::PathBuf, String> {
    if value.as_bytes().contains(&b'\n') {
        return Err(format!("ERROR: --{name} must not contain a line break"));
    }
    Ok(value.into())
}

/// A whole number that has already passed the grammar.
pub fn integer(value: &OsStr) -> f64 {
    let digits: String = value
        .to_string_lossy()
        .chars()
        .filter(|&c| c != '_')
        .collect();
    digits
        .parse::<f64>()
        .map_or(0.0, |number| number.clamp(-LARGEST_NUMBER, LARGEST_NUMBER))
}

/// Length of a network prefix, 1 to `longest`.
pub fn prefix(name: &str, value: &OsStr, longest: u8) -> Result<u8, String> {
    (1..=longest)
        .find(|&bits| f64::from(bits) == integer(value))
        .ok_or_else(|| {
            format!("ERROR: --{name} must be a number from 1 to {longest}, or 0 for the default")
        })
}

/// `--auto-whitelist-clients`: the limit, `None` for off. Only `0` is off;
/// other text counts as the number it begins with, without one as 0.
pub fn auto_whitelist(value: &str) -> Option<f64> {
    if value == "0" {
        return None;
    }
    let number = value.trim_start();
    let length = |wanted: fn(char) -> bool, from: usize| {
        number[from..].chars().take_while(|&c| wanted(c)).count()
    };
    let sign = usize::from(number.starts_with(['-', '+']));
    let mut end = sign + length(|c| c.is_ascii_digit(), sign);
    if number[end..].starts_with('.') {
        end += 1 + length(|c| c.is_ascii_digit(), end + 1);
    }
    let limit = number[..end].parse::<f64>().unwrap_or(0.0);
    // Adding 0 makes a negative zero positive.
    Some(limit.clamp(-LARGEST_NUMBER, LARGEST_NUMBER) + 0.0)
}

/// `--max-new`: 0 is no limit.
pub fn max_new(value: &OsStr) -> Result<Option<u32>, String> {
    let number = integer(value);
    match number {
        0.0 => Ok(None),
        1.0..=4294967295.0 => Ok(Some(number as u32)),
        _ => Err(format!(
            "ERROR: --max-new must be a number from 1 to {}, or 0 for no limit",
            u32::MAX
        )),
    }
}

/// `--retry-window`: days, or hours with an `h`, as seconds.
pub fn retry_window(value: &str) -> Result<f64, String> {
    let (number, unit) = match value.strip_suffix(['h', 'H']) {
        Some(hours) => (hours, 3600.0),
        None => (value, 86400.0),
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(
            "ERROR: --retry-window must be either a number of days or a number\n       \
                    followed by 'h' for hours ('6h' for example)."
                .into(),
        );
    }
    Ok(integer(OsStr::new(number)) * unit)
}

/// `--socketmode`: octal.
pub fn socket_mode(value: &OsStr) -> Result<u32, String> {
    value
        .to_str()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| u32::from_str_radix(text, 8).ok())
        .filter(|&mode| mode <= 0o777)
        .ok_or_else(|| "ERROR: --socketmode must be an octal number from 0 to 0777".into())
}

/// `--listen-queue-size`: 1 to 999. Larger ones become 999, smaller ones the
/// default, `otherwise`.
pub fn listen_queue_size(value: &OsStr, otherwise: i32) -> i32 {
    let number = integer(value);
    if number < 1.0 {
        return otherwise;
    }
    // At most 999, so the conversion loses nothing.
    number.min(999.0) as i32
}

/// `--workers`: 1 to 64.
pub fn workers(value: &OsStr) -> Result<usize, String> {
    (1..=64_u8)
        .find(|&count| f64::from(count) == integer(value))
        .map(usize::from)
        .ok_or_else(|| "ERROR: --workers must be a number from 1 to 64".into())
}

/// `--db-size`: octets, or with K, M or G, 1 MiB or more.
pub fn db_size(value: &OsStr) -> Result<usize, String> {
    let wrong = || {
        "ERROR: --db-size must be a number of octets, or a number with K, M or G, at least 1M \
         and at most 65536G"
            .to_owned()
    };
    let text = value.to_str().ok_or_else(wrong)?;
    let (number, unit) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let octets = number
        .parse::<usize>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(wrong)?;
    // No object is larger than isize::MAX, and no system has addresses for more than
    // half of 2^47 octets beside the program.
    let most = isize::MAX as u64;
    if octets < 1 << 20 || octets as u64 > most.min(1 << 46) {
        return Err(wrong());
    }
    Ok(octets)
}

/// `--syslog-facility`, in lower case and without the `LOG_` that syslog(3)
/// puts in front.
pub fn syslog_facility(value: &str) -> Result<String, String> {
    let lower = value.to_ascii_lowercase();
    let name = lower.strip_prefix("log_").unwrap_or(&lower);
    if SYSLOG_FACILITIES.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!(
        "ERROR: --syslog-facility: \"{value}\" is not one of {}",
        SYSLOG_FACILITIES.join(", ")
    ))
}

/// `--user`: anyone but root, by name or number; whether there is such a user
/// is found out later.
pub fn user(value: String) -> Result<String, String> {
    if value == "root" || value.parse() == Ok(0_u32) {
        return Err("ERROR: --user must not be root".into());
    }
    Ok(value)
}

/// `--inet`: a port of localhost, or `HOST:PORT`. An empty host and `*` are
/// all addresses of the machine.
pub fn inet(value: &str) -> Result<Listen, String> {
    let is_port = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (host, port) = match value.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None if is_port(value) => ("localhost", value),
        None => ("*", value),
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let host = if bare.is_empty() { "*" } else { bare };
    if !is_port(port) {
        return Err(format!(
            "ERROR: Could not determine port number from host [{host}]:{port}"
        ));
    }
    let address = host
        .split_once('%')
        .map_or(host, |(address, _zone)| address);
    if host.contains(['[', ']', ' ', '/'])
        || (host.contains(':') && address.parse::<Ipv6Addr>().is_err())
    {
        return Err(format!(
            "ERROR: --inet={value}: \"{host}\" is neither a host name nor an address"
        ));
    }
    let port = port
        .parse()
        .map_err(|_| format!("ERROR: --inet={value}: a port is a number from 0 to 65535"))?;
    Ok(Listen::Inet {
        host: Some(host.to_owned()).filter(|host| host != "*"),
        port,
    })
}

/// `--store`: an address of Redis, `None` for LMDB.
pub fn store(value: &str) -> Result<Option<RedisAddress>, String> {
    if value == "lmdb" {
        return Ok(None);
    }
    let address = RedisAddress::parse(value).map_err(|why| format!("ERROR: --store {why}"))?;
    match cfg!(feature = "redis") {
        true => Ok(Some(address)),
        false => Err("ERROR: --store: this program was built without Redis \
                      (its feature \"redis\"): only lmdb can be given"
            .into()),
    }
}

/// `--store-prefix`: fit for keys, and for the patterns of SCAN and of access
/// rules, where braces, brackets and some signs mean something else.
pub fn store_prefix(value: &OsStr) -> Result<String, String> {
    value
        .to_str()
        .filter(|text| text.len() <= 64 && !text.contains(is_unfit_for_keys))
        .map(str::to_owned)
        .ok_or_else(|| {
            "ERROR: --store-prefix must be a text of at most 64 octets without blanks, control \
             characters, braces, brackets, '*', '?', '^' and '\\'"
                .into()
        })
}

fn is_unfit_for_keys(c: char) -> bool {
    c.is_control() || c.is_whitespace() || "{}[]*?^\\".contains(c)
}

/// `--store-timeout`: 50 to 900 milliseconds, less than a worker waits.
pub fn store_timeout(value: &OsStr) -> Result<Duration, String> {
    let milliseconds = integer(value);
    match (50.0..=900.0).contains(&milliseconds) {
        true => Ok(Duration::from_millis(milliseconds as u64)),
        false => {
            Err("ERROR: --store-timeout must be a number of milliseconds from 50 to 900".into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_whitelist_takes_the_number_in_front() {
        let limits = [
            ("0", None),
            ("00", Some(0.0)),
            ("abc", Some(0.0)),
            ("5x", Some(5.0)),
            (" 7", Some(7.0)),
        ];
        for (text, limit) in
            limits
                .into_iter()
                .chain([("2.5", Some(2.5)), ("-3", Some(-3.0)), ("é", Some(0.0))])
        {
            assert_eq!(auto_whitelist(text), limit, "{text}");
        }
    }

    #[test]
    fn what_was_not_built_in_is_refused() {
        assert_eq!(store("lmdb"), Ok(None));
        match store("redis://a") {
            Ok(address) => assert!(cfg!(feature = "redis") && address.is_some()),
            Err(why) => assert!(!cfg!(feature = "redis") && why.contains("built without Redis")),
        }
    }

    #[test]
    fn a_size_has_a_unit() {
        assert_eq!(db_size(OsStr::new("1048576")), Ok(1 << 20));
        assert_eq!(db_size(OsStr::new("64m")), Ok(64 << 20));
        assert_eq!(db_size(OsStr::new("1G")), Ok(1 << 30));
        for wrong in [
            "",
            "M",
            "0",
            "1023K",
            "1T",
            "-1M",
            "+1M",
            "1.5G",
            "99999999999999999999",
            "17179869183G",
        ] {
            assert!(db_size(OsStr::new(wrong)).is_err(), "{wrong}");
        }
    }
}
