//! What comes out is physical and right.

use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::models::ab_upt::{PredictedFields, Predictor, PredictorInput};
use candle_mixed_attention::models::{FieldStatistics, Normalisation, PositionStatistics};

use crate::fixtures::{BODY, DEMO, Golden, SAMPLE, demo, sample, sample_input};
use crate::support::compare::{check_close, numbers};

const FIELDS: [(&str, &str); 3] = [("surface", "pressure"), ("volume", "velocity"), ("volume", "pressure")];

/// Compares fields of the sample with what the reference predicts in f64.
fn assert_predicted(fields: &PredictedFields, part: &str, tolerance: f64) {
    for (name, values) in fields.iter() {
        let name = format!("predicted.{part}.{}_{name}", fields.domain());
        check_close(&name, values, &SAMPLE[&name], tolerance).unwrap();
    }
}

#[test]
fn the_sample_of_the_demo_is_met() {
    for (domain, fields) in [("surface", 1), ("volume", 2)] {
        let at_queries = BODY.predict(domain, &sample(&format!("{domain}.queries"))).unwrap();
        for (fields, part) in [(BODY.at_anchors(domain).unwrap(), "anchors"), (&at_queries, "queries")] {
            assert_predicted(fields, part, 1e-5);
        }
        assert_eq!(at_queries.iter().count(), fields);
    }
}

#[test]
fn half_precision_stays_close() {
    for (dtype, tolerance) in [(DType::F16, 0.01), (DType::BF16, 0.06)] {
        let body = demo(dtype).encode(&sample_input()).unwrap();
        for domain in ["surface", "volume"] {
            let fields = body.predict(domain, &sample(&format!("{domain}.queries"))).unwrap();
            assert!(fields.iter().all(|(_, values)| values.dtype() == DType::F32));
            assert_predicted(&fields, "queries", tolerance);
        }
    }
}

#[test]
fn the_published_errors_of_the_sample_are_reproduced() {
    let text = include_str!("../../predict/data/ellipsoid.json");
    let description: serde_json::Value = serde_json::from_str(text).unwrap();
    for (domain, field) in FIELDS {
        let fields = BODY.predict(domain, &sample(&format!("{domain}.queries"))).unwrap();
        let predicted = numbers(fields.get(field).unwrap()).unwrap();
        let exact = numbers(&SAMPLE[&format!("exact.queries.{domain}_{field}")]).unwrap();
        let square = |values: &mut dyn Iterator<Item = f64>| values.map(|value| value * value).sum::<f64>();
        let difference = square(&mut predicted.iter().zip(&exact).map(|(predicted, exact)| predicted - exact));
        let ours = (difference / square(&mut exact.iter().copied())).sqrt();
        let published = description["sample"]["errors"][format!("{domain}_{field}_queries")].as_f64().unwrap();
        assert!((ours - published).abs() < 1e-5, "{domain}_{field}: {ours} for {published}");
    }
}

#[test]
fn three_domains_in_units_of_their_own_meet_the_golden_values() {
    let case = Golden::named("three_domains");
    let (shift, scale) = ([0.5, -2.0, 7.0], [0.25, 3.0, 10.0]);
    let position = PositionStatistics::affine(shift.to_vec(), scale.to_vec(), None).unwrap();
    let fields = case.config.domains.iter().flat_map(|domain| {
        domain.fields.iter().map(|field| {
            let mean = (0..field.dim).map(|i| 0.3 * i as f64 - 4.0).collect();
            let std = (0..field.dim).map(|i| 1.5 + i as f64).collect();
            let statistics = FieldStatistics::new(domain.name.clone(), field.name.clone(), mean, std).unwrap();
            statistics.with_logscale(field.name == "k")
        })
    });
    let statistics = Normalisation::new(position, Vec::new(), fields.collect()).unwrap();
    let predictor = Predictor::new(case.model(), &statistics).unwrap();

    let physical = |name: &str| -> Vec<f64> {
        let values = numbers(&case.tensors[name]).unwrap();
        values.iter().enumerate().map(|(at, value)| value / scale[at % 3] + shift[at % 3]).collect()
    };
    let supernodes = case.tensors["in.geometry.supernodes"].to_dtype(DType::U32).unwrap().to_vec1::<u32>().unwrap();
    let mut input = PredictorInput::new().geometry(&physical("in.geometry.pos"), &supernodes);
    for domain in ["surface", "volume", "wake"] {
        input = input.anchors(domain, &physical(&format!("in.anchors.{domain}")));
    }
    let body = predictor.encode(&input).unwrap();

    let check = |fields: &PredictedFields, prefix: &str| {
        for (name, values) in fields.iter() {
            let golden = case.tensors[&format!("{prefix}{}_{name}", fields.domain())].squeeze(0).unwrap();
            let statistics = statistics.field(fields.domain(), name).unwrap();
            // Physical values of a logarithmic field reach thousands, so both are compared as the network gives them.
            assert!(check_close("", values, &golden, 1.0).is_err(), "{prefix}{name}: nothing was denormalised");
            let back = statistics.normalise(values).unwrap();
            check_close(&format!("{prefix}{name}"), &back, &golden, 2.0 * case.tolerance).unwrap();
        }
    };
    for domain in ["surface", "volume", "wake"] {
        check(body.at_anchors(domain).unwrap(), "out.");
        let queries = physical(&format!("in.pass1.queries.{domain}"));
        check(&body.predict(domain, &queries).unwrap(), "out.pass1.query_");
    }
}

#[test]
fn a_logarithmic_field_is_unfolded() {
    let case = Golden::named("one_domain");
    let linear = case.predictor();
    let mut statistics = linear.statistics().clone();
    statistics.fields[0] = statistics.fields[0].clone().with_logscale(true);
    let logarithmic = Predictor::new(case.model(), &statistics).unwrap();
    let (input, points) = (case.random_input(1), case.random_points(20, 2));
    let predict = |predictor: &Predictor| predictor.encode(&input).unwrap().predict("surface", &points).unwrap();
    let (linear, logarithmic) = (predict(&linear), predict(&logarithmic));
    let unfold = |value: f32| value.signum() * value.abs().exp_m1();
    let expected: Vec<f32> = linear.values("pressure").unwrap().into_iter().map(unfold).collect();
    let expected = Tensor::from_vec(expected, (20, 1), &Device::Cpu).unwrap();
    check_close("pressure", logarithmic.get("pressure").unwrap(), &expected, 1e-4).unwrap();
    let (shear, same) = (linear.values("shear").unwrap(), logarithmic.values("shear").unwrap());
    assert_eq!(shear, same, "the other field is not logarithmic");
}

#[test]
fn statistics_of_other_fields_and_conditions_are_left_out() {
    let own = DEMO.statistics();
    let mut more = own.clone();
    let extra = FieldStatistics::new("volume".into(), "vorticity".into(), vec![0.0; 3], vec![1.0; 3]).unwrap();
    more.fields.insert(0, extra);
    more.conditions.reverse();
    let predictor = Predictor::new(DEMO.model().clone(), &more).unwrap();
    assert_eq!(predictor.statistics(), own);
}
