//! One function for each reader of the programs: it takes any bytes, and what it makes of them is dropped. None may panic,
//! hang, or take memory beyond a multiple of its input.

use std::path::{Path, PathBuf};

use crate::input::Input;
use crate::{inspect, own};

/// A reader by the name of its folder of seeds.
pub type Reader = (&'static str, fn(&[u8]));

/// All readers.
pub const READERS: [Reader; 5] = [
    ("points_npy", points_npy),
    ("points_safetensors", points_safetensors),
    ("points_stl", points_stl),
    ("yaml_statistics", yaml_statistics),
    ("inspect", inspect_file),
];

/// Hands the bytes over as a file, whose name ends like this.
fn as_file(bytes: &[u8], ending: &str, read: impl FnOnce(&Path)) {
    let path: PathBuf = std::env::temp_dir().join(format!("predict-{}{ending}", std::process::id()));
    if std::fs::write(&path, bytes).is_ok() {
        read(&path);
        let _ = std::fs::remove_file(&path);
    }
}

/// Points in a file with such an ending, read to the end in chunks.
fn points(bytes: &[u8], ending: &str) {
    as_file(bytes, ending, |path| {
        let Ok(mut input) = Input::open(&path.display().to_string(), None) else { return };
        let mut start = 0;
        while start < input.len() {
            let end = input.len().min(start + 1000);
            if input.read(start..end).is_err() {
                return;
            }
            start = end;
        }
        let _ = input.draw(100, 0);
    });
}

pub fn points_npy(bytes: &[u8]) {
    points(bytes, ".npy");
}

pub fn points_safetensors(bytes: &[u8]) {
    points(bytes, ".safetensors");
}

pub fn points_stl(bytes: &[u8]) {
    points(bytes, ".stl");
}

pub fn yaml_statistics(bytes: &[u8]) {
    as_file(bytes, ".yaml", |path| drop(own::flat_keys(path)));
}

pub fn inspect_file(bytes: &[u8]) {
    as_file(bytes, ".checkpoint", |path| drop(inspect::report_on(path)));
}

#[cfg(test)]
#[path = "../../fuzz/src/seeds.rs"]
mod seeds;

#[test]
fn no_input_stops_a_reader() {
    let longest = std::time::Duration::from_secs(20);
    for (name, read) in READERS {
        let count = seeds::run(name, |bytes| {
            let start = std::time::Instant::now();
            read(bytes);
            let taken = start.elapsed();
            assert!(taken < longest, "{name} took {taken:?} for: {}", bytes[..bytes.len().min(2000)].escape_ascii());
        });
        println!("{name}: {count} inputs");
    }
}
