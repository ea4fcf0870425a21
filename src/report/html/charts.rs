//! The charts of the page, each with its numbers.

use std::fmt::Write as _;

use plotters::prelude::RGBColor;

use super::axis::{Axis, round_span};
use super::chart::{Caption, GREY, HELD, OTHER, PASS, Shape, Size, WHITE, svg};
use super::grouped;
use crate::report::database::{AGES, Databases};
use crate::report::summary::text::span;
use crate::report::summary::{Row, Summary};

/// The bands of the chart over time, from the bottom: class, name, colour.
const BANDS: [(&str, &str, RGBColor); 5] = [
    ("pass", "passed", PASS),
    ("white", "whitelisted", WHITE),
    ("grey", "greylisted", GREY),
    ("held", "tarpitted", HELD),
    ("other", "other", OTHER),
];

/// The requests of a row in each band.
pub fn bands(summary: &Summary, row: &Row) -> [u64; 5] {
    let mut bands = [0; 5];
    for ((action, reason), count) in summary.kinds.iter().zip(&row.sums.counts) {
        let is_listed = ["whitelist", "AWL", "not S25R"]
            .iter()
            .any(|word| reason.contains(word));
        let band = match action.as_str() {
            "pass" if is_listed => 1,
            "pass" => 0,
            "greylist" => 2,
            "tarpit" => 3,
            _ => 4,
        };
        bands[band] += count;
    }
    bands
}

/// The names of the bands of which there is something.
pub fn used_bands(summary: &Summary) -> Vec<(usize, &'static str)> {
    let total = bands(summary, &summary.total);
    let all = BANDS.iter().enumerate();
    all.filter(|(band, _)| *band < 4 || total[*band] > 0)
        .map(|(band, (_, name, _))| (band, *name))
        .collect()
}

/// A figure with its chart in both sizes, and its numbers beside or below it.
fn push_figure(
    page: &mut String,
    caption: &Caption,
    lead: &str,
    numbers: &Numbers,
    draw: &dyn Fn(Size) -> ([Axis; 2], Vec<Shape>),
) -> Result<(), String> {
    let title = super::escape(caption.title);
    let class = match numbers {
        Numbers::Beside(..) => " class=\"numbers\"",
        Numbers::Below(_) => "",
    };
    let _ = writeln!(
        page,
        "<section>\n<h2>{title}</h2>\n<p class=\"soft\">{lead}</p>\n<div{class}>\n<figure>"
    );
    for size in Size::ALL {
        let (axes, shapes) = draw(size);
        page.push_str(&svg(size, caption, axes, &shapes)?);
        page.push('\n');
    }
    let text = match numbers {
        Numbers::Below(legend) => format!("{legend}</figure>\n"),
        Numbers::Beside(legend, table) => format!("{legend}</figure>\n{table}"),
    };
    let _ = writeln!(page, "{text}</div>\n</section>");
    Ok(())
}

/// What stands below a chart, or a legend below and a table beside it.
enum Numbers {
    Below(String),
    Beside(String, String),
}

/// More steps than this are drawn as means of some: no screen has more columns.
const MOST_STEPS: usize = 800;

/// Requests over time, one band on the other.
pub fn push_over_time(page: &mut String, summary: &Summary) -> Result<(), String> {
    let rows = &summary.steps;
    let Some(last) = rows.last() else {
        return Ok(());
    };
    let most = rows.iter().map(Row::requests).max().unwrap_or(0);
    let peak = rows.iter().max_by_key(|row| row.requests());
    let description = format!(
        "Requests for each {}, from {} to {}; at most {}, in {}.",
        summary.step,
        rows[0].label,
        last.label,
        most,
        peak.map_or("", |row| row.label.as_str())
    );
    let caption = Caption {
        id: "time",
        title: "Requests over time",
        description: &description,
    };
    let mut legend = String::from("<ul class=\"legend\">\n");
    for (band, name) in used_bands(summary) {
        let count = bands(summary, &summary.total)[band];
        let class = BANDS[band].0;
        let _ = writeln!(
            legend,
            "<li><i class=\"{class}\"></i>{name} {}</li>",
            grouped(count)
        );
    }
    legend.push_str("</ul>\n");
    let width = rows.len().div_ceil(MOST_STEPS);
    let mut lead = format!("For each {}, by what was answered", summary.step);
    if width > 1 {
        let _ = write!(lead, "; the picture has the means of {width} each");
    }
    lead.push('.');
    push_figure(page, &caption, &lead, &Numbers::Below(legend), &|size| {
        let marks = time_marks(summary.step, rows, size);
        let x = Axis::new((0.0, rows.len() as f64), marks);
        let mut shapes = Vec::new();
        // From the top: what is lower is drawn over it.
        for band in (0..BANDS.len()).rev() {
            let mut points = Vec::new();
            for (index, some) in rows.chunks(width).enumerate() {
                let below = |row| -> u64 { bands(summary, row)[..=band].iter().sum() };
                let all: u64 = some.iter().map(below).sum();
                let mean = all as f64 / some.len() as f64;
                // A period is as wide as it is long.
                let start = index * width;
                points.push((start as f64, mean));
                points.push(((start + some.len()) as f64, mean));
            }
            shapes.push(Shape::Area(points, BANDS[band].2));
        }
        ([x, Axis::up_to(most as f64)], shapes)
    })
}

/// Marks at the beginnings of days, or of hours if they are few.
fn time_marks(step: &str, rows: &[Row], size: Size) -> Vec<(f64, String)> {
    let most = if size == Size::Wide { 9 } else { 4 };
    let are_hours = step == "hour" && rows.len() <= 36;
    // A day tells no year.
    let are_years = matches!(rows, [first, .., last] if last.start - first.start > 300 * 86_400);
    let label = |row: &Row| match (are_hours, are_years) {
        (true, _) => row.label[11..].to_owned(),
        (false, true) => row.label[..7].to_owned(),
        (false, false) => row.label[5..10].to_owned(),
    };
    let is_marked = |row: &Row| are_hours || step != "hour" || row.label.ends_with(" 00h");
    let candidates: Vec<(usize, &Row)> = rows
        .iter()
        .enumerate()
        .filter(|(_, row)| is_marked(row))
        .collect();
    let every = candidates.len().div_ceil(most).max(1);
    candidates
        .into_iter()
        .step_by(every)
        .map(|(index, row)| (index as f64, label(row)))
        .collect()
}

/// Upper ends of the classes of delays in seconds.
const DELAYS: [u32; 10] = [60, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400];

/// How long those waited that came back.
pub fn push_delays(page: &mut String, summary: &Summary) -> Result<(), String> {
    let delays = &summary.total.delays;
    if delays.is_empty() {
        return Ok(());
    }
    let mut counts = [0_u64; DELAYS.len() + 1];
    for delay in delays {
        let class = DELAYS.iter().position(|end| delay < end);
        counts[class.unwrap_or(DELAYS.len())] += 1;
    }
    let names: Vec<String> = (0..counts.len()).map(class_name).collect();
    let numbers: Vec<(String, u64)> = names.iter().cloned().zip(counts).collect();
    let [p50, p90, p99] =
        [50, 90, 99].map(|percent| summary.total.delay(percent).map_or(String::new(), span));
    let description = format!(
        "{} triplets came back. Half of them waited {p50} or less, nine of ten {p90}, 99 of 100 {p99}.",
        delays.len()
    );
    let caption = Caption {
        id: "delays",
        title: "How long mail waited",
        description: &description,
    };
    let numbers = Numbers::Beside(String::new(), table(["Delay", "Triplets"], &numbers));
    push_figure(page, &caption, &description, &numbers, &|size| {
        let most = counts.iter().max().copied().unwrap_or(0);
        // The name of a class would be too wide: its end is told.
        let step = if size == Size::Wide { 1 } else { 3 };
        let marks = DELAYS.iter().enumerate().skip(step - 1).step_by(step);
        let marks = marks.map(|(index, end)| ((index + 1) as f64, round_span(*end)));
        let x = Axis::new((0.0, counts.len() as f64), marks.collect());
        let bars = counts.iter().enumerate().map(|(index, count)| {
            let from = index as f64;
            Shape::Bar(from + 0.08, from + 0.92, *count as f64, PASS)
        });
        ([x, Axis::up_to(most as f64)], bars.collect())
    })
}

fn class_name(class: usize) -> String {
    match (
        class.checked_sub(1).map(|before| DELAYS[before]),
        DELAYS.get(class),
    ) {
        (None, Some(end)) => format!("less than {}", round_span(*end)),
        (Some(start), Some(end)) => format!("{} to {}", round_span(start), round_span(*end)),
        (Some(start), None) => format!("{} or more", round_span(start)),
        (None, None) => String::new(),
    }
}

/// Which share had come back after which time.
pub fn push_curve(page: &mut String, summary: &Summary) -> Result<(), String> {
    let total = &summary.total;
    let (Some(&longest), true) = (total.delays.last(), total.put_off > 0) else {
        return Ok(());
    };
    let after = |seconds: u32| {
        let count = total.delays.partition_point(|delay| *delay <= seconds);
        count as f64 * 100.0 / total.put_off as f64
    };
    let marks = [300, 600, 900, 1800, 3600, 14_400, 43_200, 86_400];
    let rows: Vec<(String, String)> = marks
        .iter()
        .map(|&seconds| (round_span(seconds), format!("{:.1} %", after(seconds))))
        .collect();
    let description = format!(
        "Of {} triplets that were put off, {:.1} % had passed after 10 minutes, {:.1} % after an hour, {:.1} % in the end.",
        total.put_off,
        after(600),
        after(3600),
        after(longest)
    );
    let caption = Caption {
        id: "curve",
        title: "What came back",
        description: &description,
    };
    let table = table_of_texts(["After", "Came back"], &rows);
    let numbers = Numbers::Beside(String::new(), table);
    push_figure(page, &caption, &description, &numbers, &|size| {
        let x = Axis::of_seconds(f64::from(longest), size == Size::Narrow);
        let end = x.end();
        let start = 60_f64.ln();
        let points = (0..=300).map(|step| {
            let place = start + (end - start) * f64::from(step) / 300.0;
            (place, after(place.exp().round() as u32))
        });
        let percent = (0..=4).map(|step| f64::from(step * 25));
        let percent = percent.map(|value| (value, format!("{value} %"))).collect();
        let y = Axis::new((0.0, 100.0), percent);
        ([x, y], vec![Shape::Line(points.collect(), PASS)])
    })
}

/// How much the database holds, and how old it is.
pub fn push_databases(page: &mut String, databases: &Databases) -> Result<(), String> {
    let names = ["triplets", "clients", "tarpit"];
    let colors = [GREY, WHITE, HELD];
    let classes = ["grey", "white", "held"];
    let total: u64 = databases
        .records
        .iter()
        .map(|ages| ages.iter().sum::<u64>())
        .sum();
    let description = format!(
        "{total} records, {} KiB without what the file needs besides, by the time since they were last used.",
        databases.octets.div_ceil(1 << 10)
    );
    let caption = Caption {
        id: "database",
        title: "The database",
        description: &description,
    };
    let mut legend = String::from("<ul class=\"legend\">\n");
    for ((class, name), ages) in classes.iter().zip(names).zip(&databases.records) {
        let count = grouped(ages.iter().sum());
        let _ = writeln!(legend, "<li><i class=\"{class}\"></i>{name} {count}</li>");
    }
    legend.push_str("</ul>\n");
    let mut table = String::from("<table>\n<thead><tr><th scope=\"col\">Last used</th>");
    for name in names {
        let _ = write!(table, "<th scope=\"col\">{name}</th>");
    }
    table.push_str("</tr></thead>\n<tbody>\n");
    for (index, (_, name)) in AGES.iter().enumerate() {
        let _ = write!(table, "<tr><th scope=\"row\">{name}</th>");
        for ages in &databases.records {
            let _ = write!(table, "<td>{}</td>", grouped(ages[index]));
        }
        table.push_str("</tr>\n");
    }
    table.push_str("</tbody>\n</table>\n");
    let numbers = Numbers::Beside(legend, table);
    push_figure(page, &caption, &description, &numbers, &|size| {
        let most = databases
            .records
            .iter()
            .flatten()
            .max()
            .copied()
            .unwrap_or(0);
        let marks = AGES.iter().enumerate().map(|(index, (_, name))| {
            let short = name
                .trim_start_matches("within ")
                .trim_start_matches("more than ");
            let is_shown = size == Size::Wide || index % 2 == 0;
            (
                index as f64 + 0.5,
                if is_shown {
                    short.to_owned()
                } else {
                    String::new()
                },
            )
        });
        let x = Axis::new((0.0, AGES.len() as f64), marks.collect());
        let mut bars = Vec::new();
        for (index, (ages, color)) in databases.records.iter().zip(colors).enumerate() {
            for (age, count) in ages.iter().enumerate() {
                let from = age as f64 + 0.1 + 0.27 * index as f64;
                bars.push(Shape::Bar(from, from + 0.25, *count as f64, color));
            }
        }
        ([x, Axis::up_to(most as f64)], bars)
    })
}

fn table(heading: [&str; 2], rows: &[(String, u64)]) -> String {
    let rows: Vec<(String, String)> = rows
        .iter()
        .map(|(name, count)| (name.clone(), grouped(*count)))
        .collect();
    table_of_texts(heading, &rows)
}

/// The numbers of a chart.
fn table_of_texts([what, number]: [&str; 2], rows: &[(String, String)]) -> String {
    let mut text = format!(
        "<table>\n<thead><tr><th scope=\"col\">{what}</th>\
         <th scope=\"col\">{number}</th></tr></thead>\n<tbody>\n"
    );
    for (name, value) in rows {
        let _ = writeln!(
            text,
            "<tr><th scope=\"row\">{name}</th><td>{value}</td></tr>"
        );
    }
    text.push_str("</tbody>\n</table>\n");
    text
}
