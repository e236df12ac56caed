//! One function for each reader of the library: it takes any bytes, and what it makes of them is dropped. None may panic,
//! hang, or take memory beyond a multiple of its input.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use candle_mixed_attention::KvCache;
use candle_mixed_attention::candle_core::{DType, Device};
use candle_mixed_attention::models::Normalisation;
use candle_mixed_attention::models::ab_upt::{AbUptCache, AbUptConfig, Checkpoint};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// Reads some bytes.
pub type Reader = fn(&[u8]);

/// All readers, by the names of their folders of seeds.
pub const READERS: [(&str, Reader); 6] = [
    ("kv_cache", kv_cache),
    ("ab_upt_cache", ab_upt_cache),
    ("checkpoint", checkpoint),
    ("pickle", pickle),
    ("config", config),
    ("statistics", statistics),
];

/// Hands the bytes over as a file, whose name ends like this.
fn as_file(bytes: &[u8], ending: &str, read: impl FnOnce(&Path)) {
    let path: PathBuf = std::env::temp_dir().join(format!("mixed-attention-{}{ending}", std::process::id()));
    if std::fs::write(&path, bytes).is_ok() {
        read(&path);
        let _ = std::fs::remove_file(&path);
    }
}

pub fn kv_cache(bytes: &[u8]) {
    as_file(bytes, ".kv.safetensors", |path| {
        let _ = KvCache::load_safetensors(path, &Device::Cpu).map(|cache| (cache.fingerprint(), cache.batch()));
    });
}

pub fn ab_upt_cache(bytes: &[u8]) {
    as_file(bytes, ".cache.safetensors", |path| drop(AbUptCache::load_safetensors(path, &Device::Cpu)));
}

/// Whatever kind of checkpoint the bytes are.
pub fn checkpoint(bytes: &[u8]) {
    as_file(bytes, ".checkpoint", |path| {
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
    as_file(bytes, ".config.json", |path| drop(AbUptConfig::read(path)));
}

pub fn statistics(bytes: &[u8]) {
    as_file(bytes, ".statistics.json", |path| drop(Normalisation::read(path)));
}
