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
mod reference;

use std::sync::Once;

use candle_core::{DType, Device, Result, Tensor};

use call::Arguments;
pub(crate) use call::Inputs;
use fused::FusedAttention;
use options::{AttentionOptions, Backend};

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
/// `queries`, `keys` and `values` have shape `[batch, heads, tokens, head_dim]`, f32, f16 or bf16 (f64 with the reference
/// backend), in any strides: views of one fused projection are read in place. The result has the shape and dtype of
/// `queries` and is a view of rows `[batch, tokens, heads, head_dim]`, so that
/// `.transpose(1, 2)?.flatten_from(2)` gives `[batch, tokens, heads · head_dim]` without a copy.
///
/// Scores, softmax and sums are f32 whatever the dtype. A query without a visible key gets zeros.
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
/// # Errors
/// Shapes, dtypes or devices that do not fit each other, the plan or the options; a plan with cached groups (see
/// [`mixed_attention_cached`]); [`Backend::Fused`] where it cannot run.
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
/// plan are cached.
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

/// Checks a call and runs it on the backend that the options and the device lead to.
pub(crate) fn run(inputs: Inputs<'_>, plan: &AttentionPlan, options: &AttentionOptions) -> Result<Tensor> {
    let mut arguments = Arguments::new(inputs, plan, options)?;
    let pair_up = |x: &Tensor| options.rope.as_ref().map_or_else(|| Ok(x.clone()), |rope| rope.pair_up(x));
    let queries = &pair_up(inputs.queries)?;
    if let Some(cache) = &mut arguments.cache {
        cache.keys = pair_up(&cache.keys)?;
    }
    // Without input keys the op still has three operands; it never reads these two.
    let (keys, values) = match inputs.keys_values {
        Some((keys, values)) => (&pair_up(keys)?, values),
        None => (queries, queries),
    };
    let fused =
        supports(queries.device(), queries.dtype(), arguments.head_dim).and_then(|()| arguments.follows_gradients());
    match (options.backend, fused) {
        (Backend::Reference, _) => reference::forward(&arguments, queries, keys, values),
        (Backend::Auto, Err(reason)) => {
            log_fallback(&reason);
            reference::forward(&arguments, queries, keys, values)
        }
        (Backend::Fused, Err(reason)) => Err(AttentionError::from(reason).into()),
        (_, Ok(())) => {
            let (queries, keys, values) = (readable(queries)?, readable(keys)?, readable(values)?);
            queries.apply_op3(&keys, &values, FusedAttention { arguments })?.transpose(1, 2)
        }
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
