//! Processes that work on one folder: threads here, each with its own lock, disk and end.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::super::join::Joined;
use super::super::presence::{Presence, Pulse};
use super::super::{Crew, Leaving};
use super::kill::{assert_nothing_half, uninterrupted};
use super::*;

/// As long as a test can wait.
const QUICK: Pulse = Pulse { beat: Duration::from_millis(10), watch: Duration::from_millis(300) };

fn enter(folder: &Path, process: u32) -> Result<Joined> {
    Joined::enter_as(folder, process, QUICK)
}

/// What one process does of a run, and whether it finished it.
fn work<D: Disk>(disk: D, folder: &Path, process: u32, predicted: &AtomicU64) -> Result<bool> {
    let crew = enter(folder, process)?;
    if !Crew::<D>::has_work(&crew) {
        return Ok(false);
    }
    let mut run = Run::open(disk, request(folder, Existing::Join), Box::new(crew))?.with_every_chunk_safe();
    loop {
        for name in ["surface", "volume"] {
            run.write_part(name, &mut synthetic, &mut |points| {
                predicted.fetch_add(points, Ordering::Relaxed);
            })?;
        }
        match run.leave(&mut |_| ())? {
            Leaving::Missing(_) => {}
            Leaving::Others => return Ok(false),
            Leaving::Last => break,
        }
    }
    run.finish()?;
    run.conclude()?;
    Ok(true)
}

#[test]
fn any_number_of_processes_predict_each_point_once_and_one_finishes() {
    let whole = uninterrupted();
    for processes in [1, 2, 3, 8] {
        let (folder, predicted) = (tempfile::tempdir().unwrap(), AtomicU64::new(0));
        let finished = std::thread::scope(|scope| {
            let start = |process| {
                scope.spawn({
                    let (folder, predicted) = (&folder, &predicted);
                    move || work(LocalDisk, folder.path(), process, predicted).unwrap()
                })
            };
            let started: Vec<_> = (0..processes).map(start).collect();
            started.into_iter().map(|process| process.join().unwrap()).filter(|last| *last).count()
        });
        assert_eq!(finished, 1, "{processes} processes");
        assert_eq!(predicted.into_inner(), SURFACE_POINTS + VOLUME_POINTS, "{processes} processes");
        assert_eq!(files(folder.path()), whole, "{processes} processes");
        // Who comes late finds nothing to do, and leaves nothing.
        assert!(!work(LocalDisk, folder.path(), 9, &AtomicU64::new(0)).unwrap());
        assert_eq!(files(folder.path()), whole);
    }
}

/// Lets a process die after so many steps; whether it got through.
fn dies_after(steps: usize, folder: &Path, error: ErrorKind) -> bool {
    let left = Cell::new(steps);
    work(DyingDisk { steps: &left, error }, folder, 1, &AtomicU64::new(0)).is_err()
}

#[test]
fn a_process_that_dies_at_any_step_is_joined_or_resumed_to_the_same_bytes() {
    let whole = uninterrupted();
    for steps in 0.. {
        let mut died = true;
        for resumed in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            died = dies_after(steps, folder.path(), ErrorKind::StorageFull);
            assert_nothing_half(folder.path(), &whole);
            match resumed {
                true => drop(run(LocalDisk, folder.path(), Existing::Resume).unwrap()),
                false => drop(work(LocalDisk, folder.path(), 2, &AtomicU64::new(0)).unwrap()),
            }
            assert_eq!(files(folder.path()), whole, "after a death at step {steps}");
        }
        if !died {
            assert!(steps > 60, "the run took only {steps} steps");
            break;
        }
    }
}

#[test]
fn whoever_dies_beside_others_is_replaced_by_the_last_of_them() {
    let whole = uninterrupted();
    // The leader has begun; the second dies somewhere in its work, and the leader goes on.
    for steps in 0..30 {
        let folder = tempfile::tempdir().unwrap();
        let crew = enter(folder.path(), 1).unwrap();
        let mut leader = Run::open(LocalDisk, request(folder.path(), Existing::Join), Box::new(crew)).unwrap();
        dies_after(steps, folder.path(), ErrorKind::Interrupted);
        let (mut left, mut predicted) = (Leaving::Others, 0);
        while left != Leaving::Last {
            for name in ["surface", "volume"] {
                leader.write_part(name, &mut synthetic, &mut |points| predicted += points).unwrap();
            }
            left = leader.leave(&mut |_| ()).unwrap();
        }
        leader.finish().unwrap();
        leader.conclude().unwrap();
        assert_eq!(files(folder.path()), whole, "after a death at step {steps}");
    }
}

#[test]
fn a_host_that_locks_do_not_reach_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join(".join")).unwrap();
    let elsewhere = Presence::announce(&folder.path().join(".join"), "elsewhere", 7, QUICK).unwrap();
    let error = enter(folder.path(), 1).unwrap_err().to_string();
    assert!(
        error.contains("process 7 on elsewhere is at work") && error.contains("do not reach beyond a host"),
        "{error}"
    );
    drop(elsewhere);
    assert!(work(LocalDisk, folder.path(), 1, &AtomicU64::new(0)).unwrap());
}

#[test]
fn one_that_is_asked_for_something_else_is_sent_away() {
    let folder = tempfile::tempdir().unwrap();
    let crew = Box::new(enter(folder.path(), 1).unwrap());
    let leader = Run::open(LocalDisk, request(folder.path(), Existing::Join), crew).unwrap();
    let refusal = |request: Request| {
        let crew = Box::new(enter(folder.path(), 2).unwrap());
        format!("{:#}", Run::open(LocalDisk, request, crew).err().unwrap())
    };
    let usual = || request(folder.path(), Existing::Join);
    assert_eq!(
        refusal(Request { inputs: Map::new(), ..usual() }),
        "--join: seed was 7 when the run began and is absent now"
    );
    assert!(
        refusal(Request { parts: parts()[..1].to_vec(), ..usual() }).starts_with("--join: the run was begun with 2")
    );
    assert_eq!(refusal(Request { chunk: 4, ..usual() }), "--join: --chunk is 4 here and 3 there");
    let alone = format!("{:#}", open(LocalDisk, folder.path(), Existing::Resume).err().unwrap());
    assert!(alone.contains("another run is writing there"), "{alone}");
    drop(leader);
    assert!(work(LocalDisk, folder.path(), 2, &AtomicU64::new(0)).unwrap());
}

#[test]
fn what_a_leader_publishes_reaches_those_that_wait_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut leader = enter(folder.path(), 1).unwrap();
    Crew::publish(&mut leader, &LocalDisk, "body", &mut || Ok(b"keys".to_vec())).unwrap();
    assert_eq!(Crew::<LocalDisk>::receive(&mut leader, "body").unwrap(), None);
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| {
            let mut crew = enter(folder.path(), 2).unwrap();
            assert!(!Crew::<LocalDisk>::leads(&crew));
            Crew::<LocalDisk>::receive(&mut crew, "body").unwrap()
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(!follower.is_finished(), "it did not wait");
        let run = Run::open(LocalDisk, request(folder.path(), Existing::Join), Box::new(leader)).unwrap();
        assert_eq!(follower.join().unwrap(), Some(b"keys".to_vec()));
        drop(run);
    });
    // Whoever waits for a leader that dies leads.
    let leader = enter(folder.path(), 1).unwrap();
    std::thread::scope(|scope| {
        let follower = scope.spawn(|| Crew::<LocalDisk>::leads(&enter(folder.path(), 2).unwrap()));
        std::thread::sleep(Duration::from_millis(50));
        drop(leader);
        assert!(follower.join().unwrap());
    });
}
