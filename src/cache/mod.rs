//! The KV cache: rotated keys, values and padding of some groups, kept for later passes.

pub(crate) mod file;
mod validate;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use self::file::{CacheFormat, not_a_cache};
use crate::checks::{check_batch, check_heads, check_same, check_tokens};
use crate::error::{AttentionError, PlanError};
use crate::padding::KeyPadding;
use crate::plan::{CacheLayout, PaddingBits};
use crate::through_candle::without_backtrace;

/// Version of the file format and of what the tensors mean. A file of another version is refused.
const FORMAT_VERSION: u32 = 1;

const FORMAT: CacheFormat =
    CacheFormat { name: "candle-mixed-attention/kv-cache", header: "kv_cache", version: FORMAT_VERSION };

/// Keys (after rotation) and values of some token groups, with their padding.
///
/// Filled by [`MixedAttention::forward_and_cache`](crate::MixedAttention::forward_and_cache) and used by
/// [`forward_from_cache`](crate::MixedAttention::forward_from_cache). It owns compact copies, so that nothing else of the first
/// pass stays in memory. Its [`fingerprint`](Self::fingerprint) is checked on every use. Cheap to clone.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_mixed_attention::KvCache;
///
/// // [batch, heads, tokens, head_dim]
/// let keys = Tensor::randn(0f32, 1., (1, 3, 100, 64), &Device::Cpu)?;
/// let values = Tensor::randn(0f32, 1., (1, 3, 100, 64), &Device::Cpu)?;
/// let cache = KvCache::from_groups([("surface_anchors", keys, values)], None)?;
/// assert_eq!(cache.fingerprint().heads, 3);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct KvCache {
    /// `[batch, heads, tokens, head_dim]`
    keys: Tensor,
    /// `[batch, heads, tokens, head_dim]`
    values: Tensor,
    layout: CacheLayout,
    padding: Option<KeyPadding>,
}

/// What a cache must have in common with the layer that uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFingerprint {
    /// Version of the format.
    pub version: u32,
    /// Number of heads.
    pub heads: usize,
    /// Channels of a head.
    pub head_dim: usize,
    /// Dtype of keys and values.
    pub dtype: DType,
    /// Names and sizes of the groups.
    pub groups: Vec<(String, usize)>,
}

/// What a file says about the tensors of a cache.
#[derive(Serialize, Deserialize)]
pub(crate) struct CacheHeader {
    groups: Vec<(String, usize)>,
}

impl KvCache {
    /// Collects groups, given as (name, keys after rotation, values), both `[batch, heads, tokens, head_dim]`.
    ///
    /// `padding [batch or 1, tokens of all groups]` marks the real tokens.
    ///
    /// # Errors
    /// No groups, two groups of one name, or groups that differ in batch, heads, head_dim, dtype or device; no heads or
    /// channels; a dtype other than f16, bf16, f32 and f64.
    pub fn from_groups<S: Into<String>>(
        groups: impl IntoIterator<Item = (S, Tensor, Tensor)>,
        padding: Option<KeyPadding>,
    ) -> Result<Self> {
        let (mut sizes, mut keys, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (name, key, value) in groups {
            validate::check_shapes(&key, &value)?;
            let (batch, heads, tokens, head_dim) = check_heads("cache keys", &key)?;
            let reference = keys.first().unwrap_or(&key);
            let (first_batch, first_heads, _, first_dim) = check_heads("cache keys", reference)?;
            if (batch, heads, head_dim) != (first_batch, first_heads, first_dim) {
                let expected = format!("{:?} up to the number of tokens", reference.dims());
                return Err(AttentionError::shape("cache groups", expected, key.dims()).into());
            }
            check_same("cache groups", ("first group", reference), &key)?;
            sizes.push((name.into(), tokens));
            keys.push(key);
            values.push(value);
        }
        validate::check_groups(keys.len())?;
        let layout = CacheLayout::new(sizes).map_err(AttentionError::from)?;
        // A single group would be returned as the view that it is, and keep its whole storage alive.
        let compact = |parts: &[Tensor]| match parts {
            [part] => part.force_contiguous(),
            parts => Tensor::cat(parts, 2)?.contiguous(),
        };
        let cache = Self { keys: compact(&keys)?, values: compact(&values)?, layout, padding: None };
        cache.with_padding(padding)
    }

    fn with_padding(mut self, padding: Option<KeyPadding>) -> Result<Self> {
        if let Some(padding) = &padding {
            padding.check(self.batch(), self.layout.tokens(), || self.layout.names().join(", "))?;
        }
        // A full mask is as good as none.
        self.padding = padding.filter(|padding| !padding.is_full());
        Ok(self)
    }

    /// Batch size.
    pub fn batch(&self) -> usize {
        self.keys.dims()[0]
    }

    /// The groups and where they lie.
    pub fn layout(&self) -> &CacheLayout {
        &self.layout
    }

    /// Keys of all groups after rotation, `[batch, heads, tokens, head_dim]`.
    pub fn keys(&self) -> &Tensor {
        &self.keys
    }

    /// Values of all groups, `[batch, heads, tokens, head_dim]`.
    pub fn values(&self) -> &Tensor {
        &self.values
    }

    /// The padding of the cached tokens, unless all are real.
    pub fn padding(&self) -> Option<&KeyPadding> {
        self.padding.as_ref()
    }

    /// Keys (after rotation) and values of one group, `[batch, heads, tokens, head_dim]`.
    ///
    /// # Errors
    /// The cache has no such group.
    pub fn group(&self, name: &str) -> Result<(Tensor, Tensor)> {
        let group = self.layout.group(name).ok_or_else(|| {
            AttentionError::from(PlanError::NotInCache { group: name.to_string(), cached: self.layout.names() })
        })?;
        Ok((self.keys.narrow(2, group.start, group.len)?, self.values.narrow(2, group.start, group.len)?))
    }

    /// This cache with the tokens of `later` behind its own: those of a group that both have continue that group, others are
    /// new groups at the end. A batch of 1 serves every row of the other cache.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_mixed_attention::KvCache;
    ///
    /// let tokens = |count: usize| Tensor::zeros((1, 3, count, 64), DType::F32, &Device::Cpu);
    /// let first = KvCache::from_groups([("past", tokens(100)?, tokens(100)?)], None)?;
    /// let later = KvCache::from_groups([("past", tokens(8)?, tokens(8)?), ("other", tokens(5)?, tokens(5)?)], None)?;
    /// let both = first.append(&later)?;
    /// assert_eq!(both.fingerprint().groups, [("past".to_string(), 108), ("other".to_string(), 5)]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Caches that differ in batch (unless one has 1), heads, head_dim, dtype or device.
    pub fn append(&self, later: &Self) -> Result<Self> {
        let batch = if self.batch() == 1 { later.batch() } else { self.batch() };
        check_batch("appended cache", batch, later.batch())?;
        check_same("appended cache", ("cache", &self.keys), &later.keys)?;
        let CacheFingerprint { heads, head_dim, .. } = self.fingerprint();
        if later.keys.dims()[1] != heads || later.keys.dims()[3] != head_dim {
            let expected = format!("[batch, {heads}, tokens, {head_dim}]");
            return Err(AttentionError::shape("appended cache", expected, later.keys.dims()).into());
        }
        let mut names = self.layout.names();
        names.extend(later.layout.names().into_iter().filter(|name| self.layout.group(name).is_none()));
        let (mut groups, mut real) = (Vec::with_capacity(names.len()), Vec::new());
        for name in names {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for cache in [self, later] {
                let Some(group) = cache.layout.group(&name) else { continue };
                let (key, value) = cache.group(&name)?;
                keys.push(repeat_batch(&key, batch)?);
                values.push(repeat_batch(&value, batch)?);
                real.extend((group.start..group.start + group.len).map(|token| (cache.padding.as_ref(), token)));
            }
            groups.push((name, Tensor::cat(&keys, 2)?, Tensor::cat(&values, 2)?));
        }
        let is_real = |row: usize, token: usize| {
            let (padding, token) = real[token];
            padding.is_none_or(|padding| padding.bits().is_real(row, token))
        };
        let padded = self.padding.is_some() || later.padding.is_some();
        let padding = padded.then(|| KeyPadding::from_bits(PaddingBits::new(batch, real.len(), is_real)));
        Self::from_groups(groups, padding)
    }

    /// What must match the layer that uses the cache.
    pub fn fingerprint(&self) -> CacheFingerprint {
        CacheFingerprint {
            version: FORMAT_VERSION,
            heads: self.keys.dims()[1],
            head_dim: self.keys.dims()[3],
            dtype: self.keys.dtype(),
            groups: self.groups(),
        }
    }

    fn groups(&self) -> Vec<(String, usize)> {
        self.layout.groups().iter().map(|group| (group.name.clone(), group.len)).collect()
    }

    /// Checks that a layer with these heads, head_dim, dtype and device may use the cache for this batch.
    pub(crate) fn check(&self, queries: &Tensor) -> std::result::Result<(), AttentionError> {
        let (batch, heads, _, head_dim) = check_heads("queries", queries)?;
        let own = self.fingerprint();
        let compare = |what, expected: usize, got: usize| match expected == got {
            true => Ok(()),
            false => Err(AttentionError::CacheMismatch { what, expected: expected.to_string(), got: got.to_string() }),
        };
        compare("the number of heads", heads, own.heads)?;
        compare("head_dim", head_dim, own.head_dim)?;
        check_batch("cache", batch, self.batch())?;
        check_same("cache", ("input", queries), &self.keys)
    }

    /// Moves the cache to another device.
    ///
    /// # Errors
    /// The copy fails.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let (keys, values) = (self.keys.to_device(device)?, self.values.to_device(device)?);
        Ok(Self { keys, values, ..self.clone() })
    }

    /// Adds the tensors of the cache under `prefix` and returns the header that goes with them.
    pub(crate) fn write_parts(&self, prefix: &str, tensors: &mut Vec<(String, Tensor)>) -> Result<CacheHeader> {
        let mut push = |name: &str, tensor: Tensor| tensors.push((format!("{prefix}{name}"), tensor));
        push("keys", self.keys.clone());
        push("values", self.values.clone());
        if let Some(padding) = &self.padding {
            push("padding", padding.to_mask(&Device::Cpu)?);
        }
        Ok(CacheHeader { groups: self.groups() })
    }

    /// Takes the tensors that [`write_parts`](Self::write_parts) added, or says what is wrong with them.
    pub(crate) fn read_parts(
        prefix: &str,
        header: CacheHeader,
        tensors: &mut HashMap<String, Tensor>,
    ) -> std::result::Result<Self, String> {
        let mut take = |name: &str| tensors.remove(&format!("{prefix}{name}"));
        let missing = |name: &str| format!("tensor '{prefix}{name}' is missing");
        let keys = take("keys").ok_or_else(|| missing("keys"))?;
        let values = take("values").ok_or_else(|| missing("values"))?;
        let mask = take("padding");
        let read = || -> Result<Self> {
            validate::check_groups(header.groups.len())?;
            validate::check_shapes(&keys, &values)?;
            let layout = CacheLayout::new(header.groups).map_err(AttentionError::from)?;
            check_tokens("cache keys", layout.tokens(), keys.dims()[2], || layout.names().join(", "))?;
            let padding = mask.map(|mask| KeyPadding::from_mask(&mask)).transpose()?;
            let cache = Self { keys, values, layout, padding: None }.with_padding(padding)?;
            validate::check_finite("cache keys", &cache.keys, cache.padding())?;
            validate::check_finite("cache values", &cache.values, cache.padding())?;
            Ok(cache)
        };
        let part = prefix.trim_end_matches('.');
        read().map_err(|error| match (without_backtrace(error), part) {
            (error, "") => error.to_string(),
            (error, part) => format!("{part}: {error}"),
        })
    }

    /// Writes the cache to a safetensors file: `keys`, `values` and, if some tokens are padding, `padding`.
    ///
    /// The file appears under its name only when it is complete.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save_safetensors(&self, path: impl AsRef<Path>) -> Result<()> {
        let mut tensors = Vec::new();
        let header = self.write_parts("", &mut tensors)?;
        FORMAT.write(path.as_ref(), &header, tensors)
    }

    /// Reads a file that [`save_safetensors`](Self::save_safetensors) wrote.
    ///
    /// # Errors
    /// The file cannot be read, is truncated, is not a cache, or has another format version; it holds NaN or infinity
    /// where there is no padding.
    pub fn load_safetensors(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        let (header, mut tensors) = FORMAT.read(path)?;
        Self::read_parts("", header, &mut tensors).map_err(|reason| not_a_cache(path, reason))?.to_device(device)
    }
}

/// `[1 or batch, heads, tokens, head_dim]` as `batch` rows.
fn repeat_batch(tensor: &Tensor, batch: usize) -> Result<Tensor> {
    let (_, heads, tokens, head_dim) = tensor.dims4()?;
    tensor.broadcast_as((batch, heads, tokens, head_dim))
}
