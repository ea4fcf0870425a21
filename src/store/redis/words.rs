//! What the errors of Redis mean, in plain words and for the client.

use redis::ServerError;

use super::options::HostPort;
use crate::store::{ErrorKind, StoreError};

/// What to do about an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The slot has moved to this node: ask it, and for the map.
    Moved(HostPort),
    /// This key is on its way to this node: ask it once.
    Ask(HostPort),
    /// The server does not know the script: load it.
    LoadScripts,
    /// It was not done, and may be in a moment, perhaps by another node.
    Again,
    /// The server is at fault whatever it is asked: leave it alone for a while.
    Leave,
    /// None.
    None,
}

/// The remedy for an error that `asked` answered, in a cluster or not.
pub fn remedy_of(error: &ServerError, asked: &HostPort, is_cluster: bool) -> Remedy {
    match (error.code(), is_cluster) {
        ("MOVED", true) => target_of(error, asked).map_or(Remedy::Again, Remedy::Moved),
        ("ASK", true) => target_of(error, asked).map_or(Remedy::Again, Remedy::Ask),
        ("TRYAGAIN" | "CLUSTERDOWN" | "READONLY" | "MASTERDOWN", true) => Remedy::Again,
        ("NOSCRIPT", _) => Remedy::LoadScripts,
        ("LOADING" | "NOAUTH" | "WRONGPASS" | "DENIED", _) => Remedy::Leave,
        _ => Remedy::None,
    }
}

/// The node in `MOVED SLOT HOST:PORT`. Without a host it is the one asked.
fn target_of(error: &ServerError, asked: &HostPort) -> Option<HostPort> {
    let (_, at) = error.details()?.split_once(' ')?;
    let (host, port) = at.trim().rsplit_once(':')?;
    let host = match host {
        "" => &asked.host,
        "?" => return None,
        host => host,
    };
    Some(HostPort {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: port.parse().ok()?,
    })
}

/// The error in plain words, with its code.
pub fn explain(error: &ServerError, is_cluster: bool) -> String {
    let code = error.code();
    let detail = printable(error.details().unwrap_or_default());
    let meaning = match (code, is_cluster) {
        ("NOAUTH", _) => "the server wants a password (--store-password-file)",
        ("WRONGPASS", _) => "user or password is wrong",
        ("NOPERM", _) => "the user may not do that",
        ("LOADING", _) => "the server is still loading its data",
        ("DENIED", _) => "the server takes no connections from here",
        ("READONLY", _) => "the server is a replica, which takes no changes",
        ("MASTERDOWN", _) => "the server is a replica that has lost its master",
        ("CLUSTERDOWN", _) => "the cluster is down, or nobody serves this slot",
        ("OOM", _) => "the server has no memory left (maxmemory)",
        ("MISCONF", _) => "the server cannot save its data, and takes no changes",
        ("NOREPLICAS", _) => "too few replicas are there for a change",
        ("BUSY", _) => "the server runs a script that does not end",
        ("NOSCRIPT", _) => "the server does not keep scripts",
        ("TRYAGAIN", _) => "the slot is being moved",
        ("MOVED" | "ASK", true) => "the nodes do not agree on who has the slot",
        ("MOVED" | "ASK", false) => {
            "the server belongs to a cluster: use redis-cluster:// or rediss-cluster://"
        }
        ("ERR", true) if detail.contains("cluster support disabled") => {
            "the server is no cluster: use redis:// or rediss://"
        }
        // It repeats the words that follow, which are others each time.
        ("ERR", _) if detail.starts_with("unknown command") => {
            "the server does not know this command"
        }
        ("ERR", _) if detail.contains("without any password") => {
            "the server has no password, but one was given"
        }
        ("ERR", _) if detail.contains("DB index") => "the server has no database of this number",
        ("ERR", _) if detail.contains("max number of clients") => {
            "the server has no room for another connection"
        }
        _ => return format!("{code} {detail}").trim().to_owned(),
    };
    match code {
        "NOPERM" => format!("{meaning} (NOPERM {detail})"),
        "ERR" => meaning.to_owned(),
        _ => format!("{meaning} ({code})"),
    }
}

/// The same for the answer to AUTH: who does not know the command may repeat its words,
/// the password too.
pub fn explain_refusal(error: &ServerError) -> String {
    match explain(error, false) {
        text if text.starts_with(error.code()) => "AUTH was refused".to_owned(),
        text => text,
    }
}

/// A text for one line of a log.
fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// The kind of an error that is nobody's but the server's.
pub fn kind_of(error: &ServerError) -> ErrorKind {
    match error.code() {
        "OOM" => ErrorKind::MapFull,
        "ERR" | "WRONGTYPE" | "CROSSSLOT" => ErrorKind::Other,
        _ => ErrorKind::System,
    }
}

/// An error of a command, at the address of a node.
pub fn store_error(kind: ErrorKind, call: &'static str, at: &str, reason: &str) -> StoreError {
    StoreError {
        kind,
        call,
        path: at.to_owned(),
        reason: reason.to_owned(),
    }
}

/// Its name, for errors.
pub fn name_of(command: &[u8]) -> &'static str {
    const NAMES: [&str; 11] = [
        "GET", "MGET", "SET", "DEL", "SCAN", "EVALSHA", "SCRIPT", "INFO", "CONFIG", "CLUSTER",
        "ASKING",
    ];
    NAMES
        .into_iter()
        .find(|name| command.eq_ignore_ascii_case(name.as_bytes()))
        .unwrap_or("command")
}

#[cfg(test)]
mod tests {
    use super::*;
    use redis::{Value, parse_redis_value};

    fn error(line: &str) -> ServerError {
        match parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap() {
            Value::ServerError(error) => error,
            other => panic!("{other:?}"),
        }
    }

    fn at(host: &str, port: u16) -> HostPort {
        let host = host.to_owned();
        HostPort { host, port }
    }

    #[test]
    fn each_error_has_its_remedy() {
        let asked = at("asked", 1);
        for (line, remedy) in [
            ("MOVED 5 10.0.0.1:7000", Remedy::Moved(at("10.0.0.1", 7000))),
            ("MOVED 5 :7000", Remedy::Moved(at("asked", 7000))),
            ("MOVED 5 ?:7000", Remedy::Again),
            ("MOVED", Remedy::Again),
            ("MOVED 5 a:x", Remedy::Again),
            (
                "ASK 5 2001:db8::1:7000",
                Remedy::Ask(at("2001:db8::1", 7000)),
            ),
            ("TRYAGAIN Multiple keys", Remedy::Again),
            ("CLUSTERDOWN The cluster is down", Remedy::Again),
            ("READONLY You can't write", Remedy::Again),
            ("NOSCRIPT No matching", Remedy::LoadScripts),
            ("LOADING Redis is loading", Remedy::Leave),
            ("NOAUTH Authentication required.", Remedy::Leave),
            ("OOM command not allowed", Remedy::None),
            ("ERR x", Remedy::None),
        ] {
            assert_eq!(remedy_of(&error(line), &asked, true), remedy, "{line}");
        }
        for line in ["MOVED 5 a:1", "ASK 5 a:1", "READONLY x", "CLUSTERDOWN x"] {
            assert_eq!(
                remedy_of(&error(line), &asked, false),
                Remedy::None,
                "{line}"
            );
        }
    }

    #[test]
    fn errors_are_told_in_plain_words() {
        for (line, words) in [
            (
                "NOAUTH x",
                "the server wants a password (--store-password-file) (NOAUTH)",
            ),
            ("WRONGPASS x", "user or password is wrong (WRONGPASS)"),
            (
                "NOPERM this user has no permissions to run the 'get' command",
                "the user may not do that (NOPERM this user has no permissions to run the \
                 'get' command)",
            ),
            (
                "READONLY x",
                "the server is a replica, which takes no changes (READONLY)",
            ),
            (
                "ERR DB index is out of range",
                "the server has no database of this number",
            ),
            ("ERR what\u{1b}ever", "ERR whatever"),
            (
                "ERR unknown command 'MGET', with args beginning with: 'a' 'b'",
                "the server does not know this command",
            ),
            (
                "MOVED 1 a:1",
                "the server belongs to a cluster: use redis-cluster:// or rediss-cluster:// (MOVED)",
            ),
        ] {
            assert_eq!(explain(&error(line), false), words);
        }
        let none = error("ERR This instance has cluster support disabled");
        assert_eq!(
            explain(&none, true),
            "the server is no cluster: use redis:// or rediss://"
        );
    }

    #[test]
    fn a_password_that_is_repeated_stays_here() {
        let echo = error("ERR unknown command 'AUTH', with args beginning with: 'geheim'");
        assert_eq!(
            explain_refusal(&echo),
            "the server does not know this command"
        );
        let other = error("ERR what is AUTH geheim?");
        assert_eq!(explain_refusal(&other), "AUTH was refused");
        // It is said to whoever connects, before any question.
        let full = error("ERR max number of clients reached");
        assert_eq!(
            explain_refusal(&full),
            "the server has no room for another connection"
        );
        let none = error("ERR AUTH <password> called without any password configured");
        assert!(explain_refusal(&none).contains("has no password"));
    }
}
