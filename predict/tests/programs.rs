//! The programs as a shell starts them.

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
