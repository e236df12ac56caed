//! Configurations, geometries and passes of whole networks.

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::models::ab_upt::{AbUpt, AbUptConfig, AbUptInput, Geometry};
use candle_nn::VarBuilder;
use serde_json::{Value, json};

use crate::support::ab_upt::{config, geometry, input, model, parse, points, weights};
use crate::support::refusal::refused;

/// Changes one entry of the configuration, given by its JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut config = config();
    *config.pointer_mut(pointer).expect("an entry of the configuration") = value;
    config
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
        ("feed-forward beyond measure", with("/mlp_hidden_dim", json!(1u64 << 40)), &["mlp_hidden_dim", "at most"]),
        (
            "field of width 0",
            with("/domains/0/fields/0/dim", json!(0)),
            &["dim of field 'wing_pressure'", "at least 1"],
        ),
        ("field beyond measure", with("/domains/0/fields/0/dim", json!(u64::MAX)), &["wing_pressure", "at most"]),
        ("condition beyond measure", with("/condition/0/dim", json!(u64::MAX)), &["condition 'alpha'", "at most"]),
        ("no fields", with("/domains/1/fields", json!([])), &["fields of 'wing_tip'", "none"]),
        ("domain without a name", with("/domains/1/name", json!("")), &["domains", "''"]),
        ("field twice", with("/domains/1/fields/1/name", json!("shear")), &["fields", "'wing_tip_shear' twice"]),
        ("negative depth", with("/geometry_depth", json!(-1)), &["-1"]),
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
        ("unknown mode", pooling(json!({"pos_mode": "nopos"})), &["nopos", "abspos"]),
        ("plane pooling", pooling(json!({"position_dim": 2})), &["supernode_pooling.position_dim", "3", "2"]),
        (
            "pooling that widens",
            pooling(json!({"message_mode": "identity", "readd_supernode_pos": false})),
            &["supernode_pooling", "output width of 32", "64"],
        ),
    ];
    for (name, config, words) in table {
        let made = serde_json::from_value::<AbUptConfig>(config).map_err(|error| error.to_string());
        refused(name, made.and_then(|config| config.validate().map_err(|error| error.to_string())), words);
    }
    for value in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let (wave, eps) = (parse(config()), parse(config()));
        let wave = AbUptConfig { max_wavelength: value, ..wave };
        refused("wavelength", wave.validate(), &["max_wavelength", "positive and finite", &value.to_string()]);
        let eps = AbUptConfig { layer_norm_eps: value, ..eps };
        refused("eps", eps.validate(), &["layer_norm_eps", "positive and finite", &value.to_string()]);
    }
    // What does not fit is refused by the network too, whoever made the configuration.
    let broken = AbUptConfig { num_heads: 0, ..parse(config()) };
    refused("a network", AbUpt::new(&broken, VarBuilder::zeros(DType::F32, &Device::Cpu)), &["hidden_dim", "0 heads"]);
}

#[test]
fn dtypes() -> Result<()> {
    let config = parse(config());
    for dtype in [DType::F64, DType::U8, DType::I64] {
        let vb = VarBuilder::from_tensors(weights(&config)?, dtype, &Device::Cpu);
        refused("dtype", AbUpt::new(&config, vb), &["dtype", "f32, f16 or bf16", dtype.as_str()]);
    }
    Ok(())
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
        ("empty meshes", input(2)?.anchors("wing", &points(2, 0)?).anchors("wing_tip", &points(2, 0)?), &["anchors"]),
        (
            "queries without anchors",
            input(2)?.anchors("wing", &points(2, 0)?).queries("wing_tip", &points(2, 3)?),
            &["anchors", "none"],
        ),
        ("only an unknown domain", input(2)?.anchors("tail", &points(2, 3)?), &["anchors", "tail", "wing_tip"]),
        ("unknown domain", good()?.anchors("tail", &points(2, 3)?), &["anchors", "tail", "wing_tip"]),
        ("unknown domain asked", good()?.queries("wing_", &points(2, 3)?), &["queries", "wing_"]),
        ("two axes", good()?.anchors("wing", &points(2, 6)?.flatten(0, 1)?), &["wing", "[batch, points, 3]"]),
        ("two coordinates", good()?.queries("wing", &points(2, 6)?.narrow(2, 0, 2)?), &["wing", "[2, 6, 2]"]),
        ("four axes", good()?.anchors("wing", &points(2, 6)?.unsqueeze(0)?), &["wing", "[1, 2, 6, 3]"]),
        ("no axes", good()?.anchors("wing", &vector(&[1.])?.squeeze(0)?), &["wing", "[batch, points, 3]", "[]"]),
        (
            "infinity",
            good()?.anchors("wing", &(points(2, 6)? / 0.)?),
            &["anchors of 'wing'", "must be finite", "inf as element [0, 0, 0]"],
        ),
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
        ("condition with three axes", good()?.condition("inflow", &points(2, 1)?), &["inflow", "[2, 3]", "[2, 1, 3]"]),
        ("condition without axes", good()?.condition("alpha", &vector(&[1.])?.squeeze(0)?), &["alpha", "[1]", "[]"]),
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
    let features = geometry(2)?.with_features(&Tensor::zeros((40, 4), DType::F32, &Device::Cpu)?)?;
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
fn geometries_come_only_where_they_are_read() -> Result<()> {
    let deaf = model(&parse(with("/physics_blocks", json!(["self", "joint"]))))?;
    let input = input(2)?.anchors("wing", &points(2, 6)?);
    refused("a geometry nobody reads", deaf.forward(&input), &["geometry", "no perceiver block"]);
    Ok(())
}

#[test]
fn fields_that_do_not_exist() -> Result<()> {
    let model = model(&parse(config()))?;
    let output = model.forward(&input(1)?.anchors("wing", &points(1, 6)?).queries("wing", &points(1, 2)?))?;
    let fields = &output.fields;
    refused("a field of another domain", fields.at_anchors("wing", "shear"), &["'wing_shear'", "wing_tip_shear"]);
    refused("an unknown domain", fields.at_anchors("tail", "pressure"), &["'tail_pressure'", "wing_pressure"]);
    refused("queries that were not given", fields.at_queries("wing_tip", "heat"), &["'query_wing_tip_heat'"]);
    let later = model.forward_from_cache([("wing", points(1, 2)?)], &output.cache)?;
    refused("anchors of a later pass", later.at_anchors("wing", "pressure"), &["'wing_pressure'", "query_wing"]);
    Ok(())
}

#[test]
fn batches_of_no_samples_have_no_anchors() -> Result<()> {
    // A geometry has at least one sample, so this is a network without one.
    let mut config = with("/physics_blocks", json!(["self", "cross_untied"]));
    config["condition"] = json!([]);
    let input = AbUptInput::new().anchors("wing", &points(0, 6)?).queries("wing", &points(0, 2)?);
    refused("no samples", model(&parse(config))?.forward(&input), &["anchors", "none"]);
    Ok(())
}

#[test]
fn positions_of_any_dtype_serve() -> Result<()> {
    let model = model(&parse(config()))?;
    // Whole numbers are the same in all of them.
    let grid = Tensor::new(&[[[0f32, 1., 0.], [1., 0., 1.], [0., 0., 1.]]], &Device::Cpu)?;
    let input = input(1)?;
    let want = model.forward(&input.clone().anchors("wing", &grid))?;
    for dtype in [DType::F64, DType::F16, DType::BF16, DType::I64, DType::U8] {
        let got = model.forward(&input.clone().anchors("wing", &grid.to_dtype(dtype)?))?;
        let name = dtype.as_str();
        crate::same(name, got.fields.get("wing_pressure")?, want.fields.get("wing_pressure")?);
    }
    Ok(())
}
