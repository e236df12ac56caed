//! Later passes, and the caches that they need.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::KvCache;
use candle_mixed_attention::models::ab_upt::{AbUpt, AbUptCache, AbUptConfig};
use candle_nn::VarBuilder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::ab_upt::{config, input, model, parse, points, weights};
use crate::support::refusal::refused;

/// The network of the support files with one entry changed, with the same weights where they have the same names.
fn related(weights: &HashMap<String, Tensor>, pointer: &str, value: Value) -> Result<AbUpt> {
    let mut changed = config();
    *changed.pointer_mut(pointer).expect("an entry of the configuration") = value;
    network(&parse(changed), weights, DType::F32)
}

fn network(config: &AbUptConfig, weights: &HashMap<String, Tensor>, dtype: DType) -> Result<AbUpt> {
    Ok(AbUpt::new(config, VarBuilder::from_tensors(weights.clone(), dtype, &Device::Cpu))?)
}

#[test]
fn later_passes() -> Result<()> {
    let own = model(&parse(config()))?;
    let cache = own.forward(&input(2)?.anchors("wing", &points(2, 6)?))?.cache;
    let none: [(&str, Tensor); 0] = [];
    refused("no queries", own.forward_from_cache(none, &cache), &["queries", "none"]);
    refused(
        "unknown domain",
        own.forward_from_cache([("tail", points(2, 3)?)], &cache),
        &["queries", "tail", "wing_tip"],
    );
    refused("other batch", own.forward_from_cache([("wing", points(1, 3)?)], &cache), &["samples", "1", "2"]);
    let two = points(2, 3)?.narrow(2, 0, 2)?;
    refused("two coordinates", own.forward_from_cache([("wing", two)], &cache), &["wing", "[batch, points, 3]"]);
    let nan = (points(2, 3)? * f64::NAN)?;
    refused("NaN", own.forward_from_cache([("wing", nan)], &cache), &["queries of 'wing'", "NaN"]);
    Ok(())
}

#[test]
fn caches_of_other_networks() -> Result<()> {
    let (config, weights) = (parse(config()), weights(&parse(config()))?);
    let own = network(&config, &weights, DType::F32)?;
    let cache = own.forward(&input(2)?.anchors("wing", &points(2, 6)?))?.cache;
    let queries = || Ok::<_, candle_core::Error>([("wing", points(2, 3)?)]);
    own.forward_from_cache(queries()?, &cache)?;

    let retrained = model(&config)?;
    refused("other weights", retrained.forward_from_cache(queries()?, &cache), &["hash of the weights"]);
    let half = network(&config, &weights, DType::F16)?;
    refused("another dtype", half.forward_from_cache(queries()?, &cache), &["dtype", "f16", "f32"]);
    // The error says which entries differ, and only those.
    let blocks = json!(["perceiver_untied", "self", "cross_untied", "joint"]);
    let shorter = related(&weights, "/physics_blocks", blocks)?.forward_from_cache(queries()?, &cache);
    refused("fewer blocks", shorter, &["configuration", "physics_blocks [", "\"perceiver\"]"]);
    related(&weights, "/domains/0/name", json!("wing"))?.forward_from_cache(queries()?, &cache)?;
    let far = related(&weights, "/supernode_pooling/radius", json!(0.25))?.forward_from_cache(queries()?, &cache);
    refused("another radius", far, &["supernode_pooling", "0.25", "0.5"]);
    Ok(())
}

/// A cache file, and what is in it.
struct Stored {
    folder: TempDir,
    metadata: HashMap<String, String>,
    tensors: HashMap<String, Tensor>,
}

impl Stored {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("cache.safetensors");
        let input = input(2)?.anchors("wing", &points(2, 6)?).anchors("wing_tip", &points(2, 4)?);
        model(&parse(config()))?.forward(&input)?.cache.save_safetensors(&path)?;
        let bytes = std::fs::read(&path)?;
        let metadata = SafeTensors::read_metadata(&bytes)?.1.metadata().clone().unwrap_or_default();
        Ok(Self { folder, metadata, tensors: candle_core::safetensors::load(&path, &Device::Cpu)? })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("cache.safetensors")
    }

    fn header(&self) -> Value {
        serde_json::from_str(&self.metadata["ab_upt_cache"]).expect("the header of a cache")
    }

    /// Reads the file again after one change.
    fn changed(
        &self,
        change: impl FnOnce(&mut HashMap<String, String>, &mut HashMap<String, Tensor>),
    ) -> Result<String> {
        let (mut metadata, mut tensors) = (self.metadata.clone(), self.tensors.clone());
        change(&mut metadata, &mut tensors);
        std::fs::write(self.path(), safetensors::serialize(tensors, Some(metadata))?)?;
        Ok(match load(&self.path()) {
            Ok(_) => "accepted".to_string(),
            Err(error) => error.to_string(),
        })
    }
}

fn load(path: &Path) -> candle_core::Result<AbUptCache> {
    AbUptCache::load_safetensors(path, &Device::Cpu)
}

#[test]
fn files_that_are_no_cache() -> Result<()> {
    let stored = Stored::new()?;
    let path = stored.path();
    let bytes = std::fs::read(&path)?;
    for len in [0, 4, 8, 100, bytes.len() / 2, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..len])?;
        refused(&format!("the first {len} bytes"), load(&path), &["cache.safetensors"]);
    }
    std::fs::write(&path, [bytes.as_slice(), &[0]].concat())?;
    refused("a byte too many", load(&path), &["cache.safetensors"]);
    let keys = Tensor::zeros((1, 2, 3, 16), DType::F32, &Device::Cpu)?;
    KvCache::from_groups([("a", keys.clone(), keys)], None)?.save_safetensors(&path)?;
    refused("cache of a layer", load(&path), &["ab-upt-cache"]);
    refused("no file", load(&stored.folder.path().join("none")), &["none"]);
    refused("a folder", load(stored.folder.path()), &["directory"]);
    Ok(())
}

#[test]
fn files_with_one_thing_wrong() -> Result<()> {
    type Change = Box<dyn FnOnce(&mut HashMap<String, String>, &mut HashMap<String, Tensor>)>;
    let stored = Stored::new()?;
    let entry = |key: &'static str, value: Value| -> Change {
        let mut header = stored.header();
        header[key] = value;
        Box::new(move |metadata, _| drop(metadata.insert("ab_upt_cache".to_string(), header.to_string())))
    };
    let metadata = |key: &'static str, value: &'static str| -> Change {
        Box::new(move |metadata, _| drop(metadata.insert(key.to_string(), value.to_string())))
    };
    let tensor = |name: &'static str, change: fn(&Tensor) -> candle_core::Result<Tensor>| -> Change {
        Box::new(move |_, tensors| {
            let changed = change(&tensors[name]).expect("a tensor");
            tensors.insert(name.to_string(), changed);
        })
    };
    let remove = |name: &'static str| -> Change { Box::new(move |_, tensors| drop(tensors.remove(name))) };
    let fewer_heads = {
        let mut config = config();
        config["num_heads"] = json!(1);
        entry("config", serde_json::to_value(parse(config))?)
    };
    let broken_config = {
        let mut config = serde_json::to_value(parse(config()))?;
        config["hidden_dim"] = json!(31);
        entry("config", config)
    };
    let table: Vec<(&str, Change, &[&str])> = vec![
        ("nothing", Box::new(|_, _| ()), &["accepted"]),
        ("another format", metadata("format", "pictures"), &["ab-upt-cache"]),
        ("another version", metadata("version", "2"), &["version 2", "reads 1"]),
        ("a header that is no JSON", metadata("ab_upt_cache", "{"), &["cache.safetensors", "EOF"]),
        ("no header", Box::new(|metadata, _| drop(metadata.remove("ab_upt_cache"))), &["lacks 'ab_upt_cache'"]),
        ("an unknown dtype", entry("dtype", json!("f8")), &["unknown dtype 'f8'"]),
        ("another dtype", entry("dtype", json!("f16")), &["physics.0.", "does not fit"]),
        ("another batch", entry("batch", json!(3)), &["does not fit"]),
        ("other heads", fewer_heads, &["physics.0.", "does not fit"]),
        ("a configuration that cannot work", broken_config, &["hidden_dim", "31"]),
        ("no parts", entry("parts", json!({})), &["'physics.0.' is missing"]),
        ("no keys", remove("physics.1.keys"), &["physics.1.keys", "missing"]),
        ("no values", remove("decoder.wing_tip.1.values"), &["decoder.wing_tip.1.values", "missing"]),
        ("no condition", remove("condition"), &["condition", "4 components"]),
        (
            "keys of fewer tokens",
            tensor("physics.1.keys", |keys| keys.narrow(2, 0, 3)?.contiguous()),
            &["physics.1.", "do not fit"],
        ),
        ("keys of three axes", tensor("physics.1.keys", |keys| keys.flatten(0, 1)), &["physics.1.", "do not fit"]),
        ("keys of another dtype", tensor("physics.1.keys", |keys| keys.to_dtype(DType::F16)), &["do not fit"]),
        ("a condition of one axis", tensor("condition", |condition| condition.get(0)), &["condition", "[4]"]),
        (
            "a condition of other rows",
            tensor("condition", |condition| condition.repeat((2, 1))),
            &["condition", "[4, 4]", "4 components"],
        ),
    ];
    for (case, change, words) in table {
        let message = stored.changed(change)?;
        for word in words {
            assert!(message.contains(word), "{case}: no '{word}' in: {message}");
        }
    }
    Ok(())
}

#[test]
fn damaged_files_are_an_error_or_a_cache() -> Result<()> {
    let stored = Stored::new()?;
    let bytes = std::fs::read(stored.path())?;
    let mut random = StdRng::seed_from_u64(11);
    for _ in 0..300 {
        let mut damaged = bytes.clone();
        for _ in 0..random.random_range(1..4) {
            // The header is where damage is seen; the rest are numbers.
            let at = random.random_range(0..8192.min(bytes.len()));
            damaged[at] = random.random();
        }
        std::fs::write(stored.path(), damaged)?;
        // Whatever it is: no panic.
        if let Ok(cache) = load(&stored.path()) {
            assert_eq!(cache.batch(), 2);
        }
    }
    Ok(())
}
