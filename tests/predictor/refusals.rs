//! Input and statistics that cannot be right, each with an error that names them.

use candle_core::{Device, Tensor};
use candle_mixed_attention::models::ab_upt::{AbUptError, Predictor, PredictorInput};
use candle_mixed_attention::models::{ConditionStatistics, FieldStatistics, Normalisation, NormalisationError};

use crate::fixtures::{BODY, DEMO, Golden, sample, sample_input};

/// The sample without one of its parts.
struct Parts {
    geometry: Vec<f32>,
    supernodes: Vec<u32>,
    conditions: Vec<(&'static str, Vec<f64>)>,
    anchors: Vec<(&'static str, Vec<f32>)>,
}

impl Parts {
    fn new() -> Self {
        Self {
            geometry: sample("geometry.pos"),
            supernodes: vec![0, 5, 7],
            conditions: vec![("alpha", vec![12.0]), ("beta", vec![-7.0])],
            anchors: vec![("surface", sample("surface.anchors")), ("volume", sample("volume.anchors"))],
        }
    }

    fn refusal(&self) -> String {
        let mut input = PredictorInput::new().geometry(&self.geometry, &self.supernodes);
        for (name, values) in &self.conditions {
            input = input.condition(*name, values);
        }
        for (domain, positions) in &self.anchors {
            input = input.anchors(*domain, positions);
        }
        DEMO.encode(&input).unwrap_err().to_string()
    }
}

#[test]
fn bad_input_is_named() {
    type Spoil = fn(&mut Parts);
    let cases: &[(Spoil, &str)] = &[
        (|parts| parts.geometry[4] = f32::NAN, "geometry must be finite, got NaN as y of point 1"),
        (
            |parts| parts.geometry[6] = 2.6,
            "geometry: point 2 has x = 2.6, outside the box [-2.5, 2.5] of the statistics",
        ),
        (|parts| parts.geometry.truncate(7), "geometry must have 3 components per point, got 7 numbers"),
        (|parts| parts.geometry.clear(), "points and supernodes must be at least one of each, got 0 points"),
        (|parts| parts.supernodes.clear(), "points and supernodes must be at least one of each"),
        (|parts| parts.supernodes.push(768), "supernode must be a point index below 768, got 768"),
        (|parts| parts.conditions.truncate(1), "condition 'beta' is missing; the model takes [\"alpha\", \"beta\"]"),
        (|parts| parts.conditions.push(("mach", vec![0.3])), "condition 'mach' is unknown"),
        (|parts| parts.conditions.push(("alpha", vec![0.3])), "condition 'alpha' is given twice"),
        (|parts| parts.conditions[0].1.push(1.0), "condition 'alpha' must have 1 components per sample, got 2"),
        (|parts| parts.conditions[0].1[0] = f64::INFINITY, "condition 'alpha' must be finite, got inf"),
        (|parts| parts.anchors.clear(), "a first pass needs the anchors of at least one domain"),
        (|parts| parts.anchors.push(("wake", vec![0.0; 3])), "anchors were given for domain 'wake'"),
        (
            |parts| parts.anchors[1].1[3 * 511 + 2] = f32::NAN,
            "anchors of 'volume' must be finite, got NaN as z of point 511",
        ),
        (|parts| parts.anchors[0].1[0] = -3.0, "anchors of 'surface': point 0 has x = -3, outside the box"),
        (
            |parts| parts.anchors[0].1.truncate(5),
            "anchors of 'surface' must have 3 components per point, got 5 numbers",
        ),
    ];
    for (spoil, expected) in cases {
        let mut parts = Parts::new();
        spoil(&mut parts);
        let message = parts.refusal();
        assert!(message.contains(expected), "expected '{expected}', got '{message}'");
    }
}

#[test]
fn a_geometry_comes_where_the_network_reads_one_and_only_there() {
    let without = PredictorInput::new().condition("alpha", &[0.0]).condition("beta", &[0.0]);
    let error = DEMO.encode(&without.anchors("surface", &sample("surface.anchors"))).unwrap_err();
    assert!(matches!(error, AbUptError::GeometryMissing), "{error}");

    let case = Golden::named("one_domain");
    let error = case.predictor().encode(&case.random_input(1).geometry(&[0.0; 3], &[0])).unwrap_err();
    assert!(matches!(error, AbUptError::GeometryUnexpected), "{error}");
}

#[test]
fn features_that_the_network_does_not_read_are_refused() {
    let features = Tensor::zeros((768, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
    let input = sample_input().geometry_with_features(&sample("geometry.pos"), &[0, 1], &features);
    let message = DEMO.encode(&input).unwrap_err().to_string();
    assert!(message.contains("geometry features must have shape none"), "{message}");
}

#[test]
fn queries_are_checked() {
    let inside = [1.5f32, 0.25, 2.0];
    let cases: &[(&str, &[f32], &str)] = &[
        ("wake", &inside, "queries were given for domain 'wake', but the domains of the network are"),
        ("volume", &inside[..2], "queries of 'volume' must have 3 components per point, got 2 numbers"),
        (
            "volume",
            &[0.0, 0.0, 2.0, 0.0, f32::INFINITY, 0.0],
            "queries of 'volume' must be finite, got inf as y of point 1",
        ),
        ("surface", &[0.0, 0.0, -2.51], "queries of 'surface': point 0 has z = -2.51, outside the box"),
    ];
    for (domain, points, expected) in cases {
        let message = BODY.predict(domain, points).unwrap_err().to_string();
        assert!(message.contains(expected), "expected '{expected}', got '{message}'");
    }
    let message = BODY.predict_from("volume", 4_000_000_000, &[f32::NAN; 3]).unwrap_err().to_string();
    assert!(message.contains("got NaN as x of point 4000000000"), "{message}");
    let message = BODY.predict_from("volume", u64::MAX, &inside).unwrap_err().to_string();
    assert!(message.contains(&u64::MAX.to_string()), "{message}");
    let last = u64::MAX - inside.len() as u64 / 3;
    assert_eq!(BODY.predict_from("volume", last, &inside).unwrap().points(), last..u64::MAX);
    let message = BODY.predict("volume", &inside).unwrap().get("vorticity").unwrap_err().to_string();
    assert!(message.contains("no field 'volume_vorticity'; the fields are"), "{message}");
}

#[test]
fn predictions_that_are_not_finite_are_named() {
    // A field whose standard deviation carries it beyond f32, and a logarithmic scale that does so at some points.
    let scaled = |width: usize, std: f64, logscale: bool| {
        let name = if width == 1 { "pressure" } else { "velocity" };
        let field = FieldStatistics::new("volume".into(), name.into(), vec![0.0; width], vec![std; width]).unwrap();
        let mut statistics = DEMO.statistics().clone();
        let own = statistics.fields.iter_mut().find(|own| (own.domain(), own.name()) == (field.domain(), field.name()));
        *own.unwrap() = field.with_logscale(logscale);
        Predictor::new(DEMO.model().clone(), &statistics).unwrap()
    };
    let queries = sample("volume.queries");
    let cases = [(3, 3e38, false, "velocity"), (1, 3e38, false, "pressure"), (3, 100.0, true, "velocity")];
    for (width, std, logscale, field) in cases {
        let message = scaled(width, std, logscale).encode(&sample_input()).unwrap_err().to_string();
        let expected = format!("anchors of 'volume': the network predicts {field} = ");
        assert!(message.contains(&expected) && message.ends_with(", in f32"), "{message}");

        // The same network and cache, so that only the queries are read.
        let body = scaled(width, std, logscale).with_cache(BODY.cache().clone()).unwrap();
        let error = body.predict_from("volume", 1 << 40, &queries).unwrap_err();
        let fields = BODY.predict("volume", &queries).unwrap();
        let of_network = DEMO.statistics().field("volume", field).unwrap().normalise(fields.get(field).unwrap());
        let of_network: Vec<f32> = of_network.unwrap().flatten_all().unwrap().to_vec1().unwrap();
        let AbUptError::Prediction { points, field: named, point, got, dtype } = error else { panic!("{error}") };
        assert_eq!((points.as_str(), named.as_str(), dtype), ("queries of 'volume'", field, "f32"));
        assert!(!got.is_finite());
        // The first point at which the network says more than the scale can carry into f32.
        let limit = if logscale { f64::from(f32::MAX).ln() / std } else { f64::from(f32::MAX) / std };
        let first = of_network.iter().position(|value| f64::from(value.abs()) > limit).unwrap() / width;
        assert_eq!(point, (1 << 40) + first as u64);
    }
}

#[test]
fn statistics_must_be_those_of_the_network() {
    let own = || DEMO.statistics().clone();
    let field = |domain: &str, name: &str, width: usize| {
        FieldStatistics::new(domain.into(), name.into(), vec![0.0; width], vec![1.0; width]).unwrap()
    };
    let alpha = ConditionStatistics::new("alpha".into(), None, vec![0.0; 2], vec![1.0; 2]).unwrap();
    let flat = Golden::named("one_domain_2d").predictor().statistics().position.clone();
    let cases = [
        (Normalisation { position: flat, ..own() }, "statistics of position have 2 components, the network has 3"),
        (Normalisation { conditions: vec![], ..own() }, "there are no statistics for condition 'alpha'"),
        (Normalisation { conditions: vec![alpha], ..own() }, "statistics of condition 'alpha' have 2 components"),
        (Normalisation { fields: vec![], ..own() }, "there are no statistics for field 'surface_pressure'"),
        (Normalisation { fields: vec![field("surface", "pressure", 3)], ..own() }, "field 'surface_pressure' have 3"),
    ];
    for (statistics, expected) in cases {
        let message = Predictor::new(DEMO.model().clone(), &statistics).unwrap_err().to_string();
        assert!(message.contains(expected), "expected '{expected}', got '{message}'");
    }
}

#[test]
fn files_of_statistics_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("statistics.json");
    let cases = [
        ("", "EOF while parsing"),
        ("{\"normalisation\": {}}", "missing field `position`"),
        ("[1, 2]", "statistics.json"),
        ("{\"position\": {\"shift\": [0], \"scale\": [-1]}, \"fields\": []}", "scale of the positions"),
    ];
    for (text, expected) in cases {
        std::fs::write(&path, text).unwrap();
        let error = Normalisation::read(&path).unwrap_err();
        assert!(matches!(error, NormalisationError::File { .. }));
        let message = error.to_string();
        assert!(message.contains(expected) && message.contains("statistics.json"), "{message}");
    }
    assert!(Normalisation::read(folder.path().join("missing.json")).unwrap_err().to_string().contains("missing.json"));
}
