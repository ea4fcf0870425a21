//! What `--check` asks: whether the server can be reached and may be used, and
//! whether it keeps what it is given.

use std::time::Instant;

use redis::Value;
use sha1::{Digest, Sha1};

use super::client::{Client, NodeId, Request};
use super::words::store_error;
use crate::store::{ErrorKind, StoreError};

/// Milliseconds for which a key of the probe stays if nothing removes it.
const LIFE: &[u8] = b"10000";
/// Uses in a script what the scripts of a store use.
const SCRIPT: &[u8] = b"redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
                        local value = redis.call('MGET', KEYS[1])[1] \
                        redis.call('DEL', KEYS[1]) \
                        return value";
/// Keys that are tried to find one for each node.
const MOST_KEYS: u32 = 100_000;

impl Client {
    /// Tries on each node that has keys every command that a store needs, under a
    /// key of its own, `PREFIX:probe:{...}`. Returns what is worth a note.
    ///
    /// # Errors
    ///
    /// The first thing that does not work.
    pub fn probe(&mut self, prefix: &str, deadline: Instant) -> Result<Vec<String>, StoreError> {
        let mut notes = Vec::new();
        for node in self.nodes(deadline)? {
            self.probe_commands(&node, prefix, deadline)?;
            self.probe_eviction(&node, deadline, &mut notes)?;
            self.probe_persistence(&node, deadline, &mut notes)?;
        }
        Ok(notes)
    }

    fn probe_commands(
        &mut self,
        node: &NodeId,
        prefix: &str,
        deadline: Instant,
    ) -> Result<(), StoreError> {
        let process = std::process::id();
        let key = (0..MOST_KEYS)
            .map(|number| format!("{prefix}:probe:{{{process}.{number}}}:key"))
            .find(|key| self.node_of(key.as_bytes()).as_ref() == Some(node));
        // A master may have lost its last slot since it was asked for.
        let Some(key) = key else { return Ok(()) };
        let key = key.as_bytes();
        let digest: String = Sha1::digest(SCRIPT)
            .iter()
            .map(|octet| format!("{octet:02x}"))
            .collect();
        let value = process.to_string();
        let value = value.as_bytes();
        let bulk = Value::BulkString(value.to_vec());
        let steps: [(&[&[u8]], Option<Value>); 7] = [
            (&[b"SET", key, value, b"PX", LIFE], Some(Value::Okay)),
            (&[b"GET", key], Some(bulk.clone())),
            (&[b"MGET", key], Some(Value::Array(vec![bulk.clone()]))),
            (&[b"DEL", key], Some(Value::Int(1))),
            (&[b"GET", key], Some(Value::Nil)),
            (&[b"SCRIPT", b"LOAD", SCRIPT], None),
            (
                &[b"EVALSHA", digest.as_bytes(), b"1", key, value, LIFE],
                Some(bulk.clone()),
            ),
        ];
        for (words, expected) in steps {
            let request = Request::new(key, words);
            let call = request.call();
            let answer = self.exchange(&[request], deadline).pop();
            let answer = answer.unwrap_or(Ok(Value::Nil))?;
            if expected.is_some_and(|expected| expected != answer) {
                let reason = "it does not answer as Redis does";
                let at = node.to_string();
                return Err(store_error(ErrorKind::Other, call, &at, reason));
            }
        }
        if self.is_cluster() {
            // As for a key that is on its way to this node.
            self.ask_node(node, &[b"ASKING"], deadline)?;
        }
        let pattern = format!("{prefix}:*");
        let scan: [&[u8]; 6] = [b"SCAN", b"0", b"MATCH", pattern.as_bytes(), b"COUNT", b"1"];
        self.ask_node(node, &scan, deadline).map(drop)
    }

    fn probe_eviction(
        &mut self,
        node: &NodeId,
        deadline: Instant,
        notes: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        let Some(info) = self.info(node, b"memory", deadline)? else {
            notes.push(format!(
                "{node}: the user may not see (INFO) whether the server forgets records to make \
                 room, and whether it keeps them on a disk"
            ));
            return Ok(());
        };
        match field(&info, "maxmemory_policy") {
            None | Some("noeviction" | "volatile-ttl") => {}
            Some(policy) => notes.push(format!(
                "{node}: maxmemory-policy {policy}: when its memory is full, the server forgets \
                 records that are in use: set noeviction or volatile-ttl"
            )),
        }
        Ok(())
    }

    fn probe_persistence(
        &mut self,
        node: &NodeId,
        deadline: Instant,
        notes: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        let Some(info) = self.info(node, b"persistence", deadline)? else {
            return Ok(());
        };
        if field(&info, "aof_enabled") != Some("0") {
            return Ok(());
        }
        let words: [&[u8]; 3] = [b"CONFIG", b"GET", b"save"];
        let saves = match unless_refused(self.ask_node(node, &words, deadline))? {
            Some(Value::Array(pair)) => match pair.get(1) {
                Some(Value::BulkString(points)) => Some(!points.is_empty()),
                _ => None,
            },
            _ => None,
        };
        match saves {
            Some(true) => {}
            Some(false) => notes.push(format!(
                "{node}: the server keeps nothing on a disk: after its restart all begins anew \
                 (appendonly yes)"
            )),
            None => notes.push(format!(
                "{node}: it has no appendonly file, and the user may not see (CONFIG GET) whether \
                 it saves records otherwise"
            )),
        }
        Ok(())
    }

    /// A section of INFO; `None` if the user may not see it.
    fn info(
        &mut self,
        node: &NodeId,
        section: &[u8],
        deadline: Instant,
    ) -> Result<Option<String>, StoreError> {
        let answer = self.ask_node(node, &[b"INFO", section], deadline);
        Ok(match unless_refused(answer)? {
            Some(Value::BulkString(text)) => Some(String::from_utf8_lossy(&text).into_owned()),
            _ => None,
        })
    }
}

/// `None` for what the server does not do for this user: an error that is not
/// of the network.
fn unless_refused(answer: Result<Value, StoreError>) -> Result<Option<Value>, StoreError> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.reason.contains("NOPERM") || error.kind == ErrorKind::Other => Ok(None),
        Err(error) => Err(error),
    }
}

/// The value of a line `NAME:VALUE`.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim_end)
}
