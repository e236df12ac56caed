//! What a person reads who ends a run with Ctrl-C.

use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::{Mutex, PoisonError};

#[cfg(not(target_family = "wasm"))]
use anyhow::Context;
use anyhow::Result;

use crate::output::progress;
use crate::terminal::remark;

/// What shells expect of a process that SIGINT ended.
const EXIT_CODE: i32 = 130;

/// The folder of the run that was begun last; the process has one handler.
static FOLDER: Mutex<Option<PathBuf>> = Mutex::new(None);

/// From now on Ctrl-C says what of a run in this folder is safe and how to go on, and ends the process at once: all that a
/// run has written is in order at any moment.
pub(crate) fn explain(folder: &Path) -> Result<()> {
    // A poisoned lock holds a whole path all the same.
    let last = || FOLDER.lock().unwrap_or_else(PoisonError::into_inner);
    let mut known = last();
    let is_first = known.replace(folder.to_path_buf()).is_none();
    if !is_first {
        return Ok(());
    }
    let explain = move || {
        if let Some(folder) = last().as_deref() {
            remark(format_args!("\ninterrupted: {}", message(folder)));
        }
        exit(EXIT_CODE);
    };
    listen(explain)
}

#[cfg(not(target_family = "wasm"))]
fn listen(explain: impl FnMut() + Send + 'static) -> Result<()> {
    ctrlc::set_handler(explain).context("cannot listen for Ctrl-C")
}

/// Nothing interrupts WebAssembly.
#[cfg(target_family = "wasm")]
fn listen(_: impl FnMut() + Send + 'static) -> Result<()> {
    Ok(())
}

fn message(folder: &Path) -> String {
    let name = folder.display();
    match progress(folder) {
        Ok(Some((done, points))) => format!(
            "{done} of {points} points are safe in {name}; the same command with --resume, or as it is with --join, goes on \
             from there"
        ),
        Ok(None) => format!("nothing was begun in {name}"),
        Err(error) => format!("{error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_safe_is_said_with_the_way_to_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let name = folder.path().display().to_string();
        assert_eq!(message(folder.path()), format!("nothing was begun in {name}"));
        let parts = serde_json::json!([
            {"name": "a", "points": 10, "done": [[0, 10]], "files": []},
            {"name": "b", "points": 90, "done": [[0, 20], [30, 35]], "files": []},
        ]);
        let state = serde_json::json!({
            "version": 3, "inputs": {}, "chunk": 5, "parts": parts, "stage": "predicting", "made": [], "replaced": [],
        });
        std::fs::write(folder.path().join("run.json"), state.to_string()).unwrap();
        let expected = |done: u64| {
            let how = "the same command with --resume, or as it is with --join, goes on from there";
            format!("{done} of 100 points are safe in {name}; {how}")
        };
        assert_eq!(message(folder.path()), expected(35));
        // What another process has done counts, too.
        std::fs::create_dir(folder.path().join(".join")).unwrap();
        std::fs::write(folder.path().join(".join/claim.1.4"), "points 20 to 25 are safe\n").unwrap();
        assert_eq!(message(folder.path()), expected(40));
        std::fs::write(folder.path().join("run.json"), "{").unwrap();
        assert!(message(folder.path()).contains("is damaged; --overwrite begins again"));
    }
}
