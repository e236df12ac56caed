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
            &["physics.1: cache values must have shape", "as the keys"],
        ),
        (
            "keys of three axes",
            tensor("physics.1.keys", |keys| keys.flatten(0, 1)),
            &["physics.1: cache keys must have shape [batch, heads, tokens, head_dim]"],
        ),
        (
            "keys of another dtype",
            tensor("physics.1.keys", |keys| keys.to_dtype(DType::F16)),
            &["physics.1: cache values has dtype F32, expected F16"],
        ),
        (
            "keys that are NaN",
            tensor("physics.1.keys", |keys| keys * f64::NAN),
            &["physics.1: cache keys must be finite, got NaN or infinity"],
        ),
        (
            "infinite values",
            tensor("decoder.wing.0.values", |values| values / 0.0),
            &["decoder.wing.0: cache values must be finite"],
        ),
        (
            "a condition of whole numbers",
            tensor("condition", |condition| condition.to_dtype(DType::I64)),
            &["the condition must be finite numbers in f32"],
        ),
        (
            "a condition that is NaN",
            tensor("condition", |condition| condition * f64::NAN),
            &["the condition must be finite numbers in f32"],
        ),
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

/// A cache of a layer: its groups, and whatever tensors.
fn layer_cache(groups: Value, tensors: &[(&str, &str, &[u64], &[u8])]) -> Vec<u8> {
    let metadata = json!({
        "format": "candle-mixed-attention/kv-cache",
        "version": "1",
        "kv_cache": json!({"groups": groups}).to_string(),
    });
    let (mut header, mut data) = (serde_json::Map::from_iter([("__metadata__".to_string(), metadata)]), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert(name.to_string(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend_from_slice(bytes);
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

#[test]
fn caches_of_layers_that_cannot_be() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("layer.safetensors");
    let ones = [1f32; 2].map(f32::to_le_bytes).concat();
    let nan = [1f32, f32::NAN, 1.0, 1.0].map(f32::to_le_bytes).concat();
    let both = |dtype, shape: &'static [u64], bytes: &[u8]| {
        layer_cache(json!([["a", shape[2]]]), &[("keys", dtype, shape, bytes), ("values", dtype, shape, bytes)])
    };
    let padded = |shape: &[u64], mask: &[u8]| {
        let (keys, values) =
            (("keys", "F32", &[1, 1, 2, 2][..], &nan[..]), ("values", "F32", &[1, 1, 2, 2][..], &nan[..]));
        layer_cache(json!([["a", 2]]), &[keys, values, ("padding", "U8", shape, mask)])
    };
    let empty = &[][..];
    let endless = [
        ("keys", "F32", &[1, 1, 0, 2][..], empty),
        ("values", "F32", &[1, 1, 0, 2], empty),
        ("padding", "U8", &[1 << 62, 0], empty),
    ];
    let table: Vec<(&str, Vec<u8>, &str)> = vec![
        ("one token", both("F32", &[1, 1, 1, 2], &ones), "accepted"),
        ("no tokens", both("F32", &[1, 1, 0, 2], &[]), "accepted"),
        ("NaN in padding", padded(&[1, 2], &[0, 1]), "accepted"),
        ("NaN in a real token", padded(&[1, 2], &[1, 0]), "cache keys must be finite"),
        ("a mask of other tokens", padded(&[1, 4], &[0; 4]), "key_padding has 4 tokens, expected 2"),
        ("a mask of one axis", padded(&[2], &[0; 2]), "key_padding must have shape [batch, tokens]"),
        ("rows of padding without end", layer_cache(json!([["a", 0]]), &endless), "key_padding has batch size"),
        ("whole numbers", both("I64", &[1, 1, 1, 2], &[0; 16]), "cache keys has dtype I64"),
        ("8-bit floats", both("F8_E4M3", &[1, 1, 1, 2], &[0; 2]), "cache keys has dtype F8E4M3"),
        ("no heads", both("F32", &[1, 0, 1, 2], &[]), "heads ≥ 1"),
        ("no channels", both("F32", &[1, 1, 1, 0], &[]), "head_dim ≥ 1"),
        (
            "no groups",
            layer_cache(json!([]), &[("keys", "F32", &[1, 1, 0, 2], empty), ("values", "F32", &[1, 1, 0, 2], empty)]),
            "at least one group",
        ),
        ("more tokens than keys", layer_cache(json!([["a", 1u64 << 62]]), &endless[..2]), "cache keys has 0 tokens"),
        (
            "sizes that overflow",
            layer_cache(json!([["a", u64::MAX], ["b", u64::MAX]]), &endless[..2]),
            "add up to more than",
        ),
        ("a group twice", layer_cache(json!([["a", 0], ["a", 0]]), &endless[..2]), "'a' is defined twice"),
    ];
    for (case, bytes, expected) in table {
        std::fs::write(&path, bytes)?;
        let message = match KvCache::load_safetensors(&path, &Device::Cpu) {
            Ok(_) => "accepted".to_string(),
            Err(error) => error.to_string(),
        };
        assert!(message.contains(expected), "{case}: {message}");
    }
    let whole = String::from_utf8_lossy(&both("F32", &[1, 1, 1, 2], &ones)[8..]).into_owned();
    let header = whole[..=whole.rfind('}').expect("a header")].replacen("\"values\"", "\"keys\"", 1);
    let twice = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &ones, &ones].concat();
    std::fs::write(&path, twice)?;
    refused("a tensor twice", KvCache::load_safetensors(&path, &Device::Cpu), &["layer.safetensors"]);
    Ok(())
}
