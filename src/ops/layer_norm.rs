//! Layer norm (Ba et al., 2016, arXiv:1607.06450) over the channels, in one pass over memory on the CPU.
//!
//! ```text
//! y = (x − mean) / √(variance + eps) · factor + offset
//! ```
//!
//! The variance is that of the population, summed from the centred numbers. Sums run in [`LANES`] partial sums, so that
//! they vectorise and do not depend on the instruction set.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp1, D, Layout, Result, Shape, Tensor, bail};

use super::is_plain;
use super::per_sample::PerSample;
use super::rows::make_rows;
use super::vectorised::{multiply_add, vectorised};

/// Partial sums of a row.
const LANES: usize = 16;

/// Layer norm of `x [batch, tokens, width]`, f32. `factor` and `offset` are `[width]` for all samples, or
/// `[batch or 1, 1, width]`; f32.
///
/// # Errors
/// Other shapes.
pub(crate) fn layer_norm(x: &Tensor, factor: Option<&Tensor>, offset: Option<&Tensor>, eps: f64) -> Result<Tensor> {
    if x.elem_count() == 0 {
        // candle's GPU reductions divide by the number of rows.
        return x.zeros_like();
    }
    if is_plain(x) && factor.is_none_or(is_plain) && offset.is_none_or(is_plain) {
        let contiguous = |tensor: Option<&Tensor>| tensor.map(Tensor::contiguous).transpose();
        let op = FusedLayerNorm { factor: contiguous(factor)?, offset: contiguous(offset)?, eps: eps as f32 };
        return x.contiguous()?.apply_op1_no_bwd(&op);
    }
    let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
    let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
    let y = centred.broadcast_div(&(variance + eps)?.sqrt()?)?;
    let y = factor.map_or(Ok(y.clone()), |factor| y.broadcast_mul(factor))?;
    offset.map_or(Ok(y.clone()), |offset| y.broadcast_add(offset))
}

struct FusedLayerNorm {
    factor: Option<Tensor>,
    offset: Option<Tensor>,
    eps: f32,
}

impl CustomOp1 for FusedLayerNorm {
    fn name(&self) -> &'static str {
        "fused-layer-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (&[batch, tokens, width], Some((start, end))) = (layout.dims(), layout.contiguous_offsets()) else {
            bail!("layer norm takes contiguous [batch, tokens, width], got {layout:?}");
        };
        let x = &storage.as_slice::<f32>()?[start..end];
        let factor = self.factor.as_ref().map(Tensor::storage_and_layout);
        let factor =
            factor.as_ref().map(|(storage, layout)| PerSample::new(storage, layout, batch, width)).transpose()?;
        let offset = self.offset.as_ref().map(Tensor::storage_and_layout);
        let offset =
            offset.as_ref().map(|(storage, layout)| PerSample::new(storage, layout, batch, width)).transpose()?;
        let fill = |first: usize, block: &mut [MaybeUninit<f32>]| {
            vectorised(Block { x, first, tokens, width, factor, offset, eps: self.eps, block });
        };
        // SAFETY: `Block` writes every number of its block.
        let output = unsafe { make_rows(batch * tokens, width, width, fill) };
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }
}

/// The rows of one block, from row `first` on; compiled once for every instruction set that [`vectorised`] may find.
struct Block<'a> {
    x: &'a [f32],
    first: usize,
    tokens: usize,
    width: usize,
    factor: Option<PerSample<'a>>,
    offset: Option<PerSample<'a>>,
    eps: f32,
    block: &'a mut [MaybeUninit<f32>],
}

impl pulp::NullaryFnOnce for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { x, first, tokens, width, factor, offset, eps, block } = self;
        let rows = x[first * width..].chunks_exact(width);
        for (index, (x, y)) in rows.zip(block.chunks_exact_mut(width)).enumerate() {
            let sample = (first + index) / tokens;
            let mean = sum(x, |x| x) / width as f32;
            let variance = sum(x, |x| (x - mean) * (x - mean)) / width as f32;
            let scale = 1.0 / (variance + eps).sqrt();
            match (factor, offset) {
                (None, None) => x.iter().zip(y).for_each(|(x, y)| {
                    y.write((x - mean) * scale);
                }),
                (Some(factor), None) => x.iter().zip(y).zip(factor.of(sample)).for_each(|((x, y), factor)| {
                    y.write((x - mean) * scale * factor);
                }),
                (None, Some(offset)) => x.iter().zip(y).zip(offset.of(sample)).for_each(|((x, y), offset)| {
                    y.write((x - mean) * scale + offset);
                }),
                (Some(factor), Some(offset)) => {
                    let both = factor.of(sample).iter().zip(offset.of(sample));
                    x.iter().zip(y).zip(both).for_each(|((x, y), (factor, offset))| {
                        y.write(multiply_add((x - mean) * scale, *factor, *offset));
                    });
                }
            }
        }
    }
}

#[inline(always)]
fn sum(numbers: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let (lanes, rest) = numbers.as_chunks::<LANES>();
    let mut sums = [0f32; LANES];
    for numbers in lanes {
        for (sum, number) in sums.iter_mut().zip(numbers) {
            *sum += f(*number);
        }
    }
    sums.iter().sum::<f32>() + rest.iter().map(|number| f(*number)).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Var};

    fn random(shape: &[usize]) -> Tensor {
        Tensor::randn(1f32, 2., shape, &Device::Cpu).unwrap()
    }

    /// The same in f64, which only candle's ops do.
    fn exact(x: &Tensor, factor: Option<&Tensor>, offset: Option<&Tensor>) -> Tensor {
        let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap();
        layer_norm(&wide(x), factor.map(wide).as_ref(), offset.map(wide).as_ref(), 1e-6).unwrap()
    }

    #[test]
    fn agrees_with_the_ops_of_candle() {
        for (batch, tokens, width) in [(1, 1, 1), (2, 3, 5), (3, 7, 16), (2, 700, 192), (1, 3, 33)] {
            let none = || None;
            let channels = || Some(random(&[width]));
            let samples = || Some(random(&[batch, 1, width]));
            let shared = || Some(random(&[1, 1, width]));
            let choices: [&dyn Fn() -> Option<Tensor>; 4] = [&none, &channels, &samples, &shared];
            for factor in choices {
                for offset in choices {
                    let (x, factor, offset) = (random(&[batch, tokens, width]), factor(), offset());
                    let got = layer_norm(&x, factor.as_ref(), offset.as_ref(), 1e-6).unwrap();
                    let want = exact(&x, factor.as_ref(), offset.as_ref());
                    let worst = (got.to_dtype(DType::F64).unwrap() - want).unwrap().abs().unwrap().max_all().unwrap();
                    let worst = worst.to_scalar::<f64>().unwrap();
                    assert!(worst <= 2e-5, "[{batch}, {tokens}, {width}]: off by {worst:e}");
                }
            }
        }
    }

    #[test]
    fn reads_views_and_keeps_nan_in_its_row() {
        let wide = random(&[2, 6, 20]);
        let view = wide.narrow(1, 2, 3).unwrap().narrow(2, 4, 8).unwrap();
        let got = layer_norm(&view, None, None, 1e-6).unwrap();
        let worst = (got.to_dtype(DType::F64).unwrap() - exact(&view, None, None)).unwrap().abs().unwrap();
        assert!(worst.max_all().unwrap().to_scalar::<f64>().unwrap() <= 2e-5);

        let x = Tensor::new(&[[[1f32, 2., 4.], [f32::NAN, 2., 4.], [f32::INFINITY, 0., 1.]]], &Device::Cpu).unwrap();
        let y = layer_norm(&x, None, None, 1e-6).unwrap().to_vec3::<f32>().unwrap();
        assert!(y[0][0].iter().all(|y| y.is_finite()) && y[0][1..].iter().flatten().all(|y| y.is_nan()));
    }

    #[test]
    fn factors_of_another_shape_are_refused() {
        let error = layer_norm(&random(&[2, 3, 4]), Some(&random(&[5])), None, 1e-6).unwrap_err().to_string();
        assert!(error.contains("[5]") && error.contains("4 channels"), "{error}");
    }

    #[test]
    fn gradients_go_through_the_ops_of_candle() {
        let factor = Var::from_tensor(&random(&[4])).unwrap();
        let y = layer_norm(&random(&[1, 3, 4]), Some(factor.as_tensor()), None, 1e-6).unwrap();
        assert!(y.sqr().unwrap().sum_all().unwrap().backward().unwrap().get(&factor).is_some());
    }
}
