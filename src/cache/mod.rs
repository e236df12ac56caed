//! The KV cache: rotated keys, values and padding of some groups, kept for later passes.

pub(crate) mod file;
mod validate;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use serde::{Deserialize, Serialize};

use self::file::{CacheFormat, not_a_cache};
use crate::checks::{check_batch, check_float, check_heads, check_same, check_tokens};
use crate::element::wide_dtype;
use crate::error::{AttentionError, PlanError};
use crate::padding::KeyPadding;
use crate::plan::{CacheLayout, CachedGroup, PaddingBits};
use crate::through_candle::without_backtrace;
use crate::transfer::to_device;

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
    /// `[batch or 1, heads of the queries or 1, tokens]` in f32, f64 beside keys in f64.
    key_bias: Option<Tensor>,
}

/// What a cache must have in common with the layer that uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFingerprint {
    /// Version of the format.
    pub version: u32,
    /// Number of heads of keys and values.
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
        let cache = Self { keys: compact(&keys)?, values: compact(&values)?, layout, padding: None, key_bias: None };
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

    /// This cache with a number for each key that is added to its scores, `[batch or 1, heads or 1, tokens of all groups]`, of any
    /// float dtype: what [`AttentionOptions::key_bias`](crate::AttentionOptions::key_bias) is for tokens of the input. `heads` are
    /// those of the queries. It takes the place of an earlier one.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_mixed_attention::KvCache;
    ///
    /// let tokens = Tensor::randn(0f32, 1., (1, 3, 4, 64), &Device::Cpu)?;
    /// let cache = KvCache::from_groups([("surface_anchors", tokens.clone(), tokens)], None)?;
    /// let areas = Tensor::new(&[[[0.5f32, 2., 0.25, 1.]]], &Device::Cpu)?;
    /// let cache = cache.with_key_bias(&areas.log()?)?;
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Another shape, a dtype that is no float, another device than that of the keys.
    pub fn with_key_bias(mut self, bias: &Tensor) -> Result<Self> {
        check_float("key_bias", bias)?;
        let &[rows, heads, tokens] = bias.dims() else {
            return Err(AttentionError::shape("key_bias", "[batch or 1, heads or 1, tokens]", bias.dims()).into());
        };
        check_batch("key_bias", self.batch(), rows)?;
        if heads == 0 {
            return Err(AttentionError::shape("key_bias", "[batch or 1, heads ≥ 1, tokens]", bias.dims()).into());
        }
        check_tokens("key_bias", self.layout.tokens(), tokens, || self.layout.names().join(", "))?;
        if !bias.device().same_device(self.keys.device()) {
            return Err(AttentionError::device("key_bias", self.keys.device(), bias.device()).into());
        }
        self.key_bias = Some(bias.to_dtype(wide_dtype(self.keys.dtype()))?.force_contiguous()?);
        Ok(self)
    }

    /// What is added to the scores of each key, `[batch or 1, heads or 1, tokens]`, if anything is.
    pub fn key_bias(&self) -> Option<&Tensor> {
        self.key_bias.as_ref()
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
    /// new groups at the end. A batch of 1 serves every row of the other cache. Where one cache has a [bias](Self::key_bias), keys
    /// of the other have a bias of 0.
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
    /// Caches that differ in batch (unless one has 1), heads, head_dim, dtype or device; biases for different numbers of heads.
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
        let (mut groups, mut real, mut biases) = (Vec::with_capacity(names.len()), Vec::new(), Vec::new());
        let bias_heads = self.bias_heads_with(later)?;
        for name in names {
            let (mut keys, mut values) = (Vec::new(), Vec::new());
            for cache in [self, later] {
                let Some(group) = cache.layout.group(&name) else { continue };
                let (key, value) = cache.group(&name)?;
                keys.push(repeat_batch(&key, batch)?);
                values.push(repeat_batch(&value, batch)?);
                biases.push(cache.bias_of(group, (batch, bias_heads))?);
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
        let appended = Self::from_groups(groups, padding)?;
        match self.key_bias.is_some() || later.key_bias.is_some() {
            true => appended.with_key_bias(&Tensor::cat(&biases, 2)?),
            false => Ok(appended),
        }
    }

    /// Heads of a bias that holds those of two caches.
    fn bias_heads_with(&self, later: &Self) -> Result<usize> {
        let heads = |cache: &Self| cache.key_bias.as_ref().map_or(1, |bias| bias.dims()[1]);
        match (heads(self), heads(later)) {
            (1, heads) | (heads, 1) => Ok(heads),
            (own, heads) if own == heads => Ok(heads),
            (own, heads) => {
                let expected = format!("{own} heads as the cache, or 1");
                Err(AttentionError::value("key_bias of the appended cache", expected, heads).into())
            }
        }
    }

    /// The bias of a group for so many rows and heads; zeros where there is none.
    fn bias_of(&self, group: &CachedGroup, (batch, heads): (usize, usize)) -> Result<Tensor> {
        let shape = (batch, heads, group.len);
        match &self.key_bias {
            Some(bias) => bias.narrow(2, group.start, group.len)?.broadcast_as(shape)?.contiguous(),
            None => Tensor::zeros(shape, wide_dtype(self.keys.dtype()), self.keys.device()),
        }
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

    /// Checks that queries of this batch, head_dim, dtype and device may use the cache, and that its heads divide theirs;
    /// returns their number.
    pub(crate) fn check(&self, queries: &Tensor) -> std::result::Result<usize, AttentionError> {
        let (batch, heads, _, head_dim) = check_heads("queries", queries)?;
        let own = self.fingerprint();
        if !heads.is_multiple_of(own.heads) {
            return Err(mismatch("the number of heads", format!("a divisor of {heads}"), own.heads));
        }
        if head_dim != own.head_dim {
            return Err(mismatch("head_dim", head_dim.to_string(), own.head_dim));
        }
        check_batch("cache", batch, self.batch())?;
        check_same("cache", ("input", queries), &self.keys)?;
        Ok(own.heads)
    }

    /// Checks that a layer with so many heads of keys may use the cache.
    pub(crate) fn check_heads(&self, kv_heads: usize) -> std::result::Result<(), AttentionError> {
        match self.fingerprint().heads {
            heads if heads == kv_heads => Ok(()),
            heads => Err(mismatch("the number of heads", kv_heads.to_string(), heads)),
        }
    }

    /// Moves the cache to another device.
    ///
    /// # Errors
    /// The copy fails.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let (keys, values) = (to_device(&self.keys, device)?, to_device(&self.values, device)?);
        let key_bias = self.key_bias.as_ref().map(|bias| to_device(bias, device)).transpose()?;
        Ok(Self { keys, values, key_bias, ..self.clone() })
    }

    /// Adds the tensors of the cache under `prefix` and returns the header that goes with them.
    pub(crate) fn write_parts(&self, prefix: &str, tensors: &mut Vec<(String, Tensor)>) -> Result<CacheHeader> {
        let mut push = |name: &str, tensor: Tensor| tensors.push((format!("{prefix}{name}"), tensor));
        push("keys", self.keys.clone());
        push("values", self.values.clone());
        if let Some(padding) = &self.padding {
            push("padding", padding.to_mask(&Device::Cpu)?);
        }
        if let Some(bias) = &self.key_bias {
            push("key_bias", bias.clone());
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
        let (mask, bias) = (take("padding"), take("key_bias"));
        let read = || -> Result<Self> {
            validate::check_groups(header.groups.len())?;
            validate::check_shapes(&keys, &values)?;
            let layout = CacheLayout::new(header.groups).map_err(AttentionError::from)?;
            check_tokens("cache keys", layout.tokens(), keys.dims()[2], || layout.names().join(", "))?;
            let padding = mask.map(|mask| KeyPadding::from_mask(&mask)).transpose()?;
            let cache = Self { keys, values, layout, padding: None, key_bias: None }.with_padding(padding)?;
            validate::check_finite("cache keys", &cache.keys, cache.padding())?;
            validate::check_finite("cache values", &cache.values, cache.padding())?;
            match bias {
                Some(bias) => {
                    let cache = cache.with_key_bias(&bias)?;
                    validate::check_bias("key_bias", &bias, cache.padding())?;
                    Ok(cache)
                }
                None => Ok(cache),
            }
        };
        let part = prefix.trim_end_matches('.');
        read().map_err(|error| match (without_backtrace(error), part) {
            (error, "") => error.to_string(),
            (error, part) => format!("{part}: {error}"),
        })
    }

    /// Writes the cache to a safetensors file: `keys`, `values`, if some tokens are padding, `padding`, and `key_bias`, if there is
    /// one.
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
    /// where there is no padding (a bias may hold −∞).
    pub fn load_safetensors(path: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let path = path.as_ref();
        let (header, mut tensors) = FORMAT.read(path)?;
        Self::read_parts("", header, &mut tensors).map_err(|reason| not_a_cache(path, reason))?.to_device(device)
    }
}

/// The error for a number that differs between a layer and a cache.
fn mismatch(what: &'static str, expected: String, got: usize) -> AttentionError {
    AttentionError::CacheMismatch { what, expected, got: got.to_string() }
}

/// `[1 or batch, heads, tokens, head_dim]` as `batch` rows.
fn repeat_batch(tensor: &Tensor, batch: usize) -> Result<Tensor> {
    let (_, heads, tokens, head_dim) = tensor.dims4()?;
    tensor.broadcast_as((batch, heads, tokens, head_dim))
}
