//! A process that is really killed, and goes on as another.

use std::process::{Child, Command, Stdio};

use super::*;
use crate::input::writer::PLAIN;

/// What a run may write: meshes as they are and compressed, of a surface and of cells with a volume, and `.npz`.
const FORMATS: [&[&str]; 5] = [
    &[],
    &["--npz"],
    &["--compress", "zlib"],
    &["--compress", "lz4"],
    &["--volume", "{}/mesh.vtu", "--keep-arrays", "--compress", "lz4", "--npz"],
];

/// How the child below gets its command line.
const LINE: &str = "PREDICT_TEST_LINE";

#[test]
#[ignore = "the process that the test below starts and kills"]
fn child() {
    let Ok(line) = std::env::var(LINE) else { return };
    let line: Vec<_> = line.split('\n').map(str::to_string).collect();
    run(&line).unwrap();
}

pub(super) fn start(line: &[String]) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "own::tests::kill::child", "--ignored"]).env(LINE, line.join("\n"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// What a killed run left: how many points it says are done, and the names of its whole files.
struct Left {
    done: u64,
    names: Vec<String>,
}

impl Left {
    fn of(workplace: &Workplace) -> Self {
        // A file may be renamed while the folder is being read.
        let entries = std::fs::read_dir(workplace.path("out")).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let state = std::fs::read(workplace.path("out/run.json")).unwrap_or_default();
        let state: Value = serde_json::from_slice(&state).unwrap_or_default();
        let parts = state["parts"].as_array().into_iter().flatten();
        let ranges = parts.flat_map(|part| part["done"].as_array().into_iter().flatten());
        Self { done: ranges.filter_map(|range| Some(range[1].as_u64()? - range[0].as_u64()?)).sum(), names }
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }
}

#[test]
fn a_killed_process_is_resumed_to_the_same_bytes() {
    let workplace = Workplace::new();
    // Small chunks, so that there is something to be killed in.
    let line = |out: &str, more: &[&str]| {
        workplace
            .line(&[&["--out", &format!("{{}}/{out}"), "--chunk", "2", "--npz", "--compress", "zlib"], more].concat())
    };
    run(&line("whole", &[])).unwrap();
    let whole = workplace.files("whole");

    type Moment = (&'static str, fn(&Left) -> bool);
    let moments: [Moment; 9] = [
        ("when files are being created", |left| left.has("surface.vtp.partial")),
        ("before the first chunk", |left| left.has("run.json")),
        ("behind the surface", |left| left.done >= 20),
        ("behind the volume", |left| left.done >= 110),
        ("behind the wake", |left| left.done >= 160),
        ("while a file is being packed", |left| left.has("surface.vtp.packed.partial")),
        ("between renames", |left| left.has("surface.vtp")),
        ("while npz files are being made", |left| left.has("surface.npz")),
        ("while pictures are being drawn", |left| left.has("surface_p.png")),
    ];
    let mut killed = 0;
    for (moment, reached) in moments {
        let mut process = start(&line("out", &["--overwrite"]));
        let died = loop {
            if reached(&Left::of(&workplace)) {
                process.kill().unwrap();
            }
            if let Some(status) = process.try_wait().unwrap() {
                break !status.success();
            }
        };
        killed += u32::from(died);
        for (name, bytes) in workplace.files("out") {
            let unfinished = name.ends_with(".partial") || name == "run.json";
            assert!(unfinished || bytes == whole[&name], "killed {moment}: {name} is half a file");
        }
        run(&line("out", &["--resume"])).unwrap();
        let resumed = workplace.files("out");
        assert_eq!(resumed.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>(), "killed {moment}");
        for (name, bytes) in resumed {
            assert!(bytes == whole[&name], "killed {moment}: {name} differs");
        }
        std::fs::remove_dir_all(workplace.path("out")).unwrap();
    }
    assert!(killed >= 6, "only {killed} of {} runs were killed before their end", moments.len());
}

#[test]
fn overwriting_a_killed_run_leaves_nothing_of_it() {
    let workplace = Workplace::new();
    let line = |more: &[&str]| workplace.line(&[&["--chunk", "2"], more].concat());
    let mut process = start(&line(&["--npz", "--compress", "zlib"]));
    while !Left::of(&workplace).has("surface.npz") {
        assert!(process.try_wait().unwrap().is_none(), "the run ended without a file");
    }
    process.kill().unwrap();
    process.wait().unwrap();
    run(&line(&["--overwrite"])).unwrap();
    run(&line(&["--out", "{}/fresh"])).unwrap();
    assert!(workplace.files("out") == workplace.files("fresh"));
}

/// A process that is killed at any moment of its life, each time at another; `PREDICT_KILLS` is how often, 100 times without
/// it.
#[test]
#[ignore = "takes minutes; CI runs it with fewer kills"]
fn a_process_killed_at_any_moment_is_resumed_to_the_same_bytes() {
    let kills: u32 = std::env::var("PREDICT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    for format in FORMATS {
        let workplace = Workplace::new();
        std::fs::write(workplace.path("mesh.vtu"), super::meshes::mixed(PLAIN, "UnstructuredGrid")).unwrap();
        let line = |out: &str, more: &[&str]| {
            workplace.line(&[&["--out", &format!("{{}}/{out}"), "--chunk", "2"], format, more].concat())
        };
        let begin = std::time::Instant::now();
        assert!(start(&line("whole", &[])).wait().unwrap().success());
        let (life, whole) = (begin.elapsed(), workplace.files("whole"));
        let mut killed = 0;
        for kill in 0..kills {
            let mut process = start(&line("out", &["--overwrite"]));
            std::thread::sleep(life.mul_f64(f64::from(kill) / f64::from(kills)));
            process.kill().unwrap();
            killed += u32::from(!process.wait().unwrap().success());
            let left = if workplace.path("out").exists() { workplace.files("out") } else { Default::default() };
            for (name, bytes) in left {
                let unfinished = name.ends_with(".partial") || name == "run.json";
                assert!(unfinished || bytes == whole[&name], "{format:?}, kill {kill}: {name} is half a file");
            }
            run(&line("out", &["--resume"])).unwrap();
            assert!(workplace.files("out") == whole, "{format:?}, kill {kill}: the resumed run differs");
            std::fs::remove_dir_all(workplace.path("out")).unwrap();
        }
        println!("{format:?}: {killed} of {kills} runs were killed before their end");
        assert!(killed >= kills / 2, "{format:?}: only {killed} of {kills} runs were killed before their end");
    }
}
