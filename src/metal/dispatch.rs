//! Launches.

use bytemuck::NoUninit;
use candle_metal_kernels::metal::{Buffer, ComputeCommandEncoder, ComputePipeline};
use objc2_metal::MTLSize;

/// What is bound to a buffer index of a kernel.
pub(crate) enum Binding<'a> {
    /// Read, from a byte on.
    Input(&'a Buffer, usize),
    /// Written.
    Output(&'a Buffer),
    /// A function constant takes the parameter away.
    Absent,
}

/// Encodes one launch of `grid` threadgroups of `group` threads. Buffers are bound in order, `arguments` behind them.
///
/// The encoder puts a barrier in front where an earlier launch wrote or still reads one of the buffers, and keeps them
/// until the launch has run.
pub(crate) fn dispatch<A: NoUninit>(
    encoder: &ComputeCommandEncoder,
    pipeline: &ComputePipeline,
    bindings: &[Binding<'_>],
    arguments: &A,
    grid: MTLSize,
    group: MTLSize,
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
    encoder.dispatch_thread_groups(grid, group);
}

/// Threadgroups of a grid, or threads of a threadgroup.
pub(crate) fn extent(width: usize, height: usize) -> MTLSize {
    MTLSize { width, height, depth: 1 }
}
