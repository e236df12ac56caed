//! Bad input to an AB-UPT: a table of calls, each refused with an error that names what is wrong.

mod support;

use anyhow::Result;
use candle_core::{Device, Tensor};
use candle_mixed_attention::models::ab_upt::{AbUpt, AbUptCache, AbUptConfig, AbUptInput, Geometry};
use serde_json::{Value, json};

use support::ab_upt::{config, geometry, input, model, parse, points, weights};

/// Changes one entry of the configuration, given by its JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut config = config();
    *config.pointer_mut(pointer).expect("an entry of the configuration") = value;
    config
}

fn refused<T>(name: &str, result: Result<T, impl std::fmt::Display>, words: &[&str]) {
    let Err(error) = result else { panic!("{name}: accepted") };
    let message = error.to_string();
    for word in words {
        assert!(message.contains(word), "{name}: '{message}' does not say '{word}'");
    }
}

#[test]
fn configurations() {
    let pooling = |changes: Value| {
        let mut pooling = json!({"hidden_dim": 32, "radius": 0.5});
        pooling.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        with("/supernode_pooling", pooling)
    };
    let fields = |name: &str| json!([{"name": name, "dim": 1}]);
    let table: Vec<(&str, Value, &[&str])> = vec![
        ("width not divisible by heads", with("/num_heads", json!(3)), &["hidden_dim", "32", "3"]),
        ("no heads", with("/num_heads", json!(0)), &["hidden_dim", "0 heads"]),
        ("no feed-forward width", with("/mlp_hidden_dim", json!(0)), &["mlp_hidden_dim"]),
        ("four coordinates", with("/position_dim", json!(4)), &["position_dim", "4"]),
        ("heads too narrow for RoPE", with("/num_heads", json!(16)), &["head_dim", "2 for 3"]),
        ("unknown block", with("/physics_blocks", json!(["nope"])), &["physics_blocks", "nope", "perceiver"]),
        ("no domains", with("/domains", json!([])), &["domains"]),
        ("domain twice", with("/domains/1/name", json!("wing")), &["domains", "'wing' twice"]),
        ("domain with a dot", with("/domains/1/name", json!("a.b")), &["domains", "a.b"]),
        (
            "two fields of one name",
            json!({
                "hidden_dim": 32, "num_heads": 2, "mlp_hidden_dim": 64, "physics_blocks": ["self"],
                "domains": [{"name": "a", "decoder_blocks": 0, "fields": fields("b_c")},
                            {"name": "a_b", "decoder_blocks": 0, "fields": fields("c")}]
            }),
            &["fields", "a_b_c"],
        ),
        (
            "cross with one domain",
            json!({
                "hidden_dim": 32, "num_heads": 2, "mlp_hidden_dim": 64, "physics_blocks": ["cross"],
                "domains": [{"name": "a", "decoder_blocks": 0, "fields": fields("p")}]
            }),
            &["domains", "two", "cross"],
        ),
        ("condition twice", with("/condition/1/name", json!("alpha")), &["condition", "alpha"]),
        ("condition of width 0", with("/condition/1/dim", json!(0)), &["condition", "inflow"]),
        ("perceiver without pooling", with("/supernode_pooling", Value::Null), &["supernode_pooling", "none"]),
        ("radius and k", pooling(json!({"k": 3})), &["radius", "both"]),
        ("neither radius nor k", pooling(json!({"radius": null})), &["radius", "neither"]),
        ("k of 0", pooling(json!({"radius": null, "k": 0})), &["k", "0"]),
        ("negative radius", pooling(json!({"radius": -1.0})), &["radius", "-1"]),
        ("max_degree of 0", pooling(json!({"max_degree": 0})), &["max_degree"]),
        ("pooling of another width", pooling(json!({"hidden_dim": 16})), &["supernode_pooling", "32", "16"]),
        ("identity with readd", pooling(json!({"message_mode": "identity"})), &["readd_supernode_pos"]),
        ("features of width 0", pooling(json!({"input_features_dim": 0})), &["input_features_dim"]),
        ("unknown entry", pooling(json!({"radios": 1})), &["radios"]),
    ];
    for (name, config, words) in table {
        let made = serde_json::from_value::<AbUptConfig>(config).map_err(|error| error.to_string());
        refused(name, made.and_then(|config| config.validate().map_err(|error| error.to_string())), words);
    }
}

#[test]
fn first_passes() -> Result<()> {
    let model = model(&parse(config()))?;
    let good = || Ok::<_, candle_core::Error>(input(2)?.anchors("wing", &points(2, 6)?));
    model.forward(&good()?)?;
    let vector = |values: &[f32]| Tensor::new(values, &Device::Cpu);
    let conditions = |input: AbUptInput| Ok::<_, candle_core::Error>(input.condition("alpha", &vector(&[0.])?));
    let nan = (points(2, 6)? * f64::NAN)?;
    let table: Vec<(&str, AbUptInput, &[&str])> = vec![
        ("no anchors", input(2)?.queries("wing", &points(2, 3)?), &["anchors"]),
        ("unknown domain", good()?.anchors("tail", &points(2, 3)?), &["anchors", "tail", "wing_tip"]),
        ("unknown domain asked", good()?.queries("wing_", &points(2, 3)?), &["queries", "wing_"]),
        ("two axes", good()?.anchors("wing", &points(2, 6)?.flatten(0, 1)?), &["wing", "[batch, points, 3]"]),
        ("two coordinates", good()?.queries("wing", &points(2, 6)?.narrow(2, 0, 2)?), &["wing", "[2, 6, 2]"]),
        ("NaN", good()?.queries("wing_tip", &nan), &["queries of 'wing_tip'", "NaN"]),
        ("other batch", good()?.anchors("wing_tip", &points(3, 6)?), &["samples", "3", "2"]),
        ("geometry of another batch", good()?.geometry(&geometry(1)?), &["geometry", "1", "2"]),
        (
            "no geometry",
            conditions(AbUptInput::new())?.condition("inflow", &vector(&[0.; 3])?).anchors("wing", &points(2, 6)?),
            &["geometry"],
        ),
        (
            "condition missing",
            conditions(AbUptInput::new())?.geometry(&geometry(2)?).anchors("wing", &points(2, 6)?),
            &["inflow", "missing"],
        ),
        ("unknown condition", good()?.condition("beta", &vector(&[0.])?), &["beta", "alpha", "inflow"]),
        ("condition too wide", good()?.condition("alpha", &vector(&[0., 1.])?), &["alpha", "[2]"]),
        ("condition of NaN", good()?.condition("alpha", &vector(&[f32::NAN])?), &["alpha", "NaN"]),
        ("condition of another batch", good()?.condition("inflow", &points(1, 4)?.squeeze(0)?), &["inflow", "[4, 3]"]),
    ];
    for (name, input, words) in table {
        refused(name, model.forward(&input), words);
    }
    let plane = Tensor::rand(0f32, 1f32, (40, 2), &Device::Cpu)?;
    let samples: Vec<u32> = (0..40).map(|point| point / 20).collect();
    let plane = Geometry::batched(&plane, &[0, 1, 20, 21], &samples)?;
    refused("plane geometry", model.forward(&good()?.geometry(&plane)), &["[40, 2]"]);
    let features = geometry(2)?.with_features(&Tensor::zeros((40, 4), candle_core::DType::F32, &Device::Cpu)?)?;
    refused("features nobody reads", model.forward(&good()?.geometry(&features)), &["features", "none"]);
    Ok(())
}

#[test]
fn geometries() -> Result<()> {
    let positions = Tensor::rand(0f32, 1f32, (6, 3), &Device::Cpu)?;
    let two = [0, 0, 0, 1, 1, 1];
    let table: Vec<(&str, candle_core::Result<Geometry>, &[&str])> = vec![
        ("three axes", Geometry::new(&positions.unsqueeze(0)?, &[0]), &["[points, position_dim]"]),
        ("no points", Geometry::new(&positions.narrow(0, 0, 0)?, &[]), &["points", "0"]),
        ("no supernodes", Geometry::new(&positions, &[]), &["0 supernodes"]),
        ("NaN", Geometry::new(&(&positions * f64::NAN)?, &[0]), &["NaN"]),
        ("index out of range", Geometry::new(&positions, &[6]), &["below 6", "6"]),
        ("too few sample numbers", Geometry::batched(&positions, &[0], &[0]), &["6", "1"]),
        ("gap in the sample numbers", Geometry::batched(&positions, &[0], &[0, 0, 0, 2, 2, 2]), &["gaps", "1"]),
        ("huge sample number", Geometry::batched(&positions, &[0], &[0, 0, 0, 0, 0, u32::MAX]), &["gaps"]),
        ("supernodes not in order", Geometry::batched(&positions, &[3, 0], &two), &["sample by sample"]),
        ("sample without supernodes", Geometry::batched(&positions, &[0, 1], &two), &["sample by sample"]),
        ("unequal supernodes", Geometry::batched(&positions, &[0, 1, 3], &two), &["equally many"]),
    ];
    for (name, geometry, words) in table {
        refused(name, geometry, words);
    }
    Ok(())
}

#[test]
fn later_passes_and_caches() -> Result<()> {
    let config = parse(config());
    let own = model(&config)?;
    let cache = own.forward(&input(2)?.anchors("wing", &points(2, 6)?))?.cache;
    let none: [(&str, Tensor); 0] = [];
    refused("no queries", own.forward_cached(none, &cache), &["queries"]);
    refused("unknown domain", own.forward_cached([("tail", points(2, 3)?)], &cache), &["tail"]);
    refused("other batch", own.forward_cached([("wing", points(1, 3)?)], &cache), &["samples", "1", "2"]);
    refused("other weights", model(&config)?.forward_cached([("wing", points(2, 3)?)], &cache), &["weights"]);
    let other = model(&parse(with("/mlp_hidden_dim", json!(48))))?;
    refused("other configuration", other.forward_cached([("wing", points(2, 3)?)], &cache), &["configuration"]);
    let vb = candle_nn::VarBuilder::from_tensors(weights(&config)?, candle_core::DType::F64, &Device::Cpu);
    refused("f64", AbUpt::new(&config, vb), &["dtype", "f64"]);

    let folder = tempfile::tempdir()?;
    let path = folder.path().join("cache.safetensors");
    cache.save_safetensors(&path)?;
    let bytes = std::fs::read(&path)?;
    for len in [0, 4, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..len])?;
        refused("truncated cache", AbUptCache::load_safetensors(&path, &Device::Cpu), &["cache.safetensors"]);
    }
    cache_of_a_layer(&path)?;
    refused("cache of a layer", AbUptCache::load_safetensors(&path, &Device::Cpu), &["ab-upt-cache"]);
    refused("no file", AbUptCache::load_safetensors(folder.path().join("none"), &Device::Cpu), &["none"]);
    Ok(())
}

fn cache_of_a_layer(path: &std::path::Path) -> Result<()> {
    let keys = Tensor::zeros((1, 2, 3, 16), candle_core::DType::F32, &Device::Cpu)?;
    Ok(candle_mixed_attention::KvCache::from_groups([("a", keys.clone(), keys)], None)?.save_safetensors(path)?)
}
