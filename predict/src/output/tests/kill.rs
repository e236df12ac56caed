//! A run that dies before any step whatever, and goes on.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;

use super::*;

pub(super) fn uninterrupted() -> BTreeMap<String, Vec<u8>> {
    let folder = tempfile::tempdir().unwrap();
    run(LocalDisk, folder.path(), Existing::Refuse).unwrap();
    files(folder.path())
}

/// Lets a run die after so many steps; whether it got through.
fn dies_after(steps: usize, folder: &Path, existing: Existing) -> bool {
    let left = Cell::new(steps);
    run(DyingDisk { steps: &left, error: ErrorKind::Interrupted }, folder, existing).is_err()
}

/// No file has its final name before it is whole.
pub(super) fn assert_nothing_half(folder: &Path, whole: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files(folder) {
        let unfinished = name.ends_with(".partial") || ["run.json", ".join"].contains(&name.as_str());
        assert!(unfinished || bytes == whole[&name], "{name} is half a file");
    }
}

#[test]
fn resuming_after_a_kill_at_any_step_gives_the_same_bytes() {
    let whole = uninterrupted();
    let mut steps = 0;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let died = dies_after(steps, folder.path(), Existing::Refuse);
        assert_nothing_half(folder.path(), &whole);
        run(LocalDisk, folder.path(), Existing::Resume).unwrap();
        assert_eq!(files(folder.path()), whole, "after a kill at step {steps}");
        if !died {
            break;
        }
        steps += 1;
    }
    assert!(steps > 60, "the run took only {steps} steps");
}

#[test]
fn a_run_that_dies_again_and_again_still_ends_with_the_same_bytes() {
    let whole = uninterrupted();
    let folder = tempfile::tempdir().unwrap();
    let mut lives = 0;
    // Beginning takes the most steps in a row that must succeed; 45 are enough for it and for one chunk.
    while dies_after(45, folder.path(), Existing::Resume) {
        assert_nothing_half(folder.path(), &whole);
        lives += 1;
        assert!(lives < 100, "no progress");
    }
    assert!(lives > 1, "the run died only {lives} times");
    assert_eq!(files(folder.path()), whole);
}

#[test]
fn overwriting_keeps_the_old_results_until_the_new_ones_are_whole() {
    let whole = uninterrupted();
    for steps in 0.. {
        let folder = tempfile::tempdir().unwrap();
        for name in whole.keys() {
            std::fs::write(folder.path().join(name), "old").unwrap();
        }
        let died = dies_after(steps, folder.path(), Existing::Overwrite);
        for (name, bytes) in files(folder.path()) {
            let kept = name.ends_with(".partial") || name == "run.json" || bytes == b"old" || bytes == whole[&name];
            assert!(kept, "{name} is half a file");
        }
        run(LocalDisk, folder.path(), Existing::Overwrite).unwrap();
        assert_eq!(files(folder.path()), whole);
        if !died {
            break;
        }
    }
}

#[test]
fn a_full_disk_loses_nothing() {
    let whole = uninterrupted();
    let folder = tempfile::tempdir().unwrap();
    let left = Cell::new(45);
    let error = run(DyingDisk { steps: &left, error: ErrorKind::StorageFull }, folder.path(), Existing::Refuse);
    let message = format!("{:#}", error.unwrap_err());
    assert!(message.contains("cannot write") && message.contains("no storage space"), "{message}");
    let predicted = run(LocalDisk, folder.path(), Existing::Resume).unwrap();
    assert!(predicted < SURFACE_POINTS + VOLUME_POINTS, "{predicted} points were predicted again");
    assert_eq!(files(folder.path()), whole);
}

#[test]
fn a_failing_predictor_loses_nothing() {
    let whole = uninterrupted();
    let folder = tempfile::tempdir().unwrap();
    let mut broken = |range: Range<u64>| match range.start {
        6 => anyhow::bail!("out of memory"),
        _ => synthetic(range),
    };
    let mut half = open(LocalDisk, folder.path(), Existing::Refuse).unwrap();
    half.write_part("surface", &mut synthetic, &mut |_| ()).unwrap();
    let error = half.write_part("volume", &mut broken, &mut |_| ()).unwrap_err();
    assert_eq!(format!("{error:#}"), "volume: points 6 to 9: out of memory");
    assert!(half.finish().unwrap_err().to_string().contains("part 'volume': 6 of 11 points are done"));
    drop(half);

    assert_eq!(open(LocalDisk, folder.path(), Existing::Resume).unwrap().done(), SURFACE_POINTS + 6);
    assert_eq!(run(LocalDisk, folder.path(), Existing::Resume).unwrap(), VOLUME_POINTS - 6);
    assert_eq!(files(folder.path()), whole);
}

#[test]
fn resuming_a_complete_run_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    run(LocalDisk, folder.path(), Existing::Resume).unwrap();
    let whole = files(folder.path());
    assert_eq!(run(LocalDisk, folder.path(), Existing::Resume).unwrap(), 0);
    assert_eq!(files(folder.path()), whole);
}
