//! Changes by hand: the records are read, changed here, and committed group by group.

use std::collections::BTreeMap;
use std::time::Instant;

use redis::Value;

use super::RedisStore;
use super::batch::{Group, time_to_live, unexpected};
use super::client::Request;
use super::scan::find;
use crate::policy::apply::{ReadRecords, Records};
use crate::policy::record::Database;
use crate::policy::rules::Rules;
use crate::store::{CommitReport, Editor, ErrorKind, Key, StoreError};
use crate::sys::clock;

/// How often another host may be quicker.
const MOST_TRIES: usize = 16;

/// Where a record is: its group and its name.
type Place = (Vec<u8>, Vec<u8>);

/// Runs the changes on the records with these keys.
pub fn run(
    store: &mut RedisStore,
    keys: &[Key],
    edit: &mut Editor,
) -> Result<CommitReport, StoreError> {
    let mut places: BTreeMap<(usize, Vec<u8>), Place> = BTreeMap::new();
    for &(database, key) in keys {
        if let Some(place) = locate(store, database, key)? {
            places.insert((database as usize, key.to_vec()), place);
        }
    }
    let mut groups: BTreeMap<Vec<u8>, Group> = BTreeMap::new();
    for (group, name) in places.values() {
        groups.entry(group.clone()).or_default().want(name.clone());
    }
    // Those that are committed keep what was read of them: the changes run on the
    // same records again.
    let mut open: Vec<Vec<u8>> = groups.keys().cloned().collect();
    for _ in 0..MOST_TRIES {
        let deadline = store.deadline();
        read(store, &mut groups, &open, deadline)?;
        let mut view = View {
            rules: &store.rules,
            now: clock::seconds(),
            places: &places,
            groups: &mut groups,
        };
        edit(&mut view)?;
        open = commit(store, &groups, &open, deadline)?;
        if open.is_empty() {
            return Ok(CommitReport::default());
        }
    }
    let why = "other hosts were quicker each time";
    Err(StoreError::new(
        ErrorKind::System,
        "EVALSHA",
        "redis".as_ref(),
        why,
    ))
}

/// Where a record is, or would be; `None` if that cannot be told.
fn locate(
    store: &mut RedisStore,
    database: Database,
    key: &[u8],
) -> Result<Option<Place>, StoreError> {
    let likely = store.names.group_of_key(database, key);
    // A client of a pool has its record of the tarpit with those of the pool.
    let may_be_elsewhere = database == Database::Tarpit && store.rules.by_domain;
    if likely.is_none() || may_be_elsewhere {
        let deadline = store.deadline();
        let found = find(&mut store.client, &store.names, database, key, deadline)?;
        if let Some(name) = found.into_iter().next() {
            return Ok(store
                .names
                .group_of_name(database, &name)
                .map(|group| (group, name)));
        }
    }
    Ok(likely.map(|group| {
        let name = store.names.name(database, &group, key);
        (group, name)
    }))
}

fn read(
    store: &mut RedisStore,
    groups: &mut BTreeMap<Vec<u8>, Group>,
    open: &[Vec<u8>],
    deadline: Instant,
) -> Result<(), StoreError> {
    let open: Vec<&Vec<u8>> = open.iter().collect();
    let requests: Vec<Request> = open
        .iter()
        .filter_map(|group| groups.get(*group)?.request())
        .collect();
    for (name, reply) in open.iter().zip(store.client.exchange(&requests, deadline)) {
        if let Some(group) = groups.get_mut(*name) {
            group.take(reply?)?;
        }
    }
    groups.values_mut().for_each(Group::forget_changes);
    Ok(())
}

/// Commits what has changed in the groups that are open; those with which another
/// host was quicker come back.
fn commit(
    store: &mut RedisStore,
    groups: &BTreeMap<Vec<u8>, Group>,
    open: &[Vec<u8>],
    deadline: Instant,
) -> Result<Vec<Vec<u8>>, StoreError> {
    let asked: Vec<(&Vec<u8>, Request)> = open
        .iter()
        .filter_map(|name| Some((name, groups.get(name)?.commit()?)))
        .collect();
    let (names, requests): (Vec<&Vec<u8>>, Vec<Request>) = asked.into_iter().unzip();
    let mut left = Vec::new();
    for (name, reply) in names
        .into_iter()
        .zip(store.client.exchange(&requests, deadline))
    {
        match reply? {
            Value::Int(1) => {}
            Value::Int(_) => left.push(name.clone()),
            _ => return Err(unexpected("EVALSHA")),
        }
    }
    Ok(left)
}

/// The records that may be changed.
struct View<'a> {
    rules: &'a Rules,
    now: f64,
    places: &'a BTreeMap<(usize, Vec<u8>), Place>,
    groups: &'a mut BTreeMap<Vec<u8>, Group>,
}

impl View<'_> {
    fn change(
        &mut self,
        database: Database,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let Some((group, name)) = self.places.get(&(database as usize, key.to_vec())) else {
            let why = "with --privacy only the server can begin a record there";
            return Err(StoreError::new(
                ErrorKind::Other,
                "SET",
                "redis".as_ref(),
                why,
            ));
        };
        // What has expired is not there.
        let kept = |value| Some((value, time_to_live(self.rules, database, value, self.now)?));
        let change = value.and_then(kept);
        if let Some(group) = self.groups.get_mut(group) {
            group.set(
                name,
                change.map(|(value, _)| value),
                change.map_or(0, |(_, time)| time),
            );
        }
        Ok(())
    }
}

impl ReadRecords for View<'_> {
    type Error = StoreError;

    fn get(&self, database: Database, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        let place = self.places.get(&(database as usize, key.to_vec()));
        Ok(place.and_then(|(group, name)| self.groups.get(group)?.get(name)))
    }
}

impl Records for View<'_> {
    fn put(&mut self, database: Database, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.change(database, key, Some(value))
    }

    fn delete(&mut self, database: Database, key: &[u8]) -> Result<(), StoreError> {
        match self.places.contains_key(&(database as usize, key.to_vec())) {
            true => self.change(database, key, None),
            false => Ok(()),
        }
    }
}
