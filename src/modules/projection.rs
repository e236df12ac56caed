//! Linear layers around attention: heads in, heads out.

use candle_core::{Error, Result, Tensor};
use candle_nn::{Linear, VarBuilder};

use super::domains::DomainRuns;
use super::parts::{InputParts, SharedModule};
use super::sharing::WeightSharing;
use super::untied::{UntiedLinear, of_each_run};
use crate::checks::{check_input, check_same};
use crate::error::AttentionError;
use crate::ops::{Epilogue, feed_forward, linear};
use crate::through_candle::without_backtrace;

/// Channels of a token at most. More than any network has; widths up to here can be added and multiplied in 64 bits.
pub(crate) const LARGEST_WIDTH: usize = 1 << 24;

/// Checks that heads divide the width, and returns head_dim.
pub(super) fn head_dim(hidden_dim: usize, num_heads: usize) -> Result<usize> {
    check_width("hidden_dim", hidden_dim)?;
    if hidden_dim == 0 || num_heads == 0 || !hidden_dim.is_multiple_of(num_heads) {
        let got = format!("hidden_dim {hidden_dim}, num_heads {num_heads}");
        return Err(AttentionError::value("hidden_dim", "positive and divisible by num_heads", got).into());
    }
    Ok(hidden_dim / num_heads)
}

/// Checks that the heads of keys and values, if they are fewer, divide those of the queries, and returns their number.
pub(super) fn kv_heads(num_heads: usize, num_kv_heads: Option<usize>) -> Result<usize> {
    let kv_heads = num_kv_heads.unwrap_or(num_heads);
    if kv_heads == 0 || !num_heads.is_multiple_of(kv_heads) {
        let expected = format!("positive and a divisor of num_heads, which is {num_heads}");
        return Err(AttentionError::value("num_kv_heads", expected, kv_heads).into());
    }
    Ok(kv_heads)
}

/// Checks that a width is not beyond measure.
pub(super) fn check_width(argument: &'static str, width: usize) -> Result<()> {
    match width <= LARGEST_WIDTH {
        true => Ok(()),
        false => Err(AttentionError::value(argument, "at most 16777216", width).into()),
    }
}

/// Checks that weights that are not there, and so would be drawn at random, fit into memory.
fn check_drawn((inputs, outputs): (usize, usize), vb: &VarBuilder) -> Result<()> {
    if vb.contains_tensor("weight") || vb.contains_tensor("weight.0") {
        return Ok(());
    }
    let numbers = inputs.checked_mul(outputs);
    if numbers.is_some_and(|numbers| Vec::<f32>::new().try_reserve_exact(numbers).is_ok()) {
        return Ok(());
    }
    let got = format!("{outputs} × {inputs} numbers");
    Err(AttentionError::value("width of a layer", "small enough for weights that fit into memory", got).into())
}

/// The weight of one projection: shared by all tokens, or one for each domain.
#[derive(Debug, Clone)]
pub(crate) enum Projection {
    Shared(Linear),
    PerDomain(UntiedLinear),
}

impl Projection {
    /// Loads `weight` and `bias`, or `weight.0`, … for each domain.
    pub(crate) fn load(widths: (usize, usize), bias: bool, sharing: &WeightSharing, vb: VarBuilder) -> Result<Self> {
        check_drawn(widths, &vb)?;
        match sharing {
            WeightSharing::Shared => Ok(Self::Shared(candle_nn::linear_b(widths.0, widths.1, bias, vb)?)),
            WeightSharing::PerDomain { domains, square } => {
                Ok(Self::PerDomain(UntiedLinear::new(widths, domains.len(), bias, *square, &vb)?))
            }
        }
    }

    /// Whether a gradient may reach the weights.
    fn is_trained(&self) -> bool {
        let is_trained = |layer: &Linear| layer.weight().track_op() || layer.bias().is_some_and(Tensor::track_op);
        self.banks().iter().any(is_trained)
    }

    /// The weights of each domain, or those of all.
    fn banks(&self) -> &[Linear] {
        match self {
            Self::Shared(layer) => std::slice::from_ref(layer),
            Self::PerDomain(layers) => layers.banks(),
        }
    }

    /// Projections of the same input as one, with their outputs side by side.
    fn side_by_side(layers: &[Self]) -> Result<Self> {
        let domains = layers.first().map_or(0, |layer| layer.banks().len());
        let bank = |domain: usize| side_by_side(&layers.iter().map(|layer| &layer.banks()[domain]).collect::<Vec<_>>());
        let mut banks = (0..domains).map(bank).collect::<Result<Vec<_>>>()?;
        match layers {
            [Self::Shared(_), ..] => Ok(Self::Shared(banks.remove(0))),
            _ => Ok(Self::PerDomain(UntiedLinear::of_banks(banks))),
        }
    }

    /// The outputs `[first, first + count)` alone; shares the weights.
    fn narrow(&self, first: usize, count: usize) -> Result<Self> {
        match self {
            Self::Shared(layer) => Ok(Self::Shared(narrow_outputs(layer, first, count)?)),
            Self::PerDomain(layers) => {
                let narrow = |bank: &Linear| narrow_outputs(bank, first, count);
                Ok(Self::PerDomain(UntiedLinear::of_banks(layers.banks().iter().map(narrow).collect::<Result<_>>()?)))
            }
        }
    }

    /// `x [batch, tokens, in_dim]` to `[batch, tokens, out_dim]`.
    pub(crate) fn forward(&self, x: &Tensor, runs: &DomainRuns) -> Result<Tensor> {
        match self {
            Self::Shared(layer) => linear(layer, x, Epilogue::None),
            Self::PerDomain(layers) => layers.forward(x, runs),
        }
    }

    /// `narrow(gelu(widen(x)))`; both are shared, or both have weights for each domain.
    pub(crate) fn feed_forward(widen: &Self, narrow: &Self, x: &Tensor, runs: &DomainRuns) -> Result<Tensor> {
        match (widen, narrow) {
            (Self::Shared(widen), Self::Shared(narrow)) => feed_forward(widen, narrow, x),
            _ => of_each_run([widen.banks(), narrow.banks()], x, runs, |[widen, narrow], x| {
                feed_forward(widen, narrow, x)
            }),
        }
    }
}

/// What joins the heads after attention.
#[derive(Debug, Clone)]
pub(super) enum OutputProjection {
    Weights(Projection),
    Module(SharedModule),
}

impl OutputProjection {
    /// Heads `[batch, heads, tokens, head_dim]` to `[batch, tokens, heads · head_dim]`.
    pub(super) fn join_heads(&self, heads: &Tensor, runs: &DomainRuns) -> Result<Tensor> {
        let (batch, num_heads, tokens, head_dim) = heads.dims4()?;
        let width = num_heads * head_dim;
        let joined = heads.transpose(1, 2)?.reshape((batch, tokens, width))?;
        match self {
            Self::Weights(projection) => projection.forward(&joined, runs),
            Self::Module(module) => module.forward("output of the output projection", &joined, width),
        }
    }
}

/// Several linear layers of one input in one matrix product: their outputs, heads of queries, keys or values, lie side by
/// side.
#[derive(Debug, Clone)]
pub(super) struct FusedLinear {
    layers: Layers,
    /// Heads of each layer.
    heads: Vec<usize>,
    head_dim: usize,
}

/// What a [`FusedLinear`] consists of.
#[derive(Debug, Clone)]
enum Layers {
    /// The layers with their weights one under the other.
    Fused(Projection),
    /// Layers that are being trained: their weights change after they were loaded, so every pass joins them anew.
    Trained(Vec<Projection>),
    /// Modules of the caller's.
    Modules(Vec<SharedModule>),
    /// A module of the caller's with `all` heads side by side, of which the first ones are used.
    FusedModule { module: SharedModule, all: usize },
}

impl FusedLinear {
    /// Loads `name.weight` (and `.bias`) of layers that are given with their heads, or the tensor `fused` that holds them one
    /// under the other.
    pub(super) fn load(
        vb: &VarBuilder,
        fused: &str,
        named_heads: &[(&str, usize)],
        (in_dim, head_dim): (usize, usize),
        bias: bool,
        sharing: &WeightSharing,
    ) -> Result<Self> {
        let (names, heads): (Vec<&str>, Vec<usize>) = named_heads.iter().copied().unzip();
        if sharing == &WeightSharing::Shared && vb.contains_tensor(&format!("{fused}.weight")) {
            let width = heads.iter().sum::<usize>() * head_dim;
            let all = Projection::load((in_dim, width), bias, sharing, vb.pp(fused))?;
            return Ok(Self { layers: Layers::Fused(all), heads, head_dim });
        }
        let load = |&(name, heads): &(&str, usize)| {
            let loaded = Projection::load((in_dim, heads * head_dim), bias, sharing, vb.pp(name));
            loaded.map_err(|error| match sharing {
                WeightSharing::Shared if fused != names[0] => with_alternative(error, vb, fused, &names),
                _ => error,
            })
        };
        let layers = named_heads.iter().map(load).collect::<Result<Vec<_>>>()?;
        let layers = match layers.iter().any(Projection::is_trained) {
            true => Layers::Trained(layers),
            false => Layers::Fused(Projection::side_by_side(&layers)?),
        };
        Ok(Self { layers, heads, head_dim })
    }

    /// Queries, keys and values, with so many heads each, by modules of the caller's.
    pub(super) fn from_parts(parts: InputParts, heads: [usize; 3], head_dim: usize) -> Self {
        let layers = match parts {
            InputParts::Separate(modules) => Layers::Modules(modules.into()),
            InputParts::Fused(module) => Layers::FusedModule { module, all: heads.iter().sum() },
        };
        Self { layers, heads: heads.into(), head_dim }
    }

    /// The first layer alone; shares its weights.
    pub(super) fn first(&self) -> Result<Self> {
        let heads = self.heads[0];
        let layers = match &self.layers {
            Layers::Modules(modules) => Layers::Modules(modules.iter().take(1).cloned().collect()),
            Layers::FusedModule { .. } => self.layers.clone(),
            Layers::Fused(all) => Layers::Fused(all.narrow(0, heads * self.head_dim)?),
            Layers::Trained(layers) => Layers::Trained(layers.iter().take(1).cloned().collect()),
        };
        Ok(Self { layers, heads: vec![heads], head_dim: self.head_dim })
    }

    /// Checks an input `[batch, tokens, width]` of these layers, its dtype and its device; returns the number of tokens.
    pub(super) fn check_input(&self, argument: &'static str, x: &Tensor, width: usize) -> Result<usize> {
        let (_, tokens) = check_input(argument, x, width)?;
        let any = match &self.layers {
            Layers::Fused(all) => Some(all),
            Layers::Trained(layers) => layers.first(),
            // What a module takes is its own affair.
            Layers::Modules(_) | Layers::FusedModule { .. } => None,
        };
        if let Some(layer) = any.and_then(|projection| projection.banks().first()) {
            check_same(argument, ("weights", layer.weight()), x)?;
        }
        Ok(tokens)
    }

    /// `x [batch, tokens, in_dim]` to one view `[batch, heads, tokens, head_dim]` per layer.
    pub(super) fn heads(&self, x: &Tensor, runs: &DomainRuns) -> Result<Vec<Tensor>> {
        let (batch, tokens, _) = x.dims3()?;
        let head_dim = self.head_dim;
        let by_head = |outputs: Tensor| {
            let heads = outputs.dim(2)? / head_dim;
            outputs.reshape((batch, tokens, heads, head_dim))?.transpose(1, 2)
        };
        let cut = |outputs: Tensor| -> Result<Vec<Tensor>> {
            let all = by_head(outputs)?;
            let mut first = 0;
            let mut next = |heads: usize| {
                first += heads;
                all.narrow(1, first - heads, heads)
            };
            self.heads.iter().map(|&heads| next(heads)).collect()
        };
        match &self.layers {
            Layers::Fused(layers) => cut(layers.forward(x, runs)?),
            Layers::Trained(layers) => cut(Projection::side_by_side(layers)?.forward(x, runs)?),
            Layers::FusedModule { module, all } => {
                cut(module.forward("output of the fused projection", x, all * head_dim)?)
            }
            Layers::Modules(modules) => {
                let heads = |(module, heads): (&SharedModule, &usize)| {
                    by_head(module.forward("output of a projection", x, heads * head_dim)?)
                };
                modules.iter().zip(&self.heads).map(heads).collect()
            }
        }
    }
}

/// The error for a weight that is missing; where it is the first one, the fused weight would have done as well.
fn with_alternative(error: Error, vb: &VarBuilder, fused: &str, names: &[&str]) -> Error {
    let weight = |name: &str| {
        [vb.prefix().as_str(), name, "weight"].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
    };
    let separate = weight(names[0]);
    match without_backtrace(error) {
        Error::CannotFindTensor { path } if path == separate => {
            let names = names.iter().map(ToString::to_string).collect();
            AttentionError::ProjectionMissing { separate, fused: weight(fused), names }.into()
        }
        other => other,
    }
}

/// Layers of the same input as one, with their outputs side by side.
fn side_by_side(layers: &[&Linear]) -> Result<Linear> {
    let weights: Vec<&Tensor> = layers.iter().map(|layer| layer.weight()).collect();
    let biases: Vec<&Tensor> = layers.iter().filter_map(|layer| layer.bias()).collect();
    let bias = if biases.is_empty() { None } else { Some(Tensor::cat(&biases, 0)?) };
    Ok(Linear::new(Tensor::cat(&weights, 0)?, bias))
}

/// The outputs `[first, first + count)` of a layer; shares its weights.
fn narrow_outputs(layer: &Linear, first: usize, count: usize) -> Result<Linear> {
    let narrow = |tensor: &Tensor| tensor.narrow(0, first, count);
    Ok(Linear::new(narrow(layer.weight())?, layer.bias().map(narrow).transpose()?))
}
