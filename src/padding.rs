//! Key padding: which tokens are real.

use std::ops::Range;
use std::sync::Arc;

use candle_core::{DType, Result, Tensor};

use crate::checks::{check_batch, check_tokens};
use crate::error::AttentionError;
use crate::plan::PaddingBits;

/// Marks the tokens of ragged batches that are real; the others are never seen as keys.
///
/// A masked key has no influence at all, even if it holds NaN or infinity. A query all of whose keys are masked gets
/// zeros from attention. Masked tokens are still computed as queries. A batch of 1 serves every row of the input.
///
/// ```
/// use candle_mixed_attention::KeyPadding;
///
/// // Two samples, padded to 5 tokens.
/// let padding = KeyPadding::from_lengths(&[5, 3], 5)?;
/// assert_eq!((padding.batch(), padding.tokens()), (2, 5));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPadding {
    bits: Arc<PaddingBits>,
}

impl KeyPadding {
    /// Reads a mask `[batch, tokens]` of dtype u8, u32 or i64: 0 for padding, anything else for a real token.
    ///
    /// # Errors
    /// Another dtype or number of axes; a mask that does not fit into memory.
    pub fn from_mask(mask: &Tensor) -> Result<Self> {
        if !matches!(mask.dtype(), DType::U8 | DType::U32 | DType::I64) {
            let expected = "u8, u32 or i64 (1 = real token, 0 = padding)";
            return Err(AttentionError::dtype("key_padding", expected, mask.dtype()).into());
        }
        let &[batch, tokens] = mask.dims() else {
            return Err(AttentionError::shape("key_padding", "[batch, tokens]", mask.dims()).into());
        };
        check_shape(batch, tokens)?;
        // candle's GPU comparisons take no empty tensors.
        let real = match mask.elem_count() {
            0 => Vec::new(),
            _ => mask.ne(0i64)?.flatten_all()?.to_vec1::<u8>()?,
        };
        Ok(Self { bits: Arc::new(PaddingBits::new(batch, tokens, |row, token| real[row * tokens + token] != 0)) })
    }

    /// The first `lengths[row]` of `tokens` tokens of each row are real.
    ///
    /// # Errors
    /// A length exceeds `tokens`; the mask does not fit into memory.
    pub fn from_lengths(lengths: &[usize], tokens: usize) -> Result<Self> {
        if let Some(length) = lengths.iter().find(|&&length| length > tokens) {
            let got = format!("{length} of {tokens}");
            return Err(AttentionError::value("key_padding length", "at most the number of tokens", got).into());
        }
        check_shape(lengths.len(), tokens)?;
        Ok(Self { bits: Arc::new(PaddingBits::from_lengths(lengths, tokens)) })
    }

    /// Number of rows.
    pub fn batch(&self) -> usize {
        self.bits.batch()
    }

    /// Number of tokens of a row.
    pub fn tokens(&self) -> usize {
        self.bits.tokens()
    }

    /// The packed bits.
    pub fn bits(&self) -> &Arc<PaddingBits> {
        &self.bits
    }

    /// Wraps packed bits.
    pub(crate) fn from_bits(bits: PaddingBits) -> Self {
        Self { bits: Arc::new(bits) }
    }

    /// As a mask `[batch, tokens]` of u8.
    ///
    /// # Errors
    /// The tensor cannot be made on the device.
    pub fn to_mask(&self, device: &candle_core::Device) -> Result<Tensor> {
        let (batch, tokens) = (self.batch(), self.tokens());
        let real = |index: usize| u8::from(self.bits.is_real(index / tokens, index % tokens));
        Tensor::from_vec((0..batch * tokens).map(real).collect::<Vec<u8>>(), (batch, tokens), device)
    }

    /// The padding of some groups, one after another, given as (first token, tokens).
    pub(crate) fn gather(&self, groups: &[(usize, usize)]) -> Self {
        Self::from_bits(self.bits.gather(groups))
    }

    /// As `padding`, or as if no token were padding, with all tokens outside of some ranges hidden, too.
    pub(crate) fn within(
        ranges: impl IntoIterator<Item = Range<usize>>,
        tokens: usize,
        padding: Option<&Self>,
    ) -> Self {
        let mut inside = vec![false; tokens];
        ranges.into_iter().for_each(|range| inside[range].fill(true));
        let real = |row, token: usize| inside[token] && padding.is_none_or(|padding| padding.bits.is_real(row, token));
        Self::from_bits(PaddingBits::new(padding.map_or(1, Self::batch), tokens, real))
    }

    /// Whether no token is padding.
    pub(crate) fn is_full(&self) -> bool {
        self.bits.is_full()
    }

    /// Checks the mask against an input, whose groups are named for the error.
    pub(crate) fn check(
        &self,
        batch: usize,
        tokens: usize,
        groups: impl FnOnce() -> String,
    ) -> std::result::Result<(), AttentionError> {
        check_tokens("key_padding", tokens, self.tokens(), groups)?;
        check_batch("key_padding", batch, self.batch())
    }
}

/// Checks that a mask of this shape can be packed, before anything of its size is made.
fn check_shape(batch: usize, tokens: usize) -> std::result::Result<(), AttentionError> {
    if PaddingBits::check_shape(batch, tokens) {
        return Ok(());
    }
    let got = format!("{batch} rows of {tokens} tokens");
    Err(AttentionError::value("key_padding", "a mask that fits into memory", got))
}
