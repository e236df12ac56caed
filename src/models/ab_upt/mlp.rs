//! Stacks of linear layers with an activation in between.

use candle_core::{DType, Result, Tensor};
use candle_nn::{Linear, VarBuilder};
use serde::{Deserialize, Serialize};

use super::error::AbUptError;
use crate::ops::{Epilogue, feed_forward, linear, to_dtype};

/// The function between two linear layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Activation {
    /// `x/2 · (1 + erf(x/√2))`
    #[default]
    Gelu,
    /// `max(x, 0)`
    Relu,
    /// `tanh x`
    Tanh,
    /// `1 / (1 + e^−x)`
    Sigmoid,
    /// `x · sigmoid(x)`
    Silu,
    /// `x` where positive, else `e^x − 1`
    Elu,
    /// `ln(1 + e^x)`
    Softplus,
    /// `x` where positive, else `x/100`
    LeakyRelu,
}

impl Activation {
    /// Applies the function to every number, in f32 where `x` is f16 or bf16.
    ///
    /// # Errors
    /// Only those of the device.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        let dtype = x.dtype();
        let x = match dtype {
            // Not every GPU op of candle takes tensors without elements.
            _ if x.elem_count() == 0 => return Ok(x.clone()),
            DType::F16 | DType::BF16 => to_dtype(x, DType::F32)?,
            _ => x.clone(),
        };
        let y = match self {
            Self::Gelu => x.gelu_erf()?,
            Self::Relu => x.relu()?,
            Self::Tanh => x.tanh()?,
            Self::Sigmoid => candle_nn::ops::sigmoid(&x)?,
            Self::Silu => x.silu()?,
            Self::Elu => x.elu(1.0)?,
            // max(x, 0) + ln(1 + e^−|x|): no overflow for large x.
            Self::Softplus => (x.relu()? + (x.abs()?.neg()?.exp()? + 1.0)?.log()?)?,
            Self::LeakyRelu => candle_nn::ops::leaky_relu(&x, 0.01)?,
        };
        to_dtype(&y, dtype)
    }
}

/// Linear layers with an activation between each two. They are stored as `mlp.0`, `mlp.2`, `mlp.4`, …: the activations
/// count.
#[derive(Debug, Clone)]
pub struct Mlp {
    layers: Vec<Linear>,
    activation: Activation,
}

impl Mlp {
    /// Loads `input → hidden`, then `hidden_layers` times `hidden → hidden`, then `hidden → output`.
    ///
    /// # Errors
    /// A tensor is missing or has another shape.
    pub fn new(
        (input, hidden, output): (usize, usize, usize),
        hidden_layers: usize,
        activation: Activation,
        vb: VarBuilder,
    ) -> Result<Self> {
        let mut widths = vec![hidden; hidden_layers + 2];
        widths[0] = input;
        widths.push(output);
        let layer = |(index, pair): (usize, &[usize])| candle_nn::linear(pair[0], pair[1], vb.pp("mlp").pp(2 * index));
        Ok(Self { layers: widths.windows(2).enumerate().map(layer).collect::<Result<_>>()?, activation })
    }

    /// `x [.., input]` to `[.., output]`.
    ///
    /// # Errors
    /// Another width.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Some((last, hidden)) = self.layers.split_last() else { return Ok(x.clone()) };
        let width = hidden.first().unwrap_or(last).weight().dim(1)?;
        let Some((_, leading)) = x.dims().split_last().filter(|(got, _)| **got == width) else {
            return Err(AbUptError::shape("x", format!("[.., {width}]"), x.dims()).into());
        };
        let rows = x.reshape((1, leading.iter().product::<usize>(), width))?;
        let layer = |x: Tensor, layer: &Linear| match self.activation {
            Activation::Gelu => linear(layer, &x, Epilogue::Gelu),
            other => other.forward(&linear(layer, &x, Epilogue::None)?),
        };
        let y = match (hidden, self.activation) {
            ([before @ .., widen], Activation::Gelu) => {
                feed_forward(widen, last, &before.iter().try_fold(rows, layer)?)?
            }
            (hidden, _) => linear(last, &hidden.iter().try_fold(rows, layer)?, Epilogue::None)?,
        };
        y.reshape([leading, &[last.weight().dim(0)?]].concat())
    }
}
