//! One function for each reader of the programs: it takes any bytes, and what it makes of them is dropped. None may panic,
//! hang, or take memory beyond a multiple of its input.

use std::path::Path;

use crate::input::{Input, Location, Table};
use crate::output::State;
use crate::{inspect, own, sweep};

/// A reader by the name of its folder of seeds.
pub type Reader = (&'static str, fn(&[u8]));

/// All readers.
pub const READERS: [Reader; 16] = [
    ("points_npy", points_npy),
    ("points_npz", points_npz),
    ("points_safetensors", points_safetensors),
    ("points_torch", points_torch),
    ("points_stl", points_stl),
    ("points_obj", points_obj),
    ("points_ply", points_ply),
    ("points_vtk", points_vtk),
    ("points_vtp", points_vtp),
    ("points_vtu", points_vtu),
    ("points_pvtu", points_pvtu),
    ("yaml_statistics", yaml_statistics),
    ("description", description),
    ("sweep", sweep_table),
    ("run_state", run_state),
    ("inspect", inspect_file),
];

/// Points that are read at once.
const CHUNK: u64 = 1000;

/// Points that are read at most: a mesh of two points and a million cells of nothing has as many centres.
const MOST_POINTS: u64 = 100 * CHUNK;

/// What a list of pieces may name.
const PIECE: &[u8] = include_bytes!("../../fuzz/seeds/points_vtu/ascii.vtu");

/// Hands the bytes over as a file of this name, in a folder of its own.
fn as_file(bytes: &[u8], name: &str, read: impl FnOnce(&Path)) {
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join(name);
    if std::fs::write(&path, bytes).is_ok() {
        read(&path);
    }
}

/// Points in a file of such a name, read in chunks, and some of them drawn; of a mesh its cells and their sizes too.
fn points(bytes: &[u8], name: &str) {
    as_file(bytes, name, |path| {
        for at in [None, Some(Location::Cells), Some(Location::Points)] {
            let Ok(mut input) = Input::open(&path.display().to_string(), at) else { continue };
            let _ = (read_all(&mut input), input.draw(100, 0));
            if let Input::Sites(sites) = &mut input {
                let cells = sites.len().min(CHUNK);
                let _ = sites.sizes(0..cells);
            }
        }
    });
}

fn read_all(input: &mut Input) -> anyhow::Result<()> {
    let (mut start, end) = (0, input.len().min(MOST_POINTS));
    while start < end {
        let next = end.min(start + CHUNK);
        input.read(start..next)?;
        start = next;
    }
    Ok(())
}

/// An array of a file of such a name.
fn array(bytes: &[u8], name: &str, array: &str) {
    as_file(bytes, name, |path| {
        let Ok(mut table) = Table::open(&path.display().to_string(), Some(array)) else { return };
        let rows = table.rows().min(CHUNK);
        let _ = table.read_finite(0..rows);
    });
}

pub fn points_npy(bytes: &[u8]) {
    points(bytes, "points.npy");
}

pub fn points_npz(bytes: &[u8]) {
    points(bytes, "points.npz");
    array(bytes, "points.npz", "points");
}

pub fn points_safetensors(bytes: &[u8]) {
    points(bytes, "points.safetensors");
    array(bytes, "points.safetensors", "points");
}

pub fn points_torch(bytes: &[u8]) {
    points(bytes, "points.pt");
    array(bytes, "points.pt", "points");
}

pub fn points_stl(bytes: &[u8]) {
    points(bytes, "body.stl");
}

pub fn points_obj(bytes: &[u8]) {
    points(bytes, "body.obj");
}

pub fn points_ply(bytes: &[u8]) {
    points(bytes, "body.ply");
}

pub fn points_vtk(bytes: &[u8]) {
    points(bytes, "body.vtk");
    array(bytes, "body.vtk", "p");
}

pub fn points_vtp(bytes: &[u8]) {
    points(bytes, "body.vtp");
    array(bytes, "body.vtp", "p");
}

pub fn points_vtu(bytes: &[u8]) {
    points(bytes, "body.vtu");
    array(bytes, "body.vtu", "p");
}

/// A list of pieces, with one piece beside it.
pub fn points_pvtu(bytes: &[u8]) {
    as_file(bytes, "list.pvtu", |path| {
        if std::fs::write(path.with_file_name("piece.vtu"), PIECE).is_ok() {
            let Ok(mut input) = Input::open(&path.display().to_string(), None) else { return };
            let _ = read_all(&mut input);
        }
    });
}

pub fn yaml_statistics(bytes: &[u8]) {
    as_file(bytes, "statistics.yaml", |path| drop(own::flat_keys(path)));
}

pub fn description(bytes: &[u8]) {
    as_file(bytes, "model.json", |path| drop(own::read_description(path)));
}

pub fn sweep_table(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = sweep::rows(text);
    }
}

/// What a folder says about the run in it.
pub fn run_state(bytes: &[u8]) {
    as_file(bytes, "run.json", |path| {
        if let Some(Ok(Some(state))) = path.parent().map(State::read) {
            let _ = (state.progress(), state.into_names());
        }
    });
}

pub fn inspect_file(bytes: &[u8]) {
    as_file(bytes, "a.checkpoint", |path| drop(inspect::report_on(path)));
}

#[cfg(test)]
#[path = "../../fuzz/src/seeds.rs"]
mod seeds;

#[cfg(test)]
use crate::counting;

#[test]
fn no_input_stops_a_reader() {
    for (name, read) in READERS {
        seeds::check(name, read);
    }
}
