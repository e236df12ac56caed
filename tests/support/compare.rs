//! Comparisons that a NaN cannot pass.

use candle_core::{DType, Tensor};

/// The numbers of a tensor as f64, row-major.
pub fn numbers(tensor: &Tensor) -> candle_core::Result<Vec<f64>> {
    // candle's kernels take no empty tensors.
    if tensor.elem_count() == 0 {
        return Ok(Vec::new());
    }
    tensor.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()
}

/// Checks that shapes agree and no number is further than `tolerance` from its expectation. The error tells the worst.
pub fn check_close(what: &str, got: &Tensor, want: &Tensor, tolerance: f64) -> Result<(), String> {
    if got.dims() != want.dims() {
        return Err(format!("{what}: shape {:?}, expected {:?}", got.dims(), want.dims()));
    }
    let read = |tensor: &Tensor| numbers(tensor).map_err(|error| format!("{what}: {error}"));
    let (got, want) = (read(got)?, read(want)?);
    let mut worst = (0usize, 0f64);
    for (index, (got, want)) in got.iter().zip(&want).enumerate() {
        let difference = (got - want).abs();
        if difference.is_nan() || difference > worst.1 {
            worst = (index, difference);
        }
        if difference.is_nan() {
            break;
        }
    }
    // A NaN fails.
    if worst.1.is_nan() || worst.1 > tolerance {
        let (index, difference) = worst;
        let (got, want) = (got[index], want[index]);
        return Err(format!(
            "{what}: number {index} is {got}, expected {want}: off by {difference:e}, allowed {tolerance:e}"
        ));
    }
    Ok(())
}
