//! Words for the user. A reader that went away, as `| head` does, ends neither the prediction nor changes its exit code.

use std::fmt::Display;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

/// What lets a shell complete the options of a program.
pub(crate) fn completions(shell: clap_complete::Shell, command: &mut clap::Command, name: &str) {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
}

/// Whether another process speaks for this one.
static HUSHED: AtomicBool = AtomicBool::new(false);

/// Leaves all words but errors to another process.
#[cfg(feature = "mpi")]
pub(crate) fn hush() {
    HUSHED.store(true, Ordering::Relaxed);
}

/// Whether another process speaks for this one.
pub(crate) fn is_hushed() -> bool {
    HUSHED.load(Ordering::Relaxed)
}

/// A line of the result.
pub(crate) fn say(line: impl Display) {
    if is_hushed() {
        return;
    }
    if cfg!(test) {
        // The harness keeps for itself what this prints.
        return println!("{line}");
    }
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line about the run: a note, a warning.
pub(crate) fn remark(line: impl Display) {
    if !is_hushed() {
        complain(line);
    }
}

/// A line about an error.
pub(crate) fn complain(line: impl Display) {
    if cfg!(test) {
        return eprintln!("{line}");
    }
    // At once: a launcher that forwards what it reads would put words of others, and its own, between the pieces.
    let _ = std::io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}
