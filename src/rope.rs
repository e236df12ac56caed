//! Rotary position embedding for points in space.
//!
//! RoPE (Su et al., 2021, arXiv:2104.09864) rotates neighbouring channels by an angle that grows with the position. Here
//! a token has `n` coordinates, and each gets its share of the channel pairs:
//!
//! ```text
//! e = the largest even number with n · e ≤ head_dim
//! ω_j = max_wavelength^(−2j/e)                          j = 0 .. e/2 − 1
//! θ[a · e/2 + j] = position[a] · ω_j                    then 0 up to head_dim/2
//! (x_2i, x_2i+1) → (x_2i cos θ_i − x_2i+1 sin θ_i,  x_2i sin θ_i + x_2i+1 cos θ_i)
//! ```
//!
//! Channels past `n · e` are not rotated. Other networks pair channel `i` with channel `i + head_dim/2` instead of
//! neighbours ([`RopeLayout::HalfSplit`]). Angles, cosines and sines are f32 whatever the dtype of the model.

use candle_core::{D, DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use crate::checks::{check_batch, check_tokens};
use crate::error::AttentionError;
use crate::modules::projection::LARGEST_WIDTH;
use crate::ops::{cos, sin, to_dtype};

/// Which channels of a head are rotated as a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RopeLayout {
    /// Neighbours, `(2i, 2i + 1)`: AB-UPT, GPT-J, the original paper.
    #[default]
    Interleaved,
    /// One of each half, `(i, i + head_dim/2)`: GPT-NeoX, Llama as Hugging Face stores it. Costs a copy of queries and keys,
    /// cached ones too, in each call.
    HalfSplit,
}

/// What the RoPE angles depend on besides the positions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RopeConfig {
    /// Channels of a head; even.
    pub head_dim: usize,
    /// Coordinates of a position, at least 1.
    #[serde(default = "default_position_dim")]
    pub position_dim: usize,
    /// Longest wavelength over 2π, in units of the positions.
    #[serde(default = "default_max_wavelength")]
    pub max_wavelength: f64,
    /// Which channels are pairs. Default: neighbours.
    #[serde(default)]
    pub layout: RopeLayout,
}

fn default_position_dim() -> usize {
    3
}

fn default_max_wavelength() -> f64 {
    10_000.0
}

impl RopeConfig {
    /// Three coordinates, a longest wavelength of 10,000 and neighbours as pairs.
    pub fn new(head_dim: usize) -> Self {
        let (position_dim, max_wavelength) = (default_position_dim(), default_max_wavelength());
        Self { head_dim, position_dim, max_wavelength, layout: RopeLayout::default() }
    }
}

/// The wave numbers of one coordinate: `max_wavelength^(−2j/e)` for `j = 0 .. e/2 − 1`, where `e` is the largest even
/// number with `coordinates · e ≤ width`.
///
/// # Errors
/// No pair of channels for each coordinate, more than 2²⁴ channels, or a longest wavelength that is not positive and finite.
pub fn wave_numbers(
    width: usize,
    coordinates: usize,
    max_wavelength: f64,
) -> std::result::Result<Vec<f32>, AttentionError> {
    if width > LARGEST_WIDTH {
        return Err(AttentionError::value("head_dim", "at most 16777216 channels", width));
    }
    let per_axis = width.checked_div(coordinates).map_or(0, |channels| channels / 2 * 2);
    if per_axis == 0 {
        let got = format!("{width} channels for {coordinates} coordinates");
        return Err(AttentionError::value("head_dim", "at least one pair of channels for each coordinate", got));
    }
    if !(max_wavelength > 0.0 && max_wavelength.is_finite()) {
        return Err(AttentionError::value("max_wavelength", "positive and finite", max_wavelength));
    }
    let wave_number = |j: usize| max_wavelength.powf(-((2 * j) as f64) / per_axis as f64) as f32;
    let waves: Vec<f32> = (0..per_axis / 2).map(wave_number).collect();
    if waves.iter().any(|wave| !wave.is_finite()) {
        let expected = "long enough for finite wave numbers in f32";
        return Err(AttentionError::value("max_wavelength", expected, max_wavelength));
    }
    Ok(waves)
}

/// Turns positions into [`RopeFrequencies`].
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_mixed_attention::{Rope, RopeConfig};
///
/// let rope = Rope::new(&RopeConfig::new(64), &Device::Cpu)?;
/// let positions = Tensor::rand(0f32, 1000., (1, 290, 3), &Device::Cpu)?;
/// let frequencies = rope.frequencies(&positions)?;
/// assert_eq!((frequencies.tokens(), frequencies.head_dim()), (290, 64));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Rope {
    config: RopeConfig,
    omega: Tensor,
}

impl Rope {
    /// Computes the wave numbers.
    ///
    /// # Errors
    /// An odd head_dim, or one too small for the coordinates; a longest wavelength as in [`wave_numbers`].
    pub fn new(config: &RopeConfig, device: &Device) -> Result<Self> {
        check_even(config.head_dim)?;
        let omega = wave_numbers(config.head_dim, config.position_dim, config.max_wavelength)?;
        Ok(Self { config: *config, omega: Tensor::new(omega, device)? })
    }

    /// Takes the wave numbers from the tensor `omega` of a checkpoint if it has one, else computes them.
    ///
    /// A stored tensor may differ from the computed one in the last bits, and the model was trained with the stored one.
    ///
    /// # Errors
    /// As [`new`](Self::new), or a stored tensor of another length.
    pub fn load(config: &RopeConfig, vb: VarBuilder) -> Result<Self> {
        let computed = Self::new(config, vb.device())?;
        if !vb.contains_tensor("omega") {
            return Ok(computed);
        }
        let omega = vb.get_with_hints_dtype(computed.omega.dims(), "omega", Default::default(), DType::F32)?;
        Ok(Self { config: *config, omega })
    }

    /// Uses these wave numbers `[pairs of channels per coordinate]`.
    ///
    /// # Errors
    /// As [`new`](Self::new), or another number of wave numbers than the configuration has.
    pub fn with_omega(config: &RopeConfig, omega: &Tensor) -> Result<Self> {
        let computed = Self::new(config, omega.device())?;
        if omega.dims() != computed.omega.dims() {
            return Err(AttentionError::shape("omega", format!("{:?}", computed.omega.dims()), omega.dims()).into());
        }
        Ok(Self { config: *config, omega: omega.to_dtype(DType::F32)? })
    }

    /// The configuration.
    pub fn config(&self) -> &RopeConfig {
        &self.config
    }

    /// The wave numbers of one coordinate, f32.
    pub fn omega(&self) -> &Tensor {
        &self.omega
    }

    /// Angles of positions `[batch, tokens, position_dim]` of any dtype; computed in f32.
    ///
    /// # Errors
    /// Another number of axes or coordinates.
    pub fn frequencies(&self, positions: &Tensor) -> Result<RopeFrequencies> {
        let coordinates = self.config.position_dim;
        let &[batch, tokens, got] = positions.dims() else {
            return Err(self.unexpected(positions));
        };
        if got != coordinates {
            return Err(self.unexpected(positions));
        }
        let pairs = self.omega.dim(0)?;
        let positions = to_dtype(positions, DType::F32)?.unsqueeze(D::Minus1)?;
        let theta = positions.broadcast_mul(&self.omega)?.reshape((batch, tokens, coordinates * pairs))?;
        let theta = theta.pad_with_zeros(D::Minus1, 0, self.config.head_dim / 2 - coordinates * pairs)?;
        Ok(RopeFrequencies::from_angles(&theta)?.with_layout(self.config.layout))
    }

    fn unexpected(&self, positions: &Tensor) -> candle_core::Error {
        let expected = format!("[batch, tokens, {}]", self.config.position_dim);
        AttentionError::shape("positions", expected, positions.dims()).into()
    }
}

fn check_even(head_dim: usize) -> std::result::Result<(), AttentionError> {
    if head_dim.is_multiple_of(2) {
        return Ok(());
    }
    Err(AttentionError::value("head_dim", "even for RoPE", head_dim))
}

/// Cosines and sines that rotate the queries and keys of one sequence of tokens. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RopeFrequencies {
    /// `[batch, tokens, head_dim / 2, 2]` of (cos, sin), f32.
    table: Tensor,
    layout: RopeLayout,
}

impl RopeFrequencies {
    /// From angles `[batch, tokens, head_dim / 2]` in radians, one per pair of channels, which are neighbours unless
    /// [`with_layout`](Self::with_layout) says otherwise. A batch of 1 serves every row of the input.
    ///
    /// # Errors
    /// Another number of axes.
    pub fn from_angles(theta: &Tensor) -> Result<Self> {
        if theta.rank() != 3 {
            return Err(AttentionError::shape("angles", "[batch, tokens, head_dim / 2]", theta.dims()).into());
        }
        let theta = to_dtype(theta, DType::F32)?;
        Ok(Self::from_table(Tensor::stack(&[cos(&theta)?, sin(&theta)?], D::Minus1)?.contiguous()?))
    }

    /// The same angles for other pairs of channels.
    pub fn with_layout(self, layout: RopeLayout) -> Self {
        Self { layout, ..self }
    }

    /// Which channels are pairs.
    pub fn layout(&self) -> RopeLayout {
        self.layout
    }

    /// Wraps a table `[batch, tokens, head_dim / 2, 2]` of (cos, sin), for neighbouring channels.
    pub(crate) fn from_table(table: Tensor) -> Self {
        Self { table, layout: RopeLayout::Interleaved }
    }

    /// The (cos, sin) pairs, `[batch, tokens, head_dim / 2, 2]` in f32.
    pub fn table(&self) -> &Tensor {
        &self.table
    }

    /// Batch size; 1 serves every row.
    pub fn batch(&self) -> usize {
        self.table.dims()[0]
    }

    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.table.dims()[1]
    }

    /// Channels of the heads that these angles rotate.
    pub fn head_dim(&self) -> usize {
        2 * self.table.dims()[2]
    }

    /// The angles of tokens `[start, start + len)`.
    ///
    /// # Errors
    /// The range is not inside the tokens.
    pub fn narrow(&self, start: usize, len: usize) -> Result<Self> {
        Ok(Self { table: self.table.narrow(1, start, len)?, layout: self.layout })
    }

    /// The angles of several sequences, one after another.
    ///
    /// # Errors
    /// No part, or parts of different batch size, head_dim or layout.
    pub fn cat(parts: &[&Self]) -> Result<Self> {
        let layout = parts.first().map_or_else(RopeLayout::default, |part| part.layout);
        if let Some(other) = parts.iter().find(|part| part.layout != layout) {
            let got = format!("{layout:?} and {:?}", other.layout);
            return Err(AttentionError::value("layouts of RoPE frequencies", "the same", got).into());
        }
        let tables: Vec<&Tensor> = parts.iter().map(|part| &part.table).collect();
        Ok(Self { table: Tensor::cat(&tables, 1)?, layout })
    }

    /// Rotates `x [batch, heads, tokens, head_dim]` with plain candle ops, in f32 (f64 for f64 input), and returns the
    /// dtype of `x`. The definition that the kernels are tested against.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        let wide = if x.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        to_dtype(&self.rotate_wide(&to_dtype(x, wide)?)?, x.dtype())
    }

    /// As [`rotate`](Self::rotate), for f32 or f64, without rounding in between.
    pub(crate) fn rotate_wide(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, heads, tokens, head_dim) = x.dims4()?;
        self.check(batch, tokens, head_dim, || "x".to_string())?;
        let table = to_dtype(&self.table, x.dtype())?.unsqueeze(1)?;
        let (cos, sin) = (table.narrow(D::Minus1, 0, 1)?, table.narrow(D::Minus1, 1, 1)?);
        // The axis of the pairs: neighbours lie along the last, halves along the one before.
        let (axis, shape, cos, sin) = match self.layout {
            RopeLayout::Interleaved => (4, (batch, heads, tokens, head_dim / 2, 2), cos, sin),
            RopeLayout::HalfSplit => {
                (3, (batch, heads, tokens, 2, head_dim / 2), cos.transpose(3, 4)?, sin.transpose(3, 4)?)
            }
        };
        let pairs = x.contiguous()?.reshape(shape)?;
        let (x0, x1) = (pairs.narrow(axis, 0, 1)?, pairs.narrow(axis, 1, 1)?);
        let y0 = (x0.broadcast_mul(&cos)? - x1.broadcast_mul(&sin)?)?;
        let y1 = (x0.broadcast_mul(&sin)? + x1.broadcast_mul(&cos)?)?;
        Tensor::cat(&[y0, y1], axis)?.reshape((batch, heads, tokens, head_dim))
    }

    /// Queries or keys `[batch, heads, tokens, head_dim]` with every pair as neighbours, as the kernels rotate them. Scores
    /// do not change when the channels of queries and keys change places together.
    pub(crate) fn pair_up(&self, x: &Tensor) -> Result<Tensor> {
        let (batch, heads, tokens, head_dim) = x.dims4()?;
        match self.layout {
            RopeLayout::Interleaved => Ok(x.clone()),
            RopeLayout::HalfSplit => {
                let halves = x.contiguous()?.reshape((batch, heads, tokens, 2, head_dim / 2))?;
                halves.transpose(3, 4)?.contiguous()?.reshape((batch, heads, tokens, head_dim))
            }
        }
    }

    /// Checks that these angles rotate `tokens` tokens of heads of `head_dim` channels in a batch of `batch`.
    /// `groups` names the tokens for the error.
    pub(crate) fn check(
        &self,
        batch: usize,
        tokens: usize,
        head_dim: usize,
        groups: impl FnOnce() -> String,
    ) -> std::result::Result<(), AttentionError> {
        check_tokens("RoPE frequencies", tokens, self.tokens(), groups)?;
        if self.head_dim() != head_dim {
            let expected = format!("[batch, tokens, {}, 2] for head_dim {head_dim}", head_dim / 2);
            return Err(AttentionError::shape("RoPE frequencies", expected, self.table.dims()));
        }
        check_batch("RoPE frequencies", batch, self.batch())
    }
}
