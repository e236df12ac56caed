//! Two layers with a GELU between them, for one block of rows after another: what lies between is never a tensor, but stays in
//! the second-level cache.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor, bail};
use candle_nn::Linear;
use half::{bf16, f16};

use super::operands::Rows;
use super::{Epilogue, Multiplied, is_fused, linear, readable, with_layer};
use crate::error::AttentionError;
use crate::ops::rows::make_rows;
use crate::scratch::{self, Purpose};
use crate::simd::SimdLevel;

/// Numbers between the layers at a time: a MiB of f32. With fewer, weights would be packed more often.
const HIDDEN: usize = 1 << 18;

/// `x [batch, tokens, in_dim]` to `[batch, tokens, out_dim]`: `narrow(gelu(widen(x)))`, rounded to the dtype of `x` behind each
/// layer.
///
/// # Errors
/// Another number of axes or width.
pub(crate) fn feed_forward(widen: &Linear, narrow: &Linear, x: &Tensor) -> Result<Tensor> {
    let (batch, tokens, _) = x.dims3()?;
    if batch * tokens > 0 && is_fused(widen, x) && is_fused(narrow, x) {
        let level = SimdLevel::active().map_err(AttentionError::from)?;
        return readable(x)?.apply_op1_no_bwd(&FusedFeedForward { widen, narrow, level });
    }
    linear(narrow, &linear(widen, x, Epilogue::Gelu)?, Epilogue::None)
}

struct FusedFeedForward<'a> {
    widen: &'a Linear,
    narrow: &'a Linear,
    level: SimdLevel,
}

impl CustomOp1 for FusedFeedForward<'_> {
    fn name(&self) -> &'static str {
        "fused-feed-forward"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        match storage {
            CpuStorage::F32(_) => self.typed::<f32>(storage, layout),
            CpuStorage::F16(_) => self.typed::<f16>(storage, layout),
            CpuStorage::BF16(_) => self.typed::<bf16>(storage, layout),
            _ => bail!("fused linear layers take f32, f16 and bf16"),
        }
    }
}

impl FusedFeedForward<'_> {
    fn typed<T: Multiplied>(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = Rows::<T>::new(storage, layout)?;
        with_layer(self.widen, Epilogue::Gelu, (self.level, Purpose::Weight), layout.dims(), |widen| {
            let width = widen.outputs;
            let hidden = [x.batch, x.tokens, width];
            with_layer(self.narrow, Epilogue::None, (self.level, Purpose::NextWeight), &hidden, |narrow| {
                let outputs = narrow.outputs;
                let fill = |first: usize, block: &mut [MaybeUninit<T>]| {
                    let rows = block.len() / outputs;
                    let piece = rows.div_ceil((rows * width).div_ceil(HIDDEN));
                    with_hidden(piece * width, |hidden| {
                        for (index, target) in block.chunks_mut(piece * outputs).enumerate() {
                            let hidden = &mut hidden[..target.len() / outputs * width];
                            (widen.fill)(&x, first + index * piece, hidden);
                            // SAFETY: a layer writes every number of its block.
                            let hidden = unsafe { &*(std::ptr::from_ref(hidden) as *const [T]) };
                            (narrow.fill)(&Rows::of_block(hidden, width), 0, target);
                        }
                    });
                };
                // SAFETY: as above, and the pieces cover the block.
                let rows = unsafe { make_rows(x.batch * x.tokens, outputs, (x.width + outputs) * width, fill) };
                Ok((T::storage(rows), Shape::from((x.batch, x.tokens, outputs))))
            })
        })
    }
}

/// Lends room for numbers between layers.
fn with_hidden<T, R>(len: usize, body: impl FnOnce(&mut [MaybeUninit<T>]) -> R) -> R {
    const { assert!(align_of::<T>() <= align_of::<f32>()) };
    scratch::with(Purpose::Hidden, |buffer| {
        let words = buffer.of((len * size_of::<T>()).div_ceil(size_of::<f32>()));
        // SAFETY: as many bytes, aligned at least as well; whatever they hold may stand for nothing written yet.
        body(unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), len) })
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;

    /// Both layers of one call give, to the last bit, what they give one after the other.
    #[test]
    fn agrees_with_one_layer_after_the_other() -> Result<()> {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let random = |shape: &[usize]| Tensor::randn(0f32, 1., shape, &Device::Cpu)?.to_dtype(dtype);
            for (batch, tokens, input, hidden, output) in
                [(1, 1, 1, 1, 1), (2, 7, 5, 3, 4), (3, 301, 24, 1000, 17), (1, 5000, 12, 300, 33)]
            {
                for biased in [false, true] {
                    let bias = |width: usize| biased.then(|| random(&[width])).transpose();
                    let widen = Linear::new(random(&[hidden, input])?, bias(hidden)?);
                    let narrow = Linear::new(random(&[output, hidden])?, bias(output)?);
                    let x = random(&[tokens, batch, input])?.transpose(0, 1)?;
                    let want = linear(&narrow, &linear(&widen, &x, Epilogue::Gelu)?, Epilogue::None)?;
                    let got = feed_forward(&widen, &narrow, &x)?;
                    let bits = |tensor: &Tensor| -> Result<Vec<u32>> {
                        let numbers = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
                        Ok(numbers.into_iter().map(f32::to_bits).collect())
                    };
                    assert_eq!(got.dims(), want.dims());
                    assert!(bits(&got)? == bits(&want)?, "{dtype:?}: {tokens} rows, {input} → {hidden} → {output}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn layers_that_do_not_fit_are_refused() {
        let random = |shape: &[usize]| Tensor::randn(0f32, 1., shape, &Device::Cpu).unwrap();
        let (widen, narrow) = (Linear::new(random(&[6, 2]), None), Linear::new(random(&[3, 5]), None));
        let error = feed_forward(&widen, &narrow, &random(&[1, 4, 2])).unwrap_err().to_string();
        assert!(error.contains("[3, 5]") && error.contains("[1, 4, 6]"), "{error}");
    }
}
