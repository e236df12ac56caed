//! What an AB-UPT promises besides the golden values.

mod support;

use std::sync::Arc;

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::LocalExchange;
use candle_mixed_attention::models::ab_upt::{AbUpt, AbUptCache, AbUptInput, Fields, KeyShare};
use serde_json::json;

use support::ab_upt::{config, geometry, input, model, parse, points};
use support::compare::{check_close, numbers};

fn assert_close(got: &Tensor, want: &Tensor) {
    check_close("field", got, want, 2e-5).unwrap();
}

/// The names of the fields with their shapes.
fn shapes(fields: &Fields) -> Vec<(String, Vec<usize>)> {
    fields.iter().map(|(name, values)| (name.to_string(), values.dims().to_vec())).collect()
}

#[test]
fn cached_queries_equal_queries_of_the_first_pass() -> Result<()> {
    let model = model(&parse(config()))?;
    let (wing, tip, queries) = (points(2, 9)?, points(2, 5)?, points(2, 7)?);
    let input = input(2)?.anchors("wing", &wing).anchors("wing_tip", &tip);
    let first = model.forward(&input.clone().queries("wing", &queries).queries("wing_tip", &queries))?;
    let later = model.forward_from_cache([("wing", queries.clone()), ("wing_tip", queries.clone())], &first.cache)?;
    for name in ["query_wing_pressure", "query_wing_tip_shear", "query_wing_tip_heat"] {
        assert_close(later.get(name)?, first.fields.get(name)?);
    }
    // Queries change nothing but their own predictions.
    let without = model.forward(&input)?;
    assert_close(without.fields.get("wing_pressure")?, first.fields.get("wing_pressure")?);
    // Nor does it matter which come together.
    let (head, tail) = (queries.narrow(1, 0, 3)?, queries.narrow(1, 3, 4)?);
    let head = model.forward_from_cache([("wing_tip", head)], &without.cache)?;
    let tail = model.forward_from_cache([("wing_tip", tail)], &without.cache)?;
    let both = Tensor::cat(&[head.at_queries("wing_tip", "shear")?, tail.at_queries("wing_tip", "shear")?], 1)?;
    assert_close(&both, later.at_queries("wing_tip", "shear")?);
    Ok(())
}

#[test]
fn domains_may_be_empty_or_absent() -> Result<()> {
    let model = model(&parse(config()))?;
    let first = model.forward(&input(1)?.anchors("wing", &points(1, 9)?).queries("wing", &points(1, 0)?))?;
    let expected = [
        ("wing_pressure", vec![1, 9, 1]),
        ("query_wing_pressure", vec![1, 0, 1]),
        ("wing_tip_shear", vec![1, 0, 3]),
        ("wing_tip_heat", vec![1, 0, 1]),
    ];
    assert_eq!(shapes(&first.fields), expected.map(|(name, shape)| (name.to_string(), shape)));
    // A domain without anchors can be asked, and the answer is that of one pass.
    let queries = points(1, 4)?;
    let later = model.forward_from_cache([("wing_tip", queries.clone()), ("wing", points(1, 0)?)], &first.cache)?;
    assert_eq!(later.at_queries("wing_tip", "heat")?.dims(), &[1, 4, 1]);
    assert_eq!(later.at_queries("wing", "pressure")?.dims(), &[1, 0, 1]);
    let nothing = model.forward_from_cache([("wing", points(1, 0)?)], &first.cache)?;
    assert_eq!(shapes(&nothing), [("query_wing_pressure".to_string(), vec![1, 0, 1])]);
    Ok(())
}

#[test]
fn samples_of_a_batch_do_not_mix() -> Result<()> {
    let model = model(&parse(config()))?;
    let (wing, tip) = (points(2, 6)?, points(2, 5)?);
    let positions = Tensor::rand(0f32, 1f32, (40, 3), &Device::Cpu)?;
    let condition = Tensor::new(&[[0.1f32, 0.2, 0.3], [0.9, 0.8, 0.7]], &Device::Cpu)?;
    let alpha = Tensor::new(&[0.3f32], &Device::Cpu)?;
    let pass = |geometry: &_, rows: std::ops::Range<usize>| {
        let narrow = |tensor: &Tensor| tensor.narrow(0, rows.start, rows.len());
        let input = AbUptInput::new().geometry(geometry).condition("alpha", &alpha);
        let input = input.condition("inflow", &narrow(&condition)?);
        model.forward(&input.anchors("wing", &narrow(&wing)?).anchors("wing_tip", &narrow(&tip)?))
    };
    // The points of the two samples alternate.
    let samples: Vec<u32> = (0..40).map(|point| point % 2).collect();
    type Geometry = candle_mixed_attention::models::ab_upt::Geometry;
    let both = pass(&Geometry::batched(&positions, &[0, 10, 30, 1, 5, 7], &samples)?, 0..2)?;
    for (sample, supernodes) in [(0, [0, 5, 15]), (1, [0, 2, 3])] {
        let own = positions.reshape((20, 2, 3))?.narrow(1, sample, 1)?.squeeze(1)?;
        let alone = pass(&Geometry::new(&own, &supernodes)?, sample..sample + 1)?;
        for (name, values) in alone.fields.iter() {
            assert_close(&both.fields.get(name)?.narrow(0, sample, 1)?, values);
        }
    }
    Ok(())
}

#[test]
fn conditions_go_by_name() -> Result<()> {
    let model = model(&parse(config()))?;
    let (geometry, wing) = (geometry(1)?, points(1, 6)?);
    let (alpha, inflow) = (Tensor::new(&[0.3f32], &Device::Cpu)?, Tensor::new(&[1f32, 2., 3.], &Device::Cpu)?);
    let base = AbUptInput::new().geometry(&geometry).anchors("wing", &wing);
    let one = model.forward(&base.clone().condition("alpha", &alpha).condition("inflow", &inflow))?;
    let other = model.forward(&base.condition("inflow", &inflow).condition("alpha", &alpha))?;
    assert_close(one.fields.get("wing_pressure")?, other.fields.get("wing_pressure")?);
    Ok(())
}

#[test]
fn a_saved_cache_serves_a_network_loaded_elsewhere() -> Result<()> {
    let (folder, config) = (tempfile::tempdir()?, parse(config()));
    let (model, path) = (model(&config)?, folder.path().join("cache.safetensors"));
    let first = model.forward(&input(1)?.anchors("wing", &points(1, 9)?).anchors("wing_tip", &points(1, 4)?))?;
    first.cache.save_safetensors(&path)?;
    let loaded = AbUptCache::load_safetensors(&path, &Device::Cpu)?;
    assert_eq!(loaded.fingerprint(), first.cache.fingerprint());
    let queries = points(1, 30)?;
    let fields = |cache| model.forward_from_cache([("wing", queries.clone())], cache);
    assert_close(fields(&loaded)?.get("query_wing_pressure")?, fields(&first.cache)?.get("query_wing_pressure")?);
    Ok(())
}

/// What each of so many networks makes that keep the keys of a share of the anchors each.
fn on_shares<T: Send>(model: &AbUpt, ranks: usize, work: impl Fn(AbUpt) -> Result<T> + Sync) -> Result<Vec<T>> {
    std::thread::scope(|scope| {
        let start = |exchange| scope.spawn(|| work(model.clone().with_exchange(Arc::new(exchange))));
        let threads: Vec<_> = LocalExchange::connect(ranks).into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
    })
}

#[test]
fn networks_with_a_share_of_the_anchors_each_give_what_one_gives() -> Result<()> {
    let model = model(&parse(config()))?;
    // More networks than a domain has anchors, a domain without any, several samples.
    for (batch, wing, tip) in [(1, 90, 41), (2, 3, 70), (1, 50, 0)] {
        let input = input(batch)?.anchors("wing", &points(batch as usize, wing)?);
        let input = if tip > 0 { input.anchors("wing_tip", &points(batch as usize, tip)?) } else { input };
        let queries = points(batch as usize, 33)?;
        let input = input.queries("wing_tip", &queries);
        let ask = |model: &AbUpt, cache: &AbUptCache| {
            model.forward_from_cache([("wing", queries.clone()), ("wing_tip", queries.clone())], cache)
        };
        let first = model.forward(&input)?;
        let later = ask(&model, &first.cache)?;
        for ranks in [1, 2, 4] {
            let shares = on_shares(&model, ranks, |model| {
                let first = model.forward(&input)?;
                let later = ask(&model, &first.cache)?;
                Ok((first, later))
            })?;
            for (rank, (own_first, own_later)) in shares.iter().enumerate() {
                let pairs = own_first.fields.iter().zip(first.fields.iter()).chain(own_later.iter().zip(later.iter()));
                for ((name, got), (expected_name, want)) in pairs {
                    assert_eq!((name, got.dims()), (expected_name, want.dims()));
                    let (got, want) = (numbers(got)?, numbers(want)?);
                    let squared = |numbers: &mut dyn Iterator<Item = f64>| numbers.map(|x| x * x).sum::<f64>();
                    let off = squared(&mut got.iter().zip(&want).map(|(got, want)| got - want));
                    let off = (off / squared(&mut want.iter().copied()).max(f64::MIN_POSITIVE)).sqrt();
                    // Seven blocks of random weights make more of what a layer is off by.
                    let allowed = if ranks == 1 { 0.0 } else { 1e-5 };
                    assert!(off <= allowed, "{ranks} ranks: {name} is off by {off:e}");
                }
                assert_eq!(own_first.cache.fingerprint().share, KeyShare { rank, ranks });
            }
        }
    }
    Ok(())
}

#[test]
fn a_share_of_the_anchors_is_not_taken_for_all_of_them() -> Result<()> {
    let (folder, model) = (tempfile::tempdir()?, model(&parse(config()))?);
    let (input, queries) = (input(1)?.anchors("wing", &points(1, 40)?), points(1, 5)?);
    let path = |rank: usize| folder.path().join(format!("{rank}.safetensors"));
    on_shares(&model, 2, |model| {
        let cache = model.forward(&input)?.cache;
        Ok(cache.save_safetensors(path(cache.fingerprint().share.rank))?)
    })?;
    let load = |rank| AbUptCache::load_safetensors(path(rank), &Device::Cpu);
    let error = model.forward_from_cache([("wing", queries.clone())], &load(1)?).unwrap_err().to_string();
    assert!(
        error.contains("the share of the keys") && error.contains("all") && error.contains("rank 1 of 2"),
        "{error}"
    );
    Ok(())
}

#[test]
fn half_precision_stays_near() -> Result<()> {
    let config = parse(config());
    let weights = support::ab_upt::weights(&config)?;
    let input = input(1)?.anchors("wing", &points(1, 9)?).anchors("wing_tip", &points(1, 4)?);
    let run = |dtype| {
        let vb = candle_nn::VarBuilder::from_tensors(weights.clone(), dtype, &Device::Cpu);
        let model = candle_mixed_attention::models::ab_upt::AbUpt::new(&config, vb)?;
        model.forward(&input)?.fields.get("wing_tip_shear").cloned().map_err(anyhow::Error::from)
    };
    let wide = run(DType::F32)?;
    let scale = wide.abs()?.max_all()?.to_scalar::<f32>()? as f64;
    for (dtype, bound) in [(DType::F16, 0.004), (DType::BF16, 0.03)] {
        check_close("half", &run(dtype)?, &wide, bound * scale).unwrap();
    }
    Ok(())
}

#[test]
fn block_names_and_configurations_survive_json() -> Result<()> {
    let config = parse(config());
    assert_eq!(parse(serde_json::to_value(&config)?), config);
    let mut shared = self::config();
    shared["physics_blocks"] = json!(["shared", "self"]);
    assert_eq!(parse(shared).physics_blocks[0], parse(self::config()).physics_blocks[1]);
    Ok(())
}
