//! Tensor maps: what tells the copy engine of Hopper (TMA) where the rows of a tensor are.

use std::ffi::c_void;
use std::ptr;
use std::sync::OnceLock;

use candle_core::cuda::WrapErr;
use candle_core::cuda::cudarc::driver::{DeviceRepr, sys};
use candle_core::{Layout, Result};

use super::arguments::{RowView, Sm90Arguments};
use super::tuning::{Element, Sm90Row};

/// A tensor map, as kernels take it.
pub(super) type TensorMap = sys::CUtensorMap;

// SAFETY: tensor maps and plain numbers in C layout, the same struct as in `kernels/cuda/arguments.cuh`.
unsafe impl DeviceRepr for Sm90Arguments<TensorMap> {}

/// Strides of a tensor map are below this many bytes.
const MAX_STRIDE_BYTES: usize = 1 << 40;

/// Whether a tensor map can describe rows `[batch, heads, tokens, head_dim]` of this layout, which
/// [`is_readable`](crate::attention::gpu::is_readable) has accepted.
///
/// Coordinates have 32 bits, and only a batch row may be repeated with a stride of 0.
pub(super) fn is_describable(layout: &Layout, element_bytes: usize) -> bool {
    let (&[batch, heads, tokens, _], &[batch_stride, head_stride, token_stride, _]) = (layout.dims(), layout.stride())
    else {
        return false;
    };
    let in_range = |dim: usize| i32::try_from(dim).is_ok();
    let stride = |dim: usize, stride: usize| dim <= 1 || stride * element_bytes < MAX_STRIDE_BYTES;
    [batch, heads, tokens].into_iter().all(in_range)
        && stride(batch, batch_stride)
        && stride(heads, head_stride)
        && stride(tokens, token_stride)
        && (heads <= 1 || head_stride > 0)
        && (tokens <= 1 || token_stride > 0)
}

/// Describes rows in boxes of 64 channels × 128 tokens, with the swizzle that the kernel expects. Channels and tokens
/// past the end read as zeros.
///
/// `view` has `[batch, heads, tokens, head_dim]` rows of f16 or bf16; all are at least 1.
pub(super) fn encode(view: &RowView, shape: [usize; 4], element: Element) -> Result<TensorMap> {
    let data_type = match element {
        Element::F16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        Element::Bf16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        other => candle_core::bail!("the kernel for Hopper takes f16 and bf16, got {}", other.name()),
    };
    let [batch, heads, tokens, head_dim] = shape.map(|dim| dim as u64);
    // One row that serves the whole batch; the kernel asks for row 0 then.
    let batch = if view.batch_stride == 0 { 1 } else { batch };
    // The stride of a dimension of 1 means nothing, but must be valid.
    let stride = |dim: u64, stride: i64| (if dim == 1 { head_dim } else { stride as u64 }) * element.bytes() as u64;
    let sizes = [head_dim, tokens, heads, batch];
    let strides =
        [stride(tokens, view.token_stride), stride(heads, view.head_stride), stride(batch, view.batch_stride)];
    let box_sizes = [Sm90Row::SLAB_CHANNELS as u32, Sm90Row::KEYS as u32, 1, 1];
    let element_strides = [1u32; 4];
    let mut map = TensorMap { opaque: [0; 16] };
    let encode = encode_function()?;
    // SAFETY: the arrays hold one number per dimension (strides: per dimension but the first), and the driver checks
    // the numbers. It only notes the address.
    let result = unsafe {
        encode(
            &mut map,
            data_type,
            sizes.len() as u32,
            view.data as *mut c_void,
            sizes.as_ptr(),
            strides.as_ptr(),
            box_sizes.as_ptr(),
            element_strides.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        )
    };
    result.result().map_err(|error| {
        let message =
            format!("no tensor map for {element:?} rows {shape:?} with strides of {strides:?} bytes: {error}");
        candle_core::Error::Msg(message).bt()
    })?;
    Ok(map)
}

/// `cuTensorMapEncodeTiled`.
type Encode = unsafe extern "C" fn(
    *mut TensorMap,
    sys::CUtensorMapDataType,
    u32,
    *mut c_void,
    *const u64,
    *const u64,
    *const u32,
    *const u32,
    sys::CUtensorMapInterleave,
    sys::CUtensorMapSwizzle,
    sys::CUtensorMapL2promotion,
    sys::CUtensorMapFloatOOBfill,
) -> sys::CUresult;

/// Oldest CUDA version whose driver has tensor maps, as the driver counts.
const ENCODE_SINCE: i32 = 12_000;

/// The driver's function. Asked for at run time, so that a driver without it still runs everything else.
fn encode_function() -> Result<Encode> {
    static ENCODE: OnceLock<Encode> = OnceLock::new();
    if let Some(encode) = ENCODE.get() {
        return Ok(*encode);
    }
    let mut function = ptr::null_mut();
    let mut found = sys::CUdriverProcAddressQueryResult::CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    // SAFETY: the name ends with a zero byte, and both targets outlive the call.
    let result = unsafe {
        sys::cuGetProcAddress_v2(c"cuTensorMapEncodeTiled".as_ptr(), &mut function, ENCODE_SINCE, 0, &mut found)
    };
    result.result().w()?;
    if function.is_null() {
        candle_core::bail!("the CUDA driver has no cuTensorMapEncodeTiled ({found:?}); it is older than CUDA 12.0");
    }
    // SAFETY: the driver returned the function of this name, and this is its signature in cuda.h.
    let encode = unsafe { std::mem::transmute::<*mut c_void, Encode>(function) };
    Ok(*ENCODE.get_or_init(|| encode))
}

#[cfg(test)]
mod tests {
    use candle_core::Shape;

    use super::*;

    fn layout(shape: [usize; 4], stride: [usize; 4]) -> Layout {
        Layout::new(Shape::from(shape.to_vec()), stride.to_vec(), 0)
    }

    #[test]
    fn rows_of_a_fused_projection_are_describable() {
        assert!(is_describable(&layout([2, 3, 1000, 64], [576_000, 64, 576, 1]), 2));
    }

    #[test]
    fn repeated_heads_and_far_rows_are_not() {
        assert!(!is_describable(&layout([1, 3, 1000, 64], [64_000, 0, 64, 1]), 2));
        assert!(is_describable(&layout([4, 3, 1000, 64], [0, 64, 192, 1]), 2));
        assert!(!is_describable(&layout([1, 1, 1 << 32, 64], [0, 0, 64, 1]), 2));
        assert!(!is_describable(&layout([2, 3, 8, 64], [1 << 40, 64, 192, 1]), 2));
        assert!(is_describable(&layout([1, 3, 8, 64], [1 << 40, 64, 192, 1]), 2));
    }
}
