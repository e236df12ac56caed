//! The definition: mixed attention in plain candle ops, for any float dtype and device, differentiable.
//!
//! It computes in f32 (f64 for f64 tensors) and rounds once, at the end. Tests compare every kernel with it.

use candle_core::{D, DType, Device, Result, Tensor};

use super::call::{Arguments, wide_dtype};
use crate::plan::{KeyRange, KeySource, PaddingBits};
use crate::rope::RopeFrequencies;

/// Runs the plan and returns `[batch, heads, tokens, head_dim]`.
pub(super) fn forward(arguments: &Arguments, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
    if queries.elem_count() == 0 {
        return queries.zeros_like();
    }
    let wide = wide_dtype(queries.dtype());
    let widen = |tensor: &Tensor| tensor.to_dtype(wide);
    let (mut queries_wide, mut keys) = (widen(queries)?, widen(keys)?);
    if let Some(table) = &arguments.rope {
        let rope = RopeFrequencies::from_table(table.clone());
        queries_wide = rope.rotate_wide(&queries_wide)?;
        keys = rope.rotate_wide(&keys)?;
    }
    let input = Source { keys, values: widen(values)?, padding: arguments.padding.as_deref() };
    let cache = match &arguments.cache {
        Some(cache) => Some(Source {
            keys: broadcast_batch(&widen(&cache.keys)?, arguments.batch)?,
            values: broadcast_batch(&widen(&cache.values)?, arguments.batch)?,
            padding: cache.padding.as_deref(),
        }),
        None => None,
    };

    let ranges = arguments.resolved.ranges();
    let mut outputs = Vec::with_capacity(ranges.query_ranges().len());
    for query_range in ranges.query_ranges() {
        let queries = queries_wide.narrow(2, query_range.start, query_range.len)?.contiguous()?;
        let mut parts = Vec::new();
        for range in ranges.keys_of(query_range) {
            let source = match range.source {
                KeySource::Input => Some(&input),
                KeySource::Cache => cache.as_ref(),
            };
            // The arguments were checked against the plan: a source that it names is there.
            if let Some(source) = source {
                parts.push(source.narrow(range, arguments.batch)?);
            }
        }
        outputs.push(attend(&queries, &parts, arguments.scale)?);
    }
    Tensor::cat(&outputs, 2)?.to_dtype(queries.dtype())
}

/// Keys and values of one source.
struct Source<'a> {
    keys: Tensor,
    values: Tensor,
    padding: Option<&'a PaddingBits>,
}

/// One key range: keys, values and, if there is padding, the real tokens `[batch, 1, 1, keys]`.
struct Part {
    keys: Tensor,
    values: Tensor,
    real: Option<Tensor>,
}

impl Source<'_> {
    fn narrow(&self, range: &KeyRange, batch: usize) -> Result<Part> {
        let keys = self.keys.narrow(2, range.start, range.len)?;
        let values = self.values.narrow(2, range.start, range.len)?;
        let Some(bits) = self.padding else { return Ok(Part { keys, values, real: None }) };
        let real = real_tokens(bits, range, batch, keys.device())?;
        // A masked token must have no influence even if it holds NaN, which 0 · NaN would not achieve.
        let column = real.reshape((batch, 1, range.len, 1))?;
        let keep = |tensor: &Tensor| {
            let condition = column.broadcast_as(tensor.shape())?;
            condition.where_cond(tensor, &tensor.zeros_like()?)
        };
        Ok(Part { keys: keep(&keys)?, values: keep(&values)?, real: Some(real) })
    }
}

/// The real tokens of a range, `[batch, 1, 1, keys]` of u8.
fn real_tokens(bits: &PaddingBits, range: &KeyRange, batch: usize, device: &Device) -> Result<Tensor> {
    let real = |row: usize| (range.start..range.start + range.len).map(move |token| u8::from(bits.is_real(row, token)));
    let real: Vec<u8> = (0..batch).flat_map(real).collect();
    Tensor::from_vec(real, (batch, 1, 1, range.len), device)
}

/// `softmax(q kᵀ · scale) v` over all parts; zeros for a query without a visible key.
fn attend(queries: &Tensor, parts: &[Part], scale: f32) -> Result<Tensor> {
    if parts.is_empty() {
        return queries.zeros_like();
    }
    let keys = Tensor::cat(&parts.iter().map(|part| part.keys.clone()).collect::<Vec<_>>(), 2)?;
    let values = Tensor::cat(&parts.iter().map(|part| part.values.clone()).collect::<Vec<_>>(), 2)?;
    let scores = (queries.matmul(&keys.t()?.contiguous()?)? * f64::from(scale))?;
    let real = real_of_all(parts, queries)?;
    let scores = match &real {
        Some(real) => {
            let hidden = Tensor::full(f32::MIN, (), scores.device())?.to_dtype(scores.dtype())?;
            real.broadcast_as(scores.shape())?.where_cond(&scores, &hidden.broadcast_as(scores.shape())?)?
        }
        None => scores,
    };
    // The maximum only shifts the exponent: its gradient is zero by definition of the softmax.
    let maximum = scores.max_keepdim(D::Minus1)?.detach();
    let weights = scores.broadcast_sub(&maximum)?.exp()?;
    let weights = match &real {
        Some(real) => weights.broadcast_mul(&real.to_dtype(weights.dtype())?)?,
        None => weights,
    };
    let sum = weights.sum_keepdim(D::Minus1)?;
    let sum = match &real {
        // Rows without a visible key: 0 / 1 instead of 0 / 0.
        Some(_) => (&sum + sum.eq(0f64)?.to_dtype(sum.dtype())?)?,
        None => sum,
    };
    weights.broadcast_div(&sum)?.matmul(&values.contiguous()?)
}

/// The real tokens of all parts, `[batch, 1, 1, keys]`, or `None` if no part has padding.
fn real_of_all(parts: &[Part], queries: &Tensor) -> Result<Option<Tensor>> {
    if parts.iter().all(|part| part.real.is_none()) {
        return Ok(None);
    }
    let batch = queries.dim(0)?;
    let real = parts.iter().map(|part| match &part.real {
        Some(real) => Ok(real.clone()),
        None => Tensor::ones((batch, 1, 1, part.keys.dim(2)?), DType::U8, queries.device()),
    });
    Ok(Some(Tensor::cat(&real.collect::<Result<Vec<_>>>()?, 3)?))
}

fn broadcast_batch(tensor: &Tensor, batch: usize) -> Result<Tensor> {
    let (_, heads, tokens, head_dim) = tensor.dims4()?;
    tensor.broadcast_as((batch, heads, tokens, head_dim))?.contiguous()
}
