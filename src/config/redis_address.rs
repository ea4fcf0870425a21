//! Where Redis or Valkey is, as `--store` says it.

use std::fmt;
use std::path::PathBuf;

/// The port of Redis.
pub const PORT: u16 = 6379;

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// Port, 1 to 65535.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// One server, or a cluster of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// One server, by TCP.
    Inet(HostPort),
    /// One server on this machine, by a UNIX socket.
    Unix(PathBuf),
    /// A cluster: servers that are asked for the others, in turn; at least one.
    Cluster(Vec<HostPort>),
}

/// Where Redis is, and as whom it is asked. The password is no part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisAddress {
    /// The server or servers.
    pub place: Place,
    /// By TLS.
    pub tls: bool,
    /// The user of the server's access control list; `None`: its default user.
    pub user: Option<String>,
    /// The number of the database; 0 in a cluster.
    pub database: u32,
}

impl RedisAddress {
    /// Reads the form that is shown. A password is refused, and not repeated in
    /// the message.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(
                "must be lmdb, or begin with redis://, rediss://, redis+unix://, \
                        redis-cluster:// or rediss-cluster://"
                    .into(),
            );
        };
        // A password may hold any character: nothing of what may be one is shown.
        let (user, rest) = match rest.rsplit_once('@') {
            None => (None, rest),
            Some((user, _)) if user.contains([':', '/', '@']) => {
                return Err("must not hold a password: --store-password-file is for it".into());
            }
            Some((user, rest)) => (Some(user), rest),
        };
        if user.is_some_and(|user| user.is_empty() || user.contains(is_unfit)) {
            return Err("has a user without a name, or with blanks in it".into());
        }
        if rest.contains(is_unfit) && scheme != "redis+unix" {
            return Err("must not contain blanks".into());
        }
        let (place, tls, database) = match scheme {
            "redis" | "rediss" => {
                let (host, database) = rest.split_once('/').unwrap_or((rest, ""));
                let place = Place::Inet(host_and_port(host)?);
                (place, scheme == "rediss", database_number(database)?)
            }
            "redis+unix" => {
                let (path, database) = rest.split_once("?db=").unwrap_or((rest, ""));
                if !path.starts_with('/') {
                    return Err("must name the socket by its whole path: \
                                redis+unix:///run/redis/redis.sock"
                        .into());
                }
                // Other programs take a password there, and everybody would see it.
                if path.contains('?') {
                    return Err("may have ?db=NUMBER behind the path and nothing else: a \
                                password is for --store-password-file"
                        .into());
                }
                (Place::Unix(path.into()), false, database_number(database)?)
            }
            "redis-cluster" | "rediss-cluster" => {
                let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
                if database_number(database)? != 0 {
                    return Err("must not name a database: a cluster has number 0 only".into());
                }
                let seeds: Result<_, _> = hosts.split(',').map(host_and_port).collect();
                (Place::Cluster(seeds?), scheme == "rediss-cluster", 0)
            }
            _ => {
                return Err(
                    "must be lmdb, or begin with redis://, rediss://, redis+unix://, \
                            redis-cluster:// or rediss-cluster://"
                        .into(),
                );
            }
        };
        let user = user.map(str::to_owned);
        Ok(RedisAddress {
            place,
            tls,
            user,
            database,
        })
    }
}

fn is_unfit(c: char) -> bool {
    c.is_control() || c.is_whitespace()
}

fn database_number(text: &str) -> Result<u32, String> {
    let is_number = text.bytes().all(|octet| octet.is_ascii_digit());
    match text {
        "" => Ok(0),
        _ => {
            text.parse().ok().filter(|_| is_number).ok_or_else(|| {
                "has something behind the host that is no number of a database".into()
            })
        }
    }
}

fn host_and_port(text: &str) -> Result<HostPort, String> {
    // What is wrong is not repeated: it may hold a password.
    let wrong = || "has no HOST or HOST:PORT (IPv6: [HOST]:PORT)".to_owned();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or_else(wrong)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(wrong()),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let port = match port {
        None => PORT,
        Some(port) => port
            .parse()
            .ok()
            .filter(|&number| number != 0 && port.bytes().all(|octet| octet.is_ascii_digit()))
            .ok_or_else(wrong)?,
    };
    if host.is_empty() || host.contains(['/', '?', '#', ',']) {
        return Err(wrong());
    }
    let host = host.to_owned();
    Ok(HostPort { host, port })
}

/// The form that `--store` takes.
impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (&self.place, self.tls) {
            (Place::Inet(_), false) => "redis",
            (Place::Inet(_), true) => "rediss",
            (Place::Unix(_), _) => "redis+unix",
            (Place::Cluster(_), false) => "redis-cluster",
            (Place::Cluster(_), true) => "rediss-cluster",
        };
        write!(f, "{scheme}://")?;
        if let Some(user) = &self.user {
            write!(f, "{user}@")?;
        }
        match &self.place {
            Place::Inet(at) => write!(f, "{at}/{}", self.database),
            Place::Unix(path) => match self.database {
                0 => write!(f, "{}", path.display()),
                number => write!(f, "{}?db={number}", path.display()),
            },
            Place::Cluster(seeds) => {
                let seeds: Vec<_> = seeds.iter().map(HostPort::to_string).collect();
                f.write_str(&seeds.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_shown_again() {
        for (text, shown) in [
            ("redis://db.example", "redis://db.example:6379/0"),
            ("redis://db.example/", "redis://db.example:6379/0"),
            (
                "redis://grey@10.0.0.1:7000/3",
                "redis://grey@10.0.0.1:7000/3",
            ),
            ("rediss://[::1]:6380/1", "rediss://[::1]:6380/1"),
            ("redis://[2001:db8::1]", "redis://[2001:db8::1]:6379/0"),
            ("redis+unix:///run/r.sock", "redis+unix:///run/r.sock"),
            (
                "redis+unix://u@/run/r.sock?db=2",
                "redis+unix://u@/run/r.sock?db=2",
            ),
            (
                "redis-cluster://a,b:7001,[::1]:7002",
                "redis-cluster://a:6379,b:7001,[::1]:7002",
            ),
            ("redis-cluster://a/0", "redis-cluster://a:6379"),
            ("rediss-cluster://u@a:1", "rediss-cluster://u@a:1"),
        ] {
            let address = RedisAddress::parse(text).unwrap();
            assert_eq!(address.to_string(), shown, "{text}");
            assert_eq!(RedisAddress::parse(shown).as_ref(), Ok(&address), "{shown}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for text in [
            "",
            "lmbd",
            "redis:",
            "http://a",
            "redis://",
            "redis://:7000",
            "redis://a:0",
            "redis://a:65536",
            "redis://a:+1",
            "redis://a/x",
            "redis://a/-1",
            "redis://a/1/2",
            "redis://a?db=1",
            "redis://a b",
            "redis://::1",
            "redis://[::1",
            "redis://[a]",
            "redis://[::1]7",
            "redis://@a",
            "redis://a,b",
            "redis+unix://run/r.sock",
            "redis+unix:///r.sock?db=x",
            "redis-cluster://",
            "redis-cluster://a,,b",
            "redis-cluster://a/1",
        ] {
            assert!(RedisAddress::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_password_is_refused_and_not_repeated() {
        for text in [
            "redis://u:geheim@a",
            "redis://:geheim@a/1",
            "redis://u:ge@heim@a",
            "redis+unix://u:geheim@/r.sock",
            "redis+unix:///r.sock?pass=geheim",
            "redis+unix:///r.sock?user=u&pass=geheim&db=1",
            "redis-cluster://u:geheim/x@a,b",
        ] {
            let message = RedisAddress::parse(text).unwrap_err();
            assert!(message.contains("--store-password-file"), "{message}");
            assert!(!message.contains("heim"), "{message}");
        }
        // Where it cannot be told from something else.
        for text in [
            "redis://u@ge:heim@a",
            "redis://a:6379?password=geheim",
            "redis://a/0?password=geheim",
            "redis+unix:///r.sock?db=1&pass=geheim",
        ] {
            let message = RedisAddress::parse(text).unwrap_err();
            assert!(!message.contains("heim"), "{message}");
        }
    }
}
