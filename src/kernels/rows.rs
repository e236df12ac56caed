//! Rows of tensors as kernels read them: adjacent channels, any strides.

use candle_core::{Layout, Result};

use crate::error::AttentionError;

/// Copies and loads of the kernels move this many bytes, from addresses that are multiples of it.
const ACCESS_BYTES: usize = 16;

/// Kernels multiply fractions of the distance of two tokens in 32 bits.
const MOST_TOKEN_BYTES: u64 = 1 << 34;

/// Whether kernels can read rows of this layout in place: adjacent channels, and rows at multiples of 16 bytes, less than
/// 16 GiB apart.
pub fn is_readable(layout: &Layout, element_bytes: usize) -> bool {
    let aligned = |elements: usize| (elements * element_bytes).is_multiple_of(ACCESS_BYTES);
    let (&[.., head_dim], &[.., channel_stride]) = (layout.dims(), layout.stride()) else { return false };
    let outer = layout.dims().iter().zip(layout.stride()).take(layout.dims().len() - 1);
    let token = layout.dims().iter().zip(layout.stride()).nth_back(1);
    let near = |(&tokens, &stride): (&usize, &usize)| {
        tokens <= 1 || (stride as u64).saturating_mul(element_bytes as u64) < MOST_TOKEN_BYTES
    };
    (channel_stride == 1 || head_dim == 1)
        && aligned(layout.start_offset())
        && outer.into_iter().all(|(&dim, &stride)| dim <= 1 || aligned(stride))
        && token.is_none_or(near)
}

/// A tensor `[batch, heads, tokens, head_dim]` in its storage.
#[derive(Debug, Clone, Copy)]
pub struct TensorRows {
    /// Bytes in front of its first element.
    pub offset: usize,
    /// Elements between batch rows; 0 if one row serves the whole batch.
    pub batch: i64,
    /// Elements between heads.
    pub head: i64,
    /// Elements between tokens.
    pub token: i64,
}

impl TensorRows {
    /// The rows of a tensor. With `broadcast`, its one batch row serves every row.
    ///
    /// # Errors
    /// A layout that kernels cannot read.
    pub fn of(layout: &Layout, element_bytes: usize, broadcast: bool) -> Result<Self> {
        let (&[batches, heads, tokens, _], &[batch, head, token, _]) = (layout.dims(), layout.stride()) else {
            return Err(AttentionError::shape("operand", "[batch, heads, tokens, head_dim]", layout.dims()).into());
        };
        if !is_readable(layout, element_bytes) {
            candle_core::bail!("rows must have adjacent channels and start at multiples of 16 bytes, got {layout:?}");
        }
        let offset = layout.start_offset() * element_bytes;
        // The stride of a dimension of 1 means nothing, may be any number, and would still be part of an address that a
        // kernel computes without reading there.
        let stride = |dim: usize, stride: usize| if dim <= 1 { 0 } else { stride as i64 };
        let batch = if broadcast { 0 } else { stride(batches, batch) };
        Ok(Self { offset, batch, head: stride(heads, head), token: stride(tokens, token) })
    }

    /// Rows `[batch, tokens, heads, head_dim]` without gaps, from the start of a buffer.
    pub fn dense(tokens: usize, heads: usize, head_dim: usize) -> Self {
        let token = (heads * head_dim) as i64;
        Self { offset: 0, batch: tokens as i64 * token, head: head_dim as i64, token }
    }
}

/// RoPE angles `[batch or 1, tokens, head_dim / 2, 2]` in their storage.
#[derive(Debug, Clone, Copy)]
pub struct AngleRows {
    /// Bytes in front of the first angle.
    pub offset: usize,
    /// Floats between batch rows; 0 if one row serves the whole batch.
    pub batch: i64,
    /// Floats between tokens.
    pub token: i64,
}

impl AngleRows {
    /// The angles of a tensor.
    ///
    /// # Errors
    /// A layout that kernels cannot read.
    pub fn of(layout: &Layout) -> Result<Self> {
        let (&[rows, _, pairs, 2], &[batch, token, pair, 1]) = (layout.dims(), layout.stride()) else {
            candle_core::bail!("RoPE angles must have shape [batch, tokens, head_dim / 2, 2] with adjacent numbers");
        };
        let even = |floats: usize| floats.is_multiple_of(2);
        if !((pair == 2 || pairs <= 1) && even(layout.start_offset()) && even(batch) && even(token)) {
            candle_core::bail!("RoPE angles of a token must be adjacent, got {layout:?}");
        }
        let offset = layout.start_offset() * size_of::<f32>();
        Ok(Self { offset, batch: if rows == 1 { 0 } else { batch as i64 }, token: token as i64 })
    }
}

/// Biases of keys, `[batch or 1, heads or 1, tokens]` of f32, in their storage.
#[derive(Debug, Clone, Copy)]
pub struct BiasRows {
    /// Bytes in front of the first number.
    pub offset: usize,
    /// Floats between batch rows; 0 if one row serves the whole batch.
    pub batch: i64,
    /// Floats between heads; 0 if one row serves all heads.
    pub head: i64,
}

impl BiasRows {
    /// The biases of a tensor.
    ///
    /// # Errors
    /// A layout that kernels cannot read.
    pub fn of(layout: &Layout) -> Result<Self> {
        let (&[batches, heads, tokens], &[batch, head, token]) = (layout.dims(), layout.stride()) else {
            candle_core::bail!("biases of keys must have shape [batch, heads, tokens], got {layout:?}");
        };
        if token != 1 && tokens > 1 {
            candle_core::bail!("biases of keys must lie side by side, got {layout:?}");
        }
        let stride = |dim: usize, stride: usize| if dim == 1 { 0 } else { stride as i64 };
        let offset = layout.start_offset() * size_of::<f32>();
        Ok(Self { offset, batch: stride(batches, batch), head: stride(heads, head) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Shape, Tensor};

    #[test]
    fn views_of_a_fused_projection_are_read_in_place() -> Result<()> {
        let fused = Tensor::zeros((2, 7, 3, 4, 16), DType::F32, &Device::Cpu)?;
        let keys = fused.narrow(2, 1, 1)?.squeeze(2)?.transpose(1, 2)?;
        let rows = TensorRows::of(keys.layout(), 4, false)?;
        assert_eq!((rows.offset, rows.batch, rows.head, rows.token), (64 * 4, 7 * 192, 16, 192));
        assert_eq!(TensorRows::of(keys.layout(), 4, true)?.batch, 0);
        Ok(())
    }

    #[test]
    fn rows_off_16_bytes_or_with_gaps_between_channels_are_refused() -> Result<()> {
        let tensor = Tensor::zeros((1, 2, 5, 24), DType::F32, &Device::Cpu)?;
        assert!(is_readable(tensor.layout(), 4));
        assert!(TensorRows::of(tensor.transpose(2, 3)?.layout(), 4, false).is_err());
        assert!(TensorRows::of(tensor.narrow(3, 1, 16)?.layout(), 4, false).is_err());
        assert!(TensorRows::of(tensor.narrow(3, 4, 16)?.layout(), 4, false).is_ok());
        // 12-byte rows; a single one may be of any length, which no address depends on.
        let odd = Tensor::zeros((1, 1, 5, 6), DType::F16, &Device::Cpu)?;
        assert!(!is_readable(odd.layout(), 2) && is_readable(odd.narrow(2, 0, 1)?.layout(), 2));
        let single = TensorRows::of(odd.narrow(2, 0, 1)?.layout(), 2, false)?;
        assert_eq!((single.batch, single.head, single.token), (0, 0, 0));
        Ok(())
    }

    #[test]
    fn tokens_far_apart_are_refused() {
        let layout = |tokens, stride| Layout::new(Shape::from((1, 1, tokens, 8)), vec![0, 0, stride, 1], 0);
        assert!(is_readable(&layout(2, (1 << 33) - 8), 2) && !is_readable(&layout(2, 1 << 33), 2));
        assert!(is_readable(&layout(1, 1 << 40), 2) && !is_readable(&layout(2, usize::MAX / 8), 4));
    }

    #[test]
    fn biases_of_tokens_are_adjacent() -> Result<()> {
        let bias = Tensor::zeros((2, 3, 9), DType::F32, &Device::Cpu)?;
        let rows = BiasRows::of(bias.narrow(2, 4, 5)?.layout())?;
        assert_eq!((rows.offset, rows.batch, rows.head), (4 * 4, 27, 9));
        let shared = BiasRows::of(bias.narrow(0, 1, 1)?.narrow(1, 2, 1)?.layout())?;
        assert_eq!((shared.offset, shared.batch, shared.head), ((27 + 18) * 4, 0, 0));
        assert!(BiasRows::of(bias.transpose(1, 2)?.layout()).is_err());
        Ok(())
    }

    #[test]
    fn angles_of_a_token_are_adjacent() -> Result<()> {
        let table = Tensor::zeros((1, 9, 8, 2), DType::F32, &Device::Cpu)?;
        let rows = AngleRows::of(table.narrow(1, 3, 4)?.layout())?;
        assert_eq!((rows.offset, rows.batch, rows.token), (3 * 16 * 4, 0, 16));
        assert!(AngleRows::of(table.transpose(1, 2)?.layout()).is_err());
        Ok(())
    }
}
