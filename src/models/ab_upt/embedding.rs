//! The sine and cosine embedding of positions.
//!
//! ```text
//! e = the largest even number with n · e ≤ width                     n coordinates
//! ω_j = max_wavelength^(−2j/e)                                       j = 0 .. e/2 − 1
//! for every coordinate p: sin(p ω_0) .. sin(p ω_m) cos(p ω_0) .. cos(p ω_m)     then 0 up to the width
//! ```

use candle_core::{D, DType, Result, Tensor};
use candle_nn::VarBuilder;

use super::error::AbUptError;
use crate::ops::{cos, sin, to_dtype};
use crate::rope::wave_numbers;

/// Turns positions into vectors of sines and cosines.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_mixed_attention::models::ab_upt::SinCosEmbedding;
/// use candle_nn::VarBuilder;
///
/// let embedding = SinCosEmbedding::new(64, 3, 10_000.0, VarBuilder::zeros(DType::F32, &Device::Cpu).pp("pos_embed"))?;
/// let positions = Tensor::rand(0f32, 1000., (2, 50, 3), &Device::Cpu)?;
/// assert_eq!(embedding.forward(&positions)?.dims(), &[2, 50, 64]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SinCosEmbedding {
    width: usize,
    coordinates: usize,
    /// Wave numbers of one coordinate, f32.
    omega: Tensor,
    dtype: DType,
}

impl SinCosEmbedding {
    /// Takes the wave numbers from the tensor `omega` if there is one, else computes them. A stored tensor may differ from
    /// the computed one in the last bits, and the network was trained with the stored one.
    ///
    /// The result of [`forward`](Self::forward) has the dtype of `vb`.
    ///
    /// # Errors
    /// A width without a pair of channels for every coordinate; a stored tensor of another length.
    pub fn new(width: usize, coordinates: usize, max_wavelength: f64, vb: VarBuilder) -> Result<Self> {
        let computed = wave_numbers(width, coordinates, max_wavelength)?;
        let omega = match vb.contains_tensor("omega") {
            true => vb.get_with_hints_dtype(computed.len(), "omega", Default::default(), DType::F32)?,
            false => Tensor::new(computed, vb.device())?,
        };
        Ok(Self { width, coordinates, omega, dtype: vb.dtype() })
    }

    /// `positions [.., coordinates]` of any dtype to `[.., width]`; computed in f32.
    ///
    /// # Errors
    /// Another number of coordinates.
    pub fn forward(&self, positions: &Tensor) -> Result<Tensor> {
        let Some((&coordinates, leading)) = positions.dims().split_last().filter(|(n, _)| **n == self.coordinates)
        else {
            let expected = format!("[.., {}]", self.coordinates);
            return Err(AbUptError::shape("positions", expected, positions.dims()).into());
        };
        let pairs = self.omega.dim(0)?;
        let shape = |last: usize| [leading, &[last]].concat();
        let theta = to_dtype(positions, DType::F32)?.unsqueeze(D::Minus1)?.broadcast_mul(&self.omega)?;
        let waves = Tensor::cat(&[sin(&theta)?, cos(&theta)?], D::Minus1)?.reshape(shape(2 * coordinates * pairs))?;
        to_dtype(&waves.pad_with_zeros(D::Minus1, 0, self.width - 2 * coordinates * pairs)?, self.dtype)
    }
}
