//! The sum that ends a residual branch, in one pass over memory on the CPU.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

use super::per_sample::PerSample;
use super::rows::make_rows;
use super::vectorised::{multiply_add, vectorised};
use super::{is_plain, to_dtype};

/// `x + factor · y`, or `x + y`, for `x` and `y [batch, tokens, width]`, in the dtype of `x`. `factor` is `[width]` for all
/// samples, or `[batch or 1, 1, width]`; f32. f16 and bf16 are computed in f32 on the CPU, and wherever there is a factor, and
/// rounded once; candle does not do that on every CPU (see `docs/half-precision-on-arm.md`).
///
/// # Errors
/// Other shapes.
pub(crate) fn residual(x: &Tensor, y: &Tensor, factor: Option<&Tensor>) -> Result<Tensor> {
    let computed = match x.dtype() {
        DType::F16 | DType::BF16 if x.device().is_cpu() || factor.is_some() => DType::F32,
        dtype => dtype,
    };
    let (wide_x, wide_y) = (to_dtype(x, computed)?, to_dtype(y, computed)?);
    let sum = if is_plain(&wide_x) && is_plain(&wide_y) && factor.is_none_or(is_plain) && x.elem_count() > 0 {
        let op = FusedResidual { factor: factor.map(Tensor::contiguous).transpose()? };
        wide_x.contiguous()?.apply_op2_no_bwd(&wide_y.contiguous()?, &op)?
    } else {
        let y = factor.map_or(Ok(wide_y.clone()), |factor| wide_y.broadcast_mul(&to_dtype(factor, computed)?))?;
        (wide_x + y)?
    };
    to_dtype(&sum, x.dtype())
}

struct FusedResidual {
    factor: Option<Tensor>,
}

impl CustomOp2 for FusedResidual {
    fn name(&self) -> &'static str {
        "fused-residual"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (&[batch, tokens, width], true) = (x_layout.dims(), x_layout.dims() == y_layout.dims()) else {
            bail!(
                "a residual sum takes two [batch, tokens, width], got {:?} and {:?}",
                x_layout.dims(),
                y_layout.dims()
            );
        };
        let (Some((x_start, x_end)), Some((y_start, y_end))) =
            (x_layout.contiguous_offsets(), y_layout.contiguous_offsets())
        else {
            bail!("a residual sum takes contiguous numbers, got {x_layout:?} and {y_layout:?}");
        };
        let (x, y) = (&x.as_slice::<f32>()?[x_start..x_end], &y.as_slice::<f32>()?[y_start..y_end]);
        let factor = self.factor.as_ref().map(Tensor::storage_and_layout);
        let factor =
            factor.as_ref().map(|(storage, layout)| PerSample::new(storage, layout, batch, width)).transpose()?;
        let fill = |first: usize, block: &mut [MaybeUninit<f32>]| {
            vectorised(Block { x, y, first, tokens, width, factor, block });
        };
        // SAFETY: `Block` writes every number of its block.
        let output = unsafe { make_rows(batch * tokens, width, width, fill) };
        Ok((CpuStorage::F32(output), x_layout.shape().clone()))
    }
}

/// The rows of one block, from row `first` on; compiled once for every instruction set that [`vectorised`] may find.
struct Block<'a> {
    x: &'a [f32],
    y: &'a [f32],
    first: usize,
    tokens: usize,
    width: usize,
    factor: Option<PerSample<'a>>,
    block: &'a mut [MaybeUninit<f32>],
}

impl pulp::NullaryFnOnce for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        let Self { x, y, first, tokens, width, factor, block } = self;
        let rows = x[first * width..].chunks_exact(width).zip(y[first * width..].chunks_exact(width));
        for (index, ((x, y), sums)) in rows.zip(block.chunks_exact_mut(width)).enumerate() {
            let both = x.iter().zip(y).zip(sums);
            match factor {
                None => both.for_each(|((x, y), sum)| {
                    sum.write(x + y);
                }),
                Some(factor) => both.zip(factor.of((first + index) / tokens)).for_each(|(((x, y), sum), factor)| {
                    sum.write(multiply_add(*y, *factor, *x));
                }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use half::bf16;

    fn random(shape: &[usize]) -> Tensor {
        Tensor::randn(1f32, 2., shape, &Device::Cpu).unwrap()
    }

    /// The same in f64, which only candle's ops do.
    fn exact(x: &Tensor, y: &Tensor, factor: Option<&Tensor>) -> Tensor {
        let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap();
        residual(&wide(x), &wide(y), factor.map(wide).as_ref()).unwrap()
    }

    fn worst(got: &Tensor, want: &Tensor) -> f64 {
        let off = (got.to_dtype(DType::F64).unwrap() - want).unwrap().abs().unwrap();
        off.max_all().unwrap().to_scalar::<f64>().unwrap()
    }

    #[test]
    fn agrees_with_the_ops_of_candle() {
        for (batch, tokens, width) in [(1, 1, 1), (2, 3, 5), (3, 7, 16), (2, 7000, 192), (1, 3, 33)] {
            let factors = [None, Some(vec![width]), Some(vec![batch, 1, width]), Some(vec![1, 1, width])];
            for factor in factors {
                let factor = factor.as_deref().map(random);
                let (x, y) = (random(&[batch, tokens, width]), random(&[batch, tokens, width]));
                let off = worst(&residual(&x, &y, factor.as_ref()).unwrap(), &exact(&x, &y, factor.as_ref()));
                assert!(off <= 2e-5, "[{batch}, {tokens}, {width}], factor {factor:?}: off by {off:e}");
            }
        }
    }

    #[test]
    fn reads_views_and_nothing() {
        let (wide, y, factor) = (random(&[2, 6, 20]), random(&[2, 3, 8]), random(&[2, 1, 16]));
        let view = wide.narrow(1, 2, 3).unwrap().narrow(2, 4, 8).unwrap();
        let factor = factor.narrow(2, 8, 8).unwrap();
        let got = residual(&view, &y, Some(&factor)).unwrap();
        assert!(worst(&got, &exact(&view, &y, Some(&factor))) <= 2e-5);
        assert_eq!(residual(&random(&[2, 0, 8]), &random(&[2, 0, 8]), Some(&factor)).unwrap().dims(), [2, 0, 8]);
    }

    #[test]
    fn two_byte_numbers_are_rounded_to_nearest() -> Result<()> {
        // 1 + 3 · 2⁻⁹ lies between 1 and its neighbour 1 + 2⁻⁷, nearer to the latter.
        let x = Tensor::full(bf16::ONE, (1, 1, 100), &Device::Cpu)?;
        let y = Tensor::full(bf16::from_f32(3.0 / 512.0), (1, 1, 100), &Device::Cpu)?;
        let twice = Tensor::full(2f32, 100, &Device::Cpu)?;
        for (factor, want) in [(None, 1.0 + 1.0 / 128.0), (Some(&twice), 1.0 + 2.0 / 128.0)] {
            let sums = residual(&x, &y, factor)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
            assert!(sums.iter().all(|sum| *sum == want), "{sums:?}");
        }
        Ok(())
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let error = residual(&random(&[2, 3, 4]), &random(&[2, 3, 5]), None).unwrap_err().to_string();
        assert!(error.contains("[2, 3, 4]") && error.contains("[2, 3, 5]"), "{error}");
        let error = residual(&random(&[2, 3, 4]), &random(&[2, 3, 4]), Some(&random(&[5]))).unwrap_err().to_string();
        assert!(error.contains("[5]") && error.contains("4 channels"), "{error}");
    }

    #[test]
    fn gradients_go_through_the_ops_of_candle() {
        let factor = Var::from_tensor(&random(&[4])).unwrap();
        let y = residual(&random(&[1, 3, 4]), &random(&[1, 3, 4]), Some(factor.as_tensor())).unwrap();
        assert!(y.sqr().unwrap().sum_all().unwrap().backward().unwrap().get(&factor).is_some());
    }
}
