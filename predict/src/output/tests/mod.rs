//! A synthetic predictor, disks that die, and what must hold whatever happens to them.

mod damage;
mod files;
mod join;
mod kill;
mod links;
mod refusal;
mod together;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;

use anyhow::Result;
use serde_json::{Map, json};

use super::disk::{Disk, LocalDisk};
use super::lock::LOCK_FILE;
use super::{Alone, Chunk, Existing, FieldSpec, Part, Predict, Request, Run, Space};
use crate::mesh::Mesh;

const SURFACE_POINTS: u64 = 4;
const VOLUME_POINTS: u64 = 11;
const CHUNK: u64 = 3;

/// A number that must come through JSON to its last bit.
const ANGLE: f64 = 0.124_999_999_310_512_56;

fn fields() -> Vec<FieldSpec> {
    vec![FieldSpec::new("velocity", 3), FieldSpec::new("pressure", 1)]
}

/// Every value follows from the index of its point.
fn synthetic(range: Range<u64>) -> Result<Chunk> {
    let points = range.clone().map(|i| [i as f32, i as f32 + 0.25, i as f32 + 0.5]).collect();
    let velocity = range.clone().flat_map(|i| [10.0 + i as f32, 20.0 + i as f32, 30.0 + i as f32]).collect();
    let pressure = range.map(|i| -(i as f32)).collect();
    Ok(Chunk { points, fields: vec![velocity, pressure] })
}

fn square() -> Mesh {
    let mut mesh = Mesh::new(synthetic(0..SURFACE_POINTS).unwrap().points);
    mesh.push_face(&[0, 1, 2]);
    mesh.push_face(&[0, 1, 3, 2]);
    mesh
}

fn parts() -> Vec<Part> {
    let part = |name: &str, points, mesh: Option<&Mesh>| Part::new(name, points, fields(), mesh, false, None);
    vec![part("surface", SURFACE_POINTS, Some(&square())), part("volume", VOLUME_POINTS, None)]
}

/// The usual run.
fn request(folder: &Path, existing: Existing) -> Request {
    let inputs = Map::from_iter([("seed".to_string(), json!(7)), ("angle".to_string(), json!(ANGLE))]);
    Request { folder: folder.to_path_buf(), inputs, origin: Map::new(), chunk: CHUNK, parts: parts(), existing }
}

fn open<D: Disk>(disk: D, folder: &Path, existing: Existing) -> Result<Run<D>> {
    Ok(Run::open(disk, request(folder, existing), alone())?.with_every_chunk_safe())
}

fn alone() -> Box<Alone> {
    Box::default()
}

/// A whole run; the number of points that it predicted.
fn run<D: Disk>(disk: D, folder: &Path, existing: Existing) -> Result<u64> {
    let mut run = open(disk, folder, existing)?;
    let mut predicted = 0;
    for name in ["surface", "volume"] {
        run.write_part(name, &mut synthetic, &mut |points| predicted += points)?;
    }
    run.finish()?;
    run.conclude()?;
    Ok(predicted)
}

/// All files but the lock; folders, which a complete run has none of, without what is in them.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entry = |entry: io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_string();
        let content = || if path.is_dir() { b"a folder".to_vec() } else { std::fs::read(&path).unwrap() };
        (name != LOCK_FILE).then(|| (name, content()))
    };
    std::fs::read_dir(folder).unwrap().filter_map(entry).collect()
}

/// A disk on which only some steps succeed. The step after them fails, and if it is a write, half of it happens.
struct DyingDisk<'a> {
    steps: &'a Cell<usize>,
    /// What the failing step reports.
    error: io::ErrorKind,
}

impl DyingDisk<'_> {
    fn step(&self) -> io::Result<()> {
        match self.steps.get().checked_sub(1) {
            Some(left) => self.steps.set(left),
            None => return Err(io::Error::from(self.error)),
        }
        Ok(())
    }
}

impl Disk for DyingDisk<'_> {
    fn create(&self, path: &Path, length: u64) -> io::Result<()> {
        self.step()?;
        LocalDisk.create(path, length)
    }

    fn create_new(&self, path: &Path) -> io::Result<bool> {
        self.step()?;
        LocalDisk.create_new(path)
    }

    fn write_at(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self.step() {
            Ok(()) => LocalDisk.write_at(path, offset, bytes),
            Err(error) => LocalDisk.write_at(path, offset, &bytes[..bytes.len() / 2]).and(Err(error)),
        }
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        LocalDisk.sync(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.step()?;
        LocalDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.step()?;
        LocalDisk.remove(path)
    }

    fn free_space(&self, folder: &Path) -> io::Result<u64> {
        LocalDisk.free_space(folder)
    }
}
