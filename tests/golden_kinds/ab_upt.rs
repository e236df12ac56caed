//! `ab_upt`: the whole network, in one or several passes.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use candle_mixed_attention::models::ab_upt::{AbUpt, AbUptCache, AbUptConfig, AbUptInput};

use super::pooling::geometry;
use super::{Case, Setting, Tensors, check, parse};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Pass {
    anchors: BTreeMap<String, String>,
    queries: BTreeMap<String, String>,
    cache_from: Option<usize>,
    outputs: BTreeMap<String, String>,
}

pub fn run(case: &Case, setting: &Setting) -> Result<()> {
    let config: AbUptConfig = parse(&case.config)?;
    let tensors = Tensors::load(case, setting)?;
    let model = AbUpt::new(&config, tensors.weights())?.with_backend(setting.runner.backend, setting.runner.simd);
    let mut caches: Vec<Option<AbUptCache>> = Vec::new();
    for pass in &case.passes {
        let pass: Pass = parse(pass)?;
        let (fields, cache) = match pass.cache_from {
            Some(from) => {
                let cache = caches.get(from).and_then(Option::as_ref);
                let cache = cache.ok_or_else(|| anyhow!("pass {from} made no cache"))?;
                let queries =
                    pass.queries.iter().map(|(domain, name)| Ok((domain.clone(), tensors.raw(name)?.clone())));
                (model.forward_from_cache(queries.collect::<Result<Vec<_>>>()?, cache)?, None)
            }
            None => {
                let output = model.forward(&first_pass(&config, &pass, &tensors)?)?;
                (output.fields, Some(output.cache))
            }
        };
        for (field, expected) in &pass.outputs {
            check(&tensors, setting, expected, fields.get(field)?)?;
        }
        caches.push(cache);
    }
    Ok(())
}

fn first_pass(config: &AbUptConfig, pass: &Pass, tensors: &Tensors) -> Result<AbUptInput> {
    let mut input = AbUptInput::new();
    for (domain, name) in &pass.anchors {
        input = input.anchors(domain, tensors.raw(name)?);
    }
    for (domain, name) in &pass.queries {
        input = input.queries(domain, tensors.raw(name)?);
    }
    if config.uses_geometry() {
        input = input.geometry(&geometry(tensors, "in.geometry")?);
    }
    let mut start = 0;
    for condition in &config.condition {
        let value = tensors.raw("in.condition")?.narrow(1, start, condition.dim)?;
        input = input.condition(&condition.name, &value);
        start += condition.dim;
    }
    Ok(input)
}
