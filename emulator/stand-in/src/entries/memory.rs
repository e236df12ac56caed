//! Memory and copies.

use std::ffi::c_void;
use std::slice;
use std::sync::Arc;

use super::{entries, give};
use crate::device::Device;
use crate::driver::{Driver, Handle};
use crate::failure::{Failure, Outcome};
use crate::step::{Step, Work};

/// Copies the host's bytes, which it may change behind the call, to the device in the order of a stream.
///
/// # Safety
/// There are so many bytes.
unsafe fn upload(to: u64, from: *const c_void, bytes: usize) -> Work {
    let copy = match bytes {
        0 => Vec::new(),
        // SAFETY: the caller vouches for it.
        _ => unsafe { slice::from_raw_parts(from.cast::<u8>(), bytes) }.to_vec(),
    };
    Arc::new(move |memory| memory.write(to, &copy))
}

/// Copies to the host now.
///
/// # Safety
/// There is room for so many bytes.
unsafe fn download(device: &mut Device, to: *mut c_void, from: u64, bytes: usize) -> Outcome {
    let copy = device.read(from, bytes)?;
    // SAFETY: the caller vouches for it, and the copy lies elsewhere.
    unsafe { std::ptr::copy_nonoverlapping(copy.as_ptr(), to.cast(), bytes) };
    Ok(())
}

fn fill(to: u64, value: u8, bytes: usize) -> Work {
    Arc::new(move |memory| memory.write(to, &vec![value; bytes]))
}

fn copy(to: u64, from: u64, bytes: usize) -> Work {
    Arc::new(move |memory| {
        let copy = memory.read(from, bytes)?;
        memory.write(to, &copy)
    })
}

/// Does work in the order of the legacy stream, and waits for it.
fn now(driver: &mut Driver, work: Work) -> Outcome {
    let (_, device) = driver.current()?;
    device.refuse_in_capture(None)?;
    device.run_all();
    device.work(&work);
    device.check()
}

entries! {
    fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) |driver, free, total| {
        let (_, device) = driver.current()?;
        let capacity = device.capacity;
        give(free, capacity.saturating_sub(device.used()))?;
        give(total, capacity)
    }

    fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: Handle) |driver, address, bytes, stream| {
        let id = driver.stream(stream);
        let (_, device) = driver.current()?;
        device.stream(id)?;
        let allocated = match device.allocate(bytes) {
            // What is freed in the order of streams is there once they have come so far.
            Err(Failure::OUT_OF_MEMORY) => {
                device.run_all();
                device.allocate(bytes)
            }
            outcome => outcome,
        };
        give(address, allocated?)
    }

    fn cuMemAlloc_v2(address: *mut u64, bytes: usize) |driver, address, bytes| {
        let (_, device) = driver.current()?;
        device.refuse_in_capture(None)?;
        if bytes == 0 {
            return Err(Failure::INVALID_VALUE);
        }
        let allocated = device.allocate(bytes)?;
        give(address, allocated)
    }

    fn cuMemFreeAsync(address: u64, stream: Handle) |driver, address, stream| {
        if address == 0 {
            return Ok(());
        }
        driver.enqueue(stream, Step::Free(address))
    }

    fn cuMemFree_v2(address: u64) |driver, address| {
        let (_, device) = driver.current()?;
        device.refuse_in_capture(None)?;
        device.run_all();
        device.free(address)
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: *const c_void, bytes: usize, stream: Handle)
        |driver, to, from, bytes, stream| {
            // A graph would read the host's memory when it runs, and nobody keeps it until then.
            let id = driver.stream(stream);
            driver.current()?.1.refuse_in_capture(Some(id))?;
            driver.enqueue(stream, Step::Work(upload(to, from, bytes)))
        }

    fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, bytes: usize) |driver, to, from, bytes| {
        now(driver, upload(to, from, bytes))
    }

    fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: u64, bytes: usize, stream: Handle)
        |driver, to, from, bytes, stream| {
            let id = driver.stream(stream);
            let (_, device) = driver.current()?;
            device.refuse_in_capture(Some(id))?;
            // Into pageable memory: it has happened when the call returns.
            device.run_in_order(id);
            download(device, to, from, bytes)
        }

    fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, bytes: usize) |driver, to, from, bytes| {
        let (_, device) = driver.current()?;
        device.refuse_in_capture(None)?;
        device.run_all();
        download(device, to, from, bytes)
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) |driver, to, from, bytes, stream| {
        driver.enqueue(stream, Step::Work(copy(to, from, bytes)))
    }

    fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) |driver, to, from, bytes| now(driver, copy(to, from, bytes))

    fn cuMemsetD8Async(to: u64, value: u8, bytes: usize, stream: Handle) |driver, to, value, bytes, stream| {
        driver.enqueue(stream, Step::Work(fill(to, value, bytes)))
    }

    fn cuMemsetD8_v2(to: u64, value: u8, bytes: usize) |driver, to, value, bytes| now(driver, fill(to, value, bytes))
}
