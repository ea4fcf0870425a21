//! Commands on their way through Redis: the records they concern are read, changed
//! here by the same rules as in any store, and committed group by group.

use std::collections::BTreeMap;

use redis::Value;

use super::client::Request;
use super::names::Names;
use crate::policy::apply::{ReadRecords, Records, apply};
use crate::policy::command::{Command, Counting, Outcome};
use crate::policy::record::{Database, seconds_left};
use crate::policy::rules::Rules;
use crate::store::StoreError;

/// Compares records with what was read of them, and sets all of them or none.
///
/// Arguments of each: what was read (`=` and the value, or `-`), what to set (the
/// same, or nothing), and for how many milliseconds. It returns 1, or 0 if another
/// host was quicker.
pub const COMMIT: &str = "
for i, name in ipairs(KEYS) do
  local value = redis.call('GET', name)
  if (value and '=' .. value or '-') ~= ARGV[3 * i - 2] then return 0 end
end
for i, name in ipairs(KEYS) do
  local new = ARGV[3 * i - 1]
  if new == '-' then
    redis.call('DEL', name)
  elseif new ~= '' then
    redis.call('SET', name, string.sub(new, 2), 'PX', ARGV[3 * i])
  end
end
return 1
";

/// The longest time to live, in milliseconds: Redis computes with 63 bits.
const MOST_MILLISECONDS: f64 = 1e15;

/// Milliseconds for which a record with this value is kept; `None` if it has expired.
/// At its last second it is still there: the rules decide then.
pub fn time_to_live(rules: &Rules, database: Database, value: &[u8], now: f64) -> Option<u64> {
    let left = seconds_left(rules, database, value, now).filter(|&left| left >= 0.0)?;
    Some(((left + 1.0) * 1000.0).min(MOST_MILLISECONDS) as u64)
}

/// What a record becomes.
#[derive(Debug)]
struct Change {
    /// `None`: it goes.
    value: Option<Vec<u8>>,
    milliseconds: u64,
}

/// Records of one group, by name: what was read of them, and what they become.
#[derive(Debug, Default)]
pub struct Group {
    read: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    changed: BTreeMap<Vec<u8>, Change>,
}

impl Group {
    /// Notes that a record will be asked for.
    pub fn want(&mut self, name: Vec<u8>) {
        self.read.insert(name, None);
    }

    /// True if no record is asked for.
    pub fn is_empty(&self) -> bool {
        self.read.is_empty()
    }

    /// The request for all of them.
    pub fn request(&self) -> Option<Request> {
        let first = self.read.keys().next()?;
        let words: Vec<&[u8]> = std::iter::once(&b"MGET"[..])
            .chain(self.read.keys().map(Vec::as_slice))
            .collect();
        Some(Request::new(first, &words))
    }

    /// Takes the reply to it.
    pub fn take(&mut self, reply: Value) -> Result<(), StoreError> {
        let values = match reply {
            Value::Array(values) if values.len() == self.read.len() => values,
            _ => return Err(unexpected("MGET")),
        };
        for (place, value) in self.read.values_mut().zip(values) {
            *place = match value {
                Value::BulkString(octets) => Some(octets),
                Value::Nil => None,
                _ => return Err(unexpected("MGET")),
            };
        }
        Ok(())
    }

    /// The value of a record, as it was read or is to become.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let value = match self.changed.get(name) {
            Some(change) => &change.value,
            None => self.read.get(name)?,
        };
        value.as_deref()
    }

    /// Sets a record for so many milliseconds; without a value it goes.
    pub fn set(&mut self, name: &[u8], value: Option<&[u8]>, milliseconds: u64) {
        let value = value.map(<[u8]>::to_vec);
        let change = Change {
            value,
            milliseconds,
        };
        self.changed.insert(name.to_vec(), change);
    }

    /// Takes all changes back.
    pub fn forget_changes(&mut self) {
        self.changed.clear();
    }

    /// The request that commits the changes; `None` if there are none.
    pub fn commit(&self) -> Option<Request> {
        if self.changed.is_empty() {
            return None;
        }
        let told = |value: Option<&[u8]>| match value {
            Some(value) => [b"=", value].concat(),
            None => b"-".to_vec(),
        };
        let mut arguments = Vec::with_capacity(3 * self.read.len());
        for (name, read) in &self.read {
            arguments.push(told(read.as_deref()));
            let (new, milliseconds) = match self.changed.get(name) {
                Some(change) => (told(change.value.as_deref()), change.milliseconds),
                None => (Vec::new(), 0),
            };
            arguments.push(new);
            arguments.push(milliseconds.to_string().into_bytes());
        }
        let names: Vec<&[u8]> = self.read.keys().map(Vec::as_slice).collect();
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        Some(Request::script(0, &names, &arguments))
    }
}

/// A reply of a kind that the command does not have.
pub fn unexpected(command: &'static str) -> StoreError {
    let why = "the reply is none to this command";
    StoreError::new(
        crate::store::ErrorKind::System,
        command,
        "redis".as_ref(),
        why,
    )
}

/// True if a command asks for its client on the auto-whitelist.
pub fn asks_for_client(rules: &Rules, command: &Command) -> bool {
    rules.auto_whitelist.is_some() && command.counting != Counting::Never
}

/// The names of a command's records.
pub struct Named {
    /// Where all of them are but that of its own client.
    pub group: Vec<u8>,
    triplet: Vec<u8>,
    client: Vec<u8>,
    tarpit: Vec<u8>,
    /// The group and the name of the record of its own client, if it has one.
    own: Option<(Vec<u8>, Vec<u8>)>,
}

impl Named {
    /// The names of the records of a command.
    pub fn new(names: &Names, command: &Command) -> Self {
        let group = names.group(command);
        let own = (!command.own_client.is_empty()).then(|| {
            let group = names.group_of_client(command.address);
            let name = names.name(Database::Clients, &group, command.own_client);
            (group, name)
        });
        Named {
            triplet: names.name(Database::Greylist, &group, command.triplet),
            client: names.name(Database::Clients, &group, command.client),
            tarpit: names.name(Database::Tarpit, &group, command.address),
            group,
            own,
        }
    }

    /// Group and name of the record with this key.
    pub fn of(&self, command: &Command, database: Database, key: &[u8]) -> (&Vec<u8>, &[u8]) {
        match &self.own {
            Some((group, name)) if database == Database::Clients && key == command.own_client => {
                (group, name)
            }
            _ => (&self.group, self.name(database)),
        }
    }

    fn name(&self, database: Database) -> &[u8] {
        match database {
            Database::Greylist => &self.triplet,
            Database::Clients => &self.client,
            Database::Tarpit => &self.tarpit,
        }
    }

    /// Notes all of its records in their groups.
    pub fn want_all(&self, groups: &mut BTreeMap<Vec<u8>, Group>) {
        let group = groups.entry(self.group.clone()).or_default();
        for database in Database::ALL {
            group.want(self.name(database).to_vec());
        }
        if let Some((group, name)) = &self.own {
            groups.entry(group.clone()).or_default().want(name.clone());
        }
    }

    /// The group of its own client, if that is another.
    pub fn own_group(&self) -> Option<&Vec<u8>> {
        self.own.as_ref().map(|(group, _)| group)
    }

    /// Notes in their groups which records a command may read.
    pub fn want(&self, rules: &Rules, command: &Command, groups: &mut BTreeMap<Vec<u8>, Group>) {
        let group = groups.entry(self.group.clone()).or_default();
        let is_tarpitted = rules.targrey;
        if !(is_tarpitted && command.is_data) {
            group.want(self.triplet.clone());
        }
        if is_tarpitted {
            group.want(self.tarpit.clone());
        }
        if asks_for_client(rules, command) {
            group.want(self.client.clone());
            if let Some((group, name)) = &self.own {
                groups.entry(group.clone()).or_default().want(name.clone());
            }
        }
    }
}

/// The records of one command.
pub struct View<'a> {
    /// The rules, which say how long a record is kept.
    pub rules: &'a Rules,
    /// The command.
    pub command: &'a Command<'a>,
    /// The names of its records.
    pub named: &'a Named,
    /// The group of all of them but that of its own client.
    pub group: &'a mut Group,
    /// The group of that one.
    pub own_group: &'a mut Group,
    /// That one was changed, and nothing else.
    pub has_changed_own: bool,
}

impl View<'_> {
    /// Applies the command.
    pub fn apply(&mut self) -> Result<Outcome, StoreError> {
        let (rules, command) = (self.rules, self.command);
        let outcome = apply(self, rules, command)?;
        if command.is_ping() {
            // Made and removed here it would not be seen there.
            let name = self.named.triplet.clone();
            self.group.set(&name, Some(b""), 1);
        }
        Ok(outcome)
    }

    fn change(&mut self, database: Database, key: &[u8], value: Option<&[u8]>) {
        let now = self.command.now.seconds;
        let kept = |value: &[u8]| time_to_live(self.rules, database, value, now);
        let milliseconds = value.and_then(kept).unwrap_or(1);
        let (group, name) = self.named.of(self.command, database, key);
        self.has_changed_own = *group != self.named.group;
        match self.has_changed_own {
            true => self.own_group.set(name, value, milliseconds),
            false => self.group.set(name, value, milliseconds),
        }
    }
}

impl ReadRecords for View<'_> {
    type Error = StoreError;

    fn get(&self, database: Database, key: &[u8]) -> Result<Option<&[u8]>, StoreError> {
        let (group, name) = self.named.of(self.command, database, key);
        Ok(match *group == self.named.group {
            true => self.group.get(name),
            false => self.own_group.get(name),
        })
    }
}

impl Records for View<'_> {
    fn put(&mut self, database: Database, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.change(database, key, Some(value));
        Ok(())
    }

    fn delete(&mut self, database: Database, key: &[u8]) -> Result<(), StoreError> {
        self.change(database, key, None);
        Ok(())
    }
}
