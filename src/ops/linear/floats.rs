//! f32, by the products of the crate `gemm`: blocks of rows start as the bias, and the activation follows in cache.

use std::mem::MaybeUninit;

use gemm::Parallelism;

use super::Epilogue;
use super::operands::{Matrix, Rows};
use crate::ops::gelu::gelu;

/// `f(x Wᵀ + b)` for the rows of one block, from row `first` on; a block may reach over samples. Writes every number of the
/// block; widths were checked.
pub(super) fn fill(
    x: &Rows<'_, f32>,
    weight: &Matrix<'_, f32>,
    bias: Option<&[f32]>,
    epilogue: Epilogue,
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
    let (mut row, end) = (0, block.len() / width);
    while row < end {
        // The rows of one sample lie at one distance.
        let count = (end - row).min(x.tokens - (first + row) % x.tokens);
        let target = &mut block[row * width..][..count * width];
        // SAFETY: source and weight hold the rows and columns that their constructors checked, the target has `count` rows of
        // `width` numbers, and it is read only if the bias was written to it.
        unsafe {
            gemm::gemm(
                count,
                width,
                weight.columns,
                target.as_mut_ptr().cast::<f32>(),
                1,
                width as isize,
                bias.is_some(),
                x.row(first + row).as_ptr(),
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
        row += count;
    }
    // SAFETY: the products have written every number.
    let block = unsafe { &mut *(std::ptr::from_mut(block) as *mut [f32]) };
    if epilogue == Epilogue::Gelu {
        gelu(block);
    }
}
