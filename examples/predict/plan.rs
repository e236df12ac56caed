//! `--dry-run`: what would be read and written, found out without computing.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_mixed_attention::models::Normalisation;

use crate::args::{Arguments, Condition};
use crate::input::Input;
use crate::output::{Disk, FieldSpec, LocalDisk, Part, human_bytes, safetensors_layout, vtp_layout};

/// Checks all input of a run with the user's own model, and returns its parts.
pub fn check_model(arguments: &Arguments) -> Result<Vec<Part>> {
    let model = &arguments.model;
    let config = model.config.as_deref().context("--weights needs --config")?;
    let geometry = model.geometry.as_deref().context("--weights needs --geometry")?;
    if let Some(weights) = &model.weights {
        ensure!(weights.is_file(), "--weights: there is no file {}", weights.display());
    }
    arguments.compute.device.open()?;
    let statistics = read_statistics(model.stats.as_deref().unwrap_or(config))?;
    let given: Vec<_> = model.condition.iter().map(|Condition { name, values }| (name, values)).collect();
    statistics.normalise_conditions(&given).context("--condition")?;

    let chunk = arguments.compute.chunk;
    let mut parts = Vec::new();
    check_positions("--geometry", &mut Input::open(geometry).context("--geometry")?, &statistics, chunk)?;
    let surface = model.surface.as_deref().unwrap_or(geometry);
    for (option, domain, file) in
        [("--surface", "surface", Some(surface)), ("--volume", "volume", model.volume.as_deref())]
    {
        let Some(file) = file else { continue };
        let mut input = Input::open(file).context(option)?;
        check_positions(option, &mut input, &statistics, chunk)?;
        parts.push(part(domain, &input, &statistics)?);
    }
    Ok(parts)
}

/// Prints what the parts take, and checks that the disk can hold them.
pub fn print(parts: &[Part], folder: &Path) -> Result<()> {
    for part in parts {
        let files: Vec<_> = part.files.iter().map(|file| file.name.as_str()).collect();
        let bytes = human_bytes(part.bytes());
        println!("{}: {} points, {bytes} in {}", part.name, part.points, files.join(" and "));
    }
    let existing = folder.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let free = LocalDisk.free_space(existing).context("--out: cannot ask for free disk space")?;
    let needed = parts.iter().map(Part::bytes).sum();
    println!("{} of disk space would be taken of {} free", human_bytes(needed), human_bytes(free));
    ensure!(needed <= free, "--out {}: the disk is too small", folder.display());
    Ok(())
}

/// Statistics stand in a file of their own, or under `normalisation` in the description of a model.
fn read_statistics(path: &Path) -> Result<Normalisation> {
    let context = || format!("statistics in {}", path.display());
    let text = std::fs::read_to_string(path).with_context(context)?;
    let mut file: serde_json::Value = serde_json::from_str(&text).with_context(context)?;
    let statistics = match file.get_mut("normalisation") {
        Some(inner) => inner.take(),
        None => file,
    };
    serde_json::from_value(statistics).with_context(context)
}

fn check_positions(option: &str, input: &mut Input, statistics: &Normalisation, chunk: u64) -> Result<()> {
    let mut start = 0;
    while start < input.len() {
        let end = input.len().min(start + chunk.max(1));
        let points = input.read(start..end).context(option.to_string())?;
        let position = &statistics.position;
        position
            .normalise(option, points.as_flattened())
            .with_context(|| format!("{option}: among points {start} to {end}"))?;
        start = end;
    }
    Ok(())
}

fn part(domain: &str, input: &Input, statistics: &Normalisation) -> Result<Part> {
    let fields = statistics.fields.iter().filter(|field| field.domain() == domain);
    let fields: Vec<_> = fields.map(|field| FieldSpec::new(field.name(), field.width())).collect();
    ensure!(!fields.is_empty(), "--{domain}: the statistics have no field of domain '{domain}'");
    let points = input.len();
    let mesh = match input {
        Input::Mesh(mesh) => Some(mesh),
        Input::Points(_) => None,
    };
    let files = vec![
        vtp_layout(&format!("{domain}.vtp"), points, &fields, mesh),
        safetensors_layout(&format!("{domain}.safetensors"), points, &fields),
    ];
    Ok(Part { name: domain.to_string(), points, fields, files })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    fn check(folder: &Path, more: &[&str]) -> Result<Vec<Part>, String> {
        let data = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data");
        let (weights, config) = (format!("{data}/ellipsoid.safetensors"), format!("{data}/ellipsoid.json"));
        let body = folder.join("body.stl");
        let triangle = "facet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\n";
        std::fs::write(&body, format!("solid body\n{triangle}endsolid body\n")).unwrap();
        let body = body.to_str().unwrap();
        let line = ["predict", "--dry-run", "--weights", &weights, "--config", &config, "--geometry", body];
        let arguments = Arguments::try_parse_from(line.iter().chain(more)).map_err(|error| error.to_string())?;
        check_model(&arguments).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_complete_set_of_input_is_planned() {
        let folder = tempfile::tempdir().unwrap();
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/sample.safetensors#volume.queries");
        let more = ["--condition", "beta=1", "--condition", "alpha=2", "--volume", sample];
        let parts = check(folder.path(), &more).unwrap();
        let summary: Vec<_> = parts.iter().map(|part| (part.name.as_str(), part.points, part.fields.len())).collect();
        assert_eq!(summary, [("surface", 3, 1), ("volume", 6856, 2)]);
        print(&parts, &folder.path().join("not/yet/there")).unwrap();
    }

    #[test]
    fn what_is_wrong_is_found_before_anything_is_computed() {
        let folder = tempfile::tempdir().unwrap();
        let far = folder.path().join("far.npy");
        let far = far.to_str().unwrap();
        let mut writer = {
            use npyz::WriterBuilder;
            let file = std::fs::File::create(far).unwrap();
            npyz::WriteOptions::new().default_dtype().shape(&[2, 3]).writer(file).begin_nd().unwrap()
        };
        writer.extend([0f32, 0.0, 1.5, 0.0, 0.0, 2.75]).unwrap();
        writer.finish().unwrap();

        let conditions = ["--condition", "alpha=2", "--condition", "beta=1"];
        let with = |more: &[&'static str]| [conditions.as_slice(), more].concat();
        let volume = [conditions.as_slice(), &["--volume", far]].concat();
        let cases = [
            (vec![], "condition 'alpha' is missing"),
            (with(&["--condition", "mach=0.3"]), "condition 'mach' is unknown"),
            (volume, "--volume: point 1 has z = 2.75, outside the box [-2.5, 2.5]"),
            (with(&["--stats", "missing.json"]), "statistics in missing.json"),
        ];
        for (more, expected) in cases {
            let message = check(folder.path(), &more).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
