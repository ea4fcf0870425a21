//! The summary as CSV (RFC 4180): a heading, and a line for each period.

use super::{Row, Summary};

/// The columns that are always there.
const COLUMNS: &str = "period,start,requests,clients,triplets,put_off,came_back,delay_p50,\
     delay_p90,delay_p99,held,waited,gave_up,auto_whitelisted,broken_off";

/// All lines. After the fixed columns there is one for each kind of answer.
pub fn lines(summary: &Summary) -> Vec<String> {
    let mut heading = String::from(COLUMNS);
    for (action, reason) in &summary.kinds {
        heading.push(',');
        heading.push_str(&quoted(&format!("{action}: {reason}")));
    }
    let rows = summary.rows.iter().map(line);
    [heading].into_iter().chain(rows).collect()
}

fn line(row: &Row) -> String {
    let delay = |percent| {
        row.delay(percent)
            .map_or(String::new(), |delay| delay.to_string())
    };
    let mut fields = vec![quoted(&row.label), row.start.to_string()];
    let numbers = [
        row.requests(),
        row.sums.clients,
        row.sums.triplets,
        row.put_off,
        row.came_back(),
    ];
    fields.extend(numbers.iter().map(u64::to_string));
    fields.extend([50, 90, 99].map(delay));
    let numbers = [
        row.sums.held,
        row.sums.waited,
        row.gave_up(),
        row.sums.whitelisted,
        row.sums.broken_off,
    ];
    fields.extend(numbers.iter().chain(&row.sums.counts).map(u64::to_string));
    fields.join(",")
}

/// A reason is text of a log: no program that reads the table may take it for a formula.
fn quoted(text: &str) -> String {
    let text = match text.starts_with(['=', '+', '-', '@']) {
        true => format!("'{text}"),
        false => text.to_owned(),
    };
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted() {
        assert_eq!(quoted("pass: client AWL"), "pass: client AWL");
        assert_eq!(quoted("a,\"b\""), "\"a,\"\"b\"\"\"");
        assert_eq!(quoted("=x"), "'=x");
    }
}
