//! `y = f(x Wᵀ + b)` on the CPU in one pass, for f32, f16 and bf16.
//!
//! candle multiplies, then adds the bias through fresh memory, then applies the activation through fresh memory again.
//! Here a block of rows starts as the bias, the product is added to it, and the activation follows while the block is in
//! cache.
//!
//! Numbers of two bytes are widened, multiplied, added and activated in f32 and rounded once. candle's own products of f16
//! and bf16 do not promise that (see `docs/half-precision-on-arm.md`).

use std::borrow::Cow;
use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Module, Result, Shape, Storage, Tensor, bail};
use candle_nn::Linear;
use gemm::Parallelism;
use half::{bf16, f16};

use super::convert::Narrow;
use super::gelu::gelu;
use super::rows::make_rows;
use super::to_dtype;
use super::vectorised::vectorised;
use crate::element::Element;

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
        return readable(x)?.apply_op1_no_bwd(&FusedLinear { layer, epilogue });
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
    fn typed<T: Element>(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let weight_guard = self.layer.weight().storage_and_layout();
        let bias_guard = self.layer.bias().map(Tensor::storage_and_layout);
        let weight = Matrix::new::<T>(on_cpu(&weight_guard.0)?, weight_guard.1)?;
        let bias = match &bias_guard {
            Some((storage, layout)) => Some(vector::<T>(on_cpu(storage)?, layout)?),
            None => None,
        };
        let x = Rows::<T>::new(storage, layout)?;
        if x.width != weight.columns || bias.as_ref().is_some_and(|bias| bias.len() != weight.rows) {
            bail!("a linear layer of shape {:?} does not take {:?}", self.layer.weight().dims(), layout.dims());
        }
        let width = weight.rows;
        let fill = |first: usize, block: &mut [MaybeUninit<T>]| self.fill(&x, &weight, bias.as_deref(), first, block);
        // SAFETY: `fill` writes every number of its block.
        let output = unsafe { make_rows(x.batch * x.tokens, width, x.width * width, fill) };
        Ok((T::storage(output), Shape::from((x.batch, x.tokens, width))))
    }

    /// The rows of one block, from row `first` on; a block may reach over samples.
    fn fill<T: Element>(
        &self,
        x: &Rows<'_, T>,
        weight: &Matrix<'_>,
        bias: Option<&[f32]>,
        first: usize,
        block: &mut [MaybeUninit<T>],
    ) {
        let width = weight.rows;
        if let (Some(block), Some(data)) = (T::as_uninit_f32(block), T::as_f32(x.data)) {
            let in_place = |start: usize, rows: usize| {
                let (sample, token) = ((first + start) / x.tokens, (first + start) % x.tokens);
                (data[x.offset(sample, token)..].as_ptr(), x.token_stride, rows.min(x.tokens - token))
            };
            self.multiply(weight, bias, in_place, block);
            return;
        }
        // Widened and narrowed in pieces that stay in cache.
        let piece = (PIECE / width.max(x.width)).max(1);
        let (mut wide, mut sums) = (vec![0f32; piece * x.width], Vec::with_capacity(piece * width));
        for (index, block) in block.chunks_mut(piece * width).enumerate() {
            let (first, rows) = (first + index * piece, block.len() / width);
            let tokens = (first..first + rows).map(|row| x.row(row / x.tokens, row % x.tokens));
            vectorised(Widen { rows: tokens, width: x.width, target: &mut wide });
            let sums = &mut sums.spare_capacity_mut()[..rows * width];
            let widened = |start: usize, rows: usize| (wide[start * x.width..].as_ptr(), x.width, rows);
            let sums = self.multiply(weight, bias, widened, sums);
            vectorised(Narrow { source: sums, target: block });
        }
    }

    /// `f(x Wᵀ + b)` of as many rows as `target` has; `rows(start, count)` says where row `start` begins, the distance of
    /// the next one and how many of `count` follow at this distance.
    fn multiply<'t>(
        &self,
        weight: &Matrix<'_>,
        bias: Option<&[f32]>,
        rows: impl Fn(usize, usize) -> (*const f32, usize, usize),
        target: &'t mut [MaybeUninit<f32>],
    ) -> &'t mut [f32] {
        let width = weight.rows;
        if let Some(bias) = bias {
            for row in target.chunks_exact_mut(width) {
                row.iter_mut().zip(bias).for_each(|(number, bias)| {
                    number.write(*bias);
                });
            }
        }
        let (mut row, end) = (0, target.len() / width);
        while row < end {
            let (source, stride, count) = rows(row, end - row);
            let target = &mut target[row * width..][..count * width];
            // SAFETY: source and weight hold the rows and columns that their constructors checked, the target has `count`
            // rows of `width` numbers, and it is read only if the bias was written to it.
            unsafe {
                gemm::gemm(
                    count,
                    width,
                    weight.columns,
                    target.as_mut_ptr().cast::<f32>(),
                    1,
                    width as isize,
                    bias.is_some(),
                    source,
                    1,
                    stride as isize,
                    weight.data.as_ptr(),
                    weight.row_stride as isize,
                    weight.column_stride as isize,
                    1.0,
                    1.0,
                    false,
                    false,
                    false,
                    Parallelism::None,
                );
            }
            row += count;
        }
        // SAFETY: the product has written every number.
        let target = unsafe { &mut *(std::ptr::from_mut(target) as *mut [f32]) };
        if self.epilogue == Epilogue::Gelu {
            gelu(target);
        }
        target
    }
}

/// Numbers of a piece of rows that are widened: 128 KiB.
const PIECE: usize = 1 << 15;

/// The loop that widens, compiled once for every instruction set that [`vectorised`] may find.
struct Widen<'a, R> {
    rows: R,
    width: usize,
    target: &'a mut [f32],
}

impl<'x, T: Element, R: Iterator<Item = &'x [T]>> pulp::NullaryFnOnce for Widen<'_, R> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        for (row, target) in self.rows.zip(self.target.chunks_exact_mut(self.width)) {
            T::widen(row, target);
        }
    }
}

/// Rows `[batch, tokens, width]` with adjacent channels. Invariant: `data` holds all of them.
struct Rows<'a, T> {
    data: &'a [T],
    batch: usize,
    tokens: usize,
    width: usize,
    batch_stride: usize,
    token_stride: usize,
}

impl<'a, T: Element> Rows<'a, T> {
    fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (&[batch, tokens, width], &[batch_stride, token_stride, channel_stride]) = (layout.dims(), layout.stride())
        else {
            bail!("a linear layer takes [batch, tokens, width], got {:?}", layout.dims());
        };
        let data = from(storage.as_slice::<T>()?, layout.start_offset());
        let last = batch.saturating_sub(1) * batch_stride + tokens.saturating_sub(1) * token_stride + width;
        if channel_stride != 1 || data.len() < last {
            bail!("a linear layer needs adjacent channels inside their storage, got {layout:?}");
        }
        Ok(Self { data, batch, tokens, width, batch_stride, token_stride })
    }

    fn offset(&self, sample: usize, token: usize) -> usize {
        sample * self.batch_stride + token * self.token_stride
    }

    /// The channels of a token.
    fn row(&self, sample: usize, token: usize) -> &'a [T] {
        &self.data[self.offset(sample, token)..][..self.width]
    }
}

/// A weight `[rows, columns]` in f32, in any strides. Invariant: `data` holds all of it.
struct Matrix<'a> {
    data: Cow<'a, [f32]>,
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    fn new<T: Element>(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (&[rows, columns], &[row_stride, column_stride]) = (layout.dims(), layout.stride()) else {
            bail!("the weight of a linear layer has shape [out, in], got {:?}", layout.dims());
        };
        let data = from(storage.as_slice::<T>()?, layout.start_offset());
        let len = rows.saturating_sub(1) * row_stride + columns.saturating_sub(1) * column_stride + 1;
        if rows * columns > 0 && data.len() < len {
            bail!("a weight does not lie inside its storage: {layout:?}");
        }
        let data = wide(&data[..len.min(data.len())]);
        Ok(Self { data, rows, columns, row_stride, column_stride })
    }
}

/// The numbers of a contiguous vector in f32.
fn vector<'a, T: Element>(storage: &'a CpuStorage, layout: &Layout) -> Result<Cow<'a, [f32]>> {
    match layout.contiguous_offsets() {
        Some((start, end)) if layout.dims().len() == 1 => Ok(wide(&storage.as_slice::<T>()?[start..end])),
        _ => bail!("the bias of a linear layer is a contiguous vector, got {layout:?}"),
    }
}

/// The numbers themselves if they are f32, else a copy.
fn wide<T: Element>(numbers: &[T]) -> Cow<'_, [f32]> {
    match T::as_f32(numbers) {
        Some(numbers) => Cow::Borrowed(numbers),
        None => {
            let mut wide = vec![0f32; numbers.len()];
            vectorised(Widen { rows: std::iter::once(numbers), width: numbers.len(), target: &mut wide });
            Cow::Owned(wide)
        }
    }
}

fn from<T>(data: &[T], start: usize) -> &[T] {
    data.get(start..).unwrap_or_default()
}

fn on_cpu(storage: &Storage) -> Result<&CpuStorage> {
    match storage {
        Storage::Cpu(storage) => Ok(storage),
        _ => bail!("the weights of a linear layer on the CPU must be on the CPU"),
    }
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

    fn check(layer: &Linear, x: &Tensor, epilogue: Epilogue) {
        assert!(is_fused(layer, x));
        let got = linear(layer, x, epilogue).unwrap();
        let want = exact(layer, x, epilogue);
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
        for (got, want) in numbers(&got).iter().zip(numbers(&want)) {
            let bound = bound + half_ulp * want.abs();
            let close = (got - want).abs() <= bound;
            assert!(close, "{got}, expected {want}, allowed {bound:e}");
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
            for (batch, tokens, input, output) in [(1, 1, 1, 1), (2, 7, 5, 3), (3, 301, 64, 17), (1, 900, 333, 129)] {
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
    fn keeps_nan_in_its_row() {
        let layer = Linear::new(random(&[6, 4]), Some(random(&[6])));
        let x = Tensor::new(&[[[1f32, 2., 3., 4.], [1., f32::NAN, 3., 4.], [0., 0., 0., 0.]]], &Device::Cpu).unwrap();
        let y = linear(&layer, &x, Epilogue::Gelu).unwrap().to_vec3::<f32>().unwrap();
        assert!(y[0][1].iter().all(|y| y.is_nan()));
        assert!(y[0][0].iter().chain(&y[0][2]).all(|y| y.is_finite()));
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
