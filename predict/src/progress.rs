//! How far the run is.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use crate::terminal::is_hushed;

/// Which of many runs one is.
#[derive(Debug, Clone)]
pub(crate) struct Turn {
    /// From 0 on.
    pub(crate) at: u64,
    pub(crate) of: u64,
    pub(crate) name: String,
}

impl Default for Turn {
    /// The only one.
    fn default() -> Self {
        Self { at: 0, of: 1, name: String::new() }
    }
}

/// A bar with points per second and time left. It draws nothing where the output is not a terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Points that an earlier run did: they tell nothing about the speed of this one.
    before: u64,
    started: Instant,
}

impl Progress {
    /// A bar for so many points, of which some were done by an earlier run. All turns together have one bar, as if each had
    /// as many points as this one.
    pub(crate) fn new(turn: &Turn, points: u64, done: u64) -> Self {
        let Turn { at, of, name } = turn;
        let before = points * at + done;
        let (bar, started) = (visible(points * of).with_position(before), Instant::now());
        let prefix = if *of > 1 { format!("{} of {of}, {name}: ", at + 1) } else { String::new() };
        let template = "{prefix}{msg:8} {bar:36.cyan/blue} {human_pos}/{human_len} points  {speed}  {left} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            let speed = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&speed(state.pos() - before, started.elapsed()));
            };
            let left = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let (all, pos) = (state.len().unwrap_or_default(), state.pos());
                let _ = out.write_str(&left(pos - before, all.saturating_sub(pos), started.elapsed()));
            };
            bar.set_style(style.with_key("speed", speed).with_key("left", left).progress_chars("━╸─"));
        }
        Self { bar: bar.with_prefix(prefix), before, started }
    }

    /// A bar for so many bytes of something that takes a while.
    pub(crate) fn bytes(what: &str, bytes: u64) -> Self {
        Self::plain(what, bytes, "{msg:8} {bar:36.cyan/blue} {bytes}/{total_bytes}")
    }

    /// A bar for so many points that are read.
    pub(crate) fn reading(what: &str, points: u64) -> Self {
        Self::plain(what, points, "{msg} {bar:36.cyan/blue} {human_pos}/{human_len} points")
    }

    fn plain(what: &str, length: u64, template: &str) -> Self {
        let bar = visible(length).with_message(what.to_string());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        Self { bar, before: 0, started: Instant::now() }
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Says which part is being predicted.
    pub(crate) fn begin(&self, part: &str) {
        self.bar.set_message(part.to_string());
    }

    /// Counts points.
    pub(crate) fn add(&self, points: u64) {
        self.bar.inc(points);
    }

    /// Removes the bar; returns how many points were done since it began, and in how many seconds.
    pub(crate) fn finish(self) -> (u64, f64) {
        let done = (self.bar.position() - self.before, self.started.elapsed().as_secs_f64());
        // This moves the bar to its end.
        self.bar.finish_and_clear();
        done
    }
}

/// A bar, unless another process has one.
fn visible(length: u64) -> ProgressBar {
    if is_hushed() {
        let bar = ProgressBar::hidden();
        bar.set_length(length);
        return bar;
    }
    ProgressBar::new(length)
}

/// How long so many points took.
pub(crate) fn summary(points: u64, seconds: f64) -> String {
    match points {
        0 => "no points were left to predict".to_string(),
        _ => {
            let speed = speed(points, Duration::try_from_secs_f64(seconds).unwrap_or_default());
            format!("{} points in {seconds:.1} s, {speed}", HumanCount(points))
        }
    }
}

fn speed(points: u64, elapsed: Duration) -> String {
    match elapsed.as_secs_f64() {
        seconds if points > 0 && seconds > 0.0 => format!("{}/s", HumanCount((points as f64 / seconds) as u64)),
        _ => "–/s".to_string(),
    }
}

fn left(points: u64, remaining: u64, elapsed: Duration) -> String {
    if points == 0 {
        return "–".to_string();
    }
    let seconds = elapsed.as_secs_f64() * remaining as f64 / points as f64;
    HumanDuration(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_have_no_decimals_and_nothing_is_absurd() {
        assert_eq!(speed(90_000, Duration::from_secs(2)), "45,000/s");
        assert_eq!(speed(0, Duration::from_secs(2)), "–/s");
        assert_eq!(speed(7, Duration::ZERO), "–/s");
        assert_eq!(left(10, 20, Duration::from_secs(30)), "60 seconds");
        assert_eq!(left(0, 20, Duration::from_secs(30)), "–");
        assert_eq!(Progress::new(&Turn::default(), 100, 100).finish().0, 0);
        assert_eq!(summary(0, 1.0), "no points were left to predict");
        let resumed = Progress::new(&Turn { at: 2, of: 5, name: "c".to_string() }, 100, 40);
        resumed.add(60);
        assert_eq!(resumed.finish().0, 60, "what an earlier run did does not count");
        assert_eq!(summary(90_000, 2.0), "90,000 points in 2.0 s, 45,000/s");
    }
}
