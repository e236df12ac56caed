//! One function for each reader of the library: it takes any bytes, and what it makes of them is dropped. None may panic,
//! hang, or take memory beyond a multiple of its input.

use std::io::{Cursor, Write};
use std::path::Path;
use std::sync::OnceLock;

use candle_mixed_attention::KvCache;
use candle_mixed_attention::candle_core::{DType, Device};
use candle_mixed_attention::models::Normalisation;
use candle_mixed_attention::models::ab_upt::{AbUpt, AbUptCache, AbUptConfig, Checkpoint, Predictor};
use candle_nn::VarBuilder;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Reads some bytes.
pub type Reader = fn(&[u8]);

/// All readers, by the names of their folders of seeds.
pub const READERS: [(&str, Reader); 8] = [
    ("kv_cache", kv_cache),
    ("ab_upt_cache", ab_upt_cache),
    ("body", body),
    ("checkpoint", checkpoint),
    ("index", index),
    ("pickle", pickle),
    ("config", config),
    ("statistics", statistics),
];

/// A small network, whose weights are zeros.
const NETWORK: &str = include_str!("../seeds/config/config.json");

/// Statistics that it takes.
const STATISTICS: &str = r#"{"position": {"shift": [0, 0, 0], "scale": [1, 1, 1]}, "fields": [
    {"domain": "surface", "name": "pressure", "mean": [0], "std": [1]},
    {"domain": "volume", "name": "velocity", "mean": [0, 0, 0], "std": [1, 1, 1]},
    {"domain": "volume", "name": "pressure", "mean": [0], "std": [1]}]}"#;

/// What an index may name.
const SHARD: &[u8] = include_bytes!("../seeds/inspect/layer.safetensors");

/// Hands the bytes over as a file of this name, in a folder of its own.
fn as_file(bytes: &[u8], name: &str, read: impl FnOnce(&Path)) {
    let Ok(folder) = tempfile::tempdir() else { return };
    let path = folder.path().join(name);
    if std::fs::write(&path, bytes).is_ok() {
        read(&path);
    }
}

/// What predicts with the small network.
pub fn predictor() -> Option<&'static Predictor> {
    static PREDICTOR: OnceLock<Option<Predictor>> = OnceLock::new();
    let make = || {
        let config: AbUptConfig = serde_json::from_str(NETWORK).ok()?;
        let model = AbUpt::new(&config, VarBuilder::zeros(DType::F32, &Device::Cpu)).ok()?;
        Predictor::new(model, &serde_json::from_str(STATISTICS).ok()?).ok()
    };
    PREDICTOR.get_or_init(make).as_ref()
}

pub fn kv_cache(bytes: &[u8]) {
    as_file(bytes, "kv.safetensors", |path| {
        let _ = KvCache::load_safetensors(path, &Device::Cpu).map(|cache| (cache.fingerprint(), cache.batch()));
    });
}

pub fn ab_upt_cache(bytes: &[u8]) {
    as_file(bytes, "cache.safetensors", |path| drop(AbUptCache::load_safetensors(path, &Device::Cpu)));
}

/// A saved body, of the small network if it is one of any.
pub fn body(bytes: &[u8]) {
    as_file(bytes, "body.safetensors", |path| {
        let Some(Ok(body)) = predictor().map(|predictor| predictor.load(path)) else { return };
        let _ = body.predict("volume", &[0.1f32, 0.2, 0.3]);
    });
}

/// The index of a checkpoint, with a file of weights beside it.
pub fn index(bytes: &[u8]) {
    as_file(bytes, "model.safetensors.index.json", |path| {
        if std::fs::write(path.with_file_name("shard.safetensors"), SHARD).is_ok() {
            let _ = Checkpoint::open(path).map(|checkpoint| checkpoint.tensors().len());
        }
    });
}

/// Whatever kind of checkpoint the bytes are.
pub fn checkpoint(bytes: &[u8]) {
    as_file(bytes, "a.checkpoint", |path| {
        let Ok(checkpoint) = Checkpoint::open(path) else { return };
        if let Ok(Some(config)) = checkpoint.config() {
            let _ = checkpoint.check(&config);
            let _ = checkpoint.load(&config, DType::F32, &Device::Cpu);
        }
    });
}

/// A pickle, in the archive of a file of PyTorch with one storage.
pub fn pickle(bytes: &[u8]) {
    let archive = || {
        let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
        let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (name, content) in [("a/data.pkl", bytes), ("a/data/0", &[0; 64])] {
            archive.start_file(name, stored)?;
            archive.write_all(content)?;
        }
        archive.finish()
    };
    if let Ok(archive) = archive() {
        checkpoint(&archive.into_inner());
    }
}

pub fn config(bytes: &[u8]) {
    as_file(bytes, "config.json", |path| drop(AbUptConfig::read(path)));
}

pub fn statistics(bytes: &[u8]) {
    as_file(bytes, "statistics.json", |path| drop(Normalisation::read(path)));
}
