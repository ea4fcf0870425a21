//! `--html`: one page that needs nothing else, neither a network nor a script.

mod axis;
mod chart;
mod charts;
mod tables;

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use super::database::Databases;
use super::summary::Summary;
use super::summary::text::span;
use crate::admin::failure::Failure;
use crate::admin::times;

/// What the page looks like.
const STYLE: &str = include_str!("style.css");

/// The file of the page, opened before the program becomes another user.
pub struct Page {
    path: PathBuf,
    file: Option<File>,
}

impl Page {
    /// Opens the file; `-` is standard output. What is in it stays until the page is
    /// written. A file that is no page may be one of the logs.
    pub fn open(path: &Path) -> Result<Page, Failure> {
        let mut options = File::options();
        options.write(true).create(true).truncate(false);
        let file = match path.as_os_str() == "-" {
            true => None,
            false => {
                let opened = may_be_replaced(path).and_then(|()| options.open(path));
                Some(opened.map_err(|error| Failure::file(path, &error))?)
            }
        };
        Ok(Page {
            path: path.to_owned(),
            file,
        })
    }

    /// Writes the page.
    pub fn write(self, summary: &Summary, databases: Option<&Databases>) -> Result<(), Failure> {
        let text = text(summary, databases)
            .map_err(|why| Failure::error(format!("cannot draw a chart: {why}")))?;
        let Some(mut file) = self.file else {
            let mut output = crate::admin::output::Output::new();
            output.write(text.as_bytes())?;
            return output.finish();
        };
        let is_regular = file.metadata().is_ok_and(|found| found.is_file());
        let emptied = if is_regular { file.set_len(0) } else { Ok(()) };
        emptied
            .and_then(|()| file.write_all(text.as_bytes()))
            .map_err(|error| Failure::file(&self.path, &error))
    }
}

/// What every page begins with.
const START: &str = "<!DOCTYPE html>";

/// Refuses a regular file that holds something else than a page.
fn may_be_replaced(path: &Path) -> io::Result<()> {
    let mut start = Vec::new();
    match std::fs::metadata(path) {
        Ok(found) if found.is_file() && found.len() > 0 => {
            let file = File::open(path)?;
            file.take(START.len() as u64).read_to_end(&mut start)?;
        }
        _ => return Ok(()),
    }
    match start.eq_ignore_ascii_case(START.as_bytes()) {
        true => Ok(()),
        false => Err(io::Error::other("it is no page, and is not replaced")),
    }
}

/// The whole page.
fn text(summary: &Summary, databases: Option<&Databases>) -> Result<String, String> {
    let mut page = String::new();
    let range = match summary.span {
        None => "no requests".to_owned(),
        Some((first, last)) => {
            let [first, last] = [first, last].map(|time| times::shown(time as f64));
            format!("{first} to {last}")
        }
    };
    // Writing to a String cannot fail.
    let _ = write!(
        page,
        "{START}\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\">\n\
         <title>Greylisting, {range}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>What greylisting did</h1>\n<p class=\"soft\">{range}</p>\n</header>\n<main>\n"
    );
    push_cards(&mut page, summary);
    push_notes(&mut page, summary);
    charts::push_over_time(&mut page, summary)?;
    tables::push_periods(&mut page, summary);
    charts::push_delays(&mut page, summary)?;
    charts::push_curve(&mut page, summary)?;
    tables::push_top(&mut page, summary);
    tables::push_candidates(&mut page, summary);
    if let Some(databases) = databases {
        charts::push_databases(&mut page, databases)?;
    }
    let lines = &summary.lines;
    let _ = write!(
        page,
        "</main>\n<footer>\n<p>{} lines read: {} requests, {} other lines of postgrey, {} of smtpd, \
         {} of others. postgreyreport {}, {}.</p>\n</footer>\n</body>\n</html>\n",
        grouped(lines.read),
        grouped(lines.requests),
        grouped(lines.postgrey),
        grouped(lines.postfix),
        grouped(lines.other),
        crate::config::VERSION,
        times::shown(crate::sys::clock::seconds())
    );
    Ok(page)
}

fn push_cards(page: &mut String, summary: &Summary) {
    let total = &summary.total;
    let share = total
        .share()
        .map_or("–".into(), |share| format!("{share:.1} %"));
    let median = total.delay(50).map_or("–".into(), span);
    let never = total.put_off - total.came_back();
    let mut cards = vec![
        (grouped(total.requests()), "requests"),
        (grouped(total.put_off), "triplets put off"),
        (share, "of them came back"),
        (grouped(never), "never came back"),
        (median, "median delay of those that came back"),
        (grouped(total.sums.whitelisted), "clients auto-whitelisted"),
    ];
    if total.sums.held > 0 {
        cards.push((grouped(total.sums.held), "held in the tarpit"));
        cards.push((grouped(total.gave_up()), "of them gave up"));
    }
    page.push_str("<ul class=\"cards\">\n");
    for (number, what) in cards {
        let _ = writeln!(
            page,
            "<li><strong>{number}</strong> <span>{what}</span></li>"
        );
    }
    page.push_str("</ul>\n");
}

fn push_notes(page: &mut String, summary: &Summary) {
    if summary.notes.is_empty() {
        return;
    }
    page.push_str("<ul class=\"notes\" aria-label=\"Notes\">\n");
    for note in &summary.notes {
        let mut letters = note.chars();
        let first = letters
            .next()
            .map(|letter| letter.to_uppercase().to_string());
        let note = format!("{}{}", first.unwrap_or_default(), letters.as_str());
        let _ = writeln!(page, "<li>{}.</li>", escape(&note));
    }
    page.push_str("</ul>\n");
}

/// Text as it stands in a page.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            letter if letter.is_control() => out.push('?'),
            letter => out.push(letter),
        }
    }
    out
}

/// A number with its digits in groups of three.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            // A narrow space at which no line ends.
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_numbers_are_made_fit() {
        assert_eq!(escape("<a&\"b\">\x1b"), "&lt;a&amp;&quot;b&quot;&gt;?");
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1\u{202f}000"),
            (1_234_567, "1\u{202f}234\u{202f}567"),
        ] {
            assert_eq!(grouped(number), text);
        }
    }
}
