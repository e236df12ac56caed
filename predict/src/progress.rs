//! How far the run is: a bar on a terminal, elsewhere a line now and then, as in the log of a batch job.

use std::cell::Cell;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, HumanDuration, ProgressBar, ProgressState, ProgressStyle};

use crate::terminal::{is_hushed, remark};

/// How long lines are silent at least.
const SILENCE: Duration = Duration::from_secs(10);

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

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    /// Points that are predicted: speed and time left are told, too.
    Predicted,
    Points,
    Bytes,
}

/// A bar with points per second and time left. Where the output is not a terminal, as under `mpirun`, lines say the same: the
/// first after ten seconds, then ever fewer.
pub(crate) struct Progress {
    bar: ProgressBar,
    unit: Unit,
    /// When the last line was said.
    said: Cell<Instant>,
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
        Self { bar: bar.with_prefix(prefix), unit: Unit::Predicted, said: Cell::new(started), before, started }
    }

    /// A bar for so many bytes of something that takes a while.
    pub(crate) fn bytes(what: &str, bytes: u64) -> Self {
        Self::plain(what, bytes, Unit::Bytes, "{msg:8} {bar:36.cyan/blue} {bytes}/{total_bytes}")
    }

    /// A bar for so many points that are read.
    pub(crate) fn reading(what: &str, points: u64) -> Self {
        Self::plain(what, points, Unit::Points, "{msg} {bar:36.cyan/blue} {human_pos}/{human_len} points")
    }

    fn plain(what: &str, length: u64, unit: Unit, template: &str) -> Self {
        let bar = visible(length).with_message(what.to_string());
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸─"));
        }
        let started = Instant::now();
        Self { bar, unit, said: Cell::new(started), before: 0, started }
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Says which part is being predicted.
    pub(crate) fn begin(&self, part: &str) {
        self.bar.set_message(part.to_string());
    }

    /// Counts points or bytes.
    pub(crate) fn add(&self, more: u64) {
        self.bar.inc(more);
        if self.bar.is_hidden() && is_due(self.said.get().elapsed(), self.started.elapsed()) {
            self.said.set(Instant::now());
            remark(self.line());
        }
    }

    /// What the bar shows, in words.
    fn line(&self) -> String {
        let (done, all) = (self.bar.position(), self.bar.length().unwrap_or_default());
        let what = format!("{}{}", self.bar.prefix(), self.bar.message());
        let points = format!("{what}: {}/{} points", HumanCount(done), HumanCount(all));
        match self.unit {
            Unit::Predicted => {
                let (new, elapsed) = (done - self.before, self.started.elapsed());
                let left = left(new, all.saturating_sub(done), elapsed);
                format!("{points}, {}, {left} left", speed(new, elapsed))
            }
            Unit::Points => points,
            Unit::Bytes => format!("{what}: {}/{}", HumanBytes(done), HumanBytes(all)),
        }
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

/// Whether a line follows another: after ten seconds, later after a twentieth of the time since the beginning, so that a day
/// has some two hundred.
fn is_due(silent: Duration, running: Duration) -> bool {
    silent >= SILENCE.max(running / 20)
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
    fn lines_tell_what_the_bar_shows_and_become_rare() {
        let part = Progress::new(&Turn { at: 1, of: 3, name: "car".to_string() }, 20_000, 5_000);
        part.begin("surface");
        part.add(1_500);
        let line = part.line();
        assert!(line.starts_with("2 of 3, car: surface: 26,500/60,000 points, ") && line.ends_with(" left"), "{line}");
        assert_eq!(Progress::reading("reading volume", 9_000).line(), "reading volume: 0/9,000 points");
        assert_eq!(Progress::bytes("copying", 3 << 20).line(), "copying: 0 B/3.00 MiB");
        let seconds = Duration::from_secs;
        assert!(!is_due(seconds(9), seconds(9)) && is_due(seconds(10), seconds(200)));
        assert!(!is_due(seconds(10), seconds(400)) && is_due(seconds(20), seconds(400)));
        let (mut now, mut lines) = (0, 0);
        while now < 24 * 3600 {
            now += (1..).find(|&silent| is_due(seconds(silent), seconds(now + silent))).unwrap();
            lines += 1;
        }
        assert!((100..200).contains(&lines), "{lines} lines a day");
    }

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
