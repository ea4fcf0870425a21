//! What a worker does for its connections: it reads requests, answers them, and
//! sends on what takes a commit.

use std::ops::ControlFlow;
use std::time::Instant;

use super::Worker;
use crate::server::connection::{Connection, State};
use crate::server::engine::Advance;

/// Octets of memory that a connection keeps for its input: more than a request of
/// Postfix needs.
const KEPT_INPUT: usize = 2048;

impl Worker {
    /// Reads and writes what is ready.
    pub(super) fn serve(&mut self) {
        let mut ready = std::mem::take(&mut self.ready);
        self.poll.push_ready(self.first, &mut ready);
        for place in ready.drain(..) {
            self.serve_one(place - self.first);
        }
        self.ready = ready;
    }

    fn serve_one(&mut self, index: usize) {
        let seen = self.poll.readiness(self.first + index);
        if seen.output
            && let Some(connection) = self.connections.get_mut(index)
        {
            if connection.flush().is_err() {
                return self.close(index);
            }
            self.advance(index);
        }
        if seen.input {
            self.read(index);
        } else if seen.gone {
            // Nobody is there to read an answer.
            self.close(index);
        }
    }

    /// Answers the requests whose commands are done and goes on with their
    /// connections.
    pub(super) fn finish_requests(&mut self) {
        let mut done = std::mem::take(&mut self.done);
        for (owner, outcome) in done.drain(..) {
            let (index, serial) = ((owner >> 32) as usize, owner as u32);
            let Some(connection) = self.connections.get_mut(index) else {
                continue;
            };
            if connection.serial != serial {
                continue;
            }
            let Connection {
                reader, replies, ..
            } = connection;
            connection.state = match self.engine.finish(reader, outcome, replies) {
                ControlFlow::Continue(()) => State::Reading,
                ControlFlow::Break(_) => State::Closing,
            };
            self.advance(index);
        }
        self.done = done;
    }

    pub(super) fn read(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        if !connection.can_advance() || !connection.input.is_empty() {
            return;
        }
        match connection.read(&mut self.buffer) {
            Ok(true) => {
                connection.last_heard = Instant::now();
                connection.counted_in = self.gather.note_request(connection.counted_in);
                self.advance(index);
            }
            Ok(false) => self.tidy(index),
            Err(_) => self.close(index),
        }
    }

    /// Handles the input that was read, as far as that is possible now.
    fn advance(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        let mut input = std::mem::take(&mut connection.input);
        let mut rest = &input[..];
        let mut has_renewed = false;
        while connection.can_advance() {
            let is_usable = self.epoch.is_usable();
            let store = is_usable.then(|| self.store.get());
            self.commands.has_renewals_under_way = self.commit.has_renewals();
            let next = self.engine.advance(
                store,
                &mut connection.reader,
                &mut rest,
                &mut connection.replies,
                &mut self.commands,
            );
            for renewal in self.commands.renewals.drain(..) {
                self.commit.push(None, &renewal);
                has_renewed = true;
            }
            match next {
                Advance::NeedCommit => {
                    connection.state = State::Waiting;
                    let owner = (index as u64) << 32 | u64::from(connection.serial);
                    self.commit.push(Some(owner), &self.commands.needed);
                }
                Advance::Close => {
                    connection.state = State::Closing;
                    rest = &[];
                }
                Advance::NeedInput => break,
                // The peer may take them at once, and nothing else would make
                // this connection go on. If it is gone, `tidy` finds out, too.
                Advance::NeedOutput => {
                    let _ = connection.flush();
                }
            }
        }
        input.drain(..input.len() - rest.len());
        input.shrink_to(KEPT_INPUT);
        connection.input = input;
        if has_renewed {
            // Before the reply: another worker may get the next request.
            self.commit.send();
        }
        self.tidy(index);
    }

    /// Writes what there is, and closes or watches the connection.
    pub(super) fn tidy(&mut self, index: usize) {
        let Some(connection) = self.connections.get_mut(index) else {
            return;
        };
        if connection.has_output() && connection.flush().is_err() {
            return self.close(index);
        }
        self.has_stalled |= connection.stalled_since.is_some();
        let is_over = connection.is_idle() && self.stopping.is_some();
        if connection.is_finished() || is_over {
            return self.close(index);
        }
        let interest = connection.interest();
        self.poll
            .set(self.first + index, &connection.socket, interest);
    }

    pub(super) fn close(&mut self, index: usize) {
        let Some(connection) = self.connections.try_remove(index) else {
            return;
        };
        self.poll.clear(self.first + index);
        drop(connection);
        if self.stopping.is_none() {
            let count = self.connections.len();
            self.shared
                .counters
                .set_connections(self.place, Some(count));
        }
    }
}
