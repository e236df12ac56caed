//! Linear layers around attention: heads in, heads out.

use candle_core::{Result, Tensor};
use candle_nn::{Linear, VarBuilder};

use super::untied::{DomainRuns, UntiedLinear, WeightSharing};
use crate::AttentionError;
use crate::layers::{Epilogue, linear};

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
pub(crate) fn check_input(argument: &'static str, x: &Tensor, width: usize) -> Result<(usize, usize)> {
    match x.dims() {
        &[batch, tokens, got] if got == width => Ok((batch, tokens)),
        dims => {
            let expected = format!("[batch, tokens, {width}]");
            Err(AttentionError::Shape { argument, expected, got: dims.to_vec() }.into())
        }
    }
}

/// The weight of one projection: shared by all tokens, or one for each domain.
#[derive(Debug, Clone)]
pub(crate) enum Projection {
    Shared(Linear),
    PerDomain(UntiedLinear),
}

impl Projection {
    /// Loads `weight` and `bias`, or `weight.0`, … for each domain.
    pub fn load(widths: (usize, usize), bias: bool, sharing: &WeightSharing, vb: VarBuilder) -> Result<Self> {
        match sharing {
            WeightSharing::Shared => Ok(Self::Shared(candle_nn::linear_b(widths.0, widths.1, bias, vb)?)),
            WeightSharing::PerDomain { domains, square } => {
                Ok(Self::PerDomain(UntiedLinear::new(widths, domains.len(), bias, *square, &vb)?))
            }
        }
    }

    /// `x [batch, tokens, in_dim]` to `[batch, tokens, out_dim]`.
    pub fn forward(&self, x: &Tensor, runs: &DomainRuns) -> Result<Tensor> {
        self.forward_then(x, runs, Epilogue::None)
    }

    /// As [`forward`](Self::forward), followed by a function of every number.
    pub fn forward_then(&self, x: &Tensor, runs: &DomainRuns, epilogue: Epilogue) -> Result<Tensor> {
        match self {
            Self::Shared(layer) => linear(layer, x, epilogue),
            Self::PerDomain(layers) => layers.forward_then(x, runs, epilogue),
        }
    }

    /// Heads `[batch, heads, tokens, head_dim]` through this projection, to `[batch, tokens, out_dim]`.
    pub fn join_heads(&self, heads: &Tensor, runs: &DomainRuns) -> Result<Tensor> {
        let (batch, num_heads, tokens, head_dim) = heads.dims4()?;
        self.forward(&heads.transpose(1, 2)?.reshape((batch, tokens, num_heads * head_dim))?, runs)
    }
}

/// Several linear layers of one input in one matrix product: their outputs lie side by side.
#[derive(Debug, Clone)]
pub(super) struct FusedLinear {
    all: Projection,
    parts: usize,
    /// Outputs of one part.
    out_dim: usize,
}

impl FusedLinear {
    /// Loads `names[i].weight` (and `.bias`), or the tensor `fused` that holds them one under the other.
    pub fn load(
        vb: &VarBuilder,
        fused: &str,
        names: &[&str],
        (in_dim, out_dim): (usize, usize),
        bias: bool,
        sharing: &WeightSharing,
    ) -> Result<Self> {
        let parts = names.len();
        if sharing == &WeightSharing::Shared && vb.contains_tensor(&format!("{fused}.weight")) {
            let all = Projection::load((in_dim, parts * out_dim), bias, sharing, vb.pp(fused))?;
            return Ok(Self { all, parts, out_dim });
        }
        let (mut shared, mut untied) = (Vec::new(), Vec::new());
        for name in names {
            match Projection::load((in_dim, out_dim), bias, sharing, vb.pp(*name))? {
                Projection::Shared(linear) => shared.push(linear),
                Projection::PerDomain(linear) => untied.push(linear),
            }
        }
        let all = match sharing {
            WeightSharing::Shared => Projection::Shared(side_by_side(&shared.iter().collect::<Vec<_>>())?),
            WeightSharing::PerDomain { .. } => Projection::PerDomain(UntiedLinear::side_by_side(&untied)?),
        };
        Ok(Self { all, parts, out_dim })
    }

    /// The layers `[first, first + count)` alone; shares their weights.
    pub fn narrow(&self, first: usize, count: usize) -> Result<Self> {
        let (start, len) = (first * self.out_dim, count * self.out_dim);
        let all = match &self.all {
            Projection::Shared(linear) => Projection::Shared(narrow_outputs(linear, start, len)?),
            Projection::PerDomain(linear) => Projection::PerDomain(linear.narrow(start, len)?),
        };
        Ok(Self { all, parts: count, out_dim: self.out_dim })
    }

    /// `x [batch, tokens, in_dim]` to one view `[batch, heads, tokens, head_dim]` per layer.
    pub fn heads(&self, x: &Tensor, num_heads: usize, runs: &DomainRuns) -> Result<Vec<Tensor>> {
        let (batch, tokens, _) = x.dims3()?;
        let head_dim = self.out_dim / num_heads;
        let all = self.all.forward(x, runs)?.reshape((batch, tokens, self.parts, num_heads, head_dim))?;
        (0..self.parts).map(|part| all.narrow(2, part, 1)?.squeeze(2)?.transpose(1, 2)).collect()
    }
}

/// Layers of the same input as one, with their outputs side by side.
pub(super) fn side_by_side(layers: &[&Linear]) -> Result<Linear> {
    let weights: Vec<&Tensor> = layers.iter().map(|layer| layer.weight()).collect();
    let biases: Vec<&Tensor> = layers.iter().filter_map(|layer| layer.bias()).collect();
    let bias = if biases.is_empty() { None } else { Some(Tensor::cat(&biases, 0)?) };
    Ok(Linear::new(Tensor::cat(&weights, 0)?, bias))
}

/// The outputs `[first, first + count)` of a layer; shares its weights.
pub(super) fn narrow_outputs(layer: &Linear, first: usize, count: usize) -> Result<Linear> {
    let narrow = |tensor: &Tensor| tensor.narrow(0, first, count);
    Ok(Linear::new(narrow(layer.weight())?, layer.bias().map(narrow).transpose()?))
}
