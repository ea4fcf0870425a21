//! Axes whose marks are chosen here: whole days, round numbers, spans of time.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

use crate::report::summary::text::span;

/// An axis with its marks.
#[derive(Clone, Debug)]
pub struct Axis {
    range: (f64, f64),
    marks: Vec<(f64, String)>,
}

impl Axis {
    /// An axis from and to these values, with marks there.
    pub fn new(range: (f64, f64), marks: Vec<(f64, String)>) -> Axis {
        let (from, to) = range;
        Axis {
            range: (from, if to > from { to } else { from + 1.0 }),
            marks,
        }
    }

    /// From 0 to a round number that is no less than `most`.
    pub fn up_to(most: f64) -> Axis {
        let most = most.max(1.0);
        let power = 10_f64.powf((most / 5.0).log10().floor());
        let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
        let step = steps.into_iter().find(|step| most / step <= 5.0);
        let step = step.unwrap_or(power * 10.0).max(1.0);
        let count = (most / step).ceil();
        let marks = (0..=count as u32)
            .map(|index| f64::from(index) * step)
            .map(|value| (value, short(value)))
            .collect();
        Axis::new((0.0, count * step), marks)
    }

    /// Seconds from 1 minute to at least `most`, by their logarithm.
    pub fn of_seconds(most: f64, is_narrow: bool) -> Axis {
        const MARKS: [u32; 9] = [60, 300, 900, 3600, 14_400, 43_200, 86_400, 172_800, 604_800];
        let most = most.max(3600.0);
        let end = MARKS.into_iter().map(f64::from).find(|mark| *mark >= most);
        let end = end.unwrap_or(most);
        let shown = MARKS.into_iter().filter(|mark| f64::from(*mark) <= end);
        let marks = shown
            .enumerate()
            .filter(|(index, _)| !is_narrow || index % 2 == 1)
            .map(|(_, mark)| (f64::from(mark).ln(), round_span(mark)))
            .collect();
        Axis::new((60_f64.ln(), end.ln()), marks)
    }

    /// Where the axis ends.
    pub fn end(&self) -> f64 {
        self.range.1
    }
}

/// A span that is a whole number of its unit.
pub fn round_span(seconds: u32) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ if seconds.is_multiple_of(86_400) => format!("{} d", seconds / 86_400),
        _ => span(seconds),
    }
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1e6 => format!("{}M", value / 1e6),
        value if value >= 1e4 => format!("{}k", value / 1e3),
        value => value.to_string(),
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let (from, to) = self.range;
        let share = ((value - from) / (to - from)).clamp(0.0, 1.0);
        limit.0 + (f64::from(limit.1 - limit.0) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.marks.iter().map(|(value, _)| *value).collect()
    }

    fn range(&self) -> Range<f64> {
        self.range.0..self.range.1
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, value: &f64) -> String {
        let mark = self.marks.iter().find(|(own, _)| own == value);
        mark.map_or(String::new(), |(_, text)| text.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round() {
        for (most, end, count) in [
            (0.0, 1.0, 2),
            (7.0, 8.0, 5),
            (100.0, 100.0, 6),
            (123_456.0, 150_000.0, 4),
        ] {
            let axis = Axis::up_to(most);
            assert_eq!((axis.end(), axis.marks.len()), (end, count), "{most}");
        }
        let axis = Axis::of_seconds(4000.0, false);
        let marks: Vec<&str> = axis.marks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(marks, ["1 min", "5 min", "15 min", "1 h", "4 h"]);
    }
}
