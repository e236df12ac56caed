//! Files that cannot be read, each with its words: safetensors, indexes of shards, archives of `torch.save`, descriptions.

use std::io::{Cursor, Read, Write};
use std::path::Path;

use anyhow::Result;
use candle_core::{DType, Device};
use candle_mixed_attention::models::ab_upt::{AbUptConfig, Checkpoint};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use super::checkpoints::{config, load, stored, write_shards};
use crate::support::refusal::refused;

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
