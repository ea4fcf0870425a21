//! `explain`: what the server answers to a request, why, and what comes next.
//!
//! Nothing is written: the few records that a request concerns are copied into
//! memory, and the policy of the server decides there, now and at the tries to
//! come.

mod asked;
pub mod case;
mod log_line;

use std::path::Path;

use self::case::{Answer, Case};
use super::complain;
use super::environment::become_owner;
use super::escape::escaped;
use super::failure::Failure;
use super::list::time;
use super::opened::Opened;
use super::options::Id;
use super::output::Output;
use super::records::short_name;
use super::server_options;
use super::state::{Judged, State, judge};
use super::times;
use super::words::Words;
use crate::config::whitelists;
use crate::policy::command::{Addition, Command, Outcome, Verdict};
use crate::policy::decide::{Decision, Policy};
use crate::policy::pool::KnownBy;
use crate::policy::request::Attribute;
use crate::policy::rules::Rules;
use crate::policy::s25r;
use crate::policy::whitelist::SourceLine;
use crate::sys::clock;

/// Explains one request.
pub fn run(words: &Words) -> Result<(), Failure> {
    let settings = server_options::settings(words)?;
    let clock = clock::seconds();
    let asked = asked::request(words, clock)?;
    if settings.dbdir.is_dir() {
        // As the server reads the lists, not as root.
        become_owner(&settings.dbdir)?;
    }
    server_options::warn_of_changed_lists(&settings);
    let loaded = whitelists::load(&settings);
    for problem in &loaded.problems {
        complain(&problem.text);
    }
    for complaint in loaded.whitelists.contradictions() {
        complain(&complaint.to_string());
    }
    let policy = Policy {
        rules: settings.rules.clone(),
        texts: settings.texts.clone(),
        whitelists: loaded.whitelists,
        is_dry_run: settings.noaction,
    };
    let now = time(words, Id::At, "at", clock)?
        .or(asked.time)
        .unwrap_or(clock);
    let records = |command: &Command| -> Result<_, Failure> {
        Ok(Opened::for_reading(&settings)?.get().records_of(command)?)
    };
    let case = Case::new(&policy, &asked.request, now, records)?;
    let mut text = Text(Output::new());
    text.show_request(&case, now)?;
    if let Some(exceptions) = &policy.whitelists.s25r {
        let name = case.request().text(Attribute::ClientName);
        let address = case.request().text(Attribute::ClientAddress);
        text.item("s25r", &s25r_judgement(exceptions.judge(name, address)))?;
    }
    if let Some(source) = case.opt_in() {
        text.item("opted in", &with_text(source))?;
    }
    // Where a list decides, no keys are made.
    let mut domain = Vec::new();
    if let Some(source) = policy.suspicion(case.request()) {
        text.item("suspect", &with_text(source))?;
        text.item(
            "known by",
            "its whole address, and not on the auto-whitelist",
        )?;
    } else if let Some(known_by) = policy.whitelists.known_by(case.request(), &mut domain) {
        text.item("known by", &known_by_text(known_by, &domain))?;
    }
    text.show_records(&policy.rules, &case, now)?;
    let mut memory = case.memory();
    let answer = case.answer(&mut memory, now);
    text.item("decision", &reason(&policy.rules, &case, &answer.decision))?;
    text.show_answer("answer", &answer)?;
    text.show_future(&policy.rules, &case, &mut memory, &answer)?;
    text.0.finish()
}

/// Lines of a name and a text.
struct Text(Output);

impl Text {
    fn item(&mut self, name: &str, text: &str) -> Result<(), Failure> {
        self.0.line(format!("{name:12} {text}"))
    }

    fn show_request(&mut self, case: &Case, now: f64) -> Result<(), Failure> {
        let request = case.request();
        let shown = |attribute| escaped(request.text(attribute));
        let (name, address) = (
            shown(Attribute::ClientName),
            shown(Attribute::ClientAddress),
        );
        self.item("client", &format!("{name}[{address}]"))?;
        self.item("sender", &format!("<{}>", shown(Attribute::Sender)))?;
        self.item("recipient", &format!("<{}>", shown(Attribute::Recipient)))?;
        self.item("stage", &shown(Attribute::ProtocolState))?;
        self.item("time", &times::shown(now))
    }

    fn show_records(&mut self, rules: &Rules, case: &Case, now: f64) -> Result<(), Failure> {
        for (database, key, value) in &case.records {
            let what = match value {
                None => "no record".into(),
                Some(value) => {
                    let judged = judge(rules, *database, value, now);
                    let meaning = judged.map_or("not a record".into(), |judged| describe(&judged));
                    format!("{} ({meaning})", escaped(value))
                }
            };
            self.item(short_name(*database), &format!("{}: {what}", escaped(key)))?;
        }
        Ok(())
    }

    fn show_answer(&mut self, name: &str, answer: &Answer) -> Result<(), Failure> {
        self.item(name, &format!("action={}", escaped(&answer.reply)))?;
        for line in &answer.log {
            self.item("log", &escaped(line))?;
        }
        Ok(())
    }

    fn show_future(
        &mut self,
        rules: &Rules,
        case: &Case,
        memory: &mut crate::store::memory::MemoryStore,
        answer: &Answer,
    ) -> Result<(), Failure> {
        if matches!(
            answer.decision,
            Decision::Stored(Outcome {
                verdict: Verdict::Tarpit,
                ..
            })
        ) {
            let data = case.answer_at_data(&mut memory.clone(), answer.time);
            let text = format!("if it waits, at DATA: action={}", escaped(&data.reply));
            self.item("next", &text)?;
            if rules.holds_mails_once() {
                let text = "if it waits, further recipients of its mail: action=DUNNO";
                self.item("next", text)?;
            }
        }
        let tries = case.next_tries(memory, answer);
        for one in &tries {
            let text = format!("{}: action={}", times::shown(one.time), escaped(&one.reply));
            self.item("next", &text)?;
        }
        let is_held_back = |answer: &Answer| {
            matches!(
                answer.decision,
                Decision::Stored(Outcome {
                    verdict: Verdict::Greylist { .. } | Verdict::Tarpit,
                    ..
                })
            )
        };
        if tries.last().is_some_and(is_held_back) {
            self.item("next", "and so on: under these options it does not pass")?;
        }
        Ok(())
    }
}

fn describe(judged: &Judged) -> String {
    let mut text = judged.state.name().to_owned();
    if let Some(first) = judged.first {
        text.push_str(&format!(", first seen {}", times::shown(first)));
    }
    text.push_str(&format!(", last {}", times::shown(judged.last)));
    if let Some(count) = judged.count {
        text.push_str(&format!(", count {count}"));
    }
    if judged.state != State::Expired {
        text.push_str(&format!(", expires {}", times::shown(judged.expires)));
    }
    text
}

/// What the rules of S25R, or an exception from them, say of the client.
fn s25r_judgement((verdict, reason): (s25r::Verdict, s25r::Reason)) -> String {
    let verdict = match verdict {
        s25r::Verdict::Suspicious => "suspicious",
        s25r::Verdict::Ok => "not suspicious",
    };
    match reason {
        s25r::Reason::Rule(rule) => format!("{verdict}: rule {rule} of s25r(7) fits the name"),
        s25r::Reason::NoRule => format!("{verdict}: no rule of s25r(7) fits the name"),
        s25r::Reason::Exception(source) => format!("{verdict}: {}", with_text(source)),
        s25r::Reason::KeptOut(source) => {
            format!("{verdict}: not let in by {}", with_text(source))
        }
    }
}

/// By what the client is known under `--lookup-by-domain`, and why.
fn known_by_text(known_by: KnownBy, domain: &[u8]) -> String {
    let domain = escaped(domain);
    match known_by {
        KnownBy::ListedDomain(source) => format!("{domain}: {}", with_text(source)),
        KnownBy::Domain => format!("{domain}: the name was given to a server"),
        KnownBy::NoDomain => "its network: it has no name below a public suffix".into(),
        KnownBy::Excluded(source) => format!("its network: {}", with_text(source)),
        KnownBy::GeneratedName => "its network: the name was made from the address".into(),
        KnownBy::SuspiciousName => "its network: the name looks like that of a line (s25r)".into(),
    }
}

/// Why the decision is what it is.
fn reason(rules: &Rules, case: &Case, decision: &Decision) -> String {
    match decision {
        Decision::Missing(attribute) => {
            format!(
                "not looked at: the attribute {} is missing",
                attribute.name()
            )
        }
        Decision::BadAddress => "not looked at: client_address is no address".into(),
        Decision::ClientWhitelisted
        | Decision::RecipientWhitelisted
        | Decision::SenderWhitelisted => whitelist_reason(case),
        Decision::NotOptedIn => {
            "passes: the recipient is not among those that are greylisted (--greylist-recipients)"
                .into()
        }
        Decision::NotSuspicious => {
            "passes: the client name does not look like a dial-up line (--s25r)".into()
        }
        Decision::StoreFailed => "the store failed".into(),
        // Which mails were held only the server knows.
        Decision::Stored(outcome) | Decision::HeldBefore(outcome) => stored_reason(rules, outcome),
    }
}

fn whitelist_reason(case: &Case) -> String {
    let Some(rule) = case.rule() else {
        return "a whitelist".into();
    };
    format!(
        "passes: {} is on a whitelist, {}",
        rule.part,
        with_text(rule.source)
    )
}

/// File and number of a line, and what it says.
fn with_text(source: &SourceLine) -> String {
    match line_of_file(Path::new(&*source.file), source.line) {
        Some(line) => format!("{source}: {line}"),
        None => source.to_string(),
    }
}

/// The text of a line, if the file can still be read.
fn line_of_file(file: &Path, number: usize) -> Option<String> {
    let content = std::fs::read(file).ok()?;
    let line = content
        .split(|&octet| octet == b'\n')
        .nth(number.checked_sub(1)?)?;
    Some(escaped(line.trim_ascii()))
}

/// True where the server also goes by the mails that it remembers as held. Another mail of
/// the client may have come to DATA meanwhile, so that it is not in the tarpit now.
fn is_told_of_held_mails(rules: &Rules, outcome: &Outcome) -> bool {
    let is_held_back = matches!(outcome.verdict, Verdict::Tarpit | Verdict::Greylist { .. });
    is_held_back && rules.holds_mails_once()
}

/// The limit by which the server may leave out a record that is new: what it has counted
/// is in its memory only.
fn limit_of_new(rules: &Rules, outcome: &Outcome) -> Option<u32> {
    let additions = [outcome.triplet, outcome.tarpit];
    rules
        .max_new
        .filter(|_| additions.contains(&Addition::Made))
}

fn stored_reason(rules: &Rules, outcome: &Outcome) -> String {
    let mut text = match outcome.verdict {
        Verdict::ClientAutoWhitelisted => {
            let limit = rules.auto_whitelist.unwrap_or_default();
            format!("passes: the client is on the auto-whitelist ({limit} passes or more)")
        }
        Verdict::TarpitPassed { has_waited: true } => {
            "passes: the client has waited in the tarpit until DATA (--targrey)".into()
        }
        Verdict::TarpitPassed { .. } => "passes: it has come to DATA (--targrey)".into(),
        Verdict::Tarpit => "has to wait in the tarpit: the client is not there now".into(),
        Verdict::Greylist { is_new: true, .. } => "greylisted: first seen in this second".into(),
        Verdict::Greylist { missing, .. } if missing > 0.0 => {
            format!(
                "greylisted: {missing} of {} s of the delay are left",
                rules.delay
            )
        }
        Verdict::Greylist { .. } => {
            format!(
                "greylisted: the delay is over, but {} retries after it count",
                rules.retry_count
            )
        }
        Verdict::Pass {
            was_successful: true,
            waited,
        } => {
            format!("passes: it has waited before (first seen {waited} s ago)")
        }
        Verdict::Pass { waited, .. } => format!("passes: first seen {waited} s ago"),
    };
    if is_told_of_held_mails(rules, outcome) {
        text.push_str("; passes if its mail was held for another recipient (--tarpit-per-message)");
    }
    if let Some(limit) = limit_of_new(rules, outcome) {
        text.push_str(&format!(
            "; recorded unless its client has had {limit} new ones in this hour (--max-new)"
        ));
    }
    if outcome.clock_corrected {
        text.push_str("; the first time lay in the future");
    }
    if outcome.client_whitelisted {
        text.push_str("; this pass puts the client on the auto-whitelist");
    }
    if outcome.bad_record {
        text.push_str("; a record could not be read and counts as absent");
    }
    text
}
