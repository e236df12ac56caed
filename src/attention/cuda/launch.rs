//! Launches: tensors to kernel arguments, and the one place where kernels are started.

use candle_core::Result;
use candle_core::cuda::WrapErr;
use candle_core::cuda::cudarc::driver::{CudaFunction, CudaStream, DeviceRepr, LaunchConfig};

use super::arguments::{AttentionArguments, RotationArguments, RotationTable, RowView};
use crate::AttentionError;
use crate::attention::gpu::{AngleRows, Rows};

// SAFETY: plain numbers in C layout, the same struct as in `kernels/cuda/arguments.cuh`.
unsafe impl DeviceRepr for AttentionArguments {}
// SAFETY: as above.
unsafe impl DeviceRepr for RotationArguments {}

/// The view of a tensor whose storage starts at `address`.
pub(super) fn row_view(address: u64, rows: Rows) -> RowView {
    RowView {
        data: address + rows.offset as u64,
        batch_stride: rows.batch,
        head_stride: rows.head,
        token_stride: rows.token,
    }
}

/// The angles whose storage starts at `address`.
pub(super) fn rotation_table(address: u64, rows: AngleRows) -> RotationTable {
    RotationTable { data: address + rows.offset as u64, batch_stride: rows.batch, token_stride: rows.token }
}

/// The most blocks of a grid along its first axis.
const MOST_BLOCKS: u32 = i32::MAX as u32;

/// The extents of a launch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub blocks: usize,
    pub threads: usize,
    /// Dynamic shared memory of a block.
    pub shared_bytes: usize,
}

/// Starts a kernel whose one parameter is `arguments`.
///
/// # Safety
/// `function` takes a struct like `A`. Every address in `arguments` points to live memory of the extent that the kernel
/// documents, ordered before this point of the stream, and stays alive until the launch has run.
pub(super) unsafe fn launch<A: DeviceRepr>(
    stream: &CudaStream,
    function: &CudaFunction,
    extent: Extent,
    arguments: &A,
) -> Result<()> {
    let blocks = match u32::try_from(extent.blocks) {
        Ok(blocks) if blocks <= MOST_BLOCKS => blocks,
        _ => {
            let expected = "at most 2147483647 work items in one launch";
            return Err(AttentionError::value("plan", expected, extent.blocks).into());
        }
    };
    let config = LaunchConfig {
        grid_dim: (blocks, 1, 1),
        block_dim: (extent.threads as u32, 1, 1),
        shared_mem_bytes: extent.shared_bytes as u32,
    };
    let mut builder = stream.launch_builder(function);
    candle_core::cuda::cudarc::driver::PushKernelArg::arg(&mut builder, arguments);
    // SAFETY: the caller vouches for the arguments; the extents are those that the kernel was compiled for.
    unsafe { builder.launch(config) }.w()?;
    Ok(())
}
