//! A walk over all records of a database, node by node, by SCAN: records that are
//! there all the time are shown, some perhaps twice. One that is moved to another node
//! meanwhile may be missed.

use std::collections::{BTreeSet, VecDeque};
use std::ops::ControlFlow;
use std::time::Instant;

use redis::Value;

use super::RedisStore;
use super::batch::unexpected;
use super::client::{Client, NodeId, Request};
use super::names::Names;
use crate::policy::record::Database;
use crate::store::{Entry, StoreError, Visitor};

/// How many names a step looks at.
const COUNT: &[u8] = b"1000";
/// The cursor with which a node begins and ends.
const START: &[u8] = b"0";

/// A walk under way.
pub struct Scan {
    database: Database,
    /// Names that may be wanted.
    pattern: Vec<u8>,
    /// What the keys begin with.
    start: Vec<u8>,
    /// The nodes that are left; the last one is being asked.
    nodes: Vec<NodeId>,
    cursor: Vec<u8>,
    /// Records that were read and not shown: key and value.
    page: VecDeque<(Vec<u8>, Vec<u8>)>,
}

impl Scan {
    /// A walk over the records of a database whose keys begin with `start`.
    pub fn begin(
        client: &mut Client,
        names: &Names,
        database: Database,
        start: &[u8],
        deadline: Instant,
    ) -> Result<Self, StoreError> {
        Ok(Scan {
            database,
            pattern: names.pattern(database, start),
            start: start.to_vec(),
            nodes: client.nodes(deadline)?,
            cursor: START.to_vec(),
            page: VecDeque::new(),
        })
    }

    /// Shows what was read, until it has seen enough.
    pub fn show(&mut self, visit: &mut Visitor) -> ControlFlow<()> {
        while let Some((key, value)) = self.page.pop_front() {
            visit(Entry {
                stored_key: &key,
                key: &key,
                value: &value,
            })?;
        }
        ControlFlow::Continue(())
    }

    /// Reads some more; false at the end.
    pub fn step(
        &mut self,
        client: &mut Client,
        names: &Names,
        deadline: Instant,
    ) -> Result<bool, StoreError> {
        let Some(node) = self.nodes.last() else {
            return Ok(false);
        };
        let (cursor, found) = step(client, node, &self.cursor, &self.pattern, deadline)?;
        if cursor == START {
            self.nodes.pop();
        }
        self.cursor = cursor;
        let is_wanted = |name: &&Vec<u8>| {
            let key = names.key(self.database, name);
            key.is_some_and(|key| key.starts_with(&self.start))
        };
        let found: Vec<&Vec<u8>> = found.iter().filter(is_wanted).collect();
        let requests: Vec<Request> = found
            .iter()
            .map(|name| Request::new(name, &[b"GET", name]))
            .collect();
        for (name, reply) in found.iter().zip(client.exchange(&requests, deadline)) {
            match (reply?, names.key(self.database, name)) {
                (Value::BulkString(value), Some(key)) => self.page.push_back((key.to_vec(), value)),
                // It has gone meanwhile.
                (Value::Nil, _) => {}
                _ => return Err(unexpected("GET")),
            }
        }
        Ok(true)
    }
}

/// One step: the next cursor, and names without those that come twice.
fn step(
    client: &mut Client,
    node: &NodeId,
    cursor: &[u8],
    pattern: &[u8],
    deadline: Instant,
) -> Result<(Vec<u8>, BTreeSet<Vec<u8>>), StoreError> {
    let words = [&b"SCAN"[..], cursor, b"MATCH", pattern, b"COUNT", COUNT];
    let Value::Array(parts) = client.ask_node(node, &words, deadline)? else {
        return Err(unexpected("SCAN"));
    };
    let Ok([Value::BulkString(cursor), Value::Array(found)]) = <[Value; 2]>::try_from(parts) else {
        return Err(unexpected("SCAN"));
    };
    let names = found.into_iter().filter_map(|name| match name {
        Value::BulkString(name) => Some(name),
        _ => None,
    });
    Ok((cursor, names.collect()))
}

/// The names of the records with these keys, in whatever group.
pub fn find(
    store: &mut RedisStore,
    database: Database,
    keys: &BTreeSet<&[u8]>,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let pattern = match keys.first() {
        None => return Ok(Vec::new()),
        Some(key) if keys.len() == 1 => store.names.exact_pattern(database, key),
        Some(_) => store.names.pattern(database, b""),
    };
    let mut all = Vec::new();
    let deadline = store.deadline();
    for node in store.client.nodes(deadline)? {
        let mut cursor = START.to_vec();
        loop {
            let found;
            let deadline = store.deadline();
            (cursor, found) = step(&mut store.client, &node, &cursor, &pattern, deadline)?;
            let names = &store.names;
            let is_sought = |name: &Vec<u8>| {
                let key = names.key(database, name);
                key.is_some_and(|key| keys.contains(key))
            };
            all.extend(found.into_iter().filter(is_sought));
            if cursor == START {
                break;
            }
        }
    }
    Ok(all)
}
