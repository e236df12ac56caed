//! The rules of tensor maps, and the emulator's in the place of the driver's.

use std::ffi::c_void;
use std::slice;

use emulator::TensorMap;

use crate::driver::call;
use crate::failure::{Failure, Outcome};

/// Bytes of an element by the number of its type; the packed types behind these are not stood in for.
const ELEMENT_BYTES: [usize; 13] = [1, 2, 4, 4, 8, 8, 2, 4, 8, 2, 4, 4, 4];

/// Bytes that a swizzle works over, by its number; those of other atoms are not stood in for.
const SWIZZLE_BYTES: [u32; 4] = [0, 32, 64, 128];

/// What a caller asks for.
struct Description<'a> {
    data_type: u32,
    address: u64,
    sizes: &'a [u64],
    strides: &'a [u64],
    boxed: &'a [u32],
    element_strides: &'a [u32],
    interleave: u32,
    swizzle: u32,
    promotion: u32,
    fill: u32,
}

/// As in the driver's header.
///
/// # Safety
/// Every array has as many numbers as the rank says, that of strides one less; the map may be written.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the name in the driver's header")]
pub(crate) unsafe extern "C" fn cuTensorMapEncodeTiled(
    map: *mut TensorMap,
    data_type: u32,
    rank: u32,
    address: *mut c_void,
    sizes: *const u64,
    strides: *const u64,
    boxed: *const u32,
    element_strides: *const u32,
    interleave: u32,
    swizzle: u32,
    promotion: u32,
    fill: u32,
) -> u32 {
    call("cuTensorMapEncodeTiled", |_| {
        if !map.is_aligned() || !(1..=5).contains(&rank) {
            return Err(Failure::INVALID_VALUE);
        }
        let rank = rank as usize;
        // SAFETY: the caller keeps to the driver's header.
        let description = unsafe {
            Description {
                data_type,
                address: address as u64,
                sizes: slice::from_raw_parts(sizes, rank),
                strides: slice::from_raw_parts(strides, rank - 1),
                boxed: slice::from_raw_parts(boxed, rank),
                element_strides: slice::from_raw_parts(element_strides, rank),
                interleave,
                swizzle,
                promotion,
                fill,
            }
        };
        let encoded = description.encode()?;
        // SAFETY: likewise; its alignment was checked.
        unsafe { map.write(encoded) };
        Ok(())
    })
}

impl Description<'_> {
    /// The header's example makes each stride a multiple of the one before, which it does not ask for: heads may lie inside
    /// of tokens.
    ///
    /// # Errors
    /// A rule of the driver's header is broken, or the emulator knows no such map.
    fn encode(&self) -> Outcome<TensorMap> {
        let Self { address, sizes, strides, boxed, .. } = *self;
        let element_bytes = *ELEMENT_BYTES.get(self.data_type as usize).ok_or(Failure::NOT_SUPPORTED)?;
        let swizzle_bytes = *SWIZZLE_BYTES.get(self.swizzle as usize).ok_or(Failure::NOT_SUPPORTED)?;
        if self.interleave != 0 || self.element_strides.iter().any(|&stride| stride != 1) || self.fill != 0 {
            return Err(Failure::NOT_SUPPORTED);
        }
        let row_bytes = boxed[0] as usize * element_bytes;
        let rules = [
            address.is_multiple_of(16),
            sizes.iter().all(|&size| (1..=1 << 32).contains(&size)),
            strides.iter().all(|&stride| stride.is_multiple_of(16) && stride < 1 << 40),
            boxed.iter().all(|&size| (1..=256).contains(&size)),
            row_bytes.is_multiple_of(16),
            swizzle_bytes == 0 || row_bytes <= swizzle_bytes as usize,
            self.promotion <= 3,
        ];
        if rules.contains(&false) {
            return Err(Failure::INVALID_VALUE);
        }
        Ok(TensorMap::of(address, element_bytes, sizes, strides, boxed, swizzle_bytes))
    }
}
