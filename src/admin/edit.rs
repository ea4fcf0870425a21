//! `add`, `delete`, `forget` and `pass`: changes by hand, each in one short
//! transaction, so that a running server answers by them at once.

use std::collections::BTreeMap;

use super::complain;
use super::escape::{escaped, unescape};
use super::failure::Failure;
use super::keys::{Known, Named, parsed, split_length};
use super::opened::Opened;
use super::options::Id;
use super::output::Output;
use super::records::{database_with_name, each_record, short_name};
use super::server_options;
use super::words::Words;
use crate::config::settings::Settings;
use crate::config::whitelists;
use crate::policy::number::{number_of_text, push_number};
use crate::policy::pool::objection_to_domain;
use crate::policy::record::{ClientRecord, Database, TripletRecord};
use crate::policy::rules::Rules;
use crate::policy::whitelist::SourceLine;
use crate::store::{Key, Store, StoreError};
use crate::sys::clock;

/// `add client ADDRESS|DOMAIN`.
pub fn add(words: &Words) -> Result<(), Failure> {
    if words.operand(0) != b"client" {
        return Err(Failure::usage(
            "Usage: postgreyctl add client ADDRESS|DOMAIN",
        ));
    }
    let settings = server_options::settings(words)?;
    let rules = &settings.rules;
    let limit = rules.auto_whitelist.ok_or_else(|| {
        Failure::error(
            "the auto-whitelist is off (--auto-whitelist-clients=0): nothing would look at it",
        )
    })?;
    // A name is not asked for: an address is added as such, in a pool, too.
    let Known { domain, suspicion } = Known::of(&settings, words.operand(1), b"");
    refuse_useless_domain(&settings, words.operand(1), &domain)?;
    if let Some(source) = suspicion {
        return Err(suspect(words.operand(1), &source));
    }
    let keys = Named {
        address: match domain.is_empty() {
            true => one_address(words.operand(1))?,
            false => words.operand(1),
        },
        domain: &domain,
        ..Named::default()
    }
    .keys(rules)?;
    let mut opened = Opened::for_writing(&settings)?;
    let store = opened.get();
    let now = clock::seconds();
    let edited = [(Database::Clients, &keys.client[..])];
    store.edit(&edited, &mut |records| {
        let old = records
            .get(Database::Clients, &keys.client)?
            .and_then(ClientRecord::parse);
        let count = old
            .map_or(0.0, |record| number_of_text(record.count))
            .max(limit);
        let mut value = Vec::new();
        push_number(&mut value, count);
        value.push(b',');
        push_number(&mut value, now);
        records.put(Database::Clients, &keys.client, &value)
    })?;
    say(&format!("added to clients: {}", escaped(&keys.client)))
}

/// The address that a client is, or a network of a single one.
fn one_address(text: &[u8]) -> Result<&[u8], Failure> {
    match split_length(text) {
        None => Ok(text),
        Some(net) if net.length == if net.address.is_ipv4() { 32 } else { 128 } => Ok(net.text),
        Some(_) => Err(Failure::error(format!(
            "\"{}\" is a network, and each record of the auto-whitelist is one address: a list \
             of clients takes networks, see postgrey_whitelist(5)",
            escaped(text)
        ))),
    }
}

/// That this line makes a client suspect.
fn suspect(client: &[u8], source: &SourceLine) -> Failure {
    let client = escaped(client);
    Failure::error(format!(
        "{client} is suspect, and never on the auto-whitelist: {source}"
    ))
}

/// Fails for a domain that the server would never look for.
fn refuse_useless_domain(settings: &Settings, text: &[u8], domain: &[u8]) -> Result<(), Failure> {
    let is_name = text.iter().any(u8::is_ascii_alphabetic) && !text.contains(&b':');
    if !is_name {
        return Ok(());
    }
    let shown = escaped(text);
    if !settings.rules.by_domain {
        return Err(Failure::error(format!(
            "\"{shown}\" is no address, and a domain needs --lookup-by-domain"
        )));
    }
    if domain.is_empty() {
        return match objection_to_domain(text) {
            Some(why) => Err(Failure::error(why)),
            None => Ok(()),
        };
    }
    let lists = whitelists::load(settings).whitelists;
    if let Some(source) = lists.pools.as_ref().and_then(|own| own.exclusion(domain)) {
        return Err(Failure::error(format!("{shown} is no pool: {source}")));
    }
    let suspects = lists.suspects.as_ref();
    match suspects.and_then(|own| own.match_name(domain)) {
        Some(source) => Err(suspect(text, source)),
        None => Ok(()),
    }
}

/// `delete client|tarpit ADDRESS`, `delete triplet KEY` or
/// `delete triplet CLIENT SENDER RECIPIENT`.
pub fn delete(words: &Words) -> Result<(), Failure> {
    let settings = server_options::settings(words)?;
    let rules = &settings.rules;
    let kind = words.operand(0);
    let database = match kind {
        b"triplet" => Database::Greylist,
        b"client" => Database::Clients,
        _ => database_with_name(kind)?,
    };
    let text = |index| -> Result<Vec<u8>, Failure> {
        let text = words.operand(index);
        match words.has(Id::Escape) {
            true => unescape(text).map_err(Failure::error),
            false => Ok(text.to_vec()),
        }
    };
    let (first, second, third) = (text(1)?, text(2)?, text(3)?);
    let name = words.octets(Id::ClientName).unwrap_or_default();
    let known = Known::of(&settings, &first, name);
    let named = Named {
        address: &first,
        name,
        sender: &second,
        recipient: &third,
        domain: &known.domain,
        is_suspect: known.suspicion.is_some(),
    };
    let keys = match (database, words.operands.len()) {
        (Database::Greylist, 4) => vec![named.keys(rules)?.triplet],
        (Database::Greylist, 2) => vec![first],
        (_, 2) => client_keys(&named, rules, &first)?,
        _ => {
            return Err(Failure::usage(
                "Usage: postgreyctl delete client ADDRESS|DOMAIN | tarpit ADDRESS | \
                 triplet CLIENT SENDER RECIPIENT | triplet KEY",
            ));
        }
    };
    let mut opened = Opened::for_writing(&settings)?;
    let store = opened.get();
    let targets = keys.into_iter().map(|key| (database, key)).collect();
    if remove(store, targets)? == 0 {
        return Err(Failure::no("there is no such record"));
    }
    Ok(())
}

/// The keys of a client; of what is no address, as in a hashed database, the
/// text itself.
fn client_keys(named: &Named, rules: &Rules, text: &[u8]) -> Result<Vec<Vec<u8>>, Failure> {
    if !named.domain.is_empty() && parsed(text).is_none() {
        return Ok(vec![named.keys(rules)?.client, named.domain.to_vec()]);
    }
    if parsed(text).is_some() || rules.compat.addresses_are_text() {
        return named.client_keys(rules);
    }
    Ok(vec![text.to_ascii_lowercase(), text.to_vec()])
}

/// `forget ADDRESS|DOMAIN`: its records on the auto-whitelist and in the tarpit, and
/// the triplets that are its own or that it used last.
pub fn forget(words: &Words) -> Result<(), Failure> {
    let settings = server_options::settings(words)?;
    let rules = &settings.rules;
    let address = words.operand(0);
    let name = words.octets(Id::ClientName).unwrap_or_default();
    // What belongs to the pool of an address is not its own.
    let domain = Known::of(&settings, address, b"").domain;
    let named = Named {
        address,
        name,
        domain: &domain,
        ..Named::default()
    };
    let own_octet = named.keys(rules)?.octet;
    let mut targets = Vec::new();
    for key in named.client_keys(rules)? {
        targets.push((Database::Clients, key.clone()));
        targets.push((Database::Tarpit, key));
    }
    let mut opened = Opened::for_writing(&settings)?;
    let store = opened.get();
    for start in named.key_starts(rules)? {
        each_record(store, Database::Greylist, &start, &mut |record| {
            // Its network is shared: what a neighbour used last is his.
            let octet = TripletRecord::parse(&record.value).map_or(&[][..], |record| record.octet);
            if octet.is_empty() || octet == own_octet {
                targets.push((Database::Greylist, record.key.clone()));
            }
            Ok(())
        })?;
    }
    if rules.privacy {
        complain("triplets are hashed (--privacy): those of this client cannot be told and stay");
    }
    if remove(store, targets)? == 0 {
        return Err(Failure::no(format!(
            "nothing is known about {}",
            escaped(address)
        )));
    }
    Ok(())
}

/// Removes records, some hundreds in a transaction, and says which were there.
fn remove(store: &mut dyn Store, targets: Vec<(Database, Vec<u8>)>) -> Result<usize, Failure> {
    const AT_ONCE: usize = 500;
    let mut output = Output::new();
    let mut count = 0;
    for targets in targets.chunks(AT_ONCE) {
        let mut removed = Vec::new();
        let keys: Vec<Key> = targets
            .iter()
            .map(|(database, key)| (*database, &key[..]))
            .collect();
        store.edit(&keys, &mut |records| {
            removed.clear();
            for (database, key) in targets {
                if let Some(value) = records.get(*database, key)? {
                    removed.push((*database, key, value.to_vec()));
                    records.delete(*database, key)?;
                }
            }
            Ok(())
        })?;
        for (database, key, value) in &removed {
            output.line(format!(
                "deleted from {}: {} ({})",
                short_name(*database),
                escaped(key),
                escaped(value)
            ))?;
        }
        count += removed.len();
    }
    output.finish()?;
    Ok(count)
}

/// `pass SENDER RECIPIENT [ADDRESS|DOMAIN]`: the triplet is written as one that has
/// waited and was let through.
pub fn pass(words: &Words) -> Result<(), Failure> {
    let settings = server_options::settings(words)?;
    let rules = &settings.rules;
    let name = words.octets(Id::ClientName).unwrap_or_default();
    let known = Known::of(&settings, words.operand(2), name);
    let named = Named {
        address: words.operand(2),
        name,
        sender: words.operand(0),
        recipient: words.operand(1),
        domain: &known.domain,
        is_suspect: known.suspicion.is_some(),
    };
    let has_address = words.operands.len() == 3;
    if !has_address && rules.privacy {
        return Err(Failure::error(
            "triplets are hashed (--privacy): give the client's address, too",
        ));
    }
    let (keys, end) = match has_address {
        true => (Some(named.keys(rules)?), Vec::new()),
        false => (None, named.key_end(rules)?),
    };
    let mut opened = Opened::for_writing(&settings)?;
    let store = opened.get();
    let keys = match keys {
        Some(keys) => Triplets::from([(keys.triplet, keys.octet)]),
        None => keys_that_end_in(store, &end)?,
    };
    if keys.is_empty() {
        return Err(Failure::no(
            "no client tried that yet: give the client's address, too",
        ));
    }
    let now = clock::seconds();
    for (key, octet) in &keys {
        let edited = [(Database::Greylist, &key[..])];
        store.edit(&edited, &mut |records| -> Result<(), StoreError> {
            let old = records
                .get(Database::Greylist, key)?
                .and_then(TripletRecord::parse);
            let value = passed_value(rules, old.as_ref(), octet, now);
            records.put(Database::Greylist, key, &value)
        })?;
        say(&format!("passes at its next try: {}", escaped(key)))?;
    }
    Ok(())
}

/// Keys of triplets, each with the octet of its client.
type Triplets = BTreeMap<Vec<u8>, Vec<u8>>;

/// The triplets of any client that end in this sender and recipient.
fn keys_that_end_in(store: &mut dyn Store, end: &[u8]) -> Result<Triplets, Failure> {
    let mut keys = Triplets::new();
    each_record(store, Database::Greylist, b"", &mut |record| {
        if let Some(client) = record.key.strip_suffix(end) {
            let client = client.strip_suffix(b"/32").unwrap_or(client);
            let client = client.strip_suffix(b"/128").unwrap_or(client);
            if !client.contains(&b'/') {
                keys.insert(record.key.clone(), Vec::new());
            }
        }
        Ok(())
    })?;
    Ok(keys)
}

/// A record that has waited as long as the rules want, and as often.
fn passed_value(rules: &Rules, old: Option<&TripletRecord>, octet: &[u8], now: f64) -> Vec<u8> {
    let first = old.map_or(now, |record| number_of_text(record.first));
    let count = old
        .and_then(|record| record.count)
        .map_or(0.0, number_of_text);
    let octet = match old {
        Some(record) if octet.is_empty() => record.octet,
        _ => octet,
    };
    let mut value = Vec::new();
    push_number(&mut value, first.min(now - rules.delay));
    value.push(b',');
    push_number(&mut value, now);
    value.push(b',');
    push_number(&mut value, count.max(rules.retry_count));
    if !octet.is_empty() {
        value.push(b',');
        value.extend_from_slice(octet);
    }
    value
}

fn say(line: &str) -> Result<(), Failure> {
    let mut output = Output::new();
    output.line(line)?;
    output.finish()
}
