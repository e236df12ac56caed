//! Several processes on one folder, and what becomes of it when some are killed.

use std::process::Child;
use std::time::Instant;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::kill::start;
use super::*;

/// A run in chunks that are small, so that there is something to share.
fn line(workplace: &Workplace, out: &str, more: &[&str]) -> Vec<String> {
    workplace.line(&[&["--out", &format!("{{}}/{out}"), "--chunk", "2", "--npz", "--compress", "zlib"], more].concat())
}

fn together(workplace: &Workplace, processes: usize) -> Vec<Child> {
    (0..processes).map(|_| start(&line(workplace, "out", &["--join"]))).collect()
}

fn all_succeed(processes: Vec<Child>) {
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
}

#[test]
fn three_processes_write_the_bytes_of_one() {
    let workplace = Workplace::new();
    run(&line(&workplace, "whole", &["--seeds", "2"])).unwrap();
    all_succeed((0..3).map(|_| start(&line(&workplace, "out", &["--seeds", "2", "--join"]))).collect());
    assert!(workplace.files("out") == workplace.files("whole"));
    assert!(!workplace.path("out/.join").exists(), "what they told each other stays behind");
    let state: Value = serde_json::from_slice(&std::fs::read(workplace.path("out/run.json")).unwrap()).unwrap();
    assert_eq!(state["stage"], "complete");
    // Another joins when all is done, and one with other inputs does not.
    run(&line(&workplace, "out", &["--seeds", "2", "--join"])).unwrap();
    assert!(workplace.files("out") == workplace.files("whole"));
    let error = format!("{:#}", run(&line(&workplace, "out", &["--seeds", "3", "--join"])).unwrap_err());
    assert!(error.contains("--join: seeds was 2 when the run began and is 3 now"), "{error}");
}

#[test]
fn several_devices_write_the_bytes_of_one() {
    let workplace = Workplace::new();
    run(&line(&workplace, "whole", &["--seeds", "2"])).unwrap();
    run(&line(&workplace, "out", &["--seeds", "2", "--device", "cpu:3"])).unwrap();
    assert!(workplace.files("out") == workplace.files("whole"));
    // Points that the network cannot predict are named as by one.
    write_npy(&workplace.path("outside.npy"), &[[0.0_f32, 0.0, 0.0], [9.0, 0.0, 0.0]]);
    let error = |device: &str| {
        let more = ["--volume", "{}/outside.npy", "--device", device, "--overwrite"];
        format!("{:#}", run(&line(&workplace, "out", &more)).unwrap_err())
    };
    assert_eq!(error("cpu:2"), error("cpu"));
}

#[test]
fn devices_that_share_the_anchors_predict_what_one_predicts() {
    let workplace = Workplace::new();
    let line = |out: &str, more: &[&str]| line(&workplace, out, &[&["--seeds", "2", "--anchors", "40"], more].concat());
    run(&line("out", &[])).unwrap();
    let whole = workplace.tensors("volume.safetensors");
    for device in ["cpu:2", "cpu:4"] {
        run(&line("out", &["--device", device, "--shard-anchors", "--overwrite"])).unwrap();
        let shared = workplace.tensors("volume.safetensors");
        // A spread is a small difference of large numbers.
        for (name, alone) in whole.iter().filter(|(name, _)| !name.ends_with("_spread")) {
            let (together, alone) = (numbers(&shared[name]), numbers(alone));
            let largest = alone.iter().fold(0_f32, |largest, number| largest.max(number.abs()));
            let difference = together.iter().zip(&alone).map(|(a, b)| (a - b).abs()).fold(0_f32, f32::max);
            assert!(difference <= 5e-6 * largest, "{device}: {name} differs by {difference} of {largest}");
        }
    }
    // Processes get from the first what each of its devices holds.
    let shared = ["--device", "cpu:4", "--shard-anchors"];
    all_succeed((0..2).map(|_| start(&line("together", &[&shared[..], &["--join"]].concat()))).collect());
    assert!(workplace.files("together") == workplace.files("out"));
    let error = |more: &[&str]| format!("{:#}", run(&line("out", more)).unwrap_err());
    assert!(error(&["--resume"]).contains("anchor_shards was 4 when the run began and is absent now"));
    assert!(error(&["--shard-anchors", "--overwrite"]).contains("--shard-anchors: --device cpu is a single device"));
    // As one device says it, and not what the others say of that.
    write_npy(&workplace.path("outside.npy"), &[[0.0_f32, 0.0, 0.0], [9.0, 0.0, 0.0]]);
    let outside = |more: &[&str]| error(&[&["--volume", "{}/outside.npy", "--overwrite"], more].concat());
    assert_eq!(outside(&shared), outside(&[]));
}

#[test]
fn a_run_of_one_process_is_joined_and_one_of_many_resumed_by_one() {
    let workplace = Workplace::new();
    run(&line(&workplace, "whole", &[])).unwrap();
    for [first, second] in [[&[][..], &["--join"][..]], [&["--join"][..], &["--resume"][..]]] {
        let mut process = start(&line(&workplace, "out", first));
        while !workplace.path("out/run.json").exists() {
            assert!(process.try_wait().unwrap().is_none(), "it ended before it began");
        }
        process.kill().unwrap();
        process.wait().unwrap();
        run(&line(&workplace, "out", second)).unwrap();
        assert!(workplace.files("out") == workplace.files("whole"), "{first:?}, {second:?}");
        std::fs::remove_dir_all(workplace.path("out")).unwrap();
    }
}

#[test]
fn processes_share_the_rows_of_a_sweep_and_each_row_itself() {
    let workplace = Workplace::new();
    workplace.write_table();
    let sweep = |out: &str, more: &[&str]| line(&workplace, out, &[&["--sweep", "{}/bodies.csv"], more].concat());
    run(&sweep("whole", &[])).unwrap_err();
    let mut processes: Vec<_> = (0..3).map(|_| start(&sweep("out", &["--join"]))).collect();
    // Each of them tells the row that has no body.
    assert!(processes.iter_mut().all(|process| !process.wait().unwrap().success()));
    for file in ["first", "second", ""] {
        let (whole, together) = (workplace.files(&format!("whole/{file}")), workplace.files(&format!("out/{file}")));
        assert!(whole == together && !whole.is_empty(), "'{file}' differs");
    }
    assert!(!workplace.path("out/second/.join").exists());
}

/// Processes of which some are killed at any moment, each time at another, and after which others go on, as many as may be;
/// `PREDICT_KILLS` is how often, 8 times without it.
#[test]
fn killed_processes_are_replaced_by_any_number_of_others() {
    let kills: u64 = std::env::var("PREDICT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(8);
    let workplace = Workplace::new();
    run(&line(&workplace, "whole", &[])).unwrap();
    let begin = Instant::now();
    all_succeed(together(&workplace, 3));
    let (life, whole) = (begin.elapsed(), workplace.files("whole"));
    assert!(workplace.files("out") == whole);
    std::fs::remove_dir_all(workplace.path("out")).unwrap();
    let (mut random, mut killed) = (StdRng::seed_from_u64(13), 0);
    for kill in 0..kills {
        let mut processes = together(&workplace, 3);
        std::thread::sleep(life.mul_f64(random.random_range(0.0..1.0)));
        // One of them, so that the others finish, or all.
        let victims = if kill % 2 == 0 { 1 } else { processes.len() };
        for process in &mut processes[..victims] {
            process.kill().unwrap();
        }
        for (at, process) in processes.iter_mut().enumerate() {
            let succeeded = process.wait().unwrap().success();
            killed += u32::from(!succeeded);
            assert!(succeeded || at < victims, "kill {kill}: a process failed that was not killed");
        }
        for (name, bytes) in workplace.files("out") {
            let unfinished = name.ends_with(".partial") || name == "run.json";
            assert!(unfinished || bytes == whole[&name], "kill {kill}: {name} is half a file");
        }
        match kill % 3 {
            0 => run(&line(&workplace, "out", &["--resume", "--device", "cpu:2"])).unwrap(),
            others => all_succeed(together(&workplace, others as usize)),
        }
        assert!(workplace.files("out") == whole, "kill {kill}: the run that went on differs");
        std::fs::remove_dir_all(workplace.path("out")).unwrap();
    }
    println!("{killed} processes were killed before their end");
    assert!(killed > 0 || kills == 0, "no process was killed before its end");
}
