//! The driver's encoding of tensor maps.

use std::ffi::c_void;
use std::ptr;
use std::sync::OnceLock;

use candle_core::Result;
use candle_core::cuda::cudarc::driver::sys;

use super::failure::Doing;
use crate::kernels::cuda::arguments::TensorMap;
use crate::kernels::cuda::tensor_map::TensorMapDescription;
use crate::kernels::cuda::tiling::Element;

/// Has the driver encode a map; one of nothing where there are no rows.
pub(crate) fn encode(description: Option<TensorMapDescription>) -> Result<TensorMap> {
    let Some(description) = description else { return Ok(TensorMap::default()) };
    let TensorMapDescription { address, element, sizes, strides, box_sizes } = &description;
    let data_type = match element {
        Element::F16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        Element::Bf16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        other => candle_core::bail!("the kernel for Hopper takes f16 and bf16, got {}", other.name()),
    };
    const { assert!(TensorMapDescription::SWIZZLE_BYTES == 128) };
    let element_strides = [1u32; 4];
    let mut map = sys::CUtensorMap { opaque: [0; 16] };
    let encode = encode_function()?;
    // SAFETY: the arrays hold one number per dimension (strides: per dimension but the first), and the driver checks
    // the numbers. It only notes the address.
    let result = unsafe {
        encode(
            &mut map,
            data_type,
            sizes.len() as u32,
            *address as *mut c_void,
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
    result
        .result()
        .map_err(|error| candle_core::Error::Msg(format!("no tensor map for {description:?}: {error}")).bt())?;
    Ok(TensorMap { opaque: map.opaque })
}

/// `cuTensorMapEncodeTiled`.
type Encode = unsafe extern "C" fn(
    *mut sys::CUtensorMap,
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
    result.result().doing(|| "cannot ask the driver for its encoding of tensor maps")?;
    if function.is_null() {
        candle_core::bail!("the CUDA driver has no cuTensorMapEncodeTiled ({found:?}); it is older than CUDA 12.0");
    }
    // SAFETY: the driver returned the function of this name, and this is its signature in cuda.h.
    let encode = unsafe { std::mem::transmute::<*mut c_void, Encode>(function) };
    Ok(*ENCODE.get_or_init(|| encode))
}
