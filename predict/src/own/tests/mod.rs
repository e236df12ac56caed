//! Whole runs with files on disk, as a user makes them.

mod car;
mod join;
mod kill;
mod meshes;
mod refusals;
mod runs;
mod words;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_mixed_attention::candle_core::{Device, Tensor, safetensors};
use clap::Parser;
use npyz::WriterBuilder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::args::Arguments;
use crate::ellipsoid::surface_mesh;
use crate::mesh::Mesh;
use crate::output::Alone;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/golden");
const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data");

/// A folder with a network of three domains, a body, and points for each domain.
struct Workplace {
    folder: tempfile::TempDir,
}

impl Workplace {
    fn new() -> Self {
        let workplace = Self { folder: tempfile::tempdir().unwrap() };
        workplace.write_network("three_domains");
        workplace.write_body();
        for (at, (domain, count)) in [("surface", 40), ("volume", 61), ("wake", 23)].into_iter().enumerate() {
            write_npy(&workplace.path(&format!("{domain}.npy")), &random_points(count, at as u64));
        }
        workplace
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A network of the golden set, with statistics that change nothing but need positions between -3 and 3.
    fn write_network(&self, name: &str) {
        let index: Value =
            serde_json::from_str(&std::fs::read_to_string(format!("{GOLDEN}/index.json")).unwrap()).unwrap();
        let cases = index["cases"].as_array().unwrap();
        let case = cases.iter().find(|case| case["kind"] == "ab_upt" && case["name"] == name).unwrap();
        let tensors = safetensors::load(format!("{GOLDEN}/ab_upt/{name}.safetensors"), &Device::Cpu).unwrap();
        let weights =
            tensors.into_iter().filter_map(|(name, tensor)| Some((name.strip_prefix("w.")?.to_string(), tensor)));
        safetensors::save(&weights.collect::<HashMap<_, _>>(), self.path("model.safetensors")).unwrap();

        let mut fields = Vec::new();
        for domain in case["config"]["domains"].as_array().unwrap() {
            for field in domain["fields"].as_array().unwrap() {
                let width = field["dim"].as_u64().unwrap() as usize;
                fields.push(json!({
                    "domain": domain["name"], "name": field["name"], "mean": vec![0.5; width], "std": vec![2.0; width]
                }));
            }
        }
        let statistics = json!({
            "position": {"shift": [0, 0, 0], "scale": [1, 1, 1], "box": {"min": [-3, -3, -3], "max": [3, 3, 3]}},
            "fields": fields,
        });
        let description = json!({"model": case["config"], "normalisation": statistics});
        std::fs::write(self.path("model.json"), description.to_string()).unwrap();
    }

    fn write_body(&self) {
        write_stl(&self.path("body.stl"), &surface_mesh([1.1, 0.6, 0.8], 7, 12));
    }

    /// `bodies.csv`: this body, one that does not exist, and another.
    fn write_table(&self) {
        write_stl(&self.path("other.stl"), &surface_mesh([0.9, 0.7, 0.5], 7, 12));
        let folder = self.folder.path().display().to_string();
        let table = "name,geometry\nfirst,{}/body.stl\nbroken,{}/nothing.stl\nsecond,{}/other.stl\n";
        std::fs::write(self.path("bodies.csv"), table.replace("{}", &folder)).unwrap();
    }

    /// The command line of a run, in which `{}` is the folder. An option in `more` takes the place of the usual one.
    fn line(&self, more: &[&str]) -> Vec<String> {
        let usual = [
            ["--weights", "{}/model.safetensors"],
            ["--config", "{}/model.json"],
            ["--geometry", "{}/body.stl"],
            ["--volume", "{}/volume.npy"],
            ["--points", "wake={}/wake.npy"],
            ["--out", "{}/out"],
            ["--anchors", "8"],
            ["--geometry-points", "50"],
            ["--chunk", "10"],
            ["--slice-points", "9"],
        ];
        let kept = usual.iter().filter(|[option, _]| !more.contains(option));
        let words = ["predict"].into_iter().chain(kept.flatten().copied()).chain(more.iter().copied());
        let folder = self.folder.path().display().to_string();
        words.map(|word| word.replace("{}", &folder)).collect()
    }

    fn run(&self, more: &[&str]) -> Result<()> {
        run(&self.line(more))
    }

    /// The contents of all files of a folder but the lock, without what `run.json` says of times and commands.
    fn files(&self, folder: &str) -> BTreeMap<String, Vec<u8>> {
        let Ok(entries) = std::fs::read_dir(self.path(folder)) else { return BTreeMap::new() };
        let entry = |entry: std::fs::DirEntry| {
            let name = entry.file_name().into_string().unwrap();
            if name.starts_with('.') || entry.path().is_dir() {
                return None;
            }
            let mut bytes = std::fs::read(entry.path()).unwrap();
            if let ("run.json", Ok(mut state)) = (name.as_str(), serde_json::from_slice::<Value>(&bytes)) {
                state.as_object_mut().unwrap().remove("origin");
                bytes = serde_json::to_vec(&state).unwrap();
            }
            Some((name, bytes))
        };
        entries.filter_map(|found| entry(found.unwrap())).collect()
    }

    /// Tensors of a file in the output folder.
    fn tensors(&self, name: &str) -> HashMap<String, Tensor> {
        safetensors::load(self.path("out").join(name), &Device::Cpu).unwrap()
    }
}

fn run(line: &[String]) -> Result<()> {
    crate::run(&Arguments::try_parse_from(line)?, &Default::default())
}

/// The job of a command line, read by this process alone.
fn job(arguments: &Arguments) -> crate::job::Job {
    crate::own::job(arguments, None, &mut Alone::default()).unwrap()
}

fn random_points(count: usize, seed: u64) -> Vec<[f32; 3]> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(|_| std::array::from_fn(|_| random.random_range(-2.5..2.5))).collect()
}

fn write_stl(path: &Path, mesh: &Mesh) {
    let triangle = |corners: [u32; 3]| stl_io::Triangle {
        normal: stl_io::Normal::new([0.0; 3]),
        vertices: corners.map(|corner| stl_io::Vertex::new(mesh.points()[corner as usize])),
    };
    let triangles: Vec<_> = mesh.triangles().map(triangle).collect();
    let mut file = std::fs::File::create(path).unwrap();
    stl_io::write_stl(&mut file, triangles.iter()).unwrap();
}

fn write_npy<const N: usize>(path: &Path, rows: &[[f32; N]]) {
    let file = std::fs::File::create(path).unwrap();
    let options = npyz::WriteOptions::new().default_dtype().shape(&[rows.len() as u64, N as u64]);
    let mut writer = options.writer(file).begin_nd().unwrap();
    writer.extend(rows.as_flattened()).unwrap();
    writer.finish().unwrap();
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}
