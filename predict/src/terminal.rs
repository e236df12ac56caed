//! Words for the user. A reader that went away, as `| head` does, ends neither the prediction nor changes its exit code.

use std::fmt::Display;
use std::io::Write;

/// What lets a shell complete the options of a program.
pub(crate) fn completions(shell: clap_complete::Shell, command: &mut clap::Command, name: &str) {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
}

/// A line of the result.
pub(crate) fn say(line: impl Display) {
    if cfg!(test) {
        // The harness keeps for itself what this prints.
        return println!("{line}");
    }
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A line about the run: a note, a warning, an error.
pub(crate) fn remark(line: impl Display) {
    if cfg!(test) {
        return eprintln!("{line}");
    }
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
