//! The functional op and its backends.
//!
//! [`mixed_attention`] checks its arguments ([`call`]), then runs the [`fused`] kernel of the device or the [`reference`].

mod call;
pub(crate) mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod fused;
#[cfg(any(feature = "cuda", feature = "metal"))]
mod gpu;
#[cfg(feature = "metal")]
mod metal;
pub(crate) mod options;
pub(crate) mod part;
mod reference;

use std::sync::{Arc, Once, OnceLock};

use candle_core::{DType, Device, Result, Tensor};

use call::Arguments;
pub(crate) use call::Inputs;
use fused::FusedAttention;
use options::{AttentionOptions, Backend};
use part::AttentionPart;

use crate::cache::KvCache;
use crate::error::{AttentionError, Unsupported};
use crate::plan::AttentionPlan;

/// Whether the fused kernel of a device takes this dtype and head_dim, or the reason why not.
///
/// On Metal, where only trying tells, the first question about a dtype and head_dim compiles the kernels for them.
///
/// ```
/// use candle_core::{DType, Device};
/// use candle_mixed_attention::supports;
///
/// assert!(supports(&Device::Cpu, DType::BF16, 64).is_ok());
/// println!("{}", supports(&Device::Cpu, DType::F64, 64).unwrap_err());
/// ```
///
/// # Errors
/// The reason.
pub fn supports(device: &Device, dtype: DType, head_dim: usize) -> std::result::Result<(), Unsupported> {
    let location = device.location();
    if !matches!(dtype, DType::F32 | DType::F16 | DType::BF16) {
        return Err(Unsupported::DType { dtype, device: location });
    }
    if head_dim == 0 {
        return Err(Unsupported::HeadDim { head_dim, expected: "any head_dim from 1", device: location });
    }
    match device {
        Device::Cpu => Ok(()),
        #[cfg(feature = "cuda")]
        Device::Cuda(device) => cuda::supports(device, head_dim),
        #[cfg(feature = "metal")]
        Device::Metal(device) => metal::supports(device, dtype, head_dim),
        _ => {
            Err(Unsupported::Device { device: location, reason: "this build has no fused kernels for it".to_string() })
        }
    }
}

/// Runs all patterns of a plan in one launch.
///
/// `queries` have shape `[batch, heads, tokens, head_dim]`, `keys` and `values` `[batch, kv_heads, tokens, head_dim]`, all f32,
/// f16 or bf16 (f64 with the reference backend), in any strides: views of one fused projection are read in place. `kv_heads`
/// divides `heads`: with fewer, neighbouring heads of queries share one of keys and values, which are not copied (grouped-query
/// attention, [Ainslie et al. 2023](https://arxiv.org/abs/2305.13245)). The result has the shape and dtype of `queries` and is a view of rows `[batch, tokens, heads, head_dim]`, so that
/// `.transpose(1, 2)?.flatten_from(2)` gives `[batch, tokens, heads · head_dim]` without a copy.
///
/// Scores, softmax and sums are f32 whatever the dtype (f64 for f64). A query without a visible key gets zeros, and so does
/// one whose scores are all −∞.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_mixed_attention::{AttentionOptions, AttentionPattern, AttentionPlan, TokenSpec, mixed_attention};
///
/// let plan = AttentionPlan::new(
///     [TokenSpec::new("anchors", 100), TokenSpec::new("queries", 50)],
///     [AttentionPattern::queries(["anchors", "queries"]).attend_to(["anchors"])],
/// )?;
/// // One projection, three views.
/// let qkv = Tensor::randn(0f32, 1., (2, plan.len(), 3, 4, 16), &Device::Cpu)?;
/// let view = |i| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2);
/// let output = mixed_attention(&view(0)?, &view(1)?, &view(2)?, &plan, &AttentionOptions::default())?;
/// assert_eq!(output.dims(), &[2, 4, 150, 16]);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// On CUDA a call can be captured into a graph once the plan has met its sizes on that stream: the first time uploads its
/// schedule, and is refused in a capture. A graph refers to what the plan keeps and to scratch memory of the stream, so it
/// is replayed on that stream, while the plan lives and no call there has needed more scratch memory. The device is one of
/// `Device::new_cuda`, or its event tracking is off: else candle waits for events from before the capture, which CUDA forbids.
///
/// On a device of `Device::new_cuda` each thread has a stream of its own, and candle orders nothing between them: before another
/// thread uses a tensor, the one that made it calls `device.synchronize()`. A device of `Device::new_cuda_with_stream` has one
/// stream for all threads. Plans may be shared either way.
///
/// # Errors
/// Shapes, dtypes or devices that do not fit each other, the plan or the options; heads that those of the keys do not divide; a
/// plan with cached groups (see [`mixed_attention_cached`]); [`Backend::Fused`] where it cannot run.
pub fn mixed_attention(
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
    plan: &AttentionPlan,
    options: &AttentionOptions,
) -> Result<Tensor> {
    run(Inputs { queries, keys_values: Some((keys, values)), cache: None }, plan, options)
}

/// As [`mixed_attention`], with the cached groups of the plan taken from `cache`.
///
/// `keys_values` are the keys (before rotation) and values of the input tokens; they may be left out if all keys of the
/// plan are cached. The cache has as many heads as they.
///
/// # Errors
/// As [`mixed_attention`]; also a cache of other heads, head_dim, dtype, device or batch size, or one that lacks a group.
pub fn mixed_attention_cached(
    queries: &Tensor,
    keys_values: Option<(&Tensor, &Tensor)>,
    cache: &KvCache,
    plan: &AttentionPlan,
    options: &AttentionOptions,
) -> Result<Tensor> {
    run(Inputs { queries, keys_values, cache: Some(cache) }, plan, options)
}

/// As [`mixed_attention`] and [`mixed_attention_cached`], with the log-sum-exp of each query's scores, so that results over
/// several parts of the keys can be [combined](AttentionPart::combine).
///
/// Where a gradient is followed, [`Backend::Auto`] runs the reference and [`Backend::Fused`] is an error.
///
/// # Errors
/// As [`mixed_attention_cached`].
pub fn mixed_attention_part(
    queries: &Tensor,
    keys_values: Option<(&Tensor, &Tensor)>,
    cache: Option<&KvCache>,
    plan: &AttentionPlan,
    options: &AttentionOptions,
) -> Result<AttentionPart> {
    let call = Call::new(Inputs { queries, keys_values, cache }, plan, options)?;
    if !call.is_fused(|call| call.gives_log_sum_exp())? {
        return reference::forward_part(&call.arguments, &call.queries, &call.keys, &call.values);
    }
    let slot = Arc::new(OnceLock::new());
    let output = call.fused(Some(slot.clone()))?;
    let log_sum_exp: &Tensor =
        slot.get().ok_or_else(|| candle_core::Error::Msg("the fused kernel gave no log-sum-exp".to_string()))?;
    Ok(AttentionPart { output, log_sum_exp: log_sum_exp.transpose(1, 2)? })
}

/// Checks a call and runs it on the backend that the options and the device lead to.
pub(crate) fn run(inputs: Inputs<'_>, plan: &AttentionPlan, options: &AttentionOptions) -> Result<Tensor> {
    let call = Call::new(inputs, plan, options)?;
    if call.is_fused(|_| Ok(()))? {
        call.fused(None)
    } else {
        reference::forward(&call.arguments, &call.queries, &call.keys, &call.values)
    }
}

/// A checked call and the operands of its op.
struct Call {
    arguments: Arguments,
    backend: Backend,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
}

impl Call {
    fn new(inputs: Inputs<'_>, plan: &AttentionPlan, options: &AttentionOptions) -> Result<Self> {
        let mut arguments = Arguments::new(inputs, plan, options)?;
        // Before anything falls back to candle's kernels.
        #[cfg(feature = "metal")]
        crate::metal::system::check_device(inputs.queries.device())?;
        let pair_up = |x: &Tensor| options.rope.as_ref().map_or_else(|| Ok(x.clone()), |rope| rope.pair_up(x));
        let queries = pair_up(inputs.queries)?;
        if let Some(cache) = &mut arguments.cache {
            cache.keys = pair_up(&cache.keys)?;
        }
        // Of the few numbers of a bias, kernels read one kind only.
        let wide = crate::element::wide_dtype(queries.dtype());
        let of_cache = arguments.cache.as_mut().and_then(|cache| cache.key_bias.as_mut());
        for bias in arguments.key_bias.iter_mut().chain(of_cache) {
            *bias = bias.to_dtype(wide)?.contiguous()?;
        }
        // Without input keys the op still has three operands; it never reads these two.
        let (keys, values) = match inputs.keys_values {
            Some((keys, values)) => (pair_up(keys)?, values.clone()),
            None => (queries.clone(), queries.clone()),
        };
        Ok(Self { arguments, backend: options.backend, queries, keys, values })
    }

    /// Whether the fused kernel runs, under a further condition; else the reference does.
    fn is_fused(&self, also: impl Fn(&Self) -> std::result::Result<(), Unsupported>) -> Result<bool> {
        if self.backend == Backend::Reference {
            return Ok(false);
        }
        let fused = supports(self.queries.device(), self.queries.dtype(), self.arguments.head_dim)
            .and_then(|()| self.arguments.follows_gradients())
            .and_then(|()| also(self));
        match (self.backend, fused) {
            (_, Ok(())) => Ok(true),
            (Backend::Fused, Err(reason)) => Err(AttentionError::from(reason).into()),
            (_, Err(reason)) => {
                log_fallback(&reason);
                Ok(false)
            }
        }
    }

    /// Whether the fused kernel gives a log-sum-exp: an op of candle has one output, and so one gradient.
    fn gives_log_sum_exp(&self) -> std::result::Result<(), Unsupported> {
        match [&self.queries, &self.keys, &self.values].into_iter().any(Tensor::track_op) {
            true => Err(Unsupported::Gradient { argument: "log-sum-exp" }),
            false => Ok(()),
        }
    }

    /// Runs the fused kernel.
    fn fused(self, log_sum_exp: Option<Arc<OnceLock<Tensor>>>) -> Result<Tensor> {
        let (queries, keys, values) = (readable(&self.queries)?, readable(&self.keys)?, readable(&self.values)?);
        let op = FusedAttention { arguments: self.arguments, log_sum_exp };
        queries.apply_op3(&keys, &values, op)?.transpose(1, 2)
    }
}

/// The tensor itself if the kernels of its device can read its rows in place, else a copy.
fn readable(tensor: &Tensor) -> Result<Tensor> {
    #[cfg(any(feature = "cuda", feature = "metal"))]
    if !tensor.device().is_cpu() {
        let in_place = crate::kernels::rows::is_readable(tensor.layout(), tensor.dtype().size_in_bytes());
        return if in_place { Ok(tensor.clone()) } else { tensor.force_contiguous() };
    }
    match tensor.stride() {
        [.., 1] => Ok(tensor.clone()),
        _ if tensor.dims().last() == Some(&1) => Ok(tensor.clone()),
        _ => tensor.contiguous(),
    }
}

fn log_fallback(reason: &Unsupported) {
    static LOGGED: Once = Once::new();
    LOGGED.call_once(|| tracing::warn!(%reason, "mixed attention falls back to the reference backend"));
}
