//! The summary: what was counted, put together for people and machines.

pub mod csv;
pub mod json;
pub mod text;
mod top;

use super::tally::periods::Periods;
use super::tally::{Lines, Sums, TOLD_BY_POSTFIX, Tally};
use top::Top;
pub use top::{Candidate, Ranked};

/// A period, or all of them together.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// What it is called.
    pub label: String,
    /// When it begins, in seconds since 1970.
    pub start: i64,
    /// What was counted.
    pub sums: Sums,
    /// Triplets that were put off for the first time.
    pub put_off: u64,
    /// The seconds after which those of them that came back passed, in order.
    pub delays: Vec<u32>,
}

/// All that is told.
pub struct Summary {
    /// What a period is called: hour, day or week.
    pub by: &'static str,
    /// The first and the last request, in seconds since 1970.
    pub span: Option<(i64, i64)>,
    /// In the order of time.
    pub rows: Vec<Row>,
    /// For a picture: the hours of a week at most, else the periods; without gaps.
    pub steps: Vec<Row>,
    /// What a step is called.
    pub step: &'static str,
    /// All periods together.
    pub total: Row,
    /// Action and reason of each kind of answer, in a fixed order.
    pub kinds: Vec<(String, String)>,
    /// Lines by what became of them.
    pub lines: Lines,
    /// Who suffers.
    pub top: Top,
    /// What is not known.
    pub notes: Vec<String>,
}

impl Row {
    /// Requests in all.
    pub fn requests(&self) -> u64 {
        self.sums.counts.iter().sum()
    }

    /// Triplets that were put off and passed later.
    pub fn came_back(&self) -> u64 {
        self.delays.len() as u64
    }

    /// The share of those in percent; `None` if nothing was put off.
    pub fn share(&self) -> Option<f64> {
        (self.put_off > 0).then(|| self.came_back() as f64 * 100.0 / self.put_off as f64)
    }

    /// The delay in seconds that so many percent of those that came back did not exceed.
    pub fn delay(&self, percent: usize) -> Option<u32> {
        let last = self.delays.len().checked_sub(1)?;
        // The nearest rank: of 100 delays the 99th is that of 99 percent.
        let rank = (self.delays.len() * percent).div_ceil(100);
        self.delays.get(rank.saturating_sub(1).min(last)).copied()
    }

    /// Clients that were sent to the tarpit and did not wait.
    pub fn gave_up(&self) -> u64 {
        self.sums.held.saturating_sub(self.sums.waited)
    }
}

impl Summary {
    /// Puts together what was counted.
    pub fn new(tally: &mut Tally) -> Summary {
        tally.close();
        let order = order_of(&tally.kinds);
        let mut total = Row::default();
        let mut rows: Vec<(u32, Row)> = Vec::new();
        for (&number, sums) in &tally.sums {
            let (start, label) = tally.periods.start(number);
            let count = |&kind: &usize| sums.counts.get(kind).copied().unwrap_or(0);
            let sums = Sums {
                counts: order.iter().map(count).collect(),
                ..sums.clone()
            };
            total.add(&sums);
            let row = Row {
                label,
                start,
                sums,
                ..Row::default()
            };
            rows.push((number, row));
        }
        // A client of two days is one.
        total.sums.clients = tally.clients.count() as u64;
        total.sums.triplets = tally.triplets.all.count() as u64;
        total.label = "total".into();
        for triplet in tally.triplets.all.iter().filter(|one| one.is_put_off()) {
            let number = tally.periods.number(i64::from(triplet.began));
            let own = rows.binary_search_by_key(&number, |(number, _)| *number);
            let own = own.ok().map(|at| &mut rows[at].1);
            for row in own.into_iter().chain([&mut total]) {
                row.put_off += 1;
                if triplet.has_come_back() {
                    row.delays.push(triplet.delay);
                }
            }
        }
        let (step, steps) = steps(tally, &rows, &order);
        let mut rows: Vec<Row> = rows.into_iter().map(|(_, row)| row).collect();
        for row in rows.iter_mut().chain([&mut total]) {
            row.delays.sort_unstable();
        }
        let kinds: Vec<_> = order
            .iter()
            .map(|&kind| tally.kinds[kind].clone())
            .collect();
        Summary {
            by: tally.by().name(),
            span: tally.span,
            notes: notes(&kinds, &total, &tally.lines),
            rows,
            steps,
            step,
            total,
            kinds,
            lines: tally.lines,
            top: Top::new(tally),
        }
    }

    /// Requests of a row whose action is one of these.
    pub fn actions(&self, row: &Row, is_counted: impl Fn(&str) -> bool) -> u64 {
        let counts = row.sums.counts.iter().zip(&self.kinds);
        counts
            .filter(|(_, (action, _))| is_counted(action))
            .map(|(count, _)| count)
            .sum()
    }
}

impl Row {
    fn add(&mut self, sums: &Sums) {
        let own = &mut self.sums;
        own.counts.resize(sums.counts.len(), 0);
        for (own, count) in own.counts.iter_mut().zip(&sums.counts) {
            *own += count;
        }
        own.held += sums.held;
        own.waited += sums.waited;
        own.whitelisted += sums.whitelisted;
        own.broken_off += sums.broken_off;
    }
}

/// Hours that make a picture by the hour; more make one by the period.
const MOST_HOURS: u32 = 7 * 24;
/// More periods without a line are left out: some line has a wrong time.
const MOST_GAPS: u32 = 5000;

fn steps(tally: &Tally, rows: &[(u32, Row)], order: &[usize]) -> (&'static str, Vec<Row>) {
    let periods = rows
        .iter()
        .map(|(number, row)| (*number, row.sums.counts.clone()));
    let Some((hours, counts)) = &tally.hours else {
        return (
            tally.by().name(),
            without_gaps(&tally.periods, periods.collect()),
        );
    };
    let ends = (counts.keys().next(), counts.keys().next_back());
    let (Some(first), Some(last)) = ends else {
        return (tally.by().name(), Vec::new());
    };
    if last - first >= MOST_HOURS {
        return (
            tally.by().name(),
            without_gaps(&tally.periods, periods.collect()),
        );
    }
    let by_kind = |counts: &Vec<u64>| -> Vec<u64> {
        let count = |&kind: &usize| counts.get(kind).copied().unwrap_or(0);
        order.iter().map(count).collect()
    };
    let counts = counts
        .iter()
        .map(|(number, counts)| (*number, by_kind(counts)));
    ("hour", without_gaps(hours, counts.collect()))
}

/// A row for each period from the first to the last one.
fn without_gaps(periods: &Periods, known: Vec<(u32, Vec<u64>)>) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut next = None;
    for (number, counts) in known {
        let from = next
            .filter(|next| number - next <= MOST_GAPS)
            .unwrap_or(number);
        for number in from..=number {
            let (start, label) = periods.start(number);
            rows.push(Row {
                label,
                start,
                ..Row::default()
            });
        }
        if let Some(row) = rows.last_mut() {
            row.sums.counts = counts;
        }
        next = Some(number + 1);
    }
    rows
}

/// The order in which kinds are shown: pass, greylist, tarpit, others; each by reason.
fn order_of(kinds: &[(String, String)]) -> Vec<usize> {
    let rank = |action: &str| {
        let known = ["pass", "greylist", "tarpit"];
        known
            .iter()
            .position(|own| *own == action)
            .unwrap_or(known.len())
    };
    let mut order: Vec<usize> = (0..kinds.len()).collect();
    order.sort_by(|&a, &b| {
        let key = |kind: usize| (rank(&kinds[kind].0), &kinds[kind]);
        key(a).cmp(&key(b))
    });
    order
}

/// What the log cannot tell.
fn notes(kinds: &[(String, String)], total: &Row, lines: &Lines) -> Vec<String> {
    let mut notes = Vec::new();
    let has = |is_it: &dyn Fn(&str, &str) -> bool| kinds.iter().any(|(a, r)| is_it(a, r));
    if lines.lost > 0 {
        notes.push(format!(
            "incomplete: the log says that {} of its lines were lost",
            lines.lost
        ));
    }
    if lines.untimed > 0 {
        notes.push(format!(
            "incomplete: {} lines about requests have no time and are not counted",
            lines.untimed
        ));
    }
    if lines.unknown > 0 {
        notes.push(format!(
            "incomplete: {} lines about requests could not be understood",
            lines.unknown
        ));
    }
    if lines.disordered > 0 {
        notes.push(format!(
            "incomplete: {} lines are hours earlier than one before them, and what came back of \
             them may be unknown: logs are put in order if each is given as a LOG",
            lines.disordered
        ));
    }
    if lines.read > 0 && lines.read == lines.other {
        notes.push(
            "no line is one of postgrey or of Postfix' smtpd: LOGS in postgreyreport(1) has what \
             they may look like"
                .into(),
        );
    }
    if has(&|_, reason| reason == TOLD_BY_POSTFIX) {
        notes.push(
            "of some requests only Postfix tells, which says neither what passed nor what came \
             back: postgrey --quiet logs no requests, and another facility may be in another file"
                .into(),
        );
    }
    if total.sums.held > 0 && total.sums.waited == 0 {
        notes.push(
            "nobody is told to have waited in the tarpit, and nobody is by a server without \
             --targrey, or one that is not asked at DATA"
                .into(),
        );
    }
    if !kinds.is_empty() && !has(&|action, reason| action == "tarpit" || reason == "tarpit passed")
    {
        let broken = match total.sums.broken_off {
            0 => String::new(),
            count => format!(
                "; {count} clients broke off after RCPT or DATA, by Postfix' lines, and those \
                 that did not wait are among them"
            ),
        };
        notes.push(format!(
            "the log has no lines of postgrey --log-tarpit: whom the tarpit held, and who waited, \
             is not known{broken}"
        ));
    }
    notes
}
