//! The definition: mixed attention in plain candle ops, for any float dtype and device, differentiable.
//!
//! It computes in f32 (f64 for f64 tensors) and rounds once, at the end. Tests compare every kernel with it.

use candle_core::{D, DType, Device, Result, Tensor};

use super::call::Arguments;
use super::part::AttentionPart;
use crate::element::wide_dtype;
use crate::plan::{KeyRange, KeySource, PaddingBits, QueryRange};
use crate::rope::RopeFrequencies;

/// Scores that are in memory at a time, over batch and heads.
const BLOCK_SCORES: usize = 1 << 22;

/// Queries of a block, at least: fewer would spend their time on reading keys.
const LEAST_QUERIES: usize = 16;

/// Runs the plan and returns `[batch, heads, tokens, head_dim]`.
pub(super) fn forward(arguments: &Arguments, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Tensor> {
    Ok(forward_part(arguments, queries, keys, values)?.output)
}

/// Runs the plan and returns the output with the log-sum-exp of each query's scores.
pub(super) fn forward_part(
    arguments: &Arguments,
    queries: &Tensor,
    keys: &Tensor,
    values: &Tensor,
) -> Result<AttentionPart> {
    let (batch, heads, tokens, _) = queries.dims4()?;
    if queries.elem_count() == 0 {
        let log_sum_exp = Tensor::zeros((batch, heads, tokens), wide_dtype(queries.dtype()), queries.device())?;
        return Ok(AttentionPart { output: queries.zeros_like()?, log_sum_exp });
    }
    let operands = Operands::new(arguments, queries, keys, values)?;
    let ranges = arguments.resolved.ranges();
    let (mut outputs, mut log_sum_exps) = (Vec::new(), Vec::new());
    for range in ranges.query_ranges() {
        let seen = operands.seen_by(range)?;
        for (start, len) in blocks(arguments, range) {
            let queries = operands.queries.narrow(2, start, len)?.contiguous()?;
            match &seen {
                Some(seen) => {
                    let visible = operands.visible(range, (start, len))?;
                    let (weights, log_sum_exp) = seen.weights(&queries, visible.as_ref(), operands.scale)?;
                    outputs.push(multiply(&weights, &seen.values)?);
                    log_sum_exps.push(log_sum_exp);
                }
                None => {
                    outputs.push(queries.zeros_like()?);
                    let nothing = Tensor::full(f32::NEG_INFINITY, (batch, heads, len), queries.device())?;
                    log_sum_exps.push(nothing.to_dtype(queries.dtype())?);
                }
            }
        }
    }
    let output = Tensor::cat(&outputs, 2)?.to_dtype(queries.dtype())?;
    Ok(AttentionPart { output, log_sum_exp: Tensor::cat(&log_sum_exps, 2)? })
}

/// Gradients of queries, keys and values for a gradient `[batch, heads, tokens, head_dim]` of the output.
///
/// Weights are computed again, block by block of queries, so that memory is linear in the number of tokens:
///
/// ```text
/// dV = Pᵀ dO;   dS = P ∘ (dO Vᵀ − Σ_c dO ∘ O) · scale;   dQ = dS K;   dK = dSᵀ Q
/// ```
pub(super) fn backward(
    arguments: &Arguments,
    (queries, keys, values): (&Tensor, &Tensor, &Tensor),
    gradient: &Tensor,
) -> Result<[Tensor; 3]> {
    if queries.elem_count() == 0 {
        return Ok([queries.zeros_like()?, keys.zeros_like()?, values.zeros_like()?]);
    }
    let operands = Operands::new(arguments, queries, keys, values)?;
    let gradient = gradient.to_dtype(operands.queries.dtype())?;
    let mut query_gradients = Vec::new();
    let (key_gradient, value_gradient) = (operands.input.keys.zeros_like()?, operands.input.values.zeros_like()?);
    for range in arguments.resolved.ranges().query_ranges() {
        let seen = operands.seen_by(range)?;
        let mut of_seen: Option<[Tensor; 2]> = None;
        for (start, len) in blocks(arguments, range) {
            let queries = operands.queries.narrow(2, start, len)?.contiguous()?;
            let Some(seen) = &seen else {
                query_gradients.push(queries.zeros_like()?);
                continue;
            };
            let gradient = gradient.narrow(2, start, len)?.contiguous()?;
            let visible = operands.visible(range, (start, len))?;
            let (weights, _) = seen.weights(&queries, visible.as_ref(), operands.scale)?;
            let of_weights = multiply(&gradient, &seen.values.t()?.contiguous()?)?;
            let mean = (&weights * &of_weights)?.sum_keepdim(D::Minus1)?;
            let of_scores = ((&weights * of_weights.broadcast_sub(&mean)?)? * operands.scale)?;
            query_gradients.push(multiply(&of_scores, &seen.keys)?);
            let of_keys = multiply_transposed(&of_scores, &queries, arguments.kv_heads)?;
            let of_values = multiply_transposed(&weights, &gradient, arguments.kv_heads)?;
            of_seen = Some(match of_seen {
                Some([keys, values]) => [(keys + of_keys)?, (values + of_values)?],
                None => [of_keys, of_values],
            });
        }
        let Some([of_keys, of_values]) = of_seen else { continue };
        let mut first = 0;
        for range in arguments.resolved.ranges().keys_of(range) {
            if range.source == KeySource::Input {
                for (total, part) in [(&key_gradient, &of_keys), (&value_gradient, &of_values)] {
                    let sum = (total.narrow(2, range.start, range.len)? + part.narrow(2, first, range.len)?)?;
                    total.slice_set(&sum.contiguous()?, 2, range.start)?;
                }
            }
            first += range.len;
        }
    }
    let query_gradient = Tensor::cat(&query_gradients, 2)?;
    // A rotation is turned back by the opposite angle.
    let (query_gradient, key_gradient) = match &arguments.rope {
        Some(table) => {
            let (cos, sin) = (table.narrow(D::Minus1, 0, 1)?, table.narrow(D::Minus1, 1, 1)?);
            let opposite = RopeFrequencies::from_table(Tensor::cat(&[cos, sin.neg()?], D::Minus1)?);
            (opposite.rotate_wide(&query_gradient)?, opposite.rotate_wide(&key_gradient)?)
        }
        None => (query_gradient, key_gradient),
    };
    let narrow = |gradient: Tensor| gradient.to_dtype(queries.dtype());
    Ok([narrow(query_gradient)?, narrow(key_gradient)?, narrow(value_gradient)?])
}

/// First query and number of queries of the blocks of a range, in which the scores of a block stay below
/// [`BLOCK_SCORES`] where that leaves [`LEAST_QUERIES`].
fn blocks(arguments: &Arguments, range: &QueryRange) -> impl Iterator<Item = (usize, usize)> {
    let keys = arguments.resolved.ranges().key_count(range);
    let scores = (arguments.batch * arguments.heads).saturating_mul(keys).max(1);
    let block = (BLOCK_SCORES / scores).max(LEAST_QUERIES);
    let (start, len) = (range.start, range.len);
    (0..len).step_by(block).map(move |offset| (start + offset, block.min(len - offset)))
}

/// What the ranges of a call read, in f32 or f64 and rotated.
struct Operands<'a> {
    arguments: &'a Arguments,
    queries: Tensor,
    input: Source<'a>,
    cache: Option<Source<'a>>,
    scale: f64,
}

impl<'a> Operands<'a> {
    fn new(arguments: &'a Arguments, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Result<Self> {
        let wide = wide_dtype(queries.dtype());
        let widen = |tensor: &Tensor| tensor.to_dtype(wide);
        let (mut queries_wide, mut keys) = (widen(queries)?, widen(keys)?);
        if let Some(table) = &arguments.rope {
            let rope = RopeFrequencies::from_table(table.clone());
            queries_wide = rope.rotate_wide(&queries_wide)?;
            keys = rope.rotate_wide(&keys)?;
        }
        let bias = arguments.key_bias.clone();
        let input = Source { keys, values: widen(values)?, padding: arguments.padding.as_deref(), bias };
        let cache = match &arguments.cache {
            Some(cache) => Some(Source {
                keys: broadcast_batch(&widen(&cache.keys)?, arguments.batch)?,
                values: broadcast_batch(&widen(&cache.values)?, arguments.batch)?,
                padding: cache.padding.as_deref(),
                bias: cache.key_bias.clone(),
            }),
            None => None,
        };
        let scale = if wide == DType::F64 { arguments.wide_scale } else { f64::from(arguments.scale) };
        Ok(Self { arguments, queries: queries_wide, input, cache, scale })
    }

    /// All that the queries of a range see, or `None` if that is nothing.
    fn seen_by(&self, queries: &QueryRange) -> Result<Option<Seen>> {
        let mut parts = Vec::new();
        for range in self.arguments.resolved.ranges().keys_of(queries) {
            let source = match range.source {
                KeySource::Input => Some(&self.input),
                KeySource::Cache => self.cache.as_ref(),
            };
            // The arguments were checked against the plan: a source that it names is there.
            if let Some(source) = source {
                parts.push(source.narrow(range, self.arguments.batch)?);
            }
        }
        if parts.is_empty() {
            return Ok(None);
        }
        let all = |of: fn(&Part) -> &Tensor| {
            Tensor::cat(&parts.iter().map(of).collect::<Vec<_>>(), 2).and_then(|tensor| tensor.contiguous())
        };
        let (keys, values) = (all(|part| &part.keys)?, all(|part| &part.values)?);
        let real = real_of_all(&parts, self.arguments.batch)?;
        let bias = bias_of_all(&parts, (self.arguments.batch, self.arguments.heads))?;
        Ok(Some(Seen { keys, values, real, bias }))
    }

    /// Which of all that a range sees is visible to each of its queries `[start, start + len)`, `[1, 1, len, keys]`, or
    /// `None` if all is.
    fn visible(&self, queries: &QueryRange, (start, len): (usize, usize)) -> Result<Option<Tensor>> {
        let ranges = self.arguments.resolved.ranges().keys_of(queries);
        if ranges.iter().all(|range| range.band.is_all()) {
            return Ok(None);
        }
        let of_query = |query: usize| {
            let tokens = |range: &KeyRange| (range.start..range.start + range.len, range.band);
            let keys = ranges.iter().map(tokens);
            keys.flat_map(move |(tokens, band)| tokens.map(move |key| u8::from(band.sees(query, key))))
        };
        let visible: Vec<u8> = (start..start + len).flat_map(of_query).collect();
        let keys = visible.len() / len;
        Tensor::from_vec(visible, (1, 1, len, keys), self.queries.device()).map(Some)
    }
}

/// Keys and values of one source.
struct Source<'a> {
    keys: Tensor,
    values: Tensor,
    padding: Option<&'a PaddingBits>,
    /// `[batch or 1, heads or 1, tokens]`
    bias: Option<Tensor>,
}

/// One key range: keys, values, if there is padding, the real tokens `[batch, 1, 1, keys]`, and the bias, if there is one,
/// `[batch or 1, heads or 1, 1, keys]`.
struct Part {
    keys: Tensor,
    values: Tensor,
    real: Option<Tensor>,
    bias: Option<Tensor>,
}

impl Source<'_> {
    fn narrow(&self, range: &KeyRange, batch: usize) -> Result<Part> {
        let keys = self.keys.narrow(2, range.start, range.len)?;
        let values = self.values.narrow(2, range.start, range.len)?;
        let bias = self.bias.as_ref().map(|bias| bias.narrow(2, range.start, range.len)?.unsqueeze(2)).transpose()?;
        let Some(bits) = self.padding else { return Ok(Part { keys, values, real: None, bias }) };
        let real = real_tokens(bits, range, batch, keys.device())?;
        // A masked token must have no influence even if it holds NaN, which 0 · NaN would not achieve.
        let column = real.reshape((batch, 1, range.len, 1))?;
        let keep = |tensor: &Tensor| {
            let condition = column.broadcast_as(tensor.shape())?;
            condition.where_cond(tensor, &tensor.zeros_like()?)
        };
        Ok(Part { keys: keep(&keys)?, values: keep(&values)?, real: Some(real), bias })
    }
}

/// The keys and values of all parts, which are real, and their bias.
struct Seen {
    keys: Tensor,
    values: Tensor,
    real: Option<Tensor>,
    bias: Option<Tensor>,
}

impl Seen {
    /// `softmax(q kᵀ · scale + bias)`, zeros for a query without a visible key and for one whose scores are all −∞; and the
    /// logarithm of the sum that it divides by, without the shift by the maximum, `[batch, heads, queries]`. `visible`
    /// limits what each query sees.
    fn weights(&self, queries: &Tensor, visible: Option<&Tensor>, scale: f64) -> Result<(Tensor, Tensor)> {
        let mut scores = (multiply(queries, &self.keys.t()?.contiguous()?)? * scale)?;
        if let Some(bias) = &self.bias {
            scores = scores.broadcast_add(bias)?;
        }
        for visible in self.real.as_ref().into_iter().chain(visible) {
            let hidden = Tensor::full(f32::NEG_INFINITY, (), scores.device())?.to_dtype(scores.dtype())?;
            let hidden = hidden.broadcast_as(scores.shape())?;
            scores = visible.broadcast_as(scores.shape())?.where_cond(&scores, &hidden)?;
        }
        // The maximum only shifts the exponent: its gradient is zero by definition of the softmax. It is finite, so that
        // a row of −∞ leaves no −∞ − −∞ behind.
        let lowest = if scores.dtype() == DType::F64 { f64::MIN } else { f64::from(f32::MIN) };
        let maximum = scores.max_keepdim(D::Minus1)?.detach().maximum(lowest)?;
        let weights = scores.broadcast_sub(&maximum)?.exp()?;
        let sum = weights.sum_keepdim(D::Minus1)?;
        let log_sum_exp = (sum.log()? + maximum)?.squeeze(D::Minus1)?;
        // Rows without a visible key: 0 / 1 instead of 0 / 0.
        let sum = (&sum + sum.eq(0f64)?.to_dtype(sum.dtype())?)?;
        Ok((weights.broadcast_div(&sum)?, log_sum_exp))
    }
}

/// `left right` for `left [batch, heads, rows, n]` and `right [batch, kv_heads, n, columns]`: heads of a group, which are
/// neighbours, share a head of `right`, so that their rows are those of one product.
fn multiply(left: &Tensor, right: &Tensor) -> Result<Tensor> {
    let (batch, heads, rows, _) = left.dims4()?;
    let (_, kv_heads, _, columns) = right.dims4()?;
    rows_of_groups(left, kv_heads)?.matmul(right)?.reshape((batch, heads, rows, columns))
}

/// `leftᵀ right` for two tensors `[batch, heads, rows, ..]`, summed over the heads of each group: `[batch, kv_heads, .., ..]`.
fn multiply_transposed(left: &Tensor, right: &Tensor, kv_heads: usize) -> Result<Tensor> {
    rows_of_groups(left, kv_heads)?.t()?.contiguous()?.matmul(&rows_of_groups(right, kv_heads)?)
}

/// `[batch, heads, rows, columns]` as `[batch, kv_heads, heads / kv_heads · rows, columns]`.
fn rows_of_groups(tensor: &Tensor, kv_heads: usize) -> Result<Tensor> {
    let (batch, heads, rows, columns) = tensor.dims4()?;
    tensor.reshape((batch, kv_heads, heads / kv_heads * rows, columns))
}

/// The real tokens of a range, `[batch, 1, 1, keys]` of u8.
fn real_tokens(bits: &PaddingBits, range: &KeyRange, batch: usize, device: &Device) -> Result<Tensor> {
    let real = |row: usize| (range.start..range.start + range.len).map(move |token| u8::from(bits.is_real(row, token)));
    let real: Vec<u8> = (0..batch).flat_map(real).collect();
    Tensor::from_vec(real, (batch, 1, 1, range.len), device)
}

/// The real tokens of all parts, `[batch, 1, 1, keys]`, or `None` if no part has padding.
fn real_of_all(parts: &[Part], batch: usize) -> Result<Option<Tensor>> {
    if parts.iter().all(|part| part.real.is_none()) {
        return Ok(None);
    }
    let real = parts.iter().map(|part| match &part.real {
        Some(real) => Ok(real.clone()),
        None => Tensor::ones((batch, 1, 1, part.keys.dim(2)?), DType::U8, part.keys.device()),
    });
    Ok(Some(Tensor::cat(&real.collect::<Result<Vec<_>>>()?, 3)?))
}

/// The bias of all parts, `[batch, heads, 1, keys]`, or `None` if no part has one.
fn bias_of_all(parts: &[Part], (batch, heads): (usize, usize)) -> Result<Option<Tensor>> {
    if parts.iter().all(|part| part.bias.is_none()) {
        return Ok(None);
    }
    let bias = parts.iter().map(|part| {
        let shape = (batch, heads, 1, part.keys.dim(2)?);
        match &part.bias {
            Some(bias) => bias.broadcast_as(shape)?.contiguous(),
            None => Tensor::zeros(shape, part.keys.dtype(), part.keys.device()),
        }
    });
    Ok(Some(Tensor::cat(&bias.collect::<Result<Vec<_>>>()?, 3)?))
}

fn broadcast_batch(tensor: &Tensor, batch: usize) -> Result<Tensor> {
    let (_, heads, tokens, head_dim) = tensor.dims4()?;
    tensor.broadcast_as((batch, heads, tokens, head_dim))?.contiguous()
}
