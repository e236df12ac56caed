//! What later passes need of a first one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use super::config::AbUptConfig;
use super::error::AbUptError;
use crate::cache::CacheHeader;
use crate::cache::KvCache;
use crate::cache::file::{CacheFormat, not_a_cache};
use crate::models::Normalisation;
use crate::ops::is_finite;
use crate::transfer::to_device;

const FORMAT_VERSION: u32 = 1;

const FORMAT: CacheFormat =
    CacheFormat { name: "candle-mixed-attention/ab-upt-cache", header: "ab_upt_cache", version: FORMAT_VERSION };

/// Name of the tensor that holds the condition.
const CONDITION: &str = "condition";

/// Keys and values of the anchors and of the geometry in every block of a network, and the condition they were computed
/// for. Cheap to clone.
///
/// It fits the network that made it, which its [`fingerprint`](Self::fingerprint) tells, on any device.
#[derive(Debug, Clone)]
pub struct AbUptCache {
    pub(super) fingerprint: AbUptFingerprint,
    /// One for each physics block.
    pub(super) physics: Vec<KvCache>,
    /// For each domain, one for each decoder block.
    pub(super) decoders: Vec<Vec<KvCache>>,
    /// `[batch or 1, condition_dim]`, f32.
    pub(super) condition: Option<Tensor>,
}

/// What a cache must have in common with the network that uses it.
#[derive(Debug, Clone, PartialEq)]
pub struct AbUptFingerprint {
    /// Version of the format.
    pub version: u32,
    /// The configuration of the network.
    pub config: AbUptConfig,
    /// A hash of some of its weights, which differ in any two trained networks.
    pub weights: String,
    /// Dtype of keys and values.
    pub dtype: DType,
    /// Number of samples.
    pub batch: usize,
    /// Which share of the anchors' keys it holds.
    pub share: KeyShare,
}

/// Which of several processes holds some of the keys; see [`AbUpt::with_exchange`](super::AbUpt::with_exchange).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyShare {
    /// Its place among them, from 0 on.
    pub rank: usize,
    /// How many there are.
    pub ranks: usize,
}

impl KeyShare {
    /// That of one process that holds them all.
    const ALL: Self = Self { rank: 0, ranks: 1 };

    fn is_all(&self) -> bool {
        self == &Self::ALL
    }
}

impl Default for KeyShare {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for KeyShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::ALL => f.write_str("all"),
            Self { rank, ranks } => write!(f, "rank {rank} of {ranks}"),
        }
    }
}

/// What a network and its caches have in common.
pub(super) struct Identity<'a> {
    pub(super) config: &'a AbUptConfig,
    pub(super) weights: &'a str,
    pub(super) dtype: DType,
    pub(super) share: KeyShare,
}

impl Identity<'_> {
    /// The fingerprint of a cache of so many samples.
    pub(super) fn of_batch(&self, batch: usize) -> AbUptFingerprint {
        let &Self { config, weights, dtype, share } = self;
        let (config, weights) = (config.clone(), weights.to_string());
        AbUptFingerprint { version: FORMAT_VERSION, config, weights, dtype, batch, share }
    }
}

/// The metadata of a cache file.
#[derive(Serialize, Deserialize)]
struct FileHeader {
    config: AbUptConfig,
    weights: String,
    batch: usize,
    dtype: String,
    #[serde(default, skip_serializing_if = "KeyShare::is_all")]
    share: KeyShare,
    parts: BTreeMap<String, CacheHeader>,
    /// Those that the input was normalised by, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    statistics: Option<Normalisation>,
}

fn physics_prefix(block: usize) -> String {
    format!("physics.{block}.")
}

fn decoder_prefix(domain: &str, block: usize) -> String {
    format!("decoder.{domain}.{block}.")
}

impl AbUptCache {
    /// What must match the network that uses the cache.
    pub fn fingerprint(&self) -> &AbUptFingerprint {
        &self.fingerprint
    }

    /// Number of samples.
    pub fn batch(&self) -> usize {
        self.fingerprint.batch
    }

    /// Checks that a network may use the cache.
    pub(super) fn check(&self, network: &Identity<'_>) -> std::result::Result<(), AbUptError> {
        let &Identity { config, weights, dtype, share } = network;
        let own = &self.fingerprint;
        let mismatch = |what, expected: String, got: String| Err(AbUptError::CacheMismatch { what, expected, got });
        if let Some((expected, got)) = config.difference(&own.config) {
            return mismatch("the configuration", expected, got);
        }
        if own.weights != weights {
            return mismatch("the hash of the weights", weights.to_string(), own.weights.clone());
        }
        if own.dtype != dtype {
            return mismatch("the dtype", dtype.as_str().to_string(), own.dtype.as_str().to_string());
        }
        if own.share != share {
            return mismatch("the share of the keys", share.to_string(), own.share.to_string());
        }
        Ok(())
    }

    /// Moves the cache to another device.
    ///
    /// # Errors
    /// The copy fails.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let all =
            |caches: &Vec<KvCache>| caches.iter().map(|cache| cache.to_device(device)).collect::<Result<Vec<_>>>();
        Ok(Self {
            fingerprint: self.fingerprint.clone(),
            physics: all(&self.physics)?,
            decoders: self.decoders.iter().map(all).collect::<Result<_>>()?,
            condition: self.condition.as_ref().map(|condition| to_device(condition, device)).transpose()?,
        })
    }

    /// Writes the cache to a safetensors file: `physics.<block>.keys`, `decoder.<domain>.<block>.keys`, the same with
    /// `values`, and `condition`. The file appears under its name only when it is complete.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save_safetensors(&self, path: impl AsRef<Path>) -> Result<()> {
        self.write(path.as_ref(), None)
    }

    /// Writes the cache, with the statistics that the input was normalised by, where they are known.
    pub(super) fn write(&self, path: &Path, statistics: Option<&Normalisation>) -> Result<()> {
        let AbUptFingerprint { config, weights, dtype, batch, share, .. } = &self.fingerprint;
        let (mut tensors, mut parts) = (Vec::new(), BTreeMap::new());
        for (block, cache) in self.physics.iter().enumerate() {
            let prefix = physics_prefix(block);
            parts.insert(prefix.clone(), cache.write_parts(&prefix, &mut tensors)?);
        }
        for (domain, caches) in config.domains.iter().zip(&self.decoders) {
            for (block, cache) in caches.iter().enumerate() {
                let prefix = decoder_prefix(&domain.name, block);
                parts.insert(prefix.clone(), cache.write_parts(&prefix, &mut tensors)?);
            }
        }
        tensors.extend(self.condition.iter().map(|condition| (CONDITION.to_string(), condition.clone())));
        let (config, weights, dtype) = (config.clone(), weights.clone(), dtype.as_str().to_string());
        let (batch, share, statistics) = (*batch, *share, statistics.cloned());
        FORMAT.write(path, &FileHeader { config, weights, batch, dtype, share, parts, statistics }, tensors)
    }

    /// Reads a file that [`save_safetensors`](Self::save_safetensors) wrote. A pass that uses the cache checks that it
    /// fits the network.
    ///
    /// # Errors
    /// The file cannot be read, is truncated, is not such a cache, or has another format version.
    pub fn load_safetensors(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        Ok(Self::read(path.as_ref(), device)?.0)
    }

    /// Reads a file, with the statistics that it was written with.
    pub(super) fn read(path: &Path, device: &Device) -> Result<(Self, Option<Normalisation>)> {
        let (header, mut tensors) = FORMAT.read::<FileHeader>(path)?;
        let FileHeader { config, weights, batch, dtype, share, mut parts, statistics } = header;
        let refuse = |reason: String| candle_core::Error::from(not_a_cache(path, reason));
        let dtype: DType = dtype.parse().map_err(|_| refuse(format!("unknown dtype '{dtype}'")))?;
        config.validate().map_err(|error| refuse(error.to_string()))?;
        if share.rank >= share.ranks {
            return Err(refuse(format!("it holds the keys of {share}")));
        }
        let head_dim = config.head_dim();
        let mut read = |prefix: String| {
            let header = parts.remove(&prefix).ok_or_else(|| refuse(format!("'{prefix}' is missing")))?;
            let cache = KvCache::read_parts(&prefix, header, &mut tensors).map_err(&refuse)?;
            let expected = (batch, config.num_heads, head_dim, dtype);
            let own = cache.fingerprint();
            if (cache.batch(), own.heads, own.head_dim, own.dtype) != expected {
                return Err(refuse(format!("'{prefix}' does not fit the configuration in the file")));
            }
            Ok(cache)
        };
        let physics = (0..config.physics_blocks.len()).map(|block| read(physics_prefix(block)));
        let physics = physics.collect::<Result<_>>()?;
        let mut decoders = Vec::with_capacity(config.domains.len());
        for domain in &config.domains {
            let blocks = (0..domain.decoder_blocks).map(|block| read(decoder_prefix(&domain.name, block)));
            decoders.push(blocks.collect::<Result<Vec<_>>>()?);
        }
        let condition = tensors.remove(CONDITION);
        let shape = condition.as_ref().map_or(&[][..], Tensor::dims);
        let fits = match config.condition_dim() {
            0 => condition.is_none(),
            width => shape == [1, width] || shape == [batch, width],
        };
        let numbers = condition.as_ref().map_or(Ok(true), |condition| match condition.dtype() {
            DType::F32 => is_finite(condition),
            _ => Ok(false),
        })?;
        if !numbers {
            return Err(refuse("the condition must be finite numbers in f32".to_string()));
        }
        if !fits {
            let expected = config.condition_dim();
            return Err(refuse(format!("the condition has shape {shape:?}, its configuration {expected} components")));
        }
        let fingerprint = AbUptFingerprint { version: FORMAT_VERSION, config, weights, dtype, batch, share };
        let cache = Self { fingerprint, physics, decoders, condition };
        Ok((cache.to_device(device)?, statistics))
    }
}
