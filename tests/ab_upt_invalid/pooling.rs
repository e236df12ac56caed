//! Supernode pooling, called alone.

use candle_core::{DType, Device, Result, Tensor};
use candle_mixed_attention::models::ab_upt::{Geometry, PoolingConfig, SupernodePooling};
use candle_nn::{VarBuilder, VarMap};
use serde_json::{Value, json};

use crate::support::refusal::refused;
use crate::{differs, drawn_weights, random, same};

/// A pooling of width 32 with these entries.
fn config(entries: Value) -> PoolingConfig {
    let mut config = json!({"hidden_dim": 32});
    config.as_object_mut().expect("an object").extend(entries.as_object().expect("an object").clone());
    serde_json::from_value(config).expect("entries of a pooling")
}

fn pooling(entries: Value) -> Result<SupernodePooling> {
    SupernodePooling::new(&config(entries), drawn_weights().1)
}

/// Poolings of the same weights with different neighbours.
fn alike(choices: &[Value]) -> Result<Vec<SupernodePooling>> {
    let vars = VarMap::new();
    let vb = || VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    choices.iter().map(|choice| SupernodePooling::new(&config(choice.clone()), vb())).collect()
}

/// Points on the x axis.
fn on_a_line(coordinates: &[f32]) -> Result<Tensor> {
    Tensor::new(coordinates, &Device::Cpu)?.unsqueeze(1)?.pad_with_zeros(1, 0, 2)
}

/// Points on the x axis, all of one sample; the first is the supernode.
fn line(coordinates: &[f32]) -> Result<Geometry> {
    Geometry::new(&on_a_line(coordinates)?, &[0])
}

#[test]
fn features_must_be_those_of_the_configuration() -> Result<()> {
    let plain = line(&[0., 1., 2.])?;
    let wide = |width: usize| plain.clone().with_features(&random(&[3, width])?);
    let reads = pooling(json!({"radius": 5.0, "input_features_dim": 4}))?;
    refused("no features", reads.forward(&plain), &["geometry features", "[points, 4]"]);
    refused("features of another width", reads.forward(&wide(5)?), &["geometry features", "[points, 4]", "[3, 5]"]);
    assert_eq!(reads.forward(&wide(4)?)?.dims(), [1, 1, 32]);
    let deaf = pooling(json!({"radius": 5.0}))?;
    refused("features nobody reads", deaf.forward(&wide(4)?), &["geometry features", "none", "[3, 4]"]);
    let (more, nan) = (random(&[4, 4])?, (random(&[3, 4])? * f64::NAN)?);
    refused("features of 4 points", plain.clone().with_features(&more), &["[3, features]", "[4, 4]"]);
    refused("features with one axis", plain.clone().with_features(&random(&[3])?), &["[3, features]", "[3]"]);
    refused("features of NaN", plain.clone().with_features(&nan), &["geometry features", "NaN"]);
    Ok(())
}

#[test]
fn configurations() -> Result<()> {
    let table: &[(&str, Value, &[&str])] = &[
        ("neither radius nor k", json!({}), &["radius, k", "neither"]),
        ("radius and k", json!({"radius": 1.0, "k": 3}), &["radius, k", "both"]),
        ("a radius beyond f32", json!({"radius": 1e39}), &["radius", "f32"]),
        ("features of width 0", json!({"k": 3, "input_features_dim": 0}), &["input_features_dim", "at least 1"]),
        (
            "absrelpos with features",
            json!({"k": 3, "pos_mode": "absrelpos", "input_features_dim": 2}),
            &["input_features_dim", "absrelpos"],
        ),
        ("identity with abspos", json!({"k": 3, "message_mode": "identity"}), &["readd_supernode_pos", "identity"]),
        ("too narrow", json!({"k": 3, "hidden_dim": 6, "pos_mode": "relpos"}), &["hidden_dim", "8"]),
        ("beyond measure", json!({"k": 3, "hidden_dim": 1u64 << 40}), &["hidden_dim", "at most"]),
    ];
    for (case, entries, words) in table {
        refused(case, pooling(entries.clone()), words);
    }
    let wide = json!({"k": 3, "message_mode": "identity", "pos_mode": "absrelpos", "readd_supernode_pos": false});
    assert_eq!(config(wide.clone()).output_dim(), 96);
    assert_eq!(pooling(wide)?.forward(&line(&[0., 1., 2.])?)?.dims(), [1, 1, 96], "identity makes tokens wider");
    Ok(())
}

#[test]
fn a_point_exactly_at_the_radius_is_a_neighbour() -> Result<()> {
    let geometry = line(&[0., 0.75, 2.])?;
    let [at, beyond, before] = [0.75, 0.76, 0.74].map(|radius| json!({"radius": radius}));
    let poolings = alike(&[at, beyond, before])?;
    let at = poolings[0].forward(&geometry)?;
    same("at the radius", &at, &poolings[1].forward(&geometry)?);
    assert!(differs(&at, &poolings[2].forward(&geometry)?), "before the radius");
    Ok(())
}

#[test]
fn of_too_many_neighbours_the_first_by_index_count() -> Result<()> {
    // The supernode is point 4, and not among the first three.
    let points = on_a_line(&[0., 1., 2., 3., 4.])?;
    let poolings = alike(&[json!({"radius": 10.0, "max_degree": 3}), json!({"radius": 10.0})])?;
    let first = poolings[0].forward(&Geometry::new(&points, &[4])?)?;
    // The same neighbours, with the two others out of reach.
    let far = on_a_line(&[0., 1., 2., 99., 4.])?;
    same("three of five", &first, &poolings[0].forward(&Geometry::new(&far, &[4])?)?);
    assert!(differs(&first, &poolings[1].forward(&Geometry::new(&points, &[4])?)?), "five of five");
    Ok(())
}

#[test]
fn more_neighbours_than_points_are_all_points() -> Result<()> {
    let geometry = line(&[0., 1., -3.])?;
    let choices = [json!({"k": 3}), json!({"k": 4}), json!({"k": usize::MAX}), json!({"radius": 1e30})];
    let all = alike(&choices)?.iter().map(|pooling| pooling.forward(&geometry)).collect::<Result<Vec<_>>>()?;
    for other in &all[1..] {
        same("all points", &all[0], other);
    }
    Ok(())
}

#[test]
fn of_equally_near_points_the_first_by_index_counts() -> Result<()> {
    let poolings = alike(&[json!({"k": 2})])?;
    let tie = poolings[0].forward(&line(&[0., 1., -1., 1.])?)?;
    same("the first of three", &tie, &poolings[0].forward(&line(&[0., 1., -9., 9.])?)?);
    assert!(differs(&tie, &poolings[0].forward(&line(&[0., -1., 9., 9.])?)?), "another one");
    Ok(())
}

#[test]
fn points_may_coincide_and_lie_on_a_line() -> Result<()> {
    let poolings = alike(&[json!({"k": 7}), json!({"radius": 0.5, "max_degree": 4}), json!({"radius": 0.0})])?;
    let lines = [line(&[2.; 3000])?, line(&(0..3000u16).map(|x| f32::from(x % 7)).collect::<Vec<_>>())?];
    for (pooling, geometry) in poolings.iter().flat_map(|pooling| lines.iter().map(move |line| (pooling, line))) {
        let sum = pooling.forward(geometry)?.sum_all()?.to_scalar::<f32>()?;
        assert!(sum.is_finite());
    }
    Ok(())
}

#[test]
fn samples_and_supernodes_that_do_not_fit() -> Result<()> {
    let points = random(&[6, 3])?;
    let batched = |supernodes: &[u32], samples: &[u32]| Geometry::batched(&points, supernodes, samples);
    let two = [0, 0, 0, 1, 1, 1];
    refused("different numbers of supernodes", batched(&[0, 1, 3], &two), &["equally many", "3 supernodes"]);
    refused("not ordered by sample", batched(&[3, 0], &two), &["sample by sample", "point 3 of sample 1"]);
    // The package gives the last sample supernodes of another.
    refused("a sample without supernodes", batched(&[0, 2], &[0, 0, 1, 1, 2, 2]), &["equally many", "3 samples"]);
    refused("samples 1 and 2", batched(&[0, 1, 3, 4], &[1, 1, 1, 2, 2, 2]), &["from 0", "no point of sample 0"]);
    refused("index out of range", Geometry::new(&points, &[40]), &["below 6", "40"]);
    refused("one axis", Geometry::new(&random(&[6])?, &[0]), &["[points, position_dim]", "[6]"]);
    refused("infinity", Geometry::new(&(&points / 0.)?, &[0]), &["must be finite", "inf as element [0, 0]"]);
    let flat = pooling(json!({"radius": 1.0, "position_dim": 2}))?;
    refused("three coordinates of two", flat.forward(&line(&[0., 1.])?), &["[points, 2]", "[2, 3]"]);
    Ok(())
}
