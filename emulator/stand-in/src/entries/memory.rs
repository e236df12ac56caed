//! Memory and copies.

use std::ffi::c_void;
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

use super::{entries, give};
use crate::device::Device;
use crate::driver::{Driver, Handle};
use crate::failure::{Failure, Outcome};
use crate::heap::Heap;
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

/// Copies between the device that does the work and another one, whose memory is as its streams have left it by then. `sends`:
/// from that which does the work.
fn copy_between(other: Arc<Mutex<Heap>>, sends: bool, to: u64, from: u64, bytes: usize) -> Work {
    Arc::new(move |memory| {
        let mut other = other.lock().unwrap_or_else(PoisonError::into_inner);
        match other.memory() {
            Ok(other) if sends => other.write(to, &memory.read(from, bytes)?),
            Ok(other) => memory.write(to, &other.read(from, bytes)?),
            // No memory was ever there: what is read or written is out of bounds.
            Err(_) => memory.read(if sends { to } else { from }, bytes).map(drop),
        }
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
        let heap = device.heap();
        give(free, heap.capacity.saturating_sub(heap.used()))?;
        give(total, heap.capacity)
    }

    fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: Handle) |driver, address, bytes, stream| {
        let id = driver.stream(stream);
        let (_, device) = driver.current()?;
        device.stream(id)?;
        let outcome = device.heap().allocate(bytes);
        let allocated = match outcome {
            // What is freed in the order of streams is there once they have come so far.
            Err(Failure::OUT_OF_MEMORY) => {
                device.run_all();
                device.heap().allocate(bytes)
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
        let allocated = device.heap().allocate(bytes)?;
        give(address, allocated)
    }

    fn cuMemFreeAsync(address: u64, stream: Handle) |driver, address, stream| {
        if address == 0 {
            return Ok(());
        }
        // In the order of a stream of the current device, whosever memory it is.
        let owner = driver.devices.iter().find(|device| device.heap().has(address)).ok_or(Failure::INVALID_VALUE)?;
        let heap = owner.shared_heap();
        driver.enqueue(stream, Step::Free(address, heap))
    }

    fn cuMemFree_v2(address: u64) |driver, address| {
        let (_, device) = driver.current()?;
        device.refuse_in_capture(None)?;
        device.run_all();
        device.heap().free(address)
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

    fn cuMemcpyPeerAsync(to: u64, to_context: Handle, from: u64, from_context: Handle, bytes: usize, stream: Handle)
        |driver, to, to_context, from, from_context, bytes, stream| {
            let (target, source) = (driver.device_of(to_context)?, driver.device_of(from_context)?);
            let (current, _) = driver.current()?;
            let sends = current == source;
            let other = driver.devices[if sends { target } else { source }].shared_heap();
            let work = match source == target {
                true => copy(to, from, bytes),
                false => copy_between(other, sends, to, from, bytes),
            };
            driver.enqueue(stream, Step::Work(work))
        }

    fn cuMemsetD8Async(to: u64, value: u8, bytes: usize, stream: Handle) |driver, to, value, bytes, stream| {
        driver.enqueue(stream, Step::Work(fill(to, value, bytes)))
    }

    fn cuMemsetD8_v2(to: u64, value: u8, bytes: usize) |driver, to, value, bytes| now(driver, fill(to, value, bytes))
}
