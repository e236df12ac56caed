use std::path::Path;

use clap::Parser;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::*;
use crate::ellipsoid::{sample_surface, sample_volume};
use crate::job::{Encoded, Exact, FlowModel, Settings};
use crate::metrics::{FieldError, Metrics};
use crate::output::{Alone, Existing};
use crate::vector::Vec3;

/// The fields of a domain of the exact flow.
fn exact(flow: Flow, domain: &str, points: &[[f32; 3]]) -> Vec<Vec<f32>> {
    let (domain, fields) = match domain {
        SURFACE => (SURFACE, &["pressure"][..]),
        _ => (VOLUME, &["velocity", "pressure"][..]),
    };
    let exact = ExactFlow { flow, domain };
    fields.iter().map(|field| exact.at(field, points)).collect()
}

/// The exact flow with a known error.
struct Shifted {
    flow: Flow,
    predicted: usize,
}

impl FlowModel for Shifted {
    fn predict(&mut self, domain: &str, _: u64, points: &[[f32; 3]]) -> Result<Vec<Vec<f32>>> {
        self.predicted += points.len();
        let exact = exact(self.flow, domain, points);
        Ok(exact.into_iter().map(|values| values.into_iter().map(|value| value + 0.125).collect()).collect())
    }
}

fn run(folder: &Path, existing: Existing, model: &mut dyn FlowModel) -> Result<Metrics> {
    let resolution = Resolution { surface: [15, 24], slice: [41, 33] };
    let arguments = Arguments::try_parse_from(["predict"]).unwrap();
    let mut job = job_of(Case::new([1.1, 0.6, 0.8], 10.0, 5.0)?, resolution, &arguments, None, true)?;
    job.run_with(
        model,
        &Settings { folder, existing, chunk: 500, npz: true, codec: None, dry_run: false, turn: Default::default() },
        Box::new(Alone::default()),
    )
    .map(|report| report.unwrap().metrics)
}

fn shifted() -> Shifted {
    Shifted { flow: Flow::new(&Case::new([1.1, 0.6, 0.8], 10.0, 5.0).unwrap()), predicted: 0 }
}

#[test]
fn everything_is_written_and_the_errors_are_right() {
    let folder = tempfile::tempdir().unwrap();
    let metrics = run(folder.path(), Existing::Refuse, &mut shifted()).unwrap();
    for name in ["surface_pressure", "slice_pressure", "slice_velocity"] {
        assert!((metrics[name].mean_absolute - 0.125).abs() < 1e-6, "{name}: {:?}", metrics[name]);
    }
    let text = std::fs::read(folder.path().join("metrics.json")).unwrap();
    let written = serde_json::from_slice::<Metrics>(&text).unwrap();
    for (name, error) in &metrics {
        assert!((written[name].relative_l2 - error.relative_l2).abs() < 1e-12, "{name}: {:?}", written[name]);
    }
    let mut names: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.sort();
    let expected = [
        "flow.png",
        "forces.json",
        "metrics.json",
        "run.json",
        "slice.npz",
        "slice.png",
        "slice.safetensors",
        "slice.vtp",
        "surface.npz",
        "surface.png",
        "surface.safetensors",
        "surface.vtp",
    ];
    assert_eq!(names, expected);

    // The exact flow has no drag, and a pressure that is too high everywhere makes none.
    let forces: Value = serde_json::from_slice(&std::fs::read(folder.path().join("forces.json")).unwrap()).unwrap();
    for which in ["predicted", "true"] {
        let drag = forces[which]["coefficients"]["drag"].as_f64().unwrap();
        assert!(drag.abs() < 1e-5, "{which}: {drag}");
    }

    // A complete run is not predicted again, only summed up.
    let mut model = shifted();
    assert_eq!(run(folder.path(), Existing::Resume, &mut model).unwrap(), metrics);
    assert_eq!(model.predicted, 0);
}

/// Relative L2 error of one field of a place at some points.
fn relative_l2(network: &mut Encoded, flow: Flow, domain: &str, points: Vec<Vec3>) -> Vec<f64> {
    let points: Vec<_> = points.into_iter().map(|point| point.map(|x| x as f32)).collect();
    let (predicted, exact) = (network.predict(domain, 0, &points).unwrap(), exact(flow, domain, &points));
    let error = |(predicted, exact): (&Vec<f32>, &Vec<f32>)| {
        let mut error = FieldError::default();
        error.add(predicted, exact).unwrap();
        error.metrics().relative_l2
    };
    predicted.iter().zip(&exact).map(error).collect()
}

#[test]
fn the_published_errors_on_unseen_bodies_are_reproduced() {
    let (bodies, anchors, queries) = (48, 512, 256);
    let mut random = StdRng::seed_from_u64(2026);
    let mut errors = vec![Vec::new(); 3];
    for seed in 0..bodies {
        let axes = std::array::from_fn(|_| 0.5 * 2.5f64.powf(random.random::<f64>()));
        let mut angle = || random.random_range(-20.0..20.0);
        let case = Case::new(axes, angle(), angle()).unwrap();
        let mut network = encoded(&case, anchors, seed);
        let flow = Flow::new(&case);
        let on_surface = sample_surface(axes, queries, 1000 + seed);
        let around = sample_volume(axes, queries, 2000 + seed);
        let surface = relative_l2(&mut network, flow, SURFACE, on_surface);
        let volume = relative_l2(&mut network, flow, VOLUME, around);
        for (all, error) in errors.iter_mut().zip(surface.into_iter().chain(volume)) {
            all.push(error);
        }
    }
    let description: Value = serde_json::from_str(include_str!("../../data/ellipsoid.json")).unwrap();
    for (name, errors) in ["surface_pressure", "volume_velocity", "volume_pressure"].iter().zip(errors) {
        let published = &description["errors"]["f32"][format!("{name}_queries")];
        let mean = errors.iter().sum::<f64>() / bodies as f64;
        let expected = published["mean"].as_f64().unwrap();
        // Both are means over 48 random bodies, whose errors spread by about half of the mean.
        assert!((mean / expected - 1.0).abs() < 0.15, "{name}: mean {mean}, published {expected}");
        let (worst, expected) = (errors.into_iter().fold(0.0, f64::max), published["worst"].as_f64().unwrap());
        assert!(worst < 1.5 * expected, "{name}: worst {worst}, published {expected}");
    }
}

#[test]
fn the_demo_is_predicted_by_the_network() {
    let folder = tempfile::tempdir().unwrap();
    let case = Case::new([1.1, 0.6, 0.8], 10.0, 5.0).unwrap();
    let mut network = encoded(&case, 512, 0);
    let metrics = run(folder.path(), Existing::Refuse, &mut network).unwrap();
    for (name, most) in [("surface_pressure", 0.02), ("slice_velocity", 0.01), ("slice_pressure", 0.035)] {
        let error = metrics[name].relative_l2;
        assert!(error > 1e-4 && error < most, "{name}: {error}");
    }
}

#[test]
fn anchors_outside_the_trained_range_are_warned_of() {
    assert_eq!(network::warning(512), None);
    assert_eq!(network::warning(100).unwrap(), "100 anchors are outside the trained range 256 to 1024");
    let cost = "attention costs 256 times as much as with 1024 while the body is read, 16 times at each point";
    let expected = format!("16384 anchors are outside the trained range 256 to 1024, and {cost}");
    assert_eq!(network::warning(16384).unwrap(), expected);
}

#[test]
fn a_dry_run_finds_what_a_run_would() {
    let folder = tempfile::tempdir().unwrap();
    let dry_run = |name: &str, more: &[&str]| {
        let out = folder.path().join(name);
        let line = ["predict", "--dry-run", "--out", out.to_str().unwrap()];
        crate::run(&crate::Arguments::try_parse_from(line.iter().chain(more)).unwrap(), &Default::default())
    };
    dry_run("new", &[]).unwrap();
    assert!(!folder.path().join("new").exists());
    run(&folder.path().join("earlier"), Existing::Refuse, &mut shifted()).unwrap();
    dry_run("earlier", &["--overwrite"]).unwrap();
    let cases: [(&str, &[&str], &str); 3] = [
        ("new", &["--device", "metal"], "--device metal: not available"),
        ("earlier", &[], "holds a run; --resume goes on with it"),
        ("earlier", &["--resume"], "--resume: "),
    ];
    for (name, more, expected) in cases {
        let error = format!("{:#}", dry_run(name, more).unwrap_err());
        assert!(error.contains(expected), "{name} {more:?}: {error}");
    }
}
