//! Launches.

use bytemuck::NoUninit;
use candle_metal_kernels::metal::{Buffer, ComputeCommandEncoder, ComputePipeline};
use objc2_metal::MTLSize;

use crate::kernels::metal::launch::Binding;

/// Encodes one launch of `grid` threadgroups of `threads` threads. Buffers are bound in order, `arguments` behind them.
///
/// The encoder puts a barrier in front where an earlier launch wrote or still reads one of the buffers, and keeps them
/// until the launch has run.
pub(crate) fn dispatch<A: NoUninit>(
    encoder: &ComputeCommandEncoder,
    pipeline: &ComputePipeline,
    bindings: &[Binding<&Buffer>],
    arguments: &A,
    grid: [usize; 2],
    threads: [usize; 2],
) {
    const { assert!(size_of::<A>() <= 4 << 10, "more than may be set as bytes") };
    encoder.set_compute_pipeline_state(pipeline);
    for (index, binding) in bindings.iter().enumerate() {
        match binding {
            Binding::Input(buffer, offset) => encoder.set_input_buffer(index, Some(buffer), *offset),
            Binding::Output(buffer) => encoder.set_output_buffer(index, Some(buffer), 0),
            Binding::Absent => {}
        }
    }
    encoder.set_bytes(bindings.len(), arguments);
    let size = |[width, height]: [usize; 2]| MTLSize { width, height, depth: 1 };
    encoder.dispatch_thread_groups(size(grid), size(threads));
}
