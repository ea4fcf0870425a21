//! `list`: records for people, in columns, or for programs, as JSON.
//!
//! Each line is made and written by itself, unless they are to be sorted; the
//! columns have fixed widths and what may be long stands at the end, so nothing
//! has to be known of the lines to come.

use std::net::IpAddr;
use std::ops::ControlFlow;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::escape::escaped;
use super::failure::Failure;
use super::glob;
use super::keys::{Named, is_hash, parsed, split};
use super::opened::Opened;
use super::options::Id;
use super::output::Output;
use super::ranking::View;
use super::records::{Copied, database_with_name, each_record_until, number, short_name};
use super::server_options;
use super::state::{Judged, State, judge};
use super::times;
use super::words::Words;
use crate::policy::pool::registered_domain;
use crate::policy::record::{Database, TripletRecord};
use crate::policy::rules::Rules;
use crate::sys::clock;

/// Which records are shown.
struct Filter {
    client: Option<Client>,
    sender: Option<Vec<u8>>,
    recipient: Option<Vec<u8>>,
    state: Option<State>,
    since: Option<f64>,
}

/// A client or network to look for.
enum Client {
    /// Addresses in this network, and networks that share addresses with it.
    Net(IpNet),
    /// One address: its network in triplets, itself elsewhere.
    Address(IpAddr, Vec<Vec<u8>>),
    /// What is no address.
    Text(Vec<u8>),
}

/// Prints the records that pass the filter.
pub fn run(words: &Words) -> Result<(), Failure> {
    let settings = server_options::settings(words)?;
    let rules = settings.rules.clone();
    let clock = clock::seconds();
    let now = time(words, Id::At, "at", clock)?.unwrap_or(clock);
    let filter = Filter::read(words, &rules, now)?;
    let view = View::read(words)?;
    let databases = match words.operands.is_empty() {
        false => {
            let database = database_with_name(words.operand(0))?;
            let option = filter.of_triplets();
            if let (Database::Clients | Database::Tarpit, Some(option)) = (database, option) {
                let name = short_name(database);
                let message = format!("Option {option} is not one of list {name}");
                return Err(Failure::usage(message));
            }
            vec![database]
        }
        true if filter.of_triplets().is_some() || view.is_counting() => vec![Database::Greylist],
        true => Database::ALL.to_vec(),
    };
    if databases.iter().any(|&database| !view.counts(database)) {
        return Err(Failure::error(
            "only triplets have a sender and a recipient: count them in greylist",
        ));
    }
    let mut opened = Opened::for_reading(&settings)?;
    let store = opened.get();
    let mut output = Output::new();
    let is_json = words.has(Id::Json);
    for (index, &database) in databases.iter().enumerate() {
        let (mut ranked, mut tally) = (view.ranked(), view.tally());
        if !is_json {
            if index > 0 {
                output.line("")?;
            }
            output.line(match view.is_counting() {
                true => tally.heading(),
                false => heading(database),
            })?;
        }
        let mut left = view.unsorted_limit();
        each_record_until(store, database, b"", &mut |record| {
            let judged = judge(&rules, database, &record.value, now);
            let judged = judged.as_ref();
            if !filter.admits(&rules, database, record, judged) {
                return Ok(ControlFlow::Continue(()));
            }
            if view.is_counting() {
                tally.add(&rules, database, record, judged);
                return Ok(ControlFlow::Continue(()));
            }
            let text = match is_json {
                true => json_line(database, record, judged),
                false => text_line(database, record, judged, now),
            };
            let Some(left) = &mut left else {
                ranked.add_record(record, judged, text);
                return Ok(ControlFlow::Continue(()));
            };
            output.line(text)?;
            *left -= 1;
            Ok(match *left {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            })
        })?;
        for line in tally.finish(ranked, database, is_json).finish() {
            output.line(line)?;
        }
    }
    output.finish()
}

/// The value of an option that is a time.
pub fn time(words: &Words, id: Id, name: &str, now: f64) -> Result<Option<f64>, Failure> {
    let Some(text) = words.octets(id) else {
        return Ok(None);
    };
    let time = times::parse(text, now).ok_or_else(|| {
        Failure::error(format!(
            "--{name}: \"{}\" is no time: give seconds since 1970, YYYY-MM-DD [HH:MM[:SS]], or 2h, 3d",
            String::from_utf8_lossy(text)
        ))
    })?;
    Ok(Some(time))
}

impl Filter {
    fn read(words: &Words, rules: &Rules, now: f64) -> Result<Filter, Failure> {
        let state = match words.octets(Id::State) {
            None => None,
            Some(name) => {
                let known = State::ALL
                    .into_iter()
                    .find(|state| state.name().as_bytes() == name);
                let message = "--state must be new, waiting, passed or expired";
                Some(known.ok_or_else(|| Failure::error(message))?)
            }
        };
        let client = match words.octets(Id::Client) {
            None => None,
            Some(text) => Some(Client::read(text, rules)?),
        };
        let without_brackets = |text: &[u8]| match text {
            b"<>" => Vec::new(),
            _ => text.to_vec(),
        };
        Ok(Filter {
            client,
            sender: words.octets(Id::Sender).map(without_brackets),
            recipient: words.octets(Id::Recipient).map(without_brackets),
            state,
            since: time(words, Id::Since, "since", now)?,
        })
    }

    /// An option that only triplets can pass.
    fn of_triplets(&self) -> Option<&'static str> {
        let sender = self.sender.as_ref().map(|_| "sender");
        sender.or(self.recipient.as_ref().map(|_| "recipient"))
    }

    fn admits(
        &self,
        rules: &Rules,
        database: Database,
        record: &Copied,
        judged: Option<&Judged>,
    ) -> bool {
        if self
            .state
            .is_some_and(|state| judged.is_none_or(|judged| judged.state != state))
            || self
                .since
                .is_some_and(|since| judged.is_none_or(|judged| judged.last < since))
        {
            return false;
        }
        let parts = match database {
            Database::Greylist => split(&record.key),
            _ => None,
        };
        let is_text = |pattern: &Option<Vec<u8>>, text: Option<&[u8]>| match (pattern, text) {
            (None, _) => true,
            (Some(pattern), Some(text)) => glob::matches(pattern, text),
            (Some(_), None) => false,
        };
        is_text(&self.sender, parts.map(|parts| parts.sender))
            && is_text(&self.recipient, parts.map(|parts| parts.recipient))
            && self.client.as_ref().is_none_or(|client| match parts {
                Some(parts) => client.is_network(rules, parts.client, &record.value),
                None => client.is_client(&record.key),
            })
    }
}

impl Client {
    fn read(text: &[u8], rules: &Rules) -> Result<Client, Failure> {
        if let Some(address) = parsed(text) {
            let named = Named {
                address: text,
                ..Named::default()
            };
            return Ok(Client::Address(address, named.key_starts(rules)?));
        }
        let as_text = std::str::from_utf8(text).ok();
        Ok(match as_text.and_then(|text| text.parse::<IpNet>().ok()) {
            Some(net) => Client::Net(net.trunc()),
            None if rules.compat.addresses_are_text()
                || is_hash(text)
                || registered_domain(text).is_some() =>
            {
                Client::Text(text.to_ascii_lowercase())
            }
            None => {
                let text = String::from_utf8_lossy(text);
                return Err(Failure::error(format!(
                    "\"{text}\" is no address, no network and no domain"
                )));
            }
        })
    }

    /// True for a key of the auto-whitelist or the tarpit.
    fn is_client(&self, key: &[u8]) -> bool {
        match self {
            Client::Net(net) => parsed(key).is_some_and(|address| net.contains(&address)),
            Client::Address(own, _) => parsed(key) == Some(*own),
            Client::Text(text) => key.eq_ignore_ascii_case(text),
        }
    }

    /// True for the client part of a triplet.
    fn is_network(&self, rules: &Rules, part: &[u8], value: &[u8]) -> bool {
        match self {
            Client::Net(net) => {
                let (address, is_whole) = match part.iter().position(|&octet| octet == b'/') {
                    Some(end) => (&part[..end], true),
                    None => (part, false),
                };
                let Some(address) = parsed(address) else {
                    return false;
                };
                if net.contains(&address) {
                    return true;
                }
                // A network of the rules' size that contains the one asked for.
                let octet = TripletRecord::parse(value).map_or(&[][..], |record| record.octet);
                let prefix = match address {
                    IpAddr::V4(_) => rules.ipv4_prefix,
                    IpAddr::V6(_) => rules.ipv6_prefix,
                };
                let own = IpNet::new(address, prefix);
                !is_whole
                    && (!octet.is_empty() || address.is_ipv6())
                    && own.is_ok_and(|own| own.trunc().addr() == address && own.contains(net))
            }
            Client::Address(_, starts) => starts
                .iter()
                .any(|start| start.strip_suffix(b"/") == Some(part)),
            Client::Text(text) => part.eq_ignore_ascii_case(text),
        }
    }
}

fn heading(database: Database) -> String {
    let (first, what) = match database {
        Database::Greylist => ("FIRST SEEN", "CLIENT SENDER RECIPIENT"),
        Database::Clients | Database::Tarpit => ("", "CLIENT"),
    };
    let count = match database {
        Database::Greylist => "RETRIES",
        Database::Clients => "PASSES",
        Database::Tarpit => "",
    };
    line([
        database_title(database),
        first,
        "LAST SEEN",
        count,
        "NEXT",
        what,
    ])
}

fn database_title(database: Database) -> &'static str {
    match database {
        Database::Greylist => "STATE",
        Database::Clients => "AWL",
        Database::Tarpit => "TARPIT",
    }
}

fn line([state, first, last, count, next, what]: [&str; 6]) -> String {
    format!("{state:8} {first:19}  {last:19}  {count:>7}  {next:27}  {what}")
}

fn text_line(database: Database, record: &Copied, judged: Option<&Judged>, now: f64) -> String {
    let what = match (database, split(&record.key)) {
        (Database::Greylist, Some(parts)) => {
            let octet = TripletRecord::parse(&record.value).map_or(&[][..], |record| record.octet);
            let octet = if octet.is_empty() {
                String::new()
            } else {
                format!("({})", escaped(octet))
            };
            let (client, sender) = (escaped(parts.client) + &octet, escaped(parts.sender));
            format!("{client:20} <{sender}> <{}>", escaped(parts.recipient))
        }
        _ => escaped(&record.key),
    };
    let Some(judged) = judged else {
        return line([
            "bad",
            "",
            "",
            "",
            "",
            &format!("{what} {}", escaped(&record.value)),
        ]);
    };
    let next = match judged {
        Judged {
            state: State::Expired,
            ..
        } => "expired".to_owned(),
        Judged {
            ready: Some(ready), ..
        } if *ready > now => {
            format!("waits {}", times::shown(*ready))
        }
        Judged { ready: Some(_), .. } => "counts at its next try".to_owned(),
        _ => format!("expires {}", times::shown(judged.expires)),
    };
    let first = judged.first.map_or(String::new(), times::shown);
    let count = judged.count.map_or("-".into(), |count| count.to_string());
    let state = judged.state.name();
    line([
        state,
        &first,
        &times::shown(judged.last),
        &count,
        &next,
        &what,
    ])
}

fn json_line(database: Database, record: &Copied, judged: Option<&Judged>) -> String {
    let mut object = serde_json::Map::new();
    object.insert("database".into(), json!(short_name(database)));
    match (database, split(&record.key)) {
        (Database::Greylist, Some(parts)) => {
            object.insert("client".into(), json!(escaped(parts.client)));
            object.insert("sender".into(), json!(escaped(parts.sender)));
            object.insert("recipient".into(), json!(escaped(parts.recipient)));
        }
        (Database::Greylist, None) => {}
        _ => {
            object.insert("client".into(), json!(escaped(&record.key)));
        }
    }
    match judged {
        None => {
            object.insert("state".into(), json!("bad"));
        }
        Some(judged) => {
            object.insert("state".into(), json!(judged.state.name()));
            for (name, time) in [
                ("first", judged.first),
                ("last", Some(judged.last)),
                ("count", judged.count),
                ("ready", judged.ready),
                ("expires", Some(judged.expires)),
            ] {
                if let Some(time) = time {
                    object.insert(name.into(), number(time));
                }
            }
        }
    }
    object.insert("key".into(), json!(escaped(&record.key)));
    object.insert("value".into(), json!(escaped(&record.value)));
    Value::Object(object).to_string()
}
