//! What a test asks and sets. None of these counts as a call.

use std::ffi::{CStr, c_char};

use crate::driver::{Driver, driver};
use crate::failure::Failure;

/// How often a function was called so far, by its name in the header; all functions together for an empty name.
#[unsafe(no_mangle)]
unsafe extern "C" fn stand_in_calls(name: *const c_char) -> u64 {
    // SAFETY: the caller has a text that ends with a zero.
    let name = unsafe { CStr::from_ptr(name) }.to_string_lossy();
    driver().calls.of(&name)
}

/// How often a kernel was launched so far; `candle` are all of candle's own, `product` those of cuBLAS.
#[unsafe(no_mangle)]
unsafe extern "C" fn stand_in_launches(kernel: *const c_char) -> u64 {
    // SAFETY: the caller has a text that ends with a zero.
    let kernel = unsafe { CStr::from_ptr(kernel) }.to_string_lossy();
    driver().calls.launches_of(&kernel)
}

/// Lets the call that comes `number`th from now fail with a code; none for 0.
#[unsafe(no_mangle)]
extern "C" fn stand_in_fail(number: u64, code: u32) {
    driver().calls.fail(number, Failure(code));
}

/// Lets the next call of a function fail with a code.
#[unsafe(no_mangle)]
unsafe extern "C" fn stand_in_fail_next(function: *const c_char, code: u32) {
    // SAFETY: the caller has a text that ends with a zero.
    let function = unsafe { CStr::from_ptr(function) }.to_string_lossy();
    driver().calls.fail_next(&function, Failure(code));
}

/// Writes the name of the function whose call was made to fail, or nothing, and returns its length.
#[unsafe(no_mangle)]
unsafe extern "C" fn stand_in_failed(text: *mut u8, bytes: usize) -> usize {
    let failed = driver().calls.failed().unwrap_or_default();
    // SAFETY: the caller has room for so many bytes.
    unsafe { write(failed, text, bytes) }
}

/// Writes what broke the context of a device, or nothing, and returns its length; forgets it.
#[unsafe(no_mangle)]
unsafe extern "C" fn stand_in_finding(device: usize, text: *mut u8, bytes: usize) -> usize {
    let mut driver = driver();
    let found = driver.devices[device].finding().unwrap_or_default().to_string();
    driver.devices[device].repair();
    // SAFETY: the caller has room for so many bytes.
    unsafe { write(&found, text, bytes) }
}

/// How many objects of a kind a device has, when all work is done: `buffers`, `bytes`, `streams`; `events`, `modules` and
/// `graphs` are those of the process.
#[unsafe(no_mangle)]
unsafe extern "C" fn stand_in_alive(device: usize, kind: *const c_char) -> u64 {
    // SAFETY: the caller has a text that ends with a zero.
    let kind = unsafe { CStr::from_ptr(kind) }.to_string_lossy();
    alive(&mut driver(), device, &kind) as u64
}

fn alive(driver: &mut Driver, device: usize, kind: &str) -> usize {
    driver.devices[device].run_all();
    match kind {
        "buffers" => driver.devices[device].heap().buffers(),
        "bytes" => driver.devices[device].heap().used(),
        "streams" => driver.devices[device].streams.len(),
        "events" => driver.events.len(),
        "modules" => driver.modules.len(),
        "graphs" => driver.graphs.len(),
        _ => 0,
    }
}

/// Sets how much memory a device has.
#[unsafe(no_mangle)]
extern "C" fn stand_in_set_capacity(device: usize, bytes: usize) {
    driver().devices[device].heap().capacity = bytes;
}

/// Copies a text, cut off where there is no more room, and returns how long it is.
///
/// # Safety
/// There is room for so many bytes.
unsafe fn write(text: &str, to: *mut u8, bytes: usize) -> usize {
    // SAFETY: the caller vouches for it.
    unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), to, text.len().min(bytes)) };
    text.len()
}
