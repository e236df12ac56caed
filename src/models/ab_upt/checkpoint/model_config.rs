//! The configuration of a network from the `model_config` that the PyTorch package stores with the weights.

use serde_json::{Map, Value};

use crate::models::ab_upt::{AbUptConfig, Component, DomainConfig, PhysicsBlock, PoolingConfig};
use crate::modules::SquareBanks;

/// The domains of the networks of early 2026, which had no list of them.
const OLD_DOMAINS: [&str; 2] = ["surface", "volume"];

/// Reads the package's description of a network, or says what is wrong with it.
///
/// Which way round untied square weights are stored is not in the file; the usual [`SquareBanks::Plain`] is assumed.
pub(super) fn convert(model: &Value) -> Result<AbUptConfig, String> {
    let model = object("model_config", Some(model))?;
    let block = object("transformer_block_config", model.get("transformer_block_config"))?;
    let data = object("data_specs", model.get("data_specs"))?;
    if block.get("use_rope").and_then(Value::as_bool) == Some(false) {
        return Err("use_rope of the transformer blocks must be true, got false".to_string());
    }
    let hidden_dim = count("hidden_dim", model.get("hidden_dim").or_else(|| block.get("hidden_dim")))?;
    let mlp_hidden_dim = match (block.get("mlp_hidden_dim"), block.get("mlp_expansion_factor").and_then(Value::as_f64))
    {
        (Some(width), _) if !width.is_null() => count("mlp_hidden_dim", Some(width))?,
        (_, Some(factor)) => (hidden_dim as f64 * factor) as usize,
        _ => return Err("it has neither mlp_hidden_dim nor mlp_expansion_factor".to_string()),
    };
    let kinds = model.get("physics_blocks").and_then(Value::as_array).ok_or("physics_blocks is not a list")?;
    let parse = |kind: &Value| {
        let text = kind.as_str().ok_or("a physics block is not a text")?;
        text.parse::<PhysicsBlock>().map_err(|error| error.to_string())
    };
    let physics_blocks = kinds.iter().map(parse).collect::<Result<Vec<_>, String>>()?;
    let layer_scale = block.get("layerscale").is_some_and(|value| value.as_bool().unwrap_or(!value.is_null()));
    let position_dim = match data.get("position_dim") {
        None => 3,
        dim => count("position_dim", dim)?,
    };
    Ok(AbUptConfig {
        hidden_dim,
        num_heads: count("num_heads", block.get("num_heads"))?,
        mlp_hidden_dim,
        position_dim,
        max_wavelength: block.get("max_wavelength").and_then(Value::as_f64).unwrap_or(10_000.0),
        bias: block.get("bias").and_then(Value::as_bool).unwrap_or(true),
        layer_norm_eps: block.get("eps").and_then(Value::as_f64).unwrap_or(1e-6),
        layer_scale,
        untied_square_banks: physics_blocks.iter().any(|block| block.untied).then_some(SquareBanks::Plain),
        physics_blocks,
        geometry_depth: model.get("geometry_depth").map_or(Ok(0), |depth| count("geometry_depth", Some(depth)))?,
        supernode_pooling: match model.get("supernode_pooling_config") {
            None | Some(Value::Null) => None,
            pooling => Some(convert_pooling(object("supernode_pooling_config", pooling)?, hidden_dim, position_dim)?),
        },
        condition: match data.get("conditioning_dims") {
            None | Some(Value::Null) => Vec::new(),
            dims => components("conditioning_dims", dims)?,
        },
        domains: domains(model, data)?,
    })
}

/// Domains with their decoder depths and fields, in the order of the file.
fn domains(model: &Map<String, Value>, data: &Map<String, Value>) -> Result<Vec<DomainConfig>, String> {
    let depth = |domain: &str| {
        let new = model.get("num_domain_decoder_blocks").and_then(|depths| depths.get(domain));
        let old = model.get(&format!("num_{domain}_blocks"));
        count(&format!("number of decoder blocks of '{domain}'"), new.or(old))
    };
    let domain = |name: &str, fields: Option<&Value>| {
        let fields = components(&format!("output_dims of '{name}'"), fields)?;
        Ok(DomainConfig { name: name.to_string(), decoder_blocks: depth(name)?, fields })
    };
    match data.get("domains") {
        Some(Value::Object(domains)) => {
            domains.iter().map(|(name, spec)| domain(name, spec.get("output_dims"))).collect()
        }
        _ => OLD_DOMAINS.iter().map(|name| domain(name, data.get(&format!("{name}_output_dims")))).collect(),
    }
}

fn convert_pooling(
    pooling: &Map<String, Value>,
    hidden_dim: usize,
    position_dim: usize,
) -> Result<PoolingConfig, String> {
    let optional = |name: &str| match pooling.get(name) {
        None | Some(Value::Null) => Ok(None),
        value => count(name, value).map(Some),
    };
    Ok(PoolingConfig {
        hidden_dim: optional("hidden_dim")?.unwrap_or(hidden_dim),
        position_dim: optional("input_dim")?.unwrap_or(position_dim),
        radius: pooling.get("radius").and_then(Value::as_f64),
        k: optional("k")?,
        max_degree: optional("max_degree")?.unwrap_or(32),
        pos_mode: choice(pooling, &["abspos", "relpos", "absrelpos"])?,
        readd_supernode_pos: pooling.get("readd_supernode_pos").and_then(Value::as_bool).unwrap_or(true),
        aggregation: choice(pooling, &["mean", "sum"])?,
        message_mode: choice(pooling, &["mlp", "linear", "identity"])?,
        input_features_dim: optional("input_features_dim")?,
    })
}

/// The entry whose value is one of these words, whatever its name, which has changed over time; the default without one.
fn choice<T: Default + serde::de::DeserializeOwned>(object: &Map<String, Value>, words: &[&str]) -> Result<T, String> {
    let found = object.values().find(|value| value.as_str().is_some_and(|text| words.contains(&text)));
    found.map_or(Ok(T::default()), |value| T::deserialize(value).map_err(|error| error.to_string()))
}

fn object<'a>(name: &str, value: Option<&'a Value>) -> Result<&'a Map<String, Value>, String> {
    value.and_then(Value::as_object).ok_or_else(|| format!("{name} is not a dictionary"))
}

fn count(name: &str, value: Option<&Value>) -> Result<usize, String> {
    let number = value.and_then(Value::as_u64).and_then(|number| usize::try_from(number).ok());
    number.ok_or_else(|| format!("{name} must be a whole number, got {}", value.unwrap_or(&Value::Null)))
}

/// A dictionary of names and widths.
fn components(name: &str, value: Option<&Value>) -> Result<Vec<Component>, String> {
    let entry = |(key, dim): (&String, &Value)| Ok(Component { name: key.clone(), dim: count(key, Some(dim))? });
    object(name, value)?.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn description() -> Value {
        json!({
            "hidden_dim": 48,
            "physics_blocks": ["shared", "cross_untied"],
            "num_domain_decoder_blocks": {"hull": 2, "air": 0},
            "transformer_block_config": {"num_heads": 3, "mlp_expansion_factor": 4, "use_rope": true, "layerscale": 0.1},
            "data_specs": {
                "conditioning_dims": {"speed": 1, "angles": 2},
                "domains": {"hull": {"output_dims": {"pressure": 1}}, "air": {"output_dims": {"velocity": 3}}}
            }
        })
    }

    #[test]
    fn settings_become_a_configuration() {
        let config = convert(&description()).unwrap();
        assert_eq!((config.mlp_hidden_dim, config.position_dim, config.condition_dim()), (192, 3, 3));
        assert_eq!(config.physics_blocks, ["self", "cross_untied"].map(|block| block.parse().unwrap()));
        assert_eq!(config.domains.iter().map(|domain| domain.decoder_blocks).collect::<Vec<_>>(), [2, 0]);
        assert_eq!(config.untied_square_banks, Some(SquareBanks::Plain));
        assert!(config.layer_scale && config.supernode_pooling.is_none());
    }

    #[test]
    fn settings_that_cannot_work_are_named() {
        let cases = [
            ("/hidden_dim", json!("wide"), "hidden_dim must be a whole number, got \"wide\""),
            ("/physics_blocks", json!("self"), "physics_blocks is not a list"),
            ("/physics_blocks/0", json!("nope"), "'nope'"),
            ("/physics_blocks/0", json!(1), "a physics block is not a text"),
            ("/num_domain_decoder_blocks", json!({"hull": 2}), "number of decoder blocks of 'air'"),
            ("/transformer_block_config", json!(null), "transformer_block_config is not a dictionary"),
            ("/transformer_block_config/use_rope", json!(false), "use_rope of the transformer blocks must be true"),
            ("/transformer_block_config/num_heads", json!(-3), "num_heads must be a whole number, got -3"),
            ("/transformer_block_config/mlp_expansion_factor", json!(null), "neither mlp_hidden_dim nor"),
            ("/data_specs", json!([]), "data_specs is not a dictionary"),
            ("/data_specs/domains/air/output_dims", json!(null), "output_dims of 'air' is not a dictionary"),
            ("/data_specs/conditioning_dims/speed", json!(1.5), "speed must be a whole number, got 1.5"),
        ];
        for (pointer, value, expected) in cases {
            let mut changed = description();
            *changed.pointer_mut(pointer).unwrap() = value;
            let message = convert(&changed).unwrap_err();
            assert!(message.contains(expected), "{pointer}: expected '{expected}', got '{message}'");
        }
    }
}
