//! The tables of the page.

use std::fmt::Write as _;

use super::charts::{bands, used_bands};
use super::{escape, grouped};
use crate::admin::escape::escaped;
use crate::report::summary::text::span;
use crate::report::summary::{Ranked, Row, Summary};

/// Rows that are shown without being asked for.
const SHOWN: usize = 14;

/// The numbers of each period.
pub fn push_periods(page: &mut String, summary: &Summary) {
    if summary.rows.is_empty() {
        return;
    }
    let has_held = summary.total.sums.held > 0;
    let bands = used_bands(summary);
    let mut columns: Vec<&str> = bands.iter().map(|(_, name)| *name).collect();
    columns.extend([
        "clients",
        "triplets",
        "put off",
        "came back",
        "share",
        "half",
        "90 %",
        "99 %",
    ]);
    if has_held {
        columns.extend(["held", "waited"]);
    }
    columns.push("AWL");
    let is_long = summary.rows.len() > SHOWN;
    let class = if is_long { " class=\"long\"" } else { "" };
    let _ = writeln!(
        page,
        "<section{class}>\n<h2>The numbers of each {}</h2>",
        summary.by
    );
    page.push_str(
        "<p class=\"soft\">Requests; distinct clients and triplets; triplets put off, those that came back, \
         and the delay that half, 90 % and 99 % of these did not exceed; clients held in the tarpit, and put \
         on the auto-whitelist.</p>\n",
    );
    if is_long {
        let _ = writeln!(
            page,
            "<details>\n<summary>{} rows</summary>",
            summary.rows.len()
        );
    }
    let _ = write!(
        page,
        "<div class=\"scroll\" role=\"region\" aria-label=\"The numbers of each {}\" tabindex=\"0\">\n<table>\n<thead><tr><th scope=\"col\">{}</th>",
        summary.by, summary.by
    );
    for column in &columns {
        let _ = write!(page, "<th scope=\"col\">{column}</th>");
    }
    page.push_str("</tr></thead>\n<tbody>\n");
    for row in &summary.rows {
        push_row(page, summary, row, has_held);
    }
    page.push_str("</tbody>\n<tfoot>\n");
    push_row(page, summary, &summary.total, has_held);
    page.push_str("</tfoot>\n</table>\n</div>\n");
    if is_long {
        page.push_str("</details>\n");
    }
    page.push_str("</section>\n");
}

fn push_row(page: &mut String, summary: &Summary, row: &Row, has_held: bool) {
    let counts = bands(summary, row);
    let used = used_bands(summary);
    let mut cells: Vec<String> = used
        .iter()
        .map(|(band, _)| grouped(counts[*band]))
        .collect();
    let numbers = [
        row.sums.clients,
        row.sums.triplets,
        row.put_off,
        row.came_back(),
    ];
    cells.extend(numbers.map(grouped));
    cells.push(
        row.share()
            .map_or("–".into(), |share| format!("{share:.1} %")),
    );
    cells.extend([50, 90, 99].map(|percent| row.delay(percent).map_or("–".into(), span)));
    if has_held {
        cells.extend([row.sums.held, row.sums.waited].map(grouped));
    }
    cells.push(grouped(row.sums.whitelisted));
    let _ = write!(page, "<tr><th scope=\"row\">{}</th>", row.label);
    for cell in cells {
        let _ = write!(page, "<td>{cell}</td>");
    }
    page.push_str("</tr>\n");
}

/// Whose mail suffers.
pub fn push_top(page: &mut String, summary: &Summary) {
    if summary.total.put_off == 0 {
        return;
    }
    page.push_str("<section class=\"long\">\n<h2>Whose mail was put off</h2>\n<p class=\"soft\">The first ten, by triplets.</p>\n");
    for (what, delayed, never) in &summary.top.lists {
        page.push_str("<div class=\"pair\">\n");
        push_list(page, &format!("Delayed {what}"), delayed);
        push_list(
            page,
            &format!("{} that never came back", capital(what)),
            never,
        );
        page.push_str("</div>\n");
    }
    page.push_str("</section>\n");
}

fn capital(text: &str) -> String {
    text[..1].to_ascii_uppercase() + &text[1..]
}

fn push_list(page: &mut String, heading: &str, list: &[Ranked]) {
    let _ = writeln!(page, "<section>\n<h3>{heading}</h3>");
    if list.is_empty() {
        page.push_str("<p class=\"soft\">None.</p>\n</section>\n");
        return;
    }
    page.push_str("<table>\n<tbody>\n");
    for one in list {
        let name = match one.name.is_empty() {
            true => "&lt;&gt; (no sender)".into(),
            false => escape(&escaped(&one.name)),
        };
        let _ = writeln!(
            page,
            "<tr><th scope=\"row\" class=\"name\">{name}</th><td>{}</td></tr>",
            grouped(one.count)
        );
    }
    page.push_str("</tbody>\n</table>\n</section>\n");
}

/// Those that might be whitelisted.
pub fn push_candidates(page: &mut String, summary: &Summary) {
    if summary.top.candidates.is_empty() {
        return;
    }
    page.push_str(
        "<section>\n<h2>Large senders whose mail was delayed</h2>\n\
         <p class=\"soft\">As lines for the whitelist of clients. Whoever whitelists such a domain lets everybody \
         through who sends by it.</p>\n<pre>",
    );
    for line in crate::report::summary::text::candidate_lines(summary) {
        let _ = writeln!(page, "{}", escape(&line));
    }
    page.push_str("</pre>\n</section>\n");
}
