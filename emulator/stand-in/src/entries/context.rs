//! Devices and their primary contexts.

use std::ffi::{CStr, c_char};

use super::{entries, give};
use crate::driver::{Handle, context_handle, current_device, set_current_device};
use crate::failure::{Failure, name};

/// Attributes of a device, as in the driver's header.
const MULTIPROCESSORS: u32 = 16;
const CAPABILITY_MAJOR: u32 = 75;
const CAPABILITY_MINOR: u32 = 76;
const SHARED_BYTES_OPT_IN: u32 = 97;
const MEMORY_POOLS: u32 = 115;

/// Few, so that little work already takes turns.
const MULTIPROCESSOR_COUNT: i32 = 4;

/// The largest dynamic shared memory of a block.
pub(super) fn most_shared_bytes(capability: (i32, i32)) -> i32 {
    if capability.0 >= 9 { 227 << 10 } else { 163 << 10 }
}

entries! {
    fn cuInit(_flags: u32) |_, _| Ok(())

    fn cuDriverGetVersion(version: *mut i32) |_, version| give(version, 13_000)

    fn cuDeviceGetCount(count: *mut i32) |driver, count| give(count, driver.devices.len() as i32)

    fn cuDeviceGet(device: *mut i32, ordinal: i32) |driver, device, ordinal| {
        if ordinal < 0 || ordinal as usize >= driver.devices.len() {
            return Err(Failure::INVALID_DEVICE);
        }
        give(device, ordinal)
    }

    fn cuDeviceGetName(name: *mut c_char, bytes: i32, device: i32) |_, name, bytes, device| {
        let text = format!("stand-in {device}");
        for (place, byte) in text.bytes().chain([0]).take(bytes.max(0) as usize).enumerate() {
            give(name.add(place), byte as c_char)?;
        }
        Ok(())
    }

    fn cuDeviceTotalMem_v2(bytes: *mut usize, device: i32) |driver, bytes, device| {
        give(bytes, driver.devices.get(device as usize).ok_or(Failure::INVALID_DEVICE)?.heap().capacity)
    }

    fn cuDeviceGetAttribute(value: *mut i32, attribute: u32, device: i32) |driver, value, attribute, device| {
        let device = driver.devices.get(device as usize).ok_or(Failure::INVALID_DEVICE)?;
        give(value, match attribute {
            MULTIPROCESSORS => MULTIPROCESSOR_COUNT,
            CAPABILITY_MAJOR => device.capability.0,
            CAPABILITY_MINOR => device.capability.1,
            SHARED_BYTES_OPT_IN => most_shared_bytes(device.capability),
            MEMORY_POOLS => 1,
            _ => return Err(Failure::NOT_SUPPORTED),
        })
    }

    fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: i32) |driver, context, device| {
        driver.devices.get_mut(device as usize).ok_or(Failure::INVALID_DEVICE)?.holders += 1;
        give(context, context_handle(device as usize))
    }

    fn cuDevicePrimaryCtxRelease_v2(device: i32) |driver, device| {
        let device = driver.devices.get_mut(device as usize).ok_or(Failure::INVALID_DEVICE)?;
        device.holders = device.holders.checked_sub(1).ok_or(Failure::INVALID_CONTEXT)?;
        Ok(())
    }

    fn cuCtxGetCurrent(context: *mut Handle) |_, context| {
        give(context, current_device().map_or(std::ptr::null_mut(), context_handle))
    }

    fn cuCtxSetCurrent(context: Handle) |driver, context| {
        let device = if context.is_null() { None } else { Some(driver.device_of(context)?) };
        set_current_device(device);
        Ok(())
    }

    fn cuCtxSynchronize() |driver| {
        let (_, device) = driver.current()?;
        device.refuse_in_capture(None)?;
        device.run_all();
        device.check()
    }
}

/// Not a call that can fail: whoever reports an error asks for its name.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the name in the driver's header")]
unsafe extern "C" fn cuGetErrorName(code: u32, text: *mut *const c_char) -> u32 {
    // SAFETY: the caller keeps to the driver's header.
    match unsafe { give(text, name(code).as_ptr()) } {
        Ok(()) => 0,
        Err(failure) => failure.0,
    }
}

/// As above: the same text.
#[unsafe(no_mangle)]
#[allow(non_snake_case, reason = "the name in the driver's header")]
unsafe extern "C" fn cuGetErrorString(code: u32, text: *mut *const c_char) -> u32 {
    // SAFETY: as above.
    unsafe { cuGetErrorName(code, text) }
}

/// The function that programs ask for by its name.
const BY_NAME: &CStr = c"cuTensorMapEncodeTiled";

entries! {
    fn cuGetProcAddress_v2(symbol: *const c_char, function: *mut Handle, _version: i32, _flags: u64, found: *mut u32)
        |_, symbol, function, _, _, found| {
            // As the driver's header numbers them: found, and no such symbol.
            let is_known = CStr::from_ptr(symbol) == BY_NAME;
            if !found.is_null() {
                found.write(u32::from(!is_known));
            }
            let address = crate::tensor_map::cuTensorMapEncodeTiled as *const ();
            give(function, if is_known { address as Handle } else { std::ptr::null_mut() })?;
            if is_known { Ok(()) } else { Err(Failure::NOT_FOUND) }
        }
}
