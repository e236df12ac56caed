//! Linear layers around attention: heads in, heads out.

use candle_core::{Module, Result, Tensor};
use candle_nn::{Linear, VarBuilder};

use crate::AttentionError;

/// Checks that heads divide the width, and returns head_dim.
pub(super) fn head_dim(hidden_dim: usize, num_heads: usize) -> Result<usize> {
    if hidden_dim == 0 || num_heads == 0 || !hidden_dim.is_multiple_of(num_heads) {
        let got = format!("hidden_dim {hidden_dim}, num_heads {num_heads}");
        let expected = "positive and divisible by num_heads";
        return Err(AttentionError::Value { argument: "hidden_dim", expected, got }.into());
    }
    Ok(hidden_dim / num_heads)
}

/// Checks the input of a layer, `[batch, tokens, width]`, and returns batch and tokens.
pub(super) fn check_input(argument: &'static str, x: &Tensor, width: usize) -> Result<(usize, usize)> {
    match x.dims() {
        &[batch, tokens, got] if got == width => Ok((batch, tokens)),
        dims => {
            let expected = format!("[batch, tokens, {width}]");
            Err(AttentionError::Shape { argument, expected, got: dims.to_vec() }.into())
        }
    }
}

/// Several linear layers of one input in one matrix product: their outputs lie side by side.
#[derive(Debug, Clone)]
pub(super) struct FusedLinear {
    all: Linear,
    parts: usize,
}

impl FusedLinear {
    /// Loads `names[i].weight` (and `.bias`), or the tensor `fused` that holds them one under the other.
    pub fn load(
        vb: &VarBuilder,
        fused: &str,
        names: &[&str],
        (in_dim, out_dim): (usize, usize),
        bias: bool,
    ) -> Result<Self> {
        let parts = names.len();
        if vb.contains_tensor(&format!("{fused}.weight")) {
            let all = candle_nn::linear_b(in_dim, parts * out_dim, bias, vb.pp(fused))?;
            return Ok(Self { all, parts });
        }
        let load = |name: &&str| candle_nn::linear_b(in_dim, out_dim, bias, vb.pp(*name));
        let linears = names.iter().map(load).collect::<Result<Vec<Linear>>>()?;
        let weights: Vec<&Tensor> = linears.iter().map(Linear::weight).collect();
        let biases: Vec<&Tensor> = linears.iter().filter_map(Linear::bias).collect();
        let bias = if biases.is_empty() { None } else { Some(Tensor::cat(&biases, 0)?) };
        Ok(Self { all: Linear::new(Tensor::cat(&weights, 0)?, bias), parts })
    }

    /// The layers `[first, first + count)` alone; shares their weights.
    pub fn narrow(&self, first: usize, count: usize) -> Result<Self> {
        let rows = self.all.weight().dim(0)? / self.parts;
        let narrow = |tensor: &Tensor| tensor.narrow(0, first * rows, count * rows);
        let bias = self.all.bias().map(narrow).transpose()?;
        Ok(Self { all: Linear::new(narrow(self.all.weight())?, bias), parts: count })
    }

    /// `x [batch, tokens, in_dim]` to one view `[batch, heads, tokens, head_dim]` per layer.
    pub fn heads(&self, x: &Tensor, num_heads: usize) -> Result<Vec<Tensor>> {
        let (batch, tokens, _) = x.dims3()?;
        let head_dim = self.all.weight().dim(0)? / self.parts / num_heads;
        let all = forward(&self.all, x)?.reshape((batch, tokens, self.parts, num_heads, head_dim))?;
        (0..self.parts).map(|part| all.narrow(2, part, 1)?.squeeze(2)?.transpose(1, 2)).collect()
    }
}

/// A linear layer, also on 0 tokens.
pub(super) fn forward(linear: &Linear, x: &Tensor) -> Result<Tensor> {
    let (batch, tokens, _) = x.dims3()?;
    if batch * tokens == 0 {
        return Tensor::zeros((batch, tokens, linear.weight().dim(0)?), x.dtype(), x.device());
    }
    linear.forward(&x.contiguous()?)
}

/// Heads `[batch, heads, tokens, head_dim]` through the output projection, to `[batch, tokens, hidden_dim]`.
pub(super) fn join_heads(projection: &Linear, heads: &Tensor) -> Result<Tensor> {
    let (batch, num_heads, tokens, head_dim) = heads.dims4()?;
    forward(projection, &heads.transpose(1, 2)?.reshape((batch, tokens, num_heads * head_dim))?)
}
