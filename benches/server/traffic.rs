//! The traffic for one server: which kinds of mail come, and the preparation
//! that makes triplets and clients old enough.

use std::io;
use std::time::{Duration, Instant};

use crate::load::{Address, Expected, Load, Ticket};
use crate::requests::Subject;

/// Kinds of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A triplet never seen.
    New,
    /// One of the last new ones again.
    Early,
    /// The first retry after the delay; each triplet once.
    Pass,
    /// A triplet that has passed.
    Known,
    /// A client on the auto-whitelist.
    Awl,
    /// A client on the static whitelist.
    Whitelist,
}

const KINDS: [Kind; 6] = [
    Kind::New,
    Kind::Early,
    Kind::Pass,
    Kind::Known,
    Kind::Awl,
    Kind::Whitelist,
];

/// A mix of kinds: a name, and the weight of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    pub name: &'static str,
    weights: [u32; 6],
}

/// All mixes.
pub const MIXES: [Mix; 7] = [
    mix("new", [1, 0, 0, 0, 0, 0]),
    mix("early", [0, 1, 0, 0, 0, 0]),
    mix("pass", [0, 0, 1, 0, 0, 0]),
    mix("known", [0, 0, 0, 1, 0, 0]),
    mix("awl", [0, 0, 0, 0, 1, 0]),
    mix("whitelist", [0, 0, 0, 0, 0, 1]),
    mix("real", [70, 10, 5, 5, 5, 5]),
];

const fn mix(name: &'static str, weights: [u32; 6]) -> Mix {
    Mix { name, weights }
}

impl Mix {
    /// The mix of this name.
    pub fn named(name: &str) -> Option<Mix> {
        MIXES.into_iter().find(|mix| mix.name == name)
    }

    fn share(&self, kind: Kind) -> f64 {
        f64::from(self.weights[kind as usize]) / f64::from(self.weights.iter().sum::<u32>())
    }
}

/// Known triplets, auto-whitelisted clients, whitelisted clients.
const KNOWN: u64 = 1000;
const AWL: u64 = 100;
const WHITELISTED: u64 = 1000;
/// How many of the last new triplets come early.
const EARLY: u64 = 4096;

/// The state of a server's traffic: what it has seen already.
pub struct Traffic {
    /// The server decides nothing: any reply will do.
    is_null: bool,
    new: u64,
    /// Triplets that may pass: the next one, and the end.
    passes: (u64, u64),
    has_known: bool,
    has_awl: bool,
    random: u64,
    mails: u64,
}

impl Traffic {
    /// Traffic for a server with an empty database, or one that was filled
    /// otherwise.
    pub fn new(is_null: bool) -> Self {
        Traffic {
            is_null,
            new: 0,
            passes: (0, 0),
            has_known: false,
            has_awl: false,
            random: 0x2545_f491_4f6c_dd1d,
            mails: 0,
        }
    }

    /// Makes what the mix needs for a run of some length: pools of records that
    /// are old enough, by `policy_test_time`.
    pub fn prepare(&mut self, address: &Address, mix: &Mix, time: Duration) -> io::Result<()> {
        if self.is_null {
            return Ok(());
        }
        let now = std::time::UNIX_EPOCH
            .elapsed()
            .map_or(0, |since| since.as_secs());
        let mut load = Load::connect(address, 16)?;
        if mix.share(Kind::Known) > 0.0 && !self.has_known {
            for age in [1000, 600] {
                send_all(&mut load, now - age, (0..KNOWN).map(known))?;
            }
            self.has_known = true;
        }
        if mix.share(Kind::Awl) > 0.0 && !self.has_awl {
            for pass in 0..5 {
                let seen = now - 17_000 + pass * 4000;
                for time in [seen, seen + 300] {
                    send_all(&mut load, time, (0..AWL).map(|client| awl(client, pass)))?;
                }
            }
            self.has_awl = true;
        }
        if mix.share(Kind::Early) > 0.0 && self.new < EARLY / 8 {
            let first = self.new;
            self.new += EARLY / 8;
            send_all(&mut load, now, (first..self.new).map(new))?;
        }
        let share = mix.share(Kind::Pass);
        if share > 0.0 {
            self.passes.0 = self.passes.1;
            let start = Instant::now();
            let mut wanted = 500;
            while self.passes.1 - self.passes.0 < wanted {
                let first = self.passes.1;
                self.passes.1 += 500;
                send_all(&mut load, now - 1000, (first..self.passes.1).map(pass))?;
                // As many as the server takes in that time.
                let made = (self.passes.1 - self.passes.0) as f64;
                let rate = made / start.elapsed().as_secs_f64();
                wanted = (rate * 1.5 * share * time.as_secs_f64()) as u64;
            }
        }
        Ok(())
    }

    /// The next request of a mix; none if the triplets that may pass are used
    /// up.
    pub fn next(&mut self, mix: &Mix) -> Option<Ticket> {
        let total: u32 = mix.weights.iter().sum();
        let mut draw = (self.draw() % u64::from(total)) as u32;
        let kind = KINDS.into_iter().find(|&kind| {
            let weight = mix.weights[kind as usize];
            let is_drawn = draw < weight;
            draw = draw.wrapping_sub(weight);
            is_drawn
        })?;
        self.mails += 1;
        let (subject, expected) = match kind {
            Kind::New => {
                self.new += 1;
                (new(self.new - 1), Expected::Defer)
            }
            Kind::Early => {
                let back = self.draw() % EARLY.min(self.new.max(1));
                (new(self.new.saturating_sub(back + 1)), Expected::Defer)
            }
            Kind::Pass if self.is_null => (pass(self.mails), Expected::Dunno),
            Kind::Pass if self.passes.0 == self.passes.1 => return None,
            Kind::Pass => {
                self.passes.0 += 1;
                (pass(self.passes.0 - 1), Expected::Prepend)
            }
            Kind::Known => (known(self.draw() % KNOWN), Expected::Dunno),
            Kind::Awl => (awl(self.draw() % AWL, 100 + self.mails), Expected::Dunno),
            Kind::Whitelist => (whitelisted(self.draw() % WHITELISTED), Expected::Dunno),
        };
        let expected = if self.is_null {
            Expected::Dunno
        } else {
            expected
        };
        Some(Ticket {
            subject,
            time: None,
            expected,
        })
    }

    /// A xorshift generator: the same draws for every server.
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 8
    }
}

fn send_all(load: &mut Load, time: u64, subjects: impl Iterator<Item = Subject>) -> io::Result<()> {
    let mut tickets = subjects.map(|subject| Ticket {
        subject,
        time: Some(time),
        expected: Expected::Any,
    });
    load.run(Duration::MAX, &mut || tickets.next(), &mut || false)?;
    if crate::was_interrupted() {
        return Err(io::ErrorKind::Interrupted.into());
    }
    Ok(())
}

const fn subject(network: u8, client: u64, mail: u64) -> Subject {
    Subject {
        network,
        client,
        mail,
        is_whitelisted: false,
    }
}

fn new(number: u64) -> Subject {
    subject(10, number, number)
}

fn pass(number: u64) -> Subject {
    subject(21, number, number)
}

fn known(number: u64) -> Subject {
    subject(22, number, number)
}

fn awl(client: u64, mail: u64) -> Subject {
    subject(25, client, mail)
}

fn whitelisted(number: u64) -> Subject {
    Subject {
        is_whitelisted: true,
        ..subject(26, number, number)
    }
}

/// A triplet that is in the database already and is never asked for. Its key
/// lies amid those of the new ones.
pub fn filler(number: u64) -> Subject {
    subject(10, (1 << 24) - 1 - number, 1 << 40 | number)
}
