//! What a record means under given rules: where its triplet or client stands,
//! and what comes next.

use crate::policy::number::number_of_text;
use crate::policy::record::{
    ClientRecord, Database, TripletRecord, is_expired, parse_tarpit_record,
};
use crate::policy::rules::Rules;

/// Where a triplet or client stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Seen once.
    New,
    /// Seen again, and not let through yet.
    Waiting,
    /// Let through; of a client: on the auto-whitelist.
    Passed,
    /// To be removed by the next maintenance.
    Expired,
}

impl State {
    /// All of them.
    pub const ALL: [State; 4] = [State::New, State::Waiting, State::Passed, State::Expired];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            State::New => "new",
            State::Waiting => "waiting",
            State::Passed => "passed",
            State::Expired => "expired",
        }
    }
}

/// A record, judged. Times are seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Judged {
    /// Where it stands.
    pub state: State,
    /// First seen; triplets only.
    pub first: Option<f64>,
    /// Last used.
    pub last: f64,
    /// Retries of a triplet, passes of a client; `None` if nobody counted.
    pub count: Option<f64>,
    /// A waiting triplet: when the delay is over.
    pub ready: Option<f64>,
    /// When it expires, if nothing happens.
    pub expires: f64,
}

/// Judges a record; `None` if it is none.
pub fn judge(rules: &Rules, database: Database, value: &[u8], now: f64) -> Option<Judged> {
    let mut judged = match database {
        Database::Greylist => judge_triplet(rules, &TripletRecord::parse(value)?),
        Database::Clients => judge_client(rules, &ClientRecord::parse(value)?),
        Database::Tarpit => {
            let last = parse_tarpit_record(value)?;
            Judged {
                state: State::Waiting,
                first: None,
                last,
                count: None,
                ready: None,
                expires: last + rules.retry_window,
            }
        }
    };
    if is_expired(rules, database, value, now) {
        judged.state = State::Expired;
    }
    Some(judged)
}

fn judge_triplet(rules: &Rules, record: &TripletRecord) -> Judged {
    let first = number_of_text(record.first);
    let last = number_of_text(record.last);
    let count = record.count.map(number_of_text);
    let has_passed = match count {
        Some(count) if rules.compat.counts_retries() => count >= rules.retry_count,
        _ => record.age() >= rules.delay,
    };
    let state = if has_passed {
        State::Passed
    } else if first == last {
        State::New
    } else {
        State::Waiting
    };
    let unused = match record.age() < rules.delay {
        true => rules.max_age.min(rules.retry_window),
        false => rules.max_age,
    };
    Judged {
        state,
        first: Some(first),
        last,
        count,
        ready: (!has_passed).then_some(first + rules.delay),
        expires: last + unused,
    }
}

fn judge_client(rules: &Rules, record: &ClientRecord) -> Judged {
    let count = number_of_text(record.count);
    let last = number_of_text(record.last);
    let state = match rules.auto_whitelist {
        Some(limit) if count >= limit => State::Passed,
        _ if count <= 1.0 => State::New,
        _ => State::Waiting,
    };
    Judged {
        state,
        first: None,
        last,
        count: Some(count),
        ready: None,
        expires: last + rules.max_age,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::rules::Compat;

    #[test]
    fn records_are_judged_by_the_rules() {
        let rules = Rules {
            retry_count: 2.0,
            ..Rules::default()
        };
        let plain = Rules {
            compat: Compat::Postgrey137,
            ..Rules::default()
        };
        let state = |rules: &Rules, database, value: &str, now| {
            judge(rules, database, value.as_bytes(), now).map(|judged| judged.state)
        };
        for (rules, database, value, now, expected) in [
            (
                &rules,
                Database::Greylist,
                "1000,1000,0",
                1000.0,
                State::New,
            ),
            (
                &rules,
                Database::Greylist,
                "1000,1400,1",
                1400.0,
                State::Waiting,
            ),
            (
                &rules,
                Database::Greylist,
                "1000,1400,2",
                1400.0,
                State::Passed,
            ),
            (
                &rules,
                Database::Greylist,
                "1000,1400",
                1400.0,
                State::Passed,
            ),
            (
                &rules,
                Database::Greylist,
                "1000,1400,,91",
                1400.0,
                State::Passed,
            ),
            (
                &rules,
                Database::Greylist,
                "1000,1000,0",
                1e6,
                State::Expired,
            ),
            (
                &plain,
                Database::Greylist,
                "1000,1299,1",
                1300.0,
                State::Waiting,
            ),
            (
                &plain,
                Database::Greylist,
                "1000,1300,0",
                1300.0,
                State::Passed,
            ),
            (&rules, Database::Clients, "5,1000", 1000.0, State::Passed),
            (&rules, Database::Clients, "4,1000", 1000.0, State::Waiting),
            (&rules, Database::Clients, "1,1000", 1000.0, State::New),
            (&rules, Database::Tarpit, "1000", 1000.0, State::Waiting),
            (&rules, Database::Tarpit, "1000", 1e6, State::Expired),
        ] {
            assert_eq!(
                state(rules, database, value, now),
                Some(expected),
                "{value} {now}"
            );
        }
        assert_eq!(state(&rules, Database::Greylist, "nonsense", 0.0), None);
    }

    #[test]
    fn the_next_times_are_those_of_policy_and_maintenance() {
        let rules = Rules::default();
        let judged = judge(&rules, Database::Greylist, b"1000,1100,0", 1100.0).unwrap();
        assert_eq!(
            (judged.ready, judged.expires),
            (Some(1300.0), 1100.0 + rules.retry_window)
        );
        for value in ["1000,1100,0", "1000,1300,1", "1000,1000,0"] {
            let judged = judge(&rules, Database::Greylist, value.as_bytes(), 1300.0).unwrap();
            let at = |now| is_expired(&rules, Database::Greylist, value.as_bytes(), now);
            assert!(!at(judged.expires) && at(judged.expires + 1.0));
        }
    }
}
