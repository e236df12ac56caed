//! The mixed-attention layer.

use std::ops::Range;

use candle_core::{Module, Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use super::domains::DomainRuns;
use super::exchange::{AllKeys, KeyExchange};
use super::parts::AttentionParts;
use super::projection::{self, FusedLinear, OutputProjection, Projection};
use super::sharing::WeightSharing;
use crate::attention::options::AttentionOptions;
use crate::attention::{Inputs, mixed_attention_part, run};
use crate::cache::KvCache;
use crate::checks::check_tokens;
use crate::error::{AttentionError, PlanError};
use crate::padding::KeyPadding;
use crate::plan::{AttentionPattern, AttentionPlan, BatchPlan, TokenSpec};
use crate::rope::RopeFrequencies;

/// A word of a group's name, between its underscores, that begins like this makes a pass keep the group in its cache unless
/// the options name others.
const CACHED_BY_DEFAULT: &str = "anchor";

/// Configuration of a [`MixedAttention`] layer.
///
/// ```
/// use candle_mixed_attention::MixedAttentionConfig;
///
/// let config: MixedAttentionConfig = serde_json::from_str(r#"{"hidden_dim": 192, "num_heads": 3}"#).unwrap();
/// assert!(config.bias && !config.use_rope && config.num_kv_heads.is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MixedAttentionConfig {
    /// Width of the tokens.
    pub hidden_dim: usize,
    /// Number of heads; divides `hidden_dim`.
    pub num_heads: usize,
    /// Number of heads of keys and values; divides `num_heads`, and is the same if not set. With fewer, neighbouring heads of
    /// queries share one (grouped-query attention; multi-query attention with 1), and the weights of `k` and `v` have
    /// `num_kv_heads · hidden_dim / num_heads` rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_kv_heads: Option<usize>,
    /// Whether the projections have a bias. Default: true.
    #[serde(default = "yes")]
    pub bias: bool,
    /// Whether queries and keys are rotated. Default: false.
    #[serde(default)]
    pub use_rope: bool,
}

pub(super) fn yes() -> bool {
    true
}

impl MixedAttentionConfig {
    /// With bias, without RoPE.
    pub fn new(hidden_dim: usize, num_heads: usize) -> Self {
        Self { hidden_dim, num_heads, num_kv_heads: None, bias: true, use_rope: false }
    }

    /// With so many heads of keys and values.
    pub fn num_kv_heads(mut self, num_kv_heads: usize) -> Self {
        self.num_kv_heads = Some(num_kv_heads);
        self
    }

    /// With or without RoPE.
    pub fn use_rope(mut self, use_rope: bool) -> Self {
        self.use_rope = use_rope;
        self
    }
}

/// Multi-head attention over token groups: projections, RoPE, all patterns in one launch, output projection.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_mixed_attention::{AttentionPattern, AttentionPlan, MixedAttention, MixedAttentionConfig, TokenSpec};
/// use candle_nn::{VarBuilder, VarMap};
///
/// let vars = VarMap::new();
/// let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
/// let attention = MixedAttention::new(&MixedAttentionConfig::new(64, 4), vb.pp("attention"))?;
///
/// let plan = AttentionPlan::new(
///     [TokenSpec::new("surface_anchors", 100), TokenSpec::new("surface_queries", 50)],
///     [AttentionPattern::queries(["surface_anchors", "surface_queries"]).attend_to(["surface_anchors"])],
/// )?;
/// let x = Tensor::randn(0f32, 1., (1, plan.len(), 64), &Device::Cpu)?;
/// let y = attention.bind(&plan).forward(&x)?;
/// assert_eq!(y.dims(), x.dims());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct MixedAttention {
    config: MixedAttentionConfig,
    /// Heads of keys and values.
    kv_heads: usize,
    /// Queries, keys and values side by side, so that one product makes all three.
    projections: FusedLinear,
    /// The query part of `projections`, for passes whose keys are all cached.
    query_projection: FusedLinear,
    output: OutputProjection,
    sharing: WeightSharing,
}

impl MixedAttention {
    /// Loads `q`, `k`, `v` (or one fused `qkv`) and `proj`, each with `weight [out, in]` and, if configured, `bias`.
    ///
    /// # Errors
    /// `hidden_dim` is not divisible by `num_heads`, or that by `num_kv_heads`; a tensor is missing or has another shape.
    pub fn new(config: &MixedAttentionConfig, vb: VarBuilder) -> Result<Self> {
        Self::with_sharing(config, &WeightSharing::Shared, vb)
    }

    /// As [`new`](Self::new), with weights that may differ from domain to domain: `q.weight.0`, `q.weight.1`, …
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_sharing(config: &MixedAttentionConfig, sharing: &WeightSharing, vb: VarBuilder) -> Result<Self> {
        let hidden_dim = config.hidden_dim;
        let head_dim = projection::head_dim(hidden_dim, config.num_heads)?;
        let kv_heads = projection::kv_heads(config.num_heads, config.num_kv_heads)?;
        let heads = [("q", config.num_heads), ("k", kv_heads), ("v", kv_heads)];
        let projections = FusedLinear::load(&vb, "qkv", &heads, (hidden_dim, head_dim), config.bias, sharing)?;
        let query_projection = projections.first()?;
        let width = (hidden_dim, hidden_dim);
        let output = OutputProjection::Weights(Projection::load(width, config.bias, sharing, vb.pp("proj"))?);
        Ok(Self { config: *config, kv_heads, projections, query_projection, output, sharing: sharing.clone() })
    }

    /// A layer of one's own projections: quantized, adapted, or with weights under other names. `config.bias` has no
    /// meaning here.
    ///
    /// # Errors
    /// `hidden_dim` is not divisible by `num_heads`, or that by `num_kv_heads`. What a projection returns is checked by every pass.
    pub fn from_parts(config: &MixedAttentionConfig, parts: AttentionParts) -> Result<Self> {
        let head_dim = projection::head_dim(config.hidden_dim, config.num_heads)?;
        let kv_heads = projection::kv_heads(config.num_heads, config.num_kv_heads)?;
        let projections = FusedLinear::from_parts(parts.input, [config.num_heads, kv_heads, kv_heads], head_dim);
        let query_projection = projections.first()?;
        let output = OutputProjection::Module(parts.output);
        Ok(Self { config: *config, kv_heads, projections, query_projection, output, sharing: WeightSharing::Shared })
    }

    /// The configuration.
    pub fn config(&self) -> &MixedAttentionConfig {
        &self.config
    }

    /// `x [batch, tokens, hidden_dim]`, the input groups of the plan one after another, to the same shape.
    ///
    /// # Errors
    /// Shapes, options or plan that do not fit; a plan with cached groups (see
    /// [`forward_from_cache`](Self::forward_from_cache)).
    pub fn forward(&self, x: &Tensor, plan: &AttentionPlan, options: &AttentionOptions) -> Result<Tensor> {
        self.check(x, plan, options)?;
        plan.resolve(None).map_err(AttentionError::from)?;
        let runs = self.runs(plan)?;
        let [queries, keys, values] = self.project(x, &runs)?;
        self.attend(
            Inputs { queries: &queries, keys_values: Some((&keys, &values)), cache: None },
            plan,
            &runs,
            options,
        )
    }

    /// [`forward`](Self::forward) in the shape of the PyTorch call: makes the plan from specs and patterns first.
    ///
    /// Keep a plan instead where the same groups come again.
    ///
    /// # Errors
    /// As [`AttentionPlan::new`] and [`forward`](Self::forward).
    pub fn forward_patterns(
        &self,
        x: &Tensor,
        token_specs: &[TokenSpec],
        patterns: &[AttentionPattern],
        options: &AttentionOptions,
    ) -> Result<Tensor> {
        self.forward(x, &AttentionPlan::new(token_specs, patterns)?, options)
    }

    /// Samples of different sizes in one launch, without padding: the tokens of each sample, `[tokens, hidden_dim]`, to the
    /// same shapes.
    ///
    /// `x` that lie one after another already, `[1, tokens of all, hidden_dim]`, are for [`forward`](Self::forward) with
    /// [`BatchPlan::plan`]. Angles and padding of the options are those of all tokens, one after another.
    ///
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// use candle_mixed_attention::{
    ///     AttentionOptions, AttentionPattern, AttentionPlan, BatchPlan, MixedAttention, MixedAttentionConfig, TokenSpec,
    /// };
    /// use candle_nn::{VarBuilder, VarMap};
    ///
    /// let vb = VarBuilder::from_varmap(&VarMap::new(), DType::F32, &Device::Cpu);
    /// let layer = MixedAttention::new(&MixedAttentionConfig::new(32, 2), vb)?;
    /// let sizes = [40, 7];
    /// let plan = |tokens| {
    ///     AttentionPlan::new(
    ///         [TokenSpec::new("tokens", tokens)],
    ///         [AttentionPattern::queries(["tokens"]).attend_to(["tokens"])],
    ///     )
    /// };
    /// let batch = BatchPlan::new(&[plan(sizes[0])?, plan(sizes[1])?])?;
    /// let x = |tokens: usize| Tensor::randn(0f32, 1., (tokens, 32), &Device::Cpu);
    /// let y = layer.forward_samples(&[x(sizes[0])?, x(sizes[1])?], &batch, &AttentionOptions::default())?;
    /// assert_eq!(y[1].dims(), [7, 32]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`forward`](Self::forward); another number of samples than the plan has, or another number of tokens in one.
    pub fn forward_samples(
        &self,
        samples: &[Tensor],
        batch: &BatchPlan,
        options: &AttentionOptions,
    ) -> Result<Vec<Tensor>> {
        if samples.len() != batch.samples().len() {
            let expected = format!("{}, one for each plan of the batch", batch.samples().len());
            return Err(AttentionError::value("number of samples", expected, samples.len()).into());
        }
        for (x, tokens) in samples.iter().zip(batch.samples()) {
            let expected = [tokens.len(), self.config.hidden_dim];
            if x.dims() != expected {
                return Err(AttentionError::shape("x of a sample", format!("{expected:?}"), x.dims()).into());
            }
        }
        let y = self.forward(&Tensor::cat(samples, 0)?.unsqueeze(0)?, batch.plan(), options)?.squeeze(0)?;
        batch.samples().iter().map(|tokens| y.narrow(0, tokens.start, tokens.len())).collect()
    }

    /// As [`forward`](Self::forward), and also returns the keys (after rotation) and values of the groups whose name has a
    /// word that begins with `anchor` (`anchors`, `surface_anchors`), or of those that [`AttentionOptions::cache_groups`]
    /// names, with their padding and their [bias](AttentionOptions::key_bias).
    ///
    /// # Errors
    /// As [`forward`](Self::forward); no group to cache, or an unknown one.
    pub fn forward_and_cache(
        &self,
        x: &Tensor,
        plan: &AttentionPlan,
        options: &AttentionOptions,
    ) -> Result<(Tensor, KvCache)> {
        self.check(x, plan, options)?;
        plan.resolve(None).map_err(AttentionError::from)?;
        let runs = self.runs(plan)?;
        let [queries, keys, values] = self.project(x, &runs)?;
        let inputs = Inputs { queries: &queries, keys_values: Some((&keys, &values)), cache: None };
        let y = self.attend(inputs, plan, &runs, options)?;
        Ok((y, cache_of(&keys, &values, plan, options, &AllKeys)?))
    }

    /// A later pass: the groups of the plan without a size come from `cache`, `x` holds the others.
    ///
    /// # Errors
    /// As [`forward`](Self::forward); a cache of another layer, batch size, dtype or device, or one that lacks a group.
    pub fn forward_from_cache(
        &self,
        x: &Tensor,
        plan: &AttentionPlan,
        cache: &KvCache,
        options: &AttentionOptions,
    ) -> Result<Tensor> {
        self.check(x, plan, options)?;
        let resolved = plan.resolve(Some(cache.layout())).map_err(AttentionError::from)?;
        let runs = self.runs(plan)?;
        if resolved.ranges().has_input_keys() {
            let [queries, keys, values] = self.project(x, &runs)?;
            let inputs = Inputs { queries: &queries, keys_values: Some((&keys, &values)), cache: Some(cache) };
            self.attend(inputs, plan, &runs, options)
        } else {
            cache.check_heads(self.kv_heads)?;
            let queries = self.query_projection.heads(x, &runs)?.remove(0);
            self.attend(Inputs { queries: &queries, keys_values: None, cache: Some(cache) }, plan, &runs, options)
        }
    }

    /// As [`forward_and_cache`](Self::forward_and_cache) on each of the processes of `exchange`, which all give the same
    /// `x`: each attends to its [share](KeyExchange::share) of every group's keys, gets attention to the keys of all, and
    /// returns the cache of its share alone.
    ///
    /// Keys and values of all tokens are computed on each process, for as long as the pass takes.
    ///
    /// # Errors
    /// As [`forward_and_cache`](Self::forward_and_cache); what [`KeyExchange::gather`] fails with.
    pub fn forward_and_shard(
        &self,
        x: &Tensor,
        plan: &AttentionPlan,
        options: &AttentionOptions,
        exchange: &dyn KeyExchange,
    ) -> Result<(Tensor, KvCache)> {
        if exchange.ranks() == 1 {
            return self.forward_and_cache(x, plan, options);
        }
        let batch = self.check(x, plan, options)?;
        plan.resolve(None).map_err(AttentionError::from)?;
        let runs = self.runs(plan)?;
        let [queries, keys, values] = self.project(x, &runs)?;
        if let Some(padding) = &options.key_padding {
            padding.check(batch, plan.len(), || plan.describe_input())?;
        }
        // To a process, the keys of the others are padding.
        let shares = plan.tokens().iter().filter_map(|token| plan.input_group(&token.name));
        let shares = shares.map(|(start, len)| shifted(exchange.share(len), start));
        let own_keys = KeyPadding::within(shares, plan.len(), options.key_padding.as_ref());
        let own_options = options.clone().key_padding(own_keys);
        let own = mixed_attention_part(&queries, Some((&keys, &values)), None, plan, &own_options)?;
        let y = self.output.join_heads(&exchange.combine(own)?.output, &runs)?;
        Ok((y, cache_of(&keys, &values, plan, options, exchange)?))
    }

    /// As [`forward_from_cache`](Self::forward_from_cache), where `shard` holds some of the keys and the other processes of
    /// `exchange` the rest: each of them gives the same `x` and gets attention to the keys of all.
    ///
    /// A group may have any number of keys in each shard, but it has to be in each: without a key, with a size of 0.
    ///
    /// # Errors
    /// As [`forward_from_cache`](Self::forward_from_cache); of several processes, a plan with keys among the input tokens,
    /// which would count once for each of them; what [`KeyExchange::gather`] fails with.
    pub fn forward_from_shard(
        &self,
        x: &Tensor,
        plan: &AttentionPlan,
        shard: &KvCache,
        options: &AttentionOptions,
        exchange: &dyn KeyExchange,
    ) -> Result<Tensor> {
        if exchange.ranks() == 1 {
            return self.forward_from_cache(x, plan, shard, options);
        }
        self.check(x, plan, options)?;
        let resolved = plan.resolve(Some(shard.layout())).map_err(AttentionError::from)?;
        if resolved.ranges().has_input_keys() {
            let expected = "keys that are all cached, as those of the input would count once for each process";
            return Err(AttentionError::value("plan", expected, plan.describe_input()).into());
        }
        shard.check_heads(self.kv_heads)?;
        let runs = self.runs(plan)?;
        let queries = self.query_projection.heads(x, &runs)?.remove(0);
        let own = mixed_attention_part(&queries, None, Some(shard), plan, options)?;
        self.output.join_heads(&exchange.combine(own)?.output, &runs)
    }

    /// As [`forward_from_cache`](Self::forward_from_cache), and also returns the cache with input groups of this pass behind
    /// its own: those that [`forward_and_cache`](Self::forward_and_cache) would keep.
    ///
    /// # Errors
    /// As both; as [`KvCache::append`].
    pub fn forward_and_append(
        &self,
        x: &Tensor,
        plan: &AttentionPlan,
        cache: &KvCache,
        options: &AttentionOptions,
    ) -> Result<(Tensor, KvCache)> {
        self.check(x, plan, options)?;
        let runs = self.runs(plan)?;
        let [queries, keys, values] = self.project(x, &runs)?;
        let inputs = Inputs { queries: &queries, keys_values: Some((&keys, &values)), cache: Some(cache) };
        let y = self.attend(inputs, plan, &runs, options)?;
        Ok((y, cache.append(&cache_of(&keys, &values, plan, options, &AllKeys)?)?))
    }

    /// The layer with a plan, as a plain candle [`Module`].
    pub fn bind<'a>(&'a self, plan: &AttentionPlan) -> BoundAttention<'a> {
        BoundAttention { attention: self, plan: plan.clone(), options: AttentionOptions::default() }
    }

    /// Checks an input, and tells its batch size.
    fn check(&self, x: &Tensor, plan: &AttentionPlan, options: &AttentionOptions) -> Result<usize> {
        let tokens = self.projections.check_input("x", x, self.config.hidden_dim)?;
        check_tokens("x", plan.len(), tokens, || plan.describe_input())?;
        check_rope(self.config.use_rope, options.rope.as_ref(), "x")?;
        x.dim(0)
    }

    /// Which weights each input token uses.
    fn runs(&self, plan: &AttentionPlan) -> std::result::Result<DomainRuns, PlanError> {
        Ok(self.sharing.runs(plan.tokens())?)
    }

    fn project(&self, x: &Tensor, runs: &DomainRuns) -> Result<[Tensor; 3]> {
        let parts = self.projections.heads(x, runs)?;
        <[Tensor; 3]>::try_from(parts).map_err(|_| candle_core::Error::UnwrapNone)
    }

    fn attend(
        &self,
        inputs: Inputs<'_>,
        plan: &AttentionPlan,
        runs: &DomainRuns,
        options: &AttentionOptions,
    ) -> Result<Tensor> {
        self.output.join_heads(&run(inputs, plan, options)?, runs)
    }
}

/// `use_rope` and the presence of frequencies must agree.
pub(super) fn check_rope(
    use_rope: bool,
    frequencies: Option<&RopeFrequencies>,
    argument: &'static str,
) -> std::result::Result<(), AttentionError> {
    match (use_rope, frequencies) {
        (true, None) => Err(AttentionError::RopeMissing { argument }),
        (false, Some(_)) => Err(AttentionError::RopeUnexpected { argument }),
        _ => Ok(()),
    }
}

fn shifted(range: Range<usize>, by: usize) -> Range<usize> {
    range.start + by..range.end + by
}

/// The keys, rotated, and values of the groups to keep, as many of each as are this process's share.
fn cache_of(
    keys: &Tensor,
    values: &Tensor,
    plan: &AttentionPlan,
    options: &AttentionOptions,
    exchange: &dyn KeyExchange,
) -> Result<KvCache> {
    let names: Vec<String> = match &options.cache_groups {
        Some(names) => names.clone(),
        None => {
            let is_kept = |token: &&TokenSpec| token.name.split('_').any(|word| word.starts_with(CACHED_BY_DEFAULT));
            plan.tokens()
                .iter()
                .filter(|token| !token.is_cached())
                .filter(is_kept)
                .map(|token| token.name.clone())
                .collect()
        }
    };
    if names.is_empty() {
        let expected = "at least one input group: named by the options, or with a word like 'anchors' in its name";
        let got = format!("none of {}", plan.describe_input());
        return Err(AttentionError::value("cache_groups", expected, got).into());
    }
    let mut places = Vec::with_capacity(names.len());
    let mut groups = Vec::with_capacity(names.len());
    for name in names {
        let known =
            || plan.tokens().iter().filter(|token| !token.is_cached()).map(|token| token.name.clone()).collect();
        let place = plan.input_group(&name);
        let (start, len) = place.ok_or_else(|| PlanError::NoSuchGroup { group: name.clone(), known: known() })?;
        let own = shifted(exchange.share(len), start);
        let (start, len) = (own.start, own.len());
        let mut key = keys.narrow(2, start, len)?;
        if let Some(rope) = &options.rope {
            key = rope.narrow(start, len)?.rotate(&key)?;
        }
        groups.push((name, key, values.narrow(2, start, len)?));
        places.push((start, len));
    }
    let padding = options.key_padding.as_ref().map(|padding| padding.gather(&places));
    let cache = KvCache::from_groups(groups, padding)?;
    let Some(bias) = &options.key_bias else { return Ok(cache) };
    let parts = places.iter().map(|&(start, len)| bias.narrow(2, start, len)).collect::<Result<Vec<_>>>()?;
    cache.with_key_bias(&Tensor::cat(&parts, 2)?)
}

/// A [`MixedAttention`] layer with its plan; see [`MixedAttention::bind`].
#[derive(Debug, Clone)]
pub struct BoundAttention<'a> {
    attention: &'a MixedAttention,
    plan: AttentionPlan,
    options: AttentionOptions,
}

impl BoundAttention<'_> {
    /// Sets the options of every call.
    pub fn with_options(mut self, options: AttentionOptions) -> Self {
        self.options = options;
        self
    }
}

impl Module for BoundAttention<'_> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.attention.forward(x, &self.plan, &self.options)
    }
}
