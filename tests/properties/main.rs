//! What must hold for every input, tried on random ones.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod allocated;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use allocated::peak_of;
use postgrey::policy::command::{Allowance, Command, Counting, Now, Outcome, Verdict};
use postgrey::policy::decide::{Decision, Examined, Policy, Surroundings, Whitelists};
use postgrey::policy::instances::Instances;
use postgrey::policy::number::{number_of_text, push_number};
use postgrey::policy::record::{ClientRecord, Database, TripletRecord, is_expired};
use postgrey::policy::request::{
    Attribute, Event, MAX_ATTRIBUTE, MAX_LINE, MAX_REQUEST, RequestReader,
};
use postgrey::policy::rules::{Compat, Rules, Texts};
use postgrey::policy::triplet::Keys;
use postgrey::server::wire::{ReceiveBuffer, answers};
use postgrey::store::Store;
use postgrey::store::key::{MAX_KEY, split_stored, stored_key, stored_value};
use postgrey::store::memory::MemoryStore;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// What a reader found: each event, with the attributes at the end of a
/// request.
type Found = Vec<(Event, Vec<Option<Vec<u8>>>)>;

const WATCHED: [Attribute; 10] = [
    Attribute::Request,
    Attribute::ProtocolState,
    Attribute::ClientAddress,
    Attribute::ClientName,
    Attribute::Sender,
    Attribute::Recipient,
    Attribute::QueueId,
    Attribute::Instance,
    Attribute::EtrnDomain,
    Attribute::PolicyTestTime,
];

fn read(pieces: &[&[u8]]) -> Found {
    let mut reader = RequestReader::default();
    let mut found = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while let Some(event) = reader.next_event(&mut rest) {
            let ends = matches!(event, Event::Request | Event::Unrecognized);
            let value = |attribute| reader.request().get(attribute).map(<[u8]>::to_vec);
            let attributes = if ends {
                WATCHED.into_iter().map(value).collect()
            } else {
                Vec::new()
            };
            found.push((event, attributes));
        }
        assert!(rest.is_empty());
    }
    found
}

fn cut<'a>(mut octets: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for &size in sizes.iter().cycle() {
        if octets.is_empty() || sizes.is_empty() {
            break;
        }
        let (piece, rest) = octets.split_at(size.clamp(1, octets.len()));
        pieces.push(piece);
        octets = rest;
    }
    pieces.push(octets);
    pieces
}

/// Lines of a connection: attributes, garbage, ends, and lines and requests
/// around their bounds.
fn stream() -> impl Strategy<Value = Vec<u8>> {
    let known = proptest::sample::select(WATCHED.map(Attribute::name).to_vec());
    let line = prop_oneof![
        4 => Just(b"request=smtpd_access_policy".to_vec()),
        4 => Just(Vec::new()),
        6 => (known, vec(any::<u8>().prop_filter("no line end", |&b| b != b'\n'), 0..20))
            .prop_map(|(name, value)| [name.as_bytes(), b"=", &value].concat()),
        2 => vec(proptest::sample::select(b"=\r a\0\xff".to_vec()), 0..8),
        1 => (MAX_LINE - 3..MAX_LINE + 4).prop_map(|length| [b"x=".to_vec(), vec![b'y'; length]].concat()),
        1 => (MAX_ATTRIBUTE - 2..MAX_ATTRIBUTE + 2)
            .prop_map(|length| [b"sender=".to_vec(), vec![b's'; length]].concat()),
    ];
    let end = prop_oneof![4 => Just(&b"\n"[..]), 1 => Just(&b"\r\n"[..])];
    vec((line, end), 0..40).prop_map(|lines| {
        lines
            .into_iter()
            .flat_map(|(line, end)| [line, end.to_vec()].concat())
            .collect()
    })
}

fn octets(most: usize) -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..most)
}

/// Octets of a value as the reader hands it on: any but a line feed.
fn value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        vec(
            any::<u8>().prop_filter("no line end", |&b| b != b'\n'),
            0..40
        ),
        vec(
            proptest::sample::select(b"a1.@+=-:/%, \r\t\x1b\x7f\xc2\x85\xff".to_vec()),
            0..600
        ),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_are_the_same_however_the_octets_are_cut(
        octets in stream(),
        sizes in vec(1_usize..3000, 1..20),
    ) {
        let whole = read(&[&octets]);
        prop_assert_eq!(&read(&cut(&octets, &sizes)), &whole);
        if octets.len() < 4000 {
            prop_assert_eq!(&read(&cut(&octets, &[1])), &whole);
        }
    }

    #[test]
    fn a_reader_takes_any_octets(octets in octets(5000), sizes in vec(1_usize..100, 1..9)) {
        read(&cut(&octets, &sizes));
    }

    #[test]
    fn commands_come_back_as_they_were_sent(
        seconds in any::<f64>().prop_filter("a number", |n| !n.is_nan()),
        text in proptest::option::of(octets(520)),
        texts in [octets(520), octets(2000), octets(2000), octets(5)],
        is_data in any::<bool>(),
        counting in select(vec![Counting::Always, Counting::IfWaited, Counting::Never]),
        after in octets(9),
    ) {
        let [address, client, triplet, octet] = &texts;
        let now = Now { seconds, text: text.as_deref() };
        let command = Command { now, address, client, own_client: address, triplet, octet, counting, is_data, allowance: Allowance { network: client, ..Allowance::UNLIMITED } };
        let mut encoded = Vec::new();
        command.encode(&mut encoded);
        encoded.extend_from_slice(&after);
        let mut rest = &encoded[..];
        prop_assert_eq!(Command::decode(&mut rest), Some(command));
        prop_assert_eq!(rest, &after[..]);
    }

    #[test]
    fn outcomes_come_back_as_they_were_sent(
        kind in 0_u8..5,
        switches in any::<[bool; 4]>(),
        number in any::<f64>().prop_filter("a number", |n| !n.is_nan()),
    ) {
        let verdict = match kind {
            0 => Verdict::ClientAutoWhitelisted,
            1 => Verdict::TarpitPassed { has_waited: switches[0] },
            2 => Verdict::Tarpit,
            3 => Verdict::Greylist { is_new: switches[0], missing: number },
            _ => Verdict::Pass { was_successful: switches[0], waited: number },
        };
        let [_, clock_corrected, client_whitelisted, bad_record] = switches;
        let outcome = Outcome { verdict, clock_corrected, client_whitelisted, bad_record, ..Outcome::default() };
        let mut encoded = Vec::new();
        outcome.encode(&mut encoded);
        prop_assert_eq!(encoded.len(), Outcome::ENCODED_LEN);
        prop_assert_eq!(Outcome::decode(&mut &encoded[..]), Some(outcome));
    }

    #[test]
    fn what_is_no_message_is_refused_quietly(octets in octets(400)) {
        let _ = Command::decode(&mut &octets[..]);
        let _ = Outcome::decode(&mut &octets[..]);
        answers(&octets, 0).for_each(drop);
        let (workers, queue) = std::os::unix::net::UnixDatagram::pair().unwrap();
        queue.set_nonblocking(true).unwrap();
        workers.send(&[&[1, 0, 0, 0, 0, 7, 0, 0, 0], &octets[..]].concat()).unwrap();
        let mut buffer = ReceiveBuffer::default();
        buffer.take(&queue, 7);
        for arrived in buffer.arrived() {
            let _ = buffer.command(arrived);
        }
    }

    #[test]
    fn stored_keys_fit_and_differ(
        head in vec(any::<u8>().prop_filter("no line end", |&b| b != b'\n'), 0..4),
        lengths in [0_usize..1700, 0_usize..1700],
        tails in [value(), value()],
        octets in octets(30),
    ) {
        let key = |which: usize| {
            let filler = head.iter().cycle().take(if head.is_empty() { 0 } else { lengths[which] });
            filler.copied().chain(tails[which].iter().copied()).collect::<Vec<u8>>()
        };
        let (one, two) = (key(0), key(1));
        let (mut a, mut b) = ([0; MAX_KEY], [0; MAX_KEY]);
        let (stored_one, stored_two) = (stored_key(&one, &mut a), stored_key(&two, &mut b));
        prop_assert!((1..=MAX_KEY).contains(&stored_one.len()));
        prop_assert_eq!(stored_one == stored_two, one == two);
        let plain: Vec<u8> = octets.into_iter().filter(|&b| b != b'\n').collect();
        let stored = stored_value(&one, &plain);
        prop_assert_eq!(split_stored(stored_one, &stored), (&one[..], &plain[..]));
    }

    #[test]
    fn numbers_come_back(number in -1e15..1e15_f64, whole in any::<i32>()) {
        for number in [number.trunc(), f64::from(whole), f64::from(whole) / 4.0] {
            let mut text = Vec::new();
            push_number(&mut text, number);
            prop_assert_eq!(number_of_text(&text), number);
        }
    }

    #[test]
    fn any_octets_are_taken_for_a_record(record in octets(60), now in any::<f64>()) {
        let _ = (TripletRecord::parse(&record), ClientRecord::parse(&record));
        for database in Database::ALL {
            is_expired(&Rules::default(), database, &record, now);
        }
    }
}

/// A policy with random texts and rules, as the command line could give them.
fn policy() -> impl Strategy<Value = Policy> {
    let compat = proptest::sample::select(Compat::ALL.to_vec());
    let text = || "[a%strvdh é\u{85}\t-]{1,30}";
    (
        compat,
        (text(), text(), text(), text()),
        proptest::option::of(Just("125".to_string())),
        any::<[bool; 3]>(),
    )
        .prop_map(
            |(compat, texts, tarpit, [targrey, privacy, is_dry_run])| Policy {
                rules: Rules {
                    compat,
                    delay: 3.0,
                    targrey: targrey && tarpit.is_some(),
                    tarpit,
                    privacy,
                    ..Rules::default()
                },
                texts: Texts {
                    greylist_action: texts.0,
                    greylist_text: texts.1,
                    x_greylist_header: texts.2,
                    hostname: texts.3,
                },
                whitelists: Whitelists::new(compat),
                is_dry_run,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_reply_is_one_line_that_postfix_takes(
        policy in policy(),
        requests in vec((vec(proptest::option::of(value()), 10), any::<bool>()), 1..6),
        failing in any::<bool>(),
    ) {
        let cells = std::array::from_fn(|_| AtomicU64::new(0));
        let surroundings = Surroundings {
            instances: Instances::new(&cells),
            version: "2",
            date: &|out| out.extend_from_slice(b"now"),
        };
        let mut store = MemoryStore::default();
        let mut keys = Keys::default();
        for (values, has_address) in requests {
            let mut request = postgrey::policy::request::Request::default();
            for (attribute, value) in WATCHED.into_iter().zip(&values) {
                if let Some(value) = value {
                    request.set(attribute, value);
                }
            }
            if has_address {
                request.set(Attribute::ClientAddress, b"192.0.2.1");
            }
            let decision = match policy.examine(&request, 1e9, &mut keys) {
                Examined::Decided(decision) => decision,
                Examined::NeedsStore(_) if failing => Decision::StoreFailed,
                Examined::NeedsStore(command) => {
                    let mut outcomes = Vec::new();
                    store.apply_batch(&policy.rules, &[command], &mut outcomes).unwrap();
                    Decision::Stored(outcomes[0].unwrap())
                }
            };
            let mut reply = Vec::new();
            let mut lines = Vec::new();
            let answered = policy.answer(&request, &decision, &surroundings, &mut reply, &mut Vec::new(), &mut |_, line| {
                lines.push(line.to_vec());
            });
            let text = std::str::from_utf8(&reply).expect("valid UTF-8");
            let action = text.strip_prefix("action=").and_then(|text| text.strip_suffix("\n\n"));
            let action = action.expect("action= and an empty line");
            prop_assert!(!action.is_empty());
            prop_assert!(!action.contains(char::is_control), "{:?}", action);
            prop_assert_eq!(answered.has_header, action.starts_with("PREPEND "), "{:?}", action);
            prop_assert_eq!(answered.is_sleep, action.starts_with("SLEEP "), "{:?}", action);
            for line in lines {
                prop_assert!(!line.contains(&b'\n'));
            }
        }
    }
}

/// What a triplet may do, told by a model that knows nothing of records.
struct Model {
    first: f64,
    /// It has been seen after the delay.
    was_successful: bool,
    retries: u32,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_triplet_passes_after_its_delay_and_retries_and_never_before(
        compat in proptest::sample::select(Compat::ALL.to_vec()),
        targrey in any::<bool>(),
        delay in 1_u32..500,
        retry_count in 1_u32..4,
        steps in vec(prop_oneof![0_u32..3, 0_u32..600, 1990_u32..2010], 1..30),
    ) {
        let rules = Rules {
            compat,
            delay: f64::from(delay),
            retry_window: 2000.0,
            retry_count: f64::from(retry_count),
            auto_whitelist: None,
            targrey,
            ..Rules::default()
        };
        let needed = if compat.counts_retries() { retry_count } else { 1 };
        let mut store = MemoryStore::default();
        let mut model: Option<Model> = None;
        let mut now = 1.7e9;
        for step in steps {
            now += f64::from(step);
            let command = Command {
                now: Now::new(now, None),
                address: b"192.0.2.91",
                client: b"192.0.2.91",
                own_client: b"",
                triplet: b"192.0.2.0/a@b/c@d",
                octet: b"91",
                counting: Counting::Always,
                is_data: false,
                allowance: Allowance::UNLIMITED,
            };
            let mut outcomes = Vec::new();
            store.apply_batch(&rules, &[command], &mut outcomes).unwrap();
            let seen = model.get_or_insert(Model { first: now, was_successful: false, retries: 0 });
            if !seen.was_successful && now - seen.first > rules.retry_window {
                seen.first = now;
            }
            let is_late = now - seen.first >= rules.delay;
            seen.retries += u32::from(is_late);
            let passes = match compat.counts_retries() {
                true => seen.retries >= needed,
                false => is_late,
            };
            let has_passed = matches!(outcomes[0].unwrap().verdict, Verdict::Pass { .. });
            prop_assert_eq!(has_passed, passes, "{:?} at {}", outcomes[0], now);
            seen.was_successful |= is_late;
        }
    }
}

#[test]
fn a_hostile_peer_cannot_make_the_reader_hold_more_than_its_bound() {
    let line = vec![b'x'; 64 * 1024];
    let attribute = [b"sender=".to_vec(), vec![b's'; 700], b"\n".to_vec()].concat();
    let long = [
        b"sender=".to_vec(),
        vec![b's'; MAX_LINE - 10],
        b"\n".to_vec(),
    ]
    .concat();
    let mut peaks = HashMap::new();
    for (name, piece, times) in [
        ("a line without an end", &line, 2000),
        ("attributes without an end", &attribute, 20_000),
        ("long attributes without an end", &long, 500),
    ] {
        let peak = peak_of(|| {
            let mut reader = RequestReader::default();
            for _ in 0..times {
                let mut rest = &piece[..];
                while reader.next_event(&mut rest).is_some() {}
            }
        });
        peaks.insert(name, peak);
    }
    println!("octets allocated at most: {peaks:?}");
    // A buffer that grows exists twice for a moment.
    assert!(
        peaks.values().all(|&peak| peak <= 3 * MAX_REQUEST),
        "{peaks:?}"
    );
}
