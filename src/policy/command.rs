//! What a request needs of the store, and what comes back.
//!
//! A [`Command`] is small and self-contained, so any process that has the
//! environment open can apply it; an [`Outcome`] is a few numbers. Both have a
//! fixed form as octets, in which they travel between workers and the writer.

use super::number::{number_of_text, push_number};
use super::record::Database;

/// The time of a request: its value, and the text that goes into records.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Now<'a> {
    /// Seconds since 1970.
    pub seconds: f64,
    /// The text of `policy_test_time`; `None` for the real clock.
    pub text: Option<&'a [u8]>,
}

impl<'a> Now<'a> {
    /// The time given by a request's `policy_test_time`, or else `clock`.
    pub fn new(clock: f64, test_time: Option<&'a [u8]>) -> Self {
        let seconds = test_time.map_or(clock, number_of_text);
        Now {
            seconds,
            text: test_time,
        }
    }

    /// Appends the text for a record.
    pub fn push(&self, out: &mut Vec<u8>) {
        match self.text {
            Some(text) => out.extend_from_slice(text),
            None => push_number(out, self.seconds),
        }
    }
}

/// What the auto-whitelist has to do with a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Counting {
    /// The client is looked for, and its passes count.
    #[default]
    Always,
    /// At DATA a pass counts only if the client has waited in the tarpit: it may be a
    /// mail to recipients that are not greylisted.
    IfWaited,
    /// The client is not looked for, and nothing counts.
    Never,
}

/// One request as the store sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Command<'a> {
    /// The time of the request.
    pub now: Now<'a>,
    /// The client address as sent: the key of the tarpit database.
    pub address: &'a [u8],
    /// The key of the auto-whitelist.
    pub client: &'a [u8],
    /// The key there of a client that is known by its domain, by its own address:
    /// where it is on the auto-whitelist with that, it stays. Else empty.
    pub own_client: &'a [u8],
    /// The key of the greylist.
    pub triplet: &'a [u8],
    /// The octet of the client that the triplet does not hold.
    pub octet: &'a [u8],
    /// What the auto-whitelist has to do with it.
    pub counting: Counting,
    /// True at the DATA stage under `--targrey`.
    pub is_data: bool,
    /// What may be recorded anew of the client.
    pub allowance: Allowance<'a>,
}

/// How many new records may be made of a client network (`--max-new`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance<'a> {
    /// The network of the client or the domain of its pool, by which new records are
    /// counted; empty if they are not.
    pub network: &'a [u8],
    /// New triplets. Like the next it is set by whoever commits, and not sent to it.
    pub triplets: u32,
    /// Addresses in the tarpit.
    pub tarpit: u32,
}

impl Allowance<'_> {
    /// Nothing is counted.
    pub const UNLIMITED: Self = Allowance {
        network: b"",
        triplets: u32::MAX,
        tarpit: u32::MAX,
    };
}

impl Command<'static> {
    /// The command of a ping: it changes a record and changes it back, as a commit
    /// without a trace.
    pub const PING: Self = Command {
        now: Now {
            seconds: 0.0,
            text: None,
        },
        address: b"",
        client: b"",
        own_client: b"",
        triplet: b"",
        octet: b"",
        counting: Counting::Always,
        is_data: false,
        allowance: Allowance::UNLIMITED,
    };
}

/// Octets of a command without its texts: flags, time, seven lengths.
const COMMAND_HEADER: usize = 1 + 8 + 7 * 2;
const FLAG_DATA: u8 = 1;
const FLAG_TEST_TIME: u8 = 2;
const FLAG_COUNTS_IF_WAITED: u8 = 4;
const FLAG_COUNTS_NEVER: u8 = 8;

impl<'a> Command<'a> {
    /// True for [`Command::PING`]: each other one has a triplet.
    pub fn is_ping(&self) -> bool {
        self.triplet.is_empty()
    }

    fn texts(&self) -> [&'a [u8]; 7] {
        [
            self.now.text.unwrap_or_default(),
            self.address,
            self.client,
            self.own_client,
            self.triplet,
            self.octet,
            self.allowance.network,
        ]
    }

    /// The keys under which the auto-whitelist may have the client.
    pub fn client_keys(&self) -> impl Iterator<Item = &'a [u8]> {
        let is_looked_for = self.counting != Counting::Never;
        let has_own = is_looked_for && !self.own_client.is_empty();
        let client = is_looked_for.then_some(self.client);
        client.into_iter().chain(has_own.then_some(self.own_client))
    }

    /// The records that the command may read or write, by database and key.
    pub fn keys(&self) -> impl Iterator<Item = (Database, &'a [u8])> {
        let clients = self.client_keys().map(|key| (Database::Clients, key));
        std::iter::once((Database::Greylist, self.triplet))
            .chain(clients)
            .chain(std::iter::once((Database::Tarpit, self.address)))
    }

    /// Appends the command as octets. Texts beyond 65535 octets are cut; the
    /// request reader's bounds keep them below 2000.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let flags = if self.is_data { FLAG_DATA } else { 0 }
            | if self.now.text.is_some() {
                FLAG_TEST_TIME
            } else {
                0
            }
            | match self.counting {
                Counting::Always => 0,
                Counting::IfWaited => FLAG_COUNTS_IF_WAITED,
                Counting::Never => FLAG_COUNTS_NEVER,
            };
        out.push(flags);
        out.extend_from_slice(&self.now.seconds.to_le_bytes());
        let texts = self
            .texts()
            .map(|text| &text[..text.len().min(usize::from(u16::MAX))]);
        for text in texts {
            out.extend_from_slice(&(text.len() as u16).to_le_bytes());
        }
        for text in texts {
            out.extend_from_slice(text);
        }
    }

    /// Takes a command off the start of `octets`; `None` if there is none.
    pub fn decode(octets: &mut &'a [u8]) -> Option<Self> {
        let (header, mut rest) = octets.split_at_checked(COMMAND_HEADER)?;
        let flags = *header.first()?;
        let seconds = f64::from_le_bytes(header.get(1..9)?.try_into().ok()?);
        let mut texts = [&[][..]; 7];
        for (text, length) in texts.iter_mut().zip(header.get(9..)?.chunks_exact(2)) {
            let length = u16::from_le_bytes(length.try_into().ok()?);
            (*text, rest) = rest.split_at_checked(usize::from(length))?;
        }
        *octets = rest;
        let [time, address, client, own_client, triplet, octet, network] = texts;
        let text = (flags & FLAG_TEST_TIME != 0).then_some(time);
        let now = Now { seconds, text };
        let is_data = flags & FLAG_DATA != 0;
        let counting = if flags & FLAG_COUNTS_NEVER != 0 {
            Counting::Never
        } else if flags & FLAG_COUNTS_IF_WAITED != 0 {
            Counting::IfWaited
        } else {
            Counting::Always
        };
        Some(Command {
            now,
            address,
            client,
            own_client,
            triplet,
            octet,
            counting,
            is_data,
            allowance: Allowance {
                network,
                ..Allowance::UNLIMITED
            },
        })
    }
}

/// What the store said of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// What was decided.
    pub verdict: Verdict,
    /// The first-seen time lay in the future and was corrected.
    pub clock_corrected: bool,
    /// This pass made the client auto-whitelisted.
    pub client_whitelisted: bool,
    /// A record was unreadable and taken for absent.
    pub bad_record: bool,
    /// What became of a new triplet. Like the next it is of use to whoever commits
    /// only, and does not travel.
    pub triplet: Addition,
    /// What became of the client's address in the tarpit.
    pub tarpit: Addition,
}

/// What became of a record that was not there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addition {
    /// There is none.
    #[default]
    None,
    /// It was made.
    Made,
    /// It was not made, since the client has had too many (`--max-new`).
    LeftOut,
    /// One that was made before was removed.
    Undone,
}

impl Addition {
    /// A new record, if so many may be made.
    pub fn of_allowance(left: u32) -> Self {
        match left {
            0 => Addition::LeftOut,
            _ => Addition::Made,
        }
    }
}

/// What was decided about a command.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Verdict {
    /// The client is on the auto-whitelist.
    #[default]
    ClientAutoWhitelisted,
    /// The DATA stage under `--targrey`.
    TarpitPassed {
        /// The client was sent to the tarpit, and has waited.
        has_waited: bool,
    },
    /// The client goes to the tarpit.
    Tarpit,
    /// The triplet has to wait.
    Greylist {
        /// It was first seen in this second.
        is_new: bool,
        /// Seconds it still has to wait; negative if retries are missing.
        missing: f64,
    },
    /// The triplet may pass.
    Pass {
        /// Seconds since it was first seen.
        waited: f64,
        /// It had passed before this request.
        was_successful: bool,
    },
}

impl Outcome {
    /// Octets of an encoded outcome.
    pub const ENCODED_LEN: usize = 10;

    /// Appends the outcome as octets.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (verdict, switch, number) = match self.verdict {
            Verdict::ClientAutoWhitelisted => (0, false, 0.0),
            Verdict::TarpitPassed { has_waited } => (1, has_waited, 0.0),
            Verdict::Tarpit => (2, false, 0.0),
            Verdict::Greylist { is_new, missing } => (3, is_new, missing),
            Verdict::Pass {
                waited,
                was_successful,
            } => (4, was_successful, waited),
        };
        out.push(verdict);
        let switches = [
            switch,
            self.clock_corrected,
            self.client_whitelisted,
            self.bad_record,
        ];
        out.push(
            switches
                .into_iter()
                .rev()
                .fold(0, |bits, switch| bits << 1 | u8::from(switch)),
        );
        out.extend_from_slice(&number.to_le_bytes());
    }

    /// Takes an outcome off the start of `octets`; `None` if there is none.
    pub fn decode(octets: &mut &[u8]) -> Option<Self> {
        let (own, rest) = octets.split_at_checked(Self::ENCODED_LEN)?;
        let (&verdict, &switches) = (own.first()?, own.get(1)?);
        let number = f64::from_le_bytes(own.get(2..)?.try_into().ok()?);
        let is_on = |bit: u8| switches & (1 << bit) != 0;
        let verdict = match verdict {
            0 => Verdict::ClientAutoWhitelisted,
            1 => Verdict::TarpitPassed {
                has_waited: is_on(0),
            },
            2 => Verdict::Tarpit,
            3 => Verdict::Greylist {
                is_new: is_on(0),
                missing: number,
            },
            4 => Verdict::Pass {
                waited: number,
                was_successful: is_on(0),
            },
            _ => return None,
        };
        *octets = rest;
        Some(Outcome {
            verdict,
            clock_corrected: is_on(1),
            client_whitelisted: is_on(2),
            bad_record: is_on(3),
            ..Outcome::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_come_back_as_they_were_sent() {
        for (text, counting) in [
            (None, Counting::Always),
            (Some(&b" 1.5e9 "[..]), Counting::IfWaited),
            (Some(b""), Counting::Never),
        ] {
            let command = Command {
                now: Now::new(1.7e9, text),
                address: b"192.0.2.91",
                client: b"example.com",
                own_client: b"192.0.2.91",
                triplet: b"192.0.2.0/a@b/c@d",
                octet: b"91",
                counting,
                is_data: text.is_none(),
                allowance: Allowance {
                    network: b"192.0.2.0",
                    ..Allowance::UNLIMITED
                },
            };
            let mut octets = Vec::new();
            command.encode(&mut octets);
            for end in 0..octets.len() {
                assert_eq!(Command::decode(&mut &octets[..end]), None);
            }
            octets.push(7);
            let mut rest = &octets[..];
            assert_eq!(Command::decode(&mut rest), Some(command));
            assert_eq!(rest, [7]);
        }
    }

    #[test]
    fn outcomes_come_back_as_they_were_sent() {
        for verdict in [
            Verdict::ClientAutoWhitelisted,
            Verdict::TarpitPassed { has_waited: true },
            Verdict::TarpitPassed { has_waited: false },
            Verdict::Tarpit,
            Verdict::Greylist {
                is_new: true,
                missing: 300.0,
            },
            Verdict::Greylist {
                is_new: false,
                missing: -1.5,
            },
            Verdict::Pass {
                waited: 301.0,
                was_successful: true,
            },
        ] {
            for bit in 0..4 {
                let outcome = Outcome {
                    verdict,
                    clock_corrected: bit == 1,
                    client_whitelisted: bit == 2,
                    bad_record: bit == 3,
                    ..Outcome::default()
                };
                let mut octets = Vec::new();
                outcome.encode(&mut octets);
                assert_eq!(octets.len(), Outcome::ENCODED_LEN);
                assert_eq!(Outcome::decode(&mut &octets[..]), Some(outcome));
                assert_eq!(Outcome::decode(&mut &octets[1..]), None);
            }
        }
    }
}
