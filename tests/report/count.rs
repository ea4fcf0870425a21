//! What the summary must say, counted from the requests that were sent and the answers
//! that came; nothing here reads a log.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use super::traffic::{Event, Kind, START};

/// What became of a triplet, by its requests.
#[derive(Default)]
struct Fate {
    began: u64,
    put_off: bool,
    delay: Option<u64>,
    client: String,
    name: String,
}

/// A triplet that was put off.
type PutOff = ((String, String, String), Fate);

/// All triplets that were put off.
fn fates(events: &[Event]) -> Vec<PutOff> {
    let mut by_triplet: HashMap<_, Vec<&Event>> = HashMap::new();
    let mut waits: HashMap<&str, Vec<u64>> = HashMap::new();
    for event in events {
        match event.is_data {
            true => waits.entry(&event.client).or_default().push(event.time),
            false => by_triplet.entry(event.triplet()).or_default().push(event),
        }
    }
    let mut fates = Vec::new();
    for (triplet, mut own) in by_triplet {
        own.sort_by_key(|event| event.time);
        let is_kind = |event: &Event, kind: &str| event.kind().0 == kind;
        let Some(begin) = own.iter().find(|event| !is_kind(event, "pass")) else {
            continue;
        };
        // A client waits right after it was told to.
        let has_waited = own.iter().any(|event| {
            let waits = waits.get(event.client.as_str()).into_iter().flatten();
            is_kind(event, "tarpit") && waits.into_iter().any(|wait| *wait == event.time + 125)
        });
        let was_greylisted = own.iter().any(|event| is_kind(event, "greylist"));
        let mut fate = Fate {
            began: begin.time,
            put_off: was_greylisted || !has_waited,
            client: own[0].client.clone(),
            name: own[0].name.clone(),
            ..Fate::default()
        };
        let pass = own
            .iter()
            .find(|event| event.time > fate.began && is_kind(event, "pass"));
        if let Some(pass) = pass.filter(|_| fate.put_off) {
            let new = own
                .iter()
                .filter(|event| event.kind() == ("greylist", "new") && event.time < pass.time);
            let since = new
                .map(|event| event.time)
                .max()
                .unwrap_or(0)
                .max(fate.began);
            fate.delay = Some(pass.time - since);
        }
        if fate.put_off {
            fates.push((triplet, fate));
        }
    }
    fates
}

fn percentile(delays: &[u64], percent: usize) -> Value {
    match delays.len() {
        0 => Value::Null,
        count => json!(delays[(count * percent).div_ceil(100).max(1) - 1]),
    }
}

/// The numbers of the events of a day, or of all.
fn numbers(
    day: Option<u64>,
    events: &[Event],
    fates: &[PutOff],
    all_kinds: &BTreeSet<Kind>,
) -> Value {
    let day_of = |time: u64| (time - START) / 86_400;
    let is_own = |time: u64| day.is_none_or(|day| day_of(time) == day);
    let own: Vec<&Event> = events.iter().filter(|event| is_own(event.time)).collect();
    let mut answers: BTreeMap<&str, BTreeMap<&str, u64>> = BTreeMap::new();
    for (action, reason) in all_kinds {
        answers.entry(action).or_default().insert(reason, 0);
    }
    for event in &own {
        let (action, reason) = event.kind();
        *answers.get_mut(action).unwrap().get_mut(reason).unwrap() += 1;
    }
    let clients: BTreeSet<&str> = own.iter().map(|event| event.client.as_str()).collect();
    let triplets: BTreeSet<_> = own
        .iter()
        .filter(|event| !event.is_data)
        .map(|event| event.triplet())
        .collect();
    let put_off: Vec<&Fate> = fates
        .iter()
        .map(|(_, fate)| fate)
        .filter(|fate| is_own(fate.began))
        .collect();
    let mut delays: Vec<u64> = put_off.iter().filter_map(|fate| fate.delay).collect();
    delays.sort_unstable();
    let held: Vec<&&Event> = own
        .iter()
        .filter(|event| event.kind().0 == "tarpit")
        .collect();
    let waits: BTreeSet<(&str, u64)> = events
        .iter()
        .filter(|event| event.is_data)
        .map(|event| (event.client.as_str(), event.time))
        .collect();
    let waited = held
        .iter()
        .filter(|event| waits.contains(&(event.client.as_str(), event.time + 125)))
        .count();
    // Who is on the auto-whitelist later was put there by the second pass: 400 or 125
    // seconds after its second triplet, at 5000.
    let mut whitelisted = BTreeMap::new();
    for event in events
        .iter()
        .filter(|event| event.passes_by != "client AWL")
    {
        let time = whitelisted.entry(event.client.as_str()).or_insert(0);
        *time = event.time.max(*time);
    }
    let listed: BTreeSet<&str> = events
        .iter()
        .filter(|event| event.passes_by == "client AWL")
        .map(|event| event.client.as_str())
        .collect();
    let whitelisted = listed
        .iter()
        .filter(|client| is_own(whitelisted[*client]))
        .count();
    let share = (!put_off.is_empty())
        .then(|| (delays.len() as f64 * 1000.0 / put_off.len() as f64).round() / 10.0);
    let label = day.map(|day| format!("2026-11-{:02}", 2 + day));
    json!({
        "period": label,
        "start": day.map(|day| START + day * 86_400),
        "requests": own.len(),
        "answers": answers,
        "clients": clients.len(),
        "triplets": triplets.len(),
        "put_off": put_off.len(),
        "came_back": delays.len(),
        "came_back_percent": share,
        "delay_p50": percentile(&delays, 50),
        "delay_p90": percentile(&delays, 90),
        "delay_p99": percentile(&delays, 99),
        "held": held.len(),
        "waited": waited,
        "gave_up": held.len() - waited,
        "auto_whitelisted": whitelisted,
        "broken_off": 0,
    })
}

/// The first ten of these names.
fn first<'n>(names: impl Iterator<Item = &'n str>) -> Value {
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    let mut all: Vec<(&str, u64)> = counts.into_iter().collect();
    // Those of equal numbers stay in the order of their names.
    all.sort_by_key(|(_, count)| Reverse(*count));
    let told = all.into_iter().take(10);
    told.map(|(name, count)| json!({"name": name, "triplets": count}))
        .collect()
}

fn top(fates: &[PutOff]) -> Value {
    let domain = |address: &str| address.rsplit('@').next().unwrap().to_owned();
    let named: Vec<(bool, [String; 4])> = fates
        .iter()
        .map(|((network, sender, recipient), fate)| {
            let names = [
                fate.client.clone(),
                network.clone(),
                domain(sender),
                domain(recipient),
            ];
            (fate.delay.is_some(), names)
        })
        .collect();
    let list = |which: usize, is_back: bool| {
        let own = named.iter().filter(|(back, _)| *back == is_back);
        first(own.map(|(_, names)| names[which].as_str()))
    };
    let both = |which| json!({"delayed": list(which, true), "never_came_back": list(which, false)});
    json!({"clients": both(0), "networks": both(1), "sender_domains": both(2), "recipient_domains": both(3)})
}

/// Compares the totals of a summary with these requests, of which so many were broken
/// off. Their times are those of another clock than the log's: delays may differ by a
/// second.
pub fn check_total(found: &Value, events: &[Event], broken_off: usize) {
    let all_kinds: BTreeSet<Kind> = events.iter().map(Event::kind).collect();
    let fates = fates(events);
    let mut expected = numbers(None, events, &fates, &all_kinds);
    expected["broken_off"] = json!(broken_off);
    let mut total = found["total"].clone();
    for name in ["delay_p50", "delay_p90", "delay_p99"] {
        let [own, theirs] = [&mut expected, &mut total].map(|all| all[name].take().as_u64());
        let is_near = own.unwrap().abs_diff(theirs.unwrap()) <= 1;
        assert!(is_near, "{name}: {own:?}, told {theirs:?}");
    }
    assert_eq!(total, expected);
    for (what, lists) in top(&fates).as_object().unwrap() {
        assert_eq!(found["top"][what], *lists, "{what}");
    }
    assert_eq!(found["lines"]["requests"], events.len());
}

/// Compares a summary with these requests, in which so many kinds of answers occur.
pub fn check(found: &Value, events: &[Event], kinds: usize) {
    let all_kinds: BTreeSet<Kind> = events.iter().map(Event::kind).collect();
    assert_eq!(all_kinds.len(), kinds, "{all_kinds:?}");
    let fates = fates(events);
    let days: BTreeSet<u64> = events
        .iter()
        .map(|event| (event.time - START) / 86_400)
        .collect();
    let periods = found["periods"].as_array().unwrap();
    assert_eq!(periods.len(), days.len());
    for (period, day) in periods.iter().zip(days) {
        assert_eq!(
            *period,
            numbers(Some(day), events, &fates, &all_kinds),
            "day {day}"
        );
    }
    assert_eq!(found["total"], numbers(None, events, &fates, &all_kinds));
    assert_eq!(found["top"], top(&fates));
    let large: Vec<&Fate> = fates
        .iter()
        .map(|(_, fate)| fate)
        .filter(|fate| fate.name.ends_with(".google.com") && fate.delay.is_some())
        .collect();
    let mut delays: Vec<u64> = large.iter().filter_map(|fate| fate.delay).collect();
    delays.sort_unstable();
    let clients: BTreeSet<&str> = large.iter().map(|fate| fate.client.as_str()).collect();
    assert_eq!(
        found["whitelist_candidates"],
        json!([{"domain": "google.com", "triplets_delayed": delays.len(), "clients": clients.len(), "delay_median": delays[(delays.len() - 1) / 2]}])
    );
    assert_eq!(found["lines"]["requests"], events.len());
    let times = events.iter().map(|event| event.time);
    assert_eq!(
        (&found["first"], &found["last"]),
        (&json!(times.clone().min()), &json!(times.max()))
    );
    // What has no tarpit says that it has none.
    let has_held = all_kinds.contains(&("tarpit", "new"));
    assert_eq!(
        found["notes"].as_array().unwrap().len(),
        usize::from(!has_held)
    );
}
