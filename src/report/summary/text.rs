//! The summary in columns, for people; no line is wider than 80 columns as long as its
//! numbers and names are not.

use super::{Candidate, Ranked, Row, Summary};
use crate::admin::escape::escaped;
use crate::admin::times;

/// All lines.
pub fn lines(summary: &Summary) -> Vec<String> {
    let mut lines = Vec::new();
    let Some((first, last)) = summary.span else {
        lines.push("No requests.".into());
        push_end(&mut lines, summary);
        return lines;
    };
    let [first, last] = [first, last].map(|time| times::shown(time as f64));
    lines.push(format!(
        "{} requests, {first} to {last}",
        summary.total.requests()
    ));
    lines.push(String::new());
    push_answers(&mut lines, summary);
    push_periods(&mut lines, summary);
    push_top(&mut lines, summary);
    push_candidates(&mut lines, summary);
    push_end(&mut lines, summary);
    lines
}

fn push_answers(lines: &mut Vec<String>, summary: &Summary) {
    lines.push(format!(
        "{:>10}  {:>6}  {:10} REASON",
        "REQUESTS", "%", "ACTION"
    ));
    let all = summary.total.requests().max(1) as f64;
    for ((action, reason), count) in summary.kinds.iter().zip(&summary.total.sums.counts) {
        let share = *count as f64 * 100.0 / all;
        lines.push(format!("{count:>10}  {share:>6.1}  {action:10} {reason}"));
    }
    lines.push(String::new());
}

fn push_periods(lines: &mut Vec<String>, summary: &Summary) {
    let width = if summary.by == "hour" { 14 } else { 10 };
    let name = summary.by.to_ascii_uppercase();
    lines.push(format!(
        "{name:width$} {:>9} {:>9} {:>9} {:>8} {:>8} {:>9}",
        "PASS", "GREYLIST", "TARPIT", "OTHER", "CLIENTS", "TRIPLETS"
    ));
    for row in summary.rows.iter().chain([&summary.total]) {
        let [pass, greylist, tarpit] =
            ["pass", "greylist", "tarpit"].map(|own| summary.actions(row, |action| action == own));
        let other = row.requests() - pass - greylist - tarpit;
        lines.push(format!(
            "{:width$} {pass:>9} {greylist:>9} {tarpit:>9} {other:>8} {:>8} {:>9}",
            row.label, row.sums.clients, row.sums.triplets
        ));
    }
    lines.push(String::new());
    lines.push("Triplets put off, how many came back and passed, and after how long;".into());
    lines.push("clients held in the tarpit; clients put on the auto-whitelist:".into());
    lines.push(String::new());
    lines.push(format!(
        "{name:width$} {:>7} {:>7} {:>5} {:>6} {:>6} {:>6} {:>6} {:>6} {:>5}",
        "PUT OFF", "BACK", "%", "P50", "P90", "P99", "HELD", "WAITED", "AWL"
    ));
    for row in summary.rows.iter().chain([&summary.total]) {
        lines.push(delay_line(row, width));
    }
    lines.push(String::new());
}

fn delay_line(row: &Row, width: usize) -> String {
    let share = row
        .share()
        .map_or("-".into(), |share| format!("{share:.1}"));
    let [p50, p90, p99] = [50, 90, 99].map(|percent| row.delay(percent).map_or("-".into(), span));
    format!(
        "{:width$} {:>7} {:>7} {share:>5} {p50:>6} {p90:>6} {p99:>6} {:>6} {:>6} {:>5}",
        row.label,
        row.put_off,
        row.came_back(),
        row.sums.held,
        row.sums.waited,
        row.sums.whitelisted
    )
}

/// A number of seconds in at most six octets: `59s`, `9m59s`, `1h05m`, `2d03h`.
pub fn span(seconds: u32) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

fn push_top(lines: &mut Vec<String>, summary: &Summary) {
    for (what, delayed, never) in &summary.top.lists {
        if delayed.is_empty() && never.is_empty() {
            continue;
        }
        let what = what.to_ascii_uppercase();
        lines.push(format!(
            "{:>7} {:31} {:>7} {what}",
            "DELAYED", what, "NEVER"
        ));
        for index in 0..delayed.len().max(never.len()) {
            let [left, right] = [delayed, never].map(|list| column(list.get(index)));
            lines.push(format!("{left:39} {right}").trim_end().to_owned());
        }
        lines.push(String::new());
    }
}

fn column(ranked: Option<&Ranked>) -> String {
    match ranked {
        None => String::new(),
        Some(one) if one.name.is_empty() => format!("{:>7} <>", one.count),
        Some(one) => {
            let mut name = escaped(&one.name);
            if name.len() > 31 {
                // The end tells more of a domain, and all of it is ASCII.
                name = format!("...{}", &name[name.len() - 28..]);
            }
            format!("{:>7} {name}", one.count)
        }
    }
}

fn push_candidates(lines: &mut Vec<String>, summary: &Summary) {
    if summary.top.candidates.is_empty() {
        return;
    }
    lines.push(
        "Large senders whose mail was delayed, as lines for the whitelist of clients:".into(),
    );
    lines.push(String::new());
    lines.extend(candidate_lines(summary));
    lines.push(String::new());
}

/// Lines for the whitelist of clients.
pub fn candidate_lines(summary: &Summary) -> Vec<String> {
    let line = |one: &Candidate| {
        format!(
            "{:24} # {} triplets of {} clients delayed, half of them {} or more",
            escaped(&one.domain),
            one.delayed,
            one.clients,
            span(one.median)
        )
    };
    summary.top.candidates.iter().map(line).collect()
}

fn push_end(lines: &mut Vec<String>, summary: &Summary) {
    let counted = &summary.lines;
    let all = [
        (counted.read, "read"),
        (counted.postgrey, "other of postgrey"),
        (counted.postfix, "of smtpd"),
        (counted.other, "of others"),
    ];
    let told: Vec<String> = all
        .iter()
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    lines.push(format!("Lines: {}.", told.join(", ")));
    for note in &summary.notes {
        lines.push(format!("Note: {note}."));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (312, "5m12s"),
            (3599, "59m59s"),
            (3900, "1h05m"),
            (183_600, "2d03h"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
