//! Attention to a part of the keys, and what it takes to put parts together.

use candle_core::{D, DType, Result, Tensor};

use crate::element::wide_dtype;
use crate::error::AttentionError;

/// The result of attention to some of the keys. Parts over disjoint keys, computed anywhere, [`combine`](Self::combine)
/// into the result over all of them.
#[derive(Debug, Clone)]
pub struct AttentionPart {
    /// `[batch, heads, tokens, head_dim]`, as if these keys were all.
    pub output: Tensor,
    /// `log Σ exp(score)` over these keys, `[batch, heads, tokens]`, in f32 (f64 for f64 tensors); −∞ without a key.
    pub log_sum_exp: Tensor,
}

impl AttentionPart {
    /// Attention to the keys of all parts: a part again, so that it may be done in several steps and in any order.
    ///
    /// With `L = log Σ_i exp(l_i)` over the log-sum-exps `l_i`, the output is `Σ_i exp(l_i − L) · output_i`, computed in at
    /// least f32. It is differentiable. The parts must be on one device.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_mixed_attention::{
    ///     AttentionOptions, AttentionPart, AttentionPattern, AttentionPlan, KvCache, TokenSpec, mixed_attention_part,
    /// };
    ///
    /// let plan = AttentionPlan::new(
    ///     [TokenSpec::new("queries", 10), TokenSpec::cached("anchors")],
    ///     [AttentionPattern::queries(["queries"]).attend_to(["anchors"])],
    /// )?;
    /// let random = |tokens| Tensor::randn(0f32, 1., (1, 4, tokens, 16), &Device::Cpu);
    /// let (queries, keys, values) = (random(10)?, random(300)?, random(300)?);
    /// // The attention of each rank to its shard of the anchors.
    /// let shard = |start, len| {
    ///     let (keys, values) = (keys.narrow(2, start, len)?, values.narrow(2, start, len)?);
    ///     let cache = KvCache::from_groups([("anchors", keys, values)], None)?;
    ///     mixed_attention_part(&queries, None, Some(&cache), &plan, &AttentionOptions::default())
    /// };
    /// let whole = AttentionPart::combine(&[shard(0, 100)?, shard(100, 200)?])?;
    /// let at_once = shard(0, 300)?;
    /// let difference = (whole.output - at_once.output)?.abs()?.max_all()?.to_scalar::<f32>()?;
    /// assert!(difference < 1e-6);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// No part, or shapes, dtypes or devices that differ.
    pub fn combine(parts: &[Self]) -> Result<Self> {
        let Some(first) = parts.first() else {
            return Err(AttentionError::value("parts", "at least one", "none").into());
        };
        let dtype = first.output.dtype();
        let wide = wide_dtype(dtype);
        for part in parts {
            part.check(first, wide)?;
        }
        if first.output.elem_count() == 0 {
            return Ok(first.clone());
        }
        let log_sum_exps: Vec<Tensor> =
            parts.iter().map(|part| part.log_sum_exp.unsqueeze(D::Minus1)).collect::<Result<_>>()?;
        // Finite, so that parts without a key leave no −∞ − −∞ behind.
        let lowest = if wide == DType::F64 { f64::MIN } else { f64::from(f32::MIN) };
        let maximum = Tensor::cat(&log_sum_exps, D::Minus1)?.max_keepdim(D::Minus1)?.detach().maximum(lowest)?;
        let weights: Vec<Tensor> =
            log_sum_exps.iter().map(|number| (number - &maximum)?.exp()).collect::<Result<_>>()?;
        let mut sum = weights[0].clone();
        let mut output = parts[0].output.to_dtype(wide)?.broadcast_mul(&weights[0])?;
        for (part, weight) in parts.iter().zip(&weights).skip(1) {
            sum = (sum + weight)?;
            output = (output + part.output.to_dtype(wide)?.broadcast_mul(weight)?)?;
        }
        let log_sum_exp = (sum.log()? + maximum)?.squeeze(D::Minus1)?;
        // 0 / 1 instead of 0 / 0.
        let sum = (&sum + sum.eq(0f64)?.to_dtype(wide)?)?;
        Ok(Self { output: output.broadcast_div(&sum)?.to_dtype(dtype)?, log_sum_exp })
    }

    fn check(&self, first: &Self, wide: DType) -> std::result::Result<(), AttentionError> {
        let rank = self.output.rank();
        if rank != 4 || self.output.dims() != first.output.dims() {
            let expected = format!("[batch, heads, tokens, head_dim] as the first part, {:?}", first.output.dims());
            return Err(AttentionError::shape("output of a part", expected, self.output.dims()));
        }
        if self.log_sum_exp.dims() != &self.output.dims()[..3] {
            let expected = format!("{:?}", &self.output.dims()[..3]);
            return Err(AttentionError::shape("log-sum-exp of a part", expected, self.log_sum_exp.dims()));
        }
        if self.output.dtype() != first.output.dtype() {
            let expected = format!("{:?}, the dtype of the first part", first.output.dtype());
            return Err(AttentionError::dtype("output of a part", expected, self.output.dtype()));
        }
        if self.log_sum_exp.dtype() != wide {
            return Err(AttentionError::dtype("log-sum-exp of a part", format!("{wide:?}"), self.log_sum_exp.dtype()));
        }
        for (argument, tensor) in [("output of a part", &self.output), ("log-sum-exp of a part", &self.log_sum_exp)] {
            if !tensor.device().same_device(first.output.device()) {
                return Err(AttentionError::device(argument, first.output.device(), tensor.device()));
            }
        }
        Ok(())
    }
}
