//! A line on a terminal that shows how far a long command has come.
//!
//! It appears when standard error is a terminal and the command has taken a
//! second, and goes when it is done.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long a command may take without a word.
const PATIENCE: Duration = Duration::from_secs(1);
/// The clock is looked at once in so many steps.
const STEP: u64 = 1000;

/// The progress of one stage.
pub struct Progress {
    stage: &'static str,
    total: u64,
    done: u64,
    start: Instant,
    is_wanted: bool,
    is_of_octets: bool,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A stage of `total` things; 0 if nobody knows.
    pub fn new(stage: &'static str, total: u64) -> Self {
        Progress {
            stage,
            total,
            done: 0,
            start: Instant::now(),
            is_wanted: std::io::stderr().is_terminal(),
            is_of_octets: false,
            bar: None,
        }
    }

    /// A stage that reads so many octets; 0 if nobody knows.
    pub fn of_octets(stage: &'static str, total: u64) -> Self {
        let mut progress = Progress::new(stage, total);
        progress.is_of_octets = true;
        progress
    }

    /// So many more are done.
    pub fn add(&mut self, count: u64) {
        let before = self.done;
        self.done += count;
        if !self.is_wanted || before / STEP == self.done / STEP {
            return;
        }
        if self.bar.is_none() && self.start.elapsed() >= PATIENCE {
            self.bar = Some(self.new_bar());
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.done);
        }
    }

    fn new_bar(&self) -> ProgressBar {
        let template = match (self.total > 0, self.is_of_octets) {
            (true, false) => "{msg} {human_pos}/{human_len} [{bar:30}] {eta}",
            (true, true) => "{msg} {bytes}/{total_bytes} [{bar:30}] {eta}",
            (false, false) => "{msg} {human_pos} {elapsed}",
            (false, true) => "{msg} {bytes} {elapsed}",
        };
        let style = ProgressStyle::with_template(template)
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let target = ProgressDrawTarget::stderr();
        let length = (self.total > 0).then_some(self.total);
        ProgressBar::with_draw_target(length, target)
            .with_style(style)
            .with_message(self.stage)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
