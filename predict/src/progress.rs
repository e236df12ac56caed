//! How far the run is.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar with points per second and time left. It draws nothing where the output is not a terminal.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar for so many points, of which some were done by an earlier run.
    pub fn new(points: u64, done: u64) -> Self {
        let bar = ProgressBar::new(points).with_position(done);
        let template = "{msg:8} {bar:36.cyan/blue} {human_pos}/{human_len} points  {per_sec}  {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        // What an earlier run did tells nothing about the speed of this one.
        bar.reset_eta();
        Self { bar }
    }

    /// Says which part is being predicted.
    pub fn begin(&self, part: &str) {
        self.bar.set_message(part.to_string());
    }

    /// Counts points.
    pub fn add(&self, points: u64) {
        self.bar.inc(points);
    }

    /// Removes the bar.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
