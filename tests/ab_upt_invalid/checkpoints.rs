//! Checkpoint files of every kind: the weights of `tests/torch_files` in all of them, and what is wrong with others.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::models::ab_upt::{
    AbUpt, AbUptConfig, AbUptError, AbUptInput, Checkpoint, Geometry, TensorProblem,
};
use serde_json::json;

use crate::support::refusal::refused;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/torch_files");

pub fn stored(name: &str) -> PathBuf {
    Path::new(FOLDER).join(name)
}

pub fn config() -> AbUptConfig {
    AbUptConfig::read(stored("config.json")).expect("a valid configuration")
}

pub fn weights() -> Result<HashMap<String, Tensor>> {
    Ok(candle_core::safetensors::load(stored("weights.safetensors"), &Device::Cpu)?)
}

pub fn load(path: &Path) -> Result<AbUpt, AbUptError> {
    Checkpoint::open(path)?.load(&config(), DType::F32, &Device::Cpu)
}

/// The fields that a network predicts at a few fixed points.
pub fn prediction(model: &AbUpt) -> Result<Tensor> {
    let points = |start: f32| (Tensor::arange(start, start + 15., &Device::Cpu)? / 9.)?.sin();
    let geometry = Geometry::new(&points(3.)?.reshape((5, 3))?, &[0, 3])?;
    let positions = |start| points(start)?.reshape((1, 5, 3));
    let input = AbUptInput::new().geometry(&geometry).anchors("surface", &positions(7.)?);
    let fields = model.forward(&input.anchors("volume", &positions(8.)?))?.fields;
    let fields = fields.iter().map(|(_, values)| values.flatten_all()).collect::<candle_core::Result<Vec<_>>>()?;
    Ok(Tensor::cat(&fields, 0)?)
}

/// Writes the weights as two shards with an index, and returns its path.
pub fn write_shards(folder: &Path) -> Result<PathBuf> {
    let (mut shards, mut index) = ([HashMap::new(), HashMap::new()], serde_json::Map::new());
    for (position, (name, tensor)) in weights()?.into_iter().enumerate() {
        let shard = position % 2;
        index.insert(name.clone(), json!(format!("shard-{shard}.safetensors")));
        shards[shard].insert(name, tensor);
    }
    for (shard, tensors) in shards.iter().enumerate() {
        candle_core::safetensors::save(tensors, folder.join(format!("shard-{shard}.safetensors")))?;
    }
    let path = folder.join("weights.safetensors.index.json");
    std::fs::write(&path, json!({"metadata": {"total_size": 1}, "weight_map": index}).to_string())?;
    Ok(path)
}

#[test]
fn every_kind_of_file_holds_the_same_weights() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let want = prediction(&load(&stored("weights.safetensors"))?)?;
    let files = [stored("new.th"), stored("old.th"), stored("bare.pt"), write_shards(folder.path())?];
    for path in files {
        let name = path.display().to_string();
        crate::same(&name, &prediction(&load(&path)?)?, &want);
    }
    for path in [stored("weights.safetensors"), folder.path().join("weights.safetensors.index.json")] {
        // SAFETY: nobody changes the files of the repository or of this folder.
        let mapped = unsafe { Checkpoint::open_mapped(&path)? };
        mapped.check(&config())?;
        crate::same("mapped", &prediction(&mapped.load(&config(), DType::F32, &Device::Cpu)?)?, &want);
    }
    // A wrapper that nobody has heard of.
    let wrapped = weights()?.into_iter().map(|(name, tensor)| (format!("net.inner.{name}"), tensor)).collect();
    let path = folder.path().join("wrapped.safetensors");
    candle_core::safetensors::save(&wrapped, &path)?;
    crate::same("wrapped", &prediction(&load(&path)?)?, &want);
    Ok(())
}

#[test]
fn files_of_the_package_describe_their_network() -> Result<()> {
    for name in ["new.th", "old.th"] {
        assert_eq!(Checkpoint::open(stored(name))?.config()?, Some(config()), "{name}");
    }
    for name in ["bare.pt", "weights.safetensors"] {
        assert_eq!(Checkpoint::open(stored(name))?.config()?, None, "{name}");
    }
    let other = Checkpoint::open(stored("other_model.th"))?;
    refused("another kind of network", other.config(), &["other_model.th", "model_config", "transformer_block_config"]);
    Ok(())
}

/// The problems of a file with these weights.
fn problems(folder: &Path, weights: &HashMap<String, Tensor>) -> Result<(Vec<TensorProblem>, String)> {
    let path = folder.join("changed.safetensors");
    candle_core::safetensors::save(weights, &path)?;
    let checkpoint = Checkpoint::open(&path)?;
    let checked = checkpoint.check(&config()).expect_err("a check that fails").to_string();
    let error = checkpoint.load(&config(), DType::F32, &Device::Cpu).expect_err("a network that does not load");
    let message = error.to_string();
    assert_eq!(checked, message, "check and load say the same");
    match error {
        AbUptError::Tensors { problems, .. } => Ok((problems, message)),
        other => panic!("{other}"),
    }
}

#[test]
fn one_error_lists_every_tensor_that_does_not_fit() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut weights = weights()?;
    let missing = ["geometry_blocks.0.mlp.fc2.bias", "physics_blocks.0.attn.q.weight"];
    let misshapen = ["domain_biases.volume.mlp.2.bias", "encoder.proj.project.weight", "pos_embed.omega"];
    let unexpected = ["domain_biases.wake.mlp.0.weight", "physics_blocks.3.norm1.weight"];
    let shapes = [(vec![6], vec![5]), (vec![6, 12], vec![12, 6]), (vec![1], vec![3])];
    missing.iter().for_each(|name| drop(weights.remove(*name)));
    for (name, (_, got)) in misshapen.iter().zip(&shapes) {
        weights.insert(name.to_string(), Tensor::zeros(got.as_slice(), DType::F32, &Device::Cpu)?);
    }
    for name in unexpected {
        weights.insert(name.to_string(), Tensor::zeros((2, 7), DType::F32, &Device::Cpu)?);
    }
    let (problems, message) = problems(folder.path(), &weights)?;
    let names = problems.iter().map(|problem| match problem {
        TensorProblem::Missing { name, .. } => format!("missing {name}"),
        TensorProblem::Shape { name, expected, got } => format!("shape {name} {expected:?} {got:?}"),
        TensorProblem::Unexpected { name, got } => format!("unexpected {name} {got:?}"),
        other => format!("{other}"),
    });
    let misshapen =
        misshapen.iter().zip(&shapes).map(|(name, (expected, got))| format!("shape {name} {expected:?} {got:?}"));
    let want = missing.iter().map(|name| format!("missing {name}"));
    let want = want.chain(misshapen).chain(unexpected.iter().map(|name| format!("unexpected {name} [2, 7]")));
    assert_eq!(names.collect::<Vec<_>>(), want.collect::<Vec<_>>());
    for name in missing.iter().chain(&unexpected) {
        assert!(message.contains(name), "no {name} in: {message}");
    }
    assert!(message.contains("changed.safetensors"), "{message}");
    Ok(())
}

#[test]
fn numbers_that_no_weight_has_are_listed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (whole, first, last) =
        ("domain_biases.volume.mlp.2.bias", "physics_blocks.0.attn.q.weight", "physics_blocks.2.norm2.weight");
    let filled = |name: &str, value: f32, at: usize| -> Result<Tensor> {
        let tensor = &weights()?[name];
        let mut numbers: Vec<f32> = tensor.flatten_all()?.to_vec1()?;
        numbers[at] = value;
        Ok(Tensor::from_vec(numbers, tensor.shape(), &Device::Cpu)?)
    };
    type Changed = Vec<(&'static str, Tensor)>;
    let table: Vec<(&str, DType, Changed, Vec<String>)> = vec![
        (
            "whole numbers",
            DType::F32,
            vec![
                (whole, weights()?[whole].to_dtype(DType::I64)?),
                (first, weights()?[first].to_dtype(DType::U8)?),
                (last, weights()?[last].to_dtype(DType::F64)?),
            ],
            vec![
                format!("dtype: {whole} must be of a floating type, got i64"),
                format!("dtype: {first} must be of a floating type, got u8"),
            ],
        ),
        (
            "NaN and infinity",
            DType::F32,
            vec![(whole, filled(whole, f32::NAN, 5)?), (last, filled(last, f32::NEG_INFINITY, 0)?)],
            vec![
                format!("not finite: {whole} holds NaN in f32, first as number 5"),
                format!("not finite: {last} holds -inf in f32, first as number 0"),
            ],
        ),
        (
            "too large for f16",
            DType::F16,
            vec![(first, filled(first, 1e6, 7)?)],
            vec![format!("not finite: {first} holds inf in f16, first as number 7")],
        ),
        ("8-bit floats", DType::F32, vec![(first, weights()?[first].to_dtype(DType::F8E4M3)?)], vec![]),
        ("large, but not too large", DType::BF16, vec![(first, filled(first, 1e6, 7)?)], vec![]),
    ];
    for (case, dtype, changed, expected) in table {
        let mut weights = weights()?;
        changed.into_iter().for_each(|(name, tensor)| drop(weights.insert(name.to_string(), tensor)));
        let path = folder.path().join("changed.safetensors");
        candle_core::safetensors::save(&weights, &path)?;
        let problems = match Checkpoint::open(&path)?.load(&config(), dtype, &Device::Cpu) {
            Ok(_) => Vec::new(),
            Err(AbUptError::Tensors { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
            Err(other) => panic!("{case}: {other}"),
        };
        assert_eq!(problems, expected, "{case}");
    }
    Ok(())
}

/// What a person reads in the end.
#[test]
fn errors_say_everything_once_and_without_a_backtrace() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let missing = folder.path().join("missing.safetensors");
    let error = anyhow::Error::from(Checkpoint::open(&missing).expect_err("no file"));
    let message = format!("{error:#}");
    assert_eq!(message, format!("'{}': No such file or directory (os error 2)", missing.display()));

    let error = candle_core::Error::Msg("first".to_string());
    let traced = || candle_core::Error::WithBacktrace {
        inner: Box::new(candle_core::Error::Msg("first".to_string())),
        backtrace: Box::new(std::backtrace::Backtrace::force_capture()),
    };
    assert_ne!(traced().to_string(), error.to_string());
    assert_eq!(AbUptError::from(traced()).to_string(), "first");
    Ok(())
}

#[test]
fn names_of_files_choose_the_words() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let noise: Vec<u8> = (0..1000u32).map(|at| (at * 37 % 251) as u8).collect();
    let table = [
        ("noise.th", "is not a readable PyTorch file: it is not a zip archive"),
        ("noise.pt", "is not a readable PyTorch file"),
        ("noise.safetensors", "is not a readable safetensors file"),
        ("noise", "is not a readable safetensors file"),
    ];
    for (name, words) in table {
        let path = folder.path().join(name);
        std::fs::write(&path, &noise)?;
        refused(name, load(&path), &[name, words]);
    }
    // What counts is the content.
    let path = folder.path().join("weights.pt");
    std::fs::copy(stored("weights.safetensors"), &path)?;
    load(&path)?;
    Ok(())
}

#[test]
fn fused_and_separate_projections_exclude_each_other() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut weights = weights()?;
    let prefix = "physics_blocks.1.attention_block.mixed_attention";
    let fused = ["q", "k", "v"].map(|part| weights[&format!("{prefix}.{part}.weight")].clone());
    weights.insert(format!("{prefix}.qkv.weight"), Tensor::cat(&fused, 0)?);
    let (_, message) = problems(folder.path(), &weights)?;
    for word in ["missing", "qkv.bias", "unexpected", "q.weight", "v.bias"] {
        assert!(message.contains(word), "no {word} in: {message}");
    }
    Ok(())
}

#[test]
fn names_that_mean_the_same_tensor_are_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut weights = weights()?;
    weights.insert("backbone.rope.omega".to_string(), weights["rope.omega"].clone());
    let path = folder.path().join("twice.safetensors");
    candle_core::safetensors::save(&weights, &path)?;
    refused("twice", Checkpoint::open(&path), &["'rope.omega'", "'backbone.rope.omega'", "same tensor"]);
    Ok(())
}

#[test]
fn configurations_beyond_measure_end_soon() -> Result<()> {
    let checkpoint = Checkpoint::open(stored("weights.safetensors"))?;
    let mut deep = config();
    deep.domains[0].decoder_blocks = usize::MAX;
    refused("a tower of blocks", checkpoint.check(&deep), &["missing", "domain_decoder_blocks.surface.1.norm1.weight"]);
    let mut wide = config();
    wide.hidden_dim = 1 << 24;
    wide.supernode_pooling.iter_mut().for_each(|pooling| pooling.hidden_dim = 1 << 24);
    refused("a wide network", checkpoint.check(&wide), &["shape", "16777216"]);
    Ok(())
}
