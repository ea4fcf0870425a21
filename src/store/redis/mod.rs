//! Records in Redis or Valkey, on one server or a cluster: one greylist for several
//! hosts.
//!
//! A batch of commands takes two round trips. The records are read; the commands are
//! applied to them here, by the same rules as in any store; then a script for each
//! group of records compares them with what was read and sets all of them or none.
//! Commands that another host was quicker with are decided again. All of it has one
//! deadline: nobody waits longer for the network.

mod batch;
pub mod client;
mod edit;
mod exchange;
mod greeting;
mod lookup;
mod names;
mod node;
pub mod options;
mod probe;
mod question;
mod routing;
mod scan;
mod slots;
mod stream;
mod task;
mod tls;
mod wire;
mod words;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use redis::Value;

use super::{CommitReport, Editor, ErrorKind, Found, Key, Store, StoreError, Visitor};
use crate::config::settings::Settings;
use crate::policy::apply::{Reading, allowed};
use crate::policy::command::{Command, Outcome};
use crate::policy::record::Database;
use crate::policy::rules::Rules;
use batch::{COMMIT, Group, Named, View, asks_for_client, unexpected};
use client::{Client, Request};
use names::Names;
use options::RedisOptions;
use scan::Scan;

/// The scripts of every connection.
const SCRIPTS: &[&str] = &[COMMIT];

/// Records in Redis, connected to when they are first needed.
pub struct RedisStore {
    client: Client,
    names: Names,
    /// Those of the server, for what does not come with a command.
    rules: Rules,
    /// How long a batch may take.
    timeout: Duration,
    scan: Option<Scan>,
}

/// A request, and the commands that wait for its reply.
struct Asked {
    request: Request,
    commands: Vec<usize>,
}

/// The store of these settings, if that is in Redis. `timeout` is as for
/// [`RedisStore::new`].
pub fn open(settings: &Settings, timeout: Duration) -> Option<Box<dyn Store>> {
    let options = RedisOptions::of(&settings.store)?;
    let (prefix, rules) = (&settings.store.prefix, &settings.rules);
    Some(Box::new(RedisStore::new(options, prefix, rules, timeout)))
}

/// Tries everything that is needed of the servers of these settings, if there are any,
/// and takes no longer than this. Returns what is worth a note.
pub fn probe(settings: &Settings, timeout: Duration) -> Option<Result<Vec<String>, StoreError>> {
    let mut client = Client::new(RedisOptions::of(&settings.store)?, SCRIPTS);
    Some(client.probe(&settings.store.prefix, Instant::now() + timeout))
}

impl RedisStore {
    /// A store under these rules, whose names begin with `prefix`. `timeout` is how
    /// long a batch, or a step of a longer walk, may take.
    pub fn new(options: RedisOptions, prefix: &str, rules: &Rules, timeout: Duration) -> Self {
        RedisStore {
            client: Client::new(options, SCRIPTS),
            names: Names::new(prefix.as_bytes(), rules),
            rules: rules.clone(),
            timeout,
            scan: None,
        }
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    /// Until when records are read that are to be committed by the deadline: a node of a
    /// cluster that does not answer leaves the others time for that.
    fn reading_deadline(&self, deadline: Instant) -> Instant {
        let now = Instant::now();
        match self.client.is_cluster() {
            true => now + deadline.saturating_duration_since(now) / 2,
            false => deadline,
        }
    }

    /// Reads the records of these groups. What could not be read is taken out, and
    /// said in `troubles`.
    fn read(
        &mut self,
        groups: &mut BTreeMap<Vec<u8>, Group>,
        deadline: Instant,
        troubles: &mut Vec<StoreError>,
    ) {
        let requests: Vec<Request> = groups.values().filter_map(Group::request).collect();
        let mut replies = self.client.exchange(&requests, deadline).into_iter();
        groups.retain(|_, group| {
            if group.is_empty() {
                return true;
            }
            let reply = replies.next().unwrap_or_else(|| Err(unexpected("MGET")));
            match reply.and_then(|reply| group.take(reply)) {
                Ok(()) => true,
                Err(error) => {
                    troubles.push(error);
                    false
                }
            }
        });
    }

    /// Decides these commands, and commits what comes of it. Those that were not
    /// decided since another host was quicker come back.
    fn decide(
        &mut self,
        rules: &Rules,
        commands: &[Command],
        open: &[usize],
        deadline: Instant,
        outcomes: &mut [Option<Outcome>],
        troubles: &mut Vec<StoreError>,
    ) -> Vec<usize> {
        let mut groups = BTreeMap::new();
        let mut named = Vec::with_capacity(open.len());
        for &index in open {
            let names = Named::new(&self.names, &commands[index]);
            names.want(rules, &commands[index], &mut groups);
            named.push(names);
        }
        self.read(&mut groups, self.reading_deadline(deadline), troubles);
        let mut decided: Vec<Option<Outcome>> = vec![None; commands.len()];
        let mut waiting: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
        for (&index, named) in open.iter().zip(&named) {
            let Some(mut group) = groups.remove(&named.group) else {
                continue;
            };
            let own = named.own_group().filter(|own| **own != named.group);
            let mut own_group = own.and_then(|own| Some((own, groups.remove(own)?)));
            if own_group.is_none() && own.is_some() && asks_for_client(rules, &commands[index]) {
                // Whether it is on the auto-whitelist is not known.
                groups.insert(named.group.clone(), group);
                continue;
            }
            let all = commands.iter().zip(outcomes.iter().zip(&decided));
            let before = all.filter_map(|(command, (committed, decided))| {
                Some((command, committed.as_ref().or(decided.as_ref())?))
            });
            let command = allowed(&commands[index], commands.len(), before);
            // Nobody asks for it then, and it is not kept: what is in no group was not read.
            let mut none = Group::default();
            let mut view = View {
                rules,
                command: &command,
                named,
                group: &mut group,
                own_group: own_group.as_mut().map_or(&mut none, |(_, group)| group),
                has_changed_own: false,
            };
            match view.apply() {
                Ok(outcome) => decided[index] = Some(outcome),
                Err(error) => troubles.push(error),
            }
            let changed = match own {
                Some(own) if view.has_changed_own => own,
                _ => &named.group,
            };
            waiting.entry(changed.clone()).or_default().push(index);
            groups.insert(named.group.clone(), group);
            if let Some((own, own_group)) = own_group {
                groups.insert(own.clone(), own_group);
            }
        }
        let mut asked = Vec::new();
        for (group, commands) in waiting {
            match groups.get(&group).and_then(Group::commit) {
                Some(request) => asked.push(Asked { request, commands }),
                None => commands
                    .into_iter()
                    .for_each(|index| outcomes[index] = decided[index]),
            }
        }
        self.commit(asked, deadline, &decided, outcomes, troubles)
    }

    /// Commits each group, and gives the outcomes of those that were. The commands of
    /// those that another host has changed come back.
    fn commit(
        &mut self,
        asked: Vec<Asked>,
        deadline: Instant,
        decided: &[Option<Outcome>],
        outcomes: &mut [Option<Outcome>],
        troubles: &mut Vec<StoreError>,
    ) -> Vec<usize> {
        let (requests, commands): (Vec<Request>, Vec<Vec<usize>>) = asked
            .into_iter()
            .map(|asked| (asked.request, asked.commands))
            .unzip();
        let mut open = Vec::new();
        let replies = self.client.exchange(&requests, deadline);
        for (commands, reply) in commands.into_iter().zip(replies) {
            match reply {
                Ok(Value::Int(1)) => commands
                    .into_iter()
                    .for_each(|index| outcomes[index] = decided[index]),
                Ok(Value::Int(_)) => open.extend(commands),
                Ok(_) => troubles.push(unexpected("EVALSHA")),
                Err(error) => troubles.push(error),
            }
        }
        open.sort_unstable();
        open
    }
}

impl Store for RedisStore {
    /// A worker does not wait for the network: the writer reads for it.
    fn try_read(&mut self, _: &Rules, _: &Command) -> Result<Reading, StoreError> {
        Ok(Reading::NeedsWrite)
    }

    fn apply_batch(
        &mut self,
        rules: &Rules,
        commands: &[Command],
        outcomes: &mut Vec<Option<Outcome>>,
    ) -> Result<CommitReport, StoreError> {
        let deadline = self.deadline();
        let start = outcomes.len();
        outcomes.resize(start + commands.len(), None);
        let mut troubles = Vec::new();
        let mut open: Vec<usize> = (0..commands.len()).collect();
        while !open.is_empty() {
            if Instant::now() >= deadline {
                let why = "other hosts were quicker each time";
                troubles.push(StoreError::new(
                    ErrorKind::System,
                    "EVALSHA",
                    "redis".as_ref(),
                    why,
                ));
                break;
            }
            let outcomes = &mut outcomes[start..];
            open = self.decide(rules, commands, &open, deadline, outcomes, &mut troubles);
        }
        Ok(CommitReport {
            troubles,
            ..CommitReport::default()
        })
    }

    fn scan(
        &mut self,
        database: Database,
        prefix: &[u8],
        after: Option<&[u8]>,
        visit: &mut Visitor,
    ) -> Result<bool, StoreError> {
        let going_on = self.scan.take().filter(|_| after.is_some());
        let mut scan = match going_on {
            Some(scan) => scan,
            None => {
                let deadline = self.deadline();
                Scan::begin(&mut self.client, &self.names, database, prefix, deadline)?
            }
        };
        let at_end = loop {
            if scan.show(visit).is_break() {
                break false;
            }
            let deadline = self.deadline();
            if !scan.step(&mut self.client, &self.names, deadline)? {
                break true;
            }
        };
        self.scan = Some(scan).filter(|_| !at_end);
        Ok(at_end)
    }

    fn records_of(&mut self, command: &Command) -> Result<Vec<Found>, StoreError> {
        let deadline = self.deadline();
        let named = Named::new(&self.names, command);
        let mut groups = BTreeMap::new();
        named.want_all(&mut groups);
        let mut troubles = Vec::new();
        self.read(&mut groups, deadline, &mut troubles);
        if let Some(error) = troubles.pop() {
            return Err(error);
        }
        let found = |(database, key): (Database, &[u8])| {
            let (group, name) = named.of(command, database, key);
            let value = groups.get(group).and_then(|group| group.get(name));
            (database, key.to_vec(), value.map(<[u8]>::to_vec))
        };
        Ok(command.keys().map(found).collect())
    }

    fn edit(&mut self, keys: &[Key], edit: &mut Editor) -> Result<CommitReport, StoreError> {
        edit::run(self, keys, edit)
    }

    fn close(&mut self) {
        self.client.close();
        self.scan = None;
    }

    fn expires_by_itself(&self) -> bool {
        true
    }
}
