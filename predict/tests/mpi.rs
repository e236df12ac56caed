//! The program as `mpirun` of Open MPI starts it.

#![cfg(feature = "mpi")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_predict");
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");

/// Each of the tests takes all cores.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A folder with a body.
struct Workplace {
    folder: tempfile::TempDir,
    _alone: MutexGuard<'static, ()>,
}

impl Workplace {
    fn new() -> Self {
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let workplace = Self { folder: tempfile::tempdir().unwrap(), _alone: alone };
        std::fs::write(workplace.path("body.stl"), ball(10, 16)).unwrap();
        workplace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The network of the demo as one of the user's own, in chunks that are small, so that there is something to share; its body
    /// of 2 MB is broadcast in several pieces. An option in `more` takes the place of the usual one.
    fn own(&self, out: &str, more: &[&str]) -> Vec<String> {
        let usual = format!(
            "--weights {DATA}/ellipsoid.safetensors --config {DATA}/ellipsoid.json --geometry body.stl --condition alpha=3 \
             --condition beta=3 --slice-points 15 --chunk 4 --anchors 256 --npz --compress zlib --out {out}"
        );
        let usual: Vec<_> = usual.split(" --").map(|option| format!("--{}", option.trim_start_matches("--"))).collect();
        let name = |option: &str| option.split([' ', '=']).next().map(str::to_string);
        let kept = usual.iter().filter(|option| !more.iter().any(|other| name(other) == name(option)));
        let words = kept.flat_map(|option| option.split_whitespace()).chain(more.iter().copied());
        words.map(str::to_string).collect()
    }

    /// A process on its own.
    fn one(&self, line: &[String]) -> Command {
        self.command(PROGRAM, line)
    }

    /// So many ranks.
    fn ranks(&self, count: usize, line: &[String]) -> Command {
        let mut command = self.command("mpirun", &launch(count));
        command.arg(PROGRAM).args(line);
        command
    }

    fn command(&self, program: &str, line: &[String]) -> Command {
        let mut command = Command::new(program);
        command.args(line).current_dir(self.folder.path());
        // A thread each: ranks would otherwise wait for each other's.
        // Ranks that wait for each other for ever are a failure.
        command
            .env("RAYON_NUM_THREADS", "1")
            .env("MPIEXEC_TIMEOUT", "300")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// All files but the lock, without what `run.json` says of times and commands.
    fn files(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let Ok(entries) = std::fs::read_dir(self.path(folder)) else { return BTreeMap::new() };
        let paths = entries.map(|entry| entry.unwrap().path());
        let content = |path: PathBuf| {
            let name = path.file_name().unwrap().to_str().unwrap().to_string();
            let mut bytes = std::fs::read(&path).unwrap_or_default();
            if let ("run.json", Ok(mut state)) = (name.as_str(), serde_json::from_slice::<Value>(&bytes)) {
                state.as_object_mut().unwrap().remove("origin");
                bytes = serde_json::to_vec(&state).unwrap();
            }
            (!name.starts_with('.') && path.is_file()).then_some((name, bytes))
        };
        paths.filter_map(content).collect()
    }
}

/// Options of `mpirun` for so many ranks, whoever runs it and however many cores there are.
fn launch(count: usize) -> Vec<String> {
    let line = format!("--allow-run-as-root --oversubscribe --bind-to none -n {count}");
    line.split_whitespace().map(str::to_string).collect()
}

/// A ball as an STL file.
fn ball(rings: usize, sectors: usize) -> String {
    use std::f64::consts::{PI, TAU};
    let point = |ring: usize, sector: usize| {
        let (polar, around) = (PI * ring as f64 / rings as f64, TAU * (sector % sectors) as f64 / sectors as f64);
        [0.9 * polar.sin() * around.cos(), 0.7 * polar.sin() * around.sin(), 0.8 * polar.cos()]
    };
    let mut text = String::from("solid body\n");
    for (ring, sector) in (0..rings).flat_map(|ring| (0..sectors).map(move |sector| (ring, sector))) {
        let [a, b] = [point(ring, sector), point(ring, sector + 1)];
        let [c, d] = [point(ring + 1, sector), point(ring + 1, sector + 1)];
        let faces = [(ring + 1 < rings).then_some([a, c, d]), (ring > 0).then_some([a, d, b])];
        for corners in faces.into_iter().flatten() {
            let vertices = corners.map(|[x, y, z]| format!("vertex {x:.6} {y:.6} {z:.6}\n")).concat();
            write!(text, "facet normal 0 0 0\nouter loop\n{vertices}endloop\nendfacet\n").unwrap();
        }
    }
    text + "endsolid body\n"
}

fn succeeds(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn fails(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn ranks_write_the_bytes_of_one_process_and_one_of_them_speaks() {
    let workplace = Workplace::new();
    let alone = succeeds(workplace.one(&workplace.own("whole", &[])));
    for (count, more) in [(1, &[][..]), (2, &["--device", "cpu:2"]), (4, &[])] {
        let out = format!("ranks{count}");
        let together = succeeds(workplace.ranks(count, &workplace.own(&out, more)));
        assert!(workplace.files(&out) == workplace.files("whole"), "{count} ranks");
        let told = |output: &Output, out: &str| String::from_utf8_lossy(&output.stdout).replace(out, "OUT");
        assert_eq!(told(&together, &out), told(&alone, "whole"), "{count} ranks");
    }
    // A dry run writes nothing, and a run that is complete stays as it is.
    succeeds(workplace.ranks(2, &workplace.own("dry", &["--dry-run"])));
    assert!(!workplace.path("dry").exists());
    succeeds(workplace.ranks(2, &workplace.own("whole", &["--resume"])));
    assert!(workplace.files("whole") == workplace.files("ranks4"));
}

#[test]
fn ranks_that_are_asked_for_different_things_write_nothing() {
    let workplace = Workplace::new();
    let mut command = workplace.ranks(1, &workplace.own("out", &[]));
    command.arg(":").args(launch(1)).arg(PROGRAM).args(workplace.own("out", &["--seed", "3"]));
    let error = fails(command);
    assert!(error.contains("error: rank 1 of 2 on ") && error.contains("differs from rank 0: seed was 0"), "{error}");
    assert!(workplace.files("out").is_empty());
}

#[test]
fn an_error_on_one_rank_ends_all_with_its_name() {
    let workplace = Workplace::new();
    let mut command = workplace.ranks(1, &workplace.own("out", &[]));
    let elsewhere: Vec<_> =
        workplace.own("out", &[]).into_iter().map(|word| word.replace("body.stl", "missing.stl")).collect();
    command.arg(":").args(launch(1)).arg(PROGRAM).args(elsewhere);
    let error = fails(command);
    assert!(error.contains("error: rank 1 of 2 on ") && error.contains("cannot open missing.stl"), "{error}");
}

#[test]
fn a_rank_whose_disk_is_full_ends_all_and_loses_nothing() {
    let workplace = Workplace::new();
    let line = |out: &str, more: &[&str]| workplace.own(out, &[&["--slice-points", "41"], more].concat());
    let mut command = workplace.ranks(1, &line("out", &[]));
    // A file that may grow no longer is an error of its writer, if that does not die of it.
    command.arg(":").args(launch(1)).args(["bash", "-c", "trap '' XFSZ; exec \"$@\"", "bash", PROGRAM]);
    let mut launcher = command.args(line("out", &[])).spawn().unwrap();
    while !workplace.path("out/run.json").exists() {
        assert!(launcher.try_wait().unwrap().is_none(), "it ended before it began");
        std::thread::sleep(Duration::from_millis(2));
    }
    let last = children(launcher.id()).into_iter().max().unwrap();
    assert!(Command::new("prlimit").args([&format!("--pid={last}"), "--fsize=300"]).status().unwrap().success());
    let output = launcher.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{error}");
    let told: Vec<_> = error.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(
        matches!(told[..], [told] if told.contains("rank 1 of 2 on ") && told.contains("cannot write ")),
        "{error}"
    );
    succeeds(workplace.ranks(3, &line("out", &["--resume"])));
    succeeds(workplace.one(&line("whole", &[])));
    assert!(workplace.files("out") == workplace.files("whole"));
}

#[test]
fn ranks_predict_row_after_row_of_a_sweep() {
    let workplace = Workplace::new();
    let table = "name,geometry,alpha\nfirst,body.stl,3\nbroken,nothing.stl,3\nthird,body.stl,-5\n";
    std::fs::write(workplace.path("bodies.csv"), table).unwrap();
    let line = |out: &str, more: &[&str]| workplace.own(out, &[&["--sweep", "bodies.csv"], more].concat());
    let alone = fails(workplace.one(&line("whole", &[])));
    let together = fails(workplace.ranks(3, &line("out", &[])));
    for told in [&alone, &together] {
        assert!(told.contains("1 of 3 rows failed") && told.contains("broken: --geometry: cannot open"), "{told}");
        assert_eq!(told.matches("error: ").count(), 2, "{told}");
    }
    for row in ["first", "third", ""] {
        let [whole, out] = ["whole", "out"].map(|folder| workplace.files(&format!("{folder}/{row}")));
        assert!(whole == out && !whole.is_empty(), "'{row}' differs");
    }
    let refused = fails(workplace.ranks(2, &line("dry", &["--dry-run"])));
    assert!(refused.contains("1 of 3 rows failed") && !workplace.path("dry").exists(), "{refused}");
    let missing = fails(workplace.ranks(2, &workplace.own("none", &["--sweep", "missing.csv"])));
    assert_eq!(missing.matches("cannot open missing.csv").count(), 1, "{missing}");
    // A row that one rank alone cannot predict ends all, with its name.
    let mut command = workplace.ranks(1, &line("other", &[]));
    command.arg(":").args(launch(1)).arg(PROGRAM).args(line("other", &["--seed", "3"]));
    let error = fails(command);
    assert!(error.contains("rank 1 of 2 on ") && error.contains("first: differs from rank 0: seed was 0"), "{error}");
}

#[test]
fn processes_that_do_not_find_each_other_are_refused() {
    let workplace = Workplace::new();
    // As another MPI's launcher starts it.
    let mut command = workplace.one(&workplace.own("out", &[]));
    command.env("PMI_SIZE", "2");
    let error = fails(command);
    assert!(error.contains("the launcher started 2 processes, and each of them is alone"), "{error}");
    assert!(workplace.files("out").is_empty());
}

/// Kills, of one rank, of the launcher or of all, at any moment; after which any number of ranks, processes or devices goes
/// on. `PREDICT_KILLS` is how often, 4 times without it.
#[test]
fn killed_ranks_are_resumed_by_any_number_to_the_same_bytes() {
    let kills: u64 = std::env::var("PREDICT_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let workplace = Workplace::new();
    let begin = Instant::now();
    succeeds(workplace.ranks(3, &workplace.own("whole", &[])));
    let (life, whole) = (begin.elapsed(), workplace.files("whole"));
    let (mut random, mut killed) = (StdRng::seed_from_u64(5), 0);
    for kill in 0..kills {
        let mut launcher = workplace.ranks(3, &workplace.own("out", &[])).spawn().unwrap();
        std::thread::sleep(life.mul_f64(random.random_range(0.0..1.0)));
        let ranks = children(launcher.id());
        match kill % 3 {
            0 => ranks.iter().take(1).for_each(|rank| kill_process(*rank)),
            1 => launcher.kill().unwrap(),
            _ => ranks.iter().chain(&[launcher.id()]).for_each(|process| kill_process(*process)),
        }
        killed += u32::from(!launcher.wait().unwrap().success());
        wait_for(&ranks);
        assert_nothing_half(&workplace, &whole, kill);
        match kill % 4 {
            0 => drop(succeeds(workplace.ranks(2, &workplace.own("out", &["--resume"])))),
            1 => drop(succeeds(workplace.one(&workplace.own("out", &["--resume", "--device", "cpu:2"])))),
            2 => {
                let start = || workplace.one(&workplace.own("out", &["--join"])).spawn().unwrap();
                let joined: Vec<Child> = (0..2).map(|_| start()).collect();
                joined.into_iter().for_each(|mut process| assert!(process.wait().unwrap().success()));
            }
            _ => drop(succeeds(workplace.ranks(4, &workplace.own("out", &["--resume"])))),
        }
        assert!(workplace.files("out") == whole, "kill {kill}: the run that went on differs");
        std::fs::remove_dir_all(workplace.path("out")).unwrap();
    }
    println!("{killed} of {kills} runs were killed before their end");
    assert!(killed > 0 || kills == 0);
}

fn assert_nothing_half(workplace: &Workplace, whole: &BTreeMap<String, Vec<u8>>, kill: u64) {
    for (name, bytes) in workplace.files("out") {
        let unfinished = name.ends_with(".partial") || name == "run.json";
        assert!(unfinished || bytes == whole[&name], "kill {kill}: {name} is half a file");
    }
}

/// Processes that a process has started.
fn children(of: u32) -> Vec<u32> {
    let listed = Command::new("ps").args(["-o", "pid=", "--ppid", &of.to_string()]).output().unwrap();
    String::from_utf8_lossy(&listed.stdout).split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn kill_process(process: u32) {
    // One that has ended meanwhile is no failure.
    let _ = Command::new("kill").args(["-KILL", &process.to_string()]).stderr(Stdio::null()).status().unwrap();
}

/// Waits until processes whose launcher was killed have noticed it.
fn wait_for(ranks: &[u32]) {
    let lives = |rank: &u32| Path::new(&format!("/proc/{rank}/exe")).read_link().is_ok();
    let begin = Instant::now();
    while ranks.iter().any(lives) {
        assert!(begin.elapsed() < Duration::from_secs(60), "ranks live on without their launcher");
        std::thread::sleep(Duration::from_millis(20));
    }
}
