//! One exchange: all requests are sent, and their answers taken as they come,
//! until all are there or the time is over.

use std::time::{Duration, Instant};

use redis::Value;

use super::node::Node;
use super::question::{Access, Failure, Question, TOO_LATE};
use super::routing::{Routing, Search, node_at};
use super::task::{State, Target, Task};
use super::wire::pack;
use super::words::{Remedy, explain, kind_of, remedy_of, store_error};
use crate::store::{ErrorKind, StoreError};
use crate::sys::errors::describe;
use crate::sys::poll::PollSet;

/// How long a node of a cluster that was in trouble may take the first time:
/// the requests of others wait as long.
const DOUBTFUL_PATIENCE: Duration = Duration::from_millis(100);

/// What an exchange works on.
pub struct Exchange<'a> {
    access: &'a Access,
    digests: &'a [String],
    routing: &'a mut Routing,
    nodes: &'a mut Vec<Node>,
    tasks: Vec<Task<'a>>,
    /// Tasks that wait for something else than a node.
    pending: Vec<usize>,
    /// Tasks that are not over.
    open: usize,
    /// A new map is what was asked for; `None`: it was not.
    wanted_map: Option<Result<(), ()>>,
    wants_map: bool,
    start: Instant,
    deadline: Instant,
}

impl<'a> Exchange<'a> {
    /// An exchange of these tasks. With `wants_map` it also brings a new map.
    pub fn new(
        access: &'a Access,
        digests: &'a [String],
        routing: &'a mut Routing,
        nodes: &'a mut Vec<Node>,
        tasks: Vec<Task<'a>>,
        wants_map: bool,
        deadline: Instant,
    ) -> Self {
        Exchange {
            access,
            digests,
            routing,
            nodes,
            pending: (0..tasks.len()).collect(),
            open: tasks.len(),
            tasks,
            wanted_map: None,
            wants_map,
            start: Instant::now(),
            deadline,
        }
    }

    /// Runs it. The results in order, and whether there is a new map if one was
    /// wanted.
    pub fn run(mut self) -> (Vec<Result<Value, StoreError>>, bool) {
        if self.start < self.deadline {
            for node in self.nodes.iter_mut() {
                node.freshen();
            }
        }
        let mut poll_trouble = None;
        let mut set = PollSet::default();
        loop {
            let now = Instant::now();
            if now >= self.deadline {
                break;
            }
            self.leave_doubtful(now);
            self.route(now);
            self.search_map(now);
            self.start_nodes(now);
            let is_over = self.open == 0 && (!self.wants_map || self.wanted_map.is_some());
            if is_over && !self.nodes.iter().any(Node::is_connecting) {
                break;
            }
            if self.has_unrouted() {
                continue;
            }
            set.clear_all();
            for (place, node) in self.nodes.iter().enumerate() {
                node.register(&mut set, place);
            }
            let time = match is_over {
                true => Duration::ZERO,
                false => self.next_turn(now).saturating_duration_since(now),
            };
            if let Err(error) = set.wait(Some(time)) {
                poll_trouble = Some(describe(&error));
                break;
            }
            self.advance_nodes(&set);
            if is_over {
                break;
            }
        }
        self.give_up(poll_trouble.as_deref());
        let has_map = self.wanted_map == Some(Ok(()));
        let results = self.tasks.into_iter().map(|task| match task.state {
            State::Done(result) => result,
            _ => Err(late(task.request.call(), "")),
        });
        (results.collect(), has_map)
    }

    fn has_unrouted(&self) -> bool {
        let is_unrouted = |&number: &usize| matches!(self.tasks[number].state, State::Unrouted);
        self.pending.iter().any(is_unrouted)
    }

    /// When there is something to do even if nothing comes.
    fn next_turn(&self, now: Instant) -> Instant {
        let pauses = self
            .pending
            .iter()
            .filter_map(|&number| match self.tasks[number].state {
                State::Pausing(until) => Some(until),
                _ => None,
            });
        let doubtful = self
            .nodes
            .iter()
            .filter_map(|node| self.patience_with(node));
        pauses
            .chain(doubtful)
            .chain(self.routing.next_at())
            .filter(|&time| time > now)
            .chain([self.deadline])
            .min()
            .unwrap_or(self.deadline)
    }

    /// Until when a doubtful node of a cluster may take.
    fn patience_with(&self, node: &Node) -> Option<Instant> {
        let since = node.busy_since()?;
        let is_doubtful = node.is_doubtful() && self.routing.is_cluster();
        is_doubtful.then(|| since + DOUBTFUL_PATIENCE)
    }

    fn leave_doubtful(&mut self, now: Instant) {
        for number in 0..self.nodes.len() {
            if self
                .patience_with(&self.nodes[number])
                .is_some_and(|until| now >= until)
            {
                self.node_failed(number, Failure::late(), now);
            }
        }
    }

    /// Sends what can be sent.
    fn route(&mut self, now: Instant) {
        for number in std::mem::take(&mut self.pending) {
            match self.tasks[number].state {
                State::Unrouted => {}
                State::Pausing(until) if now >= until => {}
                State::Pausing(_) | State::NeedsMap => {
                    self.pending.push(number);
                    continue;
                }
                State::At(_) | State::Done(_) => continue,
            }
            let node = match self.tasks[number].target {
                Target::Node(node) => Some(node),
                Target::Slot(slot) => {
                    let node = self.routing.node_of(slot);
                    let is_troubled = |&node: &usize| self.nodes[node].trouble(now).is_some();
                    if node.as_ref().is_none_or(is_troubled) && self.routing.may_ask(now) {
                        self.tasks[number].state = State::NeedsMap;
                        self.pending.push(number);
                        continue;
                    }
                    node
                }
            };
            match node {
                Some(node) => self.send(number, node, now),
                None => self.finish_without_map(number),
            }
        }
    }

    fn finish_without_map(&mut self, number: usize) {
        let (at, reason) = match self.routing.masters().is_empty() {
            true => self.routing.trouble(),
            false => ("cluster", "no node serves this slot"),
        };
        let call = self.tasks[number].request.call();
        let error = store_error(ErrorKind::System, call, at, reason);
        self.finish(number, Err(error));
    }

    /// Sends a request to a node, unless that is left alone.
    fn send(&mut self, number: usize, to: usize, now: Instant) {
        let task = &mut self.tasks[number];
        let call = task.request.call();
        let node = &mut self.nodes[to];
        if let Some(reason) = node.trouble(now) {
            let error = store_error(ErrorKind::System, call, &node.name, reason);
            return self.finish(number, Err(error));
        }
        let Some(packed) = task.request.packed(self.digests) else {
            let error = store_error(ErrorKind::Other, call, &node.name, "no such script");
            return self.finish(number, Err(error));
        };
        if task.is_asking {
            node.ask(Question::Aside, pack(&[b"ASKING"]), now);
        }
        node.ask(Question::Request(number), packed, now);
        task.state = State::At(to);
    }

    fn finish(&mut self, number: usize, result: Result<Value, StoreError>) {
        if !matches!(self.tasks[number].state, State::Done(_)) {
            self.open -= 1;
        }
        self.tasks[number].state = State::Done(result);
    }

    fn search_map(&mut self, now: Instant) {
        let needs_map = |&number: &usize| matches!(self.tasks[number].state, State::NeedsMap);
        let is_wanted = self.wants_map && self.wanted_map.is_none();
        let is_needed = is_wanted || self.pending.iter().any(needs_map);
        if !self.routing.is_cluster() || !(is_needed || self.routing.is_doubted(now)) {
            return;
        }
        if self.routing.search(self.nodes, now) == Search::Failed {
            if is_wanted {
                self.wanted_map = Some(Err(()));
            }
            self.wake_for_map();
        }
    }

    /// Lets go on what waits for the map: there is a new one, or none to be had.
    fn wake_for_map(&mut self) {
        for &number in &self.pending {
            if matches!(self.tasks[number].state, State::NeedsMap) {
                self.tasks[number].state = State::Unrouted;
            }
        }
    }

    fn start_nodes(&mut self, now: Instant) {
        for number in 0..self.nodes.len() {
            if let Err(failure) = self.nodes[number].start(self.access) {
                self.node_failed(number, failure, now);
            }
        }
    }

    fn advance_nodes(&mut self, set: &PollSet) {
        let now = Instant::now();
        let mut answers = Vec::new();
        for number in 0..self.nodes.len() {
            let seen = set.readiness(number);
            if !(seen.input || seen.output || seen.gone) {
                continue;
            }
            let result = self.nodes[number].advance(self.access, seen, &mut answers);
            for (question, value) in answers.drain(..) {
                match question {
                    Question::Map => {
                        if self.routing.hear(self.nodes, number, &value, now) {
                            self.wanted_map = self.wants_map.then_some(Ok(()));
                            self.wake_for_map();
                        }
                    }
                    Question::Request(task) => self.hear(task, number, value, now),
                    Question::Greeting(_) | Question::Aside => {}
                }
            }
            if let Err(failure) = result {
                self.node_failed(number, failure, now);
            }
        }
    }

    /// Takes the answer to a request.
    fn hear(&mut self, number: usize, from: usize, value: Value, now: Instant) {
        let Value::ServerError(error) = value else {
            self.nodes[from].is_well();
            return self.finish(number, Ok(value));
        };
        let is_cluster = self.routing.is_cluster();
        let reason = explain(&error, is_cluster);
        let node = &mut self.nodes[from];
        let task = &mut self.tasks[number];
        let refusal = store_error(kind_of(&error), task.request.call(), &node.name, &reason);
        let remedy = match (remedy_of(&error, &node.host(), is_cluster), task.target) {
            // What one node is asked, no other one can answer.
            (Remedy::Moved(_) | Remedy::Ask(_) | Remedy::Again, Target::Node(_)) => Remedy::None,
            (remedy, _) => remedy,
        };
        if remedy == Remedy::Leave {
            self.finish(number, Err(refusal));
            let grows = error.code() != "LOADING";
            let failure = Failure {
                grows,
                ..reason.into()
            };
            return self.node_failed(from, failure, now);
        }
        node.is_well();
        match remedy {
            Remedy::Moved(at) if task.may_try_again() => {
                task.is_asking = false;
                self.routing.doubt();
                let to = node_at(self.nodes, &at);
                self.send(number, to, now);
            }
            Remedy::Ask(at) if task.may_try_again() => {
                task.is_asking = true;
                let to = node_at(self.nodes, &at);
                self.send(number, to, now);
            }
            Remedy::LoadScripts if !task.has_loaded => {
                task.has_loaded = true;
                for script in self.access.scripts {
                    let packed = pack(&[b"SCRIPT", b"LOAD", script.as_bytes()]);
                    node.ask(Question::Aside, packed, now);
                }
                self.send(number, from, now);
            }
            Remedy::Again => {
                if error.code() != "TRYAGAIN" {
                    self.routing.doubt();
                }
                match task.pause() {
                    Some(pause) => {
                        task.is_asking = false;
                        task.state = State::Pausing(now + pause);
                        self.pending.push(number);
                    }
                    None => self.finish(number, Err(refusal)),
                }
            }
            _ => {
                if error.code() == "READONLY" {
                    // Its name may stand for another server by now.
                    node.reconnect_later();
                }
                self.finish(number, Err(refusal));
            }
        }
    }

    /// A node is in trouble: what it was sent has failed; what it was not may go
    /// to another one, should that have its slot by now.
    fn node_failed(&mut self, number: usize, failure: Failure, now: Instant) {
        let reason = failure.reason.clone();
        let lost = self.nodes[number].fail(failure, now);
        self.routing.note_trouble(&self.nodes[number], &reason);
        self.routing.node_failed(number, now);
        for question in lost.sent {
            if let Question::Request(task) = question {
                self.fail_task(task, number, &reason);
            }
        }
        for question in lost.unsent {
            let Question::Request(number_of_task) = question else {
                continue;
            };
            let is_cluster = self.routing.is_cluster();
            let task = &mut self.tasks[number_of_task];
            if is_cluster && matches!(task.target, Target::Slot(_)) && task.may_try_again() {
                task.is_asking = false;
                task.state = State::Unrouted;
                self.pending.push(number_of_task);
            } else {
                self.fail_task(number_of_task, number, &reason);
            }
        }
    }

    fn fail_task(&mut self, task: usize, node: usize, reason: &str) {
        let call = self.tasks[task].request.call();
        let error = store_error(ErrorKind::System, call, &self.nodes[node].name, reason);
        self.finish(task, Err(error));
    }

    /// The time is over, or all is done. Who owes an answer since the first half
    /// of the time is in trouble; who was asked late is not to blame, but what
    /// it was sent must not answer the next question.
    fn give_up(&mut self, poll_trouble: Option<&str>) {
        let now = Instant::now();
        if self.open > 0 || (self.wants_map && self.wanted_map.is_none()) {
            self.routing.give_up(now);
        }
        let half = self.start + self.deadline.saturating_duration_since(self.start) / 2;
        for number in 0..self.nodes.len() {
            let node = &mut self.nodes[number];
            let Some(since) = node.busy_since().filter(|_| now >= self.deadline) else {
                continue;
            };
            if since <= half {
                self.node_failed(number, Failure::late(), now);
            } else if node.owes_requests() {
                node.disconnect();
            } else {
                node.recall_requests();
            }
        }
        for number in 0..self.tasks.len() {
            let task = &self.tasks[number];
            let at = match task.state {
                State::Done(_) => continue,
                State::At(node) => self.nodes[node].name.clone(),
                _ => self.routing.trouble().0.to_owned(),
            };
            let mut error = late(task.request.call(), &at);
            if let Some(trouble) = poll_trouble {
                error.reason = format!("poll: {trouble}");
            }
            self.finish(number, Err(error));
        }
    }
}

fn late(call: &'static str, at: &str) -> StoreError {
    store_error(ErrorKind::System, call, at, TOO_LATE)
}
