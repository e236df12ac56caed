//! How far the run is.

use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressState, ProgressStyle};

/// A bar with points per second and time left. It draws nothing where the output is not a terminal.
pub(crate) struct Progress {
    bar: ProgressBar,
    /// Points that an earlier run did: they tell nothing about the speed of this one.
    before: u64,
    started: Instant,
}

impl Progress {
    /// A bar for so many points, of which some were done by an earlier run.
    pub(crate) fn new(points: u64, done: u64) -> Self {
        let (bar, started) = (ProgressBar::new(points).with_position(done), Instant::now());
        let template = "{msg:8} {bar:36.cyan/blue} {human_pos}/{human_len} points  {speed}  {left} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            let speed = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let _ = out.write_str(&speed(state.pos() - done, started.elapsed()));
            };
            let left = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                let (all, pos) = (state.len().unwrap_or_default(), state.pos());
                let _ = out.write_str(&left(pos - done, all.saturating_sub(pos), started.elapsed()));
            };
            bar.set_style(style.with_key("speed", speed).with_key("left", left).progress_chars("━╸─"));
        }
        Self { bar, before: done, started }
    }

    /// Says which part is being predicted.
    pub(crate) fn begin(&self, part: &str) {
        self.bar.set_message(part.to_string());
    }

    /// Counts points.
    pub(crate) fn add(&self, points: u64) {
        self.bar.inc(points);
    }

    /// Removes the bar, and says how long it took.
    pub(crate) fn finish(self) -> String {
        let (points, elapsed) = (self.bar.position() - self.before, self.started.elapsed());
        self.bar.finish_and_clear();
        let (count, seconds) = (HumanCount(points), elapsed.as_secs_f64());
        match points {
            0 => "no points were left to predict".to_string(),
            _ => format!("{count} points in {seconds:.1} s, {}", speed(points, elapsed)),
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
        assert_eq!(Progress::new(100, 100).finish(), "no points were left to predict");
        let resumed = Progress::new(100, 40);
        resumed.add(60);
        assert!(resumed.finish().starts_with("60 points in "), "what an earlier run did does not count");
    }
}
