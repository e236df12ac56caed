//! Times of calls on a GPU with cold caches.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor};

/// More than any GPU's last cache.
const FLUSH_BYTES: usize = 512 << 20;

/// Times calls on a device.
pub struct DeviceClock {
    pub device: Device,
    /// Overwritten between two calls.
    flushed: Tensor,
}

impl DeviceClock {
    /// On CUDA, memory that is freed stays with the process from here on, as it does in PyTorch. By default the driver
    /// gives it back to the system whenever the device is waited for, and a call would pay for getting it again.
    pub fn new(device: &Device) -> Result<Self> {
        #[cfg(feature = "cuda")]
        if let Device::Cuda(device) = device {
            events::keep_freed_memory(device).map_err(candle_core::Error::wrap)?;
        }
        Ok(Self { device: device.clone(), flushed: Tensor::zeros(FLUSH_BYTES, DType::U8, device)? })
    }

    /// The time of a call on an idle device, until it is idle again.
    pub fn call(&self, run: impl Fn() -> Result<Tensor>) -> Result<Duration> {
        self.flushed.zero_set()?;
        self.device.synchronize()?;
        let start = Instant::now();
        let output = run()?;
        self.device.synchronize()?;
        let elapsed = start.elapsed();
        drop(output);
        Ok(elapsed)
    }

    /// The device's own time for a call, between two events. The host goes through the call while the device still
    /// overwrites the caches, so that launching costs nothing if it takes less than that.
    ///
    /// Nothing on devices that candle has no events for.
    #[cfg_attr(not(feature = "cuda"), allow(unused_variables, reason = "there are no events"))]
    pub fn work(&self, run: impl Fn() -> Result<Tensor>) -> Result<Option<Duration>> {
        self.device.synchronize()?;
        self.flushed.zero_set()?;
        match &self.device {
            #[cfg(feature = "cuda")]
            Device::Cuda(device) => {
                let mark = || events::mark(device).map_err(candle_core::Error::wrap);
                let start = mark()?;
                let _output = run()?;
                let milliseconds = start.elapsed_ms(&mark()?).map_err(candle_core::Error::wrap)?;
                Ok(Some(Duration::from_secs_f64(f64::from(milliseconds) * 1e-3)))
            }
            _ => Ok(None),
        }
    }
}

/// The middle one, or the mean of the two in the middle.
pub fn median(mut times: Vec<Duration>) -> Option<Duration> {
    times.sort();
    let (low, high) = (times.len().checked_sub(1)? / 2, times.len() / 2);
    Some((times[low] + times[high]) / 2)
}

#[cfg(feature = "cuda")]
mod events {
    use candle_core::CudaDevice;
    use candle_core::cuda::cudarc::driver::result::{device, mem_pool};
    use candle_core::cuda::cudarc::driver::sys::{CUevent_flags, CUmemPool_attribute};
    use candle_core::cuda::cudarc::driver::{CudaEvent, DriverError};

    /// An event in the device's stream, with a time.
    pub fn mark(device: &CudaDevice) -> Result<CudaEvent, DriverError> {
        device.cuda_stream().record_event(Some(CUevent_flags::CU_EVENT_DEFAULT))
    }

    /// Lets the device's memory pool keep what is freed.
    pub fn keep_freed_memory(device: &CudaDevice) -> Result<(), DriverError> {
        let stream = device.cuda_stream();
        stream.context().bind_to_thread()?;
        let mut threshold = u64::MAX;
        // SAFETY: the device is the one of a live context.
        let pool = unsafe { device::get_default_mem_pool(stream.context().cu_device()) }?;
        let attribute = CUmemPool_attribute::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        // SAFETY: the pool belongs to that device, and this attribute is a u64, which is copied during the call.
        unsafe { mem_pool::set_attribute(pool, attribute, (&raw mut threshold).cast()) }
    }
}
