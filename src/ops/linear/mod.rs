//! `y = f(x Wᵀ + b)` on the CPU in one pass, for f32, f16 and bf16.
//!
//! candle multiplies, then adds the bias through fresh memory, then applies the activation through fresh memory again.
//! Here all of it happens while a block of rows is in cache.
//!
//! | file | idea |
//! |---|---|
//! | [`floats`] | f32, by the products of the crate `gemm` |
//! | [`weight`], [`block`] | f16 and bf16, by a kernel of our own: the weight packed, then blocks of rows |
//! | [`feed_forward`] | two layers, one after another for a block of rows |
//! | [`operands`] | rows and weights with strides |
//!
//! Numbers of two bytes are multiplied exactly, added and activated in f32 and rounded once. candle's own products of f16 and
//! bf16 do not promise that (see `docs/half-precision-on-arm.md`). bf16 goes through dot products where those are the
//! [fastest](SimdLevel::active).

mod block;
mod feed_forward;
mod floats;
mod operands;
mod weight;

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Module, Result, Shape, Tensor, WithDType, bail};
use candle_nn::Linear;
use half::{bf16, f16};

use self::block::Block;
pub(crate) use self::feed_forward::feed_forward;
use self::operands::{Matrix, Rows, bias, on_cpu};
use self::weight::PackedWeight;
use super::rows::make_rows;
use super::to_dtype;
use crate::element::Element;
use crate::error::AttentionError;
use crate::scratch::{self, Purpose};
use crate::simd::{SimdLevel, dispatch};

/// What follows the bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Epilogue {
    /// Nothing.
    None,
    /// The exact GELU; in f32 where the input is f16 or bf16.
    Gelu,
}

/// `x [batch, tokens, in_dim]` to `[batch, tokens, out_dim]`; any of them may be 0.
///
/// # Errors
/// Another number of axes or width.
pub(crate) fn linear(layer: &Linear, x: &Tensor, epilogue: Epilogue) -> Result<Tensor> {
    let (batch, tokens, _) = x.dims3()?;
    if batch * tokens == 0 {
        return Tensor::zeros((batch, tokens, layer.weight().dim(0)?), x.dtype(), x.device());
    }
    if is_fused(layer, x) {
        let level = SimdLevel::active().map_err(AttentionError::from)?;
        return readable(x)?.apply_op1_no_bwd(&FusedLinear { layer, epilogue, level });
    }
    #[cfg(feature = "metal")]
    crate::metal::system::check_device(x.device())?;
    let y = layer.forward(&x.contiguous()?)?;
    match (epilogue, y.dtype()) {
        (Epilogue::None, _) => Ok(y),
        (Epilogue::Gelu, DType::F16 | DType::BF16) => to_dtype(&to_dtype(&y, DType::F32)?.gelu_erf()?, y.dtype()),
        (Epilogue::Gelu, _) => y.gelu_erf(),
    }
}

/// Whether the op below can take the place of candle's: numbers of one dtype that it knows, on the CPU, and no gradient to
/// follow.
fn is_fused(layer: &Linear, x: &Tensor) -> bool {
    let empty = x.elem_count() == 0 || layer.weight().elem_count() == 0;
    let plain = |tensor: &Tensor| tensor.device().is_cpu() && tensor.dtype() == x.dtype() && !tensor.track_op();
    let known = matches!(x.dtype(), DType::F32 | DType::F16 | DType::BF16);
    !empty && known && plain(x) && plain(layer.weight()) && layer.bias().is_none_or(plain)
}

/// The tensor itself if its channels are adjacent, else a copy.
fn readable(x: &Tensor) -> Result<Tensor> {
    match x.stride() {
        [.., 1] => Ok(x.clone()),
        _ => x.contiguous(),
    }
}

struct FusedLinear<'a> {
    layer: &'a Linear,
    epilogue: Epilogue,
    level: SimdLevel,
}

impl CustomOp1 for FusedLinear<'_> {
    fn name(&self) -> &'static str {
        "fused-linear"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        match storage {
            CpuStorage::F32(_) => self.typed::<f32>(storage, layout),
            CpuStorage::F16(_) => self.typed::<f16>(storage, layout),
            CpuStorage::BF16(_) => self.typed::<bf16>(storage, layout),
            _ => bail!("a fused linear layer takes f32, f16 and bf16"),
        }
    }
}

impl FusedLinear<'_> {
    fn typed<T: Multiplied>(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = Rows::<T>::new(storage, layout)?;
        with_layer(self.layer, self.epilogue, (self.level, Purpose::Weight), layout.dims(), |layer| {
            let fill = |first: usize, block: &mut [MaybeUninit<T>]| (layer.fill)(&x, first, block);
            // SAFETY: a layer writes every number of its block.
            let rows = unsafe { make_rows(x.batch * x.tokens, layer.outputs, x.width * layer.outputs, fill) };
            Ok((T::storage(rows), Shape::from((x.batch, x.tokens, layer.outputs))))
        })
    }
}

/// Writes rows of a layer's output, from row `first` of the input on, into a block: every number of it.
type Fill<'f, T> = dyn Fn(&Rows<'_, T>, usize, &mut [MaybeUninit<T>]) + Sync + 'f;

/// A layer whose weight is ready.
struct Layer<'f, T> {
    outputs: usize,
    fill: &'f Fill<'f, T>,
}

/// A dtype that the op knows.
trait Multiplied: Element {
    /// Makes the weight ready, in this thread's buffer if it needs one, and lends what fills blocks of rows.
    fn with_weight<R>(
        weight: &Matrix<'_, Self>,
        bias: Option<&[f32]>,
        epilogue: Epilogue,
        ready: (SimdLevel, Purpose),
        body: impl FnOnce(&Fill<'_, Self>) -> R,
    ) -> R;
}

impl Multiplied for f32 {
    fn with_weight<R>(
        weight: &Matrix<'_, f32>,
        bias: Option<&[f32]>,
        epilogue: Epilogue,
        _: (SimdLevel, Purpose),
        body: impl FnOnce(&Fill<'_, f32>) -> R,
    ) -> R {
        body(&|x, first, block| floats::fill(x, weight, bias, epilogue, first, block))
    }
}

/// Those of two bytes, by the kernel of our own.
macro_rules! packed {
    ($($number:ty),*) => {$(
        impl Multiplied for $number {
            fn with_weight<R>(
                weight: &Matrix<'_, Self>,
                bias: Option<&[f32]>,
                epilogue: Epilogue,
                (level, purpose): (SimdLevel, Purpose),
                body: impl FnOnce(&Fill<'_, Self>) -> R,
            ) -> R {
                let outputs = weight.rows;
                scratch::with(purpose, |buffer| {
                    let weight = &PackedWeight::new(level, weight, buffer);
                    body(&|x, first, target| {
                        scratch::with(Purpose::Rows, |buffer| {
                            let block = Block { x, first, weight, bias, outputs, epilogue, target, buffer };
                            dispatch(level, <Self as WithDType>::DTYPE, block);
                        });
                    })
                })
            }
        }
    )*};
}
packed!(f16, bf16);

/// Checks a layer for inputs of this shape and hands it, ready, to `body`.
fn with_layer<T: Multiplied, R>(
    layer: &Linear,
    epilogue: Epilogue,
    ready: (SimdLevel, Purpose),
    input: &[usize],
    body: impl FnOnce(Layer<'_, T>) -> Result<R>,
) -> Result<R> {
    let weight_guard = layer.weight().storage_and_layout();
    let bias_guard = layer.bias().map(Tensor::storage_and_layout);
    let weight = Matrix::<T>::new(on_cpu(&weight_guard.0)?, weight_guard.1)?;
    let bias = match &bias_guard {
        Some((storage, layout)) => Some(bias::<T>(on_cpu(storage)?, layout)?),
        None => None,
    };
    if input.last() != Some(&weight.columns) || bias.as_ref().is_some_and(|bias| bias.len() != weight.rows) {
        bail!("a linear layer of shape {:?} does not take {input:?}", layer.weight().dims());
    }
    let outputs = weight.rows;
    T::with_weight(&weight, bias.as_deref(), epilogue, ready, |fill| body(Layer { outputs, fill }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{D, Device, Var};

    fn random(shape: &[usize]) -> Tensor {
        Tensor::randn(0f32, 1., shape, &Device::Cpu).unwrap()
    }

    /// The layer in f64 by candle's ops.
    fn exact(layer: &Linear, x: &Tensor, epilogue: Epilogue) -> Tensor {
        let wide = |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap().contiguous().unwrap();
        let layer = Linear::new(wide(layer.weight()), layer.bias().map(wide));
        let y = layer.forward(&wide(x)).unwrap();
        if epilogue == Epilogue::Gelu { y.gelu_erf().unwrap() } else { y }
    }

    /// The layer at every level of this CPU.
    fn at_every_level(layer: &Linear, x: &Tensor, epilogue: Epilogue) -> Vec<(SimdLevel, Tensor)> {
        assert!(is_fused(layer, x));
        let at = |level: &SimdLevel| {
            let op = FusedLinear { layer, epilogue, level: *level };
            (*level, readable(x).unwrap().apply_op1_no_bwd(&op).unwrap())
        };
        SimdLevel::available().iter().map(at).collect()
    }

    fn check(layer: &Linear, x: &Tensor, epilogue: Epilogue) {
        let want = exact(layer, x, epilogue);
        for (level, got) in at_every_level(layer, x, epilogue) {
            check_one(level, &got, &want, x);
        }
    }

    fn check_one(level: SimdLevel, got: &Tensor, want: &Tensor, x: &Tensor) {
        assert_eq!(got.dims(), want.dims());
        let numbers =
            |tensor: &Tensor| tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
        // Products of standard normal numbers: sums of `width` of them are about √width.
        let bound = 1e-6 * (x.dim(D::Minus1).unwrap() as f64).sqrt().max(1.0) * 4.0;
        // Rounded once, to the dtype.
        let half_ulp = match x.dtype() {
            DType::F16 => 1.0 / 2048.0,
            DType::BF16 => 1.0 / 256.0,
            _ => 0.0,
        };
        for (got, want) in numbers(got).iter().zip(numbers(want)) {
            let bound = bound + half_ulp * want.abs();
            let close = (got - want).abs() <= bound;
            assert!(close, "{level}: {got}, expected {want}, allowed {bound:e}");
        }
    }

    #[test]
    fn agrees_with_the_ops_of_candle() {
        for (batch, tokens, input, output) in
            [(1, 1, 1, 1), (2, 7, 5, 3), (1, 700, 48, 192), (3, 301, 64, 17), (1, 5000, 33, 65)]
        {
            for epilogue in [Epilogue::None, Epilogue::Gelu] {
                for bias in [None, Some(random(&[output]))] {
                    let layer = Linear::new(random(&[output, input]), bias);
                    check(&layer, &random(&[batch, tokens, input]), epilogue);
                }
            }
        }
    }

    #[test]
    fn two_byte_numbers_are_rounded_once() {
        for dtype in [DType::F16, DType::BF16] {
            let random = |shape: &[usize]| random(shape).to_dtype(dtype).unwrap();
            for (batch, tokens, input, output) in [
                (1, 1, 1, 1),
                (2, 7, 5, 3),
                (3, 301, 64, 17),
                (1, 900, 333, 129),
                // A weight that threads pack, and more words than are summed at a time.
                (1, 9, 1111, 250),
            ] {
                for epilogue in [Epilogue::None, Epilogue::Gelu] {
                    for bias in [None, Some(random(&[output]))] {
                        let layer = Linear::new(random(&[output, input]), bias);
                        check(&layer, &random(&[batch, tokens, input]), epilogue);
                    }
                }
            }
            let layer = Linear::new(random(&[24, 40]).t().unwrap(), Some(random(&[60]).narrow(0, 20, 40).unwrap()));
            check(&layer, &random(&[3, 50, 30]).narrow(1, 7, 20).unwrap().narrow(2, 4, 24).unwrap(), Epilogue::None);
        }
    }

    #[test]
    fn reads_views_in_place() {
        let layer = Linear::new(random(&[24, 40]).t().unwrap(), Some(random(&[60]).narrow(0, 20, 40).unwrap()));
        let wide = random(&[3, 50, 30]);
        check(&layer, &wide.narrow(2, 4, 24).unwrap(), Epilogue::None);
        check(&layer, &wide.narrow(1, 7, 20).unwrap().narrow(2, 0, 24).unwrap(), Epilogue::Gelu);
        check(&layer, &random(&[3, 24, 11]).transpose(1, 2).unwrap(), Epilogue::None);
        check(&layer, &random(&[1, 9, 24]).broadcast_as((4, 9, 24)).unwrap(), Epilogue::None);
    }

    #[test]
    fn keeps_what_is_not_finite_in_its_row() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            // An odd width, and rows and outputs that leave most of a tile empty.
            let ones = Tensor::ones((6, 5), dtype, &Device::Cpu).unwrap();
            let layer = Linear::new(ones, Some(random(&[6]).to_dtype(dtype).unwrap()));
            let rows =
                [[1f32, 2., 3., 4., 5.], [1., f32::NAN, 3., 4., 5.], [0.; 5], [1., 2., 3., 4., f32::INFINITY], [3.; 5]];
            let x = Tensor::new(&[rows], &Device::Cpu).unwrap().to_dtype(dtype).unwrap();
            for epilogue in [Epilogue::None, Epilogue::Gelu] {
                for (level, y) in at_every_level(&layer, &x, epilogue) {
                    let y = &y.to_dtype(DType::F32).unwrap().to_vec3::<f32>().unwrap()[0];
                    assert!(y[1].iter().all(|y| y.is_nan()), "{dtype:?} {level}: {:?}", y[1]);
                    assert!(y[3].iter().all(|y| *y == f32::INFINITY), "{dtype:?} {level}: {:?}", y[3]);
                    let others = y[0].iter().chain(&y[2]).chain(&y[4]);
                    assert!(others.clone().all(|y| y.is_finite()), "{dtype:?} {level}: {y:?}");
                }
            }
        }
    }

    #[test]
    fn gradients_go_through_the_ops_of_candle() {
        let weight = Var::from_tensor(&random(&[3, 2])).unwrap();
        let layer = Linear::new(weight.as_tensor().clone(), None);
        let x = random(&[1, 5, 2]);
        assert!(!is_fused(&layer, &x));
        let gradients = linear(&layer, &x, Epilogue::Gelu).unwrap().sum_all().unwrap().backward().unwrap();
        assert!(gradients.get(&weight).is_some());
    }

    #[test]
    fn another_width_is_refused() {
        let layer = Linear::new(random(&[3, 2]), None);
        let error = linear(&layer, &random(&[1, 5, 4]), Epilogue::None).unwrap_err().to_string();
        assert!(error.contains("[3, 2]") && error.contains("[1, 5, 4]"), "{error}");
    }
}
