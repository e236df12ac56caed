//! A call after all its checks: what every backend starts from.

use std::sync::Arc;

use candle_core::Tensor;

use super::options::AttentionOptions;
use crate::cache::KvCache;
use crate::checks::{check_batch, check_float, check_heads, check_same, check_tokens};
use crate::error::{AttentionError, Unsupported};
use crate::plan::{AttentionPlan, PaddingBits, ResolvedPlan};
use crate::simd::SimdLevel;

/// The tensors of a call, as they came.
#[derive(Clone, Copy)]
pub(crate) struct Inputs<'a> {
    /// `[batch, heads, tokens, head_dim]`
    pub queries: &'a Tensor,
    /// Keys before rotation and values of the input tokens, `[batch, kv_heads, tokens, head_dim]`; may be missing if all
    /// keys are cached.
    pub keys_values: Option<(&'a Tensor, &'a Tensor)>,
    /// Keys and values of earlier tokens.
    pub cache: Option<&'a KvCache>,
}

/// A checked call.
///
/// Invariants: all tensors share dtype and device and have the documented shapes; a key source that the plan names is
/// present; `scale` is positive and finite.
#[derive(Debug)]
pub(crate) struct Arguments {
    pub resolved: Arc<ResolvedPlan>,
    pub batch: usize,
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of the keys and values, which divide those of the queries.
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// The same for tensors in f64.
    pub wide_scale: f64,
    /// `[batch or 1, tokens, head_dim / 2, 2]` of (cos, sin) in f32.
    pub rope: Option<Tensor>,
    /// Real tokens of the input.
    pub padding: Option<Arc<PaddingBits>>,
    /// What is added to the scaled scores of each key of the input, `[batch or 1, heads or 1, tokens]`.
    pub key_bias: Option<Tensor>,
    pub cache: Option<CacheArguments>,
    /// The instruction set of the CPU kernel, if the caller chose one.
    pub simd: Option<SimdLevel>,
    /// Whether f32 operands may be rounded to TF32.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "only CUDA devices have TF32"))]
    pub tf32: bool,
    /// Whether the result may depend on neither the number of workers nor the batch.
    pub invariant: bool,
}

/// The cache of a call.
#[derive(Debug)]
pub(crate) struct CacheArguments {
    /// `[batch or 1, kv_heads, cached tokens, head_dim]`
    pub keys: Tensor,
    /// `[batch or 1, kv_heads, cached tokens, head_dim]`
    pub values: Tensor,
    /// Real tokens of the cache.
    pub padding: Option<Arc<PaddingBits>>,
    /// What is added to the scaled scores of each cached key, `[batch or 1, heads or 1, cached tokens]`.
    pub key_bias: Option<Tensor>,
    /// Whether one row serves the whole batch.
    pub broadcast: bool,
}

impl Arguments {
    /// Checks a call against its plan.
    pub(super) fn new(
        inputs: Inputs<'_>,
        plan: &AttentionPlan,
        options: &AttentionOptions,
    ) -> Result<Self, AttentionError> {
        let queries = inputs.queries;
        let (batch, heads, tokens, head_dim) = check_heads("queries", queries)?;
        check_tokens("queries", plan.len(), tokens, || plan.describe_input())?;
        // Schedules number batch rows and heads in 32 bits.
        let countable = |count: usize| u32::try_from(count).is_ok();
        if head_dim == 0 || heads == 0 || !countable(batch) || !countable(heads) {
            let expected = "[batch < 2³², 1 ≤ heads < 2³², tokens, head_dim ≥ 1]";
            return Err(AttentionError::shape("queries", expected, queries.dims()));
        }
        check_float("queries", queries)?;

        let resolved = plan.resolve(inputs.cache.map(KvCache::layout))?;
        let mut kv_heads = heads;
        if let Some((keys, values)) = inputs.keys_values {
            kv_heads = check_keys(queries, keys)?;
            if values.dims() != keys.dims() {
                let expected = format!("{:?}, the shape of the keys", keys.dims());
                return Err(AttentionError::shape("values", expected, values.dims()));
            }
            check_same("values", ("queries", queries), values)?;
        } else if resolved.ranges().has_input_keys() {
            let expected = format!("{:?}, because the plan has input tokens as keys", queries.dims());
            return Err(AttentionError::shape("keys and values", expected, &[]));
        }
        if let Some(cache) = inputs.cache {
            if inputs.keys_values.is_some() {
                cache.check_heads(kv_heads)?;
            }
            kv_heads = cache.check(queries)?;
        }

        if let Some(rope) = &options.rope {
            rope.check(batch, tokens, head_dim, || plan.describe_input())?;
            if !rope.table().device().same_device(queries.device()) {
                return Err(AttentionError::device("RoPE frequencies", queries.device(), rope.table().device()));
            }
        }
        if let Some(padding) = &options.key_padding {
            padding.check(batch, tokens, || plan.describe_input())?;
            if plan.needs_cache() && !resolved.ranges().has_input_keys() {
                return Err(AttentionError::PaddingWithoutKeys);
            }
        }
        if let Some(bias) = &options.key_bias {
            check_key_bias("key_bias", bias, queries, || plan.describe_input())?;
            if plan.needs_cache() && !resolved.ranges().has_input_keys() {
                return Err(AttentionError::BiasWithoutKeys);
            }
        }
        if let Some(bias) = inputs.cache.and_then(KvCache::key_bias) {
            check_bias_heads("key_bias of the cache", bias, heads)?;
        }
        let wide_scale = options.scale.map_or_else(|| 1.0 / (head_dim as f64).sqrt(), f64::from);
        let scale = wide_scale as f32;
        if !(scale.is_finite() && scale > 0.0) {
            return Err(AttentionError::value("scale", "positive and finite", scale));
        }
        Ok(Self {
            resolved,
            batch,
            heads,
            kv_heads,
            head_dim,
            scale,
            wide_scale,
            rope: options.rope.as_ref().map(|rope| rope.table().clone()),
            padding: options.key_padding.as_ref().map(|padding| padding.bits().clone()),
            key_bias: options.key_bias.clone(),
            cache: inputs.cache.map(|cache| CacheArguments {
                keys: cache.keys().clone(),
                values: cache.values().clone(),
                padding: cache.padding().map(|padding| padding.bits().clone()),
                key_bias: cache.key_bias().cloned(),
                broadcast: cache.batch() == 1,
            }),
            simd: options.simd,
            tf32: options.tf32,
            invariant: options.invariant,
        })
    }

    /// Heads of queries that share a head of keys and values.
    pub(super) fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Number of query tokens.
    pub(super) fn tokens(&self) -> usize {
        self.resolved.ranges().input_tokens()
    }

    /// Whether the fused kernel of the device can run this call, besides what [`supports`](crate::supports) says.
    pub(super) fn follows_gradients(&self) -> Result<(), Unsupported> {
        let tracked = |tensor: &Tensor| tensor.track_op();
        if self.rope.as_ref().is_some_and(tracked) {
            return Err(Unsupported::Gradient { argument: "RoPE frequencies" });
        }
        if self.key_bias.as_ref().is_some_and(tracked) {
            return Err(Unsupported::Gradient { argument: "key_bias" });
        }
        let of_cache =
            |cache: &CacheArguments| [&cache.keys, &cache.values].into_iter().chain(&cache.key_bias).any(tracked);
        if self.cache.as_ref().is_some_and(of_cache) {
            return Err(Unsupported::Gradient { argument: "cache" });
        }
        Ok(())
    }
}

/// Checks keys against queries, and returns the number of their heads, which divides that of the queries.
fn check_keys(queries: &Tensor, keys: &Tensor) -> Result<usize, AttentionError> {
    let (batch, heads, tokens, head_dim) = check_heads("queries", queries)?;
    let kv_heads = keys.dims().get(1).copied().unwrap_or(0);
    if keys.dims() != [batch, kv_heads, tokens, head_dim] || kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
        let expected = format!("[{batch}, a divisor of {heads} heads, {tokens}, {head_dim}], as the queries have it");
        return Err(AttentionError::shape("keys", expected, keys.dims()));
    }
    check_same("keys", ("queries", queries), keys)?;
    Ok(kv_heads)
}

/// Checks a bias `[batch or 1, heads or 1, tokens]` against queries; `groups` names their groups for the error.
fn check_key_bias(
    argument: &'static str,
    bias: &Tensor,
    queries: &Tensor,
    groups: impl FnOnce() -> String,
) -> Result<(), AttentionError> {
    let (batch, heads, tokens, _) = check_heads("queries", queries)?;
    check_float(argument, bias)?;
    let &[rows, _, count] = bias.dims() else {
        return Err(AttentionError::shape(argument, "[batch or 1, heads or 1, tokens]", bias.dims()));
    };
    check_batch(argument, batch, rows)?;
    check_bias_heads(argument, bias, heads)?;
    check_tokens(argument, tokens, count, groups)?;
    match bias.device().same_device(queries.device()) {
        true => Ok(()),
        false => Err(AttentionError::device(argument, queries.device(), bias.device())),
    }
}

/// Checks that a bias `[.., heads or 1, ..]` fits queries with so many heads.
fn check_bias_heads(argument: &'static str, bias: &Tensor, heads: usize) -> Result<(), AttentionError> {
    match bias.dims() {
        [_, got, _] if *got == 1 || *got == heads => Ok(()),
        dims => Err(AttentionError::shape(argument, format!("[batch or 1, {heads} heads or 1, tokens]"), dims)),
    }
}
