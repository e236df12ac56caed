//! `y = f(x Wᵀ + b)` on the CPU in one pass.
//!
//! candle multiplies, then adds the bias through fresh memory, then applies the activation through fresh memory again.
//! Here a block of rows starts as the bias, the product is added to it, and the activation follows while the block is in
//! cache.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, CustomOp1, DType, Layout, Module, Result, Shape, Storage, Tensor, bail};
use candle_nn::Linear;
use gemm::Parallelism;

use super::gelu::gelu;
use super::is_plain;
use super::rows::make_rows;

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
        (Epilogue::Gelu, DType::F16 | DType::BF16) => y.to_dtype(DType::F32)?.gelu_erf()?.to_dtype(y.dtype()),
        (Epilogue::Gelu, _) => y.gelu_erf(),
    }
}

/// Whether the op below can take the place of candle's: numbers in f32 on the CPU, and no gradient to follow.
fn is_fused(layer: &Linear, x: &Tensor) -> bool {
    let empty = x.elem_count() == 0 || layer.weight().elem_count() == 0;
    !empty && is_plain(x) && is_plain(layer.weight()) && layer.bias().is_none_or(is_plain)
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
        let weight_guard = self.layer.weight().storage_and_layout();
        let bias_guard = self.layer.bias().map(Tensor::storage_and_layout);
        let weight = Matrix::new(on_cpu(&weight_guard.0)?, weight_guard.1)?;
        let bias = match &bias_guard {
            Some((storage, layout)) => Some(vector(on_cpu(storage)?, layout)?),
            None => None,
        };
        let x = Rows::new(storage, layout)?;
        if x.width != weight.columns || bias.is_some_and(|bias| bias.len() != weight.rows) {
            bail!("a linear layer of shape {:?} does not take {:?}", self.layer.weight().dims(), layout.dims());
        }
        let width = weight.rows;
        let fill = |first: usize, block: &mut [MaybeUninit<f32>]| self.fill(&x, &weight, bias, first, block);
        // SAFETY: `fill` writes its block: the bias if there is one, else the product itself.
        let output = unsafe { make_rows(x.batch * x.tokens, width, x.width * width, fill) };
        Ok((CpuStorage::F32(output), Shape::from((x.batch, x.tokens, width))))
    }
}

impl FusedLinear<'_> {
    /// The rows of one block, from row `first` on; a block may reach over samples.
    fn fill(
        &self,
        x: &Rows<'_>,
        weight: &Matrix<'_>,
        bias: Option<&[f32]>,
        first: usize,
        block: &mut [MaybeUninit<f32>],
    ) {
        let width = weight.rows;
        if let Some(bias) = bias {
            for row in block.chunks_exact_mut(width) {
                row.iter_mut().zip(bias).for_each(|(number, bias)| {
                    number.write(*bias);
                });
            }
        }
        let (mut row, end) = (first, first + block.len() / width);
        while row < end {
            let (sample, token) = (row / x.tokens, row % x.tokens);
            let rows = (x.tokens - token).min(end - row);
            let target = &mut block[(row - first) * width..][..rows * width];
            // SAFETY: source and weight hold the rows and columns that their constructors checked, the target has `rows`
            // rows of `width` numbers, and it is read only if the bias was written to it.
            unsafe {
                gemm::gemm(
                    rows,
                    width,
                    x.width,
                    target.as_mut_ptr().cast::<f32>(),
                    1,
                    width as isize,
                    bias.is_some(),
                    x.row(sample, token),
                    1,
                    x.token_stride as isize,
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
            row += rows;
        }
        if self.epilogue == Epilogue::Gelu {
            // SAFETY: every number of the block has been written.
            gelu(unsafe { &mut *(std::ptr::from_mut(block) as *mut [f32]) });
        }
    }
}

/// Rows `[batch, tokens, width]` with adjacent channels. Invariant: `data` holds all of them.
struct Rows<'a> {
    data: &'a [f32],
    batch: usize,
    tokens: usize,
    width: usize,
    batch_stride: usize,
    token_stride: usize,
}

impl<'a> Rows<'a> {
    fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (&[batch, tokens, width], &[batch_stride, token_stride, channel_stride]) = (layout.dims(), layout.stride())
        else {
            bail!("a linear layer takes [batch, tokens, width], got {:?}", layout.dims());
        };
        let data = from(storage.as_slice::<f32>()?, layout.start_offset());
        let last = batch.saturating_sub(1) * batch_stride + tokens.saturating_sub(1) * token_stride + width;
        if channel_stride != 1 || data.len() < last {
            bail!("a linear layer needs adjacent channels inside their storage, got {layout:?}");
        }
        Ok(Self { data, batch, tokens, width, batch_stride, token_stride })
    }

    /// The channels of a token.
    fn row(&self, sample: usize, token: usize) -> *const f32 {
        self.data[sample * self.batch_stride + token * self.token_stride..].as_ptr()
    }
}

/// A weight `[rows, columns]` in any strides. Invariant: `data` holds all of it.
struct Matrix<'a> {
    data: &'a [f32],
    rows: usize,
    columns: usize,
    row_stride: usize,
    column_stride: usize,
}

impl<'a> Matrix<'a> {
    fn new(storage: &'a CpuStorage, layout: &Layout) -> Result<Self> {
        let (&[rows, columns], &[row_stride, column_stride]) = (layout.dims(), layout.stride()) else {
            bail!("the weight of a linear layer has shape [out, in], got {:?}", layout.dims());
        };
        let data = from(storage.as_slice::<f32>()?, layout.start_offset());
        let len = rows.saturating_sub(1) * row_stride + columns.saturating_sub(1) * column_stride + 1;
        if rows * columns > 0 && data.len() < len {
            bail!("a weight does not lie inside its storage: {layout:?}");
        }
        Ok(Self { data, rows, columns, row_stride, column_stride })
    }
}

/// The numbers of a contiguous vector.
fn vector<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match layout.contiguous_offsets() {
        Some((start, end)) if layout.dims().len() == 1 => Ok(&storage.as_slice::<f32>()?[start..end]),
        _ => bail!("the bias of a linear layer is a contiguous vector, got {layout:?}"),
    }
}

fn from(data: &[f32], start: usize) -> &[f32] {
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
        for (got, want) in numbers(&got).iter().zip(numbers(&want)) {
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
