//! The programs as a shell starts them.

use std::path::Path;
use std::process::{Command, Stdio};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");

fn program(path: &str, line: &str) -> Command {
    let mut command = Command::new(path);
    command.args(line.split_whitespace().map(|word| word.replace("DATA", DATA)));
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

#[test]
fn a_reader_that_goes_away_changes_nothing() {
    let out = tempfile::tempdir().unwrap();
    let out = out.path().display();
    let cases = [
        (env!("CARGO_BIN_EXE_inspect"), "DATA/ellipsoid.safetensors --config DATA/ellipsoid.json".to_string(), 0),
        (env!("CARGO_BIN_EXE_inspect"), "DATA/ellipsoid.json".to_string(), 1),
        (env!("CARGO_BIN_EXE_predict"), "--completions bash".to_string(), 0),
        (env!("CARGO_BIN_EXE_predict"), format!("--dry-run --out {out}/demo"), 0),
    ];
    for (path, line, expected) in cases {
        let mut child = program(path, &line).spawn().unwrap();
        // As `| head -0` does.
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(expected), "{path} {line}");
    }
}

/// With the feature it says so, too, in other words.
#[test]
#[cfg(not(feature = "mpi"))]
fn processes_of_a_launcher_that_do_not_find_each_other_are_refused() {
    let out = tempfile::tempdir().unwrap();
    let line = format!("--dry-run --out {}/demo", out.path().display());
    let run = |line: &str, size: &str| {
        let mut command = program(env!("CARGO_BIN_EXE_predict"), line);
        command.env("OMPI_COMM_WORLD_SIZE", size).stderr(Stdio::piped()).output().unwrap()
    };
    let refused = run(&line, "4");
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && error.contains("the launcher started 4 processes, and this program"),
        "{error}"
    );
    assert!(run(&line, "1").status.success() && run(&format!("{line} --join"), "4").status.success());
}

#[test]
fn versions_and_completions_are_told() {
    for (path, name) in [(env!("CARGO_BIN_EXE_predict"), "predict"), (env!("CARGO_BIN_EXE_inspect"), "inspect")] {
        let told = |line: &str| {
            let output = program(path, line).output().unwrap();
            assert!(output.status.success(), "{name} {line}");
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(told("--version").trim(), format!("{name} {}", env!("CARGO_PKG_VERSION")));
        for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
            assert!(told(&format!("--completions {shell}")).contains(name), "{shell}");
        }
    }
}

#[test]
fn help_is_wrapped_and_grouped_and_options_keep_their_names() {
    let output = program(env!("CARGO_BIN_EXE_predict"), "--help").env("COLUMNS", "300").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    let headings: Vec<&str> = text.lines().filter(|line| line.ends_with(':') && !line.starts_with(' ')).collect();
    assert_eq!(headings, ["Options:", "Your model:", "Demo:", "Computation:", "Results:", "Forces:"]);
    let options = "weights weights-key config stats square-banks geometry surface volume points at scale outside patches \
                   velocity anchor-points truth condition geometry-points supernodes slice line streamlines slice-points \
                   semi-axes alpha beta anchors seeds seed chunk device shard-anchors dtype out resume overwrite join dry-run npz keep-arrays \
                   compress reference-area reference-speed reference-length density drag-axis lift-axis moment-about sweep \
                   completions help version";
    let listed =
        |option: &&str| text.lines().any(|line| line.split_whitespace().any(|word| word == format!("--{option}")));
    let missing: Vec<_> = options.split_whitespace().filter(|option| !listed(option)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    // Every key of a flat file of statistics.
    for key in ["<domain>_<field>_mean", "<domain>_<field>_std", "raw_pos_min", "raw_pos_max"] {
        assert!(text.contains(key), "{key}");
    }
}

/// An octahedron of some size at some place along x, as an STL file with some of its faces, each the right way round or not.
fn write_octahedron(path: &Path, size: f64, at: f64, faces: &[(usize, bool)]) {
    let mut text = String::from("solid body\n");
    for &(face, turned) in faces {
        let sign = |axis: usize| if face >> axis & 1 == 0 { 1.0 } else { -1.0 };
        let mut corners = [0, 1, 2].map(|axis| {
            let mut corner = [at, 0.0, 0.0];
            corner[axis] += size * sign(axis);
            corner
        });
        if (sign(0) * sign(1) * sign(2) < 0.0) != turned {
            corners.swap(1, 2);
        }
        let vertices = corners.map(|[x, y, z]| format!("vertex {x} {y} {z}\n")).concat();
        text += &format!("facet normal 0 0 0\nouter loop\n{vertices}endloop\nendfacet\n");
    }
    std::fs::write(path, text + "endsolid body\n").unwrap();
}

#[test]
fn what_was_read_is_told_and_doubts_come_with_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let whole: Vec<(usize, bool)> = (0..8).map(|face| (face, false)).collect();
    let mut turned = whole.clone();
    turned[3].1 = true;
    write_octahedron(&path("body.stl"), 0.8, 0.0, &whole);
    write_octahedron(&path("small.stl"), 0.0008, 0.0, &whole);
    write_octahedron(&path("open.stl"), 0.8, 0.0, &whole[1..]);
    write_octahedron(&path("turned.stl"), 0.8, 0.0, &turned);
    write_octahedron(&path("away.stl"), 0.2, 2.0, &whole);
    let cloud: String = (0..27).map(|at| format!("{} {} {}\n", at % 3 - 1, at / 3 % 3 - 1, at / 9 - 1)).collect();
    let header =
        "ply\nformat ascii 1.0\nelement vertex 27\nproperty float x\nproperty float y\nproperty float z\nend_header\n";
    std::fs::write(path("volume.ply"), format!("{header}{cloud}")).unwrap();
    let usual = ["--geometry body.stl", "--condition=alpha=3 --condition=beta=3", "--volume volume.ply"];
    let told = |more: &[&'static str]| {
        // An option takes the place of the usual one of its name.
        let name = |option: &'static str| option.split_once(['=', ' ']).map_or(option, |(name, _)| name);
        let kept = usual.iter().filter(|option| !more.iter().any(|other| name(other) == name(option)));
        let words = kept.chain(more).copied().collect::<Vec<_>>().join(" ");
        let line =
            format!("--weights DATA/ellipsoid.safetensors --config DATA/ellipsoid.json {words} --dry-run --out out");
        let mut command = program(env!("CARGO_BIN_EXE_predict"), &line);
        let output = command.current_dir(folder.path()).stderr(Stdio::piped()).output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{line}: {text}");
        text
    };
    let plain = told(&[]);
    assert!(!plain.contains("warning"), "{plain}");
    for line in [
        "geometry           6 points, x -0.8000 to 0.8000, y -0.8000 to 0.8000, z -0.8000 to 0.8000",
        "volume             27 points, x -1.0000 to 1.0000, y -1.0000 to 1.0000, z -1.0000 to 1.0000",
    ] {
        assert_eq!(plain.lines().filter(|told| *told == line).count(), 1, "{plain}");
    }
    let open = "warning: --geometry: the mesh is not closed: of 12 edges 3 have a face on one side only";
    let turned =
        "warning: --surface: the mesh is not closed: of 12 edges 0 have a face on one side only, at 3 two faces look";
    let cases: [(&[&'static str], &str); 6] = [
        (&["--geometry small.stl"], "warning: the body is 1250 times smaller than the points of 'volume'"),
        (
            &["--geometry away.stl"],
            "warning: the body lies outside of the points of 'volume': its x from 1.8000 to 2.2000",
        ),
        (&["--geometry open.stl"], open),
        (&["--surface turned.stl"], turned),
        (
            &["--condition=alpha=50 --condition=beta=3"],
            "warning: condition alpha = 50 is outside the trained range -20 to 20",
        ),
        (&["--anchors 9"], "warning: 9 anchors of 'surface' are outside the trained range"),
    ];
    for (more, expected) in cases {
        let text = told(more);
        assert!(text.contains(expected), "expected '{expected}', got '{text}'");
    }
}

#[test]
#[cfg(unix)]
fn ctrl_c_says_what_is_safe_and_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("demo");
    let line = format!("--out {} --chunk 64", out.display());
    let mut child = program(env!("CARGO_BIN_EXE_predict"), &line).stderr(Stdio::piped()).spawn().unwrap();
    while !out.join("run.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it began");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(130), "{text}");
    let safe = format!("points are safe in {}; the same command with --resume", out.display());
    assert!(text.contains("interrupted: ") && text.contains(&safe), "{text}");
    let resumed = program(env!("CARGO_BIN_EXE_predict"), &format!("{line} --resume")).output().unwrap();
    assert!(resumed.status.success() && out.join("surface.vtp").exists());
    // What it found is told in the end.
    let told = String::from_utf8(resumed.stdout).unwrap();
    for words in
        ["surface_pressure   relative L2 error 0.01", "force  ", "true force  ", "Cd ", "(pressure ", "Cl ", "Cs "]
    {
        assert!(told.contains(words), "expected '{words}', got '{told}'");
    }
}

/// What is written to the terminal that standard error is.
#[cfg(unix)]
fn told_to_a_terminal(mut command: Command) -> String {
    use std::fs::File;
    use std::io::Read;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let other_end = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut child = command.stdout(Stdio::null()).stderr(other_end).spawn().unwrap();
    // It holds this side's copy of the other end.
    drop(command);
    let (mut told, mut terminal) = (Vec::new(), File::from(terminal));
    // Ends with an error once nobody holds the other end.
    let _ = terminal.read_to_end(&mut told);
    assert!(child.wait().unwrap().success(), "{}", String::from_utf8_lossy(&told));
    String::from_utf8_lossy(&told).into_owned()
}

#[test]
#[cfg(unix)]
fn a_terminal_shows_how_far_reading_and_predicting_are() {
    let folder = tempfile::tempdir().unwrap();
    let points = folder.path().join("points.npy");
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (5000, 3), }";
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    for point in 0..5000u16 {
        let turn = f32::from(point);
        bytes.extend([turn.sin(), turn.cos(), f32::from(point % 100) * 0.01].map(f32::to_le_bytes).concat());
    }
    std::fs::write(&points, bytes).unwrap();
    let line = format!(
        "--weights DATA/ellipsoid.safetensors --config DATA/ellipsoid.json --geometry {0} --volume {0} \
         --condition alpha=0 --condition beta=0 --out {1}",
        points.display(),
        folder.path().join("out").display()
    );
    let told = told_to_a_terminal(program(env!("CARGO_BIN_EXE_predict"), &line));
    for words in ["reading --geometry", "5,000/5,000 points", "/10,000 points", "/s  ", " left"] {
        assert!(told.contains(words), "expected '{words}', got '{told}'");
    }
}
