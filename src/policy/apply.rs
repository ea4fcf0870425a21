//! The state machine on the records: one command, one outcome.
//!
//! This is what a transaction runs for each request, in whatever process has
//! it open. The order of the steps and every comparison are the original's.

use super::command::{Addition, Command, Counting, Now, Outcome, Verdict};
use super::number::{number_of_text, push_number};
use super::record::{ClientRecord, Database, TripletRecord, parse_tarpit_record};
use super::rules::Rules;

/// Seconds after which a greylisted client's tarpit record is renewed.
const TARPIT_RENEWAL: f64 = 300.0;

/// The key of the record that a ping writes and removes in one transaction.
const PING_KEY: &[u8] = b"ping";

/// The records a transaction lets read.
pub trait ReadRecords {
    /// Why a record could not be read or written.
    type Error;
    /// The value under a key.
    fn get(&self, database: Database, key: &[u8]) -> Result<Option<&[u8]>, Self::Error>;
}

/// The records a transaction lets read and write.
pub trait Records: ReadRecords {
    /// Writes a value, replacing the one that is there.
    fn put(&mut self, database: Database, key: &[u8], value: &[u8]) -> Result<(), Self::Error>;
    /// Removes a record; no error if there is none.
    fn delete(&mut self, database: Database, key: &[u8]) -> Result<(), Self::Error>;
}

/// Applies the commands of a transaction in order and appends their outcomes. Applied
/// again, they come to the same.
pub fn apply_all<R: Records>(
    records: &mut R,
    rules: &Rules,
    commands: &[Command],
    outcomes: &mut Vec<Option<Outcome>>,
) -> Result<(), R::Error> {
    let start = outcomes.len();
    for (index, command) in commands.iter().enumerate() {
        let before = commands.iter().zip(outcomes[start..].iter().flatten());
        let command = allowed(command, index, before);
        outcomes.push(Some(apply(records, rules, &command)?));
    }
    Ok(())
}

/// A command of a batch with what those of the same client that were applied `before` it
/// have left of the allowance; they are `count` at most.
pub fn allowed<'c, 'o>(
    command: &Command<'c>,
    count: usize,
    before: impl Iterator<Item = (&'o Command<'o>, &'o Outcome)>,
) -> Command<'c> {
    match is_sure(command, count) {
        true => *command,
        false => reduce_allowance(command, before),
    }
}

/// True if the client's allowance says the same for this command, whatever those before
/// it have recorded: it is used up, or enough for all.
fn is_sure(command: &Command, before: usize) -> bool {
    let is_sure = |left: u32| left == 0 || usize::try_from(left).is_ok_and(|left| left > before);
    let allowance = command.allowance;
    allowance.network.is_empty() || (is_sure(allowance.triplets) && is_sure(allowance.tarpit))
}

/// The command with what those of the same client have left of the allowance.
fn reduce_allowance<'c, 'o>(
    command: &Command<'c>,
    before: impl Iterator<Item = (&'o Command<'o>, &'o Outcome)>,
) -> Command<'c> {
    let mut command = *command;
    let allowance = &mut command.allowance;
    for (_, outcome) in before.filter(|(other, _)| other.allowance.network == allowance.network) {
        let used = |addition| u32::from(addition == Addition::Made);
        allowance.triplets = allowance.triplets.saturating_sub(used(outcome.triplet));
        allowance.tarpit = allowance.tarpit.saturating_sub(used(outcome.tarpit));
    }
    command
}

/// Applies a command to the records.
pub fn apply<R: Records>(
    records: &mut R,
    rules: &Rules,
    command: &Command,
) -> Result<Outcome, R::Error> {
    let mut outcome = Outcome::default();
    if command.is_ping() {
        records.put(Database::Greylist, PING_KEY, b"")?;
        records.delete(Database::Greylist, PING_KEY)?;
        return Ok(outcome);
    }
    if is_auto_whitelisted(records, rules, command, &mut outcome)? {
        return Ok(outcome);
    }
    if rules.targrey && command.is_data {
        let has_waited = records.get(Database::Tarpit, command.address)?.is_some();
        outcome.verdict = Verdict::TarpitPassed { has_waited };
        if has_waited {
            records.delete(Database::Tarpit, command.address)?;
            outcome.tarpit = Addition::Undone;
        }
        if has_waited || command.counting != Counting::IfWaited {
            count_pass(records, rules, command, &mut outcome)?;
        }
        return Ok(outcome);
    }
    let triplet = update_triplet(records, rules, command, &mut outcome)?;
    if triplet.may_count_client {
        count_pass(records, rules, command, &mut outcome)?;
    }
    outcome.verdict = if !triplet.is_greylisted {
        Verdict::Pass {
            waited: triplet.waited,
            was_successful: triplet.was_successful,
        }
    } else if rules.targrey && enters_tarpit(records, command, &mut outcome)? {
        Verdict::Tarpit
    } else {
        Verdict::Greylist {
            is_new: triplet.waited == 0.0,
            missing: triplet.missing,
        }
    };
    Ok(outcome)
}

/// What reading alone says of a command.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reading {
    /// It is decided, and nothing has to be written.
    Decided(Outcome),
    /// The client is on the auto-whitelist, and its record is due to be
    /// renewed: applying the command does that. The client need not wait for
    /// it; if it is lost, the next request renews.
    RenewalDue(Outcome),
    /// It takes a write to decide it.
    NeedsWrite,
}

/// What reading alone says of a command. A triplet always takes a write and is
/// not even looked for here.
pub fn apply_read_only<R: ReadRecords>(
    records: &R,
    rules: &Rules,
    command: &Command,
) -> Result<Reading, R::Error> {
    let mut outcome = Outcome::default();
    if let Some(found) = find_auto_whitelisted(records, rules, command, &mut outcome)? {
        return Ok(match is_renewal_due(rules, command, found.last) {
            true => Reading::RenewalDue(outcome),
            false => Reading::Decided(outcome),
        });
    }
    if !rules.targrey || !command.is_data {
        return Ok(Reading::NeedsWrite);
    }
    let is_recorded = records.get(Database::Tarpit, command.address)?.is_some();
    outcome.verdict = Verdict::TarpitPassed {
        has_waited: is_recorded,
    };
    let is_counted = rules.auto_whitelist.is_some() && command.counting == Counting::Always && {
        let client = client_numbers(records, command.client, &mut outcome)?;
        is_pass_due(rules, command, client)
    };
    Ok(match is_recorded || is_counted {
        true => Reading::NeedsWrite,
        false => Reading::Decided(outcome),
    })
}

/// True if reading alone can decide some commands of this kind: without an
/// auto-whitelist and before DATA it never can.
pub fn may_decide_by_reading(rules: &Rules, command: &Command) -> bool {
    let may_be_whitelisted = rules.auto_whitelist.is_some() && command.counting != Counting::Never;
    may_be_whitelisted || (rules.targrey && command.is_data)
}

/// True if an auto-whitelisted client's record, last counted at this time, is
/// to be renewed: it is old, or lies in the future.
fn is_renewal_due(rules: &Rules, command: &Command, last: f64) -> bool {
    let now = command.now.seconds;
    now >= last + rules.auto_whitelist_delay || is_in_future(rules, command, last)
}

/// True if a time lies in the future by more than clocks of hosts may differ. The time
/// that a test gives is no clock's.
fn is_in_future(rules: &Rules, command: &Command, time: f64) -> bool {
    let difference = match command.now.text {
        Some(_) => 0.0,
        None => rules.clock_difference,
    };
    time > command.now.seconds + difference
}

/// True if a pass of a client with these numbers counts: one does in
/// `auto_whitelist_delay` seconds.
fn is_pass_due(rules: &Rules, command: &Command, client: Option<(f64, f64)>) -> bool {
    client.is_none_or(|(_, last)| command.now.seconds >= last + rules.auto_whitelist_delay)
}

/// Numbers of a client's record; `None` without one.
fn client_numbers<R: ReadRecords>(
    records: &R,
    key: &[u8],
    outcome: &mut Outcome,
) -> Result<Option<(f64, f64)>, R::Error> {
    let Some(value) = records.get(Database::Clients, key)? else {
        return Ok(None);
    };
    let record = ClientRecord::parse(value);
    outcome.bad_record |= record.is_none();
    Ok(record.map(|record| (number_of_text(record.count), number_of_text(record.last))))
}

fn write_client<R: Records>(
    records: &mut R,
    command: &Command,
    key: &[u8],
    count: f64,
) -> Result<(), R::Error> {
    let mut value = Vec::with_capacity(32);
    push_number(&mut value, count);
    value.push(b',');
    command.now.push(&mut value);
    records.put(Database::Clients, key, &value)
}

/// A record by which a client is on the auto-whitelist.
struct Whitelisted<'c> {
    key: &'c [u8],
    count: f64,
    last: f64,
}

/// The record by which the client is on the auto-whitelist.
fn find_auto_whitelisted<'c, R: ReadRecords>(
    records: &R,
    rules: &Rules,
    command: &Command<'c>,
    outcome: &mut Outcome,
) -> Result<Option<Whitelisted<'c>>, R::Error> {
    let Some(limit) = rules.auto_whitelist else {
        return Ok(None);
    };
    for key in command.client_keys() {
        if let Some((count, last)) = client_numbers(records, key, outcome)?
            && count >= limit
        {
            return Ok(Some(Whitelisted { key, count, last }));
        }
    }
    Ok(None)
}

/// The look-up in the auto-whitelist, which also renews the record.
fn is_auto_whitelisted<R: Records>(
    records: &mut R,
    rules: &Rules,
    command: &Command,
    outcome: &mut Outcome,
) -> Result<bool, R::Error> {
    let found = find_auto_whitelisted(records, rules, command, outcome)?;
    let Some(Whitelisted { key, count, last }) = found else {
        return Ok(false);
    };
    if is_renewal_due(rules, command, last) {
        write_client(records, command, key, count + 1.0)?;
    }
    outcome.verdict = Verdict::ClientAutoWhitelisted;
    Ok(true)
}

/// Counts a pass of the client, if one is due.
fn count_pass<R: Records>(
    records: &mut R,
    rules: &Rules,
    command: &Command,
    outcome: &mut Outcome,
) -> Result<(), R::Error> {
    let Some(limit) = rules.auto_whitelist else {
        return Ok(());
    };
    if command.counting == Counting::Never {
        return Ok(());
    }
    let client = client_numbers(records, command.client, outcome)?;
    if is_pass_due(rules, command, client) {
        let count = client.map_or(1.0, |(count, _)| count + 1.0);
        write_client(records, command, command.client, count)?;
        outcome.client_whitelisted = count == limit;
    }
    Ok(())
}

/// What the greylist says of a triplet.
struct Triplet {
    /// Seconds since it was first seen.
    waited: f64,
    /// Seconds of the delay that are left.
    missing: f64,
    was_successful: bool,
    is_greylisted: bool,
    may_count_client: bool,
}

fn update_triplet<R: Records>(
    records: &mut R,
    rules: &Rules,
    command: &Command,
    outcome: &mut Outcome,
) -> Result<Triplet, R::Error> {
    let now = command.now.seconds;
    let mut value = Vec::with_capacity(64);
    let (mut first, mut count, mut was_successful) = (now, 0.0, false);
    let mut keeps_first = false;
    match records
        .get(Database::Greylist, command.triplet)?
        .map(TripletRecord::parse)
    {
        Some(Some(record)) => {
            first = number_of_text(record.first);
            was_successful = record.age() >= rules.delay;
            // Plain postgrey did not count: what it had let pass has passed.
            count = match record.count {
                Some(count) => number_of_text(count),
                None if was_successful => rules.retry_count,
                None => 0.0,
            };
            keeps_first = was_successful || now - first <= rules.retry_window;
            if keeps_first && is_in_future(rules, command, first) {
                outcome.clock_corrected = true;
                keeps_first = false;
            }
            if keeps_first {
                value.extend_from_slice(record.first);
            }
        }
        Some(None) => outcome.bad_record = true,
        None => outcome.triplet = Addition::of_allowance(command.allowance.triplets),
    }
    if !keeps_first {
        first = now;
        command.now.push(&mut value);
    }
    // The first time lies in the future if another host's clock is ahead.
    let waited = (now - first).max(0.0);
    let missing = rules.delay - waited;
    if missing <= 0.0 {
        count += 1.0;
    }
    if outcome.triplet != Addition::LeftOut {
        push_last_count_octet(&mut value, &command.now, count, command.octet);
        records.put(Database::Greylist, command.triplet, &value)?;
    }
    let has_waited = match rules.compat.counts_retries() {
        true => count >= rules.retry_count,
        false => missing <= 0.0,
    };
    Ok(Triplet {
        waited,
        missing,
        was_successful,
        is_greylisted: !has_waited,
        may_count_client: has_waited && !was_successful,
    })
}

fn push_last_count_octet(value: &mut Vec<u8>, now: &Now, count: f64, octet: &[u8]) {
    value.push(b',');
    now.push(value);
    value.push(b',');
    push_number(value, count);
    if !octet.is_empty() {
        value.push(b',');
        value.extend_from_slice(octet);
    }
}

/// True if the greylisted client was not in the tarpit before; it is now.
fn enters_tarpit<R: Records>(
    records: &mut R,
    command: &Command,
    outcome: &mut Outcome,
) -> Result<bool, R::Error> {
    let entry = match records.get(Database::Tarpit, command.address)? {
        Some(value) => {
            let entry = parse_tarpit_record(value);
            outcome.bad_record |= entry.is_none();
            entry.unwrap_or(0.0)
        }
        None => {
            outcome.tarpit = Addition::of_allowance(command.allowance.tarpit);
            0.0
        }
    };
    let enters = entry == 0.0;
    let is_due = enters || command.now.seconds >= entry + TARPIT_RENEWAL;
    if is_due && outcome.tarpit != Addition::LeftOut {
        let mut value = Vec::with_capacity(16);
        command.now.push(&mut value);
        records.put(Database::Tarpit, command.address, &value)?;
    }
    Ok(enters)
}
