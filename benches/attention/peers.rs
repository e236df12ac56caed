//! What a candle user would write today: one attention per pattern, between splitting and concatenating.

use candle_core::{D, DType, Result, Tensor, bail};
use candle_mixed_attention::plan::{KeySource, PlanRanges, QueryRange};
use candle_nn::attention::{AttnMask, flash_attn};

use crate::operands::Operands;
use crate::workloads::Workload;

/// Keys or values of one query range, concatenated.
pub fn gather(operands: &Operands, ranges: &PlanRanges, queries: &QueryRange, of_keys: bool) -> Result<Tensor> {
    let parts = ranges.keys_of(queries).iter().map(|range| {
        let tensor = match (range.source, &operands.cache) {
            (KeySource::Cache, Some(cache)) if of_keys => cache.keys(),
            (KeySource::Cache, Some(cache)) => cache.values(),
            _ if of_keys => &operands.keys,
            _ => &operands.values,
        };
        tensor.narrow(2, range.start, range.len)
    });
    Tensor::cat(&parts.collect::<Result<Vec<_>>>()?, 2)
}

fn for_each_range(
    operands: &Operands,
    workload: &Workload,
    attend: impl Fn(Tensor, Tensor, Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let layout = operands.cache.as_ref().map(|cache| cache.layout());
    let resolved = workload.plan.resolve(layout).map_err(candle_core::Error::wrap)?;
    let ranges = resolved.ranges();
    let outputs = ranges.query_ranges().iter().map(|queries| {
        let (keys, values) = (gather(operands, ranges, queries, true)?, gather(operands, ranges, queries, false)?);
        attend(operands.queries.narrow(2, queries.start, queries.len)?, keys, values)
    });
    Tensor::cat(&outputs.collect::<Result<Vec<_>>>()?, 2)
}

/// matmul, softmax, matmul.
pub fn per_pattern(operands: &Operands, workload: &Workload) -> Result<Tensor> {
    let scale = 1.0 / (workload.head_dim() as f64).sqrt();
    for_each_range(operands, workload, |queries, keys, values| {
        let scores = (queries.contiguous()?.matmul(&keys.contiguous()?.t()?)? * scale)?;
        candle_nn::ops::softmax(&scores, D::Minus1)?.matmul(&values.contiguous()?)
    })
}

/// candle_nn's flash attention for the CPU.
pub fn candle_flash(operands: &Operands, workload: &Workload) -> Result<Tensor> {
    let scale = 1.0 / (workload.head_dim() as f32).sqrt();
    for_each_range(operands, workload, |queries, keys, values| {
        let rows = |tensor: &Tensor| tensor.transpose(1, 2)?.contiguous();
        let (queries, keys, values) = (rows(&queries)?, rows(&keys)?, rows(&values)?);
        match queries.dtype() {
            DType::F32 => flash_attn::<f32>(&queries, &keys, &values, scale, AttnMask::None, None, None),
            DType::BF16 => flash_attn::<half::bf16>(&queries, &keys, &values, scale, AttnMask::None, None, None),
            dtype => bail!("flash attention is not compared in {dtype:?}"),
        }
    })
}

/// candle_nn's fused attention for Metal.
#[cfg(any(feature = "cuda", feature = "metal"))]
pub fn candle_sdpa(operands: &Operands, workload: &Workload) -> Result<Tensor> {
    let scale = 1.0 / (workload.head_dim() as f32).sqrt();
    for_each_range(operands, workload, |queries, keys, values| {
        candle_nn::ops::sdpa(&queries, &keys, &values, None, false, scale, 1.0)
    })
}
