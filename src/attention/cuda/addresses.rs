//! Device addresses of tensors and buffers, each with the guard that keeps it valid for a launch and orders other streams
//! after it.

use std::ops::Deref;

use candle_core::cuda::CudaDType;
use candle_core::cuda::cudarc::driver::{CudaSlice, CudaStream, DevicePtr, DevicePtrMut, SyncOnDrop};
use candle_core::{CudaStorage, Layout, Result, Storage};

/// An address; null (0) where there is nothing.
pub(crate) struct Address<'a> {
    pub value: u64,
    _guard: Option<SyncOnDrop<'a>>,
}

impl<'a> Address<'a> {
    /// Of a buffer that kernels read.
    pub(crate) fn of<T: 'a>(slice: Option<&'a CudaSlice<T>>, stream: &'a CudaStream) -> Self {
        Self::with_guard(slice.map(|slice| slice.device_ptr(stream)))
    }

    /// Of a buffer that kernels write.
    pub(crate) fn of_mut<T: 'a>(slice: Option<&'a mut CudaSlice<T>>, stream: &'a CudaStream) -> Self {
        Self::with_guard(slice.map(|slice| slice.device_ptr_mut(stream)))
    }

    fn with_guard(pointer: Option<(u64, SyncOnDrop<'a>)>) -> Self {
        pointer.map_or(Self { value: 0, _guard: None }, |(value, guard)| Self { value, _guard: Some(guard) })
    }

    /// Of the storage of an operand.
    pub(crate) fn of_storage<T: CudaDType + 'a>(storage: &'a CudaStorage, stream: &'a CudaStream) -> Result<Self> {
        Ok(Self::of(Some(storage.as_cuda_slice::<T>()?), stream))
    }

    /// Of a tensor that is no operand of the op, with its layout.
    pub(crate) fn of_tensor<T: CudaDType + 'a>(
        (storage, layout): &'a (impl Deref<Target = Storage>, &'a Layout),
        stream: &'a CudaStream,
    ) -> Result<(Self, &'a Layout)> {
        let Storage::Cuda(storage) = &**storage else {
            candle_core::bail!("the cache and the RoPE frequencies of a CUDA launch must be on the device");
        };
        Ok((Self::of_storage::<T>(storage, stream)?, layout))
    }
}
