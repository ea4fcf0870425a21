//! The summary as one JSON object.

use serde_json::{Map, Value, json};

use super::{Ranked, Row, Summary};
use crate::admin::escape::escaped;

/// The whole summary in pieces: there may be very many periods.
pub fn pieces(summary: &Summary) -> impl Iterator<Item = String> {
    let mut head = value(summary).to_string();
    // The rest of the object follows.
    head.pop();
    let periods = summary.rows.iter().enumerate().map(|(index, row)| {
        let comma = if index > 0 { "," } else { "" };
        format!("{comma}{}", object(summary, row))
    });
    [head, ",\"periods\":[".into()]
        .into_iter()
        .chain(periods)
        .chain(["]}\n".into()])
}

/// All but the periods.
pub fn value(summary: &Summary) -> Value {
    let lines = &summary.lines;
    let ranked = |list: &[Ranked]| -> Vec<Value> {
        let one = |one: &Ranked| json!({"name": escaped(&one.name), "triplets": one.count});
        list.iter().map(one).collect()
    };
    let mut top = Map::new();
    for (what, delayed, never) in &summary.top.lists {
        let lists = json!({"delayed": ranked(delayed), "never_came_back": ranked(never)});
        top.insert(what.replace(' ', "_"), lists);
    }
    let candidates: Vec<Value> = summary
        .top
        .candidates
        .iter()
        .map(|one| {
            json!({
                "domain": escaped(&one.domain),
                "triplets_delayed": one.delayed,
                "clients": one.clients,
                "delay_median": one.median,
            })
        })
        .collect();
    json!({
        "by": summary.by,
        "first": summary.span.map(|(first, _)| first),
        "last": summary.span.map(|(_, last)| last),
        "lines": {
            "read": lines.read,
            "requests": lines.requests,
            "postgrey_other": lines.postgrey,
            "postfix": lines.postfix,
            "other": lines.other,
            "not_understood": lines.unknown,
            "without_time": lines.untimed,
            "lost": lines.lost,
            "out_of_order": lines.disordered,
        },
        "total": object(summary, &summary.total),
        "top": top,
        "whitelist_candidates": candidates,
        "notes": summary.notes,
    })
}

/// What is told of a period.
fn object(summary: &Summary, row: &Row) -> Value {
    let mut answers: Map<String, Value> = Map::new();
    for ((action, reason), count) in summary.kinds.iter().zip(&row.sums.counts) {
        let of_action = answers.entry(action.clone()).or_insert_with(|| json!({}));
        if let Value::Object(of_action) = of_action {
            of_action.insert(reason.clone(), json!(count));
        }
    }
    let is_total = row.start == 0;
    json!({
        "period": (!is_total).then_some(&row.label),
        "start": (!is_total).then_some(row.start),
        "requests": row.requests(),
        "answers": answers,
        "clients": row.sums.clients,
        "triplets": row.sums.triplets,
        "put_off": row.put_off,
        "came_back": row.came_back(),
        "came_back_percent": row.share().map(|share| (share * 10.0).round() / 10.0),
        "delay_p50": row.delay(50),
        "delay_p90": row.delay(90),
        "delay_p99": row.delay(99),
        "held": row.sums.held,
        "waited": row.sums.waited,
        "gave_up": row.gave_up(),
        "auto_whitelisted": row.sums.whitelisted,
        "broken_off": row.sums.broken_off,
    })
}
