//! What a call may ask for besides its tensors.

use candle_core::Tensor;

use crate::padding::KeyPadding;
use crate::rope::RopeFrequencies;
use crate::simd::SimdLevel;

/// Which implementation runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Backend {
    /// The fused kernel where it can run, else the reference; a fallback is logged once through `tracing`.
    #[default]
    Auto,
    /// The fused kernel, or an error that says why not.
    Fused,
    /// The definition in plain candle ops, for any dtype and device.
    Reference,
}

/// Options of [`mixed_attention`](crate::mixed_attention()) and of the modules.
///
/// ```
/// use candle_mixed_attention::{AttentionOptions, Backend, KeyPadding};
///
/// let padding = KeyPadding::from_lengths(&[290, 120], 290)?;
/// let options = AttentionOptions::default().key_padding(padding).backend(Backend::Fused);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct AttentionOptions {
    pub(crate) rope: Option<RopeFrequencies>,
    pub(crate) key_padding: Option<KeyPadding>,
    pub(crate) key_bias: Option<Tensor>,
    pub(crate) scale: Option<f32>,
    pub(crate) backend: Backend,
    pub(crate) simd: Option<SimdLevel>,
    pub(crate) tf32: bool,
    pub(crate) invariant: bool,
    pub(crate) cache_groups: Option<Vec<String>>,
}

impl AttentionOptions {
    /// Rotates queries and input keys by these angles, one per input token. Cached keys are already rotated.
    ///
    /// A pass that fills a cache in f16 or bf16 rounds the rotated keys to that dtype, which a pass without a cache does not:
    /// results may differ by one rounding of each key (2e-3 for f16 at scores of order 1).
    pub fn rope(mut self, frequencies: &RopeFrequencies) -> Self {
        self.rope = Some(frequencies.clone());
        self
    }

    /// Hides padding tokens of the input from all queries. A cache carries the padding of its own tokens.
    pub fn key_padding(mut self, padding: KeyPadding) -> Self {
        self.key_padding = Some(padding);
        self
    }

    /// Adds a number to the scores of each key of the input: `[batch or 1, heads or 1, tokens]`, one per input token, of any float
    /// dtype, on the device of the queries. An axis of 1 serves every batch row or head of queries. The bias comes on top of the
    /// scaled score: a key whose bias is `log w` weighs as much as `w` keys like it, so that anchors that stand for areas or
    /// volumes of different sizes count by those. −∞ hides a key, +∞ is not a number to add; what stands at padding tokens and
    /// at tokens that are nobody's keys has no influence.
    ///
    /// A cache carries the bias of its own tokens: [`KvCache::with_key_bias`](crate::KvCache::with_key_bias). The passes that fill
    /// a cache put it there.
    ///
    /// Gradients of queries, keys and values flow past a bias in every backend. One of the bias itself is followed by the
    /// reference, which [`Backend::Auto`] then runs; [`Backend::Fused`] is an error.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_mixed_attention::{AttentionOptions, AttentionPattern, AttentionPlan, TokenSpec, mixed_attention};
    ///
    /// let plan = AttentionPlan::new(
    ///     [TokenSpec::new("anchors", 3), TokenSpec::new("queries", 2)],
    ///     [AttentionPattern::queries(["anchors", "queries"]).attend_to(["anchors"])],
    /// )?;
    /// let random = || Tensor::randn(0f32, 1., (1, 4, 5, 16), &Device::Cpu);
    /// let areas = Tensor::new(&[[[0.5f32, 2., 0.25, 1., 1.]]], &Device::Cpu)?;
    /// let options = AttentionOptions::default().key_bias(&areas.log()?);
    /// let y = mixed_attention(&random()?, &random()?, &random()?, &plan, &options)?;
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn key_bias(mut self, bias: &Tensor) -> Self {
        self.key_bias = Some(bias.clone());
        self
    }

    /// Factor of the scores; `1 / √head_dim` if not set. Positive and finite.
    pub fn scale(mut self, scale: f32) -> Self {
        self.scale = Some(scale);
        self
    }

    /// Chooses the implementation.
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = backend;
        self
    }

    /// Names the groups that [`forward_and_cache`](crate::MixedAttention::forward_and_cache) keeps, instead of those
    /// whose name has a word that begins with `anchor`.
    pub fn cache_groups<S: Into<String>>(mut self, names: impl IntoIterator<Item = S>) -> Self {
        self.cache_groups = Some(names.into_iter().map(Into::into).collect());
        self
    }

    /// The angles that [`rope`](Self::rope) has set.
    pub fn rope_frequencies(&self) -> Option<&RopeFrequencies> {
        self.rope.as_ref()
    }

    /// The padding that [`key_padding`](Self::key_padding) has set.
    pub fn padding(&self) -> Option<&KeyPadding> {
        self.key_padding.as_ref()
    }

    /// Lets CUDA kernels round f32 queries, keys, values and probabilities to TF32 (10 bits of mantissa) before they
    /// multiply them, which takes a third of the instructions. Off by default: each number is then multiplied as two of TF32,
    /// which makes NaN of what is infinite. Other dtypes and devices ignore it.
    pub fn tf32(mut self, allowed: bool) -> Self {
        self.tf32 = allowed;
        self
    }

    /// Makes the result of a sample independent of what else is in the batch, of the number of threads and of the size of
    /// the GPU, to the last bit: keys are never split between workers. Off by default, because few queries with very many
    /// keys then run on few workers. It holds for the op of a fused backend on one device and instruction set; products of
    /// the layers around it are those of candle.
    pub fn invariant(mut self, wanted: bool) -> Self {
        self.invariant = wanted;
        self
    }

    /// Instruction set of the fused CPU kernel, for tests and comparisons. Other devices ignore it.
    pub fn simd(mut self, level: SimdLevel) -> Self {
        self.simd = Some(level);
        self
    }
}
