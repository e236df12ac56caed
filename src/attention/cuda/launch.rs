//! Launches: tensors to kernel arguments, and the one place where kernels are started.

use candle_core::cuda::WrapErr;
use candle_core::cuda::cudarc::driver::{CudaFunction, CudaStream, DeviceRepr, LaunchConfig};
use candle_core::{Layout, Result};

use super::arguments::{AttentionArguments, RotationArguments, RotationTable, RowView};
use crate::AttentionError;

// SAFETY: plain numbers in C layout, the same struct as in `kernels/cuda/arguments.cuh`.
unsafe impl DeviceRepr for AttentionArguments {}
// SAFETY: as above.
unsafe impl DeviceRepr for RotationArguments {}

/// Copies and loads of the kernels move this many bytes, from addresses that are multiples of it.
const ACCESS_BYTES: usize = 16;

/// Whether kernels can read rows of this layout in place: adjacent channels, and rows at multiples of 16 bytes.
pub(in crate::attention) fn is_readable(layout: &Layout, element_bytes: usize) -> bool {
    let aligned = |elements: usize| (elements * element_bytes).is_multiple_of(ACCESS_BYTES);
    let (&[.., head_dim], &[.., channel_stride]) = (layout.dims(), layout.stride()) else { return false };
    let outer = layout.dims().iter().zip(layout.stride()).take(layout.dims().len() - 1);
    (channel_stride == 1 || head_dim == 1)
        && aligned(layout.start_offset())
        && outer.into_iter().all(|(&dim, &stride)| dim <= 1 || aligned(stride))
}

/// The view of a tensor `[batch, heads, tokens, head_dim]` whose storage starts at `address`. With `broadcast`, its one
/// batch row serves every row.
pub(super) fn row_view(address: u64, layout: &Layout, element_bytes: usize, broadcast: bool) -> Result<RowView> {
    let &[batch_stride, head_stride, token_stride, _] = layout.stride() else {
        let expected = "[batch, heads, tokens, head_dim]".to_string();
        return Err(AttentionError::Shape { argument: "operand", expected, got: layout.dims().to_vec() }.into());
    };
    if !is_readable(layout, element_bytes) {
        candle_core::bail!("rows must have adjacent channels and start at multiples of 16 bytes, got {layout:?}");
    }
    Ok(RowView {
        data: address + (layout.start_offset() * element_bytes) as u64,
        batch_stride: if broadcast { 0 } else { batch_stride as i64 },
        head_stride: head_stride as i64,
        token_stride: token_stride as i64,
    })
}

/// The view of rows `[batch, tokens, heads, head_dim]` without gaps.
pub(super) fn dense_rows(address: u64, tokens: usize, heads: usize, head_dim: usize) -> RowView {
    let token_stride = (heads * head_dim) as i64;
    RowView { data: address, batch_stride: tokens as i64 * token_stride, head_stride: head_dim as i64, token_stride }
}

/// The angles `[batch or 1, tokens, head_dim / 2, 2]` whose storage starts at `address`.
pub(super) fn rotation_table(address: u64, layout: &Layout) -> Result<RotationTable> {
    let (&[batch, _, pairs, 2], &[batch_stride, token_stride, pair_stride, 1]) = (layout.dims(), layout.stride())
    else {
        candle_core::bail!("RoPE angles must have shape [batch, tokens, head_dim / 2, 2] with adjacent numbers");
    };
    let even = |floats: usize| floats.is_multiple_of(2);
    if !((pair_stride == 2 || pairs <= 1) && even(layout.start_offset()) && even(batch_stride) && even(token_stride)) {
        candle_core::bail!("RoPE angles of a token must be adjacent, got {layout:?}");
    }
    Ok(RotationTable {
        data: address + (layout.start_offset() * size_of::<f32>()) as u64,
        batch_stride: if batch == 1 { 0 } else { batch_stride as i64 },
        token_stride: token_stride as i64,
    })
}

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
    let Ok(blocks) = u32::try_from(extent.blocks) else {
        candle_core::bail!("{} blocks are more than one launch can have", extent.blocks);
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
