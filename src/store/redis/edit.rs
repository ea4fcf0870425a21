//! Changes by hand: the records are read, changed here, and committed group by group.

use std::collections::{BTreeMap, BTreeSet};
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
/// Where the records with some keys are, or would be. There may be several of one key: a
/// client of a pool that came without its name has one in the tarpit beside each.
type Places = BTreeMap<(usize, Vec<u8>), Vec<Place>>;

/// Runs the changes on the records with these keys.
pub fn run(
    store: &mut RedisStore,
    keys: &[Key],
    edit: &mut Editor,
) -> Result<CommitReport, StoreError> {
    let mut places = Places::new();
    for database in Database::ALL {
        let of_database = keys.iter().filter(|(own, _)| *own == database);
        let keys = of_database.map(|&(_, key)| key).collect();
        locate(store, database, &keys, &mut places)?;
    }
    let mut groups: BTreeMap<Vec<u8>, Group> = BTreeMap::new();
    for (group, name) in places.values().flatten() {
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

/// Finds out where the records with these keys are, or would be; a key of which that
/// cannot be told gets no place. One walk serves all keys.
fn locate(
    store: &mut RedisStore,
    database: Database,
    keys: &BTreeSet<&[u8]>,
    places: &mut Places,
) -> Result<(), StoreError> {
    let place_of = |key: &[u8]| (database as usize, key.to_vec());
    // A client of a pool has its record of the tarpit with those of the pool.
    let may_be_elsewhere = database == Database::Tarpit && store.rules.by_domain;
    let is_sought =
        |key: &&[u8]| may_be_elsewhere || store.names.group_of_key(database, key).is_none();
    let sought: BTreeSet<&[u8]> = keys.iter().copied().filter(is_sought).collect();
    for name in find(store, database, &sought)? {
        let names = &store.names;
        if let Some(key) = names.key(database, &name)
            && let Some(group) = names.group_of_name(database, &name)
        {
            places.entry(place_of(key)).or_default().push((group, name));
        }
    }
    for &key in keys {
        if let Some(group) = store.names.group_of_key(database, key) {
            let name = store.names.name(database, &group, key);
            let places = places.entry(place_of(key)).or_default();
            if places.is_empty() {
                places.push((group, name));
            }
        }
    }
    Ok(())
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
    places: &'a Places,
    groups: &'a mut BTreeMap<Vec<u8>, Group>,
}

impl<'a> View<'a> {
    fn places_of(&self, database: Database, key: &[u8]) -> &'a [Place] {
        let places = self.places.get(&(database as usize, key.to_vec()));
        places.map(Vec::as_slice).unwrap_or_default()
    }
}

impl ReadRecords for View<'_> {
    type Error = StoreError;

    fn get(&self, database: Database, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        let mut places = self.places_of(database, key).iter();
        Ok(places.find_map(|(group, name)| self.groups.get(group)?.get(name)))
    }
}

impl Records for View<'_> {
    fn put(&mut self, database: Database, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        let Some((group, name)) = self.places_of(database, key).first() else {
            let why = "with --privacy only the server can begin a record there";
            return Err(StoreError::new(
                ErrorKind::Other,
                "SET",
                "redis".as_ref(),
                why,
            ));
        };
        // What has expired is not there.
        let time = time_to_live(self.rules, database, value, self.now);
        if let Some(group) = self.groups.get_mut(group) {
            group.set(name, time.map(|_| value), time.unwrap_or(0));
        }
        Ok(())
    }

    fn delete(&mut self, database: Database, key: &[u8]) -> Result<(), StoreError> {
        for (group, name) in self.places_of(database, key) {
            if let Some(group) = self.groups.get_mut(group) {
                group.set(name, None, 0);
            }
        }
        Ok(())
    }
}
