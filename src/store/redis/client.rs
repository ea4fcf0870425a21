//! Requests to Redis, each to the server that has its key, within a given time.
//!
//! There is one plain connection for each server. All requests of an exchange
//! are sent at once, and their answers taken as they come, from all servers in
//! one wait; no name server, connect, handshake or answer takes longer than the
//! deadline. After the first trouble a connection is dropped, so that what it
//! still owes cannot answer the next question, and its server is left alone for
//! 1, 2, 4 ... 30 s: requests for it fail at once. If it was late, the next
//! connection is made in that time. The trouble of a server is that of the keys
//! it has.
//!
//! A request is sent again only if the server has said that it was not done, or
//! if it was not sent at all.

use std::time::Instant;

use redis::Value;
use sha1::{Digest, Sha1};

use super::exchange::Exchange;
use super::node::Node;
use super::options::RedisOptions;
use super::question::Access;
use super::routing::Routing;
use super::slots::slot_of;
pub use super::task::Request;
use super::task::Task;
use super::words::{name_of, store_error};
use crate::store::{ErrorKind, StoreError};

/// A server that has keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(String);

impl std::fmt::Display for NodeId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The connections to one server or to those of a cluster.
pub struct Client {
    access: Access,
    /// Of the scripts, in hexadecimal.
    digests: Vec<String>,
    routing: Routing,
    nodes: Vec<Node>,
}

impl Client {
    /// A client that connects when it is first asked something. The scripts are
    /// loaded at each connect.
    pub fn new(options: RedisOptions, scripts: &'static [&'static str]) -> Self {
        let (routing, nodes) = Routing::new(&options.address);
        let digest = |script: &&str| {
            let octets = Sha1::digest(script.as_bytes());
            octets.iter().map(|octet| format!("{octet:02x}")).collect()
        };
        Client {
            digests: scripts.iter().map(digest).collect(),
            access: Access {
                options,
                scripts,
                is_cluster: routing.is_cluster(),
            },
            routing,
            nodes,
        }
    }

    /// Sends all requests, each to the node that has its key, and returns the
    /// result of each, in order, by the deadline. A node does its requests in
    /// order, but one that has to be sent again, for instance since the server
    /// has lost its scripts, comes after those that need not.
    pub fn exchange(
        &mut self,
        requests: &[Request],
        deadline: Instant,
    ) -> Vec<Result<Value, StoreError>> {
        self.routing.prune(&mut self.nodes);
        let tasks = requests
            .iter()
            .map(|request| Task::new(request, None))
            .collect();
        self.run(tasks, false, deadline).0
    }

    /// True if there may be several nodes.
    pub fn is_cluster(&self) -> bool {
        self.access.is_cluster
    }

    /// The nodes that have keys: one, or the masters of the cluster as they are
    /// now.
    pub fn nodes(&mut self, deadline: Instant) -> Result<Vec<NodeId>, StoreError> {
        if self.routing.is_cluster() {
            self.routing.prune(&mut self.nodes);
            if !self.run(Vec::new(), true, deadline).1 {
                let (at, reason) = self.routing.trouble();
                return Err(store_error(ErrorKind::System, "CLUSTER", at, reason));
            }
        }
        let name = |number: usize| NodeId(self.nodes[number].name.clone());
        Ok(self.routing.masters().iter().copied().map(name).collect())
    }

    /// Asks one of these nodes, and no other one.
    pub fn ask_node(
        &mut self,
        node: &NodeId,
        words: &[&[u8]],
        deadline: Instant,
    ) -> Result<Value, StoreError> {
        let call = words.first().map_or("command", |command| name_of(command));
        let unknown = || {
            store_error(
                ErrorKind::System,
                call,
                &node.0,
                "the node has left the cluster",
            )
        };
        let number = self.nodes.iter().position(|known| known.name == node.0);
        let request = Request::new(b"", words);
        let task = Task::new(&request, Some(number.ok_or_else(unknown)?));
        let (results, _) = self.run(vec![task], false, deadline);
        results.into_iter().next().unwrap_or_else(|| Err(unknown()))
    }

    /// The node that has a key, as far as is known.
    pub(super) fn node_of(&self, key: &[u8]) -> Option<NodeId> {
        let number = self.routing.node_of(slot_of(key))?;
        Some(NodeId(self.nodes.get(number)?.name.clone()))
    }

    /// Closes all connections. The next exchange opens them again.
    pub fn close(&mut self) {
        for node in &mut self.nodes {
            node.disconnect();
        }
    }

    fn run(
        &mut self,
        tasks: Vec<Task<'_>>,
        wants_map: bool,
        deadline: Instant,
    ) -> (Vec<Result<Value, StoreError>>, bool) {
        Exchange::new(
            &self.access,
            &self.digests,
            &mut self.routing,
            &mut self.nodes,
            tasks,
            wants_map,
            deadline,
        )
        .run()
    }
}
