//! Checkpoint files of every kind: the weights of `tests/torch_files` in all of them, and what is wrong with others.

use std::collections::HashMap;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Result;
use candle_core::{DType, Device, Tensor};
use candle_mixed_attention::models::ab_upt::{
    AbUpt, AbUptConfig, AbUptError, AbUptInput, Checkpoint, Geometry, TensorProblem,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

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
fn write_shards(folder: &Path) -> Result<PathBuf> {
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

#[test]
fn safetensors_files_that_cannot_be_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("weights.safetensors");
    let bytes = std::fs::read(stored("weights.safetensors"))?;
    let header = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    let tensor = |dtype: &str, end: usize| {
        let text = json!({"a": {"dtype": dtype, "shape": [2], "data_offsets": [0, end]}}).to_string();
        [header(&text), vec![0; end]].concat()
    };
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", vec![]),
        ("one byte", vec![7]),
        ("a length without a header", vec![9, 0, 0, 0, 0, 0, 0, 0]),
        ("a header beyond measure", [u64::MAX.to_le_bytes(), [b'x'; 8]].concat()),
        ("a header that is no JSON", header("{\"a\": ")),
        ("a header that is no text", header("\u{fffd}").into_iter().map(|byte| byte ^ 0x40).collect()),
        ("a dtype that candle does not have", tensor("BOOL", 2)),
        ("a dtype that does not exist", tensor("F7", 2)),
        ("a tensor twice", {
            let entry = r#""a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}"#;
            [header(&format!("{{{entry}, {entry}}}")), vec![0; 2]].concat()
        }),
        ("offsets that do not fit the shape", tensor("F32", 12)),
        ("text", b"state_dict".to_vec()),
        ("half", bytes[..bytes.len() / 2].to_vec()),
        ("all but a byte", bytes[..bytes.len() - 1].to_vec()),
        ("a byte too many", [bytes.as_slice(), &[0]].concat()),
    ];
    for (case, bytes) in table {
        std::fs::write(&path, bytes)?;
        refused(case, load(&path), &["weights.safetensors"]);
        // SAFETY: nobody else knows the file.
        refused(case, unsafe { Checkpoint::open_mapped(&path) }, &["weights.safetensors"]);
    }
    refused("no file", load(&folder.path().join("none.safetensors")), &["none.safetensors", "No such file"]);
    refused("a folder", load(folder.path()), &["directory"]);
    Ok(())
}

#[test]
fn indexes_that_cannot_be_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = write_shards(folder.path())?;
    let index = std::fs::read_to_string(&path)?;
    let unlisted = json!({"weight_map": {"rope.omega": "shard-0.safetensors", "rope.gamma": "shard-0.safetensors"}});
    let table: Vec<(&str, String, &[&str])> = vec![
        ("half an index", index[..index.len() / 2].to_string(), &["index.json", "EOF"]),
        ("no map", json!({"metadata": {}}).to_string(), &["index.json", "weight_map"]),
        ("a map of numbers", json!({"weight_map": {"rope.omega": 1}}).to_string(), &["index.json", "invalid type"]),
        ("a tensor that no shard holds", unlisted.to_string(), &["index.json", "which does not hold it"]),
        (
            "an empty map",
            json!({"weight_map": {}}).to_string(),
            &["missing", "domain_biases.surface.mlp.0.bias", "physics_blocks.2.norm2.weight"],
        ),
        (
            "a shard that does not exist",
            json!({"weight_map": {"rope.omega": "shard-9.safetensors"}}).to_string(),
            &["shard-9.safetensors", "No such file"],
        ),
    ];
    for (case, text, words) in table {
        std::fs::write(&path, text)?;
        refused(case, load(&path), words);
    }
    for name in ["/dev/zero", "../shard-0.safetensors", "./shard-0.safetensors", "a/b", "a\\b", "..", ".", "", "c:b"] {
        std::fs::write(&path, json!({"weight_map": {"rope.omega": name}}).to_string())?;
        refused(name, load(&path), &["index.json", "plain names", "rope.omega"]);
    }
    std::fs::write(&path, r#"{"weight_map": {"a": "x", "a": "y"}}"#)?;
    refused("a tensor twice", load(&path), &["index.json", "'a' stands there twice"]);
    #[cfg(unix)]
    {
        // A name that is plain, but no regular file behind it.
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("endless"))?;
        std::fs::write(&path, json!({"weight_map": {"rope.omega": "endless"}}).to_string())?;
        refused("an endless file", load(&path), &["endless", "not a regular file"]);
        // Stores of shared files are made of links.
        std::fs::rename(folder.path().join("shard-0.safetensors"), folder.path().join("blob"))?;
        std::os::unix::fs::symlink("blob", folder.path().join("shard-0.safetensors"))?;
    }
    std::fs::write(&path, &index)?;
    load(&path)?;
    let shard = folder.path().join("shard-1.safetensors");
    let bytes = std::fs::read(&shard)?;
    std::fs::write(&shard, &bytes[..bytes.len() - 1])?;
    refused("a truncated shard", load(&path), &["shard-1.safetensors"]);
    std::fs::remove_file(&shard)?;
    refused("a missing shard", load(&path), &["shard-1.safetensors", "No such file"]);
    Ok(())
}

/// Writes an archive of `torch.save` again, with its entries changed or left out.
pub fn repacked(archive: &Path, mut change: impl FnMut(&str, Vec<u8>) -> Option<Vec<u8>>) -> Result<Vec<u8>> {
    let mut source = ZipArchive::new(Cursor::new(std::fs::read(archive)?))?;
    let mut target = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for index in 0..source.len() {
        let mut entry = source.by_index(index)?;
        let (name, mut content) = (entry.name()?.into_owned(), Vec::new());
        entry.read_to_end(&mut content)?;
        if let Some(content) = change(&name, content) {
            target.start_file(name, options)?;
            target.write_all(&content)?;
        }
    }
    Ok(target.finish()?.into_inner())
}

/// A pickle of a few hundred bytes that unfolds to 2⁶⁰ objects.
fn bomb() -> Vec<u8> {
    let doublings = (0..60u8).flat_map(|level| [b'h', level, b'h', level, 0x86, b'q', level + 1]);
    [b"\x80\x02)q\x00".to_vec(), doublings.collect(), b".".to_vec()].concat()
}

/// A pickle of one tensor `w` in storage 0, with strides of 0.
pub fn tensor_pickle(shape: &[i64]) -> Vec<u8> {
    let number = |number: &i64| [b"\x8a\x08".as_slice(), &number.to_le_bytes()].concat();
    let shape_numbers: Vec<u8> = shape.iter().flat_map(number).collect();
    let strides: Vec<u8> = shape.iter().flat_map(|_| number(&0)).collect();
    [
        &b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"[..],
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x10tQK\x00(",
        &shape_numbers,
        b"t(",
        &strides,
        b"t\x89ccollections\nOrderedDict\n)RtRs.",
    ]
    .concat()
}

#[test]
fn pytorch_files_that_cannot_be_read() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("model.th");
    let bytes = std::fs::read(stored("new.th"))?;
    for len in [4, 5, 100, bytes.len() / 2, bytes.len() - 30, bytes.len() - 1] {
        std::fs::write(&path, &bytes[..len])?;
        refused(&format!("the first {len} bytes"), load(&path), &["model.th", "PyTorch"]);
    }
    let without =
        |part: &'static str| repacked(&stored("new.th"), |name, content| (!name.ends_with(part)).then_some(content));
    let pickle = |change: fn(Vec<u8>) -> Vec<u8>| {
        let change =
            move |name: &str, content| Some(if name.ends_with("data.pkl") { change(content) } else { content });
        repacked(&stored("new.th"), change)
    };
    let short = |name: &str, content: Vec<u8>| match name.ends_with("data/5") {
        true => Some(content[..content.len() / 2].to_vec()),
        false => Some(content),
    };
    let table: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("no pickle", without("data.pkl")?, &["no data.pkl"]),
        ("an empty pickle", pickle(|_| vec![])?, &["PyTorch"]),
        ("half a pickle", pickle(|pickle| pickle[..pickle.len() / 2].to_vec())?, &["PyTorch"]),
        ("a pickle of a number", pickle(|_| b"\x80\x02K\x05.".to_vec())?, &["dictionary"]),
        ("a pickle that is text", pickle(|_| b"import os".to_vec())?, &["PyTorch"]),
        ("a pickle of protocol 4", pickle(|_| b"\x80\x04\x95\x00.".to_vec())?, &["protocol 4", "torch.save writes 2"]),
        ("a pickle that unfolds", pickle(|_| bomb())?, &["dictionary"]),
        (
            "numbers beyond 64 bits",
            pickle(|_| tensor_pickle(&[1 << 40, 1 << 40]))?,
            &["tensor 'w'", "beyond its storage"],
        ),
        ("a billion numbers", pickle(|_| tensor_pickle(&[1000, 1_000_000]))?, &["tensor 'w'", "beyond its storage"]),
        (
            "no numbers of a size beyond 64 bits",
            pickle(|_| tensor_pickle(&[1 << 40, 1 << 40, 0]))?,
            &["beyond its storage"],
        ),
        ("a thousand axes", pickle(|_| tensor_pickle(&[1; 1000]))?, &["tensor 'w'", "1000 axes"]),
        ("no storage", without("data/5")?, &["tensor '", "data/5"]),
        ("a short storage", repacked(&stored("new.th"), short)?, &["tensor '", "beyond its storage"]),
        ("no tensors", std::fs::read(stored("nothing.pt"))?, &["no tensors"]),
        ("complex numbers", std::fs::read(stored("complex.pt"))?, &["tensor 'complex'", "ComplexFloatStorage"]),
    ];
    for (case, bytes, words) in table {
        std::fs::write(&path, bytes)?;
        refused(case, load(&path), &[words, &["model.th"]].concat());
    }
    // A changed number does not have the checksum of its storage.
    let mut damaged = bytes.clone();
    let weight = candle_core::safetensors::load(stored("weights.safetensors"), &Device::Cpu)?;
    let weight: Vec<f32> = weight["physics_blocks.1.norm2.bias"].to_vec1()?;
    let pattern: Vec<u8> = weight.into_iter().flat_map(f32::to_le_bytes).collect();
    let at = damaged.windows(pattern.len()).position(|window| window == pattern).expect("the numbers of a bias");
    damaged[at] ^= 1;
    std::fs::write(&path, damaged)?;
    refused("a damaged storage", load(&path), &["model.th", "physics_blocks.1.norm2.bias", "checksum"]);
    Ok(())
}

#[test]
fn damaged_files_are_an_error_or_a_checkpoint() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("damaged");
    let mut random = StdRng::seed_from_u64(5);
    let safetensors = std::fs::read(stored("weights.safetensors"))?;
    let index = std::fs::read(write_shards(folder.path())?)?;
    for round in 0..200 {
        let mut damage = |bytes: &[u8], head: usize| {
            let mut damaged = bytes.to_vec();
            for _ in 0..random.random_range(1..4) {
                let at = random.random_range(0..head.min(bytes.len()));
                damaged[at] = random.random();
            }
            damaged
        };
        let damaged = match round % 3 {
            0 => damage(&safetensors, 12_000),
            1 => damage(&index, usize::MAX),
            // With checksums that are right, so that the pickle is read.
            _ => repacked(&stored("new.th"), |name, content| {
                Some(if name.ends_with("data.pkl") { damage(&content, usize::MAX) } else { content })
            })?,
        };
        std::fs::write(&path, damaged)?;
        // Whatever comes: no panic.
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            let _ = checkpoint.config();
            let _ = checkpoint.load(&config(), DType::F32, &Device::Cpu);
        }
    }
    Ok(())
}

#[test]
fn configuration_files() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("config.json");
    let whole = std::fs::read_to_string(stored("config.json"))?;
    let table: &[(&str, String, &[&str])] = &[
        ("nothing", String::new(), &["EOF"]),
        ("half", whole[..whole.len() / 2].to_string(), &["EOF"]),
        ("a list", "[]".to_string(), &["configuration"]),
        ("an entry of no network", whole.replace("\"geometry_depth\"", "\"geometry_dept\""), &["geometry_dept"]),
        ("an unknown block", whole.replace("\"joint\"", "\"joined\""), &["joined", "perceiver"]),
        (
            "a key twice",
            whole.replace("\"num_heads\": 1", "\"num_heads\": 1, \"num_heads\": 1"),
            &["'num_heads' stands there twice"],
        ),
        ("no width", whole.replace("\"hidden_dim\": 6, \"num", "\"num"), &["hidden_dim"]),
        ("no heads", whole.replace("\"num_heads\": 1", "\"num_heads\": 0"), &["hidden_dim", "0 heads"]),
    ];
    for (case, text, words) in table {
        std::fs::write(&path, text)?;
        refused(case, AbUptConfig::read(&path), words);
    }
    std::fs::write(&path, [0xff, 0xfe])?;
    refused("no text", AbUptConfig::read(&path), &["config.json"]);
    refused("no file", AbUptConfig::read(folder.path().join("none.json")), &["none.json", "No such file"]);
    Ok(())
}
