//! THE policy: from a request to its reply.
//!
//! [`Policy::examine`] decides what needs no store, or builds the command for
//! it; [`Policy::answer`] makes reply and log lines from the decision. Between
//! the two lies the transaction, run by whoever has the store.

use super::client::ClientAddress;
use super::command::{Allowance, Command, Counting, Now, Outcome, Verdict};
use super::instances::Instances;
use super::line::{Level, Reason, push_action, push_tarpit_whitelisted, push_whitelisted};
use super::pool::{KnownBy, Pools};
use super::request::{Attribute, Request};
use super::rules::{Compat, Rules, Texts};
use super::s25r::Exceptions;
use super::text::{make_sendable, push_greylist_text, push_header};
use super::triplet::Keys;
use super::whitelist::{ClientList, Complaint, MailAddressList, SourceLine};

/// The attributes that the rules of 1.37 want, in the order they are missed.
const NEEDED: [Attribute; 4] = [
    Attribute::ClientAddress,
    Attribute::ClientName,
    Attribute::Recipient,
    Attribute::Sender,
];

/// The static whitelists, and the other lists, read from files. What an option names
/// is `None` without that.
#[derive(Clone, Debug)]
pub struct Whitelists {
    /// Clients, by name and address.
    pub clients: ClientList,
    /// Recipients.
    pub recipients: MailAddressList,
    /// Senders (`--whitelist-senders`).
    pub senders: Option<MailAddressList>,
    /// The recipients that are greylisted, and no others (`--greylist-recipients`).
    pub opted_in: Option<MailAddressList>,
    /// Clients that gain nothing by what they or others did before
    /// (`--suspect-clients`).
    pub suspects: Option<ClientList>,
    /// With `--s25r` the names that its rules judge wrongly.
    pub s25r: Option<Exceptions>,
    /// With `--lookup-by-domain` the domains that are known to be pools, or not.
    pub pools: Option<Pools>,
}

impl Whitelists {
    /// Those that are there without an option, empty.
    pub fn new(compat: Compat) -> Self {
        Whitelists {
            clients: ClientList::new(compat),
            recipients: MailAddressList::of_recipients(),
            senders: None,
            opted_in: None,
            suspects: None,
            s25r: None,
            pools: None,
        }
    }

    /// True if a client is suspect, and stands in triplets with its whole address.
    pub fn is_suspect(&self, name: &[u8], client: &ClientAddress) -> bool {
        let list = self.suspects.as_ref();
        list.is_some_and(|list| list.has(name, client.text, client.parsed))
    }

    /// Builds the keys of a request from this client; `is_by_address` of them says
    /// whether it is suspect.
    pub fn build_keys(
        &self,
        rules: &Rules,
        client: &ClientAddress,
        request: &Request,
        keys: &mut Keys,
    ) {
        keys.domain.clear();
        if !keys.is_by_address {
            self.known_by(request, &mut keys.domain);
        }
        keys.build(rules, client, request);
    }

    /// By what the client of a request is known; its domain goes into `domain`, which
    /// is empty if that is its network. `None` without `--lookup-by-domain`.
    pub fn known_by(&self, request: &Request, domain: &mut Vec<u8>) -> Option<KnownBy<'_>> {
        domain.clear();
        let address = request.text(Attribute::ClientAddress);
        let name = request.text(Attribute::ClientName);
        let pools = self.pools.as_ref()?;
        Some(pools.judge(name, address, self.s25r.as_ref(), domain))
    }

    /// Entries that another list beats whole, so that they do nothing.
    pub fn contradictions(&self) -> Vec<Complaint> {
        let suspects = self.suspects.iter();
        let beaten = suspects.flat_map(|list| list.inside(&self.clients));
        let told = beaten.map(|(suspect, whitelisted)| Complaint {
            source: suspect,
            why: format!("{whitelisted} whitelists it, and wins"),
            fatal: false,
        });
        let pools = self.pools.iter().flat_map(Pools::contradictions);
        told.chain(pools).collect()
    }

    /// How many entries they have, for the log.
    pub fn size(&self) -> String {
        let (clients, recipients) = (self.clients.len(), self.recipients.len());
        let mut text = format!("{clients} entries for clients, {recipients} for recipients");
        if let Some(senders) = &self.senders {
            text.push_str(&format!(", {} for senders", senders.len()));
        }
        if let Some(opted_in) = &self.opted_in {
            text.push_str(&format!(", {} opted in", opted_in.len()));
        }
        if let Some(suspects) = &self.suspects {
            text.push_str(&format!(", {} suspect", suspects.len()));
        }
        if let Some(exceptions) = &self.s25r {
            text.push_str(&format!(", {} for --s25r", exceptions.len()));
        }
        if let Some(pools) = &self.pools {
            text.push_str(&format!(", {} pools", pools.len()));
        }
        text
    }
}

/// Everything that decides about requests.
#[derive(Debug)]
pub struct Policy {
    /// The numbers and switches.
    pub rules: Rules,
    /// The texts of replies.
    pub texts: Texts,
    /// The static whitelists.
    pub whitelists: Whitelists,
    /// Decide, log and record, but answer DUNNO (`--noaction`).
    pub is_dry_run: bool,
}

/// What was decided about a request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Decision {
    /// An attribute is missing.
    Missing(Attribute),
    /// The client address is none.
    BadAddress,
    /// The client is on a whitelist.
    ClientWhitelisted,
    /// The recipient is on a whitelist.
    RecipientWhitelisted,
    /// The sender is on a whitelist.
    SenderWhitelisted,
    /// The recipient is not among those that are greylisted.
    NotOptedIn,
    /// The client's name does not look like a dial-up line.
    NotSuspicious,
    /// What the store said.
    Stored(Outcome),
    /// The store said to hold back the recipient of a mail that was held before.
    HeldBefore(Outcome),
    /// The store failed: the mail goes on.
    StoreFailed,
}

/// The result of [`Policy::examine`].
#[derive(Debug)]
pub enum Examined<'a> {
    /// Decided without the store.
    Decided(Decision),
    /// The store has to be asked, by this command.
    NeedsStore(Command<'a>),
}

/// What a reply is, for those that count replies or wait for their effect and
/// need not look at its octets. In a dry run both are false: the reply is
/// DUNNO.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// The reply is the `PREPEND` of the X-Greylist header.
    pub has_header: bool,
    /// The reply makes Postfix sleep: `SLEEP`, alone or in front of another
    /// action.
    pub is_sleep: bool,
}

/// What an answer needs from around the policy.
pub struct Surroundings<'a> {
    /// The instances that already got a header.
    pub instances: Instances<'a>,
    /// Version of the program, for `%v`.
    pub version: &'a str,
    /// Appends the present local date, for `%d`.
    pub date: &'a dyn Fn(&mut Vec<u8>),
}

impl Policy {
    /// Decides what needs no store; `clock` is the time in seconds, replaced
    /// by the request's `policy_test_time` if there is one.
    pub fn examine<'a>(
        &self,
        request: &'a Request,
        clock: f64,
        keys: &'a mut Keys,
    ) -> Examined<'a> {
        let rules = &self.rules;
        if !rules.compat.addresses_are_text()
            && let Some(missing) = NEEDED
                .into_iter()
                .find(|&needed| request.get(needed).is_none())
        {
            return Examined::Decided(Decision::Missing(missing));
        }
        let Some(client) = ClientAddress::new(rules, request.text(Attribute::ClientAddress)) else {
            return Examined::Decided(Decision::BadAddress);
        };
        let lists = &self.whitelists;
        let name = request.text(Attribute::ClientName);
        let recipient = request.text(Attribute::Recipient);
        if lists.clients.has(name, client.text, client.parsed) {
            return Examined::Decided(Decision::ClientWhitelisted);
        }
        if lists.recipients.has(recipient) {
            return Examined::Decided(Decision::RecipientWhitelisted);
        }
        // A sender that is missing is not the null sender.
        if let (Some(senders), Some(sender)) = (&lists.senders, request.get(Attribute::Sender))
            && senders.has(sender)
        {
            return Examined::Decided(Decision::SenderWhitelisted);
        }
        // At DATA of a mail with several recipients Postfix names none of them.
        let is_unnamed = recipient.is_empty();
        if let Some(opted_in) = &lists.opted_in
            && !is_unnamed
            && !opted_in.has(recipient)
        {
            return Examined::Decided(Decision::NotOptedIn);
        }
        keys.is_by_address = lists.is_suspect(name, &client);
        if let Some(exceptions) = &lists.s25r
            && !keys.is_by_address
            && !exceptions.is_suspicious(name, client.text)
        {
            return Examined::Decided(Decision::NotSuspicious);
        }
        let counting = match keys.is_by_address {
            true => Counting::Never,
            // Nobody may have been asked to wait for those recipients.
            false if is_unnamed && lists.opted_in.is_some() => Counting::IfWaited,
            false => Counting::Always,
        };
        lists.build_keys(rules, &client, request, keys);
        Examined::NeedsStore(Command {
            now: Now::new(clock, request.get(Attribute::PolicyTestTime)),
            address: client.text,
            client: &keys.client,
            own_client: &keys.own_client,
            triplet: &keys.triplet,
            octet: &keys.octet,
            counting,
            is_data: rules.targrey && request.text(Attribute::ProtocolState) == b"DATA",
            allowance: Allowance {
                network: &keys.network,
                ..Allowance::UNLIMITED
            },
        })
    }

    /// The line that makes the client of a request suspect.
    pub fn suspicion(&self, request: &Request) -> Option<&SourceLine> {
        let suspects = self.whitelists.suspects.as_ref()?;
        let client = ClientAddress::new(&self.rules, request.text(Attribute::ClientAddress))?;
        suspects
            .match_name(request.text(Attribute::ClientName))
            .or_else(|| suspects.match_address(client.text, client.parsed))
    }

    /// Appends the reply to a request, and hands its log lines to `log`; they
    /// are made in `line`, a buffer to be used again. What the reply is comes
    /// back.
    pub fn answer(
        &self,
        request: &Request,
        decision: &Decision,
        surroundings: &Surroundings,
        reply: &mut Vec<u8>,
        line: &mut Vec<u8>,
        log: &mut dyn FnMut(Level, &[u8]),
    ) -> Answered {
        reply.extend_from_slice(b"action=");
        let start = reply.len();
        let mut answered = Answered::default();
        line.clear();
        let reason = match decision {
            Decision::Missing(attribute) => {
                line.extend_from_slice(b"attribute missing: ");
                line.extend_from_slice(attribute.name().as_bytes());
                log(Level::Warning, line);
                None
            }
            Decision::BadAddress => {
                line.extend_from_slice(b"client_address is no address: ");
                line.extend_from_slice(request.text(Attribute::ClientAddress));
                log(Level::Warning, line);
                None
            }
            Decision::Stored(outcome) => {
                answered = self.answer_outcome(request, outcome, surroundings, reply, line, log);
                None
            }
            Decision::HeldBefore(outcome) => {
                log_correction(outcome, log);
                Some(Reason::HeldBefore)
            }
            Decision::ClientWhitelisted => Some(Reason::ClientWhitelist),
            Decision::RecipientWhitelisted => Some(Reason::RecipientWhitelist),
            Decision::SenderWhitelisted => Some(Reason::SenderWhitelist),
            Decision::NotOptedIn => Some(Reason::NotOptedIn),
            Decision::NotSuspicious => Some(Reason::NotSuspicious),
            Decision::StoreFailed => Some(Reason::StoreFailed),
        };
        if let Some(reason) = reason {
            push_action(line, request, reason);
            log(Level::Two, line);
        }
        if self.is_dry_run || reply.len() == start {
            reply.truncate(start);
            reply.extend_from_slice(b"DUNNO");
            answered = Answered::default();
        }
        make_sendable(reply, start);
        reply.extend_from_slice(b"\n\n");
        answered
    }

    /// Appends the action of an outcome, nothing for DUNNO.
    fn answer_outcome(
        &self,
        request: &Request,
        outcome: &Outcome,
        surroundings: &Surroundings,
        reply: &mut Vec<u8>,
        line: &mut Vec<u8>,
        log: &mut dyn FnMut(Level, &[u8]),
    ) -> Answered {
        let mut answered = Answered::default();
        log_correction(outcome, log);
        if outcome.client_whitelisted {
            self.push_whitelisted_client(line, request, outcome.verdict);
            log(Level::One, line);
            line.clear();
        }
        let reason = match outcome.verdict {
            Verdict::TarpitPassed { has_waited: true } if self.rules.log_tarpit => {
                Reason::TarpitPassed
            }
            Verdict::TarpitPassed { .. } => return answered,
            Verdict::ClientAutoWhitelisted => Reason::ClientAutoWhitelist,
            Verdict::Tarpit => {
                self.push_sleep(reply);
                answered.is_sleep = true;
                if !self.rules.log_tarpit {
                    return answered;
                }
                Reason::Tarpit
            }
            Verdict::Greylist { missing, is_new } => {
                if self.rules.tarpit.is_some() && !self.rules.targrey {
                    self.push_sleep(reply);
                    reply.extend_from_slice(b", ");
                    reply.extend_from_slice(self.texts.greylist_action.as_bytes());
                    answered.is_sleep = true;
                    if !self.rules.log_tarpit {
                        return answered;
                    }
                    Reason::Tarpit
                } else {
                    reply.extend_from_slice(self.texts.greylist_action.as_bytes());
                    reply.push(b' ');
                    push_greylist_text(reply, &self.texts, request, missing);
                    if is_new {
                        Reason::New
                    } else {
                        Reason::EarlyRetry(missing)
                    }
                }
            }
            Verdict::Pass {
                waited,
                was_successful,
            } => {
                let instance = request.get(Attribute::Instance);
                answered.has_header = !was_successful && surroundings.instances.is_new(instance);
                if answered.has_header {
                    reply.extend_from_slice(b"PREPEND ");
                    let Surroundings { version, date, .. } = surroundings;
                    push_header(reply, &self.texts, version, waited, date);
                }
                Reason::TripletFound(answered.has_header.then_some(waited))
            }
        };
        push_action(line, request, reason);
        log(Level::Two, line);
        answered
    }

    /// The address stands as in the auto-whitelist, after the tarpit as sent.
    fn push_whitelisted_client(&self, line: &mut Vec<u8>, request: &Request, verdict: Verdict) {
        let text = request.text(Attribute::ClientAddress);
        let name = request.text(Attribute::ClientName);
        if matches!(verdict, Verdict::TarpitPassed { .. }) {
            return push_tarpit_whitelisted(line, name, text);
        }
        let mut address = Vec::new();
        if let Some(client) = ClientAddress::new(&self.rules, text) {
            client.push_auto_whitelist_key(&self.rules, &mut address);
        }
        push_whitelisted(line, name, &address);
    }

    fn push_sleep(&self, reply: &mut Vec<u8>) {
        reply.extend_from_slice(b"SLEEP ");
        reply.extend_from_slice(self.rules.tarpit.as_deref().unwrap_or_default().as_bytes());
    }
}

fn log_correction(outcome: &Outcome, log: &mut dyn FnMut(Level, &[u8])) {
    if outcome.clock_corrected {
        log(Level::One, b"correcting date for first seen in the future!");
    }
}
