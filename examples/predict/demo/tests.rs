use super::*;

/// The exact flow with a known error.
struct Shifted {
    flow: Flow,
    predicted: usize,
}

impl FlowModel for Shifted {
    fn name(&self) -> &str {
        "Shifted"
    }

    fn predict(&mut self, place: PlaceKind, points: &[[f32; 3]]) -> Result<Vec<Vec<f32>>> {
        self.predicted += points.len();
        let exact = place.exact(&self.flow, points);
        Ok(exact.into_iter().map(|values| values.into_iter().map(|value| value + 0.125).collect()).collect())
    }
}

fn run(folder: &Path, existing: Existing, model: &mut dyn FlowModel) -> Result<Metrics> {
    let inputs = Map::from_iter([("model".to_string(), json!("test"))]);
    let resolution = Resolution { surface: [15, 24], slice: [41, 33] };
    let demo = Demo::new(Case::new([1.1, 0.6, 0.8], 10.0, 5.0)?, resolution);
    demo.run(model, Options { folder, existing, chunk: 500, npz: true, inputs })
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
        .collect();
    names.sort();
    let expected = [
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

    // A complete run is not predicted again, only summed up.
    let mut model = shifted();
    assert_eq!(run(folder.path(), Existing::Resume, &mut model).unwrap(), metrics);
    assert_eq!(model.predicted, 0);
}
