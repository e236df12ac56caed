//! The projections of an attention layer as modules of one's own.

use std::fmt;
use std::sync::Arc;

use candle_core::{Module, Result, Tensor};

use crate::error::AttentionError;

/// A module that may be shared by the clones of a layer.
#[derive(Clone)]
pub(super) struct SharedModule(Arc<dyn Module + Send + Sync>);

impl SharedModule {
    fn new(module: impl Module + Send + Sync + 'static) -> Self {
        Self(Arc::new(module))
    }

    /// `x [batch, tokens, ..]` to `[batch, tokens, width]`; `argument` names the result for the error.
    pub(super) fn forward(&self, argument: &'static str, x: &Tensor, width: usize) -> Result<Tensor> {
        let y = self.0.forward(x)?;
        let expected = [&x.dims()[..2], &[width]].concat();
        match y.dims() == expected {
            true => Ok(y),
            false => Err(AttentionError::shape(argument, format!("{expected:?}"), y.dims()).into()),
        }
    }
}

impl fmt::Debug for SharedModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a module")
    }
}

/// The projections of a [`MixedAttention`](crate::MixedAttention) as modules of one's own, for
/// [`from_parts`](crate::MixedAttention::from_parts): quantized weights, adapters, anything that maps
/// `[batch, tokens, hidden_dim]`. Cheap to clone.
///
/// ```
/// use candle_core::quantized::{GgmlDType, QMatMul, QTensor};
/// use candle_core::{Device, Tensor};
/// use candle_mixed_attention::{AttentionParts, MixedAttention, MixedAttentionConfig};
///
/// let quantized = |rows: usize| -> candle_core::Result<_> {
///     let weight = Tensor::randn(0f32, 0.1, (rows, 64), &Device::Cpu)?;
///     QMatMul::from_qtensor(QTensor::quantize(&weight, GgmlDType::Q8_0)?)
/// };
/// let parts = AttentionParts::fused(quantized(3 * 64)?, quantized(64)?);
/// let attention = MixedAttention::from_parts(&MixedAttentionConfig::new(64, 4), parts)?;
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct AttentionParts {
    pub(super) input: InputParts,
    /// `[batch, tokens, hidden_dim]` to the same shape.
    pub(super) output: SharedModule,
}

/// What makes queries, keys and values.
#[derive(Debug, Clone)]
pub(super) enum InputParts {
    /// One module for each of the three.
    Separate([SharedModule; 3]),
    /// One module whose output holds the three side by side.
    Fused(SharedModule),
}

impl AttentionParts {
    /// Four modules that map `[batch, tokens, hidden_dim]` to the same shape; `key` and `value` to fewer channels where the layer
    /// has fewer heads of keys and values: `num_kv_heads · hidden_dim / num_heads`.
    pub fn separate(
        query: impl Module + Send + Sync + 'static,
        key: impl Module + Send + Sync + 'static,
        value: impl Module + Send + Sync + 'static,
        output: impl Module + Send + Sync + 'static,
    ) -> Self {
        let input = [SharedModule::new(query), SharedModule::new(key), SharedModule::new(value)];
        Self { input: InputParts::Separate(input), output: SharedModule::new(output) }
    }

    /// One module that maps `[batch, tokens, hidden_dim]` to `[batch, tokens, 3 · hidden_dim]` (less where the layer has fewer
    /// heads of keys and values): queries, keys and values side by side; and one for the output. A pass whose keys are all cached runs the whole of the first.
    pub fn fused(qkv: impl Module + Send + Sync + 'static, output: impl Module + Send + Sync + 'static) -> Self {
        Self { input: InputParts::Fused(SharedModule::new(qkv)), output: SharedModule::new(output) }
    }
}
